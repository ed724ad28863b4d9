//! Whole messages with real signatures.

use std::time::Duration;

use ivesk_webhook::config::{SnsConfig, TopicRule, vendor_topic};
use ivesk_webhook::domain::Clock;
use ivesk_webhook::emulator::signer::{Signer, Unsigned};
use ivesk_webhook::sns::canonical::{CanonicalText, SignedFields};
use ivesk_webhook::sns::{Genuine, MessageType, SnsHeaders, Verifier, VerifyError};
use secrecy::ExposeSecret as _;

use crate::support::sns::*;

#[tokio::test]
async fn all_three_types_verify_in_both_signature_versions() {
    let verifier = verifier();
    for message_type in MessageType::ALL {
        for version in [1, 2] {
            let message = unsigned(message_type);
            let body = SIGNER.sign(&message, version, &sns_url(&SIGNER));

            let verified = verify(&verifier, &body).await.unwrap();

            assert_eq!(verified.message_type(), message_type);
            assert_eq!(verified.body(), body.as_bytes());
            assert_eq!(verified.message_id(), message.message_id);
            assert_eq!(verified.topic_arn(), TOPIC);
            assert_eq!(verified.message(), message.message);
            assert_eq!(verified.timestamp(), time(NOW));
            assert_eq!(verified.subject(), None);
            let token = verified
                .token()
                .map(|token| token.expose_secret().to_owned());
            assert_eq!(token, message.token);
            let url = verified.subscribe_url().map(|url| url.expose_secret());
            assert_eq!(url, message.subscribe_url.as_deref());
            assert_eq!(verified.certificate().subject, "CN=sns.amazonaws.com");
            assert_eq!(
                verified.certificate().not_after,
                time("2026-12-31T23:59:59Z")
            );
        }
    }
}

#[tokio::test]
async fn a_signature_of_one_version_is_invalid_for_the_other() {
    let verifier = verifier();
    for (signed_as, claimed) in [(1, "2"), (2, "1")] {
        let body = SIGNER
            .sign(&notification(), signed_as, &sns_url(&SIGNER))
            .replace(
                &format!("\"SignatureVersion\" : \"{signed_as}\""),
                &format!("\"SignatureVersion\" : \"{claimed}\""),
            );
        assert_eq!(code(&verifier, &body).await, "signature_mismatch");
    }
}

#[tokio::test]
async fn every_signed_field_counts_and_no_unsigned_one_does() {
    let verifier = verifier();
    let message = Unsigned {
        subject: Some("Exported".to_owned()),
        ..notification()
    };
    let body = signed(&message);
    for (from, to) in [
        ("302320404", "302320405"),
        ("165545c9", "165545c8"),
        ("\"Exported\"", "\"Exportee\""),
        ("08:00:00.000Z", "08:00:00.001Z"),
        ("DPWebHook_onexport", "DPWebHook_onexporu"),
    ] {
        let tampered = body.replace(from, to);
        assert_ne!(tampered, body);
        assert_eq!(
            code(&verifier, &tampered).await,
            "signature_mismatch",
            "{to}"
        );
    }
    let without_subject = body.replace("  \"Subject\" : \"Exported\",\n", "");
    assert_eq!(
        code(&verifier, &without_subject).await,
        "signature_mismatch"
    );

    // Unsigned fields may change, and nothing that is read depends on them.
    let swapped = body
        .replace("1b9d6bcd", "00000000")
        .replace("?Action=Unsubscribe", "?Action=Other")
        .replace("{\n", "{ \"Token\" : \"x\", \"Anything\" : [1, {}],\n");
    let verified = verify(&verifier, &swapped).await.unwrap();
    assert_eq!(verified.message(), message.message);
    assert_eq!(verified.subject(), Some("Exported"));
    assert!(verified.token().is_none());
}

#[tokio::test]
async fn subject_of_a_confirmation_is_unsigned_and_never_read() {
    let body = signed(&unsigned(MessageType::SubscriptionConfirmation))
        .replace("{\n", "{ \"Subject\" : \"made up\",\n");

    let verified = verify(&verifier(), &body).await.unwrap();

    assert_eq!(verified.subject(), None);
}

