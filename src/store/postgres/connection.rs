//! Connections, and transactions that hold nothing of their session.
//!
//! Everything runs inside explicit transactions, with unnamed statements and
//! `SET LOCAL` alone, so a PgBouncer in transaction mode may stand between.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, NoTls, Row, SimpleQueryMessage};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::config::{Encryption, PostgresAddress};
use crate::domain::{Clock, Correction, Timestamp};
use crate::store::StoreError;

/// Connections of one process at the most: reads, workers and one for ingest.
const CONNECTIONS: usize = 12;

/// How long a caller waits for a connection.
const TURN: Duration = Duration::from_secs(10);

/// How long an answer is waited for. Above the server's own limits, which name the cause.
const ANSWER: Duration = Duration::from_secs(45);

/// The first words of a transaction that writes; its answer is the database's time.
///
/// `synchronous_commit` is raised, never lowered: who has `remote_apply` keeps it. An
/// owner that stops in the middle of a transaction is cut off, so its locks hold up
/// nobody for longer than that.
const BEGIN_WRITING: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;
    SET LOCAL lock_timeout = '10s';
    SET LOCAL statement_timeout = '30s';
    SET LOCAL idle_in_transaction_session_timeout = '10s';
    SELECT set_config('synchronous_commit', 'on', true)
        WHERE current_setting('synchronous_commit') IN ('off', 'local', 'remote_write');
    SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS present";

/// The first words of a transaction that reads one snapshot.
const BEGIN_READING: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
    SET LOCAL statement_timeout = '30s';
    SET LOCAL idle_in_transaction_session_timeout = '10s';
    SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS present";

/// A value of a statement, with the type that the statement expects: nothing is
/// prepared, so nobody else says it.
pub(super) trait Parameter: ToSql + Sync {
    /// Its type in the database.
    fn kind(&self) -> Type;
}

macro_rules! parameters {
    ($($rust:ty => $sql:ident,)*) => {
        $(impl Parameter for $rust {
            fn kind(&self) -> Type {
                Type::$sql
            }
        })*
    };
}

parameters! {
    bool => BOOL,
    Vec<bool> => BOOL_ARRAY,
    i64 => INT8,
    Option<i64> => INT8,
    Vec<i64> => INT8_ARRAY,
    Vec<Option<i64>> => INT8_ARRAY,
    &str => TEXT,
    Option<&str> => TEXT,
    String => TEXT,
    Option<String> => TEXT,
    Vec<&str> => TEXT_ARRAY,
    Vec<String> => TEXT_ARRAY,
    &[u8] => BYTEA,
    Option<&[u8]> => BYTEA,
    Vec<u8> => BYTEA,
    Vec<&[u8]> => BYTEA_ARRAY,
    Vec<Vec<u8>> => BYTEA_ARRAY,
    Vec<Option<bool>> => BOOL_ARRAY,
    Vec<Option<String>> => TEXT_ARRAY,
    Vec<Option<Vec<u8>>> => BYTEA_ARRAY,
}

fn typed<'a>(values: &[&'a dyn Parameter]) -> Vec<(&'a (dyn ToSql + Sync), Type)> {
    values
        .iter()
        .map(|value| (*value as &(dyn ToSql + Sync), value.kind()))
        .collect()
}

/// Bounds the wait for an answer.
async fn answered<T>(
    work: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, StoreError> {
    match timeout(ANSWER, work).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(StoreError::Unreachable {
            detail: format!("no answer within {ANSWER:?}"),
        }),
    }
}

/// What the time is, by the database's clock, or by a clock that a test sets by hand.
pub(super) struct Time {
    base: Clock,
    corrected: Clock,
    correction: Correction,
}

impl Time {
    pub(super) fn new(base: Clock) -> Self {
        let (corrected, correction) = base.corrected();
        Self {
            base,
            corrected,
            correction,
        }
    }

    /// The clock that all who share the database live by.
    pub(super) fn clock(&self) -> Clock {
        self.corrected.clone()
    }

