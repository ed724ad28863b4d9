//! The signature check, behind one small type.
//!
//! aws-lc-rs checks RSA about eight times faster than the `rsa` crate; the tests
//! compare its results with those of `rsa`.

use aws_lc_rs::signature::{
    ParsedPublicKey, RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY, RSA_PKCS1_2048_8192_SHA256,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::error::VerifyError;

/// The digest that SNS signed: RSA PKCS #1 v1.5 in both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureVersion {
    /// `"1"`: SHA-1.
    Sha1,
    /// `"2"`: SHA-256.
    Sha256,
}

impl SignatureVersion {
    /// Parses `SignatureVersion`.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "1" => Some(Self::Sha1),
            "2" => Some(Self::Sha256),
            _ => None,
        }
    }
}

/// A signature's bytes.
pub struct Signature(Vec<u8>);

impl Signature {
    /// Length of a signature by an RSA key of 2048 bits, the smallest that is accepted.
    const MIN_BYTES: usize = 256;
    /// Length of a signature by an RSA key of 8192 bits, the largest that is accepted.
    const MAX_BYTES: usize = 1024;

    /// Decodes base64 of a length that a signature can have.
    ///
    /// # Errors
    ///
    /// [`VerifyError::MalformedSignature`] for anything else.
    pub fn decode(base64: &str) -> Result<Self, VerifyError> {
        // Longer text is not decoded.
        if base64.len() > Self::MAX_BYTES.div_ceil(3) * 4 {
            return Err(VerifyError::MalformedSignature);
        }
        match STANDARD.decode(base64) {
            Ok(bytes) if (Self::MIN_BYTES..=Self::MAX_BYTES).contains(&bytes.len()) => {
                Ok(Self(bytes))
            }
            _ => Err(VerifyError::MalformedSignature),
        }
    }

    /// Returns the decoded bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// An RSA public key, parsed once and used for every message that it signed.
pub struct VerificationKey {
    sha1: ParsedPublicKey,
    sha256: ParsedPublicKey,
}

impl VerificationKey {
    /// Parses the DER of a `SubjectPublicKeyInfo`.
    ///
    /// # Errors
    ///
    /// [`VerifyError::CertificateKey`] if it contains no RSA key. The certificate's check
    /// decides on the length; a signature by a key that is shorter than 2048 or longer
    /// than 8192 bits never matches here.
    pub fn from_spki(der: &[u8]) -> Result<Self, VerifyError> {
        let sha1 = ParsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY, der);
        let sha256 = ParsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, der);
        match (sha1, sha256) {
            (Ok(sha1), Ok(sha256)) => Ok(Self { sha1, sha256 }),
            _ => Err(VerifyError::CertificateKey),
        }
    }

    /// Verifies that `signature` over `text` was made with this key.
    ///
    /// # Errors
    ///
    /// [`VerifyError::SignatureMismatch`] if it was not.
    pub fn verify(
        &self,
        version: SignatureVersion,
        text: &[u8],
        signature: &Signature,
    ) -> Result<(), VerifyError> {
        let key = match version {
            SignatureVersion::Sha1 => &self.sha1,
            SignatureVersion::Sha256 => &self.sha256,
        };
        key.verify_sig(text, signature.as_bytes())
            .map_err(|_| VerifyError::SignatureMismatch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_must_be_padded_base64_of_a_plausible_length() {
        for len in [256, 384, 512, 1024] {
            let text = STANDARD.encode(vec![7; len]);
            assert_eq!(Signature::decode(&text).unwrap().as_bytes(), vec![7; len]);
            assert!(Signature::decode(text.trim_end_matches('=')).is_err() || len % 3 == 0);
            assert!(Signature::decode(&format!("{text}\n")).is_err());
            assert!(Signature::decode(&format!(" {text}")).is_err());
        }
        for len in [0, 1, 255, 1025, 1026, 1027, 100_000] {
            let text = STANDARD.encode(vec![7; len]);
            assert_eq!(
                Signature::decode(&text).err(),
                Some(VerifyError::MalformedSignature),
                "{len}"
            );
        }
        assert!(
            Signature::decode(&"-_".repeat(200)).is_err(),
            "URL alphabet"
        );
    }
}
