//! Reading a body within its limits of size, time and memory.

use std::pin::pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Body;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::refusal::Refusal;
use crate::sns::MAX_BODY_BYTES;

/// Above this a body counts as large, and only [`MAX_LARGE_BODIES`] are read at once.
const LARGE_BODY_BYTES: usize = 64 * 1024;

/// Large bodies in memory at once; together they take at most 128 MiB.
const MAX_LARGE_BODIES: usize = 64;

/// Reads bodies of any content type.
pub struct BodyReader {
    timeout: Duration,
    large: Semaphore,
}

impl BodyReader {
    /// A reader that gives up on a body `timeout` after it was asked for.
    pub fn new(timeout: Duration) -> Self {
        Self {
            timeout,
            large: Semaphore::new(MAX_LARGE_BODIES),
        }
    }

    /// Reads `body` whole.
    ///
    /// # Errors
    ///
    /// [`Refusal::BodyTooLarge`] as soon as it is, [`Refusal::BodyIncomplete`]
    /// where it breaks off or takes too long.
    pub async fn read<B: Body<Data = Bytes>>(&self, body: B) -> Result<Bytes, Refusal> {
        // The timer is set only where the body isn't there yet.
        match tokio::time::timeout(self.timeout, self.read_whole(body)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Refusal::BodyIncomplete),
        }
    }

    async fn read_whole<B: Body<Data = Bytes>>(&self, body: B) -> Result<Bytes, Refusal> {
        let announced = body.size_hint().lower();
        if announced > MAX_BODY_BYTES as u64 {
            return Err(TOO_LARGE);
        }
        let mut body = pin!(body);
        let mut first = Bytes::new();
        let mut rest = BytesMut::new();
        let mut slot: Option<SemaphorePermit<'_>> = None;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| Refusal::BodyIncomplete)?;
            let Ok(data) = frame.into_data() else {
                continue;
            };
            let length = first.len() + rest.len() + data.len();
            if length > MAX_BODY_BYTES {
                return Err(TOO_LARGE);
            }
            if length > LARGE_BODY_BYTES && slot.is_none() {
                // What waits here waits in its sender's socket, not in our memory.
                slot = self.large.acquire().await.ok();
            }
            if first.is_empty() && rest.is_empty() {
                first = data;
            } else {
                rest.extend_from_slice(&first);
                first = Bytes::new();
                rest.extend_from_slice(&data);
            }
        }
        if rest.is_empty() {
            Ok(first)
        } else {
            Ok(rest.freeze())
        }
    }
}

const TOO_LARGE: Refusal = Refusal::BodyTooLarge {
    limit_bytes: MAX_BODY_BYTES,
};
