//! A PostgreSQL database's URL, which never prints its password.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use tokio_postgres::config::{ChannelBinding, Host, SslMode};
use url::Url;

/// Time to establish a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Time for sent bytes to be acknowledged, before the connection counts as lost.
const USER_TIMEOUT: Duration = Duration::from_secs(15);

/// The parameters that the URL's query may contain.
const PARAMETERS: [&str; 7] = [
    "application_name",
    "dbname",
    "host",
    "port",
    "sslmode",
    "sslrootcert",
    "user",
];

/// Encryption of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Encryption {
    /// No encryption: a Unix socket, this machine, or `sslmode=disable`.
    None,
    /// TLS with the server's certificate and name verified.
    Verified {
        /// A PEM file of certificate authorities, in place of the system's.
        authorities: Option<PathBuf>,
    },
}

/// A PostgreSQL database: `postgres://USER@HOST:PORT/DATABASE?…`.
///
/// `Debug` and `Display` print it without its password.
#[derive(Clone)]
pub struct PostgresAddress {
    settings: Box<tokio_postgres::Config>,
    encryption: Encryption,
    shown: String,
}

impl PostgresAddress {
    /// Parses a URL.
    ///
    /// `sslmode` is `disable`, or `require`, `verify-ca` or `verify-full`, which all verify
    /// certificate and name: encryption with an unknown server protects nothing. Without it,
    /// connections that leave this machine are verified. `sslrootcert` is a PEM file of
    /// certificate authorities in place of the system's.
    ///
    /// # Errors
    ///
    /// Returns the problem, in words that follow the setting's name, without the password.
    pub fn parse(text: &str) -> Result<Self, String> {
        // The error does not repeat the text.
        let mut url = Url::parse(text).map_err(|error| format!("is not a URL: {error}"))?;
        let mut sslmode = None;
        let mut authorities = None;
        let mut kept = Vec::new();
        for (name, value) in url.query_pairs() {
            match name.as_ref() {
                "sslmode" => sslmode = Some(value.into_owned()),
                "sslrootcert" => authorities = Some(PathBuf::from(value.as_ref())),
                known if PARAMETERS.contains(&known) => {
                    kept.push((name.into_owned(), value.into_owned()));
                }
                unknown => {
                    return Err(format!(
                        "contains the unknown parameter `{unknown}`; the known ones are {}",
                        PARAMETERS.join(", ")
                    ));
                }
            }
        }
        url.set_query(None);
        if !kept.is_empty() {
            url.query_pairs_mut().extend_pairs(&kept);
        }
        let mut settings: tokio_postgres::Config = url
            .as_str()
            .parse()
            .map_err(|error: tokio_postgres::Error| format!("is not a PostgreSQL URL: {error}"))?;
        if settings.get_hosts().is_empty() {
            return Err("has no host; write postgres://USER@HOST/DATABASE".to_owned());
        }
        if settings.get_dbname().is_none() {
            return Err("has no database; write postgres://USER@HOST/DATABASE".to_owned());
        }
        let encryption = match sslmode.as_deref() {
            Some("disable") => Encryption::None,
            Some("require" | "verify-ca" | "verify-full") => Encryption::Verified { authorities },
            None if authorities.is_none() && settings.get_hosts().iter().all(is_local) => {
                Encryption::None
            }
            None => Encryption::Verified { authorities },
            Some(_) => {
                return Err(
                    "contains an unknown `sslmode`; write disable or verify-full".to_owned(),
                );
            }
        };
        settings
            .ssl_mode(match encryption {
                Encryption::None => SslMode::Disable,
                Encryption::Verified { .. } => SslMode::Require,
            })
            .channel_binding(ChannelBinding::Prefer)
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_user_timeout(USER_TIMEOUT)
            .keepalives_idle(Duration::from_secs(30));
        if settings.get_application_name().is_none() {
            settings.application_name("ivesk-webhook");
        }
        // It fails if the URL has no host, and then it has no password.
        let _ = url.set_password(None);
        Ok(Self {
            settings: Box::new(settings),
            encryption,
            shown: url.into(),
        })
    }

