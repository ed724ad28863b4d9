//! Erasing documents: what the store holds of their contents goes, their numbers stay.
//!
//! Of an erased version the row keeps its sequence number, its version and its times, so that
//! numbers have no gaps; its id is gone, and a tombstone keeps later pulls from storing it
//! again. Its files at destinations that are folders are listed until they are removed.

use std::ops::ControlFlow;

use aws_lc_rs::digest::{SHA256, digest};

use super::debug::redacted;
use super::deliveries::{Attempt, DeliveryOutcome};
use super::engine::{Fragment, Sql, Tx, operations, params, rows};
use super::error::Result;
use super::feeds::PageLease;
use super::held;
use super::import_errors::lock_paths;
use super::search::remove_terms;
use crate::domain::{Account, Company, DestinationName, Feed, Timestamp};
use crate::hex::hex;

/// A version that could be erased.
#[derive(Clone)]
pub struct ErasableVersion {
    /// Its sequence number.
    pub sequence: i64,
    /// The JSON as the vendor sent it; none once retention removed it.
    pub body: Option<Vec<u8>>,
    /// The notes of the destinations that accepted it, in lines.
    pub notes: Option<String>,
}

redacted! { ErasableVersion { sequence; body } }

/// A file of an erased document, which is to be removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErasedFile {
    /// The line of the destination's note that names it.
    pub path: String,
    /// The digest of the document's id; empty if the file was there after the erasure.
    pub document_digest: String,
}

impl ErasedFile {
    /// Returns true if a document of this id, whose file has the path now, is the erased one.
    pub fn is_of(&self, document_id: &str) -> bool {
        self.document_digest.is_empty() || self.document_digest == hex_digest(document_id)
    }
}

/// Files of erased documents that are not removed yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftFiles {
    /// The destination whose folder holds them.
    pub destination: DestinationName,
    /// Their number, without endings.
    pub files: u64,
}

/// What identifies an unreadable entry in its feed.
type Digest = Vec<u8>;

operations! {
    /// Lists feeds and their ids by account and company, where given.
    pub read feeds_to_erase(account: Option<Account>, company: Option<Company>)
        -> Vec<(Feed, i64)>;

    /// Lists at most `limit` versions of a feed that are not erased, in ascending sequence after
    /// a sequence number.
    pub read erasable_of_feed(feed: i64, after: i64, limit: usize) -> Vec<i64>;

    /// Lists at most `limit` versions of a document that are not erased.
    pub read erasable_of_document(account: Option<Account>, document_id: String, limit: usize)
        -> Vec<i64>;

    /// Lists those of the next `stretch` versions after a sequence number that belong to one of
    /// these feeds and are not erased.
    pub read erasable_of_stretch(feeds: Vec<i64>, after: i64, stretch: i64) -> Vec<ErasableVersion>;

    /// Erases versions; returns how many of them were not erased before.
    pub write erase_versions(sequences: Vec<i64>, now: Timestamp) -> usize, then wake_deliveries;

    /// Reads at most `limit` unreadable entries of a feed in the order of their digests, after a
    /// digest. Returns the digests of those in which `part` stands by itself, or of all if there
    /// is none; and the digest to continue after, unless there are no more.
    pub read unreadable_to_erase(feed: i64, part: Option<String>, after: Vec<u8>, limit: usize)
        -> (Vec<Digest>, Option<Digest>);

    /// Erases unreadable entries of a feed.
    pub write erase_unreadable(feed: i64, digests: Vec<Vec<u8>>, now: Timestamp) -> ();

    /// Lists at most `limit` files of erased documents at a destination, after one of them.
    pub read erased_files(destination: DestinationName, after: ErasedFile, limit: usize) -> Vec<ErasedFile>;

    /// Records that files of erased documents were removed.
    pub write forget_erased_files(destination: DestinationName, files: Vec<ErasedFile>) -> ();

    /// Counts the files of erased documents that are not removed yet.
    pub read erased_files_left() -> Vec<LeftFiles>;
}

rows! {
    ErasableVersion { sequence, body, notes }
    ErasedFile { path, document_digest }
    LeftFiles { destination, files }
}

async fn feeds_to_erase<T: Tx>(
    tx: &T,
    account: Option<Account>,
    company: Option<Company>,
) -> Result<Vec<(Feed, i64)>> {
    static SQL: Sql = Sql::new(
        "SELECT a.name, f.queue, f.company, f.id FROM account a {then_join} feed f ON f.account_id = a.id
         WHERE ($1 IS NULL OR a.name = $1) AND ($2 IS NULL OR f.company = $2) ORDER BY f.id",
    );
    tx.all(&SQL, &[&account, &company]).await
}

