//! Which preset of `api.exported_path` is right (vendor-api U1).
//!
//! Read-only: each preset is asked for the company and for one that nobody has. A
//! preset is right only where the two answers differ: an address that ignores the
//! company would give one company's documents for another's.

use secrecy::SecretString;

use super::Finding;
use crate::config::{ApiConfig, ExportedPath};
use crate::domain::{Company, Queue};
use crate::ivesk::{ApiError, Client, document};

/// The presets' names, as the settings take them, with their templates.
const PRESETS: [(&str, &str); 4] = [
    ("path", "/exported/{company}"),
    ("query", "/exported?companycode={company}"),
    ("prefix", "/{company}/exported"),
    ("none", "/exported"),
];

/// A code that no company has: Lithuanian codes have seven or nine digits.
const NOBODY: &str = "990000000000099";

/// The check's name.
const PROBE: &str = "exported_path_probe";

/// What an address answered to.
enum Answer {
    /// Documents, by their ids and versions.
    Documents(Vec<(String, String)>),
    /// A refusal.
    Refused(ApiError),
}

/// Tries every preset for `company`, and compares with what the settings say.
pub async fn exported_path(api: &ApiConfig, key: &SecretString, company: &Company) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut right = Vec::new();
    let mut refusals_of_key = 0;
    for (name, template) in PRESETS {
        let (tried, finding) = one(api, key, company, name, template).await;
        match tried {
            Tried::Right => right.push((name, template)),
            Tried::KeyRefused => refusals_of_key += 1,
            Tried::NotRight => {}
        }
        findings.push(finding);
    }
    if refusals_of_key == PRESETS.len() {
        return vec![
            Finding::skipped(
                PROBE,
                "every address answers 401, so none can be told from another",
            )
            .because("with a key that is not taken nothing can be found out")
            .fix("put the key right, then run this again"),
        ];
    }
    findings.push(conclusion(api, &right));
    findings
}

/// What a preset turned out to be.
enum Tried {
    Right,
    NotRight,
    /// It was answered 401, as a wrong address may be and a wrong key always is.
    KeyRefused,
}

async fn one(
    api: &ApiConfig,
    key: &SecretString,
    company: &Company,
    name: &str,
    template: &str,
) -> (Tried, Finding) {
    let mut api = api.clone();
    api.exported_path = Some(ExportedPath {
        template: template.to_owned(),
    });
    let client = match Client::new(&api, key.clone()) {
        Ok(client) => client,
        Err(error) => {
            return (Tried::NotRight, Finding::wrong(PROBE, error.to_string()));
        }
    };
    let Ok(nobody) = Company::parse(NOBODY) else {
        return (Tried::NotRight, Finding::skipped(PROBE, name));
    };
    let ours = ask(&client, company).await;
    let found = |text: String| Finding::note(PROBE, format!("{name}: {text}"));
    let documents = match ours {
        Answer::Documents(documents) => documents,
        Answer::Refused(error @ ApiError::Unreachable(_)) => {
            let finding = Finding::unreachable(PROBE, format!("{name}: {error}"));
            return (
                Tried::NotRight,
                finding
                    .because("nothing can be tried")
                    .fix("check `api.url` and the way there"),
            );
        }
        Answer::Refused(error @ ApiError::Status { status: 401, .. }) => {
            return (Tried::KeyRefused, found(format!("no: {error}")));
        }
        Answer::Refused(error) => return (Tried::NotRight, found(format!("no: {error}"))),
    };
    let count = documents.len();
    match ask(&client, &nobody).await {
        Answer::Refused(error @ ApiError::Unreachable(_)) => {
            (Tried::NotRight, found(format!("not decided: {error}")))
        }
        Answer::Refused(ApiError::Status { status, .. }) if status >= 500 || status == 429 => (
            Tried::NotRight,
            found(format!(
                "not decided: {status} for a company that nobody has"
            )),
        ),
        Answer::Refused(error) => (
            Tried::Right,
            Finding::ok(
                PROBE,
                format!(
                    "{name}: {count} documents for {company}; for a company that nobody has: {error}"
                ),
            ),
        ),
        Answer::Documents(others) if others == documents && count == 0 => (
            Tried::NotRight,
            found(format!(
                "not decided: no documents for {company}, nor for a company that nobody has; try one that has exported documents"
            )),
        ),
        Answer::Documents(others) if others == documents => (
            Tried::NotRight,
            found(format!(
                "no: the same {count} documents for {company} and for a company that nobody has, so the company is ignored"
            )),
        ),
        Answer::Documents(others) if others.is_empty() => (
            Tried::Right,
            Finding::ok(
                PROBE,
                format!(
                    "{name}: {count} documents for {company}, none for a company that nobody has"
                ),
            ),
        ),
        Answer::Documents(others) => (
            Tried::NotRight,
            found(format!(
                "no: {} documents for a company that nobody has",
                others.len()
            )),
        ),
    }
}

async fn ask(client: &Client, company: &Company) -> Answer {
    match client.page(Queue::Exported, company, None).await {
        Ok(page) => {
            let read = page.documents.iter();
            let read = read.filter_map(|raw| document::read(Queue::Exported, raw).ok());
            Answer::Documents(read.map(|one| (one.id, one.version)).collect())
        }
        Err(error) => Answer::Refused(error),
    }
}

fn conclusion(api: &ApiConfig, right: &[(&str, &str)]) -> Finding {
    const CHECK: &str = "exported_path";
    let set = api
        .exported_path
        .as_ref()
        .map(|path| path.template.as_str());
    match right {
        [(name, template)] if set == Some(template) => {
            Finding::ok(CHECK, format!("`api.exported_path` is right: {name}"))
        }
        [(name, _)] => Finding::wrong(
            CHECK,
            match set {
                Some(set) => format!("`api.exported_path` is {set}, and {name} is what answers"),
                None => format!("`api.exported_path` is not set, and {name} is what answers"),
            },
        )
        .because("the exported queue is not pulled until it is right")
        .fix(format!("set `api.exported_path = \"{name}\"`, then restart `serve`")),
        [] => Finding::wrong(CHECK, "no preset gives this company's documents and refuses a company that nobody has")
            .because("the exported queue is not pulled until its address is known")
            .fix("try --company with a code that has exported documents; else look the address up at app.ivesk.lt/api/docs and set `api.exported_path` to a template with {company}"),
        several => {
            let names: Vec<&str> = several.iter().map(|(name, _)| *name).collect();
            let finding = Finding::ok(CHECK, format!("several presets are right: {}", names.join(", ")));
            if several.iter().any(|(_, template)| set == Some(template)) {
                finding
            } else {
                Finding::wrong(CHECK, finding.found)
                    .because("the exported queue is not pulled until it is set")
                    .fix(format!("set `api.exported_path = \"{}\"`", names[0]))
            }
        }
    }
}
