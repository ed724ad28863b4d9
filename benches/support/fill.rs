//! Fills a store with what years of use leave behind, by a few statements.

use std::path::Path;

use anyhow::Context as _;
use ivesk_webhook::config::StoreUrl;
use ivesk_webhook::domain::{Clock, DestinationName, Queue, Timestamp};
use ivesk_webhook::store::{DestinationFilter, Store, StoreOptions};

/// The destinations: the first has everything, the second is paused with versions in every state, and
/// the third holds everything as history. Their ids follow the order of their names.
pub(crate) const DESTINATIONS: [&str; 3] = ["archive", "books", "held"];

/// The number of rows of each kind.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    pub(crate) documents: i64,
    pub(crate) notifications: i64,
    pub(crate) feeds: i64,
}

impl Scale {
    /// Returns a part of a million documents, a million notifications and 100,000 feeds.
    pub(crate) fn divided(by: i64) -> Self {
        Self {
            documents: 1_000_000 / by,
            notifications: 1_000_000 / by,
            feeds: 100_000 / by,
        }
    }

    /// Returns the vendor's id of the document with this sequence number.
    pub(crate) fn document_id(sequence: i64) -> String {
        format!(
            "{:08x}-{sequence}",
            sequence * 2_654_435_761 % 4_294_967_296
        )
    }

    /// Returns the company of the feed with this id.
    pub(crate) fn company(feed: i64) -> String {
        (300_000_000 + feed).to_string()
    }
}

/// Creates a store at `url`, which must be empty, and fills it.
pub(crate) async fn fill(url: &StoreUrl, scale: Scale, now: Timestamp) -> anyhow::Result<()> {
    let store = Store::open(StoreOptions {
        url: url.clone(),
        queue: 1,
        quarantine_bytes: 1,
        ask: false,
        clock: Clock::manual(now),
        hooks: None,
    });
    let store = store.await?;
    let name = |name: &str| DestinationName::parse(name).map_err(anyhow::Error::msg);
    let filter = DestinationFilter::all_of(Queue::Exported);
    let named = DESTINATIONS.map(|one| Ok::<_, anyhow::Error>((name(one)?, filter.clone())));
    let named = named.into_iter().collect::<Result<_, _>>()?;
    store.register_destinations(named, now).await?;
    store.close().await?;
    drop(store);
    match url {
        StoreUrl::Sqlite(path) => fill_file(path, &statements(scale, now, Dialect::Sqlite)),
        StoreUrl::Postgres(address) => {
            let settings = address.settings();
            let (client, connection) = settings.connect(tokio_postgres::NoTls).await?;
            let driver = tokio::spawn(connection);
            for sql in statements(scale, now, Dialect::Postgres) {
                let done = client.batch_execute(&sql).await;
                done.with_context(|| sql.clone())?;
            }
            client.batch_execute("VACUUM ANALYZE").await?;
            // What it does meanwhile is no part of what is measured.
            client
                .batch_execute(
                    "DO $$ DECLARE one regclass; BEGIN
                         FOR one IN SELECT oid FROM pg_class WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace LOOP
                             EXECUTE format('ALTER TABLE %s SET (autovacuum_enabled = off, toast.autovacuum_enabled = off)', one);
                         END LOOP;
                     END $$",
                )
                .await?;
            drop(client);
            Ok(driver.await??)
        }
    }
}

#[expect(
    clippy::disallowed_types,
    reason = "it fills the file as no operation of the store does"
)]
fn fill_file(path: &Path, statements: &[String]) -> anyhow::Result<()> {
    let connection = rusqlite::Connection::open(path)?;
    // The file is thrown away if this fails.
    for (name, value) in [("journal_mode", "OFF"), ("synchronous", "OFF")] {
        connection.pragma_update(None, name, value)?;
    }
    connection.pragma_update(None, "foreign_keys", false)?;
    connection.pragma_update(None, "cache_size", -1_000_000)?;
    for sql in statements {
        let done = connection.execute_batch(sql);
        done.with_context(|| sql.clone())?;
    }
    Ok(())
}

/// What the databases say differently.
#[derive(Clone, Copy)]
enum Dialect {
    Sqlite,
    Postgres,
}

