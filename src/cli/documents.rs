//! `documents`

use std::fmt;

use anyhow::anyhow;
use clap::Subcommand;
use serde::Serialize;

use super::globals::Globals;
use super::of_feeds::OfFeeds;
use super::outcome::{Exit, Failure};
use super::printing;
use super::server::existing_store;
use super::table::{self, Table};
use crate::api::documents::{Document, FoundDocument};
use crate::config::Config;
use crate::domain::SearchText;
use crate::ivesk::view::View;
use crate::store::{DocumentFilter, DocumentRow, DocumentSearch, SharedStore, Store, TextSearch};
use crate::trace::{self, Trace};
use crate::visible::visible;

/// Rows read at once.
const BATCH_ROWS: usize = 500;

/// Most times that one search is continued.
const MAX_SEARCHES: usize = 100;

/// Versions of a named document that are looked at.
const MAX_NAMED: usize = 100;

/// Most ids in an error.
const MAX_IDS: usize = 5;

const SEARCHES: &str = "\
Examples:
  ivesk-webhook documents search SF-000017
  ivesk-webhook documents search Šarka 1 210,00
  ivesk-webhook documents search 302320404 2026-11 --queue exported";

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
    /// Find documents by number, seller, buyer, code, amount, date, id or uploaded file
    ///
    /// All words count, whole or from their beginning, in letters of either case, with or without accents,
    /// `UAB` and quotation marks. First come documents whose whole number, id or file is named, then
    /// those that have all words, then those with words that begin with them; of each kind the newest
    /// first.
    #[command(after_help = SEARCHES)]
    Search {
        /// What is known of the documents
        #[arg(required = true, value_name = "TEXT")]
        text: Vec<String>,
        #[command(flatten)]
        feeds: OfFeeds,
        /// Most documents to show
        #[arg(long, value_name = "N", default_value_t = 50)]
        limit: usize,
        /// Print one JSON array
        #[arg(long)]
        json: bool,
    },
    /// Print the JSON of a document's newest version as Įvesk.lt sent it
    Show(Named),
    /// Show what happened to a document, from its upload or arrival to its delivery
    Trace {
        #[command(flatten)]
        named: Named,
        /// Print one JSON array
        #[arg(long)]
        json: bool,
    },
    /// Write documents as a table to standard output, or each version's JSON to a file of its own
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
        #[command(flatten)]
        feeds: OfFeeds,
        /// Read at most this many versions, the newest first; all if absent
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        newest: Option<u64>,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
}

impl Read {
    /// Returns the feeds whose documents are meant; `None` if one document is.
    const fn feeds(&self) -> Option<&OfFeeds> {
        match self {
            Self::List { selection, .. } => Some(&selection.feeds),
            Self::Search { feeds, .. } | Self::Fields { feeds, .. } => Some(feeds),
            Self::Export(args) => Some(&args.feeds),
            Self::Show(_) | Self::Trace { .. } => None,
        }
    }
}

/// One document.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Named {
    /// Its number, its id at Įvesk.lt, or the userdata or file name of its upload
    document: Option<String>,
    /// The version with this sequence number, from `documents list`
    #[arg(long, value_name = "N")]
    sequence: Option<i64>,
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.document, self.sequence) {
            (Some(document), _) => write!(f, "document `{document}`"),
            (None, Some(sequence)) => write!(f, "the version with the sequence number {sequence}"),
            (None, None) => f.write_str("the document"),
        }
    }
}

impl Named {
    fn not_found(&self) -> Failure {
        let fix = match &self.document {
            Some(_) => "`ivesk-webhook documents search` finds documents by what is known of them",
            None => "`ivesk-webhook documents list` shows the sequence numbers",
        };
        anyhow!("{self} was not found; {fix}").into()
    }
}

/// The documents to list.
#[derive(Debug, clap::Args)]
struct Selection {
    #[command(flatten)]
    feeds: OfFeeds,
    /// Only versions after this sequence number
    #[arg(long, value_name = "SEQUENCE")]
    after: Option<i64>,
}

