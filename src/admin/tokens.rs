//! Tokens of the admin API: lists, creates and revokes them.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::identity::sha256;
use super::paging::{List, Page, PageQuery};
use super::problem::{AdminError, ApiResult, Input, NoFields, Params, RowId};
use crate::api::tokens::{CreatedToken, RevokedToken, Token, TokenRequest};
use crate::app::App;
use crate::domain::Timestamp;
use crate::store::{ApiTokenMade, MAX_API_TOKENS, NewApiToken, Rights};

/// The prefix of every token, by which a leaked one can be recognized.
const PREFIX: &str = "iwh_";

/// Random bytes of a token.
const TOKEN_BYTES: usize = 32;

/// Longest name, in characters.
const MAX_NAME_CHARS: usize = 60;

/// Lists tokens, with name, rights, end and last use
///
/// The tokens themselves are not stored.
#[utoipa::path(get, path = "/v1/tokens", tag = "tokens", params(PageQuery),
    responses((status = OK, description = "Tokens, oldest first", body = Page<Token>)))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    Params(page): Params<PageQuery>,
) -> ApiResult<Page<Token>> {
    let (limit, after) = (page.limit()?, page.row(List::TOKENS)?);
    let mut rows = app.store.api_tokens().await?;
    rows.retain(|row| row.id > after);
    let page = Page::of(List::TOKENS, rows, limit, |row| row.id);
    Ok(Json(page.map(Token::from)))
}

/// Creates a token
#[utoipa::path(post, path = "/v1/tokens", tag = "tokens", request_body = TokenRequest,
    responses(
        (status = OK, description = "The token, shown this once", body = CreatedToken),
        (status = CONFLICT, description = "`conflict`: the name is in use, or there are 64 tokens already",
            body = inline(super::problem::ProblemBody), content_type = "application/problem+json"),
    ))]
pub(super) async fn create(
    State(app): State<Arc<App>>,
    Input(request): Input<TokenRequest>,
) -> ApiResult<CreatedToken> {
    let name = request.name.trim().to_owned();
    if name.chars().any(char::is_control) {
        return Err(AdminError::BadRequest(
            "`name` contains a line feed or another control character; write it without".to_owned(),
        ));
    }
    if name.is_empty() || name.chars().count() > MAX_NAME_CHARS {
        return Err(AdminError::BadRequest(format!(
            "`name` must have 1 to {MAX_NAME_CHARS} characters"
        )));
    }
    if let Rights::Destination(destination) = &request.rights
        && !app.config.destinations.contains_key(destination)
    {
        return Err(AdminError::BadRequest(format!(
            "there is no destination `{destination}` in the settings; `ivesk-webhook destinations list` lists them"
        )));
    }
    let now = app.clock.now();
    let expires_at = match request.expires_at.as_deref() {
        None => None,
        Some(text) => match Timestamp::parse(text) {
            Some(end) if end > now => Some(end),
            Some(_) => {
                return Err(AdminError::BadRequest(
                    "`expires_at` is in the past".to_owned(),
                ));
            }
            None => {
                return Err(AdminError::BadRequest(
                    "`expires_at` is not a moment such as `2027-01-31T00:00:00Z`".to_owned(),
                ));
            }
        },
    };
    let token = random_token()?;
    let made = app
        .store
        .make_api_token(NewApiToken {
            name,
            rights: request.rights,
            hash: sha256(&token),
            expires_at,
            now,
        })
        .await?;
    match made {
        ApiTokenMade::Row(id) => Ok(Json(CreatedToken { id, token })),
        ApiTokenMade::NameTaken => Err(AdminError::Conflict(
            "another token has this name; choose another name, or revoke that token first".into(),
        )),
        ApiTokenMade::TooMany => Err(AdminError::Conflict(
            format!("there are {MAX_API_TOKENS} tokens already; revoke one first").into(),
        )),
    }
}

fn random_token() -> Result<String, AdminError> {
    let mut bytes = [0; TOKEN_BYTES];
    getrandom::fill(&mut bytes)
        .map_err(|_| AdminError::Conflict("the system provides no random numbers".into()))?;
    Ok(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes)))
}

/// Revokes a token and ends its sessions, with immediate effect
#[utoipa::path(post, path = "/v1/tokens/{id}/revoke", tag = "tokens", request_body = NoFields,
    params(("id" = i64, Path, description = "The token's row")),
    responses((status = OK, description = "The token is revoked", body = RevokedToken)))]
pub(super) async fn revoke(
    State(app): State<Arc<App>>,
    RowId(id): RowId,
    Input(NoFields {}): Input<NoFields>,
) -> ApiResult<RevokedToken> {
    if app.store.revoke_api_token(id).await? {
        Ok(Json(RevokedToken { id }))
    } else {
        Err(AdminError::no_row(
            "token",
            id,
            "`ivesk-webhook tokens list`",
        ))
    }
}
