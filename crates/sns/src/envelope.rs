//! Parses one SNS message: shape only, nothing verified.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use bytes::Bytes;
use serde::de::{self, DeserializeSeed, Deserializer as _, IgnoredAny, MapAccess, SeqAccess};

use crate::canonical::{CanonicalText, SignedFields};
use crate::error::VerifyError;
use crate::message::{MAX_BODY_BYTES, MessageType, SnsHeaders};
use crate::policy::TopicArn;
use crate::signature::SignatureVersion;
use crate::time::Timestamp;
use crate::wrapper;

/// A message as it arrived: shape checked, nothing verified.
pub struct Envelope {
    pub(super) body: Bytes,
    pub(super) contents: Contents,
}

/// The fields of a well-formed body.
pub(super) struct Contents {
    pub(super) message_type: MessageType,
    pub(super) text: CanonicalText,
    pub(super) timestamp: Timestamp,
    pub(super) version: SignatureVersion,
    /// Base64, not yet decoded.
    pub(super) signature: String,
    pub(super) certificate_url: String,
    /// The subscription that the headers name; they are not signed.
    pub(super) subscription_arn: Option<String>,
}

impl Envelope {
    /// Parses one SNS message and checks its shape, and that `headers` do not contradict it.
    ///
    /// A top-level key that occurs twice once unescaped is refused; unknown keys are
    /// skipped whatever their values. One leading BOM and outer white space are
    /// tolerated, anything after the object is not. The `Content-Type` plays no part:
    /// SNS sends `text/plain`.
    ///
    /// # Errors
    ///
    /// [`VerifyError::BodyTooLarge`] to [`VerifyError::UnsupportedSignatureVersion`] in the
    /// order of the variants, one for each reason.
    pub fn parse(body: Bytes, headers: &SnsHeaders) -> Result<Self, VerifyError> {
        if body.len() > MAX_BODY_BYTES {
            return Err(VerifyError::BodyTooLarge {
                limit_bytes: MAX_BODY_BYTES,
            });
        }
        if headers.raw_delivery {
            return Err(VerifyError::RawDelivery);
        }
        let contents = Contents::read(&body, headers).map_err(|error| match error {
            // Only now: a genuine message is not searched for what it is not.
            VerifyError::MissingField(_) => {
                wrapper::of(&body).map_or(error, VerifyError::WrappedMessage)
            }
            other => other,
        })?;
        Ok(Self { body, contents })
    }

    /// Returns `Type`, as claimed.
    pub fn message_type(&self) -> MessageType {
        self.contents.message_type
    }

    /// Returns `MessageId`, as claimed.
    pub fn message_id(&self) -> &str {
        self.contents.text.message_id()
    }

    /// Returns `TopicArn`, as claimed.
    pub fn topic_arn(&self) -> &str {
        self.contents.text.topic_arn()
    }

    /// Returns the text that its signature must cover.
    pub fn signed_text(&self) -> &[u8] {
        self.contents.text.as_bytes()
    }

    /// Returns `SigningCertURL`, as claimed.
    pub fn certificate_url(&self) -> &str {
        &self.contents.certificate_url
    }
}

impl fmt::Debug for Envelope {
    /// Leaves out body, signature, token and URLs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Envelope")
            .field("message_type", &self.message_type())
            .field("message_id", &self.message_id())
            .field("topic_arn", &self.topic_arn())
            .finish_non_exhaustive()
    }
}

impl Contents {
    fn read(body: &[u8], headers: &SnsHeaders) -> Result<Self, VerifyError> {
        let fields = Fields::read(body)?;
        let type_name = fields.required(Field::Type)?;
        let message_type = MessageType::parse(type_name);
        let confirmation = matches!(
            message_type,
            Some(MessageType::SubscriptionConfirmation | MessageType::UnsubscribeConfirmation)
        );
        let message_id = fields.required(Field::MessageId)?;
        let topic_arn = fields.required(Field::TopicArn)?;
        let message = fields.required(Field::Message)?;
        let timestamp = fields.required(Field::Timestamp)?;
        let version = fields.required(Field::SignatureVersion)?;
        let signature = fields.required(Field::Signature)?;
        let certificate_url = fields.required(Field::SigningCertUrl)?;
        let subject = fields.get(Field::Subject);
        let (token, subscribe_url) = if confirmation {
            (
                Some(fields.required(Field::Token)?),
                Some(fields.required(Field::SubscribeUrl)?),
            )
        } else {
            (None, None)
        };

        for field in Field::ONE_LINE {
            fields.check_control_characters(field)?;
        }
        if message_id.is_empty() {
            return Err(malformed(Field::MessageId, "a message's id"));
        }
        TopicArn::parse(topic_arn).ok_or(malformed(
            Field::TopicArn,
            "the ARN of an SNS topic (arn:aws:sns:REGION:ACCOUNT:NAME)",
        ))?;
        let published_at = Timestamp::parse(timestamp)
            .ok_or(malformed(Field::Timestamp, "an RFC 3339 date and time"))?;
        check_headers(headers, type_name, message_id, topic_arn)?;
        let message_type = message_type.ok_or(VerifyError::UnsupportedType)?;
        let version =
            SignatureVersion::parse(version).ok_or(VerifyError::UnsupportedSignatureVersion)?;

        Ok(Self {
            message_type,
            text: CanonicalText::new(&SignedFields {
                message_type,
                message,
                message_id,
                subject,
                subscribe_url,
                timestamp,
                token,
                topic_arn,
            }),
            timestamp: published_at,
            version,
            signature: signature.to_owned(),
            certificate_url: certificate_url.to_owned(),
            subscription_arn: headers.subscription_arn.clone(),
        })
    }
}

