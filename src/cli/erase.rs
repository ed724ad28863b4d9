//! `documents erase`

use std::io::IsTerminal as _;

use anyhow::anyhow;
use clap::ArgGroup;
use serde_json::json;

use super::logging;
use super::outcome::{Exit, Failure};
use super::question::ask;
use super::server::{Api, with_query};
use crate::api::documents::{EraseRequest, Erased, FoundDocuments, SearchQuery};
use crate::api::feeds::FeedStatus;
use crate::config::Config;
use crate::domain::{Account, Company, counted};
use crate::visible::visible;

/// Arguments of `documents erase`.
#[derive(Debug, clap::Args)]
#[group(skip)]
#[command(group(ArgGroup::new("which").required(true).args(["company", "document"])))]
pub(super) struct Args {
    /// Erase all documents of this company
    #[arg(long, value_name = "CODE", conflicts_with = "document")]
    company: Option<String>,
    /// Erase all versions of the document with this id at Įvesk.lt
    #[arg(long, value_name = "ID")]
    document: Option<String>,
    /// Only documents of this account
    #[arg(long)]
    account: Option<String>,
    /// Erase without asking
    #[arg(long)]
    yes: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Returns the first request.
    fn request(&self) -> Result<EraseRequest, Failure> {
        if let Some(account) = &self.account {
            Account::parse(account).map_err(Failure::usage)?;
        }
        if let Some(company) = &self.company {
            Company::parse(company).map_err(Failure::usage)?;
        }
        Ok(EraseRequest {
            account: self.account.clone(),
            company: self.company.clone(),
            document: self.document.clone(),
            after: None,
        })
    }
}

/// Runs `documents erase`.
pub(super) async fn run(args: Args, config: &Config) -> Result<Exit, Failure> {
    logging::start(&config.log)?;
    let request = args.request()?;
    let api = Api::open(config).await?;
    let erased = ask_and_erase(&args, request, &api).await;
    api.close().await?;
    let Some(erased) = erased? else {
        println!("Nothing was changed.");
        return Ok(Exit::Failed);
    };
    if args.json {
        println!("{}", to_json(&erased));
    } else {
        print(&erased);
    }
    Ok(if erased.files_left.is_empty() {
        Exit::Done
    } else {
        Exit::Failed
    })
}

/// Erases what the person confirms; `None` if they don't.
async fn ask_and_erase(
    args: &Args,
    mut request: EraseRequest,
    api: &Api,
) -> Result<Option<Erased>, Failure> {
    let what = describe(args, api).await?;
    eprintln!(
        "This erases {what}, and can't be undone. What other destinations have taken, exports and backups are not touched."
    );
    if !args.yes && !ask("Erase?")? {
        return Ok(None);
    }
    let mut total = Erased::default();
    loop {
        let part: Erased = api.post("/v1/documents/erase", &request).await?;
        total.versions += part.versions;
        total.unreadable_entries += part.unreadable_entries;
        total.shared += part.shared;
        total.files += part.files;
        // Those of the last request.
        total.files_left = part.files_left;
        request.after = part.next;
        if part.next.is_none() {
            return Ok(Some(total));
        }
        if std::io::stderr().is_terminal() {
            eprintln!("Erased {} so far.", counted(total.versions, "version"));
        }
    }
}

/// Says in words what would be erased.
async fn describe(args: &Args, api: &Api) -> Result<String, Failure> {
    let of_account = args.account.as_ref();
    let of_account = of_account.map_or_else(String::new, |name| format!(" of account {name}"));
    if let Some(document) = &args.document {
        must_be_stored(document, args.account.as_deref(), api).await?;
        return Ok(format!("all versions of document `{document}`{of_account}"));
    }
    let company = args.company.as_deref().unwrap_or_default();
    let mut feeds: Vec<FeedStatus> = api.rows("/v1/feeds").await?;
    feeds.retain(|row| {
        let account = args.account.as_deref();
        row.feed.company.as_str() == company
            && account.is_none_or(|name| row.feed.account.as_str() == name)
    });
    let documents = feeds.iter().map(|row| row.documents).sum();
    Ok(format!(
        "everything that is stored of company {company}{of_account}: {} of {}, and digitized documents that name no \
         other company",
        counted(documents, "version"),
        counted(feeds.len() as u64, "feed"),
    ))
}

/// Returns an error if nothing is stored of the document with this id.
async fn must_be_stored(id: &str, account: Option<&str>, api: &Api) -> Result<(), Failure> {
    let search = SearchQuery {
        q: Some(id.to_owned()),
        account: account.map(str::to_owned),
        ..SearchQuery::default()
    };
    let found: FoundDocuments = api
        .get(&with_query("/v1/documents/search", &search)?)
        .await?;
    let mut rows = found.rows.iter();
    if rows.any(|found| found.row.document_id == id) {
        return Ok(());
    }
    // A person may have written its number.
    let named = found
        .rows
        .iter()
        .find(|found| found.view.number.as_deref() == Some(id));
    let hint = match named {
        Some(found) => format!(
            "`{}` is the id of the document with this number",
            found.row.document_id
        ),
        None => "`ivesk-webhook documents search` finds documents and their ids".to_owned(),
    };
    Err(anyhow!("nothing is stored of a document with the id `{id}`; {hint}").into())
}

/// Returns the results of all requests together as JSON.
fn to_json(total: &Erased) -> serde_json::Value {
    let Erased {
        versions,
        unreadable_entries,
        shared,
        files,
        files_left,
        next: _,
    } = total;
    json!({
        "versions": versions,
        "unreadable_entries": unreadable_entries,
        "shared": shared,
        "files": files,
        "files_left": files_left,
    })
}

fn print(total: &Erased) {
    if total.versions + total.unreadable_entries + total.files + total.shared == 0 {
        println!("Nothing was stored of it.");
    } else {
        println!(
            "Erased {}, {} and {}.",
            counted(total.versions, "version"),
            counted_as(
                total.unreadable_entries,
                "unreadable entry",
                "unreadable entries"
            ),
            counted_as(total.files, "file of destinations", "files of destinations"),
        );
    }
    if total.shared > 0 {
        println!(
            "Kept {} that name other companies of yours too; --document erases each.",
            counted(total.shared, "digitized version")
        );
    }
    for left in &total.files_left {
        println!(
            "Not removed from destination {}: {} of erased documents. Problem: {}.",
            left.destination,
            counted(left.files, "file"),
            visible(&left.problem),
        );
    }
}

/// Returns a count in words, with the plural of the last one.
fn counted_as(count: u64, one: &str, several: &str) -> String {
    match count {
        1 => format!("1 {one}"),
        _ => format!("{count} {several}"),
    }
}
