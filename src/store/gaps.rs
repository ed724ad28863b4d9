//! Gaps: stretches of feeds in which versions may be missing.

use serde::Serialize;

use super::columns::{named, named_columns};
use super::engine::{Sql, Tx, operations, rows};
use super::error::Result;
use crate::domain::{Cursor, Feed, Timestamp};

named! {
    /// The reason why a feed is incomplete.
    pub enum IncompleteReason {
        /// A person set the cursor with `feeds start-at`.
        StartAt = "start_at",
    }
}

named_columns! { IncompleteReason: "reason of a gap", name => Self::parse(&name); }

/// A gap of a feed.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct GapRow {
    /// Ascending in the order in which gaps were found.
    pub id: i64,
    /// The feed.
    #[serde(flatten)]
    pub feed: Feed,
    /// The cursor after which it begins; `None` is the beginning of the queue.
    pub from: Option<Cursor>,
    /// The cursor at which it ends; `None` if that is not known.
    pub to: Option<Cursor>,
    /// The reason.
    pub reason: IncompleteReason,
    /// When it was found.
    pub found_at: Timestamp,
    /// When it was closed; `None` while it is open.
    pub closed_at: Option<Timestamp>,
    /// The person who dismissed it; `None` if a pull closed it.
    pub dismissed_by: Option<String>,
}

/// Selects gaps to list.
#[derive(Clone, Debug)]
pub struct GapFilter {
    /// Closed gaps too.
    pub closed: bool,
    /// Only rows after this one.
    pub after: i64,
    /// Maximum number of rows.
    pub limit: usize,
}

operations! {
    /// Lists gaps in the order in which they were found.
    pub read gaps(filter: GapFilter) -> Vec<GapRow>;
}

rows! {
    GapRow { id, feed, from, to, reason, found_at, closed_at, dismissed_by }
}

async fn gaps<T: Tx>(tx: &mut T, filter: GapFilter) -> Result<Vec<GapRow>> {
    static SQL: Sql = Sql::new(
        "SELECT g.id, a.name, f.queue, f.company, g.from_cursor, g.to_cursor, g.reason, g.found_at, g.closed_at,
                g.dismissed_by
         FROM gap g {then_join} feed f ON f.id = g.feed_id {then_join} account a ON a.id = f.account_id
         WHERE g.id > $1 AND ($2 OR g.closed_at IS NULL) ORDER BY g.id LIMIT $3",
    );
    tx.all(&SQL, &[&filter.after, &filter.closed, &filter.limit])
        .await
}

/// Records a gap from one cursor to another.
pub(super) async fn record_gap<T: Tx>(
    tx: &mut T,
    feed: i64,
    from: Option<&Cursor>,
    to: Option<&Cursor>,
    reason: IncompleteReason,
    now: Timestamp,
) -> Result<()> {
    static SQL: Sql = Sql::new(
        "INSERT INTO gap (feed_id, from_cursor, to_cursor, reason, found_at) VALUES ($1, $2, $3, $4, $5)",
    );
    tx.run(&SQL, &[&feed, &from, &to, &reason, &now]).await
}
