//! How many requests each caller may send.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::AdminError;
use super::guard::Caller;

/// How many seconds' worth of requests may come at once.
const BURST_SECONDS: f64 = 10.0;

/// Buckets before those that are full again are thrown away.
const BUCKETS: usize = 128;

/// A bucket of tokens for each caller, filled at an even rate.
pub(super) struct Limiter {
    per_second: f64,
    buckets: Mutex<BTreeMap<Caller, Bucket>>,
}

#[derive(Clone, Copy)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl Limiter {
    pub(super) fn new(per_second: u32) -> Self {
        Self {
            per_second: f64::from(per_second),
            buckets: Mutex::default(),
        }
    }

    /// Counts one request of `caller`.
    ///
    /// # Errors
    ///
    /// [`AdminError::TooManyRequests`]
    pub(super) fn take(&self, caller: Caller) -> Result<(), AdminError> {
        let now = Instant::now();
        let full = self.per_second * BURST_SECONDS;
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= BUCKETS {
            // A full bucket says no more than none.
            buckets.retain(|_, bucket| self.filled(bucket, now) < full);
        }
        let bucket = buckets.entry(caller).or_insert(Bucket {
            left: full,
            at: now,
        });
        let left = self.filled(bucket, now);
        *bucket = Bucket { left, at: now };
        if left < 1.0 {
            let wait = Duration::from_secs_f64((1.0 - left) / self.per_second);
            return Err(AdminError::TooManyRequests {
                retry_after_seconds: wait.as_secs() + 1,
            });
        }
        bucket.left = left - 1.0;
        Ok(())
    }

    fn filled(&self, bucket: &Bucket, now: Instant) -> f64 {
        let since = now.duration_since(bucket.at).as_secs_f64();
        (bucket.left + since * self.per_second).min(self.per_second * BURST_SECONDS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_allowed_then_an_even_rate_for_each_caller() {
        let limiter = Limiter::new(2);
        let taken = |caller| (0..100).filter(|_| limiter.take(caller).is_ok()).count();
        assert_eq!(taken(Caller::Stored(1)), 20);
        assert_eq!(taken(Caller::Stored(2)), 20);
        let Err(AdminError::TooManyRequests {
            retry_after_seconds,
        }) = limiter.take(Caller::Stored(1))
        else {
            panic!("its bucket is empty");
        };
        tokio::time::advance(Duration::from_secs(retry_after_seconds)).await;
        assert_eq!(
            taken(Caller::Stored(1)),
            2 * usize::try_from(retry_after_seconds).expect("a minute at the most")
        );
    }

    #[tokio::test(start_paused = true)]
    async fn idle_callers_are_forgotten() {
        let limiter = Limiter::new(1000);
        for id in 0..100_000 {
            tokio::time::advance(Duration::from_millis(1)).await;
            assert!(limiter.take(Caller::Stored(id)).is_ok());
        }
        let buckets = limiter.buckets.lock().expect("no thread failed");
        assert!(buckets.len() <= BUCKETS, "{}", buckets.len());
    }
}
