//! A message as it arrived, before it is verified.

use bytes::Bytes;
use hyper::header::HeaderMap;
use tokio::sync::OwnedSemaphorePermit;

use super::caller::RequestId;
use super::webhooks::Webhook;
use crate::domain::Timestamp;

/// A message to one of our webhooks, read whole and not judged yet.
pub struct IncomingMessage<'w> {
    /// Where it came to.
    pub webhook: &'w Webhook,
    /// All its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
    /// When it came.
    pub received_at: Timestamp,
    /// What its request is called; none where it is judged anew.
    pub request_id: Option<RequestId>,
    /// The place of a large body, given back when the message is answered.
    pub(super) _place: Option<OwnedSemaphorePermit>,
}
