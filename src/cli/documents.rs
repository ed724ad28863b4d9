//! `documents`

use anyhow::anyhow;
use clap::Subcommand;
use serde::Serialize;

use super::globals::Globals;
use super::outcome::{Exit, Failure};
use super::printing;
use super::server::existing_store;
use super::table::{self, Table};
use crate::api::documents::Document;
use crate::config::Config;
use crate::domain::{Account, Company, Queue};
use crate::ivesk::view::View;
use crate::store::{DocumentFilter, DocumentRow, DocumentSearch, Store};
use crate::trace::Trace;
use crate::visible::visible;

/// Rows read at once.
const BATCH_ROWS: usize = 500;

/// Arguments of `documents`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    #[command(flatten)]
    Read(Read),
    /// Erase a company's documents, or one document, with their files in folders of destinations
    ///
    /// Their contents are removed for good: JSON, links, answers of destinations, import errors.
    /// Sequence numbers stay, and no later pull stores the same versions again. What other
    /// destinations have taken, exports and backups are not touched.
    Erase(super::erase::Args),
}

/// What reads the store, whether or not the server runs.
#[derive(Debug, Subcommand)]
enum Read {
    /// Show stored document versions in the order of their arrival
    List {
        #[command(flatten)]
        selection: Selection,
        /// Number of rows to show; the newest are shown
        #[arg(long, value_name = "N", default_value_t = 50)]
        limit: usize,
        /// Print one JSON object per line, without the limit
        #[arg(long)]
        json: bool,
    },
    /// Print the JSON of a document's newest version as Įvesk.lt sent it
    Show {
        /// Its id at Įvesk.lt, a sequence number from `documents list`, or its own number
        document: String,
    },
    /// Show what happened to a document, from its upload or arrival to its delivery
    Trace {
        /// Document number, id at Įvesk.lt, userdata of its upload, or sequence number from `documents list`
        document: String,
        /// Print one JSON array
        #[arg(long)]
        json: bool,
    },
    /// Write documents as a table to standard output, or the JSON of each version to a file
    ///
    /// With `--format`, a row for each document or line, in its current version: docs/export.md lists the
    /// columns, and tells which of them are proven. With DIR, every version's JSON as Įvesk.lt sent it:
    /// DIR/<company>/<sequence>-<id>.json.
    #[command(after_help = super::export::EXAMPLES)]
    Export(super::export::Args),
    /// Show which fields stored documents carry, with their types and how often they are filled
    ///
    /// Little of Įvesk.lt's JSON is proven: this shows which expected fields it has, and which never
    /// occurred. No values are shown.
    Fields {
        /// Only documents of this account
        #[arg(long, value_parser = Account::parse)]
        account: Option<Account>,
        /// Only documents of this queue
        #[arg(long, value_enum)]
        queue: Option<Queue>,
        /// Only documents of this company
        #[arg(long, value_name = "CODE", value_parser = Company::parse)]
        company: Option<Company>,
        /// Read at most this many versions, the newest first; all if absent
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        newest: Option<u64>,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
}

/// The documents to list.
#[derive(Debug, clap::Args)]
struct Selection {
    /// Only documents of this account
    #[arg(long, value_parser = Account::parse)]
    account: Option<Account>,
    /// Only documents of this queue
    #[arg(long, value_enum)]
    queue: Option<Queue>,
    /// Only documents of this company
    #[arg(long, value_name = "CODE", value_parser = Company::parse)]
    company: Option<Company>,
    /// Only versions after this sequence number
    #[arg(long, value_name = "SEQUENCE")]
    after: Option<i64>,
}

impl Selection {
    fn filter(self) -> DocumentFilter {
        DocumentFilter {
            account: self.account,
            queue: self.queue,
            company: self.company,
            document_id: None,
            after: self.after,
            limit: BATCH_ROWS,
        }
    }
}

/// Runs `documents`.
pub async fn run(args: Args, globals: &Globals) -> Result<Exit, Failure> {
    let config = Config::load(&globals.config, &globals.environment).map_err(Failure::usage)?;
    let action = match args.action {
        Action::Erase(args) => return super::erase::run(args, &config).await,
        Action::Read(action) => action,
    };
    let store = existing_store(&config).await?;
    let outcome = match action {
        Read::List {
            selection,
            limit,
            json: false,
        } => list(store.as_ref(), selection.filter(), limit).await,
        Read::List {
            selection,
            json: true,
            ..
        } => list_json(store.as_ref(), selection.filter()).await,
        Read::Show { document } => show(store.as_ref(), &document).await,
        Read::Trace { document, json } => trace(store.as_ref(), &document, json).await,
        Read::Export(args) => super::export::run(&store, args).await,
        Read::Fields {
            account,
            queue,
            company,
            newest,
            json,
        } => {
            let search = DocumentSearch {
                account,
                queue,
                company,
                ..DocumentSearch::default()
            };
            super::fields::run(&store, search, newest, json).await
        }
    };
    store.close().await?;
    outcome
}

/// Calls `each` for every matching version, with at most [`BATCH_ROWS`] in memory.
async fn for_each(
    store: &Store,
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

async fn list(store: &Store, filter: DocumentFilter, limit: usize) -> Result<Exit, Failure> {
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
        println!("No documents.");
        return Ok(Exit::Done);
    }
    if !newest.is_empty() {
        println!("{}", document_table(newest.iter()));
    }
    if count > newest.len() as u64 {
        println!(
            "Showing the newest {} of {count}. --limit shows more, --json all.",
            newest.len()
        );
    }
    Ok(Exit::Done)
}

/// Returns the table of documents that `documents list` and `demo` print.
pub(super) fn document_table<'a>(rows: impl Iterator<Item = &'a DocumentRow>) -> Table {
    let mut table = table::new([
        "sequence", "queue", "company", "number", "date", "seller", "buyer", "total", "document",
        "note",
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
            match row {
                DocumentRow {
                    erased_at: Some(_), ..
                } => "erased",
                DocumentRow {
                    superseded: true, ..
                } => "superseded",
                DocumentRow { .. } => "",
            }
            .to_owned(),
        ]);
    }
    table
}