const fn malformed(field: Field, expected: &'static str) -> VerifyError {
    VerifyError::MalformedField {
        field: field.name(),
        expected,
    }
}

/// Checks that no header contradicts the body.
///
/// Headers are unsigned, so they never decide anything; but a contradiction shows
/// that the request was changed on its way.
fn check_headers(
    headers: &SnsHeaders,
    message_type: &str,
    message_id: &str,
    topic_arn: &str,
) -> Result<(), VerifyError> {
    let pairs = [
        (
            "x-amz-sns-message-type",
            &headers.message_type,
            message_type,
        ),
        ("x-amz-sns-message-id", &headers.message_id, message_id),
        ("x-amz-sns-topic-arn", &headers.topic_arn, topic_arn),
    ];
    for (name, header, field) in pairs {
        if header.as_deref().is_some_and(|header| header != field) {
            return Err(VerifyError::HeaderMismatch(name));
        }
    }
    Ok(())
}

/// The keys that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Type,
    MessageId,
    TopicArn,
    Subject,
    Message,
    Timestamp,
    SignatureVersion,
    Signature,
    SigningCertUrl,
    Token,
    SubscribeUrl,
}

impl Field {
    const COUNT: usize = 11;

    /// The signed fields that must not hold a control character: all but `Message`.
    const ONE_LINE: [Self; 7] = [
        Self::Type,
        Self::MessageId,
        Self::TopicArn,
        Self::Subject,
        Self::Timestamp,
        Self::Token,
        Self::SubscribeUrl,
    ];

    fn named(key: &str) -> Option<Self> {
        Some(match key {
            "Type" => Self::Type,
            "MessageId" => Self::MessageId,
            "TopicArn" => Self::TopicArn,
            "Subject" => Self::Subject,
            "Message" => Self::Message,
            "Timestamp" => Self::Timestamp,
            "SignatureVersion" => Self::SignatureVersion,
            "Signature" => Self::Signature,
            "SigningCertURL" => Self::SigningCertUrl,
            "Token" => Self::Token,
            "SubscribeURL" => Self::SubscribeUrl,
            _ => return None,
        })
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Type => "Type",
            Self::MessageId => "MessageId",
            Self::TopicArn => "TopicArn",
            Self::Subject => "Subject",
            Self::Message => "Message",
            Self::Timestamp => "Timestamp",
            Self::SignatureVersion => "SignatureVersion",
            Self::Signature => "Signature",
            Self::SigningCertUrl => "SigningCertURL",
            Self::Token => "Token",
            Self::SubscribeUrl => "SubscribeURL",
        }
    }

    /// Returns true if `null` counts as absent.
    const fn is_optional(self) -> bool {
        matches!(self, Self::Subject | Self::Token | Self::SubscribeUrl)
    }
}

/// The values of the known keys, borrowed from the body if nothing was escaped.
#[derive(Default)]
struct Fields<'a> {
    values: [Option<Cow<'a, str>>; Field::COUNT],
    /// One bit for each [`Field`]: the key occurred, if only with `null`.
    seen: u16,
}

impl<'a> Fields<'a> {
    fn read(body: &'a [u8]) -> Result<Self, VerifyError> {
        if let Some(format) = compression(body) {
            return Err(VerifyError::CompressedBody(format));
        }
        let body = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body);
        let text = std::str::from_utf8(body)
            .map_err(|_| VerifyError::MalformedJson("it is not UTF-8".to_owned()))?;
        // Checked here, so that no later error quotes a value from the body.
        if !text
            .trim_start_matches([' ', '\t', '\r', '\n'])
            .starts_with('{')
        {
            return Err(VerifyError::MalformedJson(
                "it does not begin with `{`".to_owned(),
            ));
        }

