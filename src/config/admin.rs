//! `[admin]`: the listener for the command line, the pages and programs.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use secrecy::SecretString;

use super::check::{self, MIN_TOKEN_CHARS};
use super::layers::{Layers, show};
use super::public::PublicConfig;

/// Settings of the admin listener.
#[derive(Clone, Debug)]
pub struct AdminConfig {
    /// `admin.listen`, default `127.0.0.1:8081`.
    pub listen: SocketAddr,
    /// `admin.token_file` or `IVESK_WEBHOOK_ADMIN_TOKEN`: required unless
    /// [`AdminConfig::listen`] is a loopback address.
    pub token: Option<SecretString>,
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8081)),
            token: None,
        }
    }
}

/// Reads `[admin]`.
pub(super) fn read(layers: &mut Layers<'_>, public: Option<&PublicConfig>) -> AdminConfig {
    let default = AdminConfig::default().listen;
    let listen = layers.text("admin.listen", default, check::listen, show);
    let token = layers.secret("admin.token_file", "IVESK_WEBHOOK_ADMIN_TOKEN", admin_token);
    if !listen.ip().is_loopback() && token.is_none() && !layers.is_invalid("admin.token_file") {
        layers.report(
            "admin.listen",
            "is not a loopback address, and no token is set; listen on 127.0.0.1. If others must \
             reach it, as from outside a container, set `admin.token_file` or \
             IVESK_WEBHOOK_ADMIN_TOKEN",
        );
    }
    if public.is_some_and(|public| collide(public.listen, listen)) {
        layers.report(
            "admin.listen",
            "is the address of `public.listen`; use different ports",
        );
    }
    AdminConfig { listen, token }
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
