//! `import-errors`

use clap::{ArgGroup, Subcommand};
use serde_json::Value;

use super::as_sent::AsSent;
use super::globals::Globals;
use super::outcome::{Exit, Failure};
use super::row_id::row_id;
use super::server::{Api, with_query};
use super::{logging, table};
use crate::api::import_errors::{
    ImportError, ImportErrorPath, ImportErrorQuery, SelectedImportErrors,
};
use crate::api::{Changed, NoFields};
use crate::config::Config;
use crate::domain::counted;
use crate::store::ImportErrorState;
use crate::visible::visible;

/// Arguments of `import-errors`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
When a destination rejects a version, the accountant sees an import error at Įvesk.lt, once for each \
version and text. It is sent a minute after the rejection, unless the destination accepts the document or a newer \
version of it meanwhile. Import errors wait until `api.import_error_path` is set: Įvesk.lt does not publish it.")]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show import errors and their states
    List {
        /// Only import errors in this state: pending, sent, refused, withdrawn or discarded
        #[arg(long)]
        state: Option<ImportErrorState>,
        /// Print one JSON array
        #[arg(long)]
        json: bool,
    },
    /// Send import errors now, and resume sending if it is paused
    ///
    /// One that is named, withdrawn or discarded is sent in any case, others only if their document
    /// is still rejected.
    Retry(Selection),
    /// Never send import errors, unless they are retried
    Discard(Selection),
}

/// The import errors that are meant.
#[derive(Debug, clap::Args)]
#[group(skip)]
#[command(group(ArgGroup::new("which").required(true).multiple(true).args(["id", "all", "account", "company", "state"])))]
struct Selection {
    /// Number of the import error, from `import-errors list`
    #[arg(
        conflicts_with_all = ["all", "account", "company", "state"],
        value_parser = row_id("`ivesk-webhook import-errors list`"),
    )]
    id: Option<i64>,
    /// All that are pending or refused
    #[arg(long, conflicts_with_all = ["account", "company", "state"])]
    all: bool,
    /// Those of this account
    #[arg(long)]
    account: Option<String>,
    /// Those of the company with this code
    #[arg(long, value_name = "CODE")]
    company: Option<String>,
    /// Those in this state; otherwise pending and refused ones
    #[arg(long)]
    state: Option<ImportErrorState>,
    /// Print {"changed": N}
    #[arg(long)]
    json: bool,
}

/// Runs `import-errors`.
pub async fn run(args: Args, globals: &Globals) -> Result<Exit, Failure> {
    let config = Config::load(&globals.config, &globals.environment).map_err(Failure::usage)?;
    logging::start(&config.log)?;
    let api = match &args.action {
        Action::List { .. } => Api::open_for_reading(&config).await?,
        Action::Retry(_) | Action::Discard(_) => Api::open(&config).await?,
    };
    let outcome = match args.action {
        Action::List { state, json } => list(&api, &config, state, json).await,
        Action::Retry(selection) => decide(&api, &config, "retry", selection).await,
        Action::Discard(selection) => decide(&api, &config, "discard", selection).await,
    };
    api.close().await?;
    outcome
}

async fn decide(
    api: &Api,
    config: &Config,
    action: &str,
    selection: Selection,
) -> Result<Exit, Failure> {
    let Selection {
        id,
        all,
        account,
        company,
        state,
        json,
    } = selection;
    let answer: AsSent<Changed> = match id {
        Some(id) => {
            let path = format!("/v1/import-errors/{id}/{action}");
            api.post(&path, &NoFields {}).await?
        }
        None => {
            let selected = SelectedImportErrors {
                account,
                company,
                state,
                all,
            };
            let path = format!("/v1/import-errors/{action}");
            api.post(&path, &selected).await?
        }
    };
    if json {
        println!("{}", answer.json);
        return Ok(Exit::Done);
    }
    let changed = answer.changed as u64;
    let what = match id {
        Some(id) => format!("Import error {id}"),
        None => counted(changed, "import error"),
    };
    let is = if changed == 1 { "is" } else { "are" };
    match action {
        "discard" => println!("{what} {is} discarded: the accountant is not told."),
        _ if config.api.import_error_path.is_none() => {
            let wait = if changed == 1 { "waits" } else { "wait" };
            println!(
                "{what} {is} due, and {wait} until `api.import_error_path` is set. Įvesk.lt does not publish it; see the \
                 API page of your account, app.ivesk.lt/api/docs."
            );
        }
        _ if api.is_running_server() => {
            println!("{what} {is} due now; the running server sends what is due.");
        }
        _ => println!("{what} {is} due now; `ivesk-webhook serve` sends what is due once it runs."),
    }
    Ok(Exit::Done)
}

async fn list(
    api: &Api,
    config: &Config,
    state: Option<ImportErrorState>,
    json: bool,
) -> Result<Exit, Failure> {
    let query = ImportErrorQuery {
        state,
        ..ImportErrorQuery::default()
    };
    let path = with_query("/v1/import-errors", &query)?;
    if json {
        println!("{}", Value::Array(api.rows(&path).await?));
        return Ok(Exit::Done);
    }
    let rows: Vec<ImportError> = api.rows(&path).await?;
    if rows.is_empty() {
        println!(
            "{}",
            match state {
                Some(_) => "No import errors in this state.",
                None => "No import errors.",
            }
        );
        return Ok(Exit::Done);
    }
    let mut table = table::new([
        "id",
        "state",
        "document",
        "company",
        "rejected",
        "sent",
        "text",
        "last error",
    ]);
    for row in &rows {
        table.add_row([
            row.id.to_string(),
            row.state.as_str().to_owned(),
            row.document_id.clone(),
            table::optional(row.company.as_ref()),
            table::moment(row.created_at),
            table::moment(row.sent_at),
            row.message.clone(),
            table::optional(row.last_error.as_deref()),
        ]);
    }
    println!("{table}");
    let paused: Vec<ImportErrorPath> = api.rows("/v1/import-errors/paused").await?;
    for paused in paused {
        println!(
            "Import errors of {} are paused: Įvesk.lt does not find {} ({}). Correct `api.import_error_path` and \
             restart, or run `ivesk-webhook import-errors retry --all`.",
            paused.account,
            visible(&paused.path),
            visible(paused.last_error.as_deref().unwrap_or_default()),
        );
    }
    let pending = rows
        .iter()
        .any(|row| row.state == ImportErrorState::Pending);
    if pending && config.api.import_error_path.is_none() {
        println!(
            "Pending import errors wait until `api.import_error_path` is set. Įvesk.lt does not publish it; see the \
             API page of your account, app.ivesk.lt/api/docs."
        );
    }
    Ok(Exit::Done)
}