async fn erasable_of_feed<T: Tx>(tx: &T, feed: i64, after: i64, limit: usize) -> Result<Vec<i64>> {
    static SQL: Sql = Sql::new(
        "SELECT sequence FROM document WHERE feed_id = $1 AND sequence > $2 AND erased_at IS NULL
         ORDER BY sequence LIMIT $3",
    );
    tx.all(&SQL, &[&feed, &after, &limit]).await
}

async fn erasable_of_document<T: Tx>(
    tx: &T,
    account: Option<Account>,
    document_id: String,
    limit: usize,
) -> Result<Vec<i64>> {
    static SQL: Sql = Sql::new(
        "SELECT d.sequence FROM document d{by_identity}
         JOIN feed f ON f.id = d.feed_id JOIN account a ON a.id = f.account_id
         WHERE d.document_id = $1 AND d.erased_at IS NULL AND ($2 IS NULL OR a.name = $2) LIMIT $3",
    );
    tx.all(&SQL, &[&document_id, &account, &limit]).await
}

async fn erasable_of_stretch<T: Tx>(
    tx: &T,
    feeds: Vec<i64>,
    after: i64,
    stretch: i64,
) -> Result<Vec<ErasableVersion>> {
    static SQL: Sql = Sql::with(
        "SELECT d.sequence, d.body,
             (SELECT {gathered} FROM delivery h WHERE h.sequence = d.sequence AND h.note IS NOT NULL)
         FROM document d
         WHERE d.sequence > $2 AND d.sequence <= $3 AND d.erased_at IS NULL AND +d.feed_id IN ({elements}($1))
         ORDER BY d.sequence",
        &[(
            "gathered",
            Fragment::Differs("group_concat(h.note, '\n')", "string_agg(h.note, '\n')"),
        )],
    );
    tx.all(&SQL, &[&feeds, &after, &after.saturating_add(stretch)])
        .await
}

/// A version that is being erased.
struct Found {
    sequence: i64,
    feed: i64,
    document_id: String,
    version: String,
}

rows! { Found { sequence, feed, document_id, version } }

async fn erase_versions<T: Tx>(tx: &T, sequences: Vec<i64>, now: Timestamp) -> Result<usize> {
    // Whatever settles deliveries or commits pages waits until this is done.
    // Destinations are locked in the order of their names, as where they are registered.
    static LOCK_DESTINATIONS: Sql =
        Sql::new("SELECT 1 FROM destination ORDER BY name{bytewise}{lock_rows}");
    static LOCK_FEEDS: Sql = Sql::new(
        "SELECT 1 FROM feed WHERE id IN (SELECT feed_id FROM document WHERE sequence IN ({elements}($1)))
         ORDER BY id{lock_rows}",
    );
    static PATHS: Sql = Sql::new(
        "SELECT DISTINCT account_id FROM import_error WHERE sequence IN ({elements}($1)) ORDER BY account_id",
    );
    static FIND: Sql = Sql::new(
        "SELECT sequence, feed_id, document_id, version FROM document
         WHERE sequence IN ({elements}($1)) AND erased_at IS NULL ORDER BY sequence",
    );
    static ERASE: Sql = Sql::new(
        "UPDATE document SET document_id = 'erased-' || sequence, body = NULL, erased_at = $2
         WHERE sequence IN ({elements}($1))",
    );
    let now = tx.now_or(now);
    tx.all::<()>(&LOCK_DESTINATIONS, &[]).await?;
    tx.all::<()>(&LOCK_FEEDS, &[&sequences]).await?;
    let paths: Vec<i64> = tx.all(&PATHS, &[&sequences]).await?;
    lock_paths(tx, &paths).await?;
    let found: Vec<Found> = tx.all(&FIND, &[&sequences]).await?;
    if found.is_empty() {
        return Ok(0);
    }
    let sequences: Vec<i64> = found.iter().map(|one| one.sequence).collect();
    overwrite_freed_pages(tx, true).await?;
    bury(tx, &found, now).await?;
    held::lower(tx, None, &sequences).await?;
    tx.run(&ERASE, &[&sequences, &now]).await?;
    remove_terms(tx, &sequences).await?;
    erase_deliveries(tx, &found, now).await?;
    erase_uploads(tx, &found).await?;
    overwrite_freed_pages(tx, false).await?;
    Ok(found.len())
}

