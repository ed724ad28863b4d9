//! An import error that a client reported.

use serde::Serialize;
use uuid::Uuid;

/// An import error that a client reported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ErrorReport {
    /// The account whose key was used.
    pub account: Uuid,
    /// As sent.
    pub documentid: String,
    /// As sent.
    pub companycode: String,
    /// As sent: what the accountant would see.
    pub message: String,
    /// The request's Content-Type.
    pub content_type: Option<String>,
}
