//! The shape of a body: which are parsed, which are refused, and why.

use bytes::Bytes;
use ivesk_webhook::sns::{Envelope, MAX_BODY_BYTES, MessageType, SnsHeaders, VerifyError};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::support::sns::*;

/// Returns a well-formed body with a signature of the right length that matches nothing.
fn body(message_type: MessageType) -> Value {
    let mut body = json!({
        "Type": message_type.as_str(),
        "MessageId": "165545c9-2a5c-472c-8df2-7ff2be2b3b1b",
        "TopicArn": TOPIC,
        "Message": "hello",
        "Timestamp": NOW,
        "SignatureVersion": "1",
        "Signature": "A".repeat(344),
        "SigningCertURL": "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-7f.pem",
    });
    if message_type != MessageType::Notification {
        body["Token"] = TOKEN.into();
        body["SubscribeURL"] = subscribe_url("https://sns.eu-west-1.amazonaws.com").into();
    }
    body
}

fn refusal(body: &str) -> VerifyError {
    parse(body).unwrap_err()
}

fn refusal_code(body: &str) -> &'static str {
    refusal(body).code()
}

#[test]
fn an_envelope_tells_what_its_body_claims() {
    for message_type in MessageType::ALL {
        let body = body(message_type);
        let envelope = parse(&body.to_string()).unwrap();
        assert_eq!(envelope.message_type(), message_type);
        assert_eq!(envelope.message_id(), body["MessageId"]);
        assert_eq!(envelope.topic_arn(), body["TopicArn"]);
        assert_eq!(envelope.certificate_url(), body["SigningCertURL"]);
    }
}

#[test]
fn a_body_that_is_not_one_json_object_is_refused() {
    let valid = body(MessageType::Notification).to_string();
    let cut = &valid[..valid.len() - 1];
    let brackets = "[".repeat(100_000);
    let braces = "{\"a\":".repeat(100_000);
    for bad in [
        "",
        " ",
        "null",
        "true",
        "17",
        "\"a string\"",
        "[]",
        &format!("[{valid}]"),
        &format!("\"{}\"", valid.replace('"', "\\\"")),
        "hello",
        "{",
        "{\"Type\"",
        "{Type:1}",
        "{'Type':'Notification'}",
        "{\"Type\":\"Notification\",}",
        "{1:2}",
        cut,
        &format!("{valid}{valid}"),
        &format!("{valid}x"),
        &format!("{valid},"),
        &format!("{valid}\0"),
        &format!("x{valid}"),
        &format!("\u{FEFF}\u{FEFF}{valid}"),
        &format!("\u{a0}{valid}"),
        &brackets,
        &braces,
        &valid.replace("hello", "\\uD800"),
        &valid.replace("hello", "\\x"),
        &valid.replace("hello", "a\nb"),
    ] {
        assert_eq!(
            refusal_code(bad),
            "malformed_json",
            "{}",
            bad.get(..60).unwrap_or(bad)
        );
    }
    let mut not_utf8 = valid.into_bytes();
    let place = not_utf8.len() / 2;
    not_utf8[place] = 0xFF;
    let refusal = Envelope::parse(Bytes::from(not_utf8), &SnsHeaders::default()).unwrap_err();
    assert_eq!(refusal.code(), "malformed_json");
}

#[test]
fn a_byte_order_mark_and_outer_white_space_are_tolerated() {
    let valid = body(MessageType::Notification).to_string();
    for good in [
        format!("\u{FEFF}{valid}"),
        format!("\u{FEFF} \r\n\t{valid}"),
        format!(" \r\n\t{valid} \r\n\t"),
    ] {
        assert!(parse(&good).is_ok(), "{good}");
    }
}

