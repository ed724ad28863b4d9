//! Environment variables: the service's own, and those that programs may receive.

use std::collections::BTreeMap;
use std::fmt;

/// Prefix of every environment variable of the service.
pub const VARIABLE_PREFIX: &str = "IVESK_WEBHOOK_";

/// Returns the environment variable of a setting: `public.url` is `IVESK_WEBHOOK_PUBLIC_URL`.
pub(super) fn variable_of(name: &str) -> String {
    let name = name.replace(['.', '-'], "_").to_ascii_uppercase();
    format!("{VARIABLE_PREFIX}{name}")
}

/// The process's variables without the service's own, which hold secrets.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// Keeps the variables of `all` that programs may receive.
    pub(super) fn of(all: &BTreeMap<String, String>) -> Self {
        let others = all
            .iter()
            .filter(|(name, _)| !name.starts_with(VARIABLE_PREFIX));
        Self(
            others
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
        )
    }

    /// Returns the variables by name.
    pub fn variables(&self) -> &BTreeMap<String, String> {
        &self.0
    }
}

impl fmt::Debug for Environment {
    /// Prints neither names nor values: they may be secrets of other programs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{} variables]", self.0.len())
    }
}