/// Makes SQLite overwrite what it removes, which it would otherwise leave in its file.
async fn overwrite_freed_pages<T: Tx>(tx: &T, overwrite: bool) -> Result<()> {
    static ON: Sql = Sql::with(
        "{on}",
        &[(
            "on",
            Fragment::Differs("PRAGMA secure_delete = ON", "SELECT 1"),
        )],
    );
    static OFF: Sql = Sql::with(
        "{off}",
        &[(
            "off",
            Fragment::Differs("PRAGMA secure_delete = OFF", "SELECT 1"),
        )],
    );
    let sql = if overwrite { &ON } else { &OFF };
    tx.all::<()>(sql, &[]).await.map(drop)
}

/// Adds the tombstones of versions.
async fn bury<T: Tx>(tx: &T, found: &[Found], now: Timestamp) -> Result<()> {
    static SQL: Sql = Sql::with(
        "INSERT INTO tombstone (feed_id, document_digest, version, erased_at)
         SELECT v.feed_id, v.digest, v.version, $4 FROM {buried} WHERE true
         ON CONFLICT (feed_id, document_digest, version) DO NOTHING",
        &[(
            "buried",
            Fragment::Differs(
                "(SELECT value AS feed_id, unhex($2 ->> key) AS digest, $3 ->> key AS version FROM json_each($1)) AS v",
                "(SELECT n.feed_id, decode(n.digest, 'hex') AS digest, n.version
                  FROM unnest($1, $2, $3) AS n (feed_id, digest, version)) AS v",
            ),
        )],
    );
    let feeds: Vec<i64> = found.iter().map(|one| one.feed).collect();
    let digests: Vec<String> = found
        .iter()
        .map(|one| hex_digest(&one.document_id))
        .collect();
    let versions: Vec<&str> = found.iter().map(|one| one.version.as_str()).collect();
    tx.run(&SQL, &[&feeds, &digests, &versions, &now]).await
}

/// Returns the SHA-256 digest of a document's id in hexadecimal digits.
fn hex_digest(document_id: &str) -> String {
    hex(digest(&SHA256, document_id.as_bytes()).as_ref())
}

/// Removes what destinations said about versions, and their import errors and links; nothing
/// is delivered any more.
async fn erase_deliveries<T: Tx>(tx: &T, found: &[Found], now: Timestamp) -> Result<()> {
    static NOTES: Sql = Sql::new(
        "SELECT destination_id, sequence, note FROM delivery WHERE sequence IN ({elements}($1)) AND note IS NOT NULL",
    );
    static DELIVERIES: Sql = Sql::new(
        "UPDATE delivery SET note = NULL, detail = NULL, next_try_at = NULL,
             changed_at = CASE WHEN state IN ('pending', 'deferred', 'waiting_file', 'held', 'rejected') THEN $2 ELSE changed_at END,
             state = CASE WHEN state IN ('pending', 'deferred', 'waiting_file', 'held', 'rejected') THEN 'skipped' ELSE state END
         WHERE sequence IN ({elements}($1))",
    );
    static ATTEMPTS: Sql = Sql::new(
        "UPDATE delivery_attempt SET detail = NULL WHERE (destination_id, sequence) IN (
             SELECT destination_id, sequence FROM delivery WHERE sequence IN ({elements}($1)))",
    );
    static CONTINUE: Sql = Sql::new(
        "UPDATE destination SET waits_until = NULL, stuck_at = NULL, last_error = NULL
         WHERE stuck_at IN ({elements}($1))",
    );
    static LANES: Sql = Sql::new(
        "UPDATE lane SET failures = 0, failing_since = NULL, last_error = NULL,
             due_at = CASE WHEN due_at IS NULL THEN NULL ELSE $2 END
         WHERE failures > 0 AND feed_id IN (SELECT feed_id FROM document WHERE sequence IN ({elements}($1)))",
    );
    static IMPORT_ERRORS: Sql = Sql::new(
        "DELETE FROM import_error WHERE id IN (
             SELECT id FROM import_error WHERE sequence IN ({elements}($1)){lock_in_order})",
    );
    static LINKS: Sql = Sql::new("DELETE FROM document_link WHERE sequence IN ({elements}($1))");
    let sequences: Vec<i64> = found.iter().map(|one| one.sequence).collect();
    let notes: Vec<(i64, i64, String)> = tx.all(&NOTES, &[&sequences]).await?;
    for (destination, sequence, note) in &notes {
        let of_note = found.iter().find(|one| one.sequence == *sequence);
        let digest = of_note.map(|one| hex_digest(&one.document_id));
        add_erased_files(tx, *destination, &digest.unwrap_or_default(), note).await?;
    }
    tx.run(&DELIVERIES, &[&sequences, &now]).await?;
    tx.run(&ATTEMPTS, &[&sequences]).await?;
    tx.run(&LANES, &[&sequences, &now]).await?;
    tx.run(&CONTINUE, &[&sequences]).await?;
    tx.run(&IMPORT_ERRORS, &[&sequences]).await?;
    tx.run(&LINKS, &[&sequences]).await
}

