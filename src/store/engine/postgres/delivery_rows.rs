//! Columns and parameters that leasing and listing deliveries share.

use tokio_postgres::Row;

use super::rows;
use crate::domain::{Account, Company};
use crate::store::{Delivery, DestinationFilter, StoreError};

/// The columns that [`read_delivery`] reads.
pub(super) const DELIVERY_COLUMNS: &str = "
    d.sequence, a.name, f.queue, f.company, d.document_id, d.version, d.stored_at, d.body, h.link_tries, l.url, l.listed_at";

/// Returns the names of the filter's accounts.
pub(super) fn account_names(filter: &DestinationFilter) -> Vec<&str> {
    filter.accounts.iter().map(Account::as_str).collect()
}

/// Returns the codes of the filter's companies.
pub(super) fn company_codes(filter: &DestinationFilter) -> Vec<&str> {
    filter.companies.iter().map(Company::as_str).collect()
}

/// Reads a version from the columns of [`DELIVERY_COLUMNS`].
pub(super) fn read_delivery(row: &Row, epoch: &str) -> Result<Delivery, StoreError> {
    Ok(Delivery {
        sequence: row.try_get(0)?,
        feed: rows::feed(row, 1)?,
        document_id: rows::text(row, 4)?,
        version: rows::text(row, 5)?,
        stored_at: rows::timestamp(row, 6)?,
        body: row.try_get(7)?,
        link_tries: u32::try_from(row.try_get::<_, Option<i64>>(8)?.unwrap_or(0)).unwrap_or(0),
        link: rows::optional_text(row, 9)?.map(Into::into),
        link_listed_at: rows::optional_timestamp(row, 10)?,
        earlier_note: None,
        epoch: epoch.to_owned(),
    })
}
