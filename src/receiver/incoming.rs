//! A message as it arrived, before it is verified.

use bytes::Bytes;
use hyper::header::HeaderMap;

use super::body::Place;
use super::caller::RequestId;
use super::webhooks::Webhook;
use crate::domain::Timestamp;

/// A message that was read whole and is not verified yet.
pub struct IncomingMessage<'w> {
    /// The webhook that received it.
    pub webhook: &'w Webhook,
    /// All its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
    /// The time at which it arrived.
    pub received_at: Timestamp,
    /// The id of its request; `None` for a message retried from the quarantine.
    pub request_id: Option<RequestId>,
    /// The place of a large body, free again when the message is answered.
    pub(super) _place: Option<Place>,
}