/// A genuine signature proves only that SNS sent a message, not for whom.
#[tokio::test]
async fn a_message_of_a_strangers_topic_is_refused_despite_headers() {
    let body = signed(&Unsigned {
        topic_arn: STRANGERS_TOPIC.to_owned(),
        ..notification()
    });
    let verifier = verifier();

    assert_eq!(code(&verifier, &body).await, "topic_not_allowed");
    let ours = SnsHeaders {
        topic_arn: Some(TOPIC.to_owned()),
        ..SnsHeaders::default()
    };
    assert_eq!(
        parse_with(&body, &ours).unwrap_err(),
        VerifyError::HeaderMismatch("x-amz-sns-topic-arn")
    );
    assert!(verifier.allows_topic(TOPIC));
    assert!(!verifier.allows_topic(STRANGERS_TOPIC));
    assert!(!verifier.allows_topic("DPWebHook_onexport"));
}

fn of_strangers_topic(message_type: MessageType) -> Unsigned {
    let message = unsigned(message_type);
    Unsigned {
        topic_arn: STRANGERS_TOPIC.to_owned(),
        subscribe_url: message
            .subscribe_url
            .map(|url| url.replace(TOPIC, STRANGERS_TOPIC)),
        ..message
    }
}

async fn classify(verifier: &Verifier, body: &str) -> Result<Genuine, VerifyError> {
    verifier.classify_at(parse(body)?, time(NOW)).await
}

/// It is shown to a person, and is no message that could be stored or acted on.
#[tokio::test]
async fn a_genuine_confirmation_of_an_unknown_topic_is_its_own_type() {
    let verifier = verifier();
    let body = signed(&of_strangers_topic(MessageType::SubscriptionConfirmation));

    let genuine = classify(&verifier, &body).await.unwrap();
    let Genuine::UnknownTopic(unknown) = genuine else {
        panic!("{genuine:?}");
    };
    assert_eq!(unknown.topic_arn(), STRANGERS_TOPIC);
    assert_eq!(unknown.aws_account(), "111122223333");
    assert_eq!(unknown.timestamp(), time(NOW));
    let sent = of_strangers_topic(MessageType::SubscriptionConfirmation);
    assert_eq!(unknown.message_id(), sent.message_id);
    let kept = [unknown.token(), unknown.subscribe_url()];
    let kept = kept.map(|secret| secret.map(|secret| secret.expose_secret().to_owned()));
    assert_eq!(kept, [sent.token, sent.subscribe_url]);
    let printed = format!("{unknown:?}");
    assert!(printed.contains(STRANGERS_TOPIC), "{printed}");
    assert!(!printed.contains(TOKEN), "{printed}");
    assert!(!printed.contains("Confirm&"), "{printed}");
    // Where nobody can approve it, it is refused like any other.
    assert_eq!(code(&verifier, &body).await, "topic_not_allowed");

    let ours = signed(&unsigned(MessageType::SubscriptionConfirmation));
    let genuine = classify(&verifier, &ours).await.unwrap();
    assert!(matches!(genuine, Genuine::Message(_)), "{genuine:?}");
}

#[tokio::test]
async fn other_messages_of_an_unknown_topic_stay_refused() {
    let verifier = verifier();
    for message_type in [
        MessageType::Notification,
        MessageType::UnsubscribeConfirmation,
    ] {
        let body = signed(&of_strangers_topic(message_type));
        let error = classify(&verifier, &body).await.unwrap_err();
        let expected = VerifyError::TopicNotAllowed(STRANGERS_TOPIC.to_owned());
        assert_eq!(error, expected);
        assert!(error.to_string().contains(STRANGERS_TOPIC));
    }
}

/// Everything but the topic is checked as for any other message.
#[tokio::test]
async fn a_confirmation_of_an_unknown_topic_must_be_genuine() {
    let verifier = verifier();
    let genuine = of_strangers_topic(MessageType::SubscriptionConfirmation);
    let forged = OTHER_SIGNER.sign(&genuine, 1, &sns_url(&SIGNER));
    let elsewhere = Unsigned {
        subscribe_url: Some(subscribe_url("https://evil.example")),
        ..genuine.clone()
    };
    let of_another_topic = Unsigned {
        subscribe_url: unsigned(MessageType::SubscriptionConfirmation).subscribe_url,
        ..genuine.clone()
    };
    let old = Unsigned {
        timestamp: "2026-11-22T08:00:00.000Z".to_owned(),
        ..genuine.clone()
    };
    let certificate = SIGNER.sign(&genuine, 1, "https://evil.example/a.pem");
    for (body, expected) in [
        (forged, "signature_mismatch"),
        (signed(&elsewhere), "untrusted_subscribe_url"),
        (signed(&of_another_topic), "untrusted_subscribe_url"),
        (signed(&old), "too_old"),
        (certificate, "untrusted_certificate_url"),
    ] {
        let error = classify(&verifier, &body).await.unwrap_err();
        assert_eq!(error.code(), expected);
    }
}