impl Selection {
    fn filter(self) -> DocumentFilter {
        DocumentFilter {
            account: self.feeds.account,
            queue: self.feeds.queue,
            company: self.feeds.company,
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
    let outcome = read(action, &config, &store).await;
    store.close().await?;
    outcome
}

/// Runs an action that changes nothing.
async fn read(action: Read, config: &Config, store: &SharedStore) -> Result<Exit, Failure> {
    if let Some(feeds) = action.feeds() {
        feeds.check(config, store).await?;
    }
    match action {
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
        Read::Search {
            text,
            feeds,
            limit,
            json,
        } => {
            let search = TextSearch {
                text: SearchText::read(&text.join(" ")),
                account: feeds.account,
                queue: feeds.queue,
                company: feeds.company,
                whole: false,
                superseded: false,
                after: None,
                limit: limit.max(1),
            };
            find(store.as_ref(), search, json).await
        }
        Read::Show(named) => show(store.as_ref(), &named).await,
        Read::Trace { named, json } => trace(store.as_ref(), &named, json).await,
        Read::Export(args) => super::export::run(store, args).await,
        Read::Fields {
            feeds,
            newest,
            json,
        } => {
            let search = DocumentSearch {
                account: feeds.account,
                queue: feeds.queue,
                company: feeds.company,
                ..DocumentSearch::default()
            };
            super::fields::run(store, search, newest, json).await
        }
    }
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

/// Prints the documents that a text finds.
async fn find(store: &Store, mut search: TextSearch, json: bool) -> Result<Exit, Failure> {
    let limit = search.limit;
    let (mut rows, mut incomplete) = (Vec::new(), false);
    for _ in 0..MAX_SEARCHES {
        let found = store.find_documents(search.clone()).await?;
        rows.extend(found.rows.into_iter().map(|(_, row)| row));
        incomplete |= found.incomplete;
        search.after = found.next;
        search.limit = limit - rows.len();
        if search.after.is_none() || search.limit == 0 {
            break;
        }
    }
    if json {
        let rows: Vec<FoundDocument> = rows.into_iter().map(FoundDocument::from).collect();
        println!("{}", serde_json::to_string(&rows)?);
        return Ok(Exit::Done);
    }
    if rows.is_empty() {
        println!("No documents found.");
    } else {
        println!("{}", document_table(rows.iter()));
    }
    if search.after.is_some() && rows.len() == limit {
        println!(
            "There may be more than these {limit}: --limit shows more, and more words narrow the search."
        );
    } else if search.after.is_some() {
        println!(
            "There may be more: these words are in too many documents to look at them all. Write another word."
        );
    }
    if incomplete {
        println!("Too many words begin with what you wrote: write more letters to find the rest.");
    }
    Ok(Exit::Done)
}

/// Returns the versions of the document that is named, oldest first.
async fn versions(store: &Store, named: &Named) -> Result<Vec<DocumentRow>, Failure> {
    let found: Vec<DocumentRow> = match (&named.document, named.sequence) {
        (Some(document), _) => {
            let search = TextSearch::named(document, MAX_NAMED);
            let found = store.find_documents(search).await?.rows;
            found.into_iter().map(|(_, row)| row).collect()
        }
        (None, Some(sequence)) => store.document(sequence).await?.into_iter().collect(),
        (None, None) => Vec::new(),
    };
    let Some(first) = found.first() else {
        return Err(named.not_found());
    };
    let mut ids: Vec<&str> = found.iter().map(|row| row.document_id.as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    if ids.len() > 1 {
        ids.truncate(MAX_IDS);
        return Err(anyhow!(
            "{named} is not the only one: several have this number or file; name it by its id, such as {}",
            ids.join(", ")
        )
        .into());
    }
    if named.sequence.is_some() {
        return Ok(found);
    }
    let of_document = DocumentFilter {
        document_id: Some(first.document_id.clone()),
        limit: BATCH_ROWS,
        ..DocumentFilter::default()
    };
    Ok(store.documents(of_document).await?)
}

async fn show(store: &Store, named: &Named) -> Result<Exit, Failure> {
    let mut found = versions(store, named).await?;
    let current = found.iter().rposition(|row| !row.superseded);
    let Some(row) = current
        .map(|at| found.swap_remove(at))
        .or_else(|| found.pop())
    else {
        return Err(named.not_found());
    };
    let Some(body) = row.body else {
        let problem = match row.erased_at {
            Some(at) => anyhow!("{named} was erased at {at}"),
            None => anyhow!("the JSON of {named} was removed after `retention.documents`"),
        };
        return Err(problem.into());
    };
    printing::bytes_to_stdout(&body);
    println!();
    Ok(Exit::Done)
}

async fn trace(store: &Store, named: &Named, json: bool) -> Result<Exit, Failure> {
    let traces = match (&named.document, named.sequence) {
        (Some(document), _) => trace::find(store, document).await?,
        (None, Some(sequence)) => Vec::from_iter(trace::of_version(store, sequence).await?),
        (None, None) => Vec::new(),
    };
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
        return Err(named.not_found());
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