    /// Returns the client's settings.
    pub fn settings(&self) -> &tokio_postgres::Config {
        &self.settings
    }

    /// Returns the encryption of connections.
    pub fn encryption(&self) -> &Encryption {
        &self.encryption
    }

    /// Returns true if the URL contains a password.
    pub fn has_password(&self) -> bool {
        self.settings.get_password().is_some()
    }

    /// Returns the address with this password.
    #[must_use]
    pub fn with_password(mut self, password: &SecretString) -> Self {
        self.settings.password(password.expose_secret());
        self
    }

    /// Returns the address of another database on the same server.
    #[must_use]
    pub fn with_database(mut self, name: &str) -> Self {
        self.settings.dbname(name);
        if let Ok(mut url) = Url::parse(&self.shown) {
            url.set_path(name);
            self.shown = url.into();
        }
        self
    }
}

/// Returns true if a host is this machine.
fn is_local(host: &Host) -> bool {
    match host {
        #[cfg(unix)]
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            name == "localhost"
                || name
                    .trim_start_matches('[')
                    .trim_end_matches(']')
                    .parse()
                    .is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
        }
    }
}

impl fmt::Display for PostgresAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for PostgresAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgresAddress({})", self.shown)
    }
}

impl PartialEq for PostgresAddress {
    fn eq(&self, other: &Self) -> bool {
        self.shown == other.shown && self.encryption == other.encryption
    }
}

impl Eq for PostgresAddress {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_never_prints_its_password() {
        let address =
            PostgresAddress::parse("postgres://ivesk:s3cret@db.example/ivesk?sslmode=disable")
                .expect("a usable address");
        let shown = format!("{address} {address:?} {address:#?}");
        assert!(!shown.contains("s3cret"), "{shown}");
        assert_eq!(address.to_string(), "postgres://ivesk@db.example/ivesk");
        assert!(address.has_password());
        let wrong =
            PostgresAddress::parse("postgres://ivesk:s3cret@db.example/ivesk?sslmode=s3cret");
        assert!(!wrong.expect_err("an unknown mode").contains("s3cret"));
        let wrong = PostgresAddress::parse("postgres://ivesk:s3cret@db.example:s3cret/ivesk");
        assert!(!wrong.expect_err("no port").contains("s3cret"));
    }

    #[test]
    fn connections_to_other_machines_are_encrypted_by_default() {
        let of = |text: &str| PostgresAddress::parse(text).map(|address| address.encryption);
        let checked = Ok(Encryption::Verified { authorities: None });
        assert_eq!(of("postgres://u@db.example/d"), checked);
        assert_eq!(of("postgres://u@db.example/d?sslmode=require"), checked);
        assert_eq!(of("postgres://u@127.0.0.1/d"), Ok(Encryption::None));
        assert_eq!(of("postgres://u@[::1]:5433/d"), Ok(Encryption::None));
        assert_eq!(of("postgres://u@%2Frun%2Fpg/d"), Ok(Encryption::None));
        assert_eq!(of("postgres://u@localhost/d?sslmode=verify-full"), checked);
        assert_eq!(
            of("postgres://u@db.example/d?sslmode=disable"),
            Ok(Encryption::None)
        );
        assert_eq!(
            of("postgres://u@db.example/d?sslrootcert=%2Fetc%2Fca.pem"),
            Ok(Encryption::Verified {
                authorities: Some(PathBuf::from("/etc/ca.pem"))
            })
        );
    }

    #[test]
    fn a_problem_in_an_address_is_named() {
        for (text, word) in [
            ("postgres://u@h/d?sslmod=disable", "sslmod"),
            ("postgres://u@h/d?password=x", "password"),
            ("postgres://u@h/d?sslmode=prefer", "sslmode"),
            ("postgres://u@h", "database"),
            ("postgres:///d", "host"),
        ] {
            let error = PostgresAddress::parse(text).expect_err(text);
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
