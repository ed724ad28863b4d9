//! Who may do what: one table of every route with the right that it needs.
//!
//! A test compares it with the OpenAPI document.

use axum::http::Method;

use self::Needs::{Admin, List, Metrics, Operate, Read};
use crate::store::Rights;

/// The right that a route needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Needs {
    /// [`Rights::Metrics`]
    Metrics,
    /// [`Rights::Read`]
    Read,
    /// [`Rights::Operate`]
    Operate,
    /// [`Rights::Admin`]
    Admin,
    /// [`Rights::Operate`], or [`Rights::Destination`] of the destination that the request
    /// names; the handler compares the name.
    List,
}

impl Needs {
    /// Returns the right's name; `destination:NAME` for [`Needs::List`].
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Metrics => "metrics",
            Self::Read => "read",
            Self::Operate => "operate",
            Self::Admin => "admin",
            Self::List => "destination:NAME",
        }
    }

    /// Returns true if `rights` are enough.
    pub(super) fn met_by(self, rights: &Rights) -> bool {
        match self {
            Self::Metrics => rights.include(&Rights::Metrics),
            Self::Read => rights.include(&Rights::Read),
            Self::Operate => rights.include(&Rights::Operate),
            Self::Admin => rights.include(&Rights::Admin),
            Self::List => {
                matches!(rights, Rights::Destination(_)) || rights.include(&Rights::Operate)
            }
        }
    }
}

/// A route.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rule {
    method: Verb,
    path: &'static str,
    /// The right that it needs.
    pub(super) needs: Needs,
    /// The action's name in the audit list; `None` if it is not listed there: it changes
    /// nothing, or is the daily work of a program.
    pub(super) action: Option<&'static str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Get,
    Post,
}

const fn get(path: &'static str, needs: Needs) -> Rule {
    Rule {
        method: Verb::Get,
        path,
        needs,
        action: None,
    }
}

/// A POST that is the daily work of a program, or changes nothing that remains.
const fn work(path: &'static str, needs: Needs) -> Rule {
    Rule {
        method: Verb::Post,
        ..get(path, needs)
    }
}

const fn post(path: &'static str, needs: Needs, action: &'static str) -> Rule {
    Rule {
        action: Some(action),
        ..work(path, needs)
    }
}

/// Every route that needs a right.
const RULES: [Rule; 61] = [
    get("/metrics", Metrics),
    get("/v1/status", Read),
    get("/v1/activity", Read),
    get("/v1/openapi.json", Read),
    work("/v1/challenge", Operate),
    work("/v1/doctor", Operate),
    post("/v1/backup", Admin, "store backup"),
    get("/v1/feeds", Read),
    post("/v1/feeds/pause", Operate, "feeds pause"),
    post("/v1/feeds/resume", Operate, "feeds resume"),
    post("/v1/feeds/remove", Operate, "feeds remove"),
    post("/v1/feeds/start-at", Operate, "feeds start-at"),
    get("/v1/feeds/gaps", Read),
    post(
        "/v1/feeds/gaps/{id}/dismiss",
        Operate,
        "feeds gaps --dismiss",
    ),
    post("/v1/pull", Operate, "pull"),
    get("/v1/subscriptions", Read),
    post(
        "/v1/subscriptions/requested",
        Operate,
        "subscriptions create",
    ),
    post(
        "/v1/subscriptions/{id}/approve",
        Operate,
        "subscriptions approve",
    ),
    post(
        "/v1/subscriptions/{id}/restore",
        Operate,
        "subscriptions restore",
    ),
    // Takes back what an action just before has recorded.
    work("/v1/subscriptions/{id}/withdraw", Operate),
    post("/v1/subscriptions/revoke", Operate, "subscriptions revoke"),
    get("/v1/documents/search", Read),
    get("/v1/documents/trace", Read),
    post("/v1/documents/erase", Admin, "documents erase"),
    // Fields that may hold links need more.
    get("/v1/documents/export", Read),
    get("/v1/documents/fields", Read),
    // Documents contain links to files.
    get("/v1/documents", List),
    work("/v1/documents/{id}/outcome", List),
    get("/v1/destinations", Read),
    get("/v1/destinations/{name}/lanes", Read),
    get("/v1/destinations/{name}/start", Read),
    post(
        "/v1/destinations/{name}/start",
        Operate,
        "destinations start",
    ),
    post("/v1/destinations/{name}/stop", Operate, "destinations stop"),
    post(
        "/v1/destinations/{name}/pause",
        Operate,
        "destinations pause",
    ),
    post(
        "/v1/destinations/{name}/resume",
        Operate,
        "destinations resume",
    ),
    post("/v1/destinations/{name}/retry", Operate, "deliveries retry"),
    post("/v1/destinations/{name}/skip", Operate, "deliveries skip"),
    get("/v1/deliveries", Read),
    get("/v1/import-errors", Read),
    get("/v1/import-errors/paused", Read),
    post("/v1/import-errors/retry", Operate, "import-errors retry"),
    post(
        "/v1/import-errors/discard",
        Operate,
        "import-errors discard",
    ),
    post(
        "/v1/import-errors/{id}/retry",
        Operate,
        "import-errors retry",
    ),
    post(
        "/v1/import-errors/{id}/discard",
        Operate,
        "import-errors discard",
    ),
    get("/v1/quarantine", Read),
    // Messages contain tokens and links that confirm or end a subscription.
    get("/v1/quarantine/{id}", Operate),
    post("/v1/quarantine/{id}/retry", Operate, "quarantine retry"),
    get("/v1/notifications", Read),
    get("/v1/notifications/{id}", Operate),
    get("/v1/uploads", Read),
    work("/v1/uploads", Operate),
    work("/v1/uploads/{id}/location", Operate),
    work("/v1/uploads/{id}/end", Operate),
    post("/v1/uploads/{id}/settle", Operate, "uploads settle"),
    get("/v1/alarms", Read),
    get("/v1/certificates", Read),
    get("/v1/audit", Read),
    get("/v1/tokens", Admin),
    post("/v1/tokens", Admin, "tokens create"),
    post("/v1/tokens/{id}/revoke", Admin, "tokens revoke"),
    post("/v1/login-links", Admin, "open"),
];

/// Returns the rule of a route; `None` if the path does not have the method.
pub(super) fn rule(method: &Method, path: &str) -> Option<Rule> {
    let verb = match *method {
        Method::GET | Method::HEAD => Some(Verb::Get),
        Method::POST => Some(Verb::Post),
        _ => None,
    };
    let mut rules = RULES.iter();
    rules
        .find(|rule| Some(rule.method) == verb && rule.path == path)
        .copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_location_of_an_upload_is_not_audited() {
        // It is a secret, and the audit list and the log show an action's fields.
        let rule = rule(&Method::POST, "/v1/uploads/{id}/location").expect("a route");
        assert_eq!(rule.action, None);
    }
}
