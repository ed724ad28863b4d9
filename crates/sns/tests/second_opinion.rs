//! Verifies messages signed by AWS, and compares every result with the `rsa` crate's.
//!
//! The messages are not part of the project. They are read from the folder that
//! `IVESK_WEBHOOK_AWS_VECTORS` names, else from `../shared/vectors/aws` beside the project.

#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "the rules are for the service; tests fail loudly"
)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use ivesk_emulator::signer::{Signer, Unsigned};
use rsa::RsaPublicKey;
use rsa::pkcs1v15::VerifyingKey;
use rsa::pkcs8::DecodePublicKey as _;
use rsa::signature::Verifier as _;
use serde_json::Value;
use sns_messages::certificate::Certificate;
use sns_messages::signature::{Signature, SignatureVersion};
use sns_messages::time::{Clock, Timestamp};
use sns_messages::{
    Envelope, MessageType, SavedMessages, Settings, SnsHeaders, VerifiedMessage, Verifier,
    VerifyError,
};

const TOPIC: &str = "arn:aws:sns:eu-west-1:123456789012:orders_shipped";
const NOW: &str = "2026-11-23T08:00:00.000Z";

fn time(text: &str) -> Timestamp {
    Timestamp::parse(text).unwrap()
}

fn parse(body: &str) -> Result<Envelope, VerifyError> {
    let body = Bytes::copy_from_slice(body.as_bytes());
    Envelope::parse(body, &SnsHeaders::default())
}

async fn verify(verifier: &Verifier, body: &str) -> Result<VerifiedMessage, VerifyError> {
    verifier.verify(parse(body)?).await
}

/// Returns a message of that type, published now.
fn unsigned(message_type: MessageType) -> Unsigned {
    let confirmation = message_type != MessageType::Notification;
    let token = "2336412f37fb687f5d51e6e2425929f52e8e353134fe72d5";
    Unsigned {
        message_type,
        message_id: "165545c9-2a5c-472c-8df2-7ff2be2b3b1b".to_owned(),
        topic_arn: TOPIC.to_owned(),
        subject: None,
        message: "{\"order\":\"302320404\"}".to_owned(),
        timestamp: NOW.to_owned(),
        token: confirmation.then(|| token.to_owned()),
        subscribe_url: confirmation.then(|| {
            format!(
                "https://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription\
                 &TopicArn={TOPIC}&Token={token}"
            )
        }),
        unsubscribe_url: None,
        attributes: serde_json::Map::new(),
    }
}

/// Returns the folder and its messages; prints a line and returns `None` if there is none.
fn vectors() -> Option<(PathBuf, Vec<String>)> {
    let folder = std::env::var_os("IVESK_WEBHOOK_AWS_VECTORS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/vectors/aws"),
        PathBuf::from,
    );
    let Ok(entries) = std::fs::read_dir(&folder) else {
        println!("skipped: there are no vectors in {}", folder.display());
        return None;
    };
    let mut messages = Vec::new();
    for entry in entries {
        let path = entry.unwrap().path();
        if path
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            messages.push(std::fs::read_to_string(path).unwrap());
        }
    }
    assert!(
        !messages.is_empty(),
        "{} holds no message",
        folder.display()
    );
    Some((folder, messages))
}

fn saved_verifier(folder: &Path) -> Verifier {
    let saved = SavedMessages {
        certificates: Some(folder.join("certs")),
        any_topic: true,
    };
    let clock = Clock::manual(time("2022-07-29T00:00:00Z"));
    Verifier::for_saved(&Settings::default(), saved, clock).unwrap()
}

/// Returns the message with one character of a signed field changed, once for each character.
fn tampered(message: &str) -> impl Iterator<Item = (String, String)> {
    let value: Value = serde_json::from_str(message).unwrap();
    let signed = [
        "Message",
        "MessageId",
        "Subject",
        "SubscribeURL",
        "Timestamp",
        "Token",
        "TopicArn",
        "Type",
    ];
    signed.into_iter().flat_map(move |field| {
        let text: Vec<char> = value[field].as_str().unwrap_or("").chars().collect();
        let value = value.clone();
        (0..text.len()).map(move |place| {
            let mut text = text.clone();
            text[place] = match text[place] {
                '0' => '1',
                c if c.is_ascii_digit() => '0',
                'a' => 'b',
                _ => 'a',
            };
            let mut value = value.clone();
            value[field] = text.into_iter().collect::<String>().into();
            (format!("{field}[{place}]"), value.to_string())
        })
    })
}

