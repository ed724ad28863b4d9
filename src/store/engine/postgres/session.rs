//! A session of the server, and the statements that are prepared in it.
//!
//! A pooler in transaction mode gives each transaction of a connection any of its sessions, which
//! other connections use too. A connection marks the first session that it gets, unless another has in the
//! time that a connection lasts, and prepares statements in transactions of that session only. Without a
//! pooler these are all.
//!
//! The server plans a prepared statement for the sizes that tables have then, and again when they
//! are analyzed: about once a minute while they grow, or never. What was planned for an empty table
//! may read all of it, so plans are discarded as tables grow ([`Growth`]).

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, SimpleQueryMessage, Statement};

use super::beginning::{ABOUT, LESS_THAN_ON, value};
use crate::store::columns::random_hex;

/// Time after which a session is replaced by another, so that the plans of its statements follow
/// what other processes have inserted, also where nothing analyzes the tables.
const LIFETIME: Duration = Duration::from_secs(10 * 60);

/// How much this process has inserted, which tells when tables have grown.
#[derive(Default)]
pub(super) struct Growth {
    /// Rows by statement that inserts, with those that it updates instead, and that are rolled back.
    inserted: Mutex<HashMap<&'static str, usize>>,
    /// The number of times that a statement had inserted four times as many as before.
    steps: AtomicU32,
}

