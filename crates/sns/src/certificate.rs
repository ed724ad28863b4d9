//! Parses a signing certificate and checks its name, key and dates.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate, parse_x509_pem};
use x509_parser::public_key::PublicKey;

use crate::error::VerifyError;
use crate::signature::{Signature, SignatureVersion, VerificationKey};
use crate::time::Timestamp;

/// A certificate's subject and dates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
pub struct CertificateSummary {
    /// The subject, such as `CN=sns.amazonaws.com`.
    pub subject: String,
    /// The first moment at which it is valid.
    pub not_before: Timestamp,
    /// The last second in which it is valid.
    pub not_after: Timestamp,
}

impl CertificateSummary {
    /// Parses the first certificate in `pem`.
    ///
    /// # Errors
    ///
    /// [`VerifyError::MalformedCertificate`] or [`VerifyError::CertificateKey`].
    pub fn parse(pem: &[u8]) -> Result<Self, VerifyError> {
        Certificate::parse(pem, None).map(|certificate| certificate.summary)
    }
}

/// A certificate whose name and key were checked; its dates are checked at each use.
pub struct Certificate {
    pem: Vec<u8>,
    summary: CertificateSummary,
    key: VerificationKey,
    /// True once it has verified a message.
    proven: AtomicBool,
}

impl Certificate {
    /// Parses the first certificate in `pem` and checks that its key is RSA of at least
    /// 2048 bits and that it is for `name`, unless that is `None`.
    ///
    /// AWS serves the leaf only, so no chain is built: trust comes from the TLS
    /// connection to the pinned host that it was fetched from.
    ///
    /// # Errors
    ///
    /// [`VerifyError::MalformedCertificate`], [`VerifyError::CertificateName`] or
    /// [`VerifyError::CertificateKey`].
    pub fn parse(pem: &[u8], name: Option<&str>) -> Result<Self, VerifyError> {
        let (_, block) = parse_x509_pem(pem).map_err(|_| VerifyError::MalformedCertificate)?;
        if block.label != "CERTIFICATE" {
            return Err(VerifyError::MalformedCertificate);
        }
        let (rest, certificate) = X509Certificate::from_der(&block.contents)
            .map_err(|_| VerifyError::MalformedCertificate)?;
        if !rest.is_empty() {
            return Err(VerifyError::MalformedCertificate);
        }
        if name.is_some_and(|name| !is_for(&certificate, name)) {
            return Err(VerifyError::CertificateName);
        }
        if !(2048..=8192).contains(&rsa_bits(&certificate)) {
            return Err(VerifyError::CertificateKey);
        }
        let validity = certificate.validity();
        let moment = |seconds: i64| Timestamp::from_millis(seconds.saturating_mul(1000));
        Ok(Self {
            pem: pem.to_vec(),
            summary: CertificateSummary {
                subject: certificate
                    .subject()
                    .to_string()
                    .chars()
                    .filter(|c| !c.is_control())
                    .take(200)
                    .collect(),
                not_before: moment(validity.not_before.timestamp()),
                not_after: moment(validity.not_after.timestamp()),
            },
            key: VerificationKey::from_spki(certificate.public_key().raw)?,
            proven: AtomicBool::new(false),
        })
    }

    /// Returns its subject and dates.
    pub fn summary(&self) -> &CertificateSummary {
        &self.summary
    }

    /// Checks the dates at `at`, to the second as certificates count.
    ///
    /// # Errors
    ///
    /// [`VerifyError::CertificateDates`]
    pub fn check_dates(&self, at: Timestamp) -> Result<(), VerifyError> {
        if self.summary.not_before <= at && !self.has_expired(at) {
            return Ok(());
        }
        Err(VerifyError::CertificateDates {
            not_before: self.summary.not_before.to_string(),
            not_after: self.summary.not_after.to_string(),
        })
    }

    /// Returns true if it is no longer valid at `at`.
    pub(super) fn has_expired(&self, at: Timestamp) -> bool {
        at >= self.summary.not_after.after(Duration::from_secs(1))
    }

    /// Returns the PEM text as it was fetched.
    pub fn pem(&self) -> &[u8] {
        &self.pem
    }

    /// Returns true if it has verified a message.
    pub(super) fn is_proven(&self) -> bool {
        self.proven.load(Ordering::Relaxed)
    }

    /// Marks it as having verified a message; returns true the first time.
    pub(super) fn mark_proven(&self) -> bool {
        // Reading first keeps the many later messages from writing to shared memory.
        !self.is_proven() && !self.proven.swap(true, Ordering::Relaxed)
    }

    /// Verifies that `signature` over `text` was made with its key.
    ///
    /// # Errors
    ///
    /// [`VerifyError::SignatureMismatch`]
    pub fn verify(
        &self,
        version: SignatureVersion,
        text: &[u8],
        signature: &Signature,
    ) -> Result<(), VerifyError> {
        self.key.verify(version, text, signature)
    }
}

