//! Places of the lists that programs read, and their proof: a place of another history of the
//! database, as after an older backup or snapshot was put back, is found out.

use super::StoreError;
use super::engine::{Sql, Tx, operations};
use super::error::Result;
use crate::domain::DestinationName;

/// The check of the place before the first one.
const BEGINNING: &str = "0";

operations! {
    /// Returns the check of a place in a destination's list, 0 being the place before the first;
    /// `None` if the list has not reached it.
    pub read list_check(destination: DestinationName, place: i64) -> Option<String>;
}

async fn list_check<T: Tx>(
    tx: &T,
    destination: DestinationName,
    place: i64,
) -> Result<Option<String>> {
    static SQL: Sql = Sql::new(
        "SELECT p.check_text FROM destination s JOIN list_place p ON p.destination_id = s.id
         WHERE s.name = $1 AND p.first_number <= $2 AND $2 <= s.last_number
         ORDER BY p.first_number DESC LIMIT 1",
    );
    if place == 0 {
        return Ok(Some(BEGINNING.to_owned()));
    }
    tx.first(&SQL, &[&destination, &place]).await
}

/// Stores the check of the places after `before`, which are being added.
pub(super) async fn add_places<T: Tx>(tx: &T, destination: i64, before: i64) -> Result<()> {
    static SQL: Sql = Sql::new(
        "INSERT INTO list_place (destination_id, first_number, check_text) VALUES ($1, $2, $3)",
    );
    let random = getrandom::u64()
        .map_err(|error| StoreError::Database(format!("no random numbers: {error}")))?;
    let check = format!("{random:016x}");
    tx.run(&SQL, &[&destination, &(before + 1), &check]).await
}
