//! Lists in pages: each answer holds the cursor that leads to the next one.

use std::fmt::Display;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::problem::AdminError;

/// Rows in one answer, unless the request asks for another number.
const ROWS: usize = 100;

/// Rows in one answer at the most.
const MAX_ROWS: usize = 500;

/// Which page of a list.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct PageOf {
    /// `next` of the page before; the first page without it.
    #[param(max_length = 400)]
    pub(super) after: Option<String>,
    /// Rows in the answer at the most.
    #[param(minimum = 1, maximum = 500, default = 100)]
    pub(super) limit: Option<usize>,
}

impl PageOf {
    /// How many rows it may hold.
    pub(super) fn limit(&self) -> Result<usize, AdminError> {
        match self.limit.unwrap_or(ROWS) {
            limit @ 1..=MAX_ROWS => Ok(limit),
            _ => Err(AdminError::BadRequest(format!(
                "`limit` is a number from 1 to {MAX_ROWS}"
            ))),
        }
    }

    /// The place in `list` after which it begins.
    pub(super) fn place(&self, list: List) -> Result<Option<String>, AdminError> {
        self.after
            .as_deref()
            .map(|cursor| list.place(cursor))
            .transpose()
    }

    /// The row's number after which it begins; 0 on the first page.
    pub(super) fn row(&self, list: List) -> Result<i64, AdminError> {
        match self.place(list)? {
            Some(place) => place.parse().map_err(|_| list.foreign_cursor()),
            None => Ok(0),
        }
    }
}

/// Rows of a list.
#[derive(Serialize, ToSchema)]
pub(super) struct Page<T> {
    /// The rows.
    pub(super) rows: Vec<T>,
    /// What to send as `after` for the next page; null where this is the last one.
    pub(super) next: Option<String>,
}

impl<T> Page<T> {
    /// The first `limit` of `rows`; one more of them tells that another page follows.
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

    /// The same with each row as `shown` makes it.
    pub(super) fn map<U>(self, shown: impl FnMut(T) -> U) -> Page<U> {
        Page {
            rows: self.rows.into_iter().map(shown).collect(),
            next: self.next,
        }
    }
}

/// What a cursor belongs to: in another list it means nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct List(&'static str);

impl List {
    pub(super) const ALARMS: Self = Self("alarms");
    pub(super) const CERTIFICATES: Self = Self("certificates");
    pub(super) const DOCUMENTS: Self = Self("documents");
    pub(super) const FEEDS: Self = Self("feeds");
    pub(super) const DELIVERIES: Self = Self("deliveries");
    pub(crate) const NOTIFICATIONS: Self = Self("notifications");
    pub(super) const QUARANTINE: Self = Self("quarantine");
    pub(super) const IMPORT_ERRORS: Self = Self("reports");
    pub(super) const DESTINATIONS: Self = Self("destinations");
    pub(super) const SUBSCRIPTIONS: Self = Self("subscriptions");
    pub(super) const TOKENS: Self = Self("tokens");
    pub(super) const UPLOADS: Self = Self("uploads");

    /// The cursor for what comes after `place`. Others are to find no meaning in it, so
    /// that it may have another one day.
    pub(crate) fn cursor(self, place: impl Display) -> String {
        URL_SAFE_NO_PAD.encode(format!("{}:{place}", self.0))
    }

    /// The place that a cursor of this list stands for.
    fn place(self, cursor: &str) -> Result<String, AdminError> {
        URL_SAFE_NO_PAD
            .decode(cursor)
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .and_then(|text| {
                let place = text.strip_prefix(self.0)?.strip_prefix(':')?;
                Some(place.to_owned())
            })
            .ok_or_else(|| self.foreign_cursor())
    }

    pub(super) fn foreign_cursor(self) -> AdminError {
        AdminError::BadRequest(format!(
            "`after` is no `next` of this list ({}); begin without it",
            self.0
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(cursor: &str) -> PageOf {
        PageOf {
            after: Some(cursor.to_owned()),
            limit: None,
        }
    }

    #[test]
    fn a_cursor_leads_on_in_its_own_list_alone() {
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
        let limit = |limit| PageOf { after: None, limit }.limit().ok();
        assert_eq!(limit(None), Some(ROWS));
        assert_eq!(limit(Some(MAX_ROWS)), Some(MAX_ROWS));
        assert_eq!(limit(Some(0)), None);
        assert_eq!(limit(Some(MAX_ROWS + 1)), None);
    }
}
