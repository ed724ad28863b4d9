//! The rows of accounts.

use super::StoreError;
use super::engine::{Sql, Tx};
use crate::domain::Account;

/// Returns the account's id; adds the account if it is new.
pub(super) async fn account_id<T: Tx>(tx: &mut T, account: &Account) -> Result<i64, StoreError> {
    static FIND: Sql = Sql::new("SELECT id FROM account WHERE name = $1");
    static INSERT: Sql =
        Sql::new("INSERT INTO account (name) VALUES ($1) ON CONFLICT (name) DO NOTHING");
    let name = account.as_str();
    if let Some(id) = tx.first(&FIND, &[&name], |row| row.get(0)).await? {
        return Ok(id);
    }
    tx.execute(&INSERT, &[&name]).await?;
    // This transaction's row, or one that another replica has committed meanwhile.
    tx.one(&FIND, &[&name], |row| row.get(0)).await
}
