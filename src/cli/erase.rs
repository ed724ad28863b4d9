//! `documents erase`

use std::io::IsTerminal as _;

use serde_json::{Map, Value, json};

use super::logging;
use super::outcome::{Exit, Failure};
use super::question::ask;
use super::server::Api;
use super::table::cell;
use crate::config::Config;
use crate::domain::{Account, Company, counted};

/// Arguments of `documents erase`.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(super) struct Args {
    /// Erase all documents of this company
    #[arg(
        long,
        value_name = "CODE",
        required_unless_present = "document",
        conflicts_with = "document"
    )]
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
    /// Returns the fields of the request.
    fn request(&self) -> Result<Map<String, Value>, Failure> {
        if let Some(account) = &self.account {
            Account::parse(account).map_err(Failure::usage)?;
        }
        if let Some(company) = &self.company {
            Company::parse(company).map_err(Failure::usage)?;
        }
        let fields = [
            ("company", &self.company),
            ("document", &self.document),
            ("account", &self.account),
        ];
        let given = fields
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), json!(value.as_ref()?))));
        Ok(given.collect())
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
        println!("{}", erased.to_json());
    } else {
        erased.print();
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
    mut request: Map<String, Value>,
    api: &Api,
) -> Result<Option<Total>, Failure> {
    let what = describe(args, api).await?;
    eprintln!(
        "This erases {what}, and can't be undone. What other destinations have taken, exports and backups are not touched."
    );
    if !args.yes && !ask("Erase?")? {
        return Ok(None);
    }
    let mut total = Total::default();
    loop {
        let part = api
            .post("/v1/documents/erase", &Value::Object(request.clone()))
            .await?;
        total.add(&part);
        match part["next"].as_i64() {
            Some(next) => {
                request.insert("after".to_owned(), json!(next));
                if std::io::stderr().is_terminal() {
                    eprintln!("Erased {} so far.", counted(total.versions, "version"));
                }
            }
            None => return Ok(Some(total)),
        }
    }
}

/// Says in words what would be erased.
async fn describe(args: &Args, api: &Api) -> Result<String, Failure> {
    let of_account = args.account.as_ref();
    let of_account = of_account.map_or_else(String::new, |name| format!(" of account {name}"));
    if let Some(document) = &args.document {
        return Ok(format!("all versions of document `{document}`{of_account}"));
    }
    let company = args.company.as_deref().unwrap_or_default();
    let rows = api.rows("/v1/feeds").await?;
    let is_selected = |row: &&Value| {
        let of_account = args
            .account
            .as_deref()
            .is_none_or(|name| row["account"] == name);
        row["company"] == company && of_account
    };
    let feeds: Vec<&Value> = rows.iter().filter(is_selected).collect();
    let documents = feeds
        .iter()
        .filter_map(|row| row["documents"].as_u64())
        .sum();
    Ok(format!(
        "everything that is stored of company {company}{of_account}: {} of {}, and digitized documents that name no \
         other company",
        counted(documents, "version"),
        counted(feeds.len() as u64, "feed"),
    ))
}

/// The results of all requests together.
#[derive(Default)]
struct Total {
    versions: u64,
    unreadable_entries: u64,
    shared: u64,
    files: u64,
    /// Those of the last request.
    files_left: Vec<Value>,
}

impl Total {
    fn add(&mut self, part: &Value) {
        let count = |name: &str| part[name].as_u64().unwrap_or_default();
        self.versions += count("versions");
        self.unreadable_entries += count("unreadable_entries");
        self.shared += count("shared");
        self.files += count("files");
        self.files_left = part["files_left"].as_array().cloned().unwrap_or_default();
    }

    fn to_json(&self) -> Value {
        json!({
            "versions": self.versions,
            "unreadable_entries": self.unreadable_entries,
            "shared": self.shared,
            "files": self.files,
            "files_left": self.files_left,
        })
    }

    fn print(&self) {
        if self.versions + self.unreadable_entries + self.files + self.shared == 0 {
            println!("Nothing was stored of it.");
        } else {
            println!(
                "Erased {}, {} and {}.",
                counted(self.versions, "version"),
                counted_as(
                    self.unreadable_entries,
                    "unreadable entry",
                    "unreadable entries"
                ),
                counted_as(self.files, "file of destinations", "files of destinations"),
            );
        }
        if self.shared > 0 {
            println!(
                "Kept {} that name other companies of yours too; --document erases each.",
                counted(self.shared, "digitized version")
            );
        }
        for left in &self.files_left {
            println!(
                "Not removed from destination {}: {} of erased documents. Problem: {}.",
                cell(&left["destination"]),
                counted(left["files"].as_u64().unwrap_or_default(), "file"),
                cell(&left["problem"]),
            );
        }
    }
}

/// Returns a count in words, with the plural of the last one.
fn counted_as(count: u64, one: &str, several: &str) -> String {
    match count {
        1 => format!("1 {one}"),
        _ => format!("{count} {several}"),
    }
}
