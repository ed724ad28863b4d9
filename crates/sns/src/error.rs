//! The reasons for which a message is not verified.

/// Declares [`VerifyError`]'s codes and whether a later retry could succeed, in one table.
macro_rules! reasons {
    ($($pattern:pat => $code:literal, $retry:ident;)+) => {
        impl VerifyError {
            /// Every code, in the order of the checks.
            pub const CODES: &'static [&'static str] = &[$($code),+];

            /// Returns the reason's code: stable, for logs, metrics and documentation.
            pub const fn code(&self) -> &'static str {
                match self { $($pattern => $code,)+ }
            }

            /// Returns true if the same message could pass when it is sent again.
            ///
            /// The cause is then a failed fetch, this machine's clock, a setting, or a
            /// program that is older than what AWS sends. SNS retries only what is
            /// answered with a status of 500 or above.
            pub const fn could_pass_later(&self) -> bool {
                match self { $($pattern => matches!(Later::$retry, Later::Maybe),)+ }
            }
        }
    };
}

/// A later retry's prospects.
enum Later {
    Maybe,
    Never,
}

/// Why a message was not verified: one variant per reason.
///
/// Holds nothing secret and nothing longer than a few hundred bytes, so it may
/// be logged and stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The body has more bytes than an SNS message can have.
    #[error("the body is larger than {limit_bytes} bytes")]
    BodyTooLarge {
        /// The limit.
        limit_bytes: usize,
    },
    /// `x-amz-sns-rawdelivery` is on: the message came without its signature.
    #[error("raw message delivery is on, so the message carries no signature")]
    RawDelivery,

    /// The body is compressed, which SNS never does.
    #[error("the body is compressed with {0}, and SNS compresses nothing")]
    CompressedBody(&'static str),
    /// The body is not one JSON object.
    #[error("the body is not one JSON object: {0}")]
    MalformedJson(String),
    /// A key occurs twice in the object.
    #[error("the key `{0}` occurs twice")]
    RepeatedKey(String),
    /// The body is what another AWS service makes of a message.
    #[error("the body is {0}, not a message that SNS itself sends to this address")]
    WrappedMessage(&'static str),
    /// A field that this type of message must have is absent.
    #[error("the field `{0}` is missing")]
    MissingField(&'static str),
    /// A field does not have the form that SNS gives it.
    #[error("the field `{field}` is not {expected}")]
    MalformedField {
        /// The field's name.
        field: &'static str,
        /// The expected form.
        expected: &'static str,
    },
    /// A signed field other than `Message` contains a control character.
    #[error("the field `{0}` contains a control character")]
    ControlCharacter(&'static str),
    /// An SNS header contradicts the signed body.
    #[error("the header `{0}` contradicts the body")]
    HeaderMismatch(&'static str),
    /// `Type` is none of the three that SNS sends.
    #[error("the message type is not one that SNS sends")]
    UnsupportedType,
    /// `SignatureVersion` is neither 1 nor 2.
    #[error("the signature version is neither 1 nor 2")]
    UnsupportedSignatureVersion,

    /// `TopicArn`, which is this one, is not on the allowlist.
    #[error("the topic {0} is not allowed")]
    TopicNotAllowed(String),
    /// `SigningCertURL` is not the SNS address of the topic's region.
    #[error("the certificate's URL is not the SNS address of the topic's region")]
    UntrustedCertificateUrl,
    /// `SubscribeURL` is not the SNS address that confirms this topic and token.
    #[error("SubscribeURL is not the SNS address that confirms this topic and token")]
    UntrustedSubscribeUrl,

    /// `Signature` is not base64 of a plausible length.
    #[error("the signature is not base64")]
    MalformedSignature,

    /// The signing certificate could not be fetched.
    #[error("failed to fetch the signing certificate: {0}")]
    CertificateUnavailable(String),
    /// The certificate's URL did not return an X.509 certificate.
    #[error("the certificate's URL did not return an X.509 certificate")]
    MalformedCertificate,
    /// The certificate is for another name than SNS uses in that region.
    #[error("the certificate is for another name than SNS uses in that region")]
    CertificateName,
    /// The certificate's key is not RSA of at least 2048 bits.
    #[error("the certificate's key is not RSA of at least 2048 bits")]
    CertificateKey,
    /// The certificate is not valid at this time.
    #[error("the certificate is not valid at this time (valid {not_before} to {not_after})")]
    CertificateDates {
        /// First moment at which it is valid.
        not_before: String,
        /// Last moment at which it is valid.
        not_after: String,
    },

    /// The signature does not match the message.
    #[error("the signature does not match the message")]
    SignatureMismatch,

    /// The message was published longer ago than [`Settings::max_age`](crate::Settings::max_age).
    #[error(
        "the message was published longer ago than the maximum age; check this machine's clock"
    )]
    TooOld,
    /// The message was published in the future: one of the two clocks is wrong.
    #[error("the message was published in the future; check this machine's clock")]
    FromTheFuture,
}

reasons! {
    Self::BodyTooLarge { .. } => "body_too_large", Never;
    Self::RawDelivery => "raw_delivery", Never;

    Self::CompressedBody(_) => "compressed_body", Never;
    Self::MalformedJson(_) => "malformed_json", Never;
    Self::RepeatedKey(_) => "repeated_key", Never;
    Self::WrappedMessage(_) => "wrapped_message", Never;
    Self::MissingField(_) => "missing_field", Never;
    Self::MalformedField { .. } => "malformed_field", Never;
    Self::ControlCharacter(_) => "control_character", Never;
    Self::HeaderMismatch(_) => "header_mismatch", Never;
    Self::UnsupportedType => "unsupported_type", Never;
    // A new version of SNS's signature is for a new release of this crate.
    Self::UnsupportedSignatureVersion => "unsupported_signature_version", Maybe;

    Self::TopicNotAllowed(_) => "topic_not_allowed", Never;
    Self::UntrustedCertificateUrl => "untrusted_certificate_url", Never;
    Self::UntrustedSubscribeUrl => "untrusted_subscribe_url", Never;
    Self::MalformedSignature => "malformed_signature", Never;

    // From the pinned host: a setting, an update or the clock can fix these in time.
    Self::CertificateUnavailable(_) => "certificate_unavailable", Maybe;
    Self::MalformedCertificate => "malformed_certificate", Maybe;
    Self::CertificateName => "certificate_name", Maybe;
    Self::CertificateKey => "certificate_key", Maybe;
    Self::CertificateDates { .. } => "certificate_dates", Maybe;

    Self::SignatureMismatch => "signature_mismatch", Never;
    Self::TooOld => "too_old", Never;
    Self::FromTheFuture => "from_the_future", Maybe;
}
