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
    for (name, template) in PRESETS {
        let (accepted, finding) = one(api, key, company, name, template).await;
        if accepted {
            right.push((name, template));
        }
        findings.push(finding);
    }
    findings.push(conclusion(api, &right));
    findings
}

async fn one(
    api: &ApiConfig,
    key: &SecretString,
    company: &Company,
    name: &str,
    template: &str,
) -> (bool, Finding) {
    let mut api = api.clone();
    api.exported_path = Some(ExportedPath {
        template: template.to_owned(),
    });
    let client = match Client::new(&api, key.clone()) {
        Ok(client) => client,
        Err(error) => {
            return (
                false,
                Finding::wrong("exported_path_probe", error.to_string()),
            );
        }
    };
    let Ok(nobody) = Company::parse(NOBODY) else {
        return (false, Finding::skipped("exported_path_probe", name));
    };
    let ours = ask(&client, company).await;
    let found = |text: String| Finding::note("exported_path_probe", format!("{name}: {text}"));
    let documents = match ours {
        Answer::Documents(documents) => documents,
        Answer::Refused(error @ ApiError::Unreachable(_)) => {
            let finding = Finding::unreachable("exported_path_probe", format!("{name}: {error}"));
            return (
                false,
                finding
                    .because("nothing can be tried")
                    .mend("check `api.url` and the way there"),
            );
        }
        Answer::Refused(error) => return (false, found(format!("no: {error}"))),
    };
    let count = documents.len();
    match ask(&client, &nobody).await {
        Answer::Refused(error @ ApiError::Unreachable(_)) => {
            (false, found(format!("not decided: {error}")))
        }
        Answer::Refused(ApiError::Status { status, .. }) if status >= 500 || status == 429 => (
            false,
            found(format!(
                "not decided: {status} for a company that nobody has"
            )),
        ),
        Answer::Refused(error) => (
            true,
            Finding::ok(
                "exported_path_probe",
                format!(
                    "{name}: {count} documents for {company}; for a company that nobody has: {error}"
                ),
            ),
        ),
        Answer::Documents(others) if others == documents && count == 0 => (
            false,
            found(format!(
                "not decided: no documents for {company}, nor for a company that nobody has; try one that has exported documents"
            )),
        ),
        Answer::Documents(others) if others == documents => (
            false,
            found(format!(
                "no: the same {count} documents for {company} and for a company that nobody has, so the company is ignored"
            )),
        ),
        Answer::Documents(others) if others.is_empty() => (
            true,
            Finding::ok(
                "exported_path_probe",
                format!(
                    "{name}: {count} documents for {company}, none for a company that nobody has"
                ),
            ),
        ),
        Answer::Documents(others) => (
            false,
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
        .mend(format!("set `api.exported_path = \"{name}\"`, then restart `serve`")),
        [] => Finding::wrong(CHECK, "no preset gives this company's documents and refuses a company that nobody has")
            .because("the exported queue is not pulled until its address is known")
            .mend("try --company with a code that has exported documents; else look the address up at app.ivesk.lt/api/docs and set `api.exported_path` to a template with {company}"),
        several => {
            let names: Vec<&str> = several.iter().map(|(name, _)| *name).collect();
            let finding = Finding::ok(CHECK, format!("several presets are right: {}", names.join(", ")));
            if several.iter().any(|(_, template)| set == Some(template)) {
                finding
            } else {
                Finding::wrong(CHECK, finding.found)
                    .because("the exported queue is not pulled until it is set")
                    .mend(format!("set `api.exported_path = \"{}\"`", names[0]))
            }
        }
    }
}