#[test]
fn a_duplicate_key_is_refused_even_if_escaped_or_unknown() {
    let valid = body(MessageType::Notification).to_string();
    let with = |more: &str| valid.replacen('{', &format!("{{{more},"), 1);
    for (more, key) in [
        ("\"Message\":\"other\"", "Message"),
        ("\"\\u004dessage\":\"other\"", "Message"),
        ("\"TopicArn\":null", "TopicArn"),
        ("\"Subject\":null,\"Subject\":null", "Subject"),
        ("\"Subject\":null,\"Subject\":\"x\"", "Subject"),
        ("\"x\":1,\"x\":1", "x"),
        ("\"x\":1,\"\\u0078\":{}", "x"),
        (
            "\"MessageAttributes\":{},\"MessageAttributes\":{}",
            "MessageAttributes",
        ),
        ("\"\":1,\"\":2", ""),
    ] {
        let refused = refusal(&with(more));
        // A required key with null is malformed where it comes first.
        if more.contains("TopicArn") {
            assert_eq!(refused.code(), "malformed_field");
        } else {
            assert_eq!(refused, VerifyError::RepeatedKey(key.to_owned()), "{more}");
        }
    }
    // Keys within a value are not checked, and keys are case-sensitive.
    assert!(parse(&with("\"x\":{\"a\":1,\"a\":2}")).is_ok());
    assert!(parse(&with("\"message\":1,\"MESSAGE\":2")).is_ok());
}

#[test]
fn unknown_fields_of_any_type_are_skipped_however_deep() {
    let valid = body(MessageType::Notification).to_string();
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let deeper = format!("{}1{}", "{\"a\":".repeat(100_000), "}".repeat(100_000));
    for value in [
        "null",
        "true",
        "-1.5e10",
        "\"\\u0161\"",
        "[]",
        "{}",
        "[{\"a\":[null]}]",
        &deep,
        &deeper,
    ] {
        let body = valid.replacen('{', &format!("{{\"New\":{value},"), 1);
        assert!(parse(&body).is_ok(), "{}", &value[..value.len().min(40)]);
    }
}

#[test]
fn three_hundred_thousand_keys_are_read_in_one_go() {
    use std::fmt::Write as _;

    let valid = body(MessageType::Notification).to_string();
    let mut keys = String::new();
    let mut count = 0;
    while keys.len() < MAX_BODY_BYTES - 2000 {
        write!(keys, "\"{count:x}\":0,").unwrap();
        count += 1;
    }
    assert!(count > 180_000);
    assert!(parse(&valid.replacen('{', &format!("{{{keys}"), 1)).is_ok());
}

#[test]
fn signed_fields_are_strings_and_deep_ones_are_harmless() {
    for message_type in MessageType::ALL {
        let valid = body(message_type);
        for field in valid.as_object().unwrap().keys() {
            for value in [
                json!(1),
                json!(true),
                json!(["a"]),
                json!({"a": "b"}),
                json!(1.5),
            ] {
                let mut bad = valid.clone();
                bad[field] = value;
                assert_eq!(refusal_code(&bad.to_string()), "malformed_field", "{field}");
            }
            let mut bad = valid.clone();
            bad[field] = "@".into();
            let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
            let bad = bad.to_string().replace("\"@\"", &deep);
            assert!(matches!(
                refusal_code(&bad),
                "malformed_field" | "malformed_json"
            ));
        }
    }
}

#[test]
fn each_field_that_is_missing_is_named() {
    for message_type in MessageType::ALL {
        let valid = body(message_type);
        for field in valid.as_object().unwrap().keys() {
            let mut bad = valid.clone();
            bad.as_object_mut().unwrap().remove(field);
            match refusal(&bad.to_string()) {
                VerifyError::MissingField(name) => assert_eq!(name, field),
                other => panic!("{field}: {other:?}"),
            }
        }
    }
}

#[test]
fn null_is_absent_in_subject_token_and_subscribe_url_only() {
    let mut notification = body(MessageType::Notification);
    for field in ["Subject", "Token", "SubscribeURL"] {
        notification[field] = Value::Null;
    }
    assert!(parse(&notification.to_string()).is_ok());

    let confirmation = body(MessageType::SubscriptionConfirmation);
    for field in confirmation.as_object().unwrap().keys() {
        let mut bad = confirmation.clone();
        bad[field] = Value::Null;
        let expected = match field.as_str() {
            "Token" | "SubscribeURL" => "missing_field",
            _ => "malformed_field",
        };
        assert_eq!(refusal_code(&bad.to_string()), expected, "{field}");
    }
}

