//! Stored documents.

use std::ops::ControlFlow;

use super::debug::redacted;
use super::engine::{Columns, Fragment, Param, Sql, Tx, operations, params, rows};
use super::error::Result;
use super::trigger_kind::TriggerKind;
use crate::domain::{Account, Company, Feed, Moment, Queue, Timestamp, version_key};

/// Selects documents to list.
#[derive(Clone, Debug, Default)]
pub struct DocumentFilter {
    /// Only this account's.
    pub account: Option<Account>,
    /// Only this queue's.
    pub queue: Option<Queue>,
    /// Only this company's.
    pub company: Option<Company>,
    /// Only this vendor's id.
    pub document_id: Option<String>,
    /// Only those after this sequence number.
    pub after: Option<i64>,
    /// Maximum number of rows, in ascending sequence.
    pub limit: usize,
}

/// One stored version of a document.
#[derive(Clone)]
pub struct DocumentRow {
    /// The sequence number: gap-free, in the order of commits.
    pub sequence: i64,
    /// The feed that listed it.
    pub feed: Feed,
    /// The vendor's id.
    pub document_id: String,
    /// Its version: the moment in UTC, without a zone; the vendor's text if it is no moment.
    pub version: String,
    /// True if a newer version of the document is stored.
    pub superseded: bool,
    /// True if its feed's first pull found it.
    pub first_pull: bool,
    /// The kind of trigger whose pull found it.
    pub found_by: TriggerKind,
    /// When it was stored.
    pub stored_at: Timestamp,
    /// When a person erased it: its id and its contents are gone since then.
    pub erased_at: Option<Timestamp>,
    /// The JSON as the vendor sent it; none once retention removed it, or a person erased it.
    pub body: Option<Vec<u8>>,
}

redacted! {
    DocumentRow {
        sequence, feed, document_id, version, superseded, first_pull, found_by, stored_at, erased_at;
        body
    }
}

/// A search for documents, newest first.
#[derive(Clone, Debug, Default)]
pub struct DocumentSearch {
    /// Only this account's.
    pub account: Option<Account>,
    /// Only this queue's.
    pub queue: Option<Queue>,
    /// Only this company's.
    pub company: Option<Company>,
    /// Only this vendor's id.
    pub document_id: Option<String>,
    /// Only those before this sequence number.
    pub before: Option<i64>,
    /// Maximum number of versions to read, matching or not.
    pub versions: u16,
}

/// The result of a [`DocumentSearch`].
#[derive(Clone, Debug)]
pub struct FoundDocuments {
    /// The matching versions, in descending sequence.
    pub rows: Vec<DocumentRow>,
    /// The `before` of the search that continues this one; none if nothing older is left.
    pub next: Option<i64>,
}

impl FoundDocuments {
    /// Returns the result of a search that read matching versions only: if it read as many
    /// as it may, there may be more.
    fn matching(rows: Vec<DocumentRow>, versions: u16) -> Self {
        let full = rows.len() >= usize::from(versions);
        Self {
            next: rows.last().map(|row| row.sequence).filter(|_| full),
            rows,
        }
    }

    /// Returns the result of a search that read all versions from `first` on.
    fn from(rows: Vec<DocumentRow>, first: i64) -> Self {
        Self {
            rows,
            // Sequence numbers begin at 1.
            next: (first > 1).then_some(first),
        }
    }
}

/// Sequence numbers in one [`DocumentStretch`].
const STRETCH_NUMBERS: i64 = 500;

/// Bytes of JSON after which a [`DocumentStretch`] ends early.
const STRETCH_BYTES: usize = 8 << 20;

/// The versions to read in the order of their arrival.
#[derive(Clone, Debug, Default)]
pub struct DocumentStretch {
    /// Only this account's.
    pub account: Option<Account>,
    /// Only this queue's.
    pub queue: Option<Queue>,
    /// Only this company's.
    pub company: Option<Company>,
    /// Only those of this moment or later: when the vendor's version was made, or else when it was
    /// stored.
    pub since: Option<Timestamp>,
    /// Only those before this moment.
    pub until: Option<Timestamp>,
    /// Also versions that a newer one has replaced.
    pub superseded: bool,
    /// Only those after this sequence number.
    pub after: i64,
}

impl DocumentStretch {
    /// Returns true if a version that another search found is one of these.
    pub fn contains(&self, row: &DocumentRow) -> bool {
        let version = Moment::read(&row.version).and_then(|moment| moment.timestamp());
        let made_at = version.unwrap_or(row.stored_at);
        row.sequence > self.after
            && (self.superseded || !row.superseded)
            && self.since.is_none_or(|since| made_at >= since)
            && self.until.is_none_or(|until| made_at < until)
            && self.queue.is_none_or(|queue| row.feed.queue == queue)
            && (self.account.as_ref()).is_none_or(|account| row.feed.account == *account)
            && (self.company.as_ref()).is_none_or(|company| row.feed.company == *company)
    }
}

