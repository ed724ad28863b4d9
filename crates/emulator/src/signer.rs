//! Makes and signs SNS messages with a certificate of its own.
//!
//! The certificate is like AWS's: RSA of 2048 bits, one name as common and as
//! alternative name; but self-signed.

#![expect(
    clippy::disallowed_types,
    reason = "the one place that makes keys and signs"
)]

use std::time::Duration;

use anyhow::Context as _;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, DnType, KeyPair, PKCS_RSA_SHA256};
use rsa::RsaPrivateKey;
use rsa::pkcs1v15::SigningKey;
use rsa::pkcs8::DecodePrivateKey as _;
use rsa::signature::{SignatureEncoding as _, Signer as _};
use serde_json::Value;
use sha1::Sha1;
use time::OffsetDateTime;

use sns_messages::MessageType;
use sns_messages::canonical::{CanonicalText, SignedFields};
use sns_messages::time::Timestamp;

/// The name in AWS's own signing certificate in most regions.
pub const SNS_NAME: &str = "sns.amazonaws.com";

/// A message before it is signed.
#[derive(Clone, Debug)]
pub struct Unsigned {
    /// `Type`
    pub message_type: MessageType,
    /// `MessageId`
    pub message_id: String,
    /// `TopicArn`
    pub topic_arn: String,
    /// `Subject`
    pub subject: Option<String>,
    /// `Message`
    pub message: String,
    /// `Timestamp`, sent unchanged.
    pub timestamp: String,
    /// `Token`, of the two confirmations.
    pub token: Option<String>,
    /// `SubscribeURL`, of the two confirmations.
    pub subscribe_url: Option<String>,
    /// `UnsubscribeURL`, which SNS does not sign.
    pub unsubscribe_url: Option<String>,
    /// `MessageAttributes`, which SNS does not sign; left out when empty.
    pub attributes: serde_json::Map<String, Value>,
}

/// A key and its certificate; signs as SNS does.
pub struct Signer {
    key_pem: String,
    certificate_pem: String,
    certificate_path: String,
    sha256: RsaKeyPair,
    /// aws-lc-rs checks SHA-1 signatures but does not make them.
    sha1: SigningKey<Sha1>,
}

impl Signer {
    /// Generates an RSA-2048 key with a certificate for `name`, valid from `not_before` to
    /// `not_after` (to the second).
    ///
    /// # Errors
    ///
    /// If `name` is not a DNS name or a date is out of range.
    pub fn generate(
        name: &str,
        not_before: Timestamp,
        not_after: Timestamp,
    ) -> anyhow::Result<Self> {
        let key = KeyPair::generate_for(&PKCS_RSA_SHA256).context("making an RSA key")?;
        let mut params = CertificateParams::new([name.to_owned()])
            .with_context(|| format!("`{name}` can't be a certificate's name"))?;
        params.distinguished_name.remove(DnType::CommonName);
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_before = moment(not_before)?;
        params.not_after = moment(not_after)?;
        let certificate = params.self_signed(&key).context("signing a certificate")?;
        Self::from_parts(key.serialize_pem(), certificate.pem())
    }

    /// Generates a signer like AWS's: its certificate is for [`SNS_NAME`] and valid for
    /// about as long as AWS's are, from the day before `now`.
    ///
    /// # Errors
    ///
    /// As [`Signer::generate`].
    pub fn like_aws(now: Timestamp) -> anyhow::Result<Self> {
        const DAY: Duration = Duration::from_secs(24 * 3600);
        Self::generate(SNS_NAME, now.before(DAY), now.after(DAY * 335))
            .context("failed to make the emulator's signing certificate")
    }

    /// Parses the text of [`Signer::to_pem`]: a PKCS #8 key and a certificate, in any order.
    ///
    /// # Errors
    ///
    /// If one of them is missing, or the key is no RSA key of at least 2048 bits.
    pub fn from_pem(pem: &str) -> anyhow::Result<Self> {
        let block = |label: &str| {
            let begin = format!("-----BEGIN {label}-----");
            let end = format!("-----END {label}-----");
            let from = pem.find(&begin)?;
            let len = pem[from..].find(&end)? + end.len();
            Some(format!("{}\n", &pem[from..from + len]))
        };
        Self::from_parts(
            block("PRIVATE KEY").context("there is no `BEGIN PRIVATE KEY` block")?,
            block("CERTIFICATE").context("there is no `BEGIN CERTIFICATE` block")?,
        )
    }

    fn from_parts(key_pem: String, certificate_pem: String) -> anyhow::Result<Self> {
        let private =
            RsaPrivateKey::from_pkcs8_pem(&key_pem).context("the key is no RSA key in PKCS #8")?;
        let (_, key) =
            x509_parser::pem::parse_x509_pem(key_pem.as_bytes()).context("the key is not PEM")?;
        let (_, certificate) = x509_parser::pem::parse_x509_pem(certificate_pem.as_bytes())
            .context("the certificate is not PEM")?;
        let sha256 = RsaKeyPair::from_pkcs8(&key.contents)
            .map_err(|error| anyhow::anyhow!("the key can't be used: {error}"))?;
        Ok(Self {
            certificate_path: certificate_path(&certificate.contents),
            sha1: SigningKey::new(private),
            sha256,
            key_pem,
            certificate_pem,
        })
    }

    /// Returns the key, a secret, and the certificate, for [`Signer::from_pem`].
    pub fn to_pem(&self) -> String {
        format!("{}{}", self.key_pem, self.certificate_pem)
    }

    /// Returns the certificate, as it is to be served.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Returns the path of the certificate, like AWS's: `/SimpleNotificationService-<hex>.pem`,
    /// another one for each certificate.
    pub fn certificate_path(&self) -> String {
        self.certificate_path.clone()
    }

