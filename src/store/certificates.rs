//! Signing certificates that have verified a message.

use super::StoreError;
use super::engine::{Operation, Sql, Tx};
use crate::domain::Timestamp;

/// Maximum number of certificates kept.
const MAX_CERTIFICATES: i64 = 32;

/// A signing certificate that has verified a message.
#[derive(Clone, Debug)]
pub struct CertificateRow {
    /// Its `SigningCertURL`.
    pub url: String,
    /// PEM as served.
    pub pem: Vec<u8>,
    /// When it was fetched.
    pub fetched_at: Timestamp,
}

/// Stores a certificate, and removes the oldest of more than [`MAX_CERTIFICATES`].
pub(super) struct KeepCertificate(pub(super) CertificateRow);

impl Operation for KeepCertificate {
    type Output = ();

    async fn run<T: Tx>(self, tx: &mut T) -> Result<(), StoreError> {
        static INSERT: Sql = Sql::new(
            "INSERT INTO certificate (url, pem, fetched_at) VALUES ($1, $2, $3)
             ON CONFLICT (url) DO UPDATE SET pem = excluded.pem, fetched_at = excluded.fetched_at",
        );
        static REMOVE_OLDEST: Sql = Sql::new(
            "DELETE FROM certificate WHERE url NOT IN
                 (SELECT url FROM certificate ORDER BY fetched_at DESC, url LIMIT $1)",
        );
        let Self(certificate) = self;
        tx.execute(
            &INSERT,
            &[&certificate.url, &certificate.pem, &certificate.fetched_at],
        )
        .await?;
        tx.execute(&REMOVE_OLDEST, &[&MAX_CERTIFICATES]).await?;
        Ok(())
    }
}

/// Lists the certificates, newest first.
pub(super) struct ListCertificates;

impl Operation for ListCertificates {
    type Output = Vec<CertificateRow>;

    async fn run<T: Tx>(self, tx: &mut T) -> Result<Self::Output, StoreError> {
        static SQL: Sql =
            Sql::new("SELECT url, pem, fetched_at FROM certificate ORDER BY fetched_at DESC, url");
        tx.all(&SQL, &[], |row| {
            Ok(CertificateRow {
                url: row.get(0)?,
                pem: row.get(1)?,
                fetched_at: row.get(2)?,
            })
        })
        .await
    }
}
