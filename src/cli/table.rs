//! Tables on standard output.

use std::fmt;

use comfy_table::presets;
use serde_json::Value;

use crate::visible::visible;

/// A table without lines, so that every row is one line for `grep`. What is invisible in a cell is
/// shown as an escape.
pub(super) struct Table(comfy_table::Table);

impl Table {
    /// Adds a row.
    pub(super) fn add_row(&mut self, cells: impl IntoIterator<Item = String>) {
        let cells = cells.into_iter();
        let cells = cells.map(|cell| visible(&cell).into_owned());
        self.0.add_row(cells);
    }

    /// Returns the table without white space at the ends of lines.
    pub(super) fn trim_fmt(&self) -> String {
        self.0.trim_fmt()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Returns an empty table with these columns.
pub(super) fn new(columns: impl IntoIterator<Item = &'static str>) -> Table {
    let mut table = comfy_table::Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(columns);
    Table(table)
}

/// Returns a JSON value as people read it: text without quotes, nothing for `null`.
pub(super) fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => visible(text).into_owned(),
        other => other.to_string(),
    }
}

/// Returns the name of a row's feed, such as `default/exported/302320404`.
pub(super) fn feed(row: &Value) -> String {
    let parts = ["account", "queue", "company"].map(|part| cell(&row[part]));
    parts.join("/").trim_end_matches('/').to_owned()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_one_line_whatever_is_in_its_cells() {
        let mut table = new(["number", "seller"]);
        table.add_row([
            "SF-7".to_owned(),
            "UAB \u{202e}A\n8  SF-8\u{1b}[2J".to_owned(),
        ]);
        table.add_row([cell(&Value::from("a\u{200b}b")), cell(&Value::Null)]);
        let text = table.to_string();
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(
            text.contains("UAB \\u{202e}A\\n8  SF-8\\u{1b}[2J"),
            "{text}"
        );
        assert!(text.contains("a\\u{200b}b"), "{text}");
    }
}
