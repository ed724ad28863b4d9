//! Login with a token or a link, and logout.

use axum::Extension;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{Html, IntoResponse, Redirect, Response};
use maud::{Markup, html};
use url::form_urlencoded;

use super::access::Form;
use super::context::PageContext;
use super::labels::Notice;
use super::layout::{PageBody, form_token_input, render, with_code};
use super::session::{is_secure, session_secret, set_session_cookie};
use crate::admin::audit::{self, Action};
use crate::admin::guard::check_right;
use crate::admin::identity::{Identity, bearer_of, new_secret, session_owner, sha256, wrong_proof};
use crate::admin::problem::AdminError;
use crate::admin::rules::Needs;
use crate::store::{NewSession, UseLoginLink};

pub(super) async fn page(context: PageContext) -> Response {
    if context.viewer.rights.is_some() {
        return Redirect::to("/").into_response();
    }
    context.respond(Ok(form(&context)))
}

fn form(context: &PageContext) -> PageBody {
    let language = context.viewer.language;
    PageBody {
        title: language.pick("Log in", "Prisijungimas").to_owned(),
        content: html! {
            p { (with_code(language.pick(
                "On the server, `ivesk-webhook open` prints a link that logs you in.",
                "Serveryje „ivesk-webhook open“ išspausdina nuorodą, kuri jus prijungia.",
            ))) }
            form.login method="post" action="/login" {
                (form_token_input(&context.viewer))
                div {
                    label for="token" { (language.pick("Token", "Prieigos raktas")) }
                    input id="token" name="token" type="password" autocomplete="current-password"
                        required maxlength="400";
                }
                button type="submit" { (language.pick("Log in", "Prisijungti")) }
            }
            p { (with_code(language.pick("Or use a token that `ivesk-webhook tokens create` printed, or the one of `admin.token_file`.", "Arba naudokite raktą, kurį išspausdino „ivesk-webhook tokens create“, arba raktą iš „admin.token_file“."))) }
        },
        refresh: false,
    }
}

pub(super) async fn log_in(
    context: PageContext,
    headers: HeaderMap,
    Extension(form): Extension<Form>,
) -> Response {
    let token = form.text("token").unwrap_or_default();
    match open_session(&context, token).await {
        Ok(secret) => let_in(&secret, &headers),
        Err(AdminError::Unauthorized) => match wrong_proof(&context.admin, context.viewer.peer) {
            AdminError::Unauthorized => {
                Redirect::to(&format!("/login?{}", Notice::WrongToken.query())).into_response()
            }
            error => context.error_page(&error),
        },
        Err(error) => context.error_page(&error),
    }
}

/// Opens a session with a token, and returns its secret.
async fn open_session(context: &PageContext, token: &str) -> Result<String, AdminError> {
    let admin = &context.admin;
    let identity = bearer_of(admin, token).await?;
    check_right(&identity, Needs::Read)?;
    let secret = new_secret();
    let session = NewSession {
        hash: sha256(&secret),
        rights: identity.rights.clone(),
        created_by: identity.owner.clone(),
        token: identity.token,
        now: admin.app.clock.now(),
    };
    if !admin.app.store.open_session(session).await? {
        return Err(AdminError::Unauthorized);
    }
    audit::record(&admin.app, &identity, Action::new("log in", []), None).await;
    Ok(secret)
}

/// Returns the response that gives a browser its session.
fn let_in(secret: &str, headers: &HeaderMap) -> Response {
    let mut response = Redirect::to("/").into_response();
    // A new secret prevents session fixation: somebody may have planted the old one.
    set_session_cookie(response.headers_mut(), secret, is_secure(headers));
    response
}

/// Shows the button that uses up a login link. A GET uses up nothing, so that programs that
/// look at links, such as those of chats, don't take it.
pub(super) async fn link_page(context: PageContext, uri: Uri) -> Response {
    let query = uri.query().unwrap_or_default();
    let link = form_urlencoded::parse(query.as_bytes())
        .find(|(name, _)| name == "link")
        .map(|(_, link)| link.into_owned());
    let body = link_form(&context, &link.unwrap_or_default());
    let language = context.viewer.language;
    context.respond(Ok(PageBody {
        title: language.pick("Log in", "Prisijungimas").to_owned(),
        content: body,
        refresh: false,
    }))
}

fn link_form(context: &PageContext, link: &str) -> Markup {
    let language = context.viewer.language;
    html! {
        p { (language.pick(
            "This link lets one browser in, once. Press the button only if you created the link yourself.",
            "Ši nuoroda vieną kartą įleidžia vieną naršyklę. Spauskite mygtuką, tik jei nuorodą sukūrėte patys.",
        )) }
        form.login method="post" action="/open" {
            (form_token_input(&context.viewer))
            input type="hidden" name="link" value=(link);
            button type="submit" { (language.pick("Log in", "Prisijungti")) }
        }
    }
}

pub(super) async fn use_link(
    context: PageContext,
    headers: HeaderMap,
    Extension(form): Extension<Form>,
) -> Response {
    let admin = &context.admin;
    let secret = new_secret();
    let used = admin
        .app
        .store
        .use_login_link(UseLoginLink {
            link: sha256(form.text("link").unwrap_or_default()),
            session: sha256(&secret),
            now: admin.app.clock.now(),
        })
        .await;
    match used {
        Ok(Some(session)) => {
            let identity = Identity {
                owner: session.created_by,
                rights: session.rights,
                token: None,
            };
            audit::record(
                &admin.app,
                &identity,
                Action::new("log in", [("", vec!["by link".to_owned()])]),
                None,
            )
            .await;
            let_in(&secret, &headers)
        }
        Ok(None) => match wrong_proof(admin, context.viewer.peer) {
            AdminError::Unauthorized => used_up(&context),
            error => context.error_page(&error),
        },
        Err(error) => context.error_page(&error.into()),
    }
}

/// Returns the page about a link that lets nobody in.
fn used_up(context: &PageContext) -> Response {
    let language = context.viewer.language;
    let body = PageBody {
        title: language.pick("Log in", "Prisijungimas").to_owned(),
        content: html! {
            p.notice.bad role="alert" { (with_code(language.pick(
                "This link was used already, or is older than ten minutes. `ivesk-webhook open` prints another one.",
                "Ši nuoroda jau panaudota arba senesnė nei dešimt minučių. „ivesk-webhook open“ išspausdina kitą.",
            ))) }
        },
        refresh: false,
    };
    let page = render(&context.viewer, body);
    (StatusCode::FORBIDDEN, Html(page.into_string())).into_response()
}

pub(super) async fn log_out(context: PageContext, headers: HeaderMap) -> Response {
    let admin = &context.admin;
    if let Some(secret) = session_secret(&headers) {
        let owner = session_owner(admin, secret).await;
        if let Err(error) = admin.app.store.end_session(sha256(secret)).await {
            return context.error_page(&error.into());
        }
        if let Ok(Some(identity)) = owner {
            audit::record(&admin.app, &identity, Action::new("log out", []), None).await;
        }
    }
    Redirect::to("/login").into_response()
}
