//! `config`: the settings in force, and whether they are right.

use comfy_table::{ContentArrangement, Table, presets};
use serde_json::{Value, json};

use super::globals::Globals;
use super::outcome::{Exit, Failure};
use crate::config::{Config, ConfirmMode, Setting};

/// Arguments of `config`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Name every mistake in the settings, and what is not set yet
    Check,
    /// Show every setting in force and where it comes from; secrets read [set]
    Show {
        /// One JSON object for programs
        #[arg(long)]
        json: bool,
    },
}

/// Runs `config`.
pub async fn run(args: Args, globals: &Globals) -> Result<Exit, Failure> {
    let (config, settings) =
        Config::explain(&globals.config, &globals.environment).map_err(Failure::usage)?;
    match args.action {
        Action::Check => {
            println!("The settings can be used.");
            for remark in remarks(&config) {
                println!("- {remark}");
            }
        }
        Action::Show { json: true } => {
            println!("{:#}", json!({ "settings": settings }));
        }
        Action::Show { json: false } => println!("{}", table(&settings).trim_fmt()),
    }
    Ok(Exit::Done)
}

/// What is allowed, but keeps something from working or lowers a guard.
fn remarks(config: &Config) -> Vec<String> {
    let mut remarks = Vec::new();
    for (name, account) in &config.accounts {
        if account.api_key.is_none() {
            remarks.push(format!(
                "the account `{name}` has no API key: notifications are kept, nothing is pulled until \
                 IVESK_WEBHOOK_API_KEY or `accounts.{name}.api_key_file` is set"
            ));
        }
        if account.companies.is_empty() {
            remarks.push(format!(
                "the account `{name}` names no companies: each is known only once a notification \
                 or a digitized document names it"
            ));
        }
    }
    if config.api.exported_path.is_none() {
        remarks.push(
            "`api.exported_path` is not set: exported documents are not pulled until it is \
             (`doctor --company CODE` finds which of path, query, prefix and none it is)"
                .to_owned(),
        );
    }
    if config.api.subscribe_path.is_none() {
        remarks.push(
            "`api.subscribe_path` is not set: `subscriptions create --print` shows what to send by hand"
                .to_owned(),
        );
    }
    if config.sns.confirm == ConfirmMode::Ask {
        remarks.push(
            "`sns.confirm` is \"ask\": a subscription waits for `subscriptions approve`".to_owned(),
        );
    }
    if !config.sns.local_origins.is_empty() {
        remarks.push(format!(
            "WARNING: `sns.local_origins` lets {} stand in for SNS; never do so where others can \
             reach the service",
            config.sns.local_origins.join(", ")
        ));
    }
    remarks
}

fn table(settings: &[Setting]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(["SETTING", "VALUE", "FROM"]);
    for setting in settings {
        table.add_row([
            setting.name.clone(),
            shown(&setting.value),
            setting.origin.to_string(),
        ]);
    }
    table
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "(not set)".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => "(none)".to_owned(),
        Value::Array(items) => items.iter().map(shown).collect::<Vec<_>>().join(", "),
        Value::Object(entries) if entries.is_empty() => "(none)".to_owned(),
        Value::Object(entries) => entries
            .iter()
            .map(|(key, value)| format!("{key}={}", shown(value)))
            .collect::<Vec<_>>()
            .join(", "),
        other => other.to_string(),
    }
}
