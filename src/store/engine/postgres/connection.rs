//! Connections, and transactions.
//!
//! Everything runs in explicit transactions with local settings, so that PgBouncer in transaction
//! mode can be used. The settings of a transaction are one statement; its other statements are
//! prepared if it runs in a session of its connection's own ([`Session`]).

use std::future::poll_fn;
use std::ops::ControlFlow;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use futures_util::future::{MaybeDone, join, maybe_done};
use futures_util::{TryFutureExt as _, TryStreamExt as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, NoTls, Row, RowStream, SimpleQueryMessage};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::beginning::{
    ABOUT, Access, Beginning, COMMIT_TO_DISKS, First, LESS_THAN_ON, PLAN_ONCE, database_time, value,
};
use super::clock::DatabaseClock;
use super::error::cannot_connect;
use super::session::{self, Growth, Session};
use super::tls::tls;
use super::turn::Turn;
use super::types::type_of;
use crate::config::{Encryption, PostgresAddress};
use crate::domain::{Clock, Timestamp};
use crate::store::engine::{Param, Statement, Value};
use crate::store::error::Result;
use crate::store::{Hooks, StoreError};

/// What a connection is used for. Each has connections of its own, so that none waits for another.
#[derive(Clone, Copy, Debug)]
pub(super) enum Use {
    /// Storing messages.
    Ingest,
    /// The service's own work.
    Work,
    /// Reads of people and programs.
    People,
}

impl Use {
    const ALL: [Self; 3] = [Self::Ingest, Self::Work, Self::People];

    /// Returns the maximum number of its connections in one process; 12 together.
    const fn connections(self) -> usize {
        match self {
            Self::Ingest => INGEST_TASKS,
            Self::Work => 6,
            Self::People => 4,
        }
    }
}

/// The number of tasks that store messages, in turns.
pub(super) const INGEST_TASKS: usize = 2;

/// Time that a caller waits for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

/// Time to wait for an answer; longer than the server's own limits, whose errors name the
/// cause.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(45);

/// Time to wait until the server has ended a statement that nobody waits for any more.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(10);

/// Fails if the answer takes longer than [`RESPONSE_TIMEOUT`].
async fn with_timeout<T, E>(work: impl Future<Output = Result<T, E>>) -> Result<T>
where
    StoreError: From<E>,
{
    within(Some(RESPONSE_TIMEOUT), work).await
}

/// Fails if the answer takes longer than `limit`.
async fn within<T, E>(
    limit: Option<Duration>,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T>
where
    StoreError: From<E>,
{
    let Some(limit) = limit else {
        return Ok(work.await?);
    };
    match timeout(limit, work).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(StoreError::Unreachable {
            detail: format!("no answer within {limit:?}; check the server's load and the network"),
        }),
    }
}

/// The connections of one process.
pub(super) struct Pool {
    address: PostgresAddress,
    tls: Option<MakeRustlsConnect>,
    idle: Mutex<Vec<Session>>,
    growth: Growth,
    permits: [Arc<Semaphore>; Use::ALL.len()],
    pub(super) time: DatabaseClock,
    /// True until a transaction of a connection that has marked a session got another, as behind a pooler.
    owns_sessions: AtomicBool,
    /// False if commits promised too little in the last transaction that writes and was begun by [`Self::begin`].
    syncs_commits: AtomicBool,
    hooks: Option<Arc<dyn Hooks>>,
}