/// Adds the files that a destination's note names to those that are to be removed.
async fn add_erased_files<T: Tx>(
    tx: &T,
    destination: i64,
    document_digest: &str,
    note: &str,
) -> Result<()> {
    static SQL: Sql = Sql::new(
        "INSERT INTO erased_file (destination_id, path, document_digest) VALUES ($1, $2, $3)
         ON CONFLICT (destination_id, path, document_digest) DO NOTHING",
    );
    for path in note.lines() {
        tx.run(&SQL, &[&destination, &path, &document_digest])
            .await?;
    }
    Ok(())
}

/// Removes the names of files that nothing but erased documents was made of.
async fn erase_uploads<T: Tx>(tx: &T, found: &[Found]) -> Result<()> {
    static SQL: Sql = Sql::new(
        "UPDATE upload SET file_name = 'erased', last_error = NULL
         WHERE id IN (SELECT upload_id FROM upload_document WHERE document_id IN ({elements}($1)))
           AND NOT EXISTS (SELECT 1 FROM upload_document o {then_join} document d{by_identity}
               ON d.document_id = o.document_id WHERE o.upload_id = upload.id)",
    );
    let ids: Vec<&str> = found.iter().map(|one| one.document_id.as_str()).collect();
    tx.run(&SQL, &[&ids]).await
}

/// Records an attempt that outlasted the erasure of its version: only the files that it left.
pub(super) async fn record_late_attempt<T: Tx>(
    tx: &T,
    destination: i64,
    attempt: &Attempt,
) -> Result<()> {
    match &attempt.outcome {
        DeliveryOutcome::Delivered { note: Some(note) } => {
            add_erased_files(tx, destination, "", note).await
        }
        _ => Ok(()),
    }
}

/// Keeps the files that a later version has taken over from being removed.
pub(super) async fn keep_files<T: Tx>(tx: &T, destination: i64, note: &str) -> Result<()> {
    static SQL: Sql =
        Sql::new("DELETE FROM erased_file WHERE destination_id = $1 AND path IN ({elements}($2))");
    let paths: Vec<&str> = note.lines().collect();
    if paths.is_empty() {
        return Ok(());
    }
    tx.run(&SQL, &[&destination, &paths]).await
}

/// Returns for each version of a page whether a person has erased it for another company of the account,
/// and whether in its feed.
///
/// It must be asked after the versions themselves: of an erasure that is committed meanwhile,
/// one of the two answers tells.
pub(super) async fn erased_versions<T: Tx>(
    tx: &T,
    lease: &PageLease,
    documents: &[(&str, &str)],
) -> Result<Vec<(bool, bool)>> {
    static SQL: Sql = Sql::with(
        "SELECT (SELECT 1 FROM tombstone t {then_join} feed f ON f.id = t.feed_id
                 WHERE t.document_digest = {digest} AND t.version = v.version AND t.feed_id <> $3
                   AND f.account_id = $4 AND f.queue = 'exported' LIMIT 1) IS NOT NULL,
             (SELECT 1 FROM tombstone t
                 WHERE t.feed_id = $3 AND t.document_digest = {digest} AND t.version = v.version
                 LIMIT 1) IS NOT NULL
         FROM {versions} ORDER BY v.number",
        &[
            (
                "digest",
                Fragment::Differs("unhex(v.document_id)", "decode(v.document_id, 'hex')"),
            ),
            ("versions", super::documents::VERSIONS),
        ],
    );
    let digests: Vec<String> = documents.iter().map(|(id, _)| hex_digest(id)).collect();
    let versions: Vec<&str> = documents.iter().map(|(_, version)| *version).collect();
    let params = params! { digests, versions, lease.feed_id, lease.account_id };
    tx.all(&SQL, params).await
}