#[test]
fn no_signed_field_but_message_may_hold_a_control_character() {
    for message_type in MessageType::ALL {
        let mut valid = body(message_type);
        if message_type == MessageType::Notification {
            valid["Subject"] = "s".into();
        }
        let signed = [
            "Type",
            "MessageId",
            "TopicArn",
            "Subject",
            "Timestamp",
            "Token",
            "SubscribeURL",
        ];
        for field in signed {
            let Some(value) = valid[field].as_str() else {
                continue;
            };
            for control in [
                '\n', '\r', '\t', '\0', '\u{1f}', '\u{7f}', '\u{85}', '\u{9f}',
            ] {
                for changed in [format!("{value}{control}"), format!("{control}{value}")] {
                    let mut bad = valid.clone();
                    bad[field] = changed.into();
                    match refusal(&bad.to_string()) {
                        VerifyError::ControlCharacter(name) => assert_eq!(name, field),
                        other => panic!("{field} {control:?}: {other:?}"),
                    }
                }
            }
        }
        valid["Message"] = "a\nMessageId\nb\r\t\u{0}\u{85}".into();
        assert!(parse(&valid.to_string()).is_ok());
    }
}

#[test]
fn fields_of_another_form_are_refused() {
    for (field, value) in [
        ("MessageId", ""),
        ("TopicArn", ""),
        ("TopicArn", "arn:aws:sns:eu-west-1:007272210889"),
        (
            "TopicArn",
            "arn:aws:sqs:eu-west-1:007272210889:DPWebHook_onexport",
        ),
        (
            "TopicArn",
            "arn:aws:sns:eu-west-1:007272210889:DPWebHook_onexport:x",
        ),
        (
            "TopicArn",
            "arn:aws:sns:eu-west-1:007272210889:DPWebHook_on export",
        ),
        ("Timestamp", ""),
        ("Timestamp", "yesterday"),
        ("Timestamp", "2026-11-23"),
        ("Timestamp", "2026-13-23T08:00:00Z"),
        ("Timestamp", "1795420800000"),
    ] {
        let mut bad = body(MessageType::Notification);
        bad[field] = value.into();
        match refusal(&bad.to_string()) {
            VerifyError::MalformedField { field: name, .. } => assert_eq!(name, field, "{value}"),
            other => panic!("{field} `{value}`: {other:?}"),
        }
    }
}

#[test]
fn unknown_types_and_versions_have_codes_of_their_own() {
    for name in [
        "",
        "notification",
        "Notification ",
        "UnsubscribeConfirmationx",
        "Raw",
    ] {
        let mut bad = body(MessageType::Notification);
        bad["Type"] = name.into();
        assert_eq!(refusal_code(&bad.to_string()), "unsupported_type", "{name}");
    }
    for version in ["", "0", "01", "3", "1 ", "one"] {
        let mut bad = body(MessageType::Notification);
        bad["SignatureVersion"] = version.into();
        assert_eq!(
            refusal_code(&bad.to_string()),
            "unsupported_signature_version",
            "{version}"
        );
    }
}

#[test]
fn a_header_that_disagrees_with_the_body_is_refused() {
    let body = body(MessageType::Notification).to_string();
    let right = SnsHeaders {
        message_type: Some("Notification".to_owned()),
        message_id: Some("165545c9-2a5c-472c-8df2-7ff2be2b3b1b".to_owned()),
        topic_arn: Some(TOPIC.to_owned()),
        subscription_arn: None,
        raw_delivery: false,
    };
    assert!(parse_with(&body, &right).is_ok());
    for (headers, name) in [
        (
            SnsHeaders {
                message_type: Some("SubscriptionConfirmation".to_owned()),
                ..right.clone()
            },
            "x-amz-sns-message-type",
        ),
        (
            SnsHeaders {
                message_id: Some(String::new()),
                ..right.clone()
            },
            "x-amz-sns-message-id",
        ),
        (
            SnsHeaders {
                topic_arn: Some(STRANGERS_TOPIC.to_owned()),
                ..right
            },
            "x-amz-sns-topic-arn",
        ),
    ] {
        assert_eq!(
            parse_with(&body, &headers).unwrap_err(),
            VerifyError::HeaderMismatch(name)
        );
    }
}