impl Pool {
    pub(super) fn new(
        address: PostgresAddress,
        clock: Clock,
        hooks: Option<Arc<dyn Hooks>>,
    ) -> Result<Self> {
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
            growth: Growth::default(),
            permits: Use::ALL.map(|one| Arc::new(Semaphore::new(one.connections()))),
            time: DatabaseClock::new(clock),
            owns_sessions: AtomicBool::new(true),
            syncs_commits: AtomicBool::new(true),
            hooks,
        })
    }

    /// Begins a transaction that writes.
    pub(super) async fn write(&self) -> Result<Transaction<'_>> {
        self.begin(Use::Work, Access::Write).await
    }

    /// Begins a transaction that stores messages in this turn, which ends when the server is about to commit.
    pub(super) async fn ingest(&self, turn: Option<Turn>) -> Result<Transaction<'_>> {
        let transaction = self.begin(Use::Ingest, Access::Write).await?;
        Ok(transaction.in_turn(turn))
    }

    /// Begins as [`Self::ingest`] does, but does not wait for the answer: a statement is sent with it, and
    /// [`Transaction::begun`] must be awaited too. `None` if there is no idle connection that has marked a session, or if
    /// an earlier transaction got the session of another, as behind a pooler, or found that commits promise too little.
    pub(super) async fn at_once(
        &self,
        turn: &mut Option<Turn>,
    ) -> Result<Option<(Transaction<'_>, Beginning)>> {
        if !self.syncs_commits.load(Ordering::Relaxed) || !self.owns_sessions() {
            return Ok(None);
        }
        let permit = self.permit(Use::Ingest).await?;
        let Some(session) = self.idle() else {
            return Ok(None);
        };
        let Some(question) = session.ask_own(true) else {
            self.recycle(session);
            return Ok(None);
        };
        let first = self.first(&session, Use::Ingest, Access::Write, &question);
        // Fails if the connection was closed.
        let Ok(answer) = session.client().simple_query_raw(&first.statements).await else {
            return Ok(None);
        };
        let transaction = Transaction::of(self, session, permit, true).in_turn(turn.take());
        Ok(Some((transaction, Beginning { first, answer })))
    }

    /// Begins a transaction that reads one snapshot.
    pub(super) async fn read(&self, used_for: Use) -> Result<Transaction<'_>> {
        self.begin(used_for, Access::Read).await
    }

    /// Waits until one more connection may be used.
    async fn permit(&self, used_for: Use) -> Result<OwnedSemaphorePermit> {
        let permits = Arc::clone(&self.permits[used_for as usize]);
        match timeout(ACQUIRE_TIMEOUT, permits.acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) => Err(StoreError::Closed),
            Err(_) => Err(StoreError::QueueFull),
        }
    }

    fn owns_sessions(&self) -> bool {
        self.owns_sessions.load(Ordering::Relaxed)
    }

    /// Returns true if the error is that of a transaction in the session of another; notes it.
    fn is_of_another(&self, error: &tokio_postgres::Error) -> bool {
        let is_of_another = session::is_of_another(error);
        if is_of_another && self.owns_sessions.swap(false, Ordering::Relaxed) {
            tracing::info!(
                "a pooler in between gives transactions any session of PostgreSQL; each transaction takes more time"
            );
        }
        is_of_another
    }

    /// Returns the first statements of a transaction, of which this question is the last, to be sent at once.
    fn first(&self, session: &Session, used_for: Use, access: Access, question: &str) -> First {
        let planning = match used_for {
            Use::Ingest | Use::Work => PLAN_ONCE,
            Use::People => "",
        };
        let steps = self.growth.steps();
        let discards = session.has_old_plans(steps);
        let discarding = if discards { "DISCARD PLANS;" } else { "" };
        let begin = access.begin();
        First {
            statements: format!("{begin} {planning} {discarding} {question}"),
            discards: discards.then_some(steps),
            sent_at: self.time.base.now(),
        }
    }

    async fn begin(&self, used_for: Use, access: Access) -> Result<Transaction<'_>> {
        let permit = self.permit(used_for).await?;
        loop {
            let (session, is_fresh) = match self.idle() {
                Some(session) => (session, false),
                None => (self.connect().await?, true),
            };
            let own = self.owns_sessions().then(|| session.ask_own(false));
            let question = own.flatten().unwrap_or_else(|| format!("SELECT {ABOUT}"));
            let first = self.first(&session, used_for, access, &question);
            let mut is_of_another = false;
            let answer = session.client().simple_query(&first.statements);
            let answer = answer.inspect_err(|error| is_of_another = self.is_of_another(error));
            match with_timeout(answer).await {
                Ok(answer) => {
                    let prepares = session.is_marked(&answer);
                    let mut transaction = Transaction::of(self, session, permit, prepares);
                    transaction.now = transaction.began(&first, &answer)?;
                    if access == Access::Write {
                        let promised = value(&answer, "synchronous_commit");
                        let is_synced = !LESS_THAN_ON.map(Some).contains(&promised);
                        self.syncs_commits.store(is_synced, Ordering::Relaxed);
                        if !is_synced {
                            transaction.script(COMMIT_TO_DISKS).await?;
                        }
                    }
                    return Ok(transaction);
                }
                // The server was restarted since the last use; nothing has been done yet.
                Err(StoreError::Unreachable { .. }) if !is_fresh => {}
                // Nothing has been done in the session of another.
                Err(_) if is_of_another => {
                    let ended = session.client().batch_execute("ROLLBACK");
                    if with_timeout(ended).await.is_ok() {
                        self.recycle(session);
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn idle(&self) -> Option<Session> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        std::iter::from_fn(|| idle.pop()).find(Session::is_usable)
    }

    fn recycle(&self, session: Session) {
        if session.is_usable() && !self.permits[0].is_closed() {
            self.idle
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(session);
        }
    }

    async fn connect(&self) -> Result<Session> {
        let settings = self.address.settings();
        let at = |error: StoreError| match error {
            StoreError::Unreachable { detail } => StoreError::Unreachable {
                detail: format!("{}: {detail}", self.address),
            },
            other => other,
        };
        let client = match &self.tls {
            None => {
                let connecting = settings.connect(NoTls).map_err(cannot_connect);
                let (client, connection) = with_timeout(connecting).await.map_err(at)?;
                tokio::spawn(drive(connection));
                client
            }
            Some(tls) => {
                let connecting = settings.connect(tls.clone()).map_err(cannot_connect);
                let (client, connection) = with_timeout(connecting).await.map_err(at)?;
                tokio::spawn(drive(connection));
                client
            }
        };
        let session = Session::of(client, self.growth.steps());
        with_timeout(session).await.map_err(at)
    }

    /// Closes every connection; later calls answer [`StoreError::Closed`].
    pub(super) fn close(&self) {
        for permits in &self.permits {
            permits.close();
        }
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }
}

/// Drives a connection until its client is dropped.
async fn drive(connection: impl Future<Output = Result<(), tokio_postgres::Error>>) {
    if let Err(error) = connection.await {
        // The user of the connection gets the error too, and logs it.
        tracing::debug!(
            "connection to PostgreSQL closed: {}",
            StoreError::from(error)
        );
    }
}

/// An open transaction. Dropping it cancels its statement and closes its connection, and the
/// server rolls it back, unless COMMIT was sent.
pub(super) struct Transaction<'p> {
    /// `None` once it has ended.
    connection: Option<(Session, OwnedSemaphorePermit)>,
    pool: &'p Pool,
    /// True if its statements are prepared.
    prepares: bool,
    /// The time to wait for an answer.
    limit: Option<Duration>,
    /// Held while a statement is prepared and sent.
    order: tokio::sync::Mutex<()>,
    /// The number of statements that the server may be running.
    unanswered: AtomicUsize,
    now: Timestamp,
    /// True once COMMIT was sent.
    commits: AtomicBool,
    is_committed: AtomicBool,
    turn: Mutex<Option<Turn>>,
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        let Some((session, permit)) = self.connection.take() else {
            return;
        };
        let runtime = tokio::runtime::Handle::try_current();
        let (Ok(runtime), true) = (runtime, self.unanswered.load(Ordering::Relaxed) > 0) else {
            return;
        };
        // A canceled COMMIT would no longer wait for a standby, and what it committed would be acknowledged as a
        // duplicate.
        let cancels = !self.commits.load(Ordering::Relaxed);
        // Its place is free once the server has ended the statement: otherwise new connections
        // would come to those that still run what nobody waits for.
        let tls = self.pool.tls.clone();
        runtime.spawn(async move {
            let client = session.client();
            let token = client.cancel_token();
            let ended = async {
                if cancels {
                    let _ = match tls {
                        None => token.cancel_query(NoTls).await,
                        Some(tls) => token.cancel_query(tls).await,
                    };
                }
                // Answered after the statement.
                let _ = client.batch_execute("ROLLBACK").await;
            };
            let _ = timeout(CANCEL_TIMEOUT, ended).await;
            drop(session);
            drop(permit);
        });
    }
}