/// A part of the versions of a [`DocumentStretch`].
#[derive(Clone, Debug)]
pub struct ReadStretch {
    /// The matching versions, in ascending sequence.
    pub rows: Vec<DocumentRow>,
    /// The `after` of the next part; none if this is the last.
    pub next: Option<i64>,
}

/// The state of the store's numbering.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SequenceRow {
    /// Changes whenever a backup is restored.
    pub epoch: String,
    /// The newest sequence number; 0 if nothing is stored.
    pub last: i64,
}

operations! {
    /// Lists documents in ascending sequence.
    pub read documents(filter: DocumentFilter) -> Vec<DocumentRow>;

    /// Returns the version with this sequence number.
    pub read document(sequence: i64) -> Option<DocumentRow>;

    /// Searches documents in descending sequence, a bounded number per call: one document's
    /// or one company's versions by index, otherwise a stretch of the sequence.
    pub read search_documents(search: DocumentSearch) -> FoundDocuments;

    /// Reads documents in ascending sequence, a bounded number and size per call.
    pub read document_stretch(stretch: DocumentStretch) -> ReadStretch;

    /// Returns for each of these (id, version) pairs whether `feed` has it already.
    pub read known_versions(feed: Feed, versions: Vec<(String, String)>) -> Vec<bool>;

    /// Returns the state of the numbering.
    pub read sequence() -> SequenceRow;

    /// Checks that the service's own work can read.
    pub(super) read_own probe_reading() -> ();
}

/// The columns of a [`DocumentRow`].
pub(super) const COLUMNS: Fragment = Fragment::Same(
    "d.sequence, a.name, f.queue, f.company, d.document_id, d.version, d.superseded, d.first_pull,
        d.found_by, d.stored_at, d.erased_at, d.body",
);

rows! {
    DocumentRow {
        sequence, feed, document_id, version, superseded, first_pull, found_by, stored_at, erased_at,
        body,
    }
    SequenceRow { epoch, last }
}

/// Joins feed and account, and selects by the account $2, the queue $3 and the company $4.
pub(super) const OF_FEEDS: Fragment = Fragment::Same(
    "JOIN feed f ON f.id = d.feed_id JOIN account a ON a.id = f.account_id
     WHERE ($2 IS NULL OR a.name = $2) AND ($3 IS NULL OR f.queue = $3) AND ($4 IS NULL OR f.company = $4)",
);

async fn documents<T: Tx>(tx: &T, filter: DocumentFilter) -> Result<Vec<DocumentRow>> {
    static OF_DOCUMENT: Sql = Sql::with(
        "SELECT {columns} FROM document d{by_identity} {of_feeds}
           AND d.sequence > $1 AND d.document_id = $6
         ORDER BY d.sequence{no_index} LIMIT $5",
        &[("columns", COLUMNS), ("of_feeds", OF_FEEDS)],
    );
    static OF_ALL: Sql = Sql::with(
        "SELECT {columns} FROM document d {of_feeds} AND d.sequence > $1 ORDER BY d.sequence LIMIT $5",
        &[("columns", COLUMNS), ("of_feeds", OF_FEEDS)],
    );
    let (after, limit, id) = (filter.after.unwrap_or(0), filter.limit, &filter.document_id);
    let params = params! { after, filter.account, filter.queue, filter.company, limit, id };
    match id {
        Some(_) => tx.all(&OF_DOCUMENT, params).await,
        None => tx.all(&OF_ALL, &params[..5]).await,
    }
}

async fn document<T: Tx>(tx: &T, sequence: i64) -> Result<Option<DocumentRow>> {
    static SQL: Sql = Sql::with(
        "SELECT {columns} FROM document d {then_join} feed f ON f.id = d.feed_id
         {then_join} account a ON a.id = f.account_id WHERE d.sequence = $1",
        &[("columns", COLUMNS)],
    );
    tx.first(&SQL, &[&sequence]).await
}

