//! Documents as people look at them: their state at each destination, other versions of the same
//! document, their files, and what a person decides about one of them.

use aws_lc_rs::digest::{SHA256, digest};
use secrecy::SecretString;

use super::debug::redacted;
use super::deliveries::DeliveryState;
use super::destinations::lock;
use super::documents::{COLUMNS, DocumentRow};
use super::engine::{Fragment, Sql, Tx, operations, params, rows};
use super::error::Result;
use super::held;
use super::import_errors::{ImportErrorState, NewImportError};
use super::trigger_kind::TriggerKind;
use super::triggers::raise;
use crate::domain::{Account, Company, DestinationName, Queue, Timestamp};

/// The state of a version at one destination that takes its feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlaceRow {
    /// The version's sequence number.
    pub sequence: i64,
    /// The destination.
    pub destination: DestinationName,
    /// Its state: of a version that was never attempted, `pending` or `held`.
    pub state: DeliveryState,
    /// When the state last changed; none if it was never attempted.
    pub changed_at: Option<Timestamp>,
    /// When it is tried again, apart from the order of its lane.
    pub next_try_at: Option<Timestamp>,
    /// The destination's answer.
    pub detail: Option<String>,
}

/// Another current version of the same document: of the other queue, or of another company.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiblingRow {
    /// The version.
    pub of: i64,
    /// The other version's sequence number.
    pub sequence: i64,
    /// Its queue.
    pub queue: Queue,
    /// Its company.
    pub company: Company,
}

/// A link to a document's file, as the vendor listed it last.
#[derive(Clone, Debug)]
pub struct ListedLink {
    /// The link; a secret.
    pub url: SecretString,
    /// When the vendor listed it.
    pub listed_at: Timestamp,
}

/// The newest document of a company's exported feed.
#[derive(Clone)]
pub struct NewestDocument {
    /// The account.
    pub account: Account,
    /// The company.
    pub company: Company,
    /// The JSON as the vendor sent it.
    pub body: Option<Vec<u8>>,
}

redacted! { NewestDocument { account, company; body } }

operations! {
    /// Returns the states of these versions at each destination that takes their feeds.
    pub read places(sequences: Vec<i64>) -> Vec<PlaceRow>;

    /// Returns the other current versions of the documents of these versions.
    pub read siblings(sequences: Vec<i64>) -> Vec<SiblingRow>;

    /// Returns at most `limit` current versions in a state, other than `delivered`, at a
    /// destination, before a sequence number, newest first.
    pub read documents_in_state(
        destination: DestinationName,
        state: DeliveryState,
        company: Option<Company>,
        before: i64,
        limit: usize,
    ) -> Vec<DocumentRow>;

    /// Returns the newest document of each of these companies' exported feeds.
    pub read newest_documents(companies: Vec<String>) -> Vec<NewestDocument>;

    /// Returns the link to a version's file that is newer than the one in its JSON.
    pub read listed_link(sequence: i64) -> Option<ListedLink>;

    /// Lets the feed of a version be pulled again for a fresh link to its file.
    pub write request_link(sequence: i64, now: Timestamp) -> (), then wake_pullers;

    /// Delivers a current version to a destination that takes its feed, whatever its state there:
    /// also one that is held as history. Returns false if there is none to deliver.
    pub write deliver_version(destination: DestinationName, sequence: i64, now: Timestamp) -> bool,
        then wake_deliveries;

    /// Lets the accountant be told of a document on a person's word. Returns false if the version
    /// does not exist.
    pub write report_document(sequence: i64, import_error: NewImportError, now: Timestamp) -> bool,
        then wake_import_errors;
}

rows! {
    PlaceRow { sequence, destination, state, changed_at, next_try_at, detail }
    SiblingRow { of, sequence, queue, company }
    ListedLink { url, listed_at }
    NewestDocument { account, company, body }
}

/// True if a version `d` without a delivery is to be delivered by its lane `l`, false if it is
/// history that is held.
const IS_DUE: Fragment = Fragment::Same(
    "CASE WHEN d.version_ms IS NULL THEN NOT d.first_pull OR coalesce(l.history_from = '', false)
          ELSE coalesce(d.version{bytewise} >= l.begins_at, false) OR coalesce(d.version{bytewise} >= l.history_from, false) END",
);

async fn places<T: Tx>(tx: &T, sequences: Vec<i64>) -> Result<Vec<PlaceRow>> {
    static SQL: Sql = Sql::with(
        "SELECT d.sequence, s.name,
                CASE WHEN d.superseded AND coalesce(h.state IN ('pending', 'deferred', 'waiting_file', 'held', 'rejected'), true)
                     THEN 'superseded'
                     WHEN h.state IS NOT NULL THEN h.state
                     WHEN {is_due} THEN 'pending' ELSE 'held' END,
                h.changed_at, h.next_try_at, coalesce(h.detail, h.note)
         FROM document d {then_join} lane l ON l.feed_id = d.feed_id {then_join} destination s ON s.id = l.destination_id
         LEFT JOIN delivery h ON h.destination_id = l.destination_id AND h.sequence = d.sequence
         WHERE d.sequence IN ({elements}($1)) AND (l.removed_at IS NULL OR h.sequence IS NOT NULL)
         ORDER BY d.sequence, s.name{bytewise}",
        &[("is_due", IS_DUE)],
    );
    tx.all(&SQL, &[&sequences]).await
}

