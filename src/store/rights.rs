//! The rights of those who use the admin API.

use std::fmt;
use std::str::FromStr;

use super::columns::UnknownValue;
use super::engine::{Column, Columns};
use super::error::Result as StoreResult;
use crate::domain::DestinationName;

/// What the bearer of a token or the owner of a session may do.
///
/// `metrics` < `read` < `operate` < `admin`: each may also do what those before it may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rights {
    /// Read the metrics, and nothing else.
    Metrics,
    /// See everything except secrets: no bodies of messages and documents, which contain
    /// tokens and links.
    Read,
    /// See bodies too, and operate the service.
    Operate,
    /// Create and revoke tokens, and write backups as well.
    Admin,
    /// Read the list of one destination and report outcomes to it, and nothing else.
    Destination(DestinationName),
}

/// The prefix of [`Rights::Destination`] in text.
const DESTINATION: &str = "destination:";

/// Every form of the rights, for messages.
pub const RIGHTS_FORMS: &str = "`metrics`, `read`, `operate`, `admin` or `destination:NAME`";

/// The error of a text that is no right.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not one of {RIGHTS_FORMS}")]
pub struct UnknownRight(String);

impl Rights {
    /// The rights that include each other, the least first.
    pub const LADDER: [Self; 4] = [Self::Metrics, Self::Read, Self::Operate, Self::Admin];

    /// Returns true if these rights include `needed`.
    pub fn include(&self, needed: &Self) -> bool {
        let step = |rights: &Self| Self::LADDER.iter().position(|step| step == rights);
        match (step(self), step(needed)) {
            (Some(has), Some(needs)) => has >= needs,
            // A destination's program needs a token of its own, or one that operates all.
            (Some(has), None) => Some(has) >= step(&Self::Operate),
            (None, _) => self == needed,
        }
    }
}

impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Metrics => f.write_str("metrics"),
            Self::Read => f.write_str("read"),
            Self::Operate => f.write_str("operate"),
            Self::Admin => f.write_str("admin"),
            Self::Destination(name) => write!(f, "{DESTINATION}{name}"),
        }
    }
}

impl FromStr for Rights {
    type Err = UnknownRight;

    fn from_str(text: &str) -> Result<Self, UnknownRight> {
        let unknown = || UnknownRight(text.chars().take(60).collect());
        match text {
            "metrics" => Ok(Self::Metrics),
            "read" => Ok(Self::Read),
            "operate" => Ok(Self::Operate),
            "admin" => Ok(Self::Admin),
            _ => text
                .strip_prefix(DESTINATION)
                .and_then(|name| DestinationName::parse(name).ok())
                .map(Self::Destination)
                .ok_or_else(unknown),
        }
    }
}

impl Column for Rights {
    fn read(columns: &mut Columns<'_>) -> StoreResult<Self> {
        let rights = columns.text()?.parse();
        Ok(rights.map_err(|_| UnknownValue("right"))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rights(text: &str) -> Rights {
        text.parse().expect("a right")
    }

    #[test]
    fn each_right_includes_those_below_it_and_no_other() {
        let ladder = ["metrics", "read", "operate", "admin"];
        for (has, own) in ladder.iter().enumerate() {
            for (needs, needed) in ladder.iter().enumerate() {
                let expected = has >= needs;
                let included = rights(own).include(&rights(needed));
                assert_eq!(included, expected, "{own} {needed}");
            }
            let list = rights("destination:erp");
            assert_eq!(rights(own).include(&list), has >= 2, "{own}");
            assert!(!list.include(&rights(own)), "{own}");
        }
        let list = rights("destination:erp");
        assert!(list.include(&list));
        assert!(!list.include(&rights("destination:archive")));
    }

    #[test]
    fn rights_are_read_back_from_their_text() {
        for text in ["metrics", "read", "operate", "admin", "destination:erp-2"] {
            assert_eq!(rights(text).to_string(), text);
        }
        for wrong in ["", "root", "Read", "destination:", "destination:A B"] {
            assert!(wrong.parse::<Rights>().is_err(), "{wrong}");
        }
    }
}
