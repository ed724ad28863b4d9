//! Migrations, one replica at a time; what is newer than this program is refused.

use super::connection::{Pool, Transaction};
use crate::store::StoreError;
use crate::store::words::new_epoch;

/// The migrations in order; the schema's version is how many were run. Append only, and
/// each leaves what the release before works with (`works_from` in the schema's row).
const MIGRATIONS: [Migration; 5] = [
    Migration {
        sql: include_str!("migrations/0001_first.sql"),
        works_from: 1,
    },
    Migration {
        sql: include_str!("migrations/0002_upload.sql"),
        works_from: 1,
    },
    Migration {
        sql: include_str!("migrations/0003_delivery.sql"),
        works_from: 1,
    },
    Migration {
        sql: include_str!("migrations/0004_api_token.sql"),
        works_from: 1,
    },
    Migration {
        sql: include_str!("migrations/0005_alarm.sql"),
        works_from: 1,
    },
];

struct Migration {
    sql: &'static str,
    /// The oldest schema whose programs work with the database after this.
    works_from: i64,
}

/// The newest schema that this program knows.
#[expect(
    clippy::cast_possible_wrap,
    reason = "`try_from` is no const, and there are few migrations"
)]
const NEWEST: i64 = MIGRATIONS.len() as i64;

/// The lock that migrations hold until COMMIT; any number of ours: "IvWh".
const LOCK: i64 = 0x4976_5768;

/// Brings the database to this program's schema, or leaves a newer one that still works
/// with it. Gives the numbering an epoch, a new one in a restored database.
pub(super) async fn migrate(pool: &Pool) -> Result<(), StoreError> {
    let transaction = pool.write().await?;
    // Another replica may be at it; its migration may take long.
    transaction
        .script("SET LOCAL lock_timeout = 0; SET LOCAL statement_timeout = 0")
        .await?;
    transaction
        .query("SELECT pg_advisory_xact_lock($1)", &[&LOCK])
        .await?;
    let found = match version(&transaction).await? {
        None => 0,
        Some(found) => found.usable()?,
    };
    for migration in MIGRATIONS.iter().skip(usize::try_from(found).unwrap_or(0)) {
        transaction.script(migration.sql).await?;
        transaction
            .execute(
                "UPDATE ivesk_webhook_schema SET version = version + 1, works_from = $1",
                &[&migration.works_from],
            )
            .await?;
    }
    transaction
        .execute(
            "INSERT INTO sequence (id, epoch, last) VALUES (1, $1, 0)
             ON CONFLICT (id) DO UPDATE SET epoch = excluded.epoch, backup = false WHERE sequence.backup",
            &[&new_epoch()],
        )
        .await?;
    transaction.commit().await
}

/// Refuses what this program can't read.
pub(super) async fn check(pool: &Pool) -> Result<(), StoreError> {
    let transaction = pool.read().await?;
    let found = version(&transaction).await?;
    transaction.commit().await?;
    match found {
        Some(found) if found.usable()? >= NEWEST => Ok(()),
        _ => Err(StoreError::NotPrepared),
    }
}

struct Found {
    version: i64,
    works_from: i64,
}

impl Found {
    /// The version, unless it needs a newer program.
    fn usable(&self) -> Result<i64, StoreError> {
        if self.works_from > NEWEST {
            return Err(StoreError::NewerSchema {
                found: u32::try_from(self.version).unwrap_or(u32::MAX),
                known: u32::try_from(NEWEST).unwrap_or(u32::MAX),
            });
        }
        Ok(self.version)
    }
}

async fn version(transaction: &Transaction<'_>) -> Result<Option<Found>, StoreError> {
    let exists: bool = transaction
        .query_one(
            "SELECT to_regclass('ivesk_webhook_schema') IS NOT NULL",
            &[],
        )
        .await?
        .try_get(0)?;
    if !exists {
        return Ok(None);
    }
    let row = transaction
        .query_opt("SELECT version, works_from FROM ivesk_webhook_schema", &[])
        .await?;
    row.map(|row| {
        Ok(Found {
            version: row.try_get(0)?,
            works_from: row.try_get(1)?,
        })
    })
    .transpose()
}
