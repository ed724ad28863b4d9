//! One body of SQL for both databases: an [`Operation`] runs in a transaction of either
//! through [`Tx`].

use std::collections::{BTreeSet, HashSet};
use std::ops::ControlFlow;

use super::StoreError;
use crate::domain::Timestamp;
use crate::store::error::Result;

mod postgres;
mod sql;
mod sqlite;
mod value;

pub(super) use self::postgres::PostgresEngine;
pub use self::postgres::{Copied, Progress, copy_from_sqlite};
pub(super) use self::sql::{Fragment, Sql};
pub(super) use self::sqlite::SqliteEngine;
pub use self::sqlite::{RestoredBackup, restore_backup};
pub(super) use self::value::{
    Column, Columns, Kind, Param, Row, Scalar, Value, params, rows, scalars,
};

/// [`Tx::lock`] held while subscriptions change; an arbitrary number, "IvWi".
pub(super) const SUBSCRIPTIONS_LOCK: i64 = 0x4976_5769;

/// [`Tx::lock`] held while a token is added; an arbitrary number, "IvWj".
pub(super) const TOKENS_LOCK: i64 = 0x4976_576A;

/// [`Tx::lock`] held while sessions begin or end; an arbitrary number, "IvWk".
pub(super) const SESSIONS_LOCK: i64 = 0x4976_576B;

/// [`Tx::lock`] held while feeds are added; an arbitrary number, "IvWl".
pub(super) const FEEDS_LOCK: i64 = 0x4976_576C;

/// Reads one row of a result, and decides whether another is read.
pub(super) type ReadRow<'a> = &'a mut (dyn FnMut(&dyn Row) -> Result<ControlFlow<()>> + Send);

/// Returns the terms of the row with an index.
pub(super) type TermsOf<'a> = &'a (dyn Fn(usize) -> BTreeSet<String> + Sync);

/// An open transaction. It is committed if its operation succeeds.
///
/// Statements run in the order in which they are first polled. On PostgreSQL those that are polled
/// together are sent at once, so that they take one wait for all: with `future::try_join` of
/// futures-util, which polls in the order of its arguments. Each sees what those before it did.
pub(super) trait Tx: Send + Sync {
    /// True if the database runs in this process, where many small statements cost less than one
    /// for all; false if each takes a wait for a server.
    const IN_PROCESS: bool;

    /// Returns the moment when the transaction began, by the database's clock if processes
    /// share the database; otherwise `local`, the caller's moment.
    fn now_or(&self, local: Timestamp) -> Timestamp;

    /// Waits until no other transaction holds the lock `number`, and holds it until the end.
    fn lock(&self, number: i64) -> impl Future<Output = Result<()>> + Send;

    /// Runs a statement and passes its rows to `row`, which may end the reading early.
    fn each(
        &self,
        sql: &'static Sql,
        params: &[&dyn Param],
        row: ReadRow<'_>,
    ) -> impl Future<Output = Result<()>> + Send;

    /// Runs a statement that returns no rows; returns the number of changed rows.
    fn execute(
        &self,
        sql: &'static Sql,
        params: &[&dyn Param],
    ) -> impl Future<Output = Result<usize>> + Send;

    /// Stores notifications that are not stored yet, which are in the order of their identity;
    /// returns for each whether it was new.
    fn insert_notifications(
        &self,
        notifications: &[NewNotification<'_>],
    ) -> impl Future<Output = Result<Vec<bool>>> + Send;

    /// Inserts rows under the next sequence numbers, and the terms by which each is found. The
    /// statement takes on SQLite a number and the values of one row; on PostgreSQL the count of the
    /// rows, each column as a list, and then as two lists the places of the terms' rows, from 1 on, and
    /// the terms; in several statements if the rows are large.
    ///
    /// It must be the last statement, since it may commit: the counter, for which others wait,
    /// is held for as short as possible. What is joined with it comes before it, and is a single statement.
    fn insert_numbered(
        &self,
        sql: &'static Sql,
        rows: &[Vec<&dyn Param>],
        terms: TermsOf<'_>,
    ) -> impl Future<Output = Result<()>> + Send;

    /// Runs the last statements of a transaction, in this order, and passes their rows to `row`;
    /// nothing may be executed after them.
    ///
    /// This may commit: on PostgreSQL they are sent together with COMMIT, so that their locks are
    /// held for as short as possible.
    fn last(
        &self,
        statements: &[Statement<'_>],
        row: ReadRow<'_>,
    ) -> impl Future<Output = Result<()>> + Send;

    /// Runs a statement and returns all its rows.
    fn all<C: Column + Send>(
        &self,
        sql: &'static Sql,
        params: &[&dyn Param],
    ) -> impl Future<Output = Result<Vec<C>>> + Send {
        async move {
            let mut rows = Vec::new();
            self.each(sql, params, &mut |row| {
                rows.push(Columns::of(row).get()?);
                Ok(ControlFlow::Continue(()))
            })
            .await?;
            Ok(rows)
        }
    }

    /// Runs a statement and returns its first row, if there is one.
    fn first<C: Column + Send>(
        &self,
        sql: &'static Sql,
        params: &[&dyn Param],
    ) -> impl Future<Output = Result<Option<C>>> + Send {
        async move {
            let mut first = None;
            self.each(sql, params, &mut |row| {
                first = Some(Columns::of(row).get()?);
                Ok(ControlFlow::Break(()))
            })
            .await?;
            Ok(first)
        }
    }

    /// Runs a statement that returns one row.
    fn one<C: Column + Send>(
        &self,
        sql: &'static Sql,
        params: &[&dyn Param],
    ) -> impl Future<Output = Result<C>> + Send {
        async move {
            self.first(sql, params)
                .await?
                .ok_or_else(|| StoreError::Database("a statement returned no row".to_owned()))
        }
    }

    /// Runs a statement that returns no rows.
    fn run(
        &self,
        sql: &'static Sql,
        params: &[&dyn Param],
    ) -> impl Future<Output = Result<()>> + Send {
        async move { self.execute(sql, params).await.map(drop) }
    }
}

/// A statement with its values.
pub(super) type Statement<'a> = (&'static Sql, &'a [&'a dyn Param]);