impl Dialect {
    /// Returns a table `t` of the numbers `n` from 1 to `count`.
    fn numbers(self, count: i64) -> String {
        match self {
            Self::Sqlite => format!(
                "(WITH RECURSIVE r (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < {count}) SELECT n FROM r) AS t"
            ),
            Self::Postgres => format!("generate_series(1::bigint, {count}::bigint) AS t (n)"),
        }
    }

    /// Returns the canonical text of a moment in milliseconds.
    fn moment(self, millis: &str) -> String {
        match self {
            Self::Sqlite => {
                format!("strftime('%Y-%m-%dT%H:%M:%S', ({millis}) / 1000, 'unixepoch')")
            }
            Self::Postgres => format!(
                "to_char(to_timestamp(({millis}) / 1000) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS')"
            ),
        }
    }

    fn bytes(self, text: &str) -> String {
        match self {
            Self::Sqlite => format!("CAST({text} AS BLOB)"),
            Self::Postgres => format!("convert_to({text}, 'UTF8')"),
        }
    }

    /// Returns 16 bytes made of the number `n`.
    fn identity(self) -> &'static str {
        match self {
            Self::Sqlite => "randomblob(16)",
            Self::Postgres => "decode(md5(n::text), 'hex')",
        }
    }

    /// Returns eight hexadecimal digits made of a number, without an order.
    fn digits(self, number: &str) -> String {
        let mixed = format!("({number}) * 2654435761 % 4294967296");
        match self {
            Self::Sqlite => format!("printf('%08x', {mixed})"),
            Self::Postgres => format!("lpad(to_hex({mixed}), 8, '0')"),
        }
    }

    fn repeat(self, text: &str, times: usize) -> String {
        format!("'{}'", text.repeat(times))
    }
}

