//! The signature check, behind one small type.
//!
//! aws-lc-rs checks RSA about eight times faster than the `rsa` crate
//! (`cargo bench --bench verify`), so it does the work; the tests ask `rsa`
//! as well, and the two must agree.

use aws_lc_rs::signature::{
    ParsedPublicKey, RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY, RSA_PKCS1_2048_8192_SHA256,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::refusal::Refusal;

/// Which digest SNS signed: RSA PKCS #1 v1.5 in both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureVersion {
    /// `"1"`: SHA-1.
    Sha1,
    /// `"2"`: SHA-256.
    Sha256,
}

impl SignatureVersion {
    /// Reads `SignatureVersion`.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "1" => Some(Self::Sha1),
            "2" => Some(Self::Sha256),
            _ => None,
        }
    }
}

/// A signature's bytes, decoded without allocating.
pub struct Signature {
    bytes: [u8; Self::ROOM_BYTES],
    len: usize,
}

impl Signature {
    /// That of an RSA key of 2048 bits, the smallest that is taken.
    const MIN_BYTES: usize = 256;
    /// That of an RSA key of 8192 bits, the largest that is taken.
    const MAX_BYTES: usize = 1024;
    /// A little more, since base64 decodes in threes.
    const ROOM_BYTES: usize = Self::MAX_BYTES + 2;

    /// Decodes base64 of a length that a signature can have.
    ///
    /// # Errors
    ///
    /// [`Refusal::MalformedSignature`] where it is anything else.
    pub fn decode(base64: &str) -> Result<Self, Refusal> {
        let mut bytes = [0; Self::ROOM_BYTES];
        match STANDARD.decode_slice(base64, &mut bytes) {
            Ok(len) if (Self::MIN_BYTES..=Self::MAX_BYTES).contains(&len) => {
                Ok(Self { bytes, len })
            }
            _ => Err(Refusal::MalformedSignature),
        }
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// An RSA public key, parsed once and used for every message that it signed.
pub struct VerificationKey {
    sha1: ParsedPublicKey,
    sha256: ParsedPublicKey,
}

impl VerificationKey {
    /// Reads the DER of a `SubjectPublicKeyInfo`.
    ///
    /// # Errors
    ///
    /// [`Refusal::CertificateKey`] where it holds no RSA key. The length is judged
    /// by the certificate's check; here a signature of a key that is too short
    /// or longer than 8192 bits never matches.
    pub fn from_spki(der: &[u8]) -> Result<Self, Refusal> {
        let sha1 = ParsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY, der);
        let sha256 = ParsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, der);
        match (sha1, sha256) {
            (Ok(sha1), Ok(sha256)) => Ok(Self { sha1, sha256 }),
            _ => Err(Refusal::CertificateKey),
        }
    }

    /// Whether `signature` is this key's over `text`.
    ///
    /// # Errors
    ///
    /// [`Refusal::SignatureMismatch`] where it is not.
    pub fn verify(
        &self,
        version: SignatureVersion,
        text: &[u8],
        signature: &Signature,
    ) -> Result<(), Refusal> {
        let key = match version {
            SignatureVersion::Sha1 => &self.sha1,
            SignatureVersion::Sha256 => &self.sha256,
        };
        key.verify_sig(text, signature.as_bytes())
            .map_err(|_| Refusal::SignatureMismatch)
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
                Some(Refusal::MalformedSignature),
                "{len}"
            );
        }
        assert!(
            Signature::decode(&"-_".repeat(200)).is_err(),
            "URL alphabet"
        );
    }
}
