//! Tables on standard output.

use std::fmt;

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use super::{moments, style};
use crate::api::RunState;
use crate::domain::{Clock, Timestamp};
use crate::visible::visible;

/// Columns narrower than this are not cut.
const MIN_CUT: usize = 6;

/// A table without lines, so that every row is one line for `grep`. What is invisible in a cell is
/// shown as an escape. On a terminal the widest cells are cut until a row fits, unless `--wide` is
/// given.
pub(super) struct Table {
    columns: Vec<&'static str>,
    rows: Vec<Vec<String>>,
    /// Columns that a row may have in all; `None` for no limit.
    limit: Option<usize>,
}

impl Table {
    /// Adds a row.
    pub(super) fn add_row(&mut self, cells: impl IntoIterator<Item = String>) {
        let cells = cells.into_iter();
        let cells = cells.map(|cell| visible(&cell).into_owned());
        self.rows.push(cells.collect());
    }

    /// Returns the widths of the columns: those of their widest cells, or less if a row would not
    /// fit.
    fn widths(&self) -> Vec<usize> {
        let mut widths: Vec<usize> = self.columns.iter().map(|column| column.width()).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.width().max(*width);
            }
        }
        let Some(limit) = self.limit else {
            return widths;
        };
        // A space on each side of a cell.
        let mut total: usize = widths.iter().map(|width| width + 2).sum();
        while total > limit {
            let widest = widths.iter_mut().max().filter(|width| **width > MIN_CUT);
            let Some(widest) = widest else {
                break;
            };
            *widest -= 1;
            total -= 1;
        }
        widths
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths = self.widths();
        let line = |cells: &mut dyn Iterator<Item = &str>| {
            let mut line = String::new();
            for (cell, width) in cells.zip(&widths) {
                let cell = cut(cell, *width);
                let padding = width.saturating_sub(cell.width()) + 1;
                line.push(' ');
                line.push_str(&cell);
                line.push_str(&" ".repeat(padding));
            }
            line.truncate(line.trim_end().len());
            line
        };
        let heading = line(&mut self.columns.iter().copied());
        f.write_str(&style::styled(style::HEADING, &heading))?;
        for row in &self.rows {
            write!(f, "\n{}", line(&mut row.iter().map(String::as_str)))?;
        }
        Ok(())
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

/// Returns a value as text; nothing for none.
pub(super) fn optional(value: Option<impl ToString>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}

/// Returns a state, such as `paused (by_hand)`.
pub(super) fn state(state: &RunState) -> String {
    let name = state.as_str();
    match state {
        RunState::Active | RunState::Failing { since: None } => name.to_owned(),
        RunState::Waiting { until } => format!("{name} until {}", moment(*until)),
        RunState::Failing { since: Some(since) } | RunState::Removed { since } => {
            format!("{name} since {}", moment(*since))
        }
        RunState::Paused { reason } => format!("{name} ({})", visible(reason)),
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
    fn a_row_fits_by_cutting_its_widest_cells() {
        let mut table = new(["id", "seller", "error"]);
        table.limit = Some(40);
        table.add_row([
            "1".to_owned(),
            "UAB „Lietuviškų dešrų rūkykla“".to_owned(),
            "the server answered 503 Service Unavailable".to_owned(),
        ]);
        table.add_row([
            "2".to_owned(),
            "日本語日本語日本語日本語".to_owned(),
            String::new(),
        ]);
        let text = table.to_string();
        for line in text.lines() {
            assert!(line.width() <= 40, "{line}");
        }
        assert!(text.contains("UAB „Lietuvi"), "{text}");
        assert!(text.contains("the server answ"), "{text}");
        assert_eq!(text.matches('…').count(), 3, "{text}");

        table.limit = None;
        assert!(table.to_string().contains("503 Service Unavailable"));
        assert!(!table.to_string().contains('…'));
    }
}