/// Returns true if the certificate is for `name`.
///
/// AWS's own code compares the common name (aws-sdk-java-v2 `CertificateRetriever`);
/// public CAs repeat it among the alternative names and plan to drop it.
fn is_for(certificate: &X509Certificate<'_>, name: &str) -> bool {
    let common = certificate
        .subject()
        .iter_common_name()
        .filter_map(|attribute| attribute.as_str().ok())
        .any(|common| common.eq_ignore_ascii_case(name));
    let alternative = certificate
        .subject_alternative_name()
        .ok()
        .flatten()
        .is_some_and(|names| {
            names.value.general_names.iter().any(
                |general| matches!(general, GeneralName::DNSName(dns) if dns.eq_ignore_ascii_case(name)),
            )
        });
    common || alternative
}

/// Returns the bits of the RSA modulus; 0 for other keys.
fn rsa_bits(certificate: &X509Certificate<'_>) -> usize {
    match certificate.public_key().parsed() {
        Ok(PublicKey::RSA(key)) => bits(key.modulus),
        _ => 0,
    }
}

/// Returns the bits of a number, most significant byte first, without leading zeros.
fn bits(number: &[u8]) -> usize {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    match number[zeros..].first() {
        Some(first) => (number.len() - zeros) * 8 - first.leading_zeros() as usize,
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::{ELLIPTIC_KEY, SHORT_KEY, SNS, WILDCARD};

    const SNS_NAME: &str = "sns.amazonaws.com";

    fn parse(pem: &str, name: Option<&str>) -> Option<VerifyError> {
        Certificate::parse(pem.as_bytes(), name).err()
    }

    #[test]
    fn a_key_that_is_short_or_not_rsa_is_refused() {
        assert_eq!(
            parse(SHORT_KEY, Some(SNS_NAME)),
            Some(VerifyError::CertificateKey)
        );
        assert_eq!(
            parse(ELLIPTIC_KEY, Some(SNS_NAME)),
            Some(VerifyError::CertificateKey)
        );
        assert_eq!(parse(SHORT_KEY, None), Some(VerifyError::CertificateKey));
    }

    #[test]
    fn the_length_of_a_key_counts_no_leading_zeros() {
        for (number, expected) in [
            (&[][..], 0),
            (&[0, 0], 0),
            (&[1], 1),
            (&[0x80, 0], 16),
            (&[0, 0x80, 0], 16),
            (&[0, 0, 0x7F, 0, 0], 23),
        ] {
            assert_eq!(bits(number), expected, "{number:?}");
        }
    }

    #[test]
    fn a_certificate_has_expired_after_its_last_second() {
        let certificate = Certificate::parse(SNS.as_bytes(), None).unwrap();
        let last = certificate.summary().not_after;
        let end = last.after(Duration::from_secs(1));

        let almost = end.before(Duration::from_millis(1));
        for (at, has_expired) in [(last, false), (almost, false), (end, true)] {
            assert_eq!(certificate.has_expired(at), has_expired, "{at}");
            assert_eq!(certificate.check_dates(at).is_err(), has_expired, "{at}");
        }
        // One whose time has not come is refused, and has not expired.
        let first = certificate.summary().not_before;
        let before = first.before(Duration::from_millis(1));
        assert_eq!(certificate.check_dates(first), Ok(()));
        assert!(certificate.check_dates(before).is_err());
        assert!(!certificate.has_expired(before));
    }

    #[test]
    fn a_certificate_for_another_name_is_refused() {
        assert_eq!(parse(SNS, Some(SNS_NAME)), None);
        assert_eq!(parse(SNS, Some("SNS.amazonaws.com")), None);
        for other in [
            "sns.amazonaws.com.cn",
            "amazonaws.com",
            "*.amazonaws.com",
            "xsns.amazonaws.com",
            "sns.eu-west-1.amazonaws.com",
            "",
        ] {
            assert_eq!(
                parse(SNS, Some(other)),
                Some(VerifyError::CertificateName),
                "{other}"
            );
        }
        // It passes by its common name, and is refused for its key.
        assert_eq!(
            parse(SHORT_KEY, Some("sns.amazonaws.com")),
            Some(VerifyError::CertificateKey)
        );
    }

    #[test]
    fn a_wildcard_in_the_certificate_matches_nothing_else() {
        assert_eq!(
            parse(WILDCARD, Some(SNS_NAME)),
            Some(VerifyError::CertificateName)
        );
    }

    #[test]
    fn only_the_first_proof_is_the_first() {
        let certificate = Certificate::parse(SNS.as_bytes(), None).unwrap();

        assert!(!certificate.is_proven());
        assert!(certificate.mark_proven());
        assert!(!certificate.mark_proven());
    }
}
