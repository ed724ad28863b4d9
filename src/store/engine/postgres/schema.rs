//! Migrations, by one replica at a time; a newer schema is refused.

use super::connection::{Pool, Transaction, Use};
use crate::store::StoreError;
use crate::store::columns::random_hex;
use crate::store::error::Result;
use crate::store::migrations::{MIGRATIONS, NEWEST};

/// Created before the migrations. One row: `version` is the number of migrations applied.
/// `works_from` is the oldest schema version that a program must support to work with this
/// one, so that two releases can share the database during a rolling upgrade.
const CREATE: &str = "CREATE TABLE ivesk_webhook_schema (
        id BIGINT PRIMARY KEY CHECK (id = 1),
        version BIGINT NOT NULL,
        works_from BIGINT NOT NULL
    );
    INSERT INTO ivesk_webhook_schema (id, version, works_from) VALUES (1, 0, 0)";

/// The advisory lock that migrations hold until COMMIT; an arbitrary number, "IvWh".
const LOCK: i64 = 0x4976_5768;

/// Migrates the database to this program's schema, or accepts a newer one that still works
/// with it. Sets the epoch of the numbering, a new one in a restored database.
pub(super) async fn migrate(pool: &Pool) -> Result<()> {
    let mut transaction = pool.write().await?;
    // A migration may take long, and so may that of another replica.
    transaction.without_limits().await?;
    transaction
        .query("SELECT pg_advisory_xact_lock($1)", &[&LOCK])
        .await?;
    let found = match version(&transaction).await? {
        None => {
            transaction.script(CREATE).await?;
            0
        }
        Some(found) => found,
    };
    for migration in MIGRATIONS.iter().skip(usize::try_from(found).unwrap_or(0)) {
        transaction.script(migration.sql.postgres()).await?;
        transaction
            .execute(
                "UPDATE ivesk_webhook_schema SET version = version + 1, works_from = $1",
                &[&i64::from(migration.works_from)],
            )
            .await?;
    }
    transaction
        .execute(
            "INSERT INTO sequence (id, epoch, last) VALUES (1, $1, 0)
             ON CONFLICT (id) DO UPDATE SET epoch = excluded.epoch, backup = false WHERE sequence.backup",
            &[&random_hex()],
        )
        .await?;
    transaction.commit().await
}

/// Fails if this program can't read the schema.
pub(super) async fn check(pool: &Pool) -> Result<()> {
    let transaction = pool.read(Use::Work).await?;
    let found = version(&transaction).await?;
    transaction.commit().await?;
    match found {
        Some(found) if found >= NEWEST.into() => Ok(()),
        _ => Err(StoreError::NotPrepared),
    }
}

/// Returns the schema's version, if there is one; fails if it requires a newer program.
async fn version(transaction: &Transaction<'_>) -> Result<Option<i64>> {
    let exists = "SELECT to_regclass('ivesk_webhook_schema') IS NOT NULL";
    if !transaction.query_one(exists, &[]).await?.try_get(0)? {
        return Ok(None);
    }
    let row = transaction
        .query_one("SELECT version, works_from FROM ivesk_webhook_schema", &[])
        .await?;
    let (version, works_from): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
    if works_from > NEWEST.into() {
        return Err(StoreError::NewerSchema {
            found: u32::try_from(version).unwrap_or(u32::MAX),
            known: NEWEST,
        });
    }
    Ok(Some(version))
}
