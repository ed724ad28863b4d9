//! Every reason for refusing a message, in one table: its code, the status and title of
//! the answer, and whether the message is kept in quarantine.
//!
//! The code is the field in the log, the label of the metric, the `code` in the
//! answer and the name in `docs/refusals.md`. A new variant, here or in
//! [`VerifyError`], does not compile until it has a row in the table.

use hyper::StatusCode;
use sns_messages::{ConfirmError, VerifyError};

/// Why a message was refused.
///
/// Holds nothing secret and nothing longer than a few hundred bytes, so it may
/// be logged and stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No webhook has this path, token and method.
    ///
    /// One reason for all of them, so that a stranger learns nothing about accounts and tokens;
    /// log and metrics tell them apart ([`crate::unexpected`]).
    #[error("there is nothing at this path")]
    UnknownPath,
    /// The body did not arrive whole, or not in time.
    #[error("the body did not arrive whole in time")]
    BodyIncomplete,
    /// The message could not be verified.
    #[error(transparent)]
    Unverified(#[from] VerifyError),
    /// SNS could not be asked to confirm the subscription.
    #[error("failed to ask SNS for the confirmation: {0}")]
    ConfirmationUnavailable(String),
    /// The database did not accept the message.
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

/// One row of the table of reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reason {
    /// The code.
    pub code: &'static str,
    /// The answer's status.
    ///
    /// SNS treats any 4xx as delivered and drops the message, so 4xx is for what no
    /// later attempt could fix, and 429 is never answered.
    pub status: StatusCode,
    /// The answer's title: fixed text without details of the message.
    pub title: &'static str,
    /// True if the message is kept in quarantine: a retry of the same bytes could end
    /// otherwise, and SNS does not retry at all or not for long enough.
    pub kept: bool,
}

macro_rules! reasons {
    ($($pattern:pat => $code:literal, $status:ident, $title:literal, kept: $kept:literal;)+) => {
        impl Refusal {
            /// Every reason, in the order of the checks.
            pub const REASONS: &'static [Reason] = &[$(Reason {
                code: $code,
                status: StatusCode::$status,
                title: $title,
                kept: $kept,
            }),+];

            /// Returns the reason's row in the table.
            pub const fn reason(&self) -> Reason {
                match self {
                    $($pattern => Reason {
                        code: $code,
                        status: StatusCode::$status,
                        title: $title,
                        kept: $kept,
                    },)+
                }
            }
        }
    };
}