#[test]
fn raw_delivery_is_refused_by_name_whatever_the_body() {
    let raw = SnsHeaders {
        raw_delivery: true,
        ..SnsHeaders::default()
    };
    for body in ["", "hello", &body(MessageType::Notification).to_string()] {
        assert_eq!(
            parse_with(body, &raw).unwrap_err(),
            VerifyError::RawDelivery
        );
    }
}

#[test]
fn what_another_aws_service_makes_of_a_message_is_named() {
    let message = body(MessageType::Notification);
    let text = message.to_string();
    for (wrapped, named) in [
        (
            json!({"Records": [{"EventSource": "aws:sns", "Sns": message}]}),
            "Records[0].Sns",
        ),
        (
            json!({"Records": [{"receiptHandle": "x", "body": text, "eventSource": "aws:sqs"}]}),
            "Records[0].body",
        ),
        (json!({"Records": [{"eventSource": "aws:s3"}]}), "`Records`"),
        (json!({"Messages": [{"Body": text}]}), "SQS queue"),
        (
            json!({"MessageId": "x", "ReceiptHandle": "y", "Body": text}),
            "SQS queue",
        ),
        (
            json!({"version": "0", "detail-type": "x", "detail": message}),
            "EventBridge",
        ),
        (
            json!({"requestContext": {}, "httpMethod": "POST", "body": text}),
            "API Gateway",
        ),
    ] {
        let refused = refusal(&wrapped.to_string());
        assert_eq!(refused.code(), "wrapped_message", "{wrapped}");
        assert!(refused.to_string().contains(named), "{refused}");
    }
    // Unknown keys of a genuine message play no part.
    let mut genuine = body(MessageType::Notification);
    genuine["Records"] = json!([]);
    assert!(parse(&genuine.to_string()).is_ok());
}

#[test]
fn a_compressed_body_is_named_by_its_format() {
    for (bytes, format) in [
        (&b"\x1F\x8B\x08\0\0\0\0\0\0\x03"[..], "gzip"),
        (b"\x78\x9C\xABV\x0A", "deflate"),
        (b"\x28\xB5\x2F\xFD\x04", "zstd"),
    ] {
        let parsed = Envelope::parse(Bytes::copy_from_slice(bytes), &SnsHeaders::default());
        let refused = parsed.expect_err("it is compressed");
        assert_eq!(refused, VerifyError::CompressedBody(format));
        assert!(refused.to_string().contains(format), "{refused}");
    }
}

#[test]
fn two_mebibytes_are_read_and_one_byte_more_is_not() {
    let valid = body(MessageType::Notification).to_string();
    let padded = format!("{valid}{}", " ".repeat(MAX_BODY_BYTES - valid.len()));
    assert!(parse(&padded).is_ok());
    assert_eq!(
        refusal(&format!("{padded} ")),
        VerifyError::BodyTooLarge {
            limit_bytes: MAX_BODY_BYTES
        }
    );
}

#[test]
fn no_refusal_quotes_a_value_of_the_body() {
    let secret = "s3cr3t-value";
    let valid = body(MessageType::SubscriptionConfirmation);
    let mut bodies = vec![
        format!("\"{secret}\""),
        format!("[\"{secret}\"]"),
        format!("{{\"Type\":\"{secret}\"}}{secret}"),
        format!("{{\"Type\":\"{secret}\",\"Message\":{secret}}}"),
    ];
    for field in valid.as_object().unwrap().keys() {
        for value in [json!([secret]), json!(format!("{secret}\n"))] {
            let mut bad = valid.clone();
            bad[field] = value;
            bodies.push(bad.to_string());
        }
    }
    for body in bodies {
        if let Err(refusal) = parse(&body) {
            let printed = format!("{refusal} {refusal:?}");
            assert!(!printed.contains(secret), "{printed}");
        }
    }
}

