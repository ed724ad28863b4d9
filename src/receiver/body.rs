//! Reads request bodies within limits of size, time and memory.
//!
//! Large bodies have a limited number of places. A sender that stalls must not keep others from
//! them, so the body that has been arriving for the longest makes room for a new one.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Body as Incoming;
use tokio_util::sync::CancellationToken;

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
    /// The place of a large body, held until the request is answered.
    pub place: Option<Place>,
}

/// Reads bodies of any content type.
pub struct BodyReader {
    timeout: Duration,
    large: Arc<LargeBodies>,
}

impl BodyReader {
    /// Creates a reader that gives up on a body after `timeout`.
    pub fn new(timeout: Duration) -> Self {
        Self {
            timeout,
            large: Arc::default(),
        }
    }

    /// Reads `body` whole.
    ///
    /// # Errors
    ///
    /// [`VerifyError::BodyTooLarge`] as soon as the limit is passed,
    /// [`Refusal::BodyIncomplete`] if the body breaks off or takes too long, and
    /// [`Refusal::QueueFull`] if it is large and too many large bodies are in memory: all of
    /// them whole, or arriving for a shorter time.
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
        let mut place: Option<Place> = None;
        loop {
            let frame = match &place {
                None => body.frame().await,
                Some(place) => match place.while_kept(body.frame()).await {
                    Some(frame) => frame,
                    None => return Err(Refusal::QueueFull),
                },
            };
            let Some(frame) = frame else { break };
            let frame = frame.map_err(|_| Refusal::BodyIncomplete)?;
            let Ok(data) = frame.into_data() else {
                continue;
            };
            let length = first.len() + rest.len() + data.len();
            if length > MAX_BODY_BYTES {
                return Err(TOO_LARGE);
            }
            if length > LARGE_BODY_BYTES && place.is_none() {
                // Refused without waiting: SNS sends it again once others are stored.
                place = Some(self.large.enter().ok_or(Refusal::QueueFull)?);
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
        match place {
            Some(place) if !place.complete() => Err(Refusal::QueueFull),
            place => Ok(Body { bytes, place }),
        }
    }
}

/// The places of large bodies.
#[derive(Debug, Default)]
struct LargeBodies(Mutex<Places>);

#[derive(Debug, Default)]
struct Places {
    /// The number of places in use.
    used: usize,
    /// Bodies that are still arriving, the oldest first.
    arriving: BTreeMap<u64, CancellationToken>,
    next: u64,
}

impl LargeBodies {
    /// Takes a place, if need be that of the body that has been arriving for the longest;
    /// `None` if every place has a whole body.
    fn enter(self: &Arc<Self>) -> Option<Place> {
        let mut places = self.places();
        if places.used >= MAX_LARGE_BODIES {
            let (_, oldest) = places.arriving.pop_first()?;
            oldest.cancel();
            // Its reader gives up; what it has read is freed with it.
            places.used -= 1;
        }
        let number = places.next;
        let kept = CancellationToken::new();
        places.next += 1;
        places.used += 1;
        places.arriving.insert(number, kept.clone());
        Some(Place {
            bodies: Arc::clone(self),
            number,
            taken: kept,
        })
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of one large body, free again when it is dropped.
#[derive(Debug)]
pub struct Place {
    bodies: Arc<LargeBodies>,
    number: u64,
    /// Canceled when another body takes the place.
    taken: CancellationToken,
}

impl Place {
    /// Awaits `work`; `None` if another body takes the place.
    async fn while_kept<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        self.taken.run_until_cancelled(work).await
    }

    /// Keeps the place from now on, since the body is whole; returns false if another body has
    /// taken it.
    fn complete(&self) -> bool {
        let mut places = self.bodies.places();
        places.arriving.remove(&self.number).is_some()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut places = self.bodies.places();
        // One that was taken is counted as its new owner's.
        if !self.taken.is_cancelled() {
            places.arriving.remove(&self.number);
            places.used -= 1;
        }
    }
}

const TOO_LARGE: Refusal = Refusal::Unverified(VerifyError::BodyTooLarge {
    limit_bytes: MAX_BODY_BYTES,
});

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::stream::{self, Stream, StreamExt as _};
    use http_body_util::{Full, StreamBody};
    use hyper::body::Frame;

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
            held.push(large.expect("a place is free"));
        }

        let refused = reader.read(body(LARGE_BODY_BYTES + 1)).await;
        assert_eq!(refused.err(), Some(Refusal::QueueFull));
        let small = reader.read(body(LARGE_BODY_BYTES)).await;
        assert!(small.expect("it needs no place").place.is_none());

        held.pop();
        assert!(reader.read(body(LARGE_BODY_BYTES + 1)).await.is_ok());
    }

    /// Returns a large body whose last bytes never arrive.
    fn stalled() -> StreamBody<impl Stream<Item = Result<Frame<Bytes>, Infallible>>> {
        let first = Bytes::from(vec![b'x'; LARGE_BODY_BYTES + 1]);
        let first = stream::once(async { Ok(Frame::data(first)) });
        StreamBody::new(first.chain(stream::pending()))
    }

    #[tokio::test]
    async fn stalled_large_bodies_make_room_for_those_that_arrive() {
        let reader = Arc::new(BodyReader::new(Duration::from_secs(10)));
        let mut stalling = Vec::new();
        for _ in 0..2 * MAX_LARGE_BODIES {
            let reader = Arc::clone(&reader);
            stalling.push(tokio::spawn(async move {
                reader.read(Box::pin(stalled())).await
            }));
            tokio::task::yield_now().await;
        }
        let used = || reader.large.places().used;
        assert_eq!(used(), MAX_LARGE_BODIES);

        let whole = reader.read(body(LARGE_BODY_BYTES + 1)).await;
        let whole = whole.expect("one that stalls makes room");

        let first = stalling.remove(0).await.expect("it ends");
        assert_eq!(first.err(), Some(Refusal::QueueFull));
        assert_eq!(used(), MAX_LARGE_BODIES);
        for one in &stalling {
            one.abort();
        }
        for one in stalling {
            let _ = one.await;
        }
        assert_eq!(used(), 1, "whole ones keep their places");
        drop(whole);
        assert_eq!(used(), 0);
    }
}