impl<'p> Transaction<'p> {
    /// Returns a transaction whose first statements were sent, or answered.
    fn of(pool: &'p Pool, session: Session, permit: OwnedSemaphorePermit, prepares: bool) -> Self {
        Self {
            connection: Some((session, permit)),
            pool,
            prepares,
            limit: Some(RESPONSE_TIMEOUT),
            order: tokio::sync::Mutex::default(),
            unanswered: AtomicUsize::new(0),
            now: pool.time.corrected.now(),
            commits: AtomicBool::new(false),
            is_committed: AtomicBool::new(false),
            turn: Mutex::default(),
        }
    }

    fn in_turn(mut self, turn: Option<Turn>) -> Self {
        self.turn = Mutex::new(turn);
        self
    }

    /// Notes the answer to its first statements; returns the database's time.
    fn began(&self, first: &First, answer: &[SimpleQueryMessage]) -> Result<Timestamp> {
        let database = database_time(answer)?;
        if let (Some(steps), true) = (first.discards, self.prepares) {
            self.session()?.discarded_plans(steps);
        }
        Ok(self.pool.time.synchronize(first.sent_at, database))
    }

    /// Waits for the answer to the first statements of [`Pool::at_once`]. If one after BEGIN failed, so did what was
    /// sent with them.
    pub(super) async fn begun(&self, beginning: Beginning) -> Result<()> {
        let Beginning { first, answer } = beginning;
        let answer = answer.try_collect().inspect_err(|error| {
            self.pool.is_of_another(error);
        });
        let answer: Vec<SimpleQueryMessage> = self.answer(answer).await?;
        self.began(&first, &answer).map(drop)
    }
}

