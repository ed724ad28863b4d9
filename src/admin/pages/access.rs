//! The check that every page request passes: identity, rights and form token.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, HeaderName, ORIGIN, REFERRER_POLICY, SET_COOKIE,
};
use axum::http::{HeaderMap, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use url::form_urlencoded;

use super::context::PageContext;
use super::destinations::MAX_CHOSEN;
use super::labels::Notice;
use super::language::{self, Language};
use super::session::{self, is_secure, session_secret};
use super::viewer::{FORM_TOKEN_FIELD, Viewer};
use crate::admin::audit::{Action, carry_out};
use crate::admin::guard::{check_host, check_right};
use crate::admin::identity::{Identity, identify, new_secret, session_owner};
use crate::admin::listener::AdminPeer;
use crate::admin::problem::{AdminError, read_body};
use crate::admin::rules::Needs;
use crate::admin::state::Admin;

/// Allows only resources of this listener: its style sheet, and its one script, which reads
/// nothing but its pages.
const CONTENT_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
    img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// Header in which a browser names the relation of the requesting page to this origin.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Fields of a form whose token was verified.
#[derive(Clone, Debug, Default)]
pub(super) struct Form(Vec<(String, String)>);

impl Form {
    /// Returns a field's text; none if it is missing or empty.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        let mut fields = self.0.iter();
        let (_, value) = fields.find(|(key, value)| key == name && !value.trim().is_empty())?;
        Some(value.trim())
    }

    /// Returns the sequence numbers of the chosen document versions.
    pub(super) fn chosen(&self) -> Vec<i64> {
        let fields = self.0.iter().filter(|(key, _)| key == "sequence");
        let numbers = fields.filter_map(|(_, value)| value.trim().parse().ok());
        numbers.take(MAX_CHOSEN).collect()
    }

    /// Returns a required field's text.
    pub(super) fn required(&self, name: &str) -> Result<&str, AdminError> {
        self.text(name)
            .ok_or_else(|| AdminError::BadRequest(format!("the field `{name}` is empty")))
    }
}

/// The fields by which a form names what it changes, and how; a request may hold any others.
const AUDITED_FIELDS: [&str; 12] = [
    "destination",
    "account",
    "queue",
    "company",
    "companies",
    "id",
    "topic_arn",
    "state",
    "from",
    "reason",
    "message",
    "sequence",
];

/// Pages that a viewer without a session sees.
const OPEN_PAGES: [&str; 2] = ["/login", "/open"];

/// Passes a request on to its page, or answers with an error or a redirect to the login.
pub(super) async fn check_access(
    State(admin): State<Admin>,
    request: Request,
    next: Next,
) -> Response {
    let headers = request.headers();
    let peer = request.extensions().get::<AdminPeer>().copied();
    if let Err(error) = check_host(&admin.app, headers, peer) {
        return error.into_response();
    }
    let cookie_secret = session_secret(headers).map(str::to_owned);
    let is_secure = is_secure(headers);
    let identified = viewer_of(&admin, headers, cookie_secret.as_deref(), peer).await;
    let (identity, has_session) = match &identified {
        Ok(Some((identity, has_session))) => (Some(identity), *has_session),
        Ok(None) | Err(_) => (None, false),
    };
    let query: Vec<(String, String)> = request
        .uri()
        .query()
        .map(|query| {
            form_urlencoded::parse(query.as_bytes())
                .into_owned()
                .collect()
        })
        .unwrap_or_default();
    let chosen = query
        .iter()
        .find(|(name, _)| name == "lang")
        .and_then(|(_, code)| Language::parse(code));
    let secret = cookie_secret.clone().unwrap_or_else(new_secret);
    let context = PageContext {
        viewer: Viewer {
            language: chosen.unwrap_or_else(|| Language::from_headers(headers)),
            rights: identity.map(|identity| identity.rights.clone()),
            owner: identity.map(|identity| identity.owner.clone()),
            has_session,
            form_token: session::form_token(&secret),
            path: request.uri().path().to_owned(),
            notice: Notice::from_query(&query),
            peer,
        },
        admin: admin.clone(),
    };
    let is_open = OPEN_PAGES.contains(&context.viewer.path.as_str());
    let mut response = match &identified {
        Err(error) => context.error_page(error),
        Ok(None) if !is_open => Redirect::to("/login").into_response(),
        Ok(_) => match check_form(&context, identity, cookie_secret.as_deref(), request).await {
            Ok((request, action)) => {
                let work = next.run(request);
                match (identity.cloned(), action) {
                    (Some(identity), Some(action)) => {
                        let app = Arc::clone(&admin.app);
                        carry_out(
                            app,
                            identity,
                            action,
                            |status| status.is_redirection(),
                            work,
                        )
                        .await
                    }
                    _ => work.await,
                }
            }
            Err(error) => context.error_page(&error),
        },
    };
    let headers = response.headers_mut();
    add_policies(headers);
    if cookie_secret.is_none() && !headers.contains_key(SET_COOKIE) {
        session::set_session_cookie(headers, &secret, is_secure);
    }
    if let Some(language) = chosen {
        session::set_cookie(headers, language::COOKIE_NAME, language.code(), is_secure);
    }
    response
}

