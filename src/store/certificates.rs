//! Signing certificates that have verified a message.

use super::engine::{Sql, Tx, operations, params, rows};
use super::error::Result;
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

operations! {
    /// Lists certificates that have verified a message, newest first.
    pub read_own certificates() -> Vec<CertificateRow>;

    /// Stores a certificate that has verified a message; only the newest are kept.
    pub write keep_certificate(certificate: CertificateRow) -> ();
}

rows! { CertificateRow { url, pem, fetched_at } }

async fn certificates<T: Tx>(tx: &T) -> Result<Vec<CertificateRow>> {
    static SQL: Sql =
        Sql::new("SELECT url, pem, fetched_at FROM certificate ORDER BY fetched_at DESC, url");
    tx.all(&SQL, &[]).await
}

async fn keep_certificate<T: Tx>(tx: &T, certificate: CertificateRow) -> Result<()> {
    static INSERT: Sql = Sql::new(
        "INSERT INTO certificate (url, pem, fetched_at) VALUES ($1, $2, $3)
         ON CONFLICT (url) DO UPDATE SET pem = excluded.pem, fetched_at = excluded.fetched_at",
    );
    static REMOVE_OLDEST: Sql = Sql::new(
        "DELETE FROM certificate WHERE url NOT IN
             (SELECT url FROM certificate ORDER BY fetched_at DESC, url LIMIT $1)",
    );
    let params = params! { certificate.url, certificate.pem, certificate.fetched_at };
    tx.run(&INSERT, params).await?;
    tx.run(&REMOVE_OLDEST, &[&MAX_CERTIFICATES]).await
}
