//! The vendor's REST API. No SQL.
//!
//! [`Client`] requests pages, upload locations and subscriptions; [`Entry`], [`notification`]
//! and [`view`] parse the vendor's JSON, leniently: its field names and types are known only in
//! part (vendor-api U17, U21, U22).

mod body;
mod client;
pub mod document;
mod error;
mod expected;
mod fields;
mod import_error;
pub mod notification;
mod observer;
mod page;
mod repair;
mod subscribe;
mod terms;
pub mod upload;
pub mod view;

pub use client::Client;
pub use document::Entry;
pub use error::ApiError;
pub use expected::{DOCUMENT_FIELDS, Evidence, ExpectedField, FieldKind, LINE_FIELDS, LINES};
pub use fields::text;
pub use observer::{CompletedRequest, Endpoint, Observer};
pub use page::{Page, Repaired};
pub use subscribe::subscription_body;