#[tokio::test]
async fn an_approved_topic_is_allowed_at_once_and_no_other() {
    let settings = SnsConfig::default().settings();
    let certificates = MemoryCertificates::with(&[&SIGNER]);
    let verifier = Verifier::new(&settings, certificates, clock()).unwrap();
    let body = signed(&of_strangers_topic(MessageType::Notification));
    assert_eq!(code(&verifier, &body).await, "topic_not_allowed");

    settings.known.approve_topic(STRANGERS_TOPIC);

    assert_eq!(code(&verifier, &body).await, "valid");
    assert!(
        verifier.needs_approval(STRANGERS_TOPIC),
        "no rule allows it"
    );
    assert!(!verifier.needs_approval(TOPIC));
    let twin = signed(&Unsigned {
        topic_arn: format!("{STRANGERS_TOPIC}2"),
        ..notification()
    });
    assert_eq!(code(&verifier, &twin).await, "topic_not_allowed");
}

#[tokio::test]
async fn an_unsubscription_names_its_subscription_in_signed_text() {
    let verifier = verifier();
    let of = |message: String, message_type| {
        signed(&Unsigned {
            message,
            ..unsigned(message_type)
        })
    };
    let words = |arn: &str| {
        format!(
            "You have chosen to deactivate subscription {arn}.\nTo cancel this operation and \
             restore the subscription, visit the SubscribeURL included in this message."
        )
    };
    let ended = format!("{TOPIC}:2bcfbf39-05c3-41de-beaa-fcfcc21c8f55");
    let strangers = format!("{STRANGERS_TOPIC}:2bcfbf39-05c3-41de-beaa-fcfcc21c8f55");
    for (message, message_type, expected) in [
        (
            words(&ended),
            MessageType::UnsubscribeConfirmation,
            Some(&ended),
        ),
        (
            words(&strangers),
            MessageType::UnsubscribeConfirmation,
            None,
        ),
        (words(&ended), MessageType::SubscriptionConfirmation, None),
        (words(&ended), MessageType::Notification, None),
    ] {
        let verified = verify(&verifier, &of(message, message_type)).await.unwrap();
        assert_eq!(verified.ended_subscription(), expected.map(String::as_str));
    }
}

#[tokio::test]
async fn only_a_topic_on_the_list_is_accepted() {
    let config = SnsConfig {
        topics: vec![TopicRule {
            account: "111122223333".to_owned(),
            ..vendor_topic()
        }],
        ..SnsConfig::default()
    };
    let verifier = verifier_with(&config, MemoryCertificates::with(&[&SIGNER]), clock());
    let theirs = signed(&Unsigned {
        topic_arn: STRANGERS_TOPIC.to_owned(),
        ..notification()
    });

    assert_eq!(code(&verifier, &theirs).await, "valid");
    assert_eq!(
        code(&verifier, &signed(&notification())).await,
        "topic_not_allowed"
    );
}

/// The URL is refused before any request.
#[tokio::test]
async fn a_certificate_url_on_a_foreign_host_is_never_requested() {
    let canary = Server::start().await;
    let canary_url = canary.serve(&SIGNER.certificate_path(), &SIGNER);
    let verifier = verifier_without_certificates(&SnsConfig::default(), clock());
    let path = SIGNER.certificate_path();
    for url in [
        canary_url,
        format!("https://s3.amazonaws.com/bucket{path}"),
        format!("https://bucket.s3.eu-west-1.amazonaws.com{path}"),
        format!("https://sns.s3-eu-west-1.amazonaws.com{path}"),
        format!("https://sns.eu-west-1.amazonaws.com@127.0.0.1{path}"),
        format!("https://sns.us-east-1.amazonaws.com{path}"),
        format!("https://sns.eu-west-1.amazonaws.com{path}?x=.pem"),
    ] {
        let body = SIGNER.sign(&notification(), 1, &url);
        assert_eq!(
            code(&verifier, &body).await,
            "untrusted_certificate_url",
            "{url}"
        );
    }
    assert_eq!(canary.requests(), 0);
}

#[tokio::test]
async fn a_message_signed_by_a_strangers_key_is_refused() {
    let body = OTHER_SIGNER.sign(&notification(), 2, &sns_url(&SIGNER));

    assert_eq!(code(&verifier(), &body).await, "signature_mismatch");
}