impl Transaction<'_> {
    /// Lets its statements take as long as they need.
    pub(super) async fn without_limits(&mut self) -> Result<()> {
        self.limit = None;
        self.script("SET LOCAL lock_timeout = 0; SET LOCAL statement_timeout = 0")
            .await
    }

    fn session(&self) -> Result<&Session> {
        match &self.connection {
            Some((session, _)) => Ok(session),
            None => Err(StoreError::Closed),
        }
    }

    fn client(&self) -> Result<&Client> {
        self.session().map(Session::client)
    }

    /// Waits for an answer of the server.
    async fn answer<T, E>(&self, work: impl Future<Output = Result<T, E>>) -> Result<T>
    where
        StoreError: From<E>,
    {
        self.unanswered.fetch_add(1, Ordering::Relaxed);
        let answer = within(self.limit, work).await;
        // Without an answer it may still run.
        if !matches!(answer, Err(StoreError::Unreachable { .. })) {
            self.unanswered.fetch_sub(1, Ordering::Relaxed);
        }
        answer
    }

    /// Returns the time when it began: the database's, or, if it was begun [at once](Pool::at_once), that of the
    /// corrected clock.
    pub(super) fn now(&self) -> Timestamp {
        self.now
    }

    /// Returns the values of a statement with their types.
    fn typed<'a>(&self, sql: &str, params: &[&'a dyn Param]) -> Vec<(Value<'a>, Type)> {
        let typed = |param: &&'a dyn Param| {
            let value = (**param).value();
            let kind = type_of(&value);
            (value, kind)
        };
        let values: Vec<(Value<'a>, Type)> = params.iter().map(typed).collect();
        if let Some(hooks) = &self.pool.hooks {
            let types: Vec<&str> = values.iter().map(|(_, kind)| kind.name()).collect();
            hooks.statement(sql, &types);
        }
        values
    }

    /// Sends a statement after those that began before it, and returns its rows as they arrive.
    async fn rows(&self, sql: &'static str, params: &[&dyn Param]) -> Result<RowStream> {
        let values = self.typed(sql, params);
        let session = self.session()?;
        let client = session.client();
        let order = self.order.lock().await;
        if !self.prepares {
            return sent(client.query_typed_raw(sql, values), || drop(order)).await;
        }
        let types: Vec<Type> = values.iter().map(|(_, kind)| kind.clone()).collect();
        let prepared = session.prepare(sql, &types).await?;
        let values = values.into_iter().map(|(value, _)| value);
        sent(client.query_raw(&prepared, values), || drop(order)).await
    }

    /// Runs a statement and passes its rows to `row`, which may end the reading early; returns the
    /// number of rows that it returned or changed, or 0 if the reading ended early.
    async fn read(
        &self,
        sql: &'static str,
        params: &[&dyn Param],
        mut row: impl FnMut(Row) -> Result<ControlFlow<()>>,
    ) -> Result<usize> {
        self.answer(async {
            let mut rows = pin!(self.rows(sql, params).await?);
            while let Some(found) = rows.try_next().await? {
                if row(found)?.is_break() {
                    return Ok(0);
                }
            }
            let count = rows.rows_affected().unwrap_or(0);
            let count = usize::try_from(count).unwrap_or(usize::MAX);
            self.pool.growth.count(sql, count);
            Ok::<_, StoreError>(count)
        })
        .await
    }

    /// Runs a statement and passes its rows to `row`, which may end the reading early.
    pub(super) async fn each(
        &self,
        sql: &'static str,
        params: &[&dyn Param],
        mut row: impl FnMut(&Row) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        self.read(sql, params, |found| row(&found)).await.map(drop)
    }

    /// Runs a statement and returns its rows.
    pub(super) async fn query(&self, sql: &str, params: &[&dyn Param]) -> Result<Vec<Row>> {
        let values = self.typed(sql, params);
        let client = self.client()?;
        self.answer(client.query_typed(sql, &borrowed(&values)))
            .await
    }

    /// Runs a statement that returns one row.
    pub(super) async fn query_one(&self, sql: &str, params: &[&dyn Param]) -> Result<Row> {
        let row = self.query(sql, params).await?.into_iter().next();
        row.ok_or_else(|| StoreError::Database("a statement returned no row".to_owned()))
    }

    /// Runs a statement and returns the number of changed rows.
    pub(super) async fn execute(&self, sql: &'static str, params: &[&dyn Param]) -> Result<usize> {
        self.read(sql, params, |_| Ok(ControlFlow::Continue(())))
            .await
    }

    /// Runs several statements without values.
    pub(super) async fn script(&self, sql: &str) -> Result<()> {
        self.answer(self.client()?.batch_execute(sql)).await
    }

    /// Commits it: synced to the server's disk when this returns.
    pub(super) async fn commit(self) -> Result<()> {
        self.end("COMMIT").await
    }

    /// Rolls it back and keeps the connection.
    pub(super) async fn roll_back(self) -> Result<()> {
        self.end("ROLLBACK").await
    }

    async fn end(mut self, word: &str) -> Result<()> {
        if !*self.is_committed.get_mut() {
            *self.commits.get_mut() = word == "COMMIT";
            self.script(word).await?;
        }
        if let Some((session, _)) = self.connection.take() {
            self.pool.recycle(session);
        }
        Ok(())
    }

    /// Runs the last statements and commits, all sent at once, so that no lock is held while the
    /// server waits for this process, even if it is suspended in between. Passes the rows to `row` once
    /// they are committed.
    pub(super) async fn run_and_commit(
        &self,
        statements: &[Statement<'_>],
        mut row: impl FnMut(&Row) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        // The server does not know of one that failed before it was sent, and would commit the others.
        let has_failed = AtomicBool::new(false);
        let run = statements.iter().map(async |(sql, params)| {
            let mut found = Vec::new();
            let all = |row| {
                found.push(row);
                Ok(ControlFlow::Continue(()))
            };
            let read = self.read(sql.postgres(), params, all).await;
            has_failed.fetch_or(read.is_err(), Ordering::Relaxed);
            read.map(|_| found)
        });
        let turn = self
            .turn
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        // The turn ends with it: the server is about to commit.
        let run = Turn::hold(turn, in_order(run));
        let commit = self.answer(async {
            let order = self.order.lock().await;
            if has_failed.load(Ordering::Relaxed) {
                return Err(StoreError::Database("not committed".to_owned()));
            }
            self.commits.store(true, Ordering::Relaxed);
            sent(self.client()?.batch_execute("COMMIT"), || drop(order)).await
        });
        // After a failed statement the server fails those after it and answers COMMIT by rolling back,
        // so the first error decides.
        let (run, committed) = join(run, commit).await;
        let found: Vec<Vec<Row>> = run.into_iter().collect::<Result<_>>()?;
        committed?;
        self.is_committed.store(true, Ordering::Relaxed);
        for found in found.iter().flatten() {
            if row(found)?.is_break() {
                break;
            }
        }
        Ok(())
    }
}