/// Searches a bounded number of versions: one document's or one company's by index,
/// otherwise a stretch of the sequence.
async fn search_documents<T: Tx>(tx: &T, search: DocumentSearch) -> Result<FoundDocuments> {
    static OF_DOCUMENT: Sql = Sql::with(
        "SELECT {columns} FROM document d{by_identity} {of_feeds}
           AND d.sequence < $1 AND d.document_id = $6
         ORDER BY d.sequence{no_index} DESC LIMIT $5",
        &[("columns", COLUMNS), ("of_feeds", OF_FEEDS)],
    );
    static OF_COMPANY: Sql = Sql::with(
        "SELECT {columns} FROM document d {of_feeds} AND d.sequence IN (
             SELECT one.sequence FROM document one{by_feed}
             WHERE one.sequence < $1 AND one.feed_id IN (
                 SELECT f.id FROM feed f JOIN account a ON a.id = f.account_id
                 WHERE f.company = $4 AND ($2 IS NULL OR a.name = $2) AND ($3 IS NULL OR f.queue = $3))
             ORDER BY one.sequence{no_index} DESC LIMIT $5)
         ORDER BY d.sequence DESC",
        &[
            ("columns", COLUMNS),
            ("of_feeds", OF_FEEDS),
            (
                "by_feed",
                Fragment::Differs(" INDEXED BY document_feed", ""),
            ),
        ],
    );
    static OF_STRETCH: Sql = Sql::with(
        "SELECT {columns} FROM document d {of_feeds}
           AND d.sequence < $1 AND d.sequence >= $6
         ORDER BY d.sequence DESC LIMIT $5",
        &[("columns", COLUMNS), ("of_feeds", OF_FEEDS)],
    );
    let (company, versions) = (&search.company, search.versions);
    let after_newest = sequence(tx).await?.last.saturating_add(1);
    let before = search.before.unwrap_or(i64::MAX).min(after_newest);
    let first = before.saturating_sub(versions.into()).max(1);
    let limit = i64::from(versions);
    let common: &[&dyn Param] = params! { before, search.account, search.queue, company, limit };
    if let Some(id) = &search.document_id {
        let rows = tx
            .all(&OF_DOCUMENT, &[common, &[id as &dyn Param]].concat())
            .await?;
        Ok(FoundDocuments::matching(rows, versions))
    } else if company.is_some() {
        let rows = tx.all(&OF_COMPANY, common).await?;
        Ok(FoundDocuments::matching(rows, versions))
    } else {
        let rows = tx
            .all(&OF_STRETCH, &[common, &[&first as &dyn Param]].concat())
            .await?;
        Ok(FoundDocuments::from(rows, first))
    }
}

/// Reads the matching versions of the next [`STRETCH_NUMBERS`] sequence numbers, however rare
/// they are, until they have [`STRETCH_BYTES`].
async fn document_stretch<T: Tx>(tx: &T, stretch: DocumentStretch) -> Result<ReadStretch> {
    static SQL: Sql = Sql::with(
        "SELECT {columns} FROM document d {of_feeds}
           AND d.sequence > $1 AND d.sequence <= $5 AND ($6 OR NOT d.superseded)
           AND ($7 IS NULL OR coalesce(d.version_ms, d.stored_at) >= $7)
           AND ($8 IS NULL OR coalesce(d.version_ms, d.stored_at) < $8)
         ORDER BY d.sequence",
        &[("columns", COLUMNS), ("of_feeds", OF_FEEDS)],
    );
    let newest = sequence(tx).await?.last;
    let (after, superseded) = (stretch.after, stretch.superseded);
    let last = after.saturating_add(STRETCH_NUMBERS).min(newest);
    let params = params! {
        after, stretch.account, stretch.queue, stretch.company, last, superseded, stretch.since, stretch.until,
    };
    let mut rows: Vec<DocumentRow> = Vec::new();
    let mut next = (last < newest).then_some(last);
    let mut bytes = 0;
    tx.each(&SQL, params, &mut |row| {
        let row: DocumentRow = Columns::of(row).get()?;
        bytes += row.body.as_ref().map_or(0, Vec::len);
        let sequence = row.sequence;
        rows.push(row);
        if bytes < STRETCH_BYTES {
            return Ok(ControlFlow::Continue(()));
        }
        next = Some(sequence);
        Ok(ControlFlow::Break(()))
    })
    .await?;
    Ok(ReadStretch { rows, next })
}

/// The versions of two lists: ids $1, versions $2.
pub(super) const VERSIONS: Fragment = Fragment::Differs(
    "(SELECT key AS number, value AS document_id, $2 ->> key AS version FROM json_each($1)) AS v",
    "unnest($1, $2) WITH ORDINALITY AS v (document_id, version, number)",
);

async fn known_versions<T: Tx>(
    tx: &T,
    feed: Feed,
    versions: Vec<(String, String)>,
) -> Result<Vec<bool>> {
    static SQL: Sql = Sql::with(
        "SELECT EXISTS (
             SELECT 1 FROM document d JOIN feed f ON f.id = d.feed_id JOIN account a ON a.id = f.account_id
             WHERE d.document_id = v.document_id AND d.version = v.version
               AND a.name = $3 AND f.queue = $4 AND f.company = $5)
         FROM {versions} ORDER BY v.number",
        &[("versions", VERSIONS)],
    );
    // As they identify rows.
    let versions = versions
        .into_iter()
        .map(|(id, version)| (id, version_key(&version)));
    let (ids, versions): (Vec<String>, Vec<String>) = versions.unzip();
    let params = params! { ids, versions, feed.account, feed.queue, feed.company };
    tx.all(&SQL, params).await
}

async fn probe_reading<T: Tx>(tx: &T) -> Result<()> {
    sequence(tx).await.map(drop)
}

pub(super) async fn sequence<T: Tx>(tx: &T) -> Result<SequenceRow> {
    static SQL: Sql = Sql::new("SELECT epoch, last FROM sequence");
    tx.one(&SQL, &[]).await
}