reasons! {
    Self::UnknownPath =>
        "unknown_path", NOT_FOUND, "There is nothing here.", kept: false;
    Self::Unverified(VerifyError::BodyTooLarge { .. }) =>
        "body_too_large", PAYLOAD_TOO_LARGE, "The body is larger than an SNS message can be.", kept: false;
    // A slow network is as often the cause as the sender, and the next attempt may arrive
    // whole; a 4xx would lose the message.
    Self::BodyIncomplete =>
        "body_incomplete", SERVICE_UNAVAILABLE, "The body did not arrive whole in time.", kept: false;
    Self::Unverified(VerifyError::RawDelivery) =>
        "raw_delivery", FORBIDDEN, "Raw message delivery carries no signature.", kept: true;

    Self::Unverified(VerifyError::CompressedBody(_)) =>
        "compressed_body", BAD_REQUEST, "The body is compressed.", kept: true;
    Self::Unverified(VerifyError::MalformedJson(_)) =>
        "malformed_json", BAD_REQUEST, "The body is not one JSON object.", kept: true;
    Self::Unverified(VerifyError::RepeatedKey(_)) =>
        "repeated_key", BAD_REQUEST, "A key occurs twice.", kept: true;
    Self::Unverified(VerifyError::WrappedMessage(_)) =>
        "wrapped_message", BAD_REQUEST, "The message is wrapped in another service's.", kept: true;
    Self::Unverified(VerifyError::MissingField(_)) =>
        "missing_field", BAD_REQUEST, "A field is missing.", kept: true;
    Self::Unverified(VerifyError::MalformedField { .. }) =>
        "malformed_field", BAD_REQUEST, "A field does not have the form that SNS gives it.", kept: true;
    Self::Unverified(VerifyError::ControlCharacter(_)) =>
        "control_character", BAD_REQUEST, "A signed field contains a control character.", kept: true;
    Self::Unverified(VerifyError::HeaderMismatch(_)) =>
        "header_mismatch", BAD_REQUEST, "A header contradicts the body.", kept: true;
    Self::Unverified(VerifyError::UnsupportedType) =>
        "unsupported_type", BAD_REQUEST, "The message type is not one that SNS sends.", kept: true;
    // A new SignatureVersion needs an update of this program.
    Self::Unverified(VerifyError::UnsupportedSignatureVersion) =>
        "unsupported_signature_version", SERVICE_UNAVAILABLE, "The signature version is not known yet.", kept: true;

    Self::Unverified(VerifyError::TopicNotAllowed(_)) =>
        "topic_not_allowed", FORBIDDEN, "The topic is not allowed by `sns.topics`, nor approved by a person.", kept: true;
    Self::Unverified(VerifyError::UntrustedCertificateUrl) =>
        "untrusted_certificate_url", FORBIDDEN, "The certificate's URL is not an SNS address.", kept: true;
    Self::Unverified(VerifyError::UntrustedSubscribeUrl) =>
        "untrusted_subscribe_url", FORBIDDEN, "SubscribeURL is not an SNS address for this topic.", kept: true;
    Self::Unverified(VerifyError::MalformedSignature) =>
        "malformed_signature", BAD_REQUEST, "The signature is not base64.", kept: true;

    // From the pinned host: a setting, an update or the clock can fix these while SNS
    // still retries.
    Self::Unverified(VerifyError::CertificateUnavailable(_)) =>
        "certificate_unavailable", SERVICE_UNAVAILABLE, "The signing certificate could not be fetched.", kept: true;
    Self::Unverified(VerifyError::MalformedCertificate) =>
        "malformed_certificate", SERVICE_UNAVAILABLE, "The signing certificate is not acceptable.", kept: true;
    Self::Unverified(VerifyError::CertificateName) =>
        "certificate_name", SERVICE_UNAVAILABLE, "The signing certificate is not acceptable.", kept: true;
    Self::Unverified(VerifyError::CertificateKey) =>
        "certificate_key", SERVICE_UNAVAILABLE, "The signing certificate is not acceptable.", kept: true;
    Self::Unverified(VerifyError::CertificateDates { .. }) =>
        "certificate_dates", SERVICE_UNAVAILABLE, "The signing certificate is not acceptable.", kept: true;
    Self::Unverified(VerifyError::SignatureMismatch) =>
        "signature_mismatch", FORBIDDEN, "The signature does not match the message.", kept: true;

    Self::Unverified(VerifyError::TooOld) =>
        "too_old", FORBIDDEN, "The message was published too long ago.", kept: true;
    Self::Unverified(VerifyError::FromTheFuture) =>
        "from_the_future", SERVICE_UNAVAILABLE, "The message was published in the future.", kept: true;

    // Temporary causes on this side: SNS sends these messages again.
    Self::ConfirmationUnavailable(_) =>
        "confirmation_unavailable", SERVICE_UNAVAILABLE, "SNS could not be asked to confirm.", kept: false;
    Self::StoreUnavailable =>
        "store_unavailable", SERVICE_UNAVAILABLE, "The message could not be stored.", kept: false;
    Self::DiskNearlyFull =>
        "disk_nearly_full", SERVICE_UNAVAILABLE, "There is no room to store.", kept: false;
    Self::QueueFull =>
        "queue_full", SERVICE_UNAVAILABLE, "Too many messages are waiting.", kept: false;
    Self::ShuttingDown =>
        "shutting_down", SERVICE_UNAVAILABLE, "The service is shutting down.", kept: false;
}