#[tokio::test]
async fn an_invalid_signature_is_refused_before_any_request() {
    // Without a certificate it would have to request one from the real SNS.
    let verifier = verifier_without_certificates(&SnsConfig::default(), clock());
    let body = signed(&notification());
    let start = body.find("\"Signature\" : \"").unwrap() + "\"Signature\" : \"".len();
    let end = start + body[start..].find('"').unwrap();
    for signature in [
        "",
        "AAAA",
        "no base64!",
        &"*".repeat(344),
        &"A".repeat(20_000),
    ] {
        let body = format!("{}{signature}{}", &body[..start], &body[end..]);
        assert_eq!(code(&verifier, &body).await, "malformed_signature");
    }
}

/// An attack: a signed text that splits into fields in two ways.
struct Resplit {
    /// The message that SNS signed for the stranger's topic.
    signed: Unsigned,
    /// Another message with the same signed text, of our topic.
    forged: Unsigned,
    /// `Type` of the forged message, if it contains more lines.
    forged_type: Option<String>,
    refused_field: &'static str,
}

fn resplits() -> [Resplit; 3] {
    let hidden = "{\"companyCode\":\"666\"}";
    let id = "1e3ad8f0-9a23-4c4c-8f0a-0d1d3c5b7a90";
    let stranger = |message: String| Unsigned {
        topic_arn: STRANGERS_TOPIC.to_owned(),
        message,
        ..notification()
    };
    let ours = Unsigned {
        message_id: id.to_owned(),
        message: hidden.to_owned(),
        ..notification()
    };
    let tail = format!(
        "MessageId\n{}\nTimestamp\n{NOW}\nTopicArn\n{STRANGERS_TOPIC}",
        notification().message_id
    );
    [
        Resplit {
            signed: stranger(format!(
                "{hidden}\nMessageId\n{id}\nTimestamp\n{NOW}\nTopicArn\n{TOPIC}"
            )),
            forged: Unsigned {
                topic_arn: format!("{TOPIC}\n{tail}"),
                ..ours.clone()
            },
            forged_type: None,
            refused_field: "TopicArn",
        },
        Resplit {
            signed: stranger(format!(
                "{hidden}\nMessageId\n{id}\nTimestamp\n{NOW}\nTopicArn\n{TOPIC}\nType\nNotification"
            )),
            forged: ours.clone(),
            forged_type: Some(format!("Notification\n{tail}\nType\nNotification")),
            refused_field: "Type",
        },
        Resplit {
            signed: stranger(format!("{hidden}\nMessageId\n{id}\nSubject\nx")),
            forged: Unsigned {
                subject: Some(format!("x\nMessageId\n{}", notification().message_id)),
                topic_arn: STRANGERS_TOPIC.to_owned(),
                ..ours
            },
            forged_type: None,
            refused_field: "Subject",
        },
    ]
}

fn canonical(message: &Unsigned) -> CanonicalText {
    CanonicalText::new(&SignedFields {
        message_type: message.message_type,
        message: &message.message,
        message_id: &message.message_id,
        subject: message.subject.as_deref(),
        subscribe_url: message.subscribe_url.as_deref(),
        timestamp: &message.timestamp,
        token: message.token.as_deref(),
        topic_arn: &message.topic_arn,
    })
}

#[tokio::test]
async fn a_genuine_signature_over_resplit_lines_is_refused() {
    let url = sns_url(&SIGNER);
    for attack in resplits() {
        let genuine = signed(&attack.signed);
        let allow_stranger = SnsConfig {
            topics: vec![
                vendor_topic(),
                TopicRule {
                    account: "111122223333".to_owned(),
                    ..vendor_topic()
                },
            ],
            ..SnsConfig::default()
        };
        let lax = verifier_with(
            &allow_stranger,
            MemoryCertificates::with(&[&SIGNER]),
            clock(),
        );
        assert_eq!(code(&lax, &genuine).await, "valid", "SNS would sign this");

        // The attack is real: both messages have the same signed text.
        let mut forged_text = canonical(&attack.forged).as_bytes().to_vec();
        if let Some(forged_type) = &attack.forged_type {
            forged_text = String::from_utf8(forged_text)
                .unwrap()
                .replace(
                    "\nType\nNotification\n",
                    &format!("\nType\n{forged_type}\n"),
                )
                .into_bytes();
        }
        assert_eq!(forged_text, canonical(&attack.signed).as_bytes());

        let mut forged: serde_json::Value =
            serde_json::from_str(&SIGNER.sign(&attack.forged, 1, &url)).unwrap();
        let genuine: serde_json::Value = serde_json::from_str(&genuine).unwrap();
        forged["Signature"] = genuine["Signature"].clone();
        if let Some(forged_type) = &attack.forged_type {
            forged["Type"] = forged_type.as_str().into();
        }

        assert_eq!(
            verify(&lax, &forged.to_string()).await.unwrap_err(),
            VerifyError::ControlCharacter(attack.refused_field)
        );
    }
}

