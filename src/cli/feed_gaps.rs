//! `feeds gaps`

use serde_json::{Value, json};

use super::outcome::{Exit, Failure};
use super::row_id::row_id;
use super::server::{Api, with_query};
use super::table;
use crate::api::feeds::{Gap, GapQuery};
use crate::api::{Changed, NoFields};
use crate::domain::Cursor;
use crate::visible::{shell_word, visible};

/// Arguments of `feeds gaps`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Close this gap: you have compared the stretch with Įvesk.lt and nothing is missing
    #[arg(long, value_name = "ID", conflicts_with = "closed", value_parser = row_id("`ivesk-webhook feeds gaps`"))]
    dismiss: Option<i64>,
    /// Show closed gaps too
    #[arg(long)]
    closed: bool,
    /// Print one JSON array
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Returns true if nothing is changed.
    pub(super) fn only_reads(&self) -> bool {
        self.dismiss.is_none()
    }
}

/// Runs `feeds gaps`.
pub(super) async fn run(api: &Api, args: Args) -> Result<Exit, Failure> {
    if let Some(id) = args.dismiss {
        let path = format!("/v1/feeds/gaps/{id}/dismiss");
        let _: Changed = api.post(&path, &NoFields {}).await?;
        result!(
            json!({ "dismissed": id }),
            "Dismissed gap {id}; its feed is pulled again."
        );
        return Ok(Exit::Done);
    }
    let query = GapQuery {
        closed: args.closed,
        ..GapQuery::default()
    };
    let path = with_query("/v1/feeds/gaps", &query)?;
    if args.json {
        println!("{}", Value::Array(api.rows(&path).await?));
        return Ok(Exit::Done);
    }
    let gaps: Vec<Gap> = api.rows(&path).await?;
    if gaps.is_empty() {
        println!("No gaps: nothing is known to be missing.");
        return Ok(Exit::Done);
    }
    let mut table = table::new(["id", "feed", "reason", "after", "up to", "found", "closed"]);
    for gap in &gaps {
        table.add_row([
            gap.id.to_string(),
            gap.feed.to_string(),
            gap.reason.as_str().to_owned(),
            cursor(gap.from.as_ref(), "the beginning"),
            cursor(gap.to.as_ref(), "not known"),
            table::moment(gap.found_at),
            table::moment(gap.closed_at),
        ]);
    }
    println!("{table}");
    println!(
        "Document versions may be missing there. A pull over the stretch closes a gap if it proves that \
         nothing is. Otherwise compare it with Įvesk.lt, then run `ivesk-webhook feeds gaps --dismiss ID`."
    );
    for gap in gaps.iter().filter(|gap| gap.closed_at.is_none()) {
        let from = cursor(gap.from.as_ref(), Cursor::BEGINNING);
        let (id, options, from) = (gap.id, gap.feed.options(), shell_word(&from));
        println!(
            "  gap {id}: `ivesk-webhook pull {options} --from {}`",
            visible(&from)
        );
    }
    Ok(Exit::Done)
}

fn cursor(cursor: Option<&Cursor>, absent: &str) -> String {
    cursor.map_or(absent, Cursor::as_str).to_owned()
}
