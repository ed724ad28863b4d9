//! `store.url` for PostgreSQL, without a way to print its password.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use tokio_postgres::config::{ChannelBinding, Host, SslMode};
use url::Url;

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long sent bytes may stay unacknowledged before the connection counts as lost.
const USER_TIMEOUT: Duration = Duration::from_secs(15);

/// The parameters that a URL may carry after `?`.
const PARAMETERS: [&str; 7] = [
    "application_name",
    "dbname",
    "host",
    "port",
    "sslmode",
    "sslrootcert",
    "user",
];

/// Whether and how the connection is encrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Encryption {
    /// Not at all: a Unix socket, this machine, or `sslmode=disable`.
    None,
    /// TLS with the server's certificate and name checked, against the authorities of
    /// the file where one is given, and against the system's otherwise.
    Verified { authorities: Option<PathBuf> },
}

/// A PostgreSQL database: `postgres://USER@HOST:PORT/DATABASE?…`.
///
/// `Debug` and `Display` show it without its password.
#[derive(Clone)]
pub struct Address {
    pub(super) settings: Box<tokio_postgres::Config>,
    pub(super) encryption: Encryption,
    shown: String,
}

impl Address {
    /// Reads a URL.
    ///
    /// `sslmode` is `disable`, or `require`, `verify-ca` or `verify-full`, which all mean
    /// that certificate and name are checked: encryption towards anybody protects
    /// nothing. Without it, connections that leave this machine are checked so.
    /// `sslrootcert` names a PEM file of authorities in place of the system's.
    ///
    /// # Errors
    ///
    /// What is wrong, for people, in words that follow the setting's name; nothing of
    /// the password.
    pub fn parse(text: &str) -> Result<Self, String> {
        // `Url` says what is wrong without repeating the text.
        let mut url = Url::parse(text).map_err(|error| format!("is no URL: {error}"))?;
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
                        "holds the parameter `{unknown}`, which is not known here; known are {}",
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
            .map_err(|error: tokio_postgres::Error| format!("can't be used: {error}"))?;
        if settings.get_hosts().is_empty() {
            return Err("names no host; write postgres://USER@HOST/DATABASE".to_owned());
        }
        if settings.get_dbname().is_none() {
            return Err("names no database; write postgres://USER@HOST/DATABASE".to_owned());
        }
        let encryption = match sslmode.as_deref() {
            Some("disable") => Encryption::None,
            Some("require" | "verify-ca" | "verify-full") => Encryption::Verified { authorities },
            None if authorities.is_none() && settings.get_hosts().iter().all(is_here) => {
                Encryption::None
            }
            None => Encryption::Verified { authorities },
            Some(_) => {
                return Err(
                    "holds an `sslmode` that is not known here; write disable or verify-full"
                        .to_owned(),
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
        // It fails where the URL has no host, and then it has no password either.
        let _ = url.set_password(None);
        Ok(Self {
            settings: Box::new(settings),
            encryption,
            shown: url.into(),
        })
    }

    /// Whether the URL itself holds a password.
    pub fn has_password(&self) -> bool {
        self.settings.get_password().is_some()
    }

    /// The same with this password.
    #[must_use]
    pub fn with_password(mut self, password: &SecretString) -> Self {
        self.settings.password(password.expose_secret());
        self
    }

    /// The same for another database of the same server.
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

/// Whether a host is this machine.
fn is_here(host: &Host) -> bool {
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

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({})", self.shown)
    }
}

impl PartialEq for Address {
    fn eq(&self, other: &Self) -> bool {
        self.shown == other.shown && self.encryption == other.encryption
    }
}

impl Eq for Address {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_never_prints_its_password() {
        let address = Address::parse("postgres://ivesk:s3cret@db.example/ivesk?sslmode=disable")
            .expect("a usable address");
        let shown = format!("{address} {address:?} {address:#?}");
        assert!(!shown.contains("s3cret"), "{shown}");
        assert_eq!(address.to_string(), "postgres://ivesk@db.example/ivesk");
        assert!(address.has_password());
        let wrong = Address::parse("postgres://ivesk:s3cret@db.example/ivesk?sslmode=s3cret");
        assert!(!wrong.expect_err("an unknown mode").contains("s3cret"));
        let wrong = Address::parse("postgres://ivesk:s3cret@db.example:s3cret/ivesk");
        assert!(!wrong.expect_err("no port").contains("s3cret"));
    }

    #[test]
    fn connections_to_other_machines_are_encrypted_by_default() {
        let of = |text: &str| Address::parse(text).map(|address| address.encryption);
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
    fn a_mistake_in_an_address_is_named() {
        for (text, word) in [
            ("postgres://u@h/d?sslmod=disable", "sslmod"),
            ("postgres://u@h/d?password=x", "password"),
            ("postgres://u@h/d?sslmode=prefer", "sslmode"),
            ("postgres://u@h", "database"),
            ("postgres:///d", "host"),
        ] {
            let error = Address::parse(text).expect_err(text);
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
