//! The service's own variables, and those that programs may be given.

use std::collections::BTreeMap;
use std::fmt;

/// What the name of every environment variable of ours begins with.
pub const VARIABLE_PREFIX: &str = "IVESK_WEBHOOK_";

/// The environment variable of a setting: `public.url` is `IVESK_WEBHOOK_PUBLIC_URL`.
pub(super) fn variable_of(name: &str) -> String {
    let name = name.replace(['.', '-'], "_").to_ascii_uppercase();
    format!("{VARIABLE_PREFIX}{name}")
}

/// Variables of the process, without those of ours, which hold secrets.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// What of `all` may be passed on.
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

    /// The variables by name.
    pub fn variables(&self) -> &BTreeMap<String, String> {
        &self.0
    }
}

impl fmt::Debug for Environment {
    /// Without names and values: others' secrets stand there too.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{} variables]", self.0.len())
    }
}
