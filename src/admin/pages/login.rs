//! Showing a token, and forgetting that it was shown.

use axum::Extension;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Redirect, Response};
use maud::html;

use super::entrance::{Form, set_cookie};
use super::language::Language;
use super::layout::{Middle, marked, proof};
use super::page::Visit;
use super::session::{self, cookie};
use super::words::Notice;
use crate::admin::guard::token_rights;

pub(super) async fn page(visit: Visit) -> Response {
    if visit.visitor.rights.is_some() {
        return Redirect::to("/").into_response();
    }
    visit.show(Ok(form(&visit)))
}

fn form(visit: &Visit) -> Middle {
    let language: Language = visit.visitor.language;
    Middle {
        title: language.say("Log in", "Prisijungimas").to_owned(),
        body: html! {
            form.login method="post" action="/login" {
                (proof(&visit.visitor))
                div {
                    label for="token" { (language.say("Token", "Prieigos raktas")) }
                    input id="token" name="token" type="password" autocomplete="current-password"
                        required maxlength="400";
                }
                button type="submit" { (language.say("Log in", "Prisijungti")) }
            }
            p { (marked(language.say("It is the token of `admin.token_file`, or one that `ivesk-webhook tokens create` printed.", "Tai raktas iš „admin.token_file“ arba tas, kurį išspausdino „ivesk-webhook tokens create“."))) }
        },
    }
}

pub(super) async fn log_in(visit: Visit, Extension(form): Extension<Form>) -> Response {
    let token = form.text("token").unwrap_or_default();
    let admin = &visit.admin;
    let known = match token_rights(&admin.app, token).await {
        Ok(known) => known,
        Err(error) => return visit.fail(&error),
    };
    let Some((token, rights)) = known else {
        return Redirect::to(&format!("/login?{}", Notice::WrongToken.query())).into_response();
    };
    let secret = admin.sessions.begin(token, rights, admin.app.clock.now());
    let mut response = Redirect::to("/").into_response();
    // Another secret than before, which somebody may have planted.
    set_cookie(response.headers_mut(), session::COOKIE_NAME, &secret);
    response
}

pub(super) async fn log_out(visit: Visit, headers: HeaderMap) -> Response {
    if let Some(secret) = cookie(&headers, session::COOKIE_NAME) {
        visit.admin.sessions.end(secret);
    }
    Redirect::to("/login").into_response()
}
