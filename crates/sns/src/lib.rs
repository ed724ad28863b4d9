//! Verifies Amazon SNS messages that arrive over HTTP, and confirms subscriptions.
//!
//! [`Envelope::parse`] parses the body, [`Verifier::verify`] verifies it, and only
//! that creates a [`VerifiedMessage`]. [`Confirmer::confirm`] confirms a subscription.
//! No HTTP server and no database: the caller brings both.
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use sns_messages::time::Clock;
//! use sns_messages::{Envelope, NoCertificateStore, Settings, SnsHeaders, TopicRule, Verifier};
//!
//! # async fn handle(body: bytes::Bytes) -> Result<(), Box<dyn std::error::Error>> {
//! let settings = Settings {
//!     topics: vec![TopicRule {
//!         account: "123456789012".to_owned(),
//!         region: "eu-west-1".to_owned(),
//!         name_prefix: "orders_".to_owned(),
//!     }],
//!     ..Settings::default()
//! };
//! // Once, at the start of the program.
//! let verifier = Verifier::new(&settings, Arc::new(NoCertificateStore), Clock::system())?;
//!
//! // For each request.
//! let envelope = Envelope::parse(body, &SnsHeaders::default())?;
//! let message = verifier.verify(envelope).await?;
//! println!("{}", message.message());
//! # Ok(())
//! # }
//! ```
//!
//! The modules, each of which uses only those above it:
//!
//! - [`time`]: moments, and the clock that returns them.
//! - [`http`]: HTTP clients without redirects, and without proxies that nobody named.
//! - [`region`]: AWS's regions, and SNS's addresses and certificate names there.
//! - [`known_arns`]: topics and subscriptions that are learned while the program runs.
//! - [`settings`]: trusted topics, origins and certificate names.
//! - [`error`]: the reasons for which a message is not verified.
//! - [`message`]: types of message, headers, the largest body.
//! - [`canonical`]: the text that is signed.
//! - [`signature`]: the signature check.
//! - [`certificate`]: parses a certificate, checks its name, key and dates.
//! - [`policy`]: the trust policy on topics, URLs and certificate names.
//! - [`envelope`]: parses the body.
//! - [`certificate_cache`]: fetches certificates and caches them.
//! - [`verifier`]: all of that in order.
//! - [`confirmation`]: confirms a subscription.

pub mod canonical;
pub mod certificate;
pub mod certificate_cache;
pub mod confirmation;
pub mod envelope;
pub mod error;
pub mod http;
pub mod known_arns;
pub mod message;
pub mod policy;
pub mod region;
#[cfg(test)]
mod samples;
pub mod settings;
pub mod signature;
pub mod time;
pub mod verifier;
mod wrapper;

pub use certificate::CertificateSummary;
pub use certificate_cache::{CertificateStore, NoCertificateStore};
pub use confirmation::{ConfirmError, Confirmer};
pub use envelope::Envelope;
pub use error::VerifyError;
pub use known_arns::KnownArns;
pub use message::{MAX_BODY_BYTES, MessageType, SnsHeaders};
pub use settings::{Settings, TopicRule};
pub use verifier::{Genuine, SavedMessages, UnknownTopicConfirmation, VerifiedMessage, Verifier};
