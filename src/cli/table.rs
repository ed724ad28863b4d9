//! Tables on standard output.

use comfy_table::{Table, presets};

/// A table with these columns, as every subcommand prints one: no lines, so that a
/// row stays one line that `grep` finds.
pub(super) fn new(columns: impl IntoIterator<Item = &'static str>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(columns);
    table
}

/// A JSON value as a table shows it: text without quotes, nothing for `null`.
pub(super) fn cell(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::Null => String::new(),
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
