//! Tables on standard output.

use std::fmt;

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use super::{moments, style};
use crate::api::RunState;
use crate::domain::{Clock, Moment, Timestamp};
use crate::visible::visible;

/// Columns with the words of others, which are cut until a row fits. All others have numbers, names
/// and moments that a person copies or compares, and are never cut.
const CUT: [&str; 13] = [
    "seller",
    "buyer",
    "note",
    "detail",
    "text",
    "reason",
    "last error",
    "result",
    "value",
    "subject",
    "topic",
    "subscription or topic",
    "types",
];

/// Columns narrower than this are not cut.
const MIN_CUT: usize = 12;

/// Columns that are left out, one after the other, if a row does not fit otherwise.
const LEFT_OUT: [&str; 9] = [
    "queue",
    "kind",
    "account",
    "until",
    "times",
    "triggers",
    "next attempt",
    "AWS account",
    "missed notifications",
];

/// A table without lines, so that every row is one line for `grep`. What is invisible in a cell is
/// shown as an escape. On a terminal, unless `--wide` is given, empty columns are left out and a row
/// is made to fit: by cutting [`CUT`], by leaving out [`LEFT_OUT`], or else as a line for each cell.
pub(super) struct Table {
    columns: Vec<&'static str>,
    rows: Vec<Vec<String>>,
    /// Columns that a row may have in all; `None` for no limit.
    limit: Option<usize>,
}

/// How a table is shown.
enum Layout {
    /// A row is a line; these columns, by index, with these widths.
    Lines(Vec<(usize, usize)>),
    /// A cell is a line.
    Blocks,
}

impl Table {
    /// Adds a row.
    pub(super) fn add_row(&mut self, cells: impl IntoIterator<Item = String>) {
        let cells = cells.into_iter();
        let cells = cells.map(|cell| visible(&cell).into_owned());
        self.rows.push(cells.collect());
    }

    /// Returns the width of a column's widest cell.
    fn width_of(&self, column: usize) -> usize {
        let cells = self.rows.iter().filter_map(|row| row.get(column));
        let widest = cells.map(|cell| cell.width()).max();
        let name = self.columns.get(column).map_or(0, |name| name.width());
        widest.unwrap_or(0).max(name)
    }

    /// Returns true if the column has a cell that is neither empty nor 0.
    fn is_filled(&self, column: usize) -> bool {
        let mut cells = self.rows.iter().filter_map(|row| row.get(column));
        self.rows.is_empty() || cells.any(|cell| !matches!(cell.as_str(), "" | "0"))
    }

    /// Returns how the table fits.
    fn layout(&self) -> Layout {
        let columns = (0..self.columns.len()).map(|column| (column, self.width_of(column)));
        let Some(limit) = self.limit else {
            return Layout::Lines(columns.collect());
        };
        let mut columns: Vec<(usize, usize)> = columns
            .filter(|(column, _)| self.is_filled(*column))
            .collect();
        let name = |column: usize| self.columns.get(column).copied().unwrap_or_default();
        let narrowest = |(column, width): &(usize, usize)| match CUT.contains(&name(*column)) {
            true => *width.min(&MIN_CUT.max(name(*column).width())),
            false => *width,
        };
        // A space on each side of a cell.
        let total = |columns: &[(usize, usize)], width: &dyn Fn(&(usize, usize)) -> usize| {
            columns
                .iter()
                .map(|column| width(column) + 2)
                .sum::<usize>()
        };
        let mut left_out = LEFT_OUT.iter();
        while total(&columns, &narrowest) > limit {
            let Some(next) = left_out.next() else {
                return Layout::Blocks;
            };
            columns.retain(|(column, _)| name(*column) != *next);
        }
        while total(&columns, &|(_, width)| *width) > limit {
            let cuttable = columns
                .iter_mut()
                .filter(|column| narrowest(column) < column.1);
            match cuttable.max_by_key(|(_, width)| *width) {
                Some((_, width)) => *width -= 1,
                None => break,
            }
        }
        Layout::Lines(columns)
    }

    /// Writes a line for each row.
    fn write_lines(&self, f: &mut fmt::Formatter<'_>, columns: &[(usize, usize)]) -> fmt::Result {
        let mut is_cut = (0..self.columns.len())
            .any(|column| self.is_filled(column) && !columns.iter().any(|(one, _)| *one == column));
        let mut line = |cells: &dyn Fn(usize) -> Option<String>| {
            let mut line = String::new();
            for (column, width) in columns {
                let whole = cells(*column).unwrap_or_default();
                let cell = cut(&whole, *width);
                is_cut |= cell != whole;
                let padding = width.saturating_sub(cell.width()) + 1;
                line.push(' ');
                line.push_str(&cell);
                line.push_str(&" ".repeat(padding));
            }
            line.truncate(line.trim_end().len());
            line
        };
        let heading = line(&|column| self.columns.get(column).map(|name| (*name).to_owned()));
        f.write_str(&style::styled(style::HEADING, &heading))?;
        for row in &self.rows {
            write!(f, "\n{}", line(&|column| row.get(column).cloned()))?;
        }
        if is_cut && self.limit.is_some() {
            f.write_str("\nCut to fit; `--wide` shows all.")?;
        }
        Ok(())
    }