    /// Learns from a look at the database's clock that began at `before`.
    fn learn(&self, before: Timestamp, database: Timestamp) -> Timestamp {
        if self.base.is_manual() {
            return self.base.now();
        }
        let after = self.base.now();
        let took = after.as_millis() - before.as_millis();
        // A process that was stopped meanwhile, or whose clock was set, learns next time.
        if (0..1000).contains(&took) {
            self.correction
                .set(database.as_millis() - before.as_millis() - took / 2);
        }
        database
    }
}

/// The connections of one process.
pub(super) struct Pool {
    address: PostgresAddress,
    tls: Option<MakeRustlsConnect>,
    idle: Mutex<Vec<Client>>,
    turns: Semaphore,
    pub(super) time: Time,
}

impl Pool {
    pub(super) fn new(address: PostgresAddress, clock: Clock) -> Result<Self, StoreError> {
        let tls = match address.encryption() {
            Encryption::None => None,
            Encryption::Verified { authorities } => Some(
                tls(authorities.as_deref()).map_err(|detail| StoreError::Unreachable { detail })?,
            ),
        };
        Ok(Self {
            address,
            tls,
            idle: Mutex::default(),
            turns: Semaphore::new(CONNECTIONS),
            time: Time::new(clock),
        })
    }

    /// Begins a transaction that writes.
    pub(super) async fn write(&self) -> Result<Transaction<'_>, StoreError> {
        self.begin(BEGIN_WRITING).await
    }

    /// Begins a transaction that reads one snapshot.
    pub(super) async fn read(&self) -> Result<Transaction<'_>, StoreError> {
        self.begin(BEGIN_READING).await
    }

    async fn begin(&self, words: &str) -> Result<Transaction<'_>, StoreError> {
        let turn = match timeout(TURN, self.turns.acquire()).await {
            Ok(Ok(turn)) => turn,
            Ok(Err(_)) => return Err(StoreError::Closed),
            Err(_) => return Err(StoreError::QueueFull),
        };
        loop {
            let (client, is_fresh) = match self.idle() {
                Some(client) => (client, false),
                None => (self.connect().await?, true),
            };
            let before = self.time.base.now();
            match answered(client.simple_query(words)).await {
                Ok(answer) => {
                    let database = present(&answer)?;
                    return Ok(Transaction {
                        now: self.time.learn(before, database),
                        client,
                        pool: self,
                        _turn: turn,
                    });
                }
                // The server was restarted since it was last used: nothing was done yet.
                Err(StoreError::Unreachable { .. }) if !is_fresh => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn idle(&self) -> Option<Client> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        std::iter::from_fn(|| idle.pop()).find(|client| !client.is_closed())
    }

    fn give_back(&self, client: Client) {
        if !client.is_closed() && !self.turns.is_closed() {
            self.idle
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(client);
        }
    }

    async fn connect(&self) -> Result<Client, StoreError> {
        let settings = self.address.settings();
        let at = |error: StoreError| match error {
            StoreError::Unreachable { detail } => StoreError::Unreachable {
                detail: format!("{}: {detail}", self.address),
            },
            other => other,
        };
        match &self.tls {
            None => {
                let (client, connection) = answered(settings.connect(NoTls)).await.map_err(at)?;
                tokio::spawn(carry(connection));
                Ok(client)
            }
            Some(tls) => {
                let (client, connection) =
                    answered(settings.connect(tls.clone())).await.map_err(at)?;
                tokio::spawn(carry(connection));
                Ok(client)
            }
        }
    }

    /// Closes every connection; later calls answer [`StoreError::Closed`].
    pub(super) fn close(&self) {
        self.turns.close();
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }
}

/// Carries a connection's bytes until its client is gone.
async fn carry(connection: impl Future<Output = Result<(), tokio_postgres::Error>>) {
    if let Err(error) = connection.await {
        // Whoever uses the connection hears of it too, and says so once.
        tracing::debug!(
            "a connection to PostgreSQL ended: {}",
            StoreError::from(error)
        );
    }
}

/// The database's time in the answer to a transaction's first words.
fn present(answer: &[SimpleQueryMessage]) -> Result<Timestamp, StoreError> {
    let row = answer.iter().rev().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    row.and_then(|row| row.get("present"))
        .and_then(|millis| millis.parse().ok())
        .map(Timestamp::from_millis)
        .ok_or_else(|| StoreError::Database("it did not tell the time".to_owned()))
}