        let mut error = None;
        let mut json = serde_json::Deserializer::from_str(text);
        let read = json
            .deserialize_map(ObjectVisitor {
                refused: &mut error,
            })
            .and_then(|fields| json.end().map(|()| fields));
        match (read, error) {
            (_, Some(error)) => Err(error),
            (Ok(fields), None) => Ok(fields),
            // Only syntax errors are left, and those name places, not contents.
            (Err(error), None) => Err(VerifyError::MalformedJson(error.to_string())),
        }
    }

    fn get(&self, field: Field) -> Option<&str> {
        self.values[field as usize].as_deref()
    }

    fn required(&self, field: Field) -> Result<&str, VerifyError> {
        self.get(field)
            .ok_or(VerifyError::MissingField(field.name()))
    }

    fn check_control_characters(&self, field: Field) -> Result<(), VerifyError> {
        match self.get(field) {
            Some(value) if has_control_character(value) => {
                Err(VerifyError::ControlCharacter(field.name()))
            }
            _ => Ok(()),
        }
    }

    /// Marks the key as seen; returns true the first time.
    fn mark(&mut self, field: Field) -> bool {
        let bit = 1 << field as u16;
        let new = self.seen & bit == 0;
        self.seen |= bit;
        new
    }
}

/// Returns the format of a compressed body. No JSON object begins with these bytes.
fn compression(body: &[u8]) -> Option<&'static str> {
    const FORMATS: [(&[u8], &str); 5] = [
        (b"\x1F\x8B", "gzip"),
        (b"\x28\xB5\x2F\xFD", "zstd"),
        (b"\x78\x01", "deflate"),
        (b"\x78\x9C", "deflate"),
        (b"\x78\xDA", "deflate"),
    ];
    let format = FORMATS.iter().find(|(magic, _)| body.starts_with(magic));
    format.map(|(_, name)| *name)
}

fn has_control_character(text: &str) -> bool {
    // Two tight loops over bytes beat one that decodes characters.
    text.bytes().any(|byte| byte < 0x20 || byte == 0x7F)
        || (!text.is_ascii() && text.chars().any(char::is_control))
}

/// Shortens a key for an error, and puts it on one line.
fn shorten(key: &str) -> String {
    key.chars()
        .take(60)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// Reads the object; the reason of a refusal is left in `refused`, since serde's errors are text.
struct ObjectVisitor<'r> {
    refused: &'r mut Option<VerifyError>,
}

impl<'de> de::Visitor<'de> for ObjectVisitor<'_> {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an SNS message")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
        let mut fields = Fields::default();
        // A set, because a hostile body has room for 300,000 keys.
        let mut unknown: HashSet<Cow<'de, str>> = HashSet::new();
        let mut refuse = |error: VerifyError| {
            *self.refused = Some(error);
            de::Error::custom("refused")
        };
        while let Some(value) = map.next_key_seed(ValueSeed)? {
            // JSON has no keys but strings.
            let AnyValue::Text(key) = value else {
                return Err(de::Error::custom("a key is not a string"));
            };
            let Some(field) = Field::named(&key) else {
                map.next_value::<IgnoredAny>()?;
                if unknown.contains(&key) {
                    return Err(refuse(VerifyError::RepeatedKey(shorten(&key))));
                }
                unknown.insert(key);
                continue;
            };
            if !fields.mark(field) {
                return Err(refuse(VerifyError::RepeatedKey(field.name().to_owned())));
            }
            match map.next_value_seed(ValueSeed)? {
                AnyValue::Text(text) => fields.values[field as usize] = Some(text),
                AnyValue::Null if field.is_optional() => {}
                _ => return Err(refuse(malformed(field, "text"))),
            }
        }
        Ok(fields)
    }
}

/// A JSON value, as far as it is read.
enum AnyValue<'a> {
    Text(Cow<'a, str>),
    Null,
    Other,
}

/// Reads any value; text without escapes is borrowed from the body.
struct ValueSeed;

impl<'de> DeserializeSeed<'de> for ValueSeed {
    type Value = AnyValue<'de>;

    fn deserialize<D: de::Deserializer<'de>>(self, value: D) -> Result<AnyValue<'de>, D::Error> {
        value.deserialize_any(self)
    }
}

impl<'de> de::Visitor<'de> for ValueSeed {
    type Value = AnyValue<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<AnyValue<'de>, E> {
        Ok(AnyValue::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<AnyValue<'de>, E> {
        Ok(AnyValue::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_unit<E>(self) -> Result<AnyValue<'de>, E> {
        Ok(AnyValue::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<AnyValue<'de>, E> {
        Ok(AnyValue::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<AnyValue<'de>, E> {
        Ok(AnyValue::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<AnyValue<'de>, E> {
        Ok(AnyValue::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<AnyValue<'de>, E> {
        Ok(AnyValue::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<AnyValue<'de>, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(AnyValue::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<AnyValue<'de>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(AnyValue::Other)
    }
}
