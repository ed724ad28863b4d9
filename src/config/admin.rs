//! `[admin]`: the listener for people and programs of the house.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use secrecy::SecretString;

use super::check::{self, MIN_TOKEN_CHARS};
use super::layers::{Layers, show};
use super::public::PublicConfig;

/// The listener for people and programs of the house.
#[derive(Clone, Debug)]
pub struct AdminConfig {
    /// `admin.listen`, default `127.0.0.1:8081`.
    pub listen: SocketAddr,
    /// `admin.token_file`, or `IVESK_WEBHOOK_ADMIN_TOKEN`: required where
    /// [`AdminConfig::listen`] is not a loopback address.
    pub token: Option<SecretString>,
    /// `admin.requests_per_second`, default 100: what one token, or this machine
    /// without one, may ask for; ten seconds' worth may come at once.
    pub requests_per_second: u32,
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8081)),
            token: None,
            requests_per_second: 100,
        }
    }
}

/// `[admin]`
pub(super) fn read(layers: &mut Layers<'_>, public: Option<&PublicConfig>) -> AdminConfig {
    let default = AdminConfig::default();
    let listen = layers.text("admin.listen", default.listen, check::listen, show);
    let token = layers.secret("admin.token_file", "IVESK_WEBHOOK_ADMIN_TOKEN", admin_token);
    if !listen.ip().is_loopback() && token.is_none() && !layers.has_failed("admin.token_file") {
        layers.contradiction(
            "admin.listen",
            "is not a loopback address, and no token is set; listen on 127.0.0.1, or set \
             `admin.token_file` or IVESK_WEBHOOK_ADMIN_TOKEN",
        );
    }
    if public.is_some_and(|public| collide(public.listen, listen)) {
        layers.contradiction(
            "admin.listen",
            "is taken by `public.listen`; give the two different ports",
        );
    }
    AdminConfig {
        listen,
        token,
        requests_per_second: layers.number(
            "admin.requests_per_second",
            default.requests_per_second,
            1..=1_000_000,
        ),
    }
}

/// The admin listener's token. Never repeated in advice.
fn admin_token(text: &str) -> Result<SecretString, String> {
    if text.len() < MIN_TOKEN_CHARS || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!(
            "the token is not {MIN_TOKEN_CHARS} or more characters without spaces; make one with \
             `openssl rand -hex 32`"
        ));
    }
    Ok(text.into())
}

/// Whether two addresses can't both be listened on.
fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    let everywhere = |ip: IpAddr| ip.is_unspecified();
    a.port() == b.port()
        && a.port() != 0
        && (a.ip() == b.ip() || everywhere(a.ip()) || everywhere(b.ip()))
}