#[tokio::test]
async fn fields_are_verified_exactly_as_written() {
    let verifier = verifier();
    for timestamp in [
        "2026-11-23T08:00:00.000Z",
        "2026-11-23T08:00:00Z",
        "2026-11-23T08:00:00.0Z",
        "2026-11-23T10:00:00.000+02:00",
    ] {
        let body = signed(&Unsigned {
            timestamp: timestamp.to_owned(),
            ..notification()
        });
        assert_eq!(code(&verifier, &body).await, "valid", "{timestamp}");
    }
    for message in [
        "plain text, no JSON",
        "Successfully validated SNS topic for Amazon SES event publishing.",
        "",
        "Sąskaita faktūra už lapkritį: ĄČĘĖĮŠŲŪŽ ąčęėįšųūž",
        "👍🏽 \u{1F9FE}",
        "tab\t newline\n return\r quote\" backslash\\ slash/ null\u{0} bell\u{7}",
        " {\n  \"a\" :  1.0,\t\"b\":1e3 } ",
        "line\u{2028}separator\u{FEFF}",
    ] {
        let body = signed(&Unsigned {
            message: message.to_owned(),
            ..notification()
        });
        assert_eq!(
            verify(&verifier, &body).await.unwrap().message(),
            message,
            "{message}"
        );
        // The same text with every character escaped.
        let escaped: String = message
            .encode_utf16()
            .map(|unit| format!("\\u{unit:04X}"))
            .collect();
        let mut value: serde_json::Value = serde_json::from_str(&body).unwrap();
        value["Message"] = "@@".into();
        let body = value.to_string().replace("@@", &escaped);
        assert_eq!(
            verify(&verifier, &body).await.unwrap().message(),
            message,
            "{message}"
        );
    }
}

/// 256 KiB of quotes, which JSON escapes in two ways.
#[tokio::test]
async fn the_largest_legal_message_is_accepted_however_it_is_escaped() {
    let message = "\"".repeat(256 * 1024);
    let body = signed(&Unsigned {
        message: message.clone(),
        ..notification()
    });
    let verifier = verifier();
    assert_eq!(code(&verifier, &body).await, "valid");

    let long_form = body.replace(&"\\\"".repeat(256 * 1024), &"\\u0022".repeat(256 * 1024));
    assert!(long_form.len() > 1_500_000);
    assert_eq!(
        verify(&verifier, &long_form).await.unwrap().message(),
        message
    );
}

#[tokio::test]
async fn a_retry_is_accepted_for_hours_and_refused_after_max_age() {
    let body = signed(&notification());
    let published = time(NOW);
    for (age, expected) in [
        (Duration::ZERO, "valid"),
        (Duration::from_secs(40 * 60), "valid"),
        (Duration::from_secs(13_618), "valid"),
        (Duration::from_secs(8 * 3600), "valid"),
        (Duration::from_millis(8 * 3600 * 1000 + 1), "too_old"),
    ] {
        let verifier = verifier_at(Clock::manual(published.after(age)));
        assert_eq!(code(&verifier, &body).await, expected, "{age:?}");
    }
    for (ahead, expected) in [
        (Duration::from_secs(300), "valid"),
        (Duration::from_millis(300_001), "from_the_future"),
    ] {
        let verifier = verifier_at(Clock::manual(published.before(ahead)));
        assert_eq!(code(&verifier, &body).await, expected, "{ahead:?}");
    }
}

#[tokio::test]
async fn age_is_checked_after_the_signature() {
    let forged = OTHER_SIGNER.sign(&notification(), 1, &sns_url(&SIGNER));
    let late = verifier_at(Clock::manual(time("2026-12-24T00:00:00Z")));

    assert_eq!(code(&late, &forged).await, "signature_mismatch");
    assert_eq!(code(&late, &signed(&notification())).await, "too_old");
}

