//! What is checked on a signing certificate.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::Serialize;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate, parse_x509_pem};
use x509_parser::public_key::PublicKey;

use super::signature::{Signature, SignatureVersion, VerificationKey};
use crate::domain::Timestamp;
use crate::refusal::Refusal;

/// What people want to know about a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct CertificateSummary {
    /// Its subject, such as `CN=sns.amazonaws.com`.
    pub subject: String,
    /// The first moment at which it is valid.
    pub not_before: Timestamp,
    /// The last second in which it is valid.
    pub not_after: Timestamp,
}

impl CertificateSummary {
    /// What the first certificate in `pem` says.
    ///
    /// # Errors
    ///
    /// [`Refusal::MalformedCertificate`] or [`Refusal::CertificateKey`].
    pub fn read(pem: &[u8]) -> Result<Self, Refusal> {
        Certificate::parse(pem, None).map(|certificate| certificate.summary)
    }
}

/// A certificate whose name and key were checked; its dates are judged at each use.
pub struct Certificate {
    pem: Vec<u8>,
    summary: CertificateSummary,
    key: VerificationKey,
    /// Whether it has verified a message.
    proven: AtomicBool,
}

impl Certificate {
    /// Reads the first certificate in `pem` and checks that its key is RSA of at least
    /// 2048 bits and, where one is given, that it is for `name`.
    ///
    /// AWS serves the leaf alone, so no chain is built: what vouches for it is the
    /// TLS connection to the pinned host that it came over.
    ///
    /// # Errors
    ///
    /// [`Refusal::MalformedCertificate`], [`Refusal::CertificateName`] or
    /// [`Refusal::CertificateKey`].
    pub fn parse(pem: &[u8], name: Option<&str>) -> Result<Self, Refusal> {
        let (_, block) = parse_x509_pem(pem).map_err(|_| Refusal::MalformedCertificate)?;
        if block.label != "CERTIFICATE" {
            return Err(Refusal::MalformedCertificate);
        }
        let (rest, certificate) = X509Certificate::from_der(&block.contents)
            .map_err(|_| Refusal::MalformedCertificate)?;
        if !rest.is_empty() {
            return Err(Refusal::MalformedCertificate);
        }
        if name.is_some_and(|name| !is_for(&certificate, name)) {
            return Err(Refusal::CertificateName);
        }
        if !(2048..=8192).contains(&rsa_bits(&certificate)) {
            return Err(Refusal::CertificateKey);
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

    /// Its subject and dates.
    pub fn summary(&self) -> &CertificateSummary {
        &self.summary
    }

    /// Judges the dates at `at`, to the second as certificates count.
    ///
    /// # Errors
    ///
    /// [`Refusal::CertificateDates`]
    pub fn judge_dates(&self, at: Timestamp) -> Result<(), Refusal> {
        let past_the_last = self.summary.not_after.after(Duration::from_secs(1));
        if self.summary.not_before <= at && at < past_the_last {
            return Ok(());
        }
        Err(Refusal::CertificateDates {
            not_before: self.summary.not_before.to_string(),
            not_after: self.summary.not_after.to_string(),
        })
    }

    /// The file as it came.
    pub fn pem(&self) -> &[u8] {
        &self.pem
    }

    /// Whether it has verified a message.
    pub(super) fn is_proven(&self) -> bool {
        self.proven.load(Ordering::Relaxed)
    }

    /// Notes that it has verified a message; true the first time.
    pub(super) fn prove(&self) -> bool {
        // Reading first keeps the many later messages from writing to shared memory.
        !self.is_proven() && !self.proven.swap(true, Ordering::Relaxed)
    }

    /// Whether `signature` over `text` was made with its key.
    ///
    /// # Errors
    ///
    /// [`Refusal::SignatureMismatch`]
    pub fn verify(
        &self,
        version: SignatureVersion,
        text: &[u8],
        signature: &Signature,
    ) -> Result<(), Refusal> {
        self.key.verify(version, text, signature)
    }
}

/// AWS's own code compares the common name (aws-sdk-java-v2 `CertificateRetriever`);
/// public CAs repeat it among the alternative names and mean to drop it one day.
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

/// The length of the RSA modulus without leading zeros; 0 where the key is no RSA key.
fn rsa_bits(certificate: &X509Certificate<'_>) -> usize {
    let Ok(PublicKey::RSA(key)) = certificate.public_key().parsed() else {
        return 0;
    };
    let zeros = key.modulus.iter().take_while(|byte| **byte == 0).count();
    match key.modulus[zeros..].first() {
        Some(first) => (key.modulus.len() - zeros) * 8 - first.leading_zeros() as usize,
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emulator::signer::{SNS_NAME, Signer};

    /// RSA of 1024 bits for `sns.amazonaws.com`.
    const SHORT_KEY: &str = "-----BEGIN CERTIFICATE-----
MIICFjCCAX+gAwIBAgIUO6QqLs9JZ6DNXFD700GuTZrhSyQwDQYJKoZIhvcNAQEL
BQAwHDEaMBgGA1UEAwwRc25zLmFtYXpvbmF3cy5jb20wIBcNMjYxMTIzMDUyNTM1
WhgPMjEyNjEwMzAwNTI1MzVaMBwxGjAYBgNVBAMMEXNucy5hbWF6b25hd3MuY29t
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDpQ3wXIZxwdOm6xizPP50ZjTBd
GmawMRaxxbZ1vevE4qFyvlDrX3LNhcko/JKgENYCDcrnuvVrGSsngMsJTtK3ZkSW
XjCp+LWICQIBsNpkeK3q8erh5b6EiSQcL9HcvUby62jy64AhO9d6GPJKXBvMskEg
OJKXsrDzyMvugqPZKQIDAQABo1MwUTAdBgNVHQ4EFgQU3Y4dkEU9bUaZRnpEVZP9
NY3XvsIwHwYDVR0jBBgwFoAU3Y4dkEU9bUaZRnpEVZP9NY3XvsIwDwYDVR0TAQH/
BAUwAwEB/zANBgkqhkiG9w0BAQsFAAOBgQDRsFmxPo/AWUL1skvdWG5m8pguusEI
KztolLmXHFlf3eM+VLNUkB5IfPOPCoGxgBdMGLL4Iu75Am6F0wBAB2uASnhJ/wK8
/oN2DJbLNIzHzpN24EbjW0y3AlNTE9d06lFVQIOJyPHtCbogla5xhxZjYqZKyFMt
q2Ex/OXE5/NwJA==
-----END CERTIFICATE-----
";

    /// ECDSA on P-256 for `sns.amazonaws.com`.
    const ELLIPTIC_KEY: &str = "-----BEGIN CERTIFICATE-----
MIIBjzCCATWgAwIBAgIUL0F2IPxDtpwG9GE/w9YIA3ha4NcwCgYIKoZIzj0EAwIw
HDEaMBgGA1UEAwwRc25zLmFtYXpvbmF3cy5jb20wIBcNMjYxMTIzMDUyNTM1WhgP
MjEyNjEwMzAwNTI1MzVaMBwxGjAYBgNVBAMMEXNucy5hbWF6b25hd3MuY29tMFkw
EwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEiJ6mdHxK6Yut2vllT9WqB2ukIhvtT2cc
CjgUVKfiRZ59plsKESzWdfGV4oRoHkVV9woQrY1bb/EHC+4YjZ2VUKNTMFEwHQYD
VR0OBBYEFBpCBYfhhYF56yDUzE4MGf+9qX5UMB8GA1UdIwQYMBaAFBpCBYfhhYF5
6yDUzE4MGf+9qX5UMA8GA1UdEwEB/wQFMAMBAf8wCgYIKoZIzj0EAwIDSAAwRQIg
RekKaiIWHRz2A6pP0Dbk3np9g3oVLtMKC6lRSjaga6kCIQCZspc0GKihZ+iJdtlj
UnuZKg9gsK3g7EnlTakgU6rpLQ==
-----END CERTIFICATE-----
";

    fn parse(pem: &str, name: Option<&str>) -> Option<Refusal> {
        Certificate::parse(pem.as_bytes(), name).err()
    }

    fn signer(name: &str) -> Signer {
        let from = Timestamp::parse("2026-01-01T00:00:00Z").unwrap();
        Signer::generate(name, from, from.after(Duration::from_secs(3600))).unwrap()
    }

    #[test]
    fn a_key_that_is_short_or_not_rsa_is_refused() {
        assert_eq!(
            parse(SHORT_KEY, Some(SNS_NAME)),
            Some(Refusal::CertificateKey)
        );
        assert_eq!(
            parse(ELLIPTIC_KEY, Some(SNS_NAME)),
            Some(Refusal::CertificateKey)
        );
        assert_eq!(parse(SHORT_KEY, None), Some(Refusal::CertificateKey));
    }

    #[test]
    fn a_certificate_for_another_name_is_refused() {
        let signer = signer(SNS_NAME);
        let pem = signer.certificate_pem();

        assert_eq!(parse(pem, Some(SNS_NAME)), None);
        assert_eq!(parse(pem, Some("SNS.amazonaws.com")), None);
        for other in [
            "sns.amazonaws.com.cn",
            "amazonaws.com",
            "*.amazonaws.com",
            "xsns.amazonaws.com",
            "sns.eu-west-1.amazonaws.com",
            "",
        ] {
            assert_eq!(
                parse(pem, Some(other)),
                Some(Refusal::CertificateName),
                "{other}"
            );
        }
        // By the common name alone, the key is what is wrong with it.
        assert_eq!(
            parse(SHORT_KEY, Some("sns.amazonaws.com")),
            Some(Refusal::CertificateKey)
        );
    }

    #[test]
    fn a_wildcard_in_the_certificate_stands_for_itself_alone() {
        let signer = signer("*.amazonaws.com");

        assert_eq!(
            parse(signer.certificate_pem(), Some(SNS_NAME)),
            Some(Refusal::CertificateName)
        );
    }

    #[test]
    fn only_the_first_proof_is_the_first() {
        let signer = signer(SNS_NAME);
        let certificate = Certificate::parse(signer.certificate_pem().as_bytes(), None).unwrap();

        assert!(!certificate.is_proven());
        assert!(certificate.prove());
        assert!(!certificate.prove());
    }
}
