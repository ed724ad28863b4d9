//! Links that let a browser in.

use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};

use super::identity::{Identity, new_secret, sha256};
use super::problem::{AdminError, ApiResult, Input};
use crate::api::tokens::{LoginLink, LoginLinkRequest};
use crate::app::App;
use crate::store::{NewLoginLink, Rights};

/// Creates a link that lets one browser in, once, within ten minutes
#[utoipa::path(post, path = "/v1/login-links", tag = "service", request_body = LoginLinkRequest,
    responses((status = OK, description = "The link, shown this once", body = LoginLink)))]
pub(super) async fn create(
    State(app): State<Arc<App>>,
    Extension(identity): Extension<Identity>,
    Input(request): Input<LoginLinkRequest>,
) -> ApiResult<LoginLink> {
    if !request.rights.include(&Rights::Read) {
        return Err(AdminError::BadRequest(
            "`rights` must be `read`, `operate` or `admin`: the pages need `read`".to_owned(),
        ));
    }
    let secret = new_secret();
    let made = app.store.make_login_link(NewLoginLink {
        hash: sha256(&secret),
        rights: request.rights,
        created_by: identity.owner,
        token: identity.token,
        now: app.clock.now(),
    });
    // The token may have ended since it was checked.
    let expires_at = made.await?.ok_or(AdminError::Unauthorized)?;
    Ok(Json(LoginLink {
        path: format!("/open?link={secret}"),
        expires_at,
    }))
}
