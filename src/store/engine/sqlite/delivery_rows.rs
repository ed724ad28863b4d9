//! Columns and parameters that leasing and listing deliveries share.

use rusqlite::Row;

use super::rows;
use crate::domain::{Account, Company};
use crate::store::{Delivery, DestinationFilter};

/// Returns the names of the filter's accounts as a JSON array.
pub(super) fn account_names(filter: &DestinationFilter) -> String {
    let names: Vec<&str> = filter.accounts.iter().map(Account::as_str).collect();
    serde_json::json!(names).to_string()
}

/// Returns the codes of the filter's companies as a JSON array.
pub(super) fn company_codes(filter: &DestinationFilter) -> String {
    let codes: Vec<&str> = filter.companies.iter().map(Company::as_str).collect();
    serde_json::json!(codes).to_string()
}

/// Reads a version from the first twelve columns of a query for leasing or listing.
pub(super) fn read_delivery(row: &Row<'_>, epoch: &str) -> rusqlite::Result<Delivery> {
    Ok(Delivery {
        sequence: row.get(0)?,
        feed: rows::feed(row, 1)?,
        document_id: row.get(4)?,
        version: row.get(5)?,
        stored_at: rows::timestamp(row, 6)?,
        body: row.get(7)?,
        link_tries: row.get(8)?,
        link: row.get::<_, Option<String>>(9)?.map(Into::into),
        link_listed_at: rows::optional_timestamp(row, 10)?,
        earlier_note: row.get(11)?,
        epoch: epoch.to_owned(),
    })
}
