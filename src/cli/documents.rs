//! `documents`

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use clap::Subcommand;
use comfy_table::Table;
use serde::Serialize;

use super::globals::Globals;
use super::outcome::{Exit, Failure};
use super::table;
use crate::config::Config;
use crate::domain::{Account, Company, Queue};
use crate::file_names::identity;
use crate::ivesk::view::View;
use crate::service::open_store_for_reading;
use crate::store::{DocumentFilter, DocumentRow, Store};
use crate::trace::{self, Trace};

/// Rows read at once.
const STEP: usize = 500;

/// Arguments of `documents`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show stored document versions in the order in which they came
    List {
        #[command(flatten)]
        choice: Choice,
        /// Only the newest so many
        #[arg(long, default_value_t = 50)]
        limit: usize,
        /// One JSON object a line, without the limit
        #[arg(long)]
        json: bool,
    },
    /// Print a document's JSON as Įvesk.lt sent it; its newest version where there are several
    Show {
        /// Its id at Įvesk.lt, or its sequence number in `documents list`
        document: String,
    },
    /// Tell what became of a document, from its upload or first sight until it was booked
    Trace {
        /// Its number, its id at Įvesk.lt, userdata of its upload, or a sequence number in `documents list`
        document: String,
        /// One JSON array
        #[arg(long)]
        json: bool,
    },
    /// Write each version's JSON as a file of its own: DIR/<company>/<sequence>-<id>.json
    Export {
        /// The folder, made where it is missing
        dir: PathBuf,
        #[command(flatten)]
        choice: Choice,
    },
}

/// Which documents.
#[derive(Debug, clap::Args)]
struct Choice {
    /// Only this account's
    #[arg(long)]
    account: Option<String>,
    /// Only this queue's
    #[arg(long, value_enum)]
    queue: Option<Queue>,
    /// Only this company's
    #[arg(long, value_name = "CODE")]
    company: Option<String>,
    /// Only those after this sequence number
    #[arg(long, value_name = "SEQUENCE")]
    after: Option<i64>,
}

impl Choice {
    fn filter(&self) -> Result<DocumentFilter, Failure> {
        Ok(DocumentFilter {
            account: self
                .account
                .as_deref()
                .map(Account::parse)
                .transpose()
                .map_err(Failure::usage)?,
            queue: self.queue,
            company: self
                .company
                .as_deref()
                .map(Company::parse)
                .transpose()
                .map_err(Failure::usage)?,
            document_id: None,
            after: self.after,
            limit: STEP,
        })
    }
}

/// Runs `documents`.
pub async fn run(args: Args, globals: &Globals) -> Result<Exit, Failure> {
    let config = Config::load(&globals.config, &globals.environment).map_err(Failure::usage)?;
    let store = open_store_for_reading(&config).await?;
    let outcome = match args.action {
        Action::List {
            choice,
            limit,
            json: false,
        } => list(store.as_ref(), choice.filter()?, limit).await,
        Action::List {
            choice, json: true, ..
        } => list_json(store.as_ref(), choice.filter()?).await,
        Action::Show { document } => show(store.as_ref(), &document).await,
        Action::Trace { document, json } => story(store.as_ref(), &document, json).await,
        Action::Export { dir, choice } => export(store.as_ref(), choice.filter()?, &dir).await,
    };
    store.close().await?;
    outcome
}

/// Calls `each` for every document that `filter` chooses, a bounded number in memory.
async fn for_each(
    store: &dyn Store,
    mut filter: DocumentFilter,
    mut each: impl FnMut(DocumentRow) -> Result<(), Failure>,
) -> Result<(), Failure> {
    loop {
        let rows = store.documents(filter.clone()).await?;
        let Some(last) = rows.last() else {
            return Ok(());
        };
        filter.after = Some(last.sequence);
        rows.into_iter().try_for_each(&mut each)?;
    }
}

async fn list(store: &dyn Store, filter: DocumentFilter, limit: usize) -> Result<Exit, Failure> {
    let mut newest = std::collections::VecDeque::new();
    let mut count = 0_u64;
    for_each(store, filter, |row| {
        count += 1;
        newest.push_back(row);
        if newest.len() > limit {
            newest.pop_front();
        }
        Ok(())
    })
    .await?;
    if count == 0 {
        println!("No document yet.");
        return Ok(Exit::Done);
    }
    println!("{}", table(newest.iter()));
    if count > newest.len() as u64 {
        println!(
            "The newest {} of {count}; --limit shows more, --json all.",
            newest.len()
        );
    }
    Ok(Exit::Done)
}

/// The table of documents that `documents list` and `demo` print.
pub(super) fn table<'a>(rows: impl Iterator<Item = &'a DocumentRow>) -> Table {
    let mut table = table::new([
        "sequence", "queue", "company", "number", "date", "seller", "buyer", "total", "document",
        "",
    ]);
    for row in rows {
        let view = row.body.as_deref().map(View::read).unwrap_or_default();
        let total = [
            view.total.unwrap_or_default(),
            view.currency.unwrap_or_default(),
        ]
        .join(" ");
        table.add_row([
            row.sequence.to_string(),
            row.feed.queue.to_string(),
            row.feed.company.to_string(),
            view.number.unwrap_or_default(),
            view.date.unwrap_or_default(),
            view.seller.unwrap_or_default(),
            view.buyer.unwrap_or_default(),
            total.trim().to_owned(),
            row.document_id.clone(),
            if row.superseded { "superseded" } else { "" }.to_owned(),
        ]);
    }
    table
}

