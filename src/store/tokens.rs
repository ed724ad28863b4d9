//! Tokens of the admin listener.

use serde::{Deserialize, Serialize};

use crate::domain::Timestamp;

/// Maximum number of tokens.
pub const MAX_API_TOKENS: i64 = 64;

/// The rights of a token's bearer.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    clap::ValueEnum,
    utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Rights {
    /// See everything, including message bodies, and change nothing
    Read,
    /// Change things as well
    Operate,
}

impl Rights {
    /// Both, the lesser one first.
    pub const ALL: [Self; 2] = [Self::Read, Self::Operate];

    /// Returns the right's name in the store, on the command line and in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Operate => "operate",
        }
    }
}

/// A token to be stored, without the token itself.
#[derive(Clone, Debug)]
pub struct NewApiToken {
    /// Its name; unique.
    pub name: String,
    /// The rights of its bearer.
    pub rights: Rights,
    /// The SHA-256 digest of the token.
    pub hash: [u8; 32],
    /// The present moment.
    pub now: Timestamp,
}

/// The result of storing a [`NewApiToken`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiTokenMade {
    /// It was stored as this row.
    Row(i64),
    /// Another token has the name.
    NameTaken,
    /// There are [`MAX_API_TOKENS`] already.
    TooMany,
}

/// A stored token.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct ApiTokenRow {
    /// The row; never used for another token.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// The rights of its bearer.
    pub rights: Rights,
    /// When it was created.
    pub created_at: Timestamp,
}
