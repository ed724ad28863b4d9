//! Finds the right preset of `api.exported_path` (vendor-api U1).
//!
//! Read-only: each preset is requested for the company and for one that nobody has. A
//! preset is right only if the two responses differ: an address that ignores the company
//! would list one company's documents as another's.

use secrecy::SecretString;

use super::Check;
use crate::config::{ApiConfig, Config, ExportedPath};
use crate::domain::{Account, Company, Queue};
use crate::ivesk::{ApiError, Client, document};

/// The presets' names, as in the settings, with their templates.
const PRESETS: [(&str, &str); 4] = [
    ("path", "/exported/{company}"),
    ("query", "/exported?companycode={company}"),
    ("prefix", "/{company}/exported"),
    ("none", "/exported"),
];

/// Name of the check of each preset.
const PROBE: &str = "exported_path_probe";

/// The ids and versions that an address lists.
type Documents = Vec<(String, String)>;

/// Finds the exported queue's path for `company` of `account`.
pub async fn company(config: &Config, account: &Account, company: &Company) -> Vec<Check> {
    let mut checks = Vec::new();
    let doubt = company.doubt();
    if let Some(likely) = doubt.as_ref().and_then(|doubt| doubt.likely.as_ref()) {
        return vec![
            Check::fail(
                "company_code",
                company
                    .doubt()
                    .map(|doubt| doubt.to_string())
                    .unwrap_or_default(),
            )
            .because("Įvesk.lt has no documents of a company that it does not know")
            .fix(format!("run `ivesk-webhook doctor --company {likely}`")),
        ];
    }
    if let Some(doubt) = doubt {
        checks.push(
            Check::note("company_code", doubt.to_string())
                .because("Įvesk.lt has no documents of a company that it does not know")
                .fix("run this again with the right code"),
        );
    }
    let settings = config.accounts.get(account);
    match settings.and_then(|account| account.api_key.as_ref()) {
        Some(key) => checks.extend(exported_path(&config.api, key, company).await),
        None => checks.push(
            Check::fail(
                PROBE,
                format!("the account `{account}` has no API key, so no address can be tried"),
            )
            .because("Įvesk.lt answers nobody without a key")
            .fix(format!(
                "set IVESK_WEBHOOK_API_KEY or `accounts.{account}.api_key_file`, restart `serve` if it runs, then run \
                 this again"
            )),
        ),
    }
    checks
}

/// Tries every preset for `company`, and compares the result with the settings.
async fn exported_path(api: &ApiConfig, key: &SecretString, company: &Company) -> Vec<Check> {
    let mut checks = Vec::new();
    let mut right = Vec::new();
    let mut keys_refused = 0;
    for (name, template) in PRESETS {
        let (result, check) = try_preset(api, key, company, name, template).await;
        match result {
            PresetResult::Right => right.push((name, template)),
            PresetResult::KeyRefused => keys_refused += 1,
            PresetResult::Wrong => {}
        }
        checks.push(check);
    }
    if keys_refused == PRESETS.len() {
        return vec![
            Check::skipped(
                PROBE,
                "every preset is answered 401, so the right one can't be determined",
            )
            .because("nothing can be found out with a key that Įvesk.lt refuses")
            .fix("replace the key, then run this again"),
        ];
    }
    checks.push(conclusion(api, &right));
    checks
}

/// The result of trying a preset.
enum PresetResult {
    /// The preset lists this company's documents only.
    Right,
    /// The preset is wrong, or could not be decided.
    Wrong,
    /// The response was 401: always for a wrong key, and maybe for a wrong address.
    KeyRefused,
}

