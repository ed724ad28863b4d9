//! `config`

use serde_json::{Value, json};

use super::globals::Globals;
use super::outcome::{Exit, Failure};
use super::server::{RunningServer, SETTINGS_CHANGED};
use super::style;
use super::table::{self, Table};
use crate::config::{Config, ConfirmMode, Setting};
use crate::doctor::{CheckResult, destinations, exposed};
use crate::domain::Clock;
use crate::visible::visible;

/// Arguments of `config`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Report every mistake in the settings, and what is not set yet
    ///
    /// Opens each destination as `serve` does, creating nothing. `doctor` also checks the store, the ports and the
    /// drop folder.
    Check,
    /// Show every setting, its value and its origin; secrets are shown as [set]
    Show {
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
}

/// Runs `config`.
pub async fn run(args: Args, globals: &Globals) -> Result<Exit, Failure> {
    let explained = Config::explain(&globals.config, &globals.environment);
    if let (Action::Check, true, Err(error)) = (&args.action, style::is_json(), &explained) {
        let problems: Vec<String> = error.problems.iter().map(ToString::to_string).collect();
        println!(
            "{}",
            json!({ "valid": false, "problems": problems, "remarks": [] })
        );
        return Ok(Exit::Usage);
    }
    let (config, settings) = explained.map_err(Failure::usage)?;
    match args.action {
        Action::Check => return Ok(check(&config).await),
        Action::Show { json: true } => {
            println!("{}", json!({ "settings": settings }));
        }
        Action::Show { json: false } => println!("{}", settings_table(&settings)),
    }
    Ok(Exit::Done)
}

/// Prints whether the settings, with the destinations, are such that `serve` starts, and what else is to be said
/// about them.
async fn check(config: &Config) -> Exit {
    let problems: Vec<String> = destinations::settings(config, &Clock::system())
        .into_iter()
        .filter(|check| check.result == CheckResult::Fail)
        .map(|check| check.found)
        .collect();
    let mut remarks = remarks(config);
    // Whoever may not ask it still checks the settings.
    if let Ok(Some(server)) = RunningServer::find(config).await
        && !server.has_settings_of(config).await
    {
        let (found, fix) = SETTINGS_CHANGED;
        remarks.insert(0, format!("{found}: {fix}"));
    }
    let valid = problems.is_empty();
    if style::is_json() {
        let report = json!({ "valid": valid, "problems": problems, "remarks": remarks });
        println!("{report}");
    } else {
        println!(
            "{}",
            match valid {
                true => "The settings are valid.",
                false => "`serve` does not start with these settings as this user:",
            }
        );
        for problem in &problems {
            println!("  {}", visible(problem));
        }
        for remark in &remarks {
            println!("- {}", visible(remark));
        }
    }
    if valid { Exit::Done } else { Exit::Usage }
}

/// Returns what is valid, but keeps something from working or weakens security.
fn remarks(config: &Config) -> Vec<String> {
    let mut remarks = Vec::new();
    for (name, account) in &config.accounts {
        if account.api_key.is_none() {
            remarks.push(format!(
                "account `{name}` has no API key: notifications are stored, but nothing is pulled until \
                 IVESK_WEBHOOK_API_KEY or `accounts.{name}.api_key_file` is set"
            ));
        }
        if account.companies.is_empty() {
            remarks.push(format!(
                "account `{name}` lists no companies: a company is pulled only after a notification or a \
                 digitized document has named it"
            ));
        }
    }
    for doubt in config.doubted_companies() {
        remarks.push(format!("WARNING: {doubt}"));
    }
    if config.api.exported_path.is_none() {
        remarks.push(
            "`api.exported_path` is not set: exported documents are not pulled until it is \
             (`ivesk-webhook doctor --company CODE` finds the preset: path, query, prefix or none)"
                .to_owned(),
        );
    }
    if config.api.subscribe_path.is_none() {
        remarks.push(
            "`api.subscribe_path` is not set: `ivesk-webhook subscriptions create --print` prints what to send \
             by hand"
                .to_owned(),
        );
    }
    if config.sns.confirm == ConfirmMode::Ask {
        remarks.push(
            "`sns.confirm` is \"ask\": a subscription waits for `ivesk-webhook subscriptions approve`"
                .to_owned(),
        );
    }
    for file in exposed::files(config) {
        remarks.push(format!("WARNING: {}: {}", file.found(), file.fix()));
    }
    if !config.sns.local_origins.is_empty() {
        remarks.push(format!(
            "WARNING: `sns.local_origins` trusts {} like SNS; use it only where nobody else can reach the service",
            config.sns.local_origins.join(", ")
        ));
    }
    remarks
}

fn settings_table(settings: &[Setting]) -> Table {
    let mut table = table::new(["setting", "value", "from"]);
    for setting in settings {
        table.add_row([
            setting.name.clone(),
            value(&setting.value),
            setting.origin.to_string(),
        ]);
    }
    table
}

/// Returns a setting's value as the table shows it.
fn value(json: &Value) -> String {
    match json {
        Value::Null => "(not set)".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => "(none)".to_owned(),
        Value::Array(items) => items.iter().map(value).collect::<Vec<_>>().join(", "),
        Value::Object(entries) if entries.is_empty() => "(none)".to_owned(),
        Value::Object(entries) => entries
            .iter()
            .map(|(key, entry)| format!("{key}={}", value(entry)))
            .collect::<Vec<_>>()
            .join(", "),
        other => other.to_string(),
    }
}
