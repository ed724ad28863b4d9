//! Tables on standard output.

use comfy_table::{Table, presets};
use serde_json::Value;

/// Returns an empty table with these columns. It has no lines, so that every row is one line
/// for `grep`.
pub(super) fn new(columns: impl IntoIterator<Item = &'static str>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(columns);
    table
}

/// Returns a JSON value as a table shows it: text without quotes, nothing for `null`.
pub(super) fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Returns the state of a row of `/v1/feeds` or `/v1/destinations`, such as `paused (by_hand)`.
pub(super) fn state(row: &Value) -> String {
    let state = cell(&row["state"]);
    match (&row["until"], &row["since"], &row["reason"]) {
        (Value::String(until), _, _) => format!("{state} until {until}"),
        (_, Value::String(since), _) => format!("{state} since {since}"),
        (_, _, Value::String(reason)) => format!("{state} ({reason})"),
        _ => state,
    }
}
