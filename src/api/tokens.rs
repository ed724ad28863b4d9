//! Tokens of this API, and links that let a browser in.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::from_rows;
use crate::domain::Timestamp;
use crate::store::{ApiTokenRow, Rights};

/// A stored token; the token itself is not stored.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Token {
    /// The row; never used for another token.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// The rights of its bearer: `metrics`, `read`, `operate`, `admin` or `destination:NAME`.
    #[schema(value_type = String)]
    pub rights: Rights,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it ends; null if it never does.
    pub expires_at: Option<Timestamp>,
    /// When it was last used, to the minute; null if it never was.
    pub last_used_at: Option<Timestamp>,
}

from_rows! { Token of ApiTokenRow { id, name, rights, created_at, expires_at, last_used_at } }

/// A token to create.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// Its name: 1 to 60 characters, unique.
    #[schema(min_length = 1, max_length = 60)]
    pub name: String,
    /// The rights of its bearer: `metrics`, `read`, `operate`, `admin`, or `destination:NAME` for
    /// the program behind a destination of the kind `list`.
    #[schema(value_type = String, pattern = "^(metrics|read|operate|admin|destination:[a-z0-9_-]{1,40})$")]
    pub rights: Rights,
    /// When it ends, such as `2027-01-31T00:00:00Z`; absent if it never does.
    #[schema(format = DateTime)]
    pub expires_at: Option<String>,
}

/// A created token. It is a secret, so it can't be printed by accident.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct CreatedToken {
    /// Its row.
    pub id: i64,
    /// The token, shown this once.
    pub token: String,
}

/// A revoked token.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
pub struct RevokedToken {
    /// Its row.
    pub id: i64,
}

/// The link to create.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LoginLinkRequest {
    /// The rights of the browser's session: `read`, `operate` or `admin`.
    #[schema(value_type = String, pattern = "^(read|operate|admin)$")]
    pub rights: Rights,
}

/// A link that lets one browser in. It is a secret, so it can't be printed by accident.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct LoginLink {
    /// Path and query of the link, on this listener. A secret until it is used.
    pub path: String,
    /// When it ends, unless it is used before.
    pub expires_at: Timestamp,
}