impl Growth {
    /// Counts what a statement has changed.
    pub(super) fn count(&self, sql: &'static str, rows: usize) {
        if rows == 0 || !sql.contains("INSERT INTO") {
            return;
        }
        let mut inserted = self.inserted.lock().unwrap_or_else(PoisonError::into_inner);
        let count = inserted.entry(sql).or_default();
        let before = Self::step(*count);
        *count += rows;
        if Self::step(*count) > before {
            self.steps.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns the number of the step: the second begins at 64 rows, and each after it at four times as many.
    const fn step(rows: usize) -> u32 {
        (rows | 0x3f).ilog2() / 2
    }

    /// Returns the number of steps until now.
    pub(super) fn steps(&self) -> u32 {
        self.steps.load(Ordering::Relaxed)
    }
}

/// A connection, and the session that it marked.
pub(super) struct Session {
    client: Client,
    /// `None` if it has marked none.
    mark: Option<Mark>,
    since: Instant,
    /// The steps of growth when its plans were last discarded.
    planned_at: AtomicU32,
    prepared: Mutex<HashMap<&'static str, Statement>>,
}

/// What a connection has left in its session.
struct Mark {
    /// The value of `ivesk_webhook.session`.
    value: String,
    /// The name of a statement that returns [`ABOUT`], which no other session has.
    statement: String,
}

impl Session {
    /// Marks the session, unless another connection has that may still be in use. Its plans are made after
    /// this many steps of growth.
    ///
    /// A mark ends with the time of its connection, since a pooler keeps the session for longer. If that
    /// connection is in use all the same, it finds another mark in its next transaction there.
    pub(super) async fn of(client: Client, steps: u32) -> Result<Self, tokio_postgres::Error> {
        let (name, lifetime_ms) = (random_hex(), LIFETIME.as_millis());
        let answer = client
            .simple_query(&format!(
                "BEGIN;
                 SELECT set_config('ivesk_webhook.session', '{name}@' || now_ms, false) AS session
                 FROM (SELECT (date_part('epoch', clock_timestamp()) * 1000)::bigint AS now_ms,
                     substring(current_setting('ivesk_webhook.session', true) from '@([0-9]{{1,15}})$')::bigint
                         AS since_ms) AS mark
                 WHERE coalesce(since_ms NOT BETWEEN now_ms - {lifetime_ms} AND now_ms, true)"
            ))
            .await?;
        let mark = value(&answer, "session").map(|value| Mark {
            value: value.to_owned(),
            statement: format!("ivesk_webhook_{name}"),
        });
        client
            .batch_execute(&match &mark {
                // The names of another's statements may be the same.
                Some(mark) => format!("DEALLOCATE ALL; {}; COMMIT", mark.preparation()),
                None => "COMMIT".to_owned(),
            })
            .await?;
        Ok(Self {
            client,
            mark,
            since: Instant::now(),
            planned_at: AtomicU32::new(steps),
            prepared: Mutex::default(),
        })
    }

    /// Returns the connection.
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Returns true if another transaction can use the connection.
    pub(super) fn is_usable(&self) -> bool {
        !self.client.is_closed() && self.since.elapsed() < LIFETIME
    }

    /// Returns true if tables have grown since its plans were discarded: after this many steps.
    pub(super) fn has_old_plans(&self, steps: u32) -> bool {
        self.planned_at.load(Ordering::Relaxed) != steps && !self.prepared().is_empty()
    }

    /// Notes that its plans were discarded after this many steps of growth.
    pub(super) fn discarded_plans(&self, steps: u32) {
        self.planned_at.store(steps, Ordering::Relaxed);
    }

    /// Returns true if a transaction whose first statements selected the mark runs in the session
    /// that this connection marked.
    pub(super) fn is_marked(&self, answer: &[SimpleQueryMessage]) -> bool {
        let mark = self.mark.as_ref();
        mark.is_some_and(|mark| value(answer, "session") == Some(&mark.value))
    }

    /// Returns a statement that returns [`ABOUT`], and fails in any session but the one that this connection marked; if
    /// `synced`, also where a commit promises less than `synchronous_commit = on`. `None` if it has marked none.
    ///
    /// It is prepared, which saves the server from planning a SELECT each time. What is prepared too may be sent with it,
    /// unseen: in a transaction the server refuses what follows a failure.
    pub(super) fn ask_own(&self, synced: bool) -> Option<String> {
        let mark = self.mark.as_ref()?;
        Some(format!("EXECUTE {}({synced})", mark.statement))
    }

    /// Returns a statement that takes values of these types; prepares it if it is new.
    pub(super) async fn prepare(
        &self,
        sql: &'static str,
        types: &[Type],
    ) -> Result<Statement, tokio_postgres::Error> {
        let known = self.prepared().get(sql).cloned();
        if let Some(known) = known.filter(|known| known.params() == types) {
            return Ok(known);
        }
        let statement = self.client.prepare_typed(sql, types).await?;
        self.prepared().insert(sql, statement.clone());
        Ok(statement)
    }

    fn prepared(&self) -> std::sync::MutexGuard<'_, HashMap<&'static str, Statement>> {
        self.prepared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Mark {
    /// Returns the PREPARE of [`Session::ask_own`].
    fn preparation(&self) -> String {
        let (name, less) = (&self.statement, LESS_THAN_ON.join("', '"));
        // What is converted is no constant, since constants are converted before the condition is checked.
        format!(
            "PREPARE {name}(boolean) AS SELECT {ABOUT}, CASE
                 WHEN $1 AND current_setting('synchronous_commit') IN ('{less}')
                 THEN ('this does no harm; synchronous_commit is ' || current_setting('synchronous_commit'))::integer
             END"
        )
    }
}

/// Returns true if the error is that of [`Session::ask_own`] in a session of another.
pub(super) fn is_of_another(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&SqlState::INVALID_SQL_STATEMENT_NAME)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_grow_in_few_steps() {
        let growth = Growth::default();
        growth.count("SELECT 1", 1_000_000);
        growth.count("INSERT INTO feed", 63);
        assert_eq!(growth.steps(), 0);
        growth.count("INSERT INTO feed", 1);
        assert_eq!(growth.steps(), 1);
        for _ in 0..1_000_000 {
            growth.count("WITH w AS (SELECT 1) INSERT INTO document", 1);
        }
        assert_eq!(growth.steps(), 1 + 7);
    }
}
