//! `documents export`

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use clap::ArgGroup;
use serde_json::json;

use super::of_feeds::OfFeeds;
use super::outcome::{Exit, Failure};
use super::{printing, style};
use crate::domain::{Timestamp, counted};
use crate::export::cells::{Decimal, Encoding};
use crate::export::columns::{self, Per};
use crate::export::stream::{Documents, Export, Part, Summary, moment};
use crate::export::table::{Format, Layout, Separator};
use crate::file_names::identity;
use crate::private_files::{FOLDER_MODE, create_dir_all, write};
use crate::store::{DocumentRow, DocumentStretch, SharedStore};

pub(super) const EXAMPLES: &str = "\
Examples:
  ivesk-webhook documents export --format csv >documents.csv
  ivesk-webhook documents export --format csv --since 2026-11-01 >new.csv
  ivesk-webhook documents export --format csv --separator semicolon \\
    --decimal comma --encoding utf-8-bom >lt.csv
  ivesk-webhook documents export --format csv --per line \\
    --columns docnum,date,line.name,line.total
  ivesk-webhook documents export --format json --queue exported --after 4711
  ivesk-webhook documents export backup/";

/// Arguments of `documents export`.
#[derive(Debug, clap::Args)]
#[command(group(ArgGroup::new("which").required(true).args(["dir", "format"])))]
pub(super) struct Args {
    /// Folder for a file of each version; created if missing
    #[arg(conflicts_with = "format")]
    dir: Option<PathBuf>,
    /// Write a table in this form to standard output
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// What a row of the table is
    #[arg(
        long,
        value_enum,
        default_value_t,
        requires = "format",
        conflicts_with = "dir"
    )]
    per: Per,
    /// Columns of the table, separated by commas; `all`, or `field:NAME` for any other field of the JSON
    #[arg(
        long,
        value_name = "NAMES",
        requires = "format",
        conflicts_with = "dir"
    )]
    columns: Option<String>,
    /// What separates cells of CSV
    #[arg(
        long,
        value_enum,
        default_value_t,
        requires = "format",
        conflicts_with = "dir"
    )]
    separator: Separator,
    /// The sign before decimals in CSV
    #[arg(
        long,
        value_enum,
        default_value_t,
        requires = "format",
        conflicts_with = "dir"
    )]
    decimal: Decimal,
    /// The encoding of CSV
    #[arg(
        long,
        value_enum,
        default_value_t,
        requires = "format",
        conflicts_with = "dir"
    )]
    encoding: Encoding,
    #[command(flatten)]
    pub(super) feeds: OfFeeds,
    /// Only versions that were exported or digitized at this moment or later: a date (from midnight, UTC) or a
    /// date and time
    #[arg(long, value_name = "MOMENT", value_parser = parse_moment)]
    since: Option<Timestamp>,
    /// Only versions from before this moment
    #[arg(long, value_name = "MOMENT", value_parser = parse_moment)]
    until: Option<Timestamp>,
    /// Only versions after this sequence number
    #[arg(
        long,
        value_name = "SEQUENCE",
        default_value_t,
        hide_default_value = true
    )]
    after: i64,
    /// In a table too, every version, also those that a newer one has replaced
    #[arg(long, requires = "format", conflicts_with = "dir")]
    all_versions: bool,
}

fn parse_moment(text: &str) -> Result<Timestamp, &'static str> {
    moment(text).ok_or("write a date or a moment, such as 2026-11-01 or 2026-11-01T08:00:00Z")
}

/// Runs `documents export`.
pub(super) async fn run(store: &SharedStore, args: Args) -> Result<Exit, Failure> {
    let stretch = DocumentStretch {
        account: args.feeds.account,
        queue: args.feeds.queue,
        company: args.feeds.company,
        since: args.since,
        until: args.until,
        superseded: args.all_versions || args.format.is_none(),
        after: args.after,
    };
    if args.format == Some(Format::Csv) && style::is_json() {
        return Err(Failure::usage(anyhow!(
            "`--format csv` and `--json` contradict each other: leave one out, or write `--format json` for one JSON \
             object per line"
        )));
    }
    let Some(format) = args.format else {
        // clap requires one of the two.
        return files(store, stretch, &args.dir.unwrap_or_default()).await;
    };
    let columns = columns::parse(args.columns.as_deref(), args.per).map_err(Failure::usage)?;
    let export = Export {
        documents: Documents::Stretch(stretch, Box::new(|_| true)),
        per: args.per,
        layout: Layout {
            format,
            columns,
            separator: args.separator,
            decimal: args.decimal,
            encoding: args.encoding,
        },
    };
    let mut parts = export.start(SharedStore::clone(store), ());
    while let Some(part) = parts.recv().await {
        match part? {
            Part::Bytes(bytes) => printing::bytes_to_stdout(&bytes),
            Part::End(summary) => {
                report(&summary);
                return Ok(Exit::Done);
            }
        }
    }
    Err(anyhow!("the export ended early; what was written is incomplete").into())
}

/// Says on standard error what a table does not show.
fn report(summary: &Summary) {
    eprintln!(
        "{} of {}.",
        counted(summary.rows, "row"),
        counted(summary.versions, "document")
    );
    if summary.without_contents > 0 {
        eprintln!("{}", left_out(summary.without_contents));
    }
    if summary.has_both_queues {
        eprintln!(
            "Documents of both queues are in it, so one that was digitized and exported is in it twice; --queue chooses one."
        );
    }
    if summary.replaced > 0 {
        let versions: Vec<String> = summary.replaced_in.iter().map(i64::to_string).collect();
        eprintln!(
            "Windows-1257 does not have {}: `?` is in their place, first in the versions {}. --encoding utf-8 keeps them.",
            counted(summary.replaced, "character"),
            versions.join(", ")
        );
    }
}

fn left_out(count: u64) -> String {
    format!(
        "Left out {count}, whose JSON was removed after `retention.documents`, or that were erased."
    )
}

/// Writes every version's JSON to a file.
async fn files(
    store: &SharedStore,
    mut stretch: DocumentStretch,
    dir: &Path,
) -> Result<Exit, Failure> {
    let mut written = 0_u64;
    let mut without_body = 0_u64;
    loop {
        let read = store.document_stretch(stretch.clone()).await?;
        for row in &read.rows {
            match &row.body {
                Some(body) => {
                    write_file(dir, row, body)?;
                    written += 1;
                }
                None => without_body += 1,
            }
        }
        match read.next {
            Some(next) => stretch.after = next,
            None => break,
        }
    }
    result!(
        json!({ "dir": dir, "versions": written, "without_json": without_body }),
        "Wrote {} to {}.",
        counted(written, "document version"),
        dir.display()
    );
    if without_body > 0 && !style::is_json() {
        println!("{}", left_out(without_body));
    }
    Ok(Exit::Done)
}

fn write_file(dir: &Path, row: &DocumentRow, body: &[u8]) -> Result<(), Failure> {
    let folder = dir.join(identity(match row.feed.company.as_str() {
        "" => row.feed.queue.as_str(),
        company => company,
    }));
    create_dir_all(&folder, FOLDER_MODE)
        .with_context(|| format!("failed to create {}", folder.display()))?;
    let name = format!("{}-{}.json", row.sequence, identity(&row.document_id));
    let file = folder.join(name);
    write(&file, body).with_context(|| format!("failed to write {}", file.display()))?;
    Ok(())
}
