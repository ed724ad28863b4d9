//! `documents fields`

use super::outcome::{Exit, Failure};
use super::table;
use crate::domain::counted;
use crate::export::fields::{self, FieldCount, QueueFields};
use crate::store::{DocumentSearch, Store};

/// Runs `documents fields`.
pub(super) async fn run(
    store: &Store,
    search: DocumentSearch,
    newest: Option<u64>,
    json: bool,
) -> Result<Exit, Failure> {
    let report = fields::count(store, search, newest).await?;
    if json {
        println!("{}", serde_json::to_string(&report)?);
        return Ok(Exit::Done);
    }
    if report.queues.is_empty() {
        println!("No documents.");
    }
    for (index, queue) in report.queues.iter().enumerate() {
        if index > 0 {
            println!();
        }
        print_queue(queue);
    }
    if report.without_contents > 0 {
        println!(
            "{} without JSON: removed after `retention.documents`, or erased.",
            counted(report.without_contents, "version")
        );
    }
    if report.more {
        println!("Older versions were not read; --newest reads more, and all without it.");
    }
    Ok(Exit::Done)
}

fn print_queue(queue: &QueueFields) {
    println!(
        "{}: {}",
        queue.queue,
        counted(queue.versions, "document version")
    );
    let mut table = table::new(["field", "known as", "present", "filled", "types"]);
    for field in &queue.fields {
        table.add_row([
            field.name.clone(),
            field
                .evidence
                .map_or("not expected", |evidence| evidence.as_str())
                .to_owned(),
            rate(field.present, field.of),
            rate(field.filled, field.of),
            types(field),
        ]);
    }
    println!("{table}");
    if !queue.never.is_empty() {
        let never = queue.never.iter();
        let never: Vec<String> = never
            .map(|field| format!("{} ({})", field.name, field.evidence.as_str()))
            .collect();
        println!("Never seen: {}.", never.join(", "));
    }
    if queue.other_names > 0 {
        println!(
            "{} left out, whose names could be values, or are too many.",
            counted(queue.other_names, "field")
        );
    }
}

fn types(field: &FieldCount) -> String {
    let types: Vec<String> = field
        .types
        .iter()
        .map(|(kind, count)| format!("{kind} {count}"))
        .collect();
    types.join(", ")
}

/// Returns a part of a whole in percent: 0 % only for none, and 100 % only for all.
fn rate(part: u64, whole: u64) -> String {
    let tenths = match (part, whole) {
        (0, _) | (_, 0) => 0,
        (part, whole) if part >= whole => 1_000,
        (part, whole) => (u128::from(part) * 1_000 / u128::from(whole)).clamp(1, 999),
    };
    format!("{}.{} %", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_whole_only_if_it_is() {
        assert_eq!(rate(0, 3), "0.0 %");
        assert_eq!(rate(1, 3), "33.3 %");
        assert_eq!(rate(1, 1_000_000), "0.1 %");
        assert_eq!(rate(999_999, 1_000_000), "99.9 %");
        assert_eq!(rate(3, 3), "100.0 %");
        assert_eq!(rate(0, 0), "0.0 %");
    }
}
