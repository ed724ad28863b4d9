//! Columns and parameters that leasing and listing deliveries share.

use tokio_postgres::Row;

use super::rows;
use crate::domain::{Account, Company};
use crate::store::{Delivery, DestinationFilter, StoreError};

/// The columns that [`item`] reads.
pub(super) const ITEM: &str = "
    d.sequence, a.name, f.queue, f.company, d.document_id, d.version, d.stored_at, d.body, h.link_tries, l.url, l.listed_at";

/// The names of accounts.
pub(super) fn account_names(filter: &DestinationFilter) -> Vec<&str> {
    filter.accounts.iter().map(Account::as_str).collect()
}

/// The codes of companies.
pub(super) fn company_codes(filter: &DestinationFilter) -> Vec<&str> {
    filter.companies.iter().map(Company::as_str).collect()
}

/// Reads a version from the columns of [`ITEM`].
pub(super) fn item(row: &Row, epoch: &str) -> Result<Delivery, StoreError> {
    Ok(Delivery {
        sequence: row.try_get(0)?,
        feed: rows::feed(row, 1)?,
        document_id: rows::text(row, 4)?,
        version: rows::text(row, 5)?,
        stored_at: rows::moment(row, 6)?,
        body: row.try_get(7)?,
        link_tries: u32::try_from(row.try_get::<_, Option<i64>>(8)?.unwrap_or(0)).unwrap_or(0),
        link: rows::maybe_text(row, 9)?.map(Into::into),
        link_listed_at: rows::maybe_moment(row, 10)?,
        earlier_note: None,
        epoch: epoch.to_owned(),
    })
}