    /// Signs `message` as SNS does and writes it in SNS's own form.
    ///
    /// `version` is `SignatureVersion`: 1 signs with SHA-1, any other with SHA-256.
    pub fn sign(&self, message: &Unsigned, version: u8, signing_cert_url: &str) -> String {
        let text = CanonicalText::new(&SignedFields {
            message_type: message.message_type,
            message: &message.message,
            message_id: &message.message_id,
            subject: message.subject.as_deref(),
            subscribe_url: message.subscribe_url.as_deref(),
            timestamp: &message.timestamp,
            token: message.token.as_deref(),
            topic_arn: &message.topic_arn,
        });
        let signature = self.signature(text.as_bytes(), version);
        write_message(message, version, &signature, signing_cert_url)
    }

    /// Returns the signature over any bytes, in base64; `version` as for [`Signer::sign`].
    pub fn signature(&self, text: &[u8], version: u8) -> String {
        if version == 1 {
            return STANDARD.encode(self.sha1.sign(text).to_bytes());
        }
        let mut signature = vec![0; self.sha256.public_modulus_len()];
        self.sha256
            .sign(
                &RSA_PKCS1_SHA256,
                &SystemRandom::new(),
                text,
                &mut signature,
            )
            .expect("the key was checked and the buffer is as long as its modulus");
        STANDARD.encode(signature)
    }
}

fn moment(at: Timestamp) -> anyhow::Result<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp(at.as_millis().div_euclid(1000))
        .context("the date is out of range")
}

/// Returns a path like AWS's, whose names are 32 hexadecimal digits of unknown origin.
fn certificate_path(der: &[u8]) -> String {
    use std::fmt::Write as _;

    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, der);
    let mut path = "/SimpleNotificationService-".to_owned();
    for byte in &digest.as_ref()[..16] {
        // Writing to a String can't fail.
        let _ = write!(path, "{byte:02x}");
    }
    path + ".pem"
}

/// Writes `"Key" : "value"` on a line each, in SNS's order.
fn write_message(message: &Unsigned, version: u8, signature: &str, cert_url: &str) -> String {
    let mut lines: Vec<String> = Vec::with_capacity(12);
    let mut line = |key: &str, value: Value| lines.push(format!("  \"{key}\" : {value}"));
    let mut text = |key: &str, value: Option<&str>| {
        if let Some(value) = value {
            line(key, Value::from(value));
        }
    };
    text("Type", Some(message.message_type.as_str()));
    text("MessageId", Some(&message.message_id));
    text("Token", message.token.as_deref());
    text("TopicArn", Some(&message.topic_arn));
    text("Subject", message.subject.as_deref());
    text("Message", Some(&message.message));
    text("SubscribeURL", message.subscribe_url.as_deref());
    text("Timestamp", Some(&message.timestamp));
    text("SignatureVersion", Some(&version.to_string()));
    text("Signature", Some(signature));
    text("SigningCertURL", Some(cert_url));
    text("UnsubscribeURL", message.unsubscribe_url.as_deref());
    if !message.attributes.is_empty() {
        line(
            "MessageAttributes",
            Value::Object(message.attributes.clone()),
        );
    }
    format!("{{\n{}\n}}", lines.join(",\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> Unsigned {
        Unsigned {
            message_type: MessageType::Notification,
            message_id: "11405cc3-9ac7-56d5-b45d-079e8f7a8edf".to_owned(),
            topic_arn: "arn:aws:sns:eu-west-1:007272210889:DPWebHook_onexport".to_owned(),
            subject: None,
            message: "{\"companyCode\":\"302320404\"}".to_owned(),
            timestamp: "2026-11-23T08:00:00.000Z".to_owned(),
            token: None,
            subscribe_url: None,
            unsubscribe_url: Some("https://sns.eu-west-1.amazonaws.com/?Action=Un".to_owned()),
            attributes: serde_json::Map::new(),
        }
    }

    #[test]
    fn a_message_is_written_in_snss_own_form() {
        let written = write_message(&message(), 1, "c2ln", "https://cert");

        assert_eq!(
            written,
            r#"{
  "Type" : "Notification",
  "MessageId" : "11405cc3-9ac7-56d5-b45d-079e8f7a8edf",
  "TopicArn" : "arn:aws:sns:eu-west-1:007272210889:DPWebHook_onexport",
  "Message" : "{\"companyCode\":\"302320404\"}",
  "Timestamp" : "2026-11-23T08:00:00.000Z",
  "SignatureVersion" : "1",
  "Signature" : "c2ln",
  "SigningCertURL" : "https://cert",
  "UnsubscribeURL" : "https://sns.eu-west-1.amazonaws.com/?Action=Un"
}"#
        );
    }

    #[test]
    fn a_signer_read_back_signs_the_same() {
        let from = Timestamp::parse("2026-01-01T00:00:00Z").unwrap();
        let signer = Signer::generate(
            SNS_NAME,
            from,
            from.after(std::time::Duration::from_secs(60)),
        )
        .unwrap();

        let again = Signer::from_pem(&signer.to_pem()).unwrap();

        assert_eq!(again.certificate_pem(), signer.certificate_pem());
        assert_eq!(again.certificate_path(), signer.certificate_path());
        for version in [1, 2] {
            assert_eq!(
                again.sign(&message(), version, "u"),
                signer.sign(&message(), version, "u")
            );
        }
    }

    #[test]
    fn pem_without_a_key_or_certificate_names_what_is_missing() {
        let error = Signer::from_pem("").err().unwrap().to_string();
        assert!(error.contains("PRIVATE KEY"), "{error}");
    }
}