    /// Writes a line for each cell that is not empty, and an empty line between rows.
    fn write_blocks(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.columns.iter().map(|name| name.width()).max();
        let width = width.unwrap_or_default();
        for (index, row) in self.rows.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            for (name, cell) in self.columns.iter().zip(row) {
                if cell.is_empty() {
                    continue;
                }
                let name = style::styled(style::HEADING, &format!("{name:<width$}"));
                writeln!(f, " {name}  {cell}")?;
            }
        }
        f.write_str("`--wide` shows a line for each row.")
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.layout() {
            Layout::Lines(columns) => self.write_lines(f, &columns),
            Layout::Blocks => self.write_blocks(f),
        }
    }
}

/// Returns the text, or its beginning and `…` if it is wider.
fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut room = width.saturating_sub(1);
    let fits = |c: &char| {
        let width = c.width().unwrap_or(0);
        let fits = width <= room;
        room = room.saturating_sub(width);
        fits
    };
    let mut shown: String = text.chars().take_while(fits).collect();
    shown.push('…');
    shown
}

/// Returns an empty table with these columns.
pub(super) fn new(columns: impl IntoIterator<Item = &'static str>) -> Table {
    Table {
        columns: columns.into_iter().collect(),
        rows: Vec::new(),
        limit: style::width(),
    }
}

/// Returns a moment as people read it, such as `14:05 (5 min ago)`; nothing for none.
pub(super) fn moment(at: impl Into<Option<Timestamp>>) -> String {
    let at = at.into();
    at.map_or_else(String::new, |at| moments::shown(at, Clock::system().now()))
}

/// Returns a moment to the second, such as `2026-11-28 14:05:09`; nothing for none.
pub(super) fn exact(at: impl Into<Option<Timestamp>>) -> String {
    at.into().map_or_else(String::new, moments::exact)
}

/// Returns the moment of a version to the second; its own text if it is no moment.
pub(super) fn of_version(version: Option<&str>) -> String {
    let at = |text| Moment::read(text)?.timestamp();
    version.map_or_else(String::new, |text| {
        at(text).map_or_else(|| text.to_owned(), moments::exact)
    })
}

/// Returns a value as text; nothing for none.
pub(super) fn optional(value: Option<impl ToString>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}

/// Returns the name of a reason or of a kind in words, such as `by hand` for `by_hand`.
pub(super) fn words(name: &str) -> String {
    visible(&name.replace('_', " ")).into_owned()
}

/// Returns a state, such as `paused (by hand)`.
pub(super) fn state(state: &RunState) -> String {
    let name = state.as_str();
    match state {
        RunState::Active | RunState::Failing { since: None } => name.to_owned(),
        RunState::Waiting { until } => format!("{name} until {}", moment(*until)),
        RunState::Failing { since: Some(since) } | RunState::Removed { since } => {
            format!("{name} since {}", moment(*since))
        }
        RunState::Paused { reason } => format!("{name} ({})", words(reason)),
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
        table.add_row(["a\u{200b}b".to_owned(), optional(None::<u64>)]);
        let text = table.to_string();
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(
            text.contains("UAB \\u{202e}A\\n8  SF-8\\u{1b}[2J"),
            "{text}"
        );
        assert!(text.contains("a\\u{200b}b"), "{text}");
    }

    #[test]
    fn a_row_fits_by_cutting_the_words_of_others_alone() {
        let mut table = new(["id", "seller", "document", "queue", "note", "last error"]);
        table.limit = Some(70);
        table.add_row([
            "1".to_owned(),
            "UAB „Lietuviškų dešrų rūkykla“".to_owned(),
            "9c621c90-3d6a-4d20-9c2b-1f2a3b4c5d6e".to_owned(),
            "exported".to_owned(),
            String::new(),
            "the server answered 503 Service Unavailable".to_owned(),
        ]);
        table.add_row([
            "2".to_owned(),
            "日本語日本語日本語日本語".to_owned(),
            "2".to_owned(),
            "digitized".to_owned(),
            String::new(),
            String::new(),
        ]);
        let text = table.to_string();
        for line in text.lines() {
            assert!(line.width() <= 70, "{line}");
        }
        assert!(
            text.contains("9c621c90-3d6a-4d20-9c2b-1f2a3b4c5d6e"),
            "{text}"
        );
        assert!(text.contains("UAB „Lietuv"), "{text}");
        assert!(!text.contains("note"), "an empty column: {text}");
        assert!(!text.contains("queue"), "left out: {text}");
        assert!(text.ends_with("Cut to fit; `--wide` shows all."), "{text}");

        table.limit = Some(40);
        let text = table.to_string();
        assert!(text.starts_with(" id          1\n"), "{text}");
        assert!(text.contains("\n\n id          2\n"), "{text}");
        assert!(text.contains("503 Service Unavailable\n"), "{text}");

        table.limit = None;
        let text = table.to_string();
        assert!(text.contains("503 Service Unavailable"));
        assert!(text.contains("note") && !text.contains('…'), "{text}");
        assert!(!text.contains("--wide"), "{text}");
    }
}