/// TLS with the server's certificate and name checked.
fn tls(authorities: Option<&std::path::Path>) -> Result<MakeRustlsConnect, String> {
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS can't be set up: {error}"))?;
    let builder = match authorities {
        None => builder
            .with_platform_verifier()
            .map_err(|error| format!("TLS can't be set up: {error}"))?,
        Some(file) => {
            let unusable = |why: String| format!("`sslrootcert` {}: {why}", file.display());
            let mut roots = rustls::RootCertStore::empty();
            for certificate in
                CertificateDer::pem_file_iter(file).map_err(|error| unusable(error.to_string()))?
            {
                let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
                roots
                    .add(certificate)
                    .map_err(|error| unusable(error.to_string()))?;
            }
            if roots.is_empty() {
                return Err(unusable("holds no certificate".to_owned()));
            }
            builder.with_root_certificates(roots)
        }
    };
    Ok(MakeRustlsConnect::new(builder.with_no_client_auth()))
}

/// A transaction under way. Dropped before its end, it takes its connection along, and
/// the server rolls it back.
pub(super) struct Transaction<'p> {
    client: Client,
    pool: &'p Pool,
    _turn: SemaphorePermit<'p>,
    now: Timestamp,
}

impl Transaction<'_> {
    /// The time when it began.
    pub(super) fn now(&self) -> Timestamp {
        self.now
    }

    /// Runs a statement and gives its rows.
    pub(super) async fn query(
        &self,
        sql: &str,
        values: &[&dyn Parameter],
    ) -> Result<Vec<Row>, StoreError> {
        answered(self.client.query_typed(sql, &typed(values))).await
    }

    /// Runs a statement that gives one row or none.
    pub(super) async fn query_opt(
        &self,
        sql: &str,
        values: &[&dyn Parameter],
    ) -> Result<Option<Row>, StoreError> {
        Ok(self.query(sql, values).await?.into_iter().next())
    }

    /// Runs a statement that gives one row.
    pub(super) async fn query_one(
        &self,
        sql: &str,
        values: &[&dyn Parameter],
    ) -> Result<Row, StoreError> {
        self.query_opt(sql, values)
            .await?
            .ok_or_else(|| StoreError::Database("a row that was just made is gone".to_owned()))
    }

    /// Runs a statement and gives how many rows it changed.
    pub(super) async fn execute(
        &self,
        sql: &str,
        values: &[&dyn Parameter],
    ) -> Result<usize, StoreError> {
        let changed = answered(self.client.execute_typed(sql, &typed(values))).await?;
        Ok(usize::try_from(changed).unwrap_or(usize::MAX))
    }

    /// Runs several statements without values.
    pub(super) async fn script(&self, sql: &str) -> Result<(), StoreError> {
        answered(self.client.batch_execute(sql)).await
    }

    /// Makes it last: synced to the server's disk when this returns.
    pub(super) async fn commit(self) -> Result<(), StoreError> {
        self.end("COMMIT").await
    }

    /// Undoes it and keeps the connection.
    pub(super) async fn roll_back(self) -> Result<(), StoreError> {
        self.end("ROLLBACK").await
    }

    async fn end(self, word: &str) -> Result<(), StoreError> {
        answered(self.client.batch_execute(word)).await?;
        self.pool.give_back(self.client);
        Ok(())
    }

    /// Runs a last statement and commits, both sent at once: what the statement locks is
    /// held for the server's own time alone, also when this process stops in between.
    pub(super) async fn execute_and_commit(
        self,
        sql: &str,
        values: &[&dyn Parameter],
    ) -> Result<usize, StoreError> {
        let values = typed(values);
        let statement = self.client.execute_typed(sql, &values);
        let commit = self.client.batch_execute("COMMIT");
        // Each sends when it is first polled, in this order. After a failed statement
        // the server answers COMMIT by rolling back, so the statement's answer decides.
        let (changed, committed) =
            answered(async { Ok(futures_util::future::join(statement, commit).await) }).await?;
        let changed = changed?;
        committed?;
        self.pool.give_back(self.client);
        Ok(usize::try_from(changed).unwrap_or(usize::MAX))
    }
}