#[tokio::test]
async fn a_quarantined_message_is_verified_as_of_its_receipt() {
    let years_later = verifier_at(Clock::manual(time("2029-01-01T00:00:00Z")));
    let body = signed(&notification());
    let received_at = time(NOW).after(Duration::from_secs(60));

    assert_eq!(code(&years_later, &body).await, "certificate_dates");
    let verified = years_later
        .verify_at(parse(&body).unwrap(), received_at)
        .await;
    assert!(verified.is_ok(), "{verified:?}");
    let too_late = received_at.after(Duration::from_secs(9 * 3600));
    assert_eq!(
        years_later
            .verify_at(parse(&body).unwrap(), too_late)
            .await
            .unwrap_err(),
        VerifyError::TooOld
    );
}

#[tokio::test]
async fn a_certificate_is_valid_from_its_first_second_to_its_last() {
    let at = |text: &str| {
        let body = signed(&Unsigned {
            timestamp: text.to_owned(),
            ..notification()
        });
        let verifier = verifier_at(Clock::manual(time(text)));
        async move { code(&verifier, &body).await }
    };
    assert_eq!(at("2025-12-31T23:59:59.999Z").await, "certificate_dates");
    assert_eq!(at("2026-01-01T00:00:00.000Z").await, "valid");
    assert_eq!(at("2026-12-31T23:59:59.999Z").await, "valid");
    assert_eq!(at("2027-01-01T00:00:00.000Z").await, "certificate_dates");
}

#[tokio::test]
async fn an_unknown_signature_version_has_its_own_code() {
    for version in [0, 3, 12] {
        let body = SIGNER.sign(&notification(), version, &sns_url(&SIGNER));
        assert_eq!(
            parse(&body).unwrap_err(),
            VerifyError::UnsupportedSignatureVersion
        );
    }
}

/// The signature does not make the URL trusted.
#[tokio::test]
async fn a_genuine_confirmation_with_another_subscribe_url_is_refused() {
    let verifier = verifier();
    for message_type in [
        MessageType::SubscriptionConfirmation,
        MessageType::UnsubscribeConfirmation,
    ] {
        for url in [
            "http://169.254.169.254/latest/meta-data/".to_owned(),
            subscribe_url("https://evil.example"),
            subscribe_url("https://sns.eu-west-1.amazonaws.com").replace("Confirm", "Delete"),
            subscribe_url("https://sns.eu-west-1.amazonaws.com").replace(TOKEN, "0"),
            subscribe_url("https://sns.us-east-1.amazonaws.com"),
        ] {
            let body = signed(&Unsigned {
                subscribe_url: Some(url.clone()),
                ..unsigned(message_type)
            });
            assert_eq!(
                code(&verifier, &body).await,
                "untrusted_subscribe_url",
                "{url}"
            );
        }
    }
}

#[tokio::test]
async fn old_and_new_certificates_are_accepted_during_rotation() {
    let config = SnsConfig::default();
    let certificates = MemoryCertificates::with(&[&SIGNER, &OTHER_SIGNER]);
    let verifier = verifier_with(&config, certificates, clock());
    for signer in [&*SIGNER, &*OTHER_SIGNER] {
        let body = signer.sign(&notification(), 1, &sns_url(signer));
        assert_eq!(code(&verifier, &body).await, "valid");
    }
}

#[tokio::test]
async fn debug_prints_nothing_secret() {
    let body = signed(&unsigned(MessageType::SubscriptionConfirmation));
    let envelope = parse(&body).unwrap();
    let before = format!("{envelope:?}");
    let after = format!("{:?}", verifier().verify(envelope).await.unwrap());
    let signature = SIGNER.signature(
        canonical(&unsigned(MessageType::SubscriptionConfirmation)).as_bytes(),
        1,
    );
    for printed in [before, after] {
        assert!(printed.contains("165545c9"), "{printed}");
        for secret in [TOKEN, "ConfirmSubscription", "companyCode", &signature] {
            assert!(!printed.contains(secret), "{printed}");
        }
    }
}

/// The PEM text holds the key and its certificate.
#[tokio::test]
async fn a_signer_from_pem_signs_what_its_certificate_verifies() {
    let again = Signer::from_pem(&SIGNER.to_pem()).unwrap();
    let body = again.sign(&notification(), 2, &sns_url(&SIGNER));

    assert_eq!(code(&verifier(), &body).await, "valid");
}