#[test]
fn a_long_key_is_cut_in_the_refusal() {
    let key = format!("a\\n{}", "k".repeat(100_000));
    let VerifyError::RepeatedKey(shown) = refusal(&format!("{{\"{key}\":1,\"{key}\":1}}")) else {
        panic!("another refusal");
    };
    assert!(shown.starts_with("a kkk") && shown.len() <= 60, "{shown}");
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(".{0,6}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Returns `text` as a JSON string in which the characters at the bits of `escape` are escaped.
fn json_string(text: &str, escape: u64) -> String {
    let mut written = String::from("\"");
    for (place, c) in text.chars().enumerate() {
        let escaped = escape >> (place % 64) & 1 == 1;
        if escaped || c.is_control() || c == '"' || c == '\\' {
            for unit in c.encode_utf16(&mut [0; 2]) {
                written.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            written.push(c);
        }
    }
    written.push('"');
    written
}

proptest! {
    #[test]
    fn no_bytes_cause_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = Envelope::parse(Bytes::from(bytes), &SnsHeaders::default());
    }

    #[test]
    fn no_object_of_our_keys_causes_a_panic(
        fields in prop::collection::vec(
            (
                "(Type|MessageId|TopicArn|Subject|Message|Timestamp|SignatureVersion|Signature|SigningCertURL|Token|SubscribeURL|x)",
                json_value(),
            ),
            0..14,
        ),
    ) {
        let members: Vec<String> =
            fields.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
        let _ = parse(&format!("{{{}}}", members.join(",")));
    }

    /// Every spelling of a message in JSON is read as the same message.
    #[test]
    fn order_spacing_escapes_and_unknown_fields_change_nothing(
        message in ".{0,40}",
        subject in prop::option::of("[^\\x00-\\x1f\\x7f-\\x9f]{0,20}"),
        extra in json_value(),
        order in Just((0usize..10).collect::<Vec<_>>()).prop_shuffle(),
        space in "[ \t\r\n]{0,3}",
        escape in any::<u64>(),
    ) {
        let mut value = body(MessageType::Notification);
        value["Message"] = message.clone().into();
        value["Subject"] = subject.clone().into();
        let mut members: Vec<String> = value
            .as_object()
            .unwrap()
            .iter()
            .map(|(key, value)| {
                let value = value.as_str().map_or("null".to_owned(), |text| json_string(text, escape));
                format!("{}{space}:{space}{value}", json_string(key, escape.rotate_left(7)))
            })
            .collect();
        members.push(format!("\"Extra\":{extra}"));
        let members: Vec<String> = order.into_iter().map(|place| members[place].clone()).collect();
        let text = format!("{space}{{{space}{}{space}}}{space}", members.join(&format!("{space},{space}")));

        let envelope = parse(&text).unwrap();

        prop_assert_eq!(envelope.message_type(), MessageType::Notification);
        prop_assert_eq!(envelope.topic_arn(), TOPIC);
        let expected = plain_text(&message, subject.as_deref());
        prop_assert_eq!(envelope.signed_text(), expected.as_bytes());
    }

    #[test]
    fn a_message_cut_short_is_refused(share in 0.0f64..1.0) {
        let whole = body(MessageType::UnsubscribeConfirmation).to_string();
        let cut = (whole.len() as f64 * share) as usize;
        prop_assert_eq!(parse(&whole[..cut]).unwrap_err().code(), "malformed_json");
    }
}

/// Returns the signed text of a notification, written out a second time.
fn plain_text(message: &str, subject: Option<&str>) -> String {
    let mut text = format!("Message\n{message}\nMessageId\n165545c9-2a5c-472c-8df2-7ff2be2b3b1b\n");
    if let Some(subject) = subject {
        text.push_str(&format!("Subject\n{subject}\n"));
    }
    text + &format!("Timestamp\n{NOW}\nTopicArn\n{TOPIC}\nType\nNotification\n")
}
