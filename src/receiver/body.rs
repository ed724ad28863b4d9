//! Reads request bodies within limits of size, time and memory.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Body as Incoming;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::refusal::Refusal;
use crate::sns::{MAX_BODY_BYTES, VerifyError};

/// Larger bodies are limited to [`MAX_LARGE_BODIES`] at once.
const LARGE_BODY_BYTES: usize = 64 * 1024;

/// Most large bodies in memory at once, until each is answered; together at most 128 MiB.
const MAX_LARGE_BODIES: usize = 64;

/// A body that was read whole.
#[derive(Debug)]
pub struct Body {
    /// Its bytes.
    pub bytes: Bytes,
    /// The permit of a large body, held until the request is answered.
    pub permit: Option<OwnedSemaphorePermit>,
}

/// Reads bodies of any content type.
pub struct BodyReader {
    timeout: Duration,
    large: Arc<Semaphore>,
}

impl BodyReader {
    /// Creates a reader that gives up on a body after `timeout`.
    pub fn new(timeout: Duration) -> Self {
        Self {
            timeout,
            large: Arc::new(Semaphore::new(MAX_LARGE_BODIES)),
        }
    }

    /// Reads `body` whole.
    ///
    /// # Errors
    ///
    /// [`VerifyError::BodyTooLarge`] as soon as the limit is passed,
    /// [`Refusal::BodyIncomplete`] if the body breaks off or takes too long, and
    /// [`Refusal::QueueFull`] if it is large and too many large bodies are in memory.
    pub async fn read<B: Incoming<Data = Bytes>>(&self, body: B) -> Result<Body, Refusal> {
        // Tokio sets the timer only if the body is not complete yet.
        match tokio::time::timeout(self.timeout, self.read_whole(body)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Refusal::BodyIncomplete),
        }
    }

    async fn read_whole<B: Incoming<Data = Bytes>>(&self, body: B) -> Result<Body, Refusal> {
        let announced = body.size_hint().lower();
        if announced > MAX_BODY_BYTES as u64 {
            return Err(TOO_LARGE);
        }
        let mut body = pin!(body);
        let mut first = Bytes::new();
        let mut rest = BytesMut::new();
        let mut permit = None;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| Refusal::BodyIncomplete)?;
            let Ok(data) = frame.into_data() else {
                continue;
            };
            let length = first.len() + rest.len() + data.len();
            if length > MAX_BODY_BYTES {
                return Err(TOO_LARGE);
            }
            if length > LARGE_BODY_BYTES && permit.is_none() {
                // Refused without waiting: SNS sends it again once others are stored.
                let acquired = Arc::clone(&self.large).try_acquire_owned();
                permit = Some(acquired.map_err(|_| Refusal::QueueFull)?);
            }
            if first.is_empty() && rest.is_empty() {
                first = data;
            } else {
                rest.extend_from_slice(&first);
                first = Bytes::new();
                rest.extend_from_slice(&data);
            }
        }
        let bytes = if rest.is_empty() {
            first
        } else {
            rest.freeze()
        };
        Ok(Body { bytes, permit })
    }
}

const TOO_LARGE: Refusal = Refusal::Unverified(VerifyError::BodyTooLarge {
    limit_bytes: MAX_BODY_BYTES,
});

#[cfg(test)]
mod tests {
    use http_body_util::Full;

    use super::*;

    fn body(length: usize) -> Full<Bytes> {
        Full::new(Bytes::from(vec![b'x'; length]))
    }

    #[tokio::test]
    async fn large_bodies_hold_a_slot_and_others_are_refused_at_once() {
        let reader = BodyReader::new(Duration::from_secs(10));
        let mut held = Vec::new();
        for _ in 0..MAX_LARGE_BODIES {
            let large = reader.read(body(LARGE_BODY_BYTES + 1)).await;
            held.push(large.expect("a permit is free"));
        }

        let refused = reader.read(body(LARGE_BODY_BYTES + 1)).await;
        assert_eq!(refused.err(), Some(Refusal::QueueFull));
        let small = reader.read(body(LARGE_BODY_BYTES)).await;
        assert!(small.expect("it needs no permit").permit.is_none());

        held.pop();
        assert!(reader.read(body(LARGE_BODY_BYTES + 1)).await.is_ok());
    }
}
