//! Genuine messages signed by AWS, and a second opinion on every signature.
//!
//! The messages are not part of the project. They are looked for in the folder that
//! `IVESK_WEBHOOK_AWS_VECTORS` names, else in `../shared/vectors/aws`.

use std::path::{Path, PathBuf};

use ivesk_webhook::config::SnsConfig;
use ivesk_webhook::domain::Clock;
use ivesk_webhook::sns::certificate::Certificate;
use ivesk_webhook::sns::signature::{Signature, SignatureVersion};
use ivesk_webhook::sns::{MessageType, SavedMessages, Verifier};
use rsa::RsaPublicKey;
use rsa::pkcs1v15::VerifyingKey;
use rsa::pkcs8::DecodePublicKey as _;
use rsa::signature::Verifier as _;
use serde_json::Value;

use crate::support::sns::*;

/// The folder and its messages; `None`, said aloud, where there is none.
fn vectors() -> Option<(PathBuf, Vec<String>)> {
    let folder = std::env::var_os("IVESK_WEBHOOK_AWS_VECTORS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/vectors/aws"),
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
    Verifier::for_saved(&SnsConfig::default().settings(), saved, clock).unwrap()
}

/// Each message in which one character of a signed field differs, one for each character.
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
        let proven = judge(&verifier, &message).await.unwrap();
        assert_eq!(proven.certificate().subject, "CN=sns.amazonaws.com");
    }
}

#[tokio::test]
async fn changing_any_signed_character_invalidates_genuine_messages() {
    let Some((folder, messages)) = vectors() else {
        return;
    };
    let verifier = saved_verifier(&folder);
    for message in messages {
        for (place, body) in tampered(&message) {
            assert_ne!(code(&verifier, &body).await, "valid", "{place}");
        }
    }
}

#[tokio::test]
async fn genuine_messages_verify_with_other_unsigned_fields() {
    let Some((folder, messages)) = vectors() else {
        return;
    };
    let verifier = saved_verifier(&folder);
    for message in messages {
        let mut value: Value = serde_json::from_str(&message).unwrap();
        value["UnsubscribeURL"] = "https://evil.example".into();
        value["MessageAttributes"] = serde_json::json!({"account": "made up"});
        assert_eq!(code(&verifier, &value.to_string()).await, "valid");
    }
}

/// A body's signature judged by the `rsa` crate, and by ours, on the same text.
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
    let mut judged = 0;
    for (place, tampered) in tampered(body) {
        if let Some(opinions) = opinions(pem, &tampered) {
            assert_eq!(opinions, (false, false), "{place}");
            judged += 1;
        }
    }
    assert!(judged > 50, "{judged}");

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
    for message_type in MessageType::ALL {
        for version in [1, 2] {
            let body = SIGNER.sign(&unsigned(message_type), version, &sns_url(&SIGNER));
            assert_that_both_libraries_agree(SIGNER.certificate_pem(), &body);
        }
    }
}
