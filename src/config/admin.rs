//! `[admin]`: the listener for the command line, the pages and programs.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use secrecy::SecretString;

use super::check::{self, MIN_TOKEN_CHARS};
use super::layers::{Layers, show};
use super::public::PublicConfig;
use super::store::StoreUrl;

/// Settings of the admin listener.
#[derive(Clone, Debug)]
pub struct AdminConfig {
    /// `admin.listen`, default `127.0.0.1:8081`.
    pub listen: SocketAddr,
    /// `admin.token_file` or `IVESK_WEBHOOK_ADMIN_TOKEN`: a token with the right `admin`, for
    /// programs that are set up before the service runs.
    pub token: Option<SecretString>,
    /// `admin.socket`: the Unix socket through which subcommands reach the server. By default
    /// beside the SQLite file, or beside the settings file with the port in its name.
    pub socket: PathBuf,
    /// True if `admin.socket` is set, so that a socket that can't be made stops the start.
    pub socket_is_set: bool,
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8081)),
            token: None,
            socket: PathBuf::from("ivesk-webhook.sock"),
            socket_is_set: false,
        }
    }
}

/// Reads `[admin]`.
pub(super) fn read(
    layers: &mut Layers<'_>,
    public: Option<&PublicConfig>,
    store: &StoreUrl,
) -> AdminConfig {
    let default = AdminConfig::default().listen;
    let listen = layers.text("admin.listen", default, check::listen, show);
    let token = layers.secret("admin.token_file", "IVESK_WEBHOOK_ADMIN_TOKEN", admin_token);
    if public.is_some_and(|public| collide(public.listen, listen)) {
        layers.report(
            "admin.listen",
            "is the address of `public.listen`; use different ports",
        );
    }
    let default = match store {
        StoreUrl::Sqlite(file) => default_socket(file),
        StoreUrl::Postgres(_) => layers.path(&format!("ivesk-webhook-{}.sock", listen.port())),
    };
    let set = layers.read(
        "admin.socket",
        None,
        |value, layers| Ok(Some(layers.path(value.text()?))),
        |path: &Option<PathBuf>| {
            let path = path.as_ref().map(|path| show(&path.display()));
            path.unwrap_or_default()
        },
    );
    AdminConfig {
        listen,
        token,
        socket_is_set: set.is_some(),
        socket: set.unwrap_or(default),
    }
}

/// Returns the socket of the server with this SQLite file: beside it, since one server at a
/// time uses the file.
pub(super) fn default_socket(file: &Path) -> PathBuf {
    let mut path = file.as_os_str().to_owned();
    path.push(".sock");
    path.into()
}

/// Parses the admin listener's token, without repeating it in messages.
fn admin_token(text: &str) -> Result<SecretString, String> {
    if text.len() < MIN_TOKEN_CHARS || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!(
            "the token is not {MIN_TOKEN_CHARS} or more characters without spaces; make one with \
             `openssl rand -hex 32`"
        ));
    }
    Ok(text.into())
}

/// Returns true if two sockets can't listen on both addresses.
fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    let is_any = |ip: IpAddr| ip.is_unspecified();
    a.port() == b.port() && a.port() != 0 && (a.ip() == b.ip() || is_any(a.ip()) || is_any(b.ip()))
}
