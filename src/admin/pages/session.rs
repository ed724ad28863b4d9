//! Sessions of the status page, and the tokens that protect its forms from forgery (CSRF).
//!
//! A login with a token creates a session in this process's memory. Where no login is needed
//! a browser still gets a cookie. In both cases each form holds an HMAC of the cookie under a
//! key of this process: another site's page knows neither the cookie nor the token, so it
//! can't submit a form.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use axum::http::HeaderMap;
use axum::http::header::COOKIE;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::admin::guard::{TokenId, sha256};
use crate::domain::Timestamp;
use crate::store::Rights;

/// Name of the cookie that holds a session's secret.
pub(super) const COOKIE_NAME: &str = "ivesk_session";

/// Lifetime of a session.
pub(super) const LIFETIME: Duration = Duration::from_secs(12 * 60 * 60);

/// Maximum number of sessions; above it the oldest ends.
const MAX_SESSIONS: usize = 256;

/// A session: the token that opened it, and its rights.
#[derive(Clone, Copy, Debug)]
pub(super) struct Session {
    pub(super) token: TokenId,
    pub(super) rights: Rights,
    until: Timestamp,
}

/// The sessions of this process, and the key of its form tokens.
pub(in super::super) struct Sessions {
    key: hmac::Key,
    open: Mutex<BTreeMap<[u8; 32], Session>>,
}

impl Sessions {
    /// Returns an empty set of sessions with a random key.
    pub(in super::super) fn new() -> Self {
        let mut key = [0; 32];
        // The system's random source fails on no supported system once it has started.
        getrandom::fill(&mut key).expect("the system gives random bytes");
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, &key),
            open: Mutex::default(),
        }
    }

    /// Creates a session and returns its secret, for the cookie.
    pub(super) fn create(&self, token: TokenId, rights: Rights, now: Timestamp) -> String {
        let secret = new_secret();
        let mut open = self.open();
        open.retain(|_, session| session.until > now);
        if open.len() >= MAX_SESSIONS
            && let Some(oldest) = open
                .iter()
                .min_by_key(|(_, session)| session.until)
                .map(|(id, _)| *id)
        {
            open.remove(&oldest);
        }
        open.insert(
            sha256(&secret),
            Session {
                token,
                rights,
                until: now.after(LIFETIME),
            },
        );
        secret
    }

    /// Returns the session of this secret, unless it has expired.
    pub(super) fn find(&self, secret: &str, now: Timestamp) -> Option<Session> {
        let open = self.open();
        let session = open.get(&sha256(secret)).copied();
        session.filter(|session| session.until > now)
    }

    /// Ends the session of this secret.
    pub(super) fn end(&self, secret: &str) {
        self.open().remove(&sha256(secret));
    }

    /// Returns the token for the forms of the browser with this cookie.
    pub(super) fn form_token(&self, cookie: &str) -> String {
        URL_SAFE_NO_PAD.encode(hmac::sign(&self.key, cookie.as_bytes()))
    }

    /// Returns true if `token` belongs to the browser with this cookie.
    pub(super) fn verify_form_token(&self, cookie: &str, token: &str) -> bool {
        let expected = self.form_token(cookie);
        verify_slices_are_equal(expected.as_bytes(), token.as_bytes()).is_ok()
    }

    fn open(&self) -> MutexGuard<'_, BTreeMap<[u8; 32], Session>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns a random secret of 256 bits.
pub(super) fn new_secret() -> String {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).expect("the system gives random bytes");
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Returns the value of a cookie; none if it is missing, empty or longer than 100 bytes.
pub(super) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(key, value)| *key == name && !value.is_empty() && value.len() <= 100)
        .map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);

    #[test]
    fn a_session_expires_or_is_ended_and_owns_its_forms() {
        let sessions = Sessions::new();
        let mine = sessions.create(TokenId::Configured, Rights::Operate, NOW);
        let yours = sessions.create(TokenId::Stored(1), Rights::Read, NOW);
        assert!(sessions.find(&mine, NOW).is_some());
        assert!(sessions.find(&mine, NOW.after(LIFETIME)).is_none());
        assert!(sessions.find("guessed", NOW).is_none());
        let form = sessions.form_token(&mine);
        assert!(sessions.verify_form_token(&mine, &form));
        assert!(!sessions.verify_form_token(&yours, &form));
        assert!(
            !Sessions::new().verify_form_token(&mine, &form),
            "another process's"
        );
        sessions.end(&mine);
        assert!(sessions.find(&mine, NOW).is_none());
        assert!(sessions.find(&yours, NOW).is_some());
    }

    #[test]
    fn the_oldest_session_makes_room_for_a_new_one() {
        let sessions = Sessions::new();
        let begin = |n| {
            let now = NOW.after(Duration::from_secs(n));
            sessions.create(TokenId::Configured, Rights::Read, now)
        };
        let first = begin(0);
        let second = begin(1);
        for n in 2..=MAX_SESSIONS as u64 {
            begin(n);
        }
        assert!(sessions.find(&first, NOW).is_none());
        assert!(sessions.find(&second, NOW).is_some());
    }

    #[test]
    fn a_cookie_is_found_among_others() {
        let mut headers = HeaderMap::new();
        headers.append(
            COOKIE,
            "a=1; ivesk_session=abc; b=2".parse().expect("a value"),
        );
        assert_eq!(cookie(&headers, COOKIE_NAME), Some("abc"));
        assert_eq!(cookie(&headers, "c"), None);
    }
}
