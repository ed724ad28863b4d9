//! The state that the admin listener's handlers share.

use std::sync::Arc;

use axum::extract::FromRef;
use bytes::Bytes;
use tokio::sync::Semaphore;

use super::attempts::Attempts;
use super::uses::Uses;
use crate::app::App;

/// The state that the admin listener's handlers share.
#[derive(Clone)]
pub(super) struct Admin {
    pub(super) app: Arc<App>,
    pub(super) attempts: Arc<Attempts>,
    pub(super) uses: Arc<Uses>,
    /// Room for exports that run.
    pub(super) exports: Arc<Semaphore>,
    /// The OpenAPI document, as JSON.
    pub(super) document: Bytes,
}

impl FromRef<Admin> for Arc<App> {
    fn from_ref(admin: &Admin) -> Self {
        Arc::clone(&admin.app)
    }
}
