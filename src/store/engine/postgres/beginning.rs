//! The first statements of a transaction, and their answer.

use tokio_postgres::{SimpleQueryMessage, SimpleQueryStream};

use crate::domain::Timestamp;
use crate::store::StoreError;
use crate::store::error::Result;

/// What a transaction may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// It reads one snapshot.
    Read,
    Write,
}

impl Access {
    /// Returns the statements with which the transaction begins.
    pub(super) const fn begin(self) -> &'static str {
        match self {
            Self::Read => BEGIN_READING,
            Self::Write => BEGIN_WRITING,
        }
    }
}

/// The first statements of a transaction that writes.
///
/// The idle timeout ends the transaction of a process that stopped, so that its locks block others no
/// longer. Compiling a statement would take longer than any of them does. Each can read by an index: without
/// `enable_seqscan` it does so in small tables too, some of which are read again for each row of a list.
const BEGIN_WRITING: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;
    SET LOCAL jit = off; SET LOCAL enable_seqscan = off; SET LOCAL idle_in_transaction_session_timeout = '10s';
    SET LOCAL statement_timeout = '30s'; SET LOCAL lock_timeout = '10s';";

/// The first statements of a transaction that reads one snapshot.
const BEGIN_READING: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
    SET LOCAL jit = off; SET LOCAL enable_seqscan = off; SET LOCAL idle_in_transaction_session_timeout = '10s';
    SET LOCAL statement_timeout = '30s';";

/// What each transaction asks first: the database's time, the mark of its session, and what a commit promises.
pub(super) const ABOUT: &str =
    "(date_part('epoch', clock_timestamp()) * 1000)::bigint AS database_time,
    current_setting('ivesk_webhook.session', true) AS session,
    current_setting('synchronous_commit') AS synchronous_commit";

/// Lets a commit be answered once it is on the disks of the server and of its synchronous standbys.
pub(super) const COMMIT_TO_DISKS: &str = "SET LOCAL synchronous_commit = on";

/// Values of `synchronous_commit` that promise less. It is raised from these, and never lowered:
/// `remote_apply` is kept.
pub(super) const LESS_THAN_ON: [&str; 3] = ["off", "local", "remote_write"];

/// Lets the service's own statements be planned once in a session for any values, until tables have
/// grown, as the tests of their plans do: planning takes longer than running most of them.
pub(super) const PLAN_ONCE: &str = "SET LOCAL plan_cache_mode = force_generic_plan;";

/// The first statements of a transaction.
pub(super) struct First {
    pub(super) statements: String,
    /// The steps of growth after which they discard plans; `None` if they discard none.
    pub(super) discards: Option<u32>,
    pub(super) sent_at: Timestamp,
}

/// First statements that were sent, and their answer, for which nobody has waited yet.
pub(super) struct Beginning {
    pub(super) first: First,
    pub(super) answer: SimpleQueryStream,
}

/// Returns a value of the answer to a transaction's first statements.
pub(super) fn value<'a>(answer: &'a [SimpleQueryMessage], name: &str) -> Option<&'a str> {
    answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.try_get(name).ok()?,
        _ => None,
    })
}

/// Returns the database's time from the answer to a transaction's first statements.
pub(super) fn database_time(answer: &[SimpleQueryMessage]) -> Result<Timestamp> {
    value(answer, "database_time")
        .and_then(|millis| millis.parse().ok())
        .map(Timestamp::from_millis)
        .ok_or_else(|| StoreError::Database("the server did not return its time".to_owned()))
}