#[derive(Serialize)]
struct Line {
    #[serde(flatten)]
    row: DocumentRow,
    document: Option<Box<serde_json::value::RawValue>>,
}

async fn list_json(store: &dyn Store, filter: DocumentFilter) -> Result<Exit, Failure> {
    for_each(store, filter, |row| {
        let document = row
            .body
            .as_deref()
            .and_then(|body| serde_json::from_slice(body).ok());
        println!("{}", serde_json::to_string(&Line { row, document })?);
        Ok(())
    })
    .await?;
    Ok(Exit::Done)
}

async fn show(store: &dyn Store, wanted: &str) -> Result<Exit, Failure> {
    let by_id = DocumentFilter {
        document_id: Some(wanted.to_owned()),
        limit: STEP,
        ..DocumentFilter::default()
    };
    let mut found = store.documents(by_id).await?;
    if found.is_empty()
        && let Ok(sequence) = wanted.parse::<i64>()
    {
        let by_number = DocumentFilter {
            after: Some(sequence.saturating_sub(1)),
            limit: 1,
            ..DocumentFilter::default()
        };
        found = store.documents(by_number).await?;
        found.retain(|row| row.sequence == sequence);
    }
    let current = found.iter().rposition(|row| !row.superseded);
    let Some(row) = current
        .map(|at| found.swap_remove(at))
        .or_else(|| found.pop())
    else {
        return Err(anyhow!(
            "there is no document `{wanted}`; `ivesk-webhook documents list` shows what there is"
        )
        .into());
    };
    let Some(body) = row.body else {
        return Err(anyhow!("the store has no body of `{wanted}`, only that it was there").into());
    };
    let mut stdout = std::io::stdout().lock();
    stdout
        .write_all(&body)
        .and_then(|()| stdout.write_all(b"\n"))
        .context("standard output can't be written")?;
    Ok(Exit::Done)
}

async fn story(store: &dyn Store, wanted: &str, json: bool) -> Result<Exit, Failure> {
    let traces = trace::find(store, wanted).await?;
    if json {
        println!("{}", serde_json::to_string(&traces)?);
    } else {
        traces.iter().for_each(tell);
    }
    if traces.is_empty() {
        return Err(anyhow!(
            "nothing is known of `{wanted}`; `ivesk-webhook documents list` shows what there is"
        )
        .into());
    }
    Ok(Exit::Done)
}

/// Prints the story of one document: a line that names it, one in a few words, and a
/// table of everything.
fn tell(trace: &Trace) {
    let view = &trace.view;
    let known_by = [
        &view.number,
        &view.date,
        &view.seller,
        &view.buyer,
        &view.total,
    ];
    let known_by: Vec<&str> = known_by.into_iter().flatten().map(String::as_str).collect();
    let id = trace
        .document_id
        .as_deref()
        .unwrap_or("(not come back yet)");
    println!(
        "document {id} of account {}: {}",
        trace.account,
        known_by.join(", ")
    );
    let story: Vec<String> = trace
        .story
        .iter()
        .map(|step| step.as_str().replace('_', "-"))
        .collect();
    println!("{}", story.join(" → "));
    let mut table = table::new([
        "when",
        "until",
        "times",
        "what",
        "version",
        "destination",
        "",
    ]);
    for event in &trace.events {
        table.add_row([
            event.at.to_string(),
            event.until.map(|at| at.to_string()).unwrap_or_default(),
            event.times.to_string(),
            event.step.as_str().replace('_', " "),
            event.sequence.map(|n| n.to_string()).unwrap_or_default(),
            event
                .destination
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
            event.detail.clone().unwrap_or_default(),
        ]);
    }
    println!("{table}\n");
}

async fn export(store: &dyn Store, filter: DocumentFilter, dir: &Path) -> Result<Exit, Failure> {
    let mut written = 0_u64;
    let mut without_body = 0_u64;
    for_each(store, filter, |row| {
        let Some(body) = &row.body else {
            without_body += 1;
            return Ok(());
        };
        let folder = dir.join(identity(match row.feed.company.as_str() {
            "" => row.feed.queue.as_str(),
            company => company,
        }));
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("{} can't be made", folder.display()))?;
        let file = folder.join(format!(
            "{}-{}.json",
            row.sequence,
            identity(&row.document_id)
        ));
        std::fs::write(&file, body)
            .with_context(|| format!("{} can't be written", file.display()))?;
        written += 1;
        Ok(())
    })
    .await?;
    println!("{written} document versions are in {}.", dir.display());
    if without_body > 0 {
        println!("{without_body} are left out: the store has no body of them.");
    }
    Ok(Exit::Done)
}
