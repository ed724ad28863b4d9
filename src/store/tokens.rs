//! Tokens of the admin listener.

use serde::{Deserialize, Serialize};

use crate::domain::Timestamp;

/// Tokens that there may be at once.
pub const MAX_API_TOKENS: i64 = 64;

/// What the bearer of a token may do.
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
    /// See everything, message bodies among it, and change nothing
    Read,
    /// Change things as well
    Operate,
}

impl Rights {
    /// Both, the lesser one first.
    pub const ALL: [Self; 2] = [Self::Read, Self::Operate];

    /// The right's name in the store, on the command line and in answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Operate => "operate",
        }
    }
}

/// A token that is to be known; the token itself never comes here.
#[derive(Clone, Debug)]
pub struct NewApiToken {
    /// What people call it; unique.
    pub name: String,
    /// What its bearer may do.
    pub rights: Rights,
    /// SHA-256 of it.
    pub hash: [u8; 32],
    /// The present moment.
    pub now: Timestamp,
}

/// What became of a [`NewApiToken`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiTokenMade {
    /// It is known, as this row.
    Row(i64),
    /// Another one has the name.
    NameTaken,
    /// There are [`MAX_API_TOKENS`] already.
    TooMany,
}

/// A token as people see it.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct ApiTokenRow {
    /// The row; never given to another token.
    pub id: i64,
    /// What people call it.
    pub name: String,
    /// What its bearer may do.
    pub rights: Rights,
    /// When it was made.
    pub created_at: Timestamp,
}