async fn unreadable_to_erase<T: Tx>(
    tx: &T,
    feed: i64,
    part: Option<String>,
    after: Vec<u8>,
    limit: usize,
) -> Result<(Vec<Digest>, Option<Digest>)> {
    static SQL: Sql = Sql::with(
        "SELECT digest, body FROM unreadable
         WHERE feed_id = $1 AND digest > $3 AND ($2 IS NULL OR {place} > 0) ORDER BY digest LIMIT $4",
        &[(
            "place",
            Fragment::Differs("instr(body, $2)", "position($2 IN body)"),
        )],
    );
    let bytes = part.as_deref().map(str::as_bytes);
    let (mut found, mut last) = (Vec::new(), None);
    tx.each(&SQL, &[&feed, &bytes, &after, &limit], &mut |row| {
        let digest = row.bytes(0)?.to_vec();
        let body = row.bytes(1)?;
        if part.as_deref().is_none_or(|part| stands_in(part, body)) {
            found.push(digest.clone());
        }
        last = Some(digest);
        Ok(ControlFlow::Continue(()))
    })
    .await?;
    Ok((found, last))
}

/// Returns true if `part` stands somewhere in `body` and is no piece of a longer number or name
/// there.
fn stands_in(part: &str, body: &[u8]) -> bool {
    let goes_on = |character: char| character.is_alphanumeric() || matches!(character, '-' | '.');
    let body = String::from_utf8_lossy(body);
    body.char_indices().any(|(start, _)| {
        let (before, from_here) = body.split_at(start);
        let after = from_here.strip_prefix(part);
        after.is_some_and(|after| !after.starts_with(goes_on) && !before.ends_with(goes_on))
    })
}

async fn erase_unreadable<T: Tx>(
    tx: &T,
    feed: i64,
    digests: Vec<Vec<u8>>,
    now: Timestamp,
) -> Result<()> {
    static BURY: Sql = Sql::new(
        "INSERT INTO tombstone (feed_id, document_digest, version, erased_at) VALUES ($1, $2, '', $3)
         ON CONFLICT (feed_id, document_digest, version) DO NOTHING",
    );
    static REMOVE: Sql = Sql::new("DELETE FROM unreadable WHERE feed_id = $1 AND digest = $2");
    // A page that holds one of them is not stored meanwhile.
    static LOCK: Sql = Sql::new("SELECT 1 FROM feed WHERE id = $1{lock_rows}");
    let now = tx.now_or(now);
    tx.all::<()>(&LOCK, &[&feed]).await?;
    overwrite_freed_pages(tx, true).await?;
    for digest in &digests {
        tx.run(&BURY, &[&feed, digest, &now]).await?;
        tx.run(&REMOVE, &[&feed, digest]).await?;
    }
    overwrite_freed_pages(tx, false).await
}

async fn erased_files<T: Tx>(
    tx: &T,
    destination: DestinationName,
    after: ErasedFile,
    limit: usize,
) -> Result<Vec<ErasedFile>> {
    static SQL: Sql = Sql::new(
        "SELECT path, document_digest FROM erased_file
         WHERE destination_id = (SELECT id FROM destination WHERE name = $1)
           AND (path, document_digest) > ($2, $3) ORDER BY path, document_digest LIMIT $4",
    );
    let ErasedFile {
        path,
        document_digest,
    } = after;
    tx.all(&SQL, &[&destination, &path, &document_digest, &limit])
        .await
}

async fn forget_erased_files<T: Tx>(
    tx: &T,
    destination: DestinationName,
    files: Vec<ErasedFile>,
) -> Result<()> {
    static SQL: Sql = Sql::new(
        "DELETE FROM erased_file WHERE destination_id = (SELECT id FROM destination WHERE name = $1)
           AND path = $2 AND document_digest = $3",
    );
    for file in &files {
        tx.run(&SQL, &[&destination, &file.path, &file.document_digest])
            .await?;
    }
    Ok(())
}

async fn erased_files_left<T: Tx>(tx: &T) -> Result<Vec<LeftFiles>> {
    static SQL: Sql = Sql::new(
        "SELECT s.name, (SELECT count(*) FROM erased_file e WHERE e.destination_id = s.id) AS files
         FROM destination s ORDER BY s.name{bytewise}",
    );
    let mut left: Vec<LeftFiles> = tx.all(&SQL, &[]).await?;
    left.retain(|one| one.files > 0);
    Ok(left)
}
