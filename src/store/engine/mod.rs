//! One body of SQL for both databases: an [`Operation`] runs in a transaction of either
//! through [`Tx`].

use std::ops::ControlFlow;

use super::StoreError;
use crate::domain::Timestamp;

mod sql;
mod value;

pub(super) use self::sql::{Fragment, Sql, differs};
pub(super) use self::value::{Column, Param, Row, Value};

/// [`Tx::lock`] held while subscriptions change; an arbitrary number, "IvWi".
pub(super) const SUBSCRIPTIONS_LOCK: i64 = 0x4976_5769;

/// [`Tx::lock`] held while a token is added; an arbitrary number, "IvWj".
pub(super) const TOKENS_LOCK: i64 = 0x4976_576A;

/// Reads one row of a result, and decides whether another is read.
pub(super) type ReadRow<'a> =
    &'a mut (dyn FnMut(&dyn Row) -> Result<ControlFlow<()>, StoreError> + Send);

/// An open transaction. It is committed if its operation succeeds.
pub(super) trait Tx: Send {
    /// Returns the moment when the transaction began, by the database's clock if processes
    /// share the database; otherwise `local`, the caller's moment.
    fn now_or(&self, local: Timestamp) -> Timestamp;

    /// Waits until no other transaction holds the lock `number`, and holds it until the end.
    fn lock(&mut self, number: i64) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Runs a statement and passes its rows to `row`, which may end the reading early.
    fn each(
        &mut self,
        sql: &'static Sql,
        params: &[&dyn Param],
        row: ReadRow<'_>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Runs a statement that returns no rows; returns the number of changed rows.
    fn execute(
        &mut self,
        sql: &'static Sql,
        params: &[&dyn Param],
    ) -> impl Future<Output = Result<usize, StoreError>> + Send;

    /// Runs a statement and returns all its rows.
    fn all<R: Send>(
        &mut self,
        sql: &'static Sql,
        params: &[&dyn Param],
        mut read: impl FnMut(&dyn Row) -> Result<R, StoreError> + Send,
    ) -> impl Future<Output = Result<Vec<R>, StoreError>> + Send {
        async move {
            let mut rows = Vec::new();
            self.each(sql, params, &mut |row| {
                rows.push(read(row)?);
                Ok(ControlFlow::Continue(()))
            })
            .await?;
            Ok(rows)
        }
    }

    /// Runs a statement and returns its first row, if there is one.
    fn first<R: Send>(
        &mut self,
        sql: &'static Sql,
        params: &[&dyn Param],
        mut read: impl FnMut(&dyn Row) -> Result<R, StoreError> + Send,
    ) -> impl Future<Output = Result<Option<R>, StoreError>> + Send {
        async move {
            let mut first = None;
            self.each(sql, params, &mut |row| {
                first = Some(read(row)?);
                Ok(ControlFlow::Break(()))
            })
            .await?;
            Ok(first)
        }
    }

    /// Runs a statement that returns one row.
    fn one<R: Send>(
        &mut self,
        sql: &'static Sql,
        params: &[&dyn Param],
        read: impl FnMut(&dyn Row) -> Result<R, StoreError> + Send,
    ) -> impl Future<Output = Result<R, StoreError>> + Send {
        async move {
            self.first(sql, params, read)
                .await?
                .ok_or_else(|| StoreError::Database("a statement returned no row".to_owned()))
        }
    }
}

/// Work on the database that is done in one transaction, whole or not at all.
pub(super) trait Operation: Send + 'static {
    /// The result.
    type Output: Send + 'static;

    /// Runs it. It must await nothing but `tx`: SQLite's writer thread polls it once.
    fn run<T: Tx>(
        self,
        tx: &mut T,
    ) -> impl Future<Output = Result<Self::Output, StoreError>> + Send;
}