async fn siblings<T: Tx>(tx: &T, sequences: Vec<i64>) -> Result<Vec<SiblingRow>> {
    static SQL: Sql = Sql::new(
        "SELECT d.sequence, o.sequence, p.queue, p.company
         FROM document d {then_join} feed f ON f.id = d.feed_id
         {then_join} document o{by_identity} ON o.document_id = d.document_id
         {then_join} feed p ON p.id = o.feed_id AND p.account_id = f.account_id
         WHERE d.sequence IN ({elements}($1)) AND d.erased_at IS NULL AND o.sequence <> d.sequence AND NOT o.superseded",
    );
    tx.all(&SQL, &[&sequences]).await
}

async fn documents_in_state<T: Tx>(
    tx: &T,
    destination: DestinationName,
    state: DeliveryState,
    company: Option<Company>,
    before: i64,
    limit: usize,
) -> Result<Vec<DocumentRow>> {
    static SQL: Sql = Sql::with(
        "SELECT {columns} FROM delivery h{by_state} {then_join} document d ON d.sequence = h.sequence
         {then_join} feed f ON f.id = d.feed_id {then_join} account a ON a.id = f.account_id
         WHERE h.destination_id = (SELECT id FROM destination WHERE name = $1)
           AND h.state = $2 AND h.state <> 'delivered' AND h.sequence < $3 AND NOT d.superseded
           AND ($5 IS NULL OR f.company = $5)
         ORDER BY h.sequence DESC LIMIT $4",
        &[("columns", COLUMNS)],
    );
    let params = params! { destination, state, before, limit, company };
    tx.all(&SQL, params).await
}

async fn newest_documents<T: Tx>(tx: &T, companies: Vec<String>) -> Result<Vec<NewestDocument>> {
    static SQL: Sql = Sql::with(
        "SELECT a.name, f.company, d.body
         FROM account a {then_join} feed f ON f.account_id = a.id AND f.queue = 'exported' AND f.company IN ({elements}($1))
         {then_join} document d ON d.sequence = (SELECT max(o.sequence) FROM document o{by_feed} WHERE o.feed_id = f.id)",
        &[(
            "by_feed",
            Fragment::Differs(" INDEXED BY document_feed", ""),
        )],
    );
    tx.all(&SQL, &[&companies]).await
}

async fn listed_link<T: Tx>(tx: &T, sequence: i64) -> Result<Option<ListedLink>> {
    static SQL: Sql = Sql::new("SELECT url, listed_at FROM document_link WHERE sequence = $1");
    tx.first(&SQL, &[&sequence]).await
}

async fn request_link<T: Tx>(tx: &T, sequence: i64, now: Timestamp) -> Result<()> {
    static FEED: Sql = Sql::new("SELECT feed_id FROM document WHERE sequence = $1");
    static REQUEST: Sql = Sql::new(
        "INSERT INTO fresh_link_request (feed_id, requested_at) VALUES ($1, $2) ON CONFLICT (feed_id) DO NOTHING",
    );
    let now = tx.now_or(now);
    let Some(feed) = tx.first::<i64>(&FEED, &[&sequence]).await? else {
        return Ok(());
    };
    tx.run(&REQUEST, &[&feed, &now]).await?;
    raise(tx, feed, TriggerKind::Reconciliation, now).await
}

async fn deliver_version<T: Tx>(
    tx: &T,
    destination: DestinationName,
    sequence: i64,
    now: Timestamp,
) -> Result<bool> {
    static TAKES: Sql = Sql::new(
        "SELECT 1 FROM document d {then_join} lane l ON l.feed_id = d.feed_id AND l.destination_id = $1
             AND l.removed_at IS NULL
         WHERE d.sequence = $2",
    );
    static DELIVER: Sql = Sql::new(
        "INSERT INTO delivery AS h (destination_id, sequence, state, began_at, changed_at, next_try_at)
         SELECT $1, sequence, 'pending', $3, $3, $3 FROM document
         WHERE sequence = $2 AND NOT superseded AND body IS NOT NULL
         ON CONFLICT (destination_id, sequence) DO UPDATE SET state = 'pending', next_try_at = excluded.next_try_at,
             link_tries = 0, number = NULL, changed_at = excluded.changed_at, failures = 0, failing_since = NULL",
    );
    let now = tx.now_or(now);
    let Some(id) = lock(tx, &destination).await? else {
        return Ok(false);
    };
    let takes: Option<()> = tx.first(&TAKES, &[&id, &sequence]).await?;
    if takes.is_none() {
        return Ok(false);
    }
    held::lower(tx, Some(id), &vec![sequence]).await?;
    Ok(tx.execute(&DELIVER, &[&id, &sequence, &now]).await? > 0)
}

async fn report_document<T: Tx>(
    tx: &T,
    sequence: i64,
    import_error: NewImportError,
    now: Timestamp,
) -> Result<bool> {
    static SQL: Sql = Sql::new(
        "INSERT INTO import_error AS r (account_id, sequence, digest, company, message, state, requested, created_at,
             next_try_at)
         SELECT f.account_id, d.sequence, $2, $3, $4, $5, true, $6, $6
         FROM document d JOIN feed f ON f.id = d.feed_id WHERE d.sequence = $1 AND d.erased_at IS NULL
         ON CONFLICT (sequence, digest) DO UPDATE SET requested = true,
             next_try_at = CASE WHEN r.state = 'sent' THEN r.next_try_at ELSE excluded.next_try_at END,
             state = CASE WHEN r.state = 'sent' THEN r.state ELSE excluded.state END",
    );
    let NewImportError { company, message } = import_error;
    let digest = digest(&SHA256, message.as_bytes());
    let now = tx.now_or(now);
    let state = ImportErrorState::Pending;
    let params = params! { sequence, digest.as_ref(), company, message, state, now };
    Ok(tx.execute(&SQL, params).await? > 0)
}