impl Refusal {
    /// Returns the reason's code.
    pub const fn code(&self) -> &'static str {
        self.reason().code
    }

    /// Returns the refusal of a message whose confirmation failed; `None` if SNS's
    /// answer is final, and sending the message again would change nothing.
    pub fn of_confirmation(error: &ConfirmError) -> Option<Self> {
        match error {
            ConfirmError::TopicNotAllowed(topic_arn) => {
                Some(VerifyError::TopicNotAllowed(topic_arn.clone()).into())
            }
            ConfirmError::Untrusted => Some(VerifyError::UntrustedSubscribeUrl.into()),
            ConfirmError::Unavailable(why) => Some(Self::ConfirmationUnavailable(why.clone())),
            ConfirmError::Rejected { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// One of each variant; the test compares their number with that of the codes.
    fn verify_errors() -> Vec<VerifyError> {
        let text = String::new;
        vec![
            VerifyError::BodyTooLarge { limit_bytes: 1 },
            VerifyError::RawDelivery,
            VerifyError::CompressedBody("gzip"),
            VerifyError::MalformedJson(text()),
            VerifyError::RepeatedKey(text()),
            VerifyError::WrappedMessage("a message of a queue"),
            VerifyError::MissingField("Type"),
            VerifyError::MalformedField {
                field: "Type",
                expected: "text",
            },
            VerifyError::ControlCharacter("Type"),
            VerifyError::HeaderMismatch("x-amz-sns-topic-arn"),
            VerifyError::UnsupportedType,
            VerifyError::UnsupportedSignatureVersion,
            VerifyError::TopicNotAllowed(text()),
            VerifyError::UntrustedCertificateUrl,
            VerifyError::UntrustedSubscribeUrl,
            VerifyError::MalformedSignature,
            VerifyError::CertificateUnavailable(text()),
            VerifyError::MalformedCertificate,
            VerifyError::CertificateName,
            VerifyError::CertificateKey,
            VerifyError::CertificateDates {
                not_before: text(),
                not_after: text(),
            },
            VerifyError::SignatureMismatch,
            VerifyError::TooOld,
            VerifyError::FromTheFuture,
        ]
    }

    #[test]
    fn every_code_occurs_once_and_never_answers_429() {
        let codes: BTreeSet<&str> = Refusal::REASONS.iter().map(|reason| reason.code).collect();

        assert_eq!(codes.len(), Refusal::REASONS.len());
        for reason in Refusal::REASONS {
            assert_ne!(reason.status, StatusCode::TOO_MANY_REQUESTS);
        }
    }

    #[test]
    fn unverified_messages_keep_their_code_and_retry_if_useful() {
        let errors = verify_errors();
        let codes: Vec<&str> = errors.iter().map(VerifyError::code).collect();
        assert_eq!(codes, VerifyError::CODES);

        for error in errors {
            let reason = Refusal::from(error.clone()).reason();
            assert_eq!(reason.code, error.code());
            // SNS retries what is answered with a 5xx, and nothing else.
            let retried = reason.status.is_server_error();
            assert_eq!(retried, error.could_pass_later(), "{error:?}");
        }
    }

    #[test]
    fn only_a_confirmation_that_sns_rejected_is_accepted() {
        let rejected = ConfirmError::Rejected {
            status: 400,
            code: "InvalidParameter".to_owned(),
        };
        assert_eq!(Refusal::of_confirmation(&rejected), None);
        for (error, code) in [
            (
                ConfirmError::TopicNotAllowed("arn".to_owned()),
                "topic_not_allowed",
            ),
            (ConfirmError::Untrusted, "untrusted_subscribe_url"),
            (
                ConfirmError::Unavailable("timed out".to_owned()),
                "confirmation_unavailable",
            ),
        ] {
            let refusal = Refusal::of_confirmation(&error).expect("a refusal");
            assert_eq!(refusal.code(), code);
        }
    }
}
