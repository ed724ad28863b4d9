//! What tests do to a store: faults, and a view of its statements.

use std::pin::Pin;

use super::StoreError;

/// A use of the store that a test may hold, or let fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A message is to be stored.
    Accept,
    /// A message is committed; a failure loses the answer.
    Accepted,
    /// The store is asked whether it could store a message.
    Probe,
    /// An operation that reads.
    Read,
    /// An operation that writes.
    Write,
    /// Such an operation is committed; a failure loses the answer.
    Written,
}

/// What a test does to a store, by [`StoreOptions::hooks`](super::StoreOptions); no setting
/// does.
pub trait Hooks: Send + Sync {
    /// Waits before a step; its error is returned instead of taking the step.
    fn before(
        &self,
        _step: Step,
    ) -> Pin<Box<dyn Future<Output = Result<(), StoreError>> + Send + '_>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Returns the free bytes of the disk instead of those of the real one.
    fn free_bytes(&self) -> Option<u64> {
        None
    }

    /// Sees a statement before it runs, with the types of its parameters on PostgreSQL.
    fn statement(&self, _sql: &str, _types: &[&str]) {}
}
