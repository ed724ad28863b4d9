//! Tokens of this listener: made, shown without what they are, withdrawn.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::guard::sha256;
use super::paging::{List, Page, PageOf};
use super::problem::{AdminError, Input, NoFields, Outcome, Params, RowId};
use crate::app::App;
use crate::store::{ApiTokenMade, ApiTokenRow, MAX_API_TOKENS, NewApiToken, Rights};

/// What every token begins with, so that whoever finds one knows what it is.
const PREFIX: &str = "iwh_";

/// Random bytes of a token.
const TOKEN_BYTES: usize = 32;

/// The longest name, in characters.
const LONGEST_NAME: usize = 60;

/// Every token's name and rights; the tokens themselves are kept nowhere
#[utoipa::path(get, path = "/v1/tokens", tag = "tokens", params(PageOf),
    responses((status = OK, description = "Tokens in the order in which they were made", body = Page<ApiTokenRow>)))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    Params(page): Params<PageOf>,
) -> Outcome<Page<ApiTokenRow>> {
    let (limit, after) = (page.limit()?, page.row(List::TOKENS)?);
    let mut rows = app.store.api_tokens().await?;
    rows.retain(|row| row.id > after);
    Ok(Json(Page::of(List::TOKENS, rows, limit, |row| row.id)))
}

/// A token that is wanted.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TokenWish {
    /// What people call it: 1 to 60 characters, which no other token is called.
    #[schema(min_length = 1, max_length = 60)]
    name: String,
    /// What its bearer may do.
    rights: Rights,
}

/// A token that was made.
#[derive(Serialize, ToSchema)]
pub(super) struct TokenMade {
    /// Its row.
    id: i64,
    /// The token, which is told this once.
    token: String,
}

/// Make a token
#[utoipa::path(post, path = "/v1/tokens", tag = "tokens", request_body = TokenWish,
    responses(
        (status = OK, description = "The token, which is told this once", body = TokenMade),
        (status = CONFLICT, description = "`conflict`: the name is taken, or there are 64 tokens already",
            body = inline(super::problem::ProblemBody), content_type = "application/problem+json"),
    ))]
pub(super) async fn create(
    State(app): State<Arc<App>>,
    Input(wish): Input<TokenWish>,
) -> Outcome<TokenMade> {
    let name = wish.name.trim().to_owned();
    if name.is_empty() || name.chars().count() > LONGEST_NAME || name.chars().any(char::is_control)
    {
        return Err(AdminError::BadRequest(format!(
            "`name` is not 1 to {LONGEST_NAME} characters"
        )));
    }
    let token = fresh_token()?;
    let made = app
        .store
        .make_api_token(NewApiToken {
            name,
            rights: wish.rights,
            hash: sha256(&token),
            now: app.clock.now(),
        })
        .await?;
    match made {
        ApiTokenMade::Row(id) => Ok(Json(TokenMade { id, token })),
        ApiTokenMade::NameTaken => Err(AdminError::Conflict(
            "another token has this name; choose another, or revoke that one first".into(),
        )),
        ApiTokenMade::TooMany => Err(AdminError::Conflict(
            format!("there are {MAX_API_TOKENS} tokens already; revoke one first").into(),
        )),
    }
}

fn fresh_token() -> Result<String, AdminError> {
    let mut bytes = [0; TOKEN_BYTES];
    getrandom::fill(&mut bytes)
        .map_err(|_| AdminError::Conflict("the system gives no random numbers".into()))?;
    Ok(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes)))
}

/// That a token is withdrawn.
#[derive(Serialize, ToSchema)]
pub(super) struct TokenRevoked {
    /// Its row, which no other token gets.
    id: i64,
}

/// Withdraw a token, from the next request on
#[utoipa::path(post, path = "/v1/tokens/{id}/revoke", tag = "tokens", request_body = NoFields,
    params(("id" = i64, Path, description = "The token's row")),
    responses((status = OK, description = "It is withdrawn", body = TokenRevoked)))]
pub(super) async fn revoke(
    State(app): State<Arc<App>>,
    RowId(id): RowId,
    Input(NoFields {}): Input<NoFields>,
) -> Outcome<TokenRevoked> {
    if app.store.revoke_api_token(id).await? {
        Ok(Json(TokenRevoked { id }))
    } else {
        Err(AdminError::UnknownRow)
    }
}
