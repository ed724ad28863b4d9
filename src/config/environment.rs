//! Environment variables: the service's own, and those that programs may receive.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

/// Prefix of every environment variable of the service.
pub const VARIABLE_PREFIX: &str = "IVESK_WEBHOOK_";

/// Returns the environment variable of a setting: `public.url` is `IVESK_WEBHOOK_PUBLIC_URL`.
pub(super) fn variable_of(name: &str) -> String {
    let name = name.replace(['.', '-'], "_").to_ascii_uppercase();
    format!("{VARIABLE_PREFIX}{name}")
}

/// Returns the variables in `all` that are not meant as settings: Kubernetes and Docker inject
/// them for a service or a link whose name begins with this program's.
pub(super) fn injected(all: &BTreeMap<String, String>) -> BTreeSet<&str> {
    let services: BTreeSet<&str> = all
        .iter()
        .filter_map(|(name, value)| service_of(name, value))
        .collect();
    let is_injected = |name: &&String, value: &str| {
        service_of(name, value).is_some()
            || services.iter().any(|service| {
                name.strip_prefix(service)
                    .and_then(|rest| rest.strip_prefix('_'))
                    .is_some_and(|rest| rest.starts_with("ENV_") || describes_port(rest))
            })
    };
    all.iter()
        .filter(|(name, _)| name.starts_with(VARIABLE_PREFIX))
        .filter(|(name, value)| is_injected(name, value))
        .map(|(name, _)| name.as_str())
        .collect()
}

/// Returns the service whose address or name this variable holds.
fn service_of<'a>(name: &'a str, value: &str) -> Option<&'a str> {
    if let Some(service) = name.strip_suffix("_SERVICE_HOST") {
        return value.parse::<IpAddr>().ok().map(|_| service);
    }
    if let Some(service) = name.strip_suffix("_PORT") {
        return is_port_url(value).then_some(service);
    }
    // Docker: `/container/alias`.
    let service = name.strip_suffix("_NAME")?;
    let alias = value
        .strip_prefix('/')
        .and_then(|path| path.split_once('/'));
    alias.is_some().then_some(service)
}

/// Returns true if the rest of a name, after its service's, describes a port: `SERVICE_PORT`,
/// `SERVICE_PORT_HTTP`, `PORT_8080_TCP`, `PORT_8080_TCP_ADDR`.
fn describes_port(rest: &str) -> bool {
    if rest == "SERVICE_PORT" || rest.starts_with("SERVICE_PORT_") {
        return true;
    }
    let Some((number, rest)) = rest
        .strip_prefix("PORT_")
        .and_then(|rest| rest.split_once('_'))
    else {
        return false;
    };
    let (protocol, part) = rest.split_once('_').unwrap_or((rest, "ADDR"));
    number.parse::<u16>().is_ok()
        && matches!(protocol, "TCP" | "UDP" | "SCTP")
        && matches!(part, "PROTO" | "PORT" | "ADDR" | "START" | "END")
}

/// Returns true for an address such as `tcp://10.96.0.12:8080`.
fn is_port_url(value: &str) -> bool {
    ["tcp://", "udp://", "sctp://"]
        .iter()
        .any(|scheme| value.starts_with(scheme))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn what_kubernetes_and_docker_inject_is_recognized() {
        let all = variables(&[
            ("IVESK_WEBHOOK_SERVICE_HOST", "10.96.0.12"),
            ("IVESK_WEBHOOK_SERVICE_PORT", "8080"),
            ("IVESK_WEBHOOK_SERVICE_PORT_HTTP", "8080"),
            ("IVESK_WEBHOOK_PORT", "tcp://10.96.0.12:8080"),
            ("IVESK_WEBHOOK_PORT_8080_TCP", "tcp://10.96.0.12:8080"),
            ("IVESK_WEBHOOK_PORT_8080_TCP_PROTO", "tcp"),
            ("IVESK_WEBHOOK_PORT_8080_TCP_PORT", "8080"),
            ("IVESK_WEBHOOK_PORT_8080_TCP_ADDR", "10.96.0.12"),
            ("IVESK_WEBHOOK_ADMIN_SERVICE_HOST", "fd00::12"),
            ("IVESK_WEBHOOK_ADMIN_SERVICE_PORT", "8081"),
            ("IVESK_WEBHOOK_DB_NAME", "/web/ivesk_webhook_db"),
            ("IVESK_WEBHOOK_DB_ENV_POSTGRES_PASSWORD", "secret"),
        ]);
        assert_eq!(injected(&all).len(), all.len());
    }

    #[test]
    fn a_misspelled_setting_is_none_of_them() {
        for (name, value) in [
            ("IVESK_WEBHOOK_PUBLIC_PORT", "8080"),
            ("IVESK_WEBHOOK_SERVICE_HOST", "hooks.example.lt"),
            ("IVESK_WEBHOOK_SERVICE_PORT", "8080"),
            ("IVESK_WEBHOOK_PORT_8080_TCP_ADDR", "10.96.0.12"),
            ("IVESK_WEBHOOK_ACCOUNT_NAME", "default"),
            ("IVESK_WEBHOOK_ENV_API_KEY", "key"),
        ] {
            let all = variables(&[(name, value)]);
            assert!(injected(&all).is_empty(), "{name}");
        }
        let beside = variables(&[
            ("IVESK_WEBHOOK_SERVICE_HOST", "10.96.0.12"),
            ("IVESK_WEBHOOK_PUBLIK_URL", "https://x"),
            ("IVESK_WEBHOOK_PORT_8080_TCP_ADRESS", "10.96.0.12"),
        ]);
        assert_eq!(injected(&beside).len(), 1);
    }
}
