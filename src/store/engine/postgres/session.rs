//! A session of the server, and the statements that are prepared in it.
//!
//! A pooler in transaction mode gives each transaction of a connection any of its sessions, which
//! other connections use too. A connection marks the first session that it gets, if no other has, and
//! prepares statements in transactions of that session only. Without a pooler these are all.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio_postgres::types::Type;
use tokio_postgres::{Client, SimpleQueryMessage, Statement};

use crate::store::columns::random_hex;

/// Time after which a session is replaced by another, so that the plans of its statements follow
/// the growth of tables, also where nothing analyzes them.
const LIFETIME: Duration = Duration::from_secs(10 * 60);

/// A connection, and the session that it marked.
pub(super) struct Session {
    client: Client,
    mark: String,
    since: Instant,
    prepared: Mutex<HashMap<&'static str, Statement>>,
}

impl Session {
    /// Marks the session, unless another connection has.
    pub(super) async fn of(client: Client) -> Result<Self, tokio_postgres::Error> {
        let mark = random_hex();
        client
            .batch_execute(&format!(
                "SELECT set_config('ivesk_webhook.session', '{mark}', false)
                 WHERE coalesce(current_setting('ivesk_webhook.session', true), '') = ''"
            ))
            .await?;
        Ok(Self {
            client,
            mark,
            since: Instant::now(),
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

    /// Returns true if a transaction whose first statement selected the mark runs in the session
    /// that this connection marked.
    pub(super) fn is_marked(&self, answer: &[SimpleQueryMessage]) -> bool {
        answer.iter().any(|message| match message {
            SimpleQueryMessage::Row(row) => row.get("session") == Some(&self.mark),
            _ => false,
        })
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
