//! Finds out who sends a request: a user of this machine, the bearer of a token, or the owner
//! of a session.

use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::ExposeSecret;

use super::listener::AdminPeer;
use super::problem::AdminError;
use super::state::Admin;
use crate::app::App;
use crate::domain::Timestamp;
use crate::store::{Rights, SessionRow, Used, token_owner};
use crate::visible::foreign;

/// Time after which the use of a token or session is recorded again.
const USE_INTERVAL: Duration = Duration::from_secs(60);

/// The users of this machine (passwd(5)).
const USERS: &str = "/etc/passwd";

/// Returns the name of a user in the text of passwd(5).
fn user_name(users: &str, uid: u32) -> Option<&str> {
    let uid = uid.to_string();
    let mut lines = users.lines().map(|line| line.split(':'));
    lines.find_map(|mut fields| {
        let name = fields.next().filter(|name| !name.is_empty())?;
        (fields.nth(1) == Some(&*uid)).then_some(name)
    })
}

/// The sender of a request.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    /// Who it is, as the audit list shows it.
    pub(super) owner: String,
    /// What it may do.
    pub(super) rights: Rights,
    /// The row of the stored token that proves it, if one does.
    pub(super) token: Option<i64>,
}

impl Identity {
    /// Returns the identity of a user of this machine who may connect to the socket.
    async fn user(uid: u32) -> Self {
        // A user of a directory service has a number alone.
        let users = tokio::fs::read(USERS).await.unwrap_or_default();
        let owner = match user_name(&String::from_utf8_lossy(&users), uid) {
            Some(name) => format!("user:{uid}:{}", foreign(name)),
            None => format!("user:{uid}"),
        };
        Self {
            owner,
            rights: Rights::Admin,
            token: None,
        }
    }
}

/// Returns the sender of a request by its connection or its token; `None` if it proves nothing.
///
/// # Errors
///
/// If what it sends as proof is wrong.
pub(super) async fn identify(
    admin: &Admin,
    headers: &HeaderMap,
    peer: Option<AdminPeer>,
) -> Result<Option<Identity>, AdminError> {
    if let Some(AdminPeer::Local { uid }) = peer {
        return Ok(Some(Identity::user(uid).await));
    }
    if !headers.contains_key(AUTHORIZATION) {
        return Ok(None);
    }
    let token = bearer(headers).ok_or(AdminError::Unauthorized)?;
    match bearer_of(admin, token).await {
        Err(AdminError::Unauthorized) => Err(wrong_proof(admin, peer)),
        other => other.map(Some),
    }
}

/// Counts a wrong token or link and returns the error to answer with.
pub(super) fn wrong_proof(admin: &Admin, peer: Option<AdminPeer>) -> AdminError {
    let address = peer.and_then(AdminPeer::address);
    match admin.attempts.wrong(address) {
        Some(wait) => AdminError::TooManyAttempts(wait),
        None => AdminError::Unauthorized,
    }
}

/// Returns the bearer of this token.
///
/// # Errors
///
/// [`AdminError::Unauthorized`] if it is unknown, [`AdminError::TokenExpired`] if it was valid.
pub(super) async fn bearer_of(admin: &Admin, token: &str) -> Result<Identity, AdminError> {
    let app = &admin.app;
    let hash = sha256(token);
    if let Some(owner) = configured_owner(app)
        && is_configured(app, &hash)
    {
        return Ok(Identity {
            owner,
            rights: Rights::Admin,
            token: None,
        });
    }
    // The duration of a lookup can reveal only the hash, which does not reveal the token.
    let row = app.store.api_token(hash).await?;
    let row = row.ok_or(AdminError::Unauthorized)?;
    let now = app.clock.now();
    if row.expires_at.is_some_and(|end| end <= now) {
        return Err(AdminError::TokenExpired);
    }
    if is_due(row.last_used_at, now) {
        admin.uses.record(app, Used::Token(row.id, now));
    }
    Ok(Identity {
        owner: token_owner(row.id, &row.name),
        rights: row.rights,
        token: Some(row.id),
    })
}

/// Returns the owner of the session with this secret; `None` if there is no such session.
pub(super) async fn session_owner(
    admin: &Admin,
    secret: &str,
) -> Result<Option<Identity>, AdminError> {
    let app = &admin.app;
    let (hash, now) = (sha256(secret), app.clock.now());
    let Some(session) = app.store.session(hash, now).await? else {
        return Ok(None);
    };
    let SessionRow {
        rights,
        created_by,
        last_used_at,
    } = session;
    if created_by.starts_with(CONFIGURED) && configured_owner(app).as_ref() != Some(&created_by) {
        // The configured token was changed.
        return Ok(None);
    }
    if is_due(Some(last_used_at), now) {
        admin.uses.record(app, Used::Session(hash, now));
    }
    Ok(Some(Identity {
        owner: created_by,
        rights,
        token: None,
    }))
}

/// Returns true if a use is to be recorded.
fn is_due(last: Option<Timestamp>, now: Timestamp) -> bool {
    last.is_none_or(|last| now.since(last) >= USE_INTERVAL)
}

/// The prefix of the configured token's owner.
const CONFIGURED: &str = "token_file:";

/// Returns the text that stands for the configured token; another one for another token.
fn configured_owner(app: &App) -> Option<String> {
    let token = app.config.admin.token.as_ref()?;
    // Of the digest's digest, so that nothing of the token's own digest is stored.
    let mark = digest(&SHA256, &sha256(token.expose_secret()));
    let mark = URL_SAFE_NO_PAD.encode(&mark.as_ref()[..6]);
    Some(format!("{CONFIGURED}{mark}"))
}

fn is_configured(app: &App, hash: &[u8; 32]) -> bool {
    let configured = app.config.admin.token.as_ref();
    configured
        .is_some_and(|token| verify_slices_are_equal(hash, &sha256(token.expose_secret())).is_ok())
}

/// Returns the token of a request.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Returns the SHA-256 of a secret.
pub(super) fn sha256(secret: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, secret.as_bytes()).as_ref());
    hash
}

/// Returns a random secret of 256 bits.
pub(super) fn new_secret() -> String {
    let mut bytes = [0; 32];
    // The system's random source fails on no supported system once it has started.
    getrandom::fill(&mut bytes).expect("the system gives random bytes");
    URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn users_are_named_as_the_machine_names_them() {
        let users = "root:x:0:0:root:/root:/bin/bash\n\n:x:5:\nona:x:1000:1000:,,,:/home/ona:/bin/sh\nbroken\n";
        assert_eq!(user_name(users, 0), Some("root"));
        assert_eq!(user_name(users, 1000), Some("ona"));
        for unknown in [5, 1, 1001] {
            assert_eq!(user_name(users, unknown), None);
        }
    }

    #[test]
    fn a_token_follows_the_word_bearer() {
        let token = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, HeaderValue::from_static(value));
            bearer(&headers).map(str::to_owned)
        };
        assert_eq!(token("Bearer right-token").as_deref(), Some("right-token"));
        assert_eq!(token("bearer  right-token").as_deref(), Some("right-token"));
        for wrong in ["Bearer", "Basic right-token", "right-token"] {
            assert_eq!(token(wrong), None, "{wrong}");
        }
    }
}