async fn try_preset(
    api: &ApiConfig,
    key: &SecretString,
    company: &Company,
    name: &str,
    template: &str,
) -> (PresetResult, Check) {
    let mut api = api.clone();
    api.exported_path = Some(ExportedPath {
        template: template.to_owned(),
    });
    let client = match Client::new(&api, key.clone()) {
        Ok(client) => client,
        Err(error) => {
            return (PresetResult::Wrong, Check::fail(PROBE, error.to_string()));
        }
    };
    let nobody = Company::nobody();
    let wrong = |found: String| {
        let check = Check::note(PROBE, format!("{name}: {found}"));
        (PresetResult::Wrong, check)
    };
    let documents = match list(&client, company).await {
        Ok(documents) => documents,
        Err(error @ ApiError::Unreachable(_)) => {
            let check = Check::unreachable(PROBE, format!("{name}: {error}"))
                .because("the preset can't be tried")
                .fix("check `api.url` and this machine's connection to it");
            return (PresetResult::Wrong, check);
        }
        Err(error @ ApiError::Status { status: 401, .. }) => {
            return (PresetResult::KeyRefused, wrong(format!("no: {error}")).1);
        }
        Err(error) => return wrong(format!("no: {error}")),
    };
    let count = documents.len();
    let right = |found: String| {
        let check = Check::pass(
            PROBE,
            format!("{name}: {count} documents for {company}, {found}"),
        );
        (PresetResult::Right, check)
    };
    match list(&client, &nobody).await {
        Err(error @ ApiError::Unreachable(_)) => wrong(format!("undecided: {error}")),
        Err(ApiError::Status { status, .. }) if status >= 500 || status == 429 => {
            wrong(format!("undecided: {status} for a company that nobody has"))
        }
        Err(error) => right(format!("and for a company that nobody has: {error}")),
        Ok(others) if others == documents && count == 0 => wrong(format!(
            "undecided: no documents for {company}, nor for a company that nobody has; try a \
             company that has exported documents"
        )),
        Ok(others) if others == documents => wrong(format!(
            "no: the same {count} documents for {company} and for a company that nobody has, so \
             the company is ignored"
        )),
        Ok(others) if others.is_empty() => right("none for a company that nobody has".to_owned()),
        Ok(others) => wrong(format!(
            "no: {} documents for a company that nobody has",
            others.len()
        )),
    }
}

async fn list(client: &Client, company: &Company) -> Result<Documents, ApiError> {
    let page = client.page(Queue::Exported, company, None).await?;
    let documents = page.documents.iter();
    let documents = documents.filter_map(|raw| document::read(Queue::Exported, raw).ok());
    Ok(documents
        .map(|document| (document.version_key(), document.id))
        .collect())
}

fn conclusion(api: &ApiConfig, right: &[(&str, &str)]) -> Check {
    const CHECK: &str = "exported_path";
    let configured = api
        .exported_path
        .as_ref()
        .map(|path| path.template.as_str());
    match right {
        [(name, template)] if configured == Some(template) => {
            Check::pass(CHECK, format!("`api.exported_path` is right: {name}"))
        }
        [(name, _)] => Check::fail(
            CHECK,
            match configured {
                Some(path) => format!("`api.exported_path` is {path}, but {name} is right"),
                None => format!("`api.exported_path` is not set; {name} is right"),
            },
        )
        .because("the exported queue is not pulled until it is right")
        .fix(format!("set `api.exported_path = \"{name}\"`, then restart `serve`")),
        [] => Check::fail(CHECK, "no preset lists this company's documents and refuses a company that nobody has")
            .because("the exported queue is not pulled until its address is known")
            .fix("try --company with a code that has exported documents; otherwise find the address at app.ivesk.lt/api/docs and set `api.exported_path` to a template with {company}"),
        several => {
            let names: Vec<&str> = several.iter().map(|(name, _)| *name).collect();
            let found = format!("several presets are right: {}", names.join(", "));
            let is_set = several.iter().any(|(_, template)| configured == Some(template));
            if is_set {
                Check::pass(CHECK, found)
            } else {
                Check::fail(CHECK, found)
                    .because("the exported queue is not pulled until it is set")
                    .fix(format!("set `api.exported_path = \"{}\"`, then restart `serve`", names[0]))
            }
        }
    }
}