fn statements(scale: Scale, now: Timestamp, dialect: Dialect) -> Vec<String> {
    let Scale {
        documents,
        notifications,
        feeds,
    } = scale;
    let now = now.as_millis();
    let numbers = |count: i64| dialect.numbers(count.max(1));
    let hour = 3_600_000_i64;
    let year = 365 * 24 * hour;
    let of_documents = numbers(documents);
    let of_feeds = numbers(feeds);
    // The newest row is a minute old, and a day has a tenth of all.
    let at = |count: i64| {
        format!(
            "{now} - 60000 - ({count} - n) * {}",
            10 * 24 * hour / count.max(1)
        )
    };
    let (stored_at, received_at) = (at(documents), at(notifications));
    let version = dialect.moment(&stored_at);
    let id = format!("{} || '-' || CAST(n AS TEXT)", dialect.digits("n"));
    let feed_of = format!("1 + n * 7919 % {feeds}");
    let filler = dialect.repeat("lorem ipsum ", 24);
    let body = dialect.bytes(&format!(
        "'{{\"id\":\"' || {id} || '\",\"docnum\":\"SF-' || CAST(n AS TEXT) || '\",\"exportedat\":\"' || {version} || 'Z\",\
         \"date\":\"' || substr({version}, 1, 10) || '\",\"sellername\":\"UAB Šaltinis ' || CAST(n % 5000 AS TEXT) || '\",\
         \"sellercode\":\"' || CAST(302000000 + n % 5000 AS TEXT) || '\",\"buyername\":\"UAB Pirkėjas ' || CAST(n % {feeds} AS TEXT) || '\",\
         \"buyercode\":\"' || CAST(300000000 + {feed_of} AS TEXT) || '\",\"total\":\"' || CAST(n % 100000 AS TEXT) || '.10\",\
         \"currency\":\"EUR\",\"note\":\"' || {filler} || '\"}}'"
    ));
    let message = dialect.bytes(&format!(
        "'{{\"Type\":\"Notification\",\"Message\":\"' || CAST(n AS TEXT) || {filler} || '\"}}'"
    ));
    let identity = dialect.identity();
    // One of each hundred versions at the second destination failed in some way.
    let states = "CASE n % 400 WHEN 0 THEN 'deferred' WHEN 100 THEN 'waiting_file' WHEN 200 THEN 'rejected' WHEN 300 THEN 'skipped'
        ELSE 'delivered' END";
    let half = documents / 2;
    let mut all = vec![
        "INSERT INTO account (name, clock_offset) VALUES ('default', 0)".to_owned(),
        format!(
            "INSERT INTO feed (account_id, queue, company, known_at, cursor, fence, last_page_at, pulled_at, up_to_date_at,
                 first_complete_at, documents, missed_notifications)
             SELECT 1, 'exported', CAST(300000000 + n AS TEXT), {now} - {year}, '2026-11-28T08:00:00Z', 9, {now} - 600000,
                 {now} - 600000, {now} - 600000, {now} - {year}, {documents} / {feeds}, 0 FROM {of_feeds}"
        ),
        // One of each thousand feeds is in some trouble.
        "UPDATE feed SET paused = 'not_found', failures = 3, last_error = 'not found' WHERE id % 2000 = 500".to_owned(),
        "UPDATE feed SET failures = 2, last_error = 'unavailable' WHERE id % 2000 = 1500".to_owned(),
        format!("UPDATE feed SET removed_at = {now} - {year} WHERE id % 5000 = 700"),
    ];
    for kind in [0, 3] {
        let next = if kind == 0 {
            "NULL".to_owned()
        } else {
            format!("{now} + {hour} + n")
        };
        let due = if kind == 0 {
            format!("{now} - {hour}")
        } else {
            format!("{now} + {hour} + n")
        };
        let completed = if kind == 0 { 7 } else { 6 };
        all.push(format!(
            "INSERT INTO feed_trigger (feed_id, kind, raised, due_at, account_id, queue, next_at)
             SELECT n, {kind}, 7, {due}, 1, 'exported', {next} FROM {of_feeds}"
        ));
        all.push(format!(
            "INSERT INTO feed_pull (feed_id, kind, completed, started_at)
             SELECT n, {kind}, {completed}, {now} - {hour} FROM {of_feeds}"
        ));
    }
    all.extend([
        format!(
            "INSERT INTO feed_cursor (feed_id, saved_at, cursor) SELECT n, {now} - {hour}, '2026-11-28T08:00:00Z' FROM {of_feeds}"
        ),
        format!(
            "INSERT INTO notification (account_id, event, published_at, message_id, kind, received_at, body)
             SELECT 1, 1, {received_at}, {identity}, 'Notification', {received_at}, {message} FROM {} ORDER BY n",
            numbers(notifications)
        ),
        format!(
            "INSERT INTO document (sequence, feed_id, document_id, version, version_ms, superseded, first_pull, found_by,
                 stored_at, body)
             SELECT n, {feed_of}, {id}, {version}, ({stored_at}) / 1000 * 1000, n % 50 = 0, n % 3 = 0, n % 4, {stored_at}, {body}
             FROM {of_documents} ORDER BY n"
        ),
        format!("UPDATE sequence SET last = {documents}"),
    ]);
    // As src/ivesk/terms.rs makes them of the bodies.
    let text = |number: &str| format!("CAST({number} AS TEXT)");
    let terms = [
        format!("'#sf' || {}", text("n")),
        "'sf'".to_owned(),
        text("n"),
        "'saltinis'".to_owned(),
        text("n % 5000"),
        "'pirkejas'".to_owned(),
        text(&format!("n % {feeds}")),
        text("302000000 + n % 5000"),
        text(&format!("300000000 + {feed_of}")),
        format!("'=' || {} || '.1'", text("n % 100000")),
        format!("'@' || substr({version}, 1, 10)"),
    ];
    let terms =
        terms.map(|term| format!("SELECT {term} AS term, n AS sequence FROM {of_documents}"));
    all.push(format!(
        "INSERT INTO search_term (term, sequence) SELECT term, sequence FROM ({}) AS terms WHERE true
         ORDER BY term, sequence ON CONFLICT (term, sequence) DO NOTHING",
        terms.join(" UNION ALL ")
    ));
    let lanes = |destination: i64, position: i64, held: i64, due: &str| {
        format!(
            "INSERT INTO lane (destination_id, feed_id, begins_at, position, held, due_at)
             SELECT {destination}, n, '2020-01-01T00:00:00', {position}, {held}, {due} FROM {of_feeds}"
        )
    };
    let held = documents / feeds.max(1);
    all.extend([
        lanes(1, documents, 0, "NULL"),
        lanes(2, half, 0, &format!("{now} - 1000")),
        lanes(3, documents, held, "NULL"),
        "UPDATE lane SET begins_at = '2030-01-01T00:00:00' WHERE destination_id = 3".to_owned(),
        "UPDATE lane SET failures = 2, last_error = 'unavailable' WHERE destination_id = 2 AND feed_id % 1000 = 1".to_owned(),
        format!("UPDATE destination SET lanes_to = {feeds}, accounts_known = 1, delivered = {half}"),
        "UPDATE destination SET paused = 'by_hand' WHERE id = 2".to_owned(),
        "UPDATE destination SET delivered = 0 WHERE id = 3".to_owned(),
        format!(
            "INSERT INTO delivery (destination_id, sequence, state, began_at, changed_at, note)
             SELECT 1, n, 'delivered', {stored_at}, {stored_at}, 'booked' FROM {of_documents}"
        ),
        format!(
            "INSERT INTO delivery (destination_id, sequence, state, began_at, changed_at, next_try_at)
             SELECT 2, n, {states}, {stored_at}, {stored_at}, CASE WHEN n % 400 IN (0, 100) THEN {now} + {hour} + n END FROM {}",
            numbers(half)
        ),
        format!(
            "INSERT INTO delivery_attempt (destination_id, sequence, number, began_at, ended_at, result, times)
             SELECT 1, n, 1, {stored_at}, {stored_at}, 'delivered', 1 FROM {of_documents}"
        ),
        format!(
            "INSERT INTO gap (feed_id, reason, seen_fence, tried_page, found_at, closed_at)
             SELECT 1 + n * 13 % {feeds}, 'group_cut', 1, 0, {now} - n, CASE WHEN n % 20 > 0 THEN {now} END FROM {}",
            numbers(feeds / 50)
        ),
        format!(
            "INSERT INTO upload (account_id, correlation, sha256, size_bytes, file_name, state, created_at, changed_at, sent_at, returned)
             SELECT 1, 'up-' || CAST(n AS TEXT), 'sha-' || CAST(n AS TEXT), 1000, 'a.pdf', 'sent', {now} - {year}, {now} - {year},
                 {now} - {year}, 1 = 1 FROM {}",
            numbers(documents / 50)
        ),
        format!(
            "INSERT INTO upload_document (upload_id, document_id)
             SELECT n, {} || '-' || CAST(n * 50 AS TEXT) FROM {}",
            dialect.digits("n * 50"),
            numbers(documents / 50)
        ),
        format!(
            "INSERT INTO quarantine (received_at, account, event, reason, allowed_topic, headers, body)
             SELECT {now} - n * 1000, 'default', 'on_exported', 'signature_mismatch', n % 2 = 0, '', {message} FROM {}",
            numbers(documents.min(200_000) / 100)
        ),
        format!(
            "INSERT INTO alarm (kind, subject, text, raised_at, seen_at, ended_at, notified)
             SELECT 'behind', 'default/exported/' || CAST(n AS TEXT), 'late', {now} - n * 1000, {now}, {now} - n * 1000, 2 FROM {}",
            numbers(feeds / 10)
        ),
        format!(
            "INSERT INTO audit (at, actor, action, subject) SELECT {now} - n * 1000, 'user:0', 'pull', 'all' FROM {}",
            numbers(feeds / 10)
        ),
        format!(
            "INSERT INTO import_error (account_id, sequence, digest, message, state, created_at, sent_at)
             SELECT 1, n * 400 + 200, {identity}, 'no', 'sent', {now}, {now} FROM {}",
            numbers(half / 400 - 1)
        ),
    ]);
    all.push(format!(
        "INSERT INTO document_link (sequence, url, listed_at) SELECT n * 50, 'https://files.example/' || CAST(n AS TEXT), {now} FROM {}",
        numbers(documents / 50)
    ));
    let hourly = |what: &str, table: &str, at: &str| {
        format!(
            "INSERT INTO tally (what, hour, part, count) SELECT '{what}', {at} / {hour} * {hour}, 0, count(*) FROM {table} GROUP BY 2"
        )
    };
    all.extend([
        hourly("accepted", "notification", "received_at"),
        hourly("documents", "document", "stored_at"),
        format!("INSERT INTO tally (what, hour, part, count) VALUES ('feeds', 0, 0, {feeds})"),
    ]);
    all
}
