//! The vendor's REST API. No SQL.
//!
//! [`Client`] asks for pages, upload locations and subscriptions; [`document`],
//! [`hint`] and [`view`] read what the vendor wrote, leniently: its field names and
//! kinds are known in part only (vendor-api U17, U21, U22).

mod client;
pub mod document;
mod error;
mod fields;
mod import_error;
pub mod notification;
mod observer;
mod page;
mod subscribe;
pub mod upload;
pub mod view;

pub use client::Client;
pub use error::ApiError;
pub use observer::{Asked, Endpoint, Observer};
pub use page::Page;
pub use subscribe::subscription_body;
