//! Lists in pages: each response holds the cursor of the next page.

use std::fmt::Display;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::problem::AdminError;
pub(super) use crate::api::{Page, PageQuery};

/// Rows on one page, unless the request sets `limit`.
const DEFAULT_ROWS: usize = 100;

/// Most rows on one page.
const MAX_ROWS: usize = 500;

impl PageQuery {
    /// Returns the limit of rows.
    ///
    /// # Errors
    ///
    /// If `limit` is out of range.
    pub(super) fn limit(&self) -> Result<usize, AdminError> {
        match self.limit.unwrap_or(DEFAULT_ROWS) {
            limit @ 1..=MAX_ROWS => Ok(limit),
            _ => Err(AdminError::BadRequest(format!(
                "`limit` must be a number from 1 to {MAX_ROWS}"
            ))),
        }
    }

    /// Returns the place in `list` after which the page begins; `None` for the first page.
    ///
    /// # Errors
    ///
    /// If `after` is no cursor of this list.
    pub(super) fn place(&self, list: List) -> Result<Option<String>, AdminError> {
        self.after
            .as_deref()
            .map(|cursor| list.place(cursor))
            .transpose()
    }

    /// Returns the id of the row after which the page begins; 0 for the first page.
    ///
    /// # Errors
    ///
    /// If `after` is no cursor of this list.
    pub(super) fn row(&self, list: List) -> Result<i64, AdminError> {
        match self.place(list)? {
            Some(place) => place.parse().map_err(|_| list.cursor_error()),
            None => Ok(0),
        }
    }
}

impl<T> Page<T> {
    /// Creates a page of the first `limit` rows; another page follows if there are more.
    pub(super) fn of<P: Display>(
        list: List,
        mut rows: Vec<T>,
        limit: usize,
        place: impl Fn(&T) -> P,
    ) -> Self {
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next = rows
            .last()
            .filter(|_| more)
            .map(|row| list.cursor(place(row)));
        Self { rows, next }
    }
}

/// The list that a cursor belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct List(&'static str);

impl List {
    pub(super) const ALARMS: Self = Self("alarms");
    pub(super) const AUDIT: Self = Self("audit");
    pub(super) const CERTIFICATES: Self = Self("certificates");
    pub(super) const DOCUMENTS: Self = Self("documents");
    pub(super) const FEEDS: Self = Self("feeds");
    pub(super) const GAPS: Self = Self("gaps");
    pub(super) const DELIVERIES: Self = Self("deliveries");
    pub(crate) const NOTIFICATIONS: Self = Self("notifications");
    pub(super) const QUARANTINE: Self = Self("quarantine");
    pub(super) const IMPORT_ERRORS: Self = Self("import_errors");
    pub(super) const DESTINATIONS: Self = Self("destinations");
    pub(super) const LANES: Self = Self("lanes");
    pub(super) const SUBSCRIPTIONS: Self = Self("subscriptions");
    pub(super) const TOKENS: Self = Self("tokens");
    pub(super) const UPLOADS: Self = Self("uploads");

    /// Returns the cursor of the rows after `place`. It is opaque to clients, so that its
    /// content may change.
    pub(crate) fn cursor(self, place: impl Display) -> String {
        URL_SAFE_NO_PAD.encode(format!("{}:{place}", self.0))
    }

    /// Returns the place of a cursor.
    fn place(self, cursor: &str) -> Result<String, AdminError> {
        URL_SAFE_NO_PAD
            .decode(cursor)
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .and_then(|text| {
                let place = text.strip_prefix(self.0)?.strip_prefix(':')?;
                Some(place.to_owned())
            })
            .ok_or_else(|| self.cursor_error())
    }

    /// Returns the error of a cursor that is not of this list.
    pub(super) fn cursor_error(self) -> AdminError {
        AdminError::BadRequest(format!(
            "`after` is not a `next` of this list ({}); start without it",
            self.0
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(cursor: &str) -> PageQuery {
        PageQuery {
            after: Some(cursor.to_owned()),
            limit: None,
        }
    }

    #[test]
    fn a_cursor_is_valid_in_its_own_list_only() {
        let page = Page::of(List::UPLOADS, vec![4, 7, 9], 2, |row| *row);
        assert_eq!(page.rows, [4, 7]);
        let next = page.next.expect("a third row was there");
        assert_eq!(after(&next).row(List::UPLOADS).ok(), Some(7));
        assert!(after(&next).row(List::QUARANTINE).is_err());
        for foreign in ["", "7", "????", &List::UPLOADS.cursor("x")] {
            assert!(after(foreign).row(List::UPLOADS).is_err(), "{foreign}");
        }
        let last = Page::of(List::UPLOADS, vec![9], 2, |row| *row);
        assert_eq!(last.next, None);
    }

    #[test]
    fn the_limit_is_bounded() {
        let limit = |limit| PageQuery { after: None, limit }.limit().ok();
        assert_eq!(limit(None), Some(DEFAULT_ROWS));
        assert_eq!(limit(Some(MAX_ROWS)), Some(MAX_ROWS));
        assert_eq!(limit(Some(0)), None);
        assert_eq!(limit(Some(MAX_ROWS + 1)), None);
    }
}
