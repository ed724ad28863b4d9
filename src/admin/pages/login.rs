//! Login with a token, and logout.

use axum::Extension;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Redirect, Response};
use maud::html;

use super::access::{Form, set_cookie};
use super::context::PageContext;
use super::labels::Notice;
use super::language::Language;
use super::layout::{PageBody, form_token_input, with_code};
use super::session::{self, cookie};
use crate::admin::guard::token_rights;

pub(super) async fn page(context: PageContext) -> Response {
    if context.viewer.rights.is_some() {
        return Redirect::to("/").into_response();
    }
    context.respond(Ok(form(&context)))
}

fn form(context: &PageContext) -> PageBody {
    let language: Language = context.viewer.language;
    PageBody {
        title: language.pick("Log in", "Prisijungimas").to_owned(),
        content: html! {
            form.login method="post" action="/login" {
                (form_token_input(&context.viewer))
                div {
                    label for="token" { (language.pick("Token", "Prieigos raktas")) }
                    input id="token" name="token" type="password" autocomplete="current-password"
                        required maxlength="400";
                }
                button type="submit" { (language.pick("Log in", "Prisijungti")) }
            }
            p { (with_code(language.pick("Use the token of `admin.token_file`, or one that `ivesk-webhook tokens create` printed.", "Naudokite raktą iš „admin.token_file“ arba tą, kurį išspausdino „ivesk-webhook tokens create“."))) }
        },
    }
}

pub(super) async fn log_in(context: PageContext, Extension(form): Extension<Form>) -> Response {
    let token = form.text("token").unwrap_or_default();
    let admin = &context.admin;
    let session = match token_rights(&admin.app, token).await {
        Ok(session) => session,
        Err(error) => return context.error_page(&error),
    };
    let Some((token, rights)) = session else {
        return Redirect::to(&format!("/login?{}", Notice::WrongToken.query())).into_response();
    };
    let secret = admin.sessions.create(token, rights, admin.app.clock.now());
    let mut response = Redirect::to("/").into_response();
    // A new secret prevents session fixation: somebody may have planted the old one.
    set_cookie(response.headers_mut(), session::COOKIE_NAME, &secret);
    response
}

pub(super) async fn log_out(context: PageContext, headers: HeaderMap) -> Response {
    if let Some(secret) = cookie(&headers, session::COOKIE_NAME) {
        context.admin.sessions.end(secret);
    }
    Redirect::to("/login").into_response()
}