/// Work on the database that is done in one transaction, whole or not at all.
pub(super) trait Operation: Send + 'static {
    /// The result.
    type Output: Send + 'static;

    /// Runs it. It must await nothing but `tx`: SQLite's writer thread polls it once.
    fn run<T: Tx>(self, tx: &T) -> impl Future<Output = Result<Self::Output>> + Send;
}

/// Declares methods of the store. Each reads one snapshot (`read_own` for the service's own work), or writes, in a transaction of its
/// own, by the function of the same name and arguments that has the transaction as its first.
///
/// ```text
/// operations! {
///     /// Lists uploads, oldest first.
///     pub read uploads(filter: UploadFilter) -> Vec<UploadRow>;
///     /// Adds feeds that are not known yet, due for reconciliation at `now`.
///     pub write register_feeds(feeds: Vec<Feed>, now: Timestamp) -> (), then wake_pullers;
/// }
/// ```
macro_rules! operations {
    ($(
        $(#[$doc:meta])*
        $visible:vis $kind:ident $name:ident($($argument:ident: $type:ty),* $(,)?) -> $output:ty
            $(, then $wake:ident)?;
    )*) => {
        impl $crate::store::Store {
            $(
                $(#[$doc])*
                $visible async fn $name(
                    &self,
                    $($argument: $type),*
                ) -> Result<$output, $crate::store::StoreError> {
                    struct Run {
                        $($argument: $type),*
                    }
                    impl $crate::store::engine::Operation for Run {
                        type Output = $output;

                        async fn run<T: $crate::store::engine::Tx>(
                            self,
                            tx: &T,
                        ) -> Result<$output, $crate::store::StoreError> {
                            $name(tx $(, self.$argument)*).await
                        }
                    }
                    let output = self.$kind(Run { $($argument),* }).await?;
                    $(self.$wake();)?
                    Ok(output)
                }
            )*
        }
    };
}
pub(super) use operations;

/// A notification, as it is stored.
pub(super) struct NewNotification<'a> {
    pub(super) published_at: Timestamp,
    pub(super) message_id: Vec<u8>,
    pub(super) account: i64,
    pub(super) event: i64,
    pub(super) kind: &'a str,
    pub(super) received_at: Timestamp,
    pub(super) body: &'a [u8],
}

/// What no two notifications have in common: when it was published, its message id, account and event.
pub(super) type Identity<I> = (Timestamp, I, i64, i64);

impl NewNotification<'_> {
    /// Returns its identity.
    pub(super) fn identity(&self) -> Identity<&[u8]> {
        (
            self.published_at,
            &self.message_id,
            self.account,
            self.event,
        )
    }
}

/// The values of notifications, one list for each column.
pub(super) struct NotificationColumns<'a> {
    pub(super) account: Vec<i64>,
    pub(super) event: Vec<i64>,
    pub(super) published_at: Vec<Timestamp>,
    pub(super) message_id: Vec<&'a [u8]>,
    pub(super) kind: Vec<&'a str>,
    pub(super) received_at: Vec<Timestamp>,
    pub(super) body: Vec<&'a [u8]>,
}

impl<'a> NotificationColumns<'a> {
    /// Returns the values of these.
    pub(super) fn of(notifications: &'a [NewNotification<'_>]) -> Self {
        Self {
            account: list(notifications, |one| one.account),
            event: list(notifications, |one| one.event),
            published_at: list(notifications, |one| one.published_at),
            message_id: list(notifications, |one| one.message_id.as_slice()),
            kind: list(notifications, |one| one.kind),
            received_at: list(notifications, |one| one.received_at),
            body: list(notifications, |one| one.body),
        }
    }
}

/// Returns one part of each item.
fn list<'a, I, P>(items: &'a [I], part: impl FnMut(&'a I) -> P) -> Vec<P> {
    items.iter().map(part).collect()
}

/// Returns for each notification whether it is one of those that were `inserted`: of several copies the first is.
pub(super) fn which_are_new<'i>(
    notifications: &'i [NewNotification<'_>],
    inserted: &'i [Identity<Vec<u8>>],
) -> Vec<bool> {
    let identity =
        |(at, id, account, event): &'i Identity<Vec<u8>>| (*at, id.as_slice(), *account, *event);
    let mut inserted: HashSet<Identity<&'i [u8]>> = inserted.iter().map(identity).collect();
    list(notifications, |one| inserted.remove(&one.identity()))
}