/// Waits for the answer to a request, which the client sends when it is first polled; calls
/// `when_sent` in between.
async fn sent<T>(
    request: impl Future<Output = Result<T, tokio_postgres::Error>>,
    when_sent: impl FnOnce(),
) -> Result<T> {
    let mut request = pin!(request);
    let polled = poll_fn(|context| Poll::Ready(request.as_mut().poll(context))).await;
    when_sent();
    match polled {
        Poll::Ready(answer) => Ok(answer?),
        Poll::Pending => Ok(request.await?),
    }
}

/// Waits for requests. They are begun in this order, all when this is first polled: `join_all` may first
/// poll something else if there are more than 30.
async fn in_order<F: Future>(requests: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut requests: Vec<Pin<Box<MaybeDone<F>>>> =
        requests.map(|one| Box::pin(maybe_done(one))).collect();
    poll_fn(|context| {
        let mut waits = false;
        for one in &mut requests {
            waits |= one.as_mut().poll(context).is_pending();
        }
        match waits {
            true => Poll::Pending,
            false => Poll::Ready(()),
        }
    })
    .await;
    let mut requests = requests.into_iter();
    std::iter::from_fn(|| requests.next()?.as_mut().take_output()).collect()
}

/// Returns values as the client takes them.
fn borrowed<'v>(values: &'v [(Value<'_>, Type)]) -> Vec<(&'v (dyn ToSql + Sync), Type)> {
    let values = values.iter();
    values
        .map(|(value, kind)| (value as &(dyn ToSql + Sync), kind.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_a_migration_may_take_as_long_as_it_needs() {
        let slow = async || {
            tokio::time::sleep(Duration::from_secs(24 * 60 * 60)).await;
            Ok::<_, StoreError>(7)
        };
        assert_eq!(within(None, slow()).await.ok(), Some(7));
        let limited = within(Some(RESPONSE_TIMEOUT), slow()).await;
        assert!(matches!(limited, Err(StoreError::Unreachable { .. })));
    }

    #[test]
    fn many_requests_begin_in_order_when_first_polled() {
        let begun = Mutex::new(Vec::new());
        let request = async |number| {
            begun.lock().expect("no panic").push(number);
            tokio::task::yield_now().await;
            number
        };
        let mut all = pin!(in_order((0..100).map(request)));
        let mut context = Context::from_waker(Waker::noop());
        assert!(all.as_mut().poll(&mut context).is_pending());
        let numbers: Vec<i32> = (0..100).collect();
        assert_eq!(*begun.lock().expect("no panic"), numbers);
        assert_eq!(all.as_mut().poll(&mut context), Poll::Ready(numbers));
    }

    #[test]
    fn each_use_has_connections_of_its_own() {
        let places = Use::ALL.map(|one| one as usize);
        assert_eq!(places, [0, 1, 2]);
        let connections = Use::ALL.map(Use::connections);
        assert_eq!(connections.iter().sum::<usize>(), 12);
    }
}