#[derive(Serialize)]
struct Line {
    #[serde(flatten)]
    row: Document,
    document: Option<Box<serde_json::value::RawValue>>,
}

async fn list_json(store: &Store, filter: DocumentFilter) -> Result<Exit, Failure> {
    for_each(store, filter, |row| {
        let document = row
            .body
            .as_deref()
            .and_then(|body| serde_json::from_slice(body).ok());
        let line = Line {
            row: row.into(),
            document,
        };
        println!("{}", serde_json::to_string(&line)?);
        Ok(())
    })
    .await?;
    Ok(Exit::Done)
}

async fn show(store: &Store, document: &str) -> Result<Exit, Failure> {
    let by_id = DocumentFilter {
        document_id: Some(document.to_owned()),
        limit: BATCH_ROWS,
        ..DocumentFilter::default()
    };
    let mut found = store.documents(by_id).await?;
    if found.is_empty()
        && let Ok(sequence) = document.parse::<i64>()
    {
        let by_sequence = DocumentFilter {
            after: Some(sequence.saturating_sub(1)),
            limit: 1,
            ..DocumentFilter::default()
        };
        found = store.documents(by_sequence).await?;
        found.retain(|row| row.sequence == sequence);
    }
    if found.is_empty() {
        found = by_number(store, document).await?;
    }
    let current = found.iter().rposition(|row| !row.superseded);
    let Some(row) = current
        .map(|at| found.swap_remove(at))
        .or_else(|| found.pop())
    else {
        return Err(anyhow!(
            "document `{document}` not found; `ivesk-webhook documents list` lists the stored documents"
        )
        .into());
    };
    let Some(body) = row.body else {
        let problem = match row.erased_at {
            Some(at) => anyhow!("document `{document}` was erased at {at}"),
            None => {
                anyhow!("the JSON of document `{document}` was removed after `retention.documents`")
            }
        };
        return Err(problem.into());
    };
    printing::bytes_to_stdout(&body);
    println!();
    Ok(Exit::Done)
}

/// Returns the versions of the one document whose number a person names.
async fn by_number(store: &Store, number: &str) -> Result<Vec<DocumentRow>, Failure> {
    let traces = crate::trace::find(store, number).await?;
    let named = |trace: &Trace| trace.view.number.as_deref() == Some(number.trim());
    let ids: Vec<&String> = traces
        .iter()
        .filter(|trace| named(trace))
        .filter_map(|trace| trace.document_id.as_ref())
        .collect();
    match ids.as_slice() {
        [] => Ok(Vec::new()),
        [id] => {
            let by_id = DocumentFilter {
                document_id: Some((*id).clone()),
                limit: BATCH_ROWS,
                ..DocumentFilter::default()
            };
            Ok(store.documents(by_id).await?)
        }
        several => {
            let several: Vec<&str> = several.iter().map(|id| id.as_str()).collect();
            Err(anyhow!(
                "several documents have the number `{number}`; name one by its id: {}",
                visible(&several.join(", "))
            )
            .into())
        }
    }
}

async fn trace(store: &Store, document: &str, json: bool) -> Result<Exit, Failure> {
    let traces = crate::trace::find(store, document).await?;
    if json {
        println!("{}", serde_json::to_string(&traces)?);
    } else {
        for (index, trace) in traces.iter().enumerate() {
            if index > 0 {
                println!();
            }
            print_trace(trace);
        }
    }
    if traces.is_empty() {
        return Err(anyhow!(
            "document `{document}` not found; `ivesk-webhook documents list` lists the stored documents"
        )
        .into());
    }
    Ok(Exit::Done)
}

/// Returns the name of a step in words.
fn words_of(step: &str) -> String {
    step.replace("re_exported", "re-exported").replace('_', " ")
}

/// Prints a document's data, its steps in one line, and a table of all events.
fn print_trace(trace: &Trace) {
    let view = &trace.view;
    let total = [view.total.as_deref(), view.currency.as_deref()];
    let total: Vec<&str> = total.into_iter().flatten().collect();
    let total = view.total.as_ref().map(|_| total.join(" "));
    let data = [&view.number, &view.date, &view.seller, &view.buyer, &total];
    let data: Vec<&str> = data.into_iter().flatten().map(String::as_str).collect();
    let id = trace.document_id.as_deref().unwrap_or("(not received yet)");
    println!(
        "document {} of account {}: {}",
        visible(id),
        trace.account,
        visible(&data.join(", "))
    );
    let steps: Vec<String> = trace
        .story
        .iter()
        .map(|step| words_of(step.as_str()))
        .collect();
    println!("{}", steps.join(" → "));
    let mut table = table::new([
        "when",
        "until",
        "times",
        "event",
        "sequence",
        "destination",
        "detail",
    ]);
    for event in &trace.events {
        table.add_row([
            table::exact(event.at),
            table::exact(event.until),
            event.times.to_string(),
            words_of(event.step.as_str()),
            event.sequence.map(|n| n.to_string()).unwrap_or_default(),
            event
                .destination
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
            event.detail.clone().unwrap_or_default(),
        ]);
    }
    println!("{table}");
}