#[tokio::test]
async fn genuine_messages_of_aws_are_valid_at_their_time() {
    let Some((folder, messages)) = vectors() else {
        return;
    };
    let verifier = saved_verifier(&folder);
    for message in messages {
        let verified = verify(&verifier, &message).await.unwrap();
        assert_eq!(verified.certificate().subject, "CN=sns.amazonaws.com");
    }
}

#[tokio::test]
async fn genuine_messages_fail_once_any_signed_character_changes() {
    let Some((folder, messages)) = vectors() else {
        return;
    };
    let verifier = saved_verifier(&folder);
    for message in messages {
        for (place, body) in tampered(&message) {
            assert!(verify(&verifier, &body).await.is_err(), "{place}");
        }
    }
}

#[tokio::test]
async fn unsigned_fields_of_genuine_messages_may_change() {
    let Some((folder, messages)) = vectors() else {
        return;
    };
    let verifier = saved_verifier(&folder);
    for message in messages {
        let mut value: Value = serde_json::from_str(&message).unwrap();
        value["UnsubscribeURL"] = "https://evil.example".into();
        value["MessageAttributes"] = serde_json::json!({"account": "made up"});
        verify(&verifier, &value.to_string()).await.unwrap();
    }
}

/// Verifies a body's signature with this crate and with `rsa`, on the same text.
fn opinions(pem: &str, body: &str) -> Option<(bool, bool)> {
    let value: Value = serde_json::from_str(body).unwrap();
    let envelope = parse(body).ok()?;
    let text = envelope.signed_text();
    let version = SignatureVersion::parse(value["SignatureVersion"].as_str()?)?;
    let signature = Signature::decode(value["Signature"].as_str()?).ok()?;

    let ours = Certificate::parse(pem.as_bytes(), None)
        .unwrap()
        .verify(version, text, &signature)
        .is_ok();

    let (_, block) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap();
    let certificate = block.parse_x509().unwrap();
    let key = RsaPublicKey::from_public_key_der(certificate.public_key().raw).unwrap();
    let second = rsa::pkcs1v15::Signature::try_from(signature.as_bytes()).unwrap();
    let theirs = match version {
        SignatureVersion::Sha1 => VerifyingKey::<sha1::Sha1>::new(key).verify(text, &second),
        SignatureVersion::Sha256 => {
            VerifyingKey::<rsa::sha2::Sha256>::new(key).verify(text, &second)
        }
    };
    Some((ours, theirs.is_ok()))
}

/// Checks the message itself, every tampered one, and tampered signatures.
fn assert_that_both_libraries_agree(pem: &str, body: &str) {
    assert_eq!(opinions(pem, body), Some((true, true)));
    let mut compared = 0;
    for (place, tampered) in tampered(body) {
        if let Some(opinions) = opinions(pem, &tampered) {
            assert_eq!(opinions, (false, false), "{place}");
            compared += 1;
        }
    }
    assert!(compared > 50, "{compared}");

    let value: Value = serde_json::from_str(body).unwrap();
    let signature = value["Signature"].as_str().unwrap();
    for place in (0..signature.len() - 4).step_by(7) {
        let mut changed = signature.as_bytes().to_vec();
        changed[place] = if changed[place] == b'A' { b'B' } else { b'A' };
        let mut value = value.clone();
        value["Signature"] = String::from_utf8(changed).unwrap().into();
        assert_eq!(opinions(pem, &value.to_string()), Some((false, false)));
    }
}

#[test]
fn the_second_opinion_agrees_on_every_genuine_message() {
    let Some((folder, messages)) = vectors() else {
        return;
    };
    for message in messages {
        let value: Value = serde_json::from_str(&message).unwrap();
        let name = value["SigningCertURL"].as_str().unwrap();
        let name = name.rsplit('/').next().unwrap();
        let pem = std::fs::read_to_string(folder.join("certs").join(name)).unwrap();
        assert_that_both_libraries_agree(&pem, &message);
    }
}

#[test]
fn the_second_opinion_agrees_on_our_own_messages() {
    let from = time("2026-01-01T00:00:00Z");
    let until = from.after(Duration::from_secs(365 * 24 * 3600));
    let signer = Signer::generate("sns.amazonaws.com", from, until).unwrap();
    let url = format!(
        "https://sns.eu-west-1.amazonaws.com{}",
        signer.certificate_path()
    );
    for message_type in MessageType::ALL {
        for version in [1, 2] {
            let body = signer.sign(&unsigned(message_type), version, &url);
            assert_that_both_libraries_agree(signer.certificate_pem(), &body);
        }
    }
}
