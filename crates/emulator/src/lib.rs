//! Emulates Įvesk.lt, Amazon SNS and S3 in one server, for demos and tests.
//!
//! It keeps everything in memory and asks for no password: it is for one machine.
//! `docs/emulator.md` describes it for its users; "vendor-api" in comments means
//! `docs/vendor-api.md`.
//!
//! The modules, each of which uses only those above it:
//!
//! - `domain`: the vendor's events and queues.
//! - [`switches`], `positions`: behavior that the vendor might have either way.
//! - `document`, `world`: documents, accounts, and the two queues.
//! - [`signer`]: makes and signs SNS messages.
//! - `topics`, `subscription`, `publication`, `delivery_record`, `error_report`: records.
//! - [`faults`]: failures on request.
//! - `meter`: counts requests.
//! - `links`, `uploads`: signed links, and files that were announced or received.
//! - `ledger`: certificates, subscriptions and deliveries of the emulated SNS.
//! - `vendor`: the state that all requests share.
//! - `gate`: applies faults to requests and answers.
//! - `guard`: refuses what a page of another origin sends.
//! - [`delivery`]: the attempts to deliver one message to one subscriber.
//! - `sns`: subscribing, confirming, publishing.
//! - `announce`: publishes notifications of documents.
//! - `s3`, `api`, `sns_api`: the HTTP handlers of the three services.
//! - [`control`], `control_api`: the handle for tests, and `POST /control/…`.
//! - `emulator`: starts and stops it all.

mod announce;
mod api;
pub mod control;
mod control_api;
pub mod delivery;
mod delivery_record;
mod document;
mod domain;
mod emulator;
mod error_report;
pub mod faults;
mod gate;
mod guard;
mod ledger;
mod links;
mod meter;
mod positions;
mod publication;
mod s3;
pub mod signer;
mod sns;
mod sns_api;
mod subscription;
pub mod switches;
mod topics;
mod uploads;
mod vendor;
mod world;

pub use control::{Control, ControlError, Selection};
pub use delivery_record::{AttemptTotals, DeliveryRecord, Outcome};
pub use document::pdf as sample_pdf;
pub use domain::{Event, Queue};
pub use emulator::{AccountSettings, DEFAULT_COMPANIES, DEFAULT_KEY, Emulator, EmulatorSettings};
pub use error_report::ErrorReport;
pub use faults::{Endpoint, Fault, FaultKind};
pub use meter::{RequestCounters, RequestRecord};
pub use publication::{Publication, Tamper};
pub use sns::TargetError;
pub use subscription::{Subscription, SubscriptionState};
pub use switches::{SwitchError, Switches};
pub use uploads::UploadRecord;
