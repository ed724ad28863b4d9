//! Encryption of connections.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls_platform_verifier::BuilderVerifierExt;
use tokio_postgres_rustls::MakeRustlsConnect;

/// Returns a TLS connector that verifies the server's certificate and name.
pub(super) fn tls(authorities: Option<&Path>) -> Result<MakeRustlsConnect, String> {
    let failed = |error| format!("failed to set up TLS: {error}");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(failed)?;
    let builder = match authorities {
        None => builder.with_platform_verifier().map_err(failed)?,
        Some(file) => builder.with_root_certificates(roots(file).map_err(|reason| {
            format!(
                "cannot use `sslrootcert` {}: {reason}; name a PEM file of certificates",
                file.display()
            )
        })?),
    };
    Ok(MakeRustlsConnect::new(builder.with_no_client_auth()))
}

/// Reads certificates of authorities.
fn roots(file: &Path) -> Result<rustls::RootCertStore, Box<dyn std::error::Error>> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file)? {
        roots.add(certificate?)?;
    }
    match roots.is_empty() {
        true => Err("it holds no certificate".into()),
        false => Ok(roots),
    }
}