/// Returns the viewer, and true if a session proves it; `None` before login.
async fn viewer_of(
    admin: &Admin,
    headers: &HeaderMap,
    secret: Option<&str>,
    peer: Option<AdminPeer>,
) -> Result<Option<(Identity, bool)>, AdminError> {
    if let Some(identity) = identify(admin, headers, peer).await? {
        return Ok(Some((identity, false)));
    }
    let Some(secret) = secret else {
        return Ok(None);
    };
    let owner = session_owner(admin, secret).await?;
    Ok(owner.map(|identity| (identity, true)))
}

/// Returns the request with the viewer and the form's fields as extensions, after verifying
/// that the form is one of this listener's and that the viewer may submit it; and the action
/// for the audit list.
///
/// The body is read last.
async fn check_form(
    context: &PageContext,
    identity: Option<&Identity>,
    secret: Option<&str>,
    request: Request,
) -> Result<(Request, Option<Action>), AdminError> {
    let (mut head, body) = request.into_parts();
    head.extensions.insert(context.viewer.clone());
    let path = head.uri.path().to_owned();
    let needs_no_right = OPEN_PAGES.contains(&path.as_str()) || path == "/logout";
    if !needs_no_right && let Some(identity) = identity {
        let needs = match head.method {
            Method::POST => Needs::Operate,
            _ => Needs::Read,
        };
        check_right(identity, needs)?;
    }
    if head.method != Method::POST {
        return Ok((Request::from_parts(head, body), None));
    }
    let secret = secret.ok_or(AdminError::NotOurForm)?;
    if !is_same_origin(&head.headers) {
        return Err(AdminError::NotOurForm);
    }
    let body = read_body(body).await?;
    let form = Form(form_urlencoded::parse(&body).into_owned().collect());
    let form_token = form.text(FORM_TOKEN_FIELD).unwrap_or_default();
    if !session::verify_form_token(secret, form_token) {
        return Err(AdminError::NotOurForm);
    }
    let action = action(&path, &form);
    head.extensions.insert(form);
    Ok((Request::from_parts(head, Body::empty()), action))
}

/// Returns what a form does, for the audit list; `None` if it only lets in or out, which is
/// recorded where it happens.
fn action(path: &str, form: &Form) -> Option<Action> {
    let name = match path {
        "/do/pull" => "pull",
        "/do/pause-feed" => "feeds pause",
        "/do/remove-feed" => "feeds remove",
        "/do/gap" => "feeds gaps --dismiss",
        "/do/delivery" => match form.text("action") {
            Some("skip" | "skip_all") => "deliveries skip",
            _ => "deliveries retry",
        },
        "/do/report" => "import-errors report",
        "/do/resume" => "feeds resume",
        "/do/approve" => "subscriptions approve",
        "/do/restore" => "subscriptions restore",
        "/do/revoke" => "subscriptions revoke",
        "/do/retry" => "quarantine retry",
        "/do/settle" => "uploads settle",
        "/do/import-error" => match form.text("action") {
            Some("discard") => "import-errors discard",
            _ => "import-errors retry",
        },
        "/do/destination" => match form.text("action") {
            Some("pause") => "destinations pause",
            Some("resume") => "destinations resume",
            Some("retry") => "deliveries retry",
            Some("stop") => "destinations stop",
            _ => "destinations start",
        },
        "/login" | "/open" | "/logout" => return None,
        other => other,
    };
    let given = AUDITED_FIELDS.iter().filter_map(|field| {
        let values: Vec<String> = match *field {
            "sequence" => form.chosen().iter().map(i64::to_string).collect(),
            field => form.text(field)?.lines().map(str::to_owned).collect(),
        };
        (!values.is_empty()).then_some((*field, values))
    });
    Some(Action::new(name, given))
}

/// Returns true if the browser's headers, where present, name this origin as the requesting
/// page's.
fn is_same_origin(headers: &HeaderMap) -> bool {
    let text = |name: HeaderName| headers.get(name).map(HeaderValue::to_str);
    let same_site = match text(SEC_FETCH_SITE) {
        Some(site) => matches!(site, Ok("same-origin")),
        None => true,
    };
    let same_origin = match (text(ORIGIN), text(HOST)) {
        (None, _) => true,
        (Some(Ok(origin)), Some(Ok(host))) => origin
            .split_once("://")
            .is_some_and(|(_, name)| name.eq_ignore_ascii_case(host)),
        _ => false,
    };
    same_site && same_origin
}

fn add_policies(headers: &mut HeaderMap) {
    for (name, value) in [
        (CONTENT_SECURITY_POLICY, CONTENT_POLICY),
        // With `no-referrer` browsers would hide the origin of our own forms.
        (REFERRER_POLICY, "same-origin"),
        (CACHE_CONTROL, "no-store"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_accepted_from_our_own_pages_only() {
        let accepts = |pairs: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, HeaderValue::from_static("127.0.0.1:8081"));
            for (name, value) in pairs {
                headers.insert(*name, HeaderValue::from_static(value));
            }
            is_same_origin(&headers)
        };
        assert!(accepts(&[]));
        assert!(accepts(&[
            ("origin", "http://127.0.0.1:8081"),
            ("sec-fetch-site", "same-origin")
        ]));
        for foreign in [
            ("origin", "http://127.0.0.1:3000"),
            ("origin", "http://evil.example"),
            ("origin", "null"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
            ("sec-fetch-site", "none"),
        ] {
            assert!(!accepts(&[foreign]), "{foreign:?}");
        }
    }
}
