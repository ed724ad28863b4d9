//! Cookies of the pages, and the tokens that protect their forms from forgery (CSRF).
//!
//! Every browser gets a cookie with a secret, and each form holds a digest of it. Another
//! site's page knows neither, so it can't submit a form. Nothing depends on this process:
//! the form of one replica is accepted by another.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use axum::http::header::{COOKIE, FORWARDED, HeaderName, ORIGIN, SET_COOKIE};
use axum::http::{HeaderMap, HeaderValue};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::admin::identity::sha256;
use crate::store::SESSION_LIFETIME;

/// Name of the cookie that holds a session's secret.
const COOKIE_NAME: &str = "ivesk_session";

/// The same behind TLS: a browser accepts it only with `Secure`, from this very host and over
/// TLS, so nobody else can plant one.
const SECURE_COOKIE_NAME: &str = "__Host-ivesk_session";

/// Header in which a proxy names the client's protocol.
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Returns the secret of the browser's session cookie.
pub(super) fn session_secret(headers: &HeaderMap) -> Option<&str> {
    cookie(headers, SECURE_COOKIE_NAME).or_else(|| cookie(headers, COOKIE_NAME))
}

/// Sets the session cookie.
pub(super) fn set_session_cookie(headers: &mut HeaderMap, secret: &str, is_secure: bool) {
    let name = if is_secure {
        SECURE_COOKIE_NAME
    } else {
        COOKIE_NAME
    };
    set_cookie(headers, name, secret, is_secure);
}

/// Sets a cookie that scripts can't read and requests from other sites don't carry.
pub(super) fn set_cookie(headers: &mut HeaderMap, name: &str, value: &str, is_secure: bool) {
    let seconds = SESSION_LIFETIME.as_secs();
    let secure = if is_secure { "; Secure" } else { "" };
    let text =
        format!("{name}={value}; Path=/; HttpOnly; SameSite=Strict; Max-Age={seconds}{secure}");
    // Name and value consist of letters, digits, `-` and `_`.
    if let Ok(text) = HeaderValue::from_str(&text) {
        headers.append(SET_COOKIE, text);
    }
}

/// Returns true if the browser reached this listener over TLS, through a proxy.
///
/// The proxy says so, or the browser itself, which names its page's origin when it posts.
/// Whoever invents these headers keeps only itself from receiving its cookie.
pub(super) fn is_secure(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let forwarded_proto = text(FORWARDED_PROTO).is_some_and(|proto| {
        let first = proto.split(',').next().unwrap_or_default();
        first.trim().eq_ignore_ascii_case("https")
    });
    let forwarded = text(FORWARDED).is_some_and(|line| {
        let first = line.split(',').next().unwrap_or_default();
        first.split(';').any(|pair| {
            let pair = pair.trim().to_ascii_lowercase();
            matches!(pair.as_str(), "proto=https" | "proto=\"https\"")
        })
    });
    let origin = text(ORIGIN).is_some_and(|origin| origin.starts_with("https://"));
    forwarded_proto || forwarded || origin
}

/// Returns the token for the forms of the browser with this secret.
pub(super) fn form_token(secret: &str) -> String {
    URL_SAFE_NO_PAD.encode(sha256(&format!("form:{secret}")))
}

/// Returns true if `token` belongs to the browser with this secret.
pub(super) fn verify_form_token(secret: &str, token: &str) -> bool {
    verify_slices_are_equal(form_token(secret).as_bytes(), token.as_bytes()).is_ok()
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

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().expect("a value"));
        }
        headers
    }

    #[test]
    fn a_form_belongs_to_one_browser_on_every_replica() {
        let token = form_token("mine");
        assert!(verify_form_token("mine", &token));
        assert!(!verify_form_token("yours", &token));
        assert!(!verify_form_token("mine", ""));
        assert!(!token.contains("mine"));
    }

    #[test]
    fn a_cookie_is_found_among_others() {
        let plain = headers(&[("cookie", "a=1; ivesk_session=abc; b=2")]);
        assert_eq!(session_secret(&plain), Some("abc"));
        assert_eq!(cookie(&plain, "c"), None);
        let planted = headers(&[("cookie", "ivesk_session=planted; __Host-ivesk_session=own")]);
        assert_eq!(session_secret(&planted), Some("own"));
    }

    #[test]
    fn behind_tls_the_session_cookie_is_secure() {
        for (name, value, expected) in [
            ("x-forwarded-proto", "https", true),
            ("x-forwarded-proto", "https, http", true),
            ("x-forwarded-proto", "http", false),
            ("forwarded", "for=192.0.2.1;proto=https;by=10.0.0.1", true),
            ("forwarded", "for=192.0.2.1;proto=http", false),
            ("origin", "https://admin.example.lt", true),
            ("origin", "http://127.0.0.1:8081", false),
        ] {
            let request = headers(&[(name, value)]);
            assert_eq!(is_secure(&request), expected, "{name}: {value}");
            let mut response = HeaderMap::new();
            set_session_cookie(&mut response, "s", is_secure(&request));
            let set = response[SET_COOKIE].to_str().expect("text");
            assert_eq!(
                set.starts_with("__Host-ivesk_session=s;"),
                expected,
                "{set}"
            );
            assert_eq!(set.contains("; Secure"), expected, "{set}");
            assert!(!set.contains("Domain") && set.contains("Path=/;"), "{set}");
        }
    }
}
