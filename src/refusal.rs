//! Every reason for refusing a message, each with a code of its own.
//!
//! The code is the field in the log, the label of the metric, the `code` in the
//! answer and the name in `docs/refusals.md`. Which status a reason answers is
//! decided in [`crate::receiver`], nowhere else.

/// Why a message was refused.
///
/// Holds nothing secret and nothing longer than a few hundred bytes, so it may
/// be logged and stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No route has this path, method, account or event.
    #[error("there is nothing at this path")]
    UnknownPath,
    /// The path's token is missing or is not one of ours.
    #[error("the token in the path is not one of this account's")]
    UnknownToken,
    /// More bytes than an SNS message can have.
    #[error("the body is larger than {limit_bytes} bytes")]
    BodyTooLarge {
        /// The most that is read.
        limit_bytes: usize,
    },
    /// The body did not arrive whole, or not in time.
    #[error("the body did not arrive whole in time")]
    BodyIncomplete,
    /// `x-amz-sns-rawdelivery` is on: the message came without its signature.
    #[error("raw message delivery is on, so the message carries no signature")]
    RawDelivery,

    /// The body is not one JSON object.
    #[error("the body is not one JSON object: {0}")]
    MalformedJson(String),
    /// A key stands twice in the object.
    #[error("the key `{0}` stands twice")]
    RepeatedKey(String),
    /// A field that this type of message must have is absent.
    #[error("the field `{0}` is missing")]
    MissingField(&'static str),
    /// A field has another form than SNS gives it.
    #[error("the field `{field}` is not {expected}")]
    MalformedField {
        /// The field's name.
        field: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// A signed field other than `Message` holds a control character.
    #[error("the field `{0}` holds a control character")]
    ControlCharacter(&'static str),
    /// An SNS header says something else than the signed body.
    #[error("the header `{0}` disagrees with the body")]
    HeaderMismatch(&'static str),
    /// `Type` is none of the three that SNS sends.
    #[error("the message type is not one that SNS sends")]
    UnsupportedType,
    /// `SignatureVersion` is neither 1 nor 2.
    #[error("the signature version is neither 1 nor 2")]
    UnsupportedSignatureVersion,

    /// `TopicArn` is not on the allowlist.
    #[error("the topic is not on the allowlist")]
    TopicNotAllowed,
    /// `SigningCertURL` is not the SNS address of the topic's region.
    #[error("the certificate's URL is not the SNS address of the topic's region")]
    UntrustedCertificateUrl,
    /// `SubscribeURL` is not the SNS address that confirms this very topic and token.
    #[error("SubscribeURL is not the SNS address that confirms this topic and token")]
    UntrustedSubscribeUrl,

    /// `Signature` is not base64 of a plausible length.
    #[error("the signature is not base64")]
    MalformedSignature,

    /// The signing certificate could not be had just now.
    #[error("the signing certificate could not be had: {0}")]
    CertificateUnavailable(String),
    /// What the certificate's URL gave is no X.509 certificate.
    #[error("what the certificate's URL gave is not an X.509 certificate")]
    MalformedCertificate,
    /// The certificate is for another name than SNS uses in that region.
    #[error("the certificate is for another name than SNS uses in that region")]
    CertificateName,
    /// The certificate is not valid at this time.
    #[error("the certificate is not valid at this time (valid {not_before} to {not_after})")]
    CertificateDates {
        /// First moment at which it is valid.
        not_before: String,
        /// Last moment at which it is valid.
        not_after: String,
    },
    /// The certificate's key is not RSA of at least 2048 bits.
    #[error("the certificate's key is not RSA of at least 2048 bits")]
    CertificateKey,

    /// The signature does not match the message.
    #[error("the signature does not match the message")]
    SignatureMismatch,

    /// Published longer ago than the settings allow.
    #[error(
        "the message was published longer ago than `sns.max_age` allows; check this machine's clock"
    )]
    TooOld,
    /// Published in the future: one of the two clocks is wrong.
    #[error("the message says that it was published in the future; check this machine's clock")]
    FromTheFuture,

    /// SNS could not be asked to confirm the subscription.
    #[error("SNS could not be asked to confirm the subscription: {0}")]
    ConfirmationUnavailable(String),
    /// The database did not take the message.
    #[error("the store is not available")]
    StoreUnavailable,
    /// The disk has less room than `store.min_free_bytes`.
    #[error("the disk is nearly full")]
    DiskNearlyFull,
    /// More messages are waiting than the queue holds.
    #[error("more messages are waiting than the queue holds")]
    QueueFull,
    /// The service is stopping.
    #[error("the service is shutting down")]
    ShuttingDown,
}

impl Refusal {
    /// Every code, in the order of the checks; `docs/refusals.md` lists the same.
    pub const CODES: [&'static str; 30] = [
        "unknown_path",
        "unknown_token",
        "body_too_large",
        "body_incomplete",
        "raw_delivery",
        "malformed_json",
        "repeated_key",
        "missing_field",
        "malformed_field",
        "control_character",
        "header_mismatch",
        "unsupported_type",
        "unsupported_signature_version",
        "topic_not_allowed",
        "untrusted_certificate_url",
        "untrusted_subscribe_url",
        "malformed_signature",
        "certificate_unavailable",
        "malformed_certificate",
        "certificate_name",
        "certificate_key",
        "certificate_dates",
        "signature_mismatch",
        "too_old",
        "from_the_future",
        "confirmation_unavailable",
        "store_unavailable",
        "disk_nearly_full",
        "queue_full",
        "shutting_down",
    ];

    /// The reason's code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::UnknownPath => "unknown_path",
            Self::UnknownToken => "unknown_token",
            Self::BodyTooLarge { .. } => "body_too_large",
            Self::BodyIncomplete => "body_incomplete",
            Self::RawDelivery => "raw_delivery",
            Self::MalformedJson(_) => "malformed_json",
            Self::RepeatedKey(_) => "repeated_key",
            Self::MissingField(_) => "missing_field",
            Self::MalformedField { .. } => "malformed_field",
            Self::ControlCharacter(_) => "control_character",
            Self::HeaderMismatch(_) => "header_mismatch",
            Self::UnsupportedType => "unsupported_type",
            Self::UnsupportedSignatureVersion => "unsupported_signature_version",
            Self::TopicNotAllowed => "topic_not_allowed",
            Self::UntrustedCertificateUrl => "untrusted_certificate_url",
            Self::UntrustedSubscribeUrl => "untrusted_subscribe_url",
            Self::MalformedSignature => "malformed_signature",
            Self::CertificateUnavailable(_) => "certificate_unavailable",
            Self::MalformedCertificate => "malformed_certificate",
            Self::CertificateName => "certificate_name",
            Self::CertificateDates { .. } => "certificate_dates",
            Self::CertificateKey => "certificate_key",
            Self::SignatureMismatch => "signature_mismatch",
            Self::TooOld => "too_old",
            Self::FromTheFuture => "from_the_future",
            Self::ConfirmationUnavailable(_) => "confirmation_unavailable",
            Self::StoreUnavailable => "store_unavailable",
            Self::DiskNearlyFull => "disk_nearly_full",
            Self::QueueFull => "queue_full",
            Self::ShuttingDown => "shutting_down",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One of each. A variant that is missing here is missing in `position` too, and
    /// that does not compile.
    fn one_of_each() -> Vec<Refusal> {
        vec![
            Refusal::UnknownPath,
            Refusal::UnknownToken,
            Refusal::BodyTooLarge { limit_bytes: 1 },
            Refusal::BodyIncomplete,
            Refusal::RawDelivery,
            Refusal::MalformedJson(String::new()),
            Refusal::RepeatedKey(String::new()),
            Refusal::MissingField("Type"),
            Refusal::MalformedField {
                field: "Type",
                expected: "text",
            },
            Refusal::ControlCharacter("Type"),
            Refusal::HeaderMismatch("x-amz-sns-topic-arn"),
            Refusal::UnsupportedType,
            Refusal::UnsupportedSignatureVersion,
            Refusal::TopicNotAllowed,
            Refusal::UntrustedCertificateUrl,
            Refusal::UntrustedSubscribeUrl,
            Refusal::MalformedSignature,
            Refusal::CertificateUnavailable(String::new()),
            Refusal::MalformedCertificate,
            Refusal::CertificateName,
            Refusal::CertificateKey,
            Refusal::CertificateDates {
                not_before: String::new(),
                not_after: String::new(),
            },
            Refusal::SignatureMismatch,
            Refusal::TooOld,
            Refusal::FromTheFuture,
            Refusal::ConfirmationUnavailable(String::new()),
            Refusal::StoreUnavailable,
            Refusal::DiskNearlyFull,
            Refusal::QueueFull,
            Refusal::ShuttingDown,
        ]
    }

    /// The variant's place in [`Refusal::CODES`], by hand.
    fn position(refusal: &Refusal) -> usize {
        match refusal {
            Refusal::UnknownPath => 0,
            Refusal::UnknownToken => 1,
            Refusal::BodyTooLarge { .. } => 2,
            Refusal::BodyIncomplete => 3,
            Refusal::RawDelivery => 4,
            Refusal::MalformedJson(_) => 5,
            Refusal::RepeatedKey(_) => 6,
            Refusal::MissingField(_) => 7,
            Refusal::MalformedField { .. } => 8,
            Refusal::ControlCharacter(_) => 9,
            Refusal::HeaderMismatch(_) => 10,
            Refusal::UnsupportedType => 11,
            Refusal::UnsupportedSignatureVersion => 12,
            Refusal::TopicNotAllowed => 13,
            Refusal::UntrustedCertificateUrl => 14,
            Refusal::UntrustedSubscribeUrl => 15,
            Refusal::MalformedSignature => 16,
            Refusal::CertificateUnavailable(_) => 17,
            Refusal::MalformedCertificate => 18,
            Refusal::CertificateName => 19,
            Refusal::CertificateKey => 20,
            Refusal::CertificateDates { .. } => 21,
            Refusal::SignatureMismatch => 22,
            Refusal::TooOld => 23,
            Refusal::FromTheFuture => 24,
            Refusal::ConfirmationUnavailable(_) => 25,
            Refusal::StoreUnavailable => 26,
            Refusal::DiskNearlyFull => 27,
            Refusal::QueueFull => 28,
            Refusal::ShuttingDown => 29,
        }
    }

    #[test]
    fn the_list_of_codes_holds_the_code_of_every_variant_once() {
        let each = one_of_each();

        assert_eq!(each.len(), Refusal::CODES.len());
        for (place, refusal) in each.iter().enumerate() {
            assert_eq!(position(refusal), place, "{refusal:?}");
            assert_eq!(refusal.code(), Refusal::CODES[place]);
        }
    }
}
