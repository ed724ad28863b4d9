//! Lines of the log, in which nothing is invisible.

use std::io::{self, Write};

use crate::config::LogFormat;
use crate::visible::{escaped, is_invisible};

/// A writer of whole events. An event is one line: what would forge another, drive a terminal or
/// reverse the order of reading is escaped, whatever part of the program logged it.
pub(super) struct VisibleLines<W> {
    to: W,
    format: LogFormat,
}

impl<W: Write> VisibleLines<W> {
    /// Creates a writer to `to`.
    pub(super) fn new(to: W, format: LogFormat) -> Self {
        Self { to, format }
    }
}

impl<W: Write> Write for VisibleLines<W> {
    /// Writes an event, which the formatter passes as a whole, with its line feed.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let (line, end) = match text.strip_suffix('\n') {
            Some(line) => (line, "\n"),
            None => (&*text, ""),
        };
        let mut shown = match self.format {
            LogFormat::Text => text_line(line),
            LogFormat::Json => json_line(line),
        };
        shown.push_str(end);
        self.to.write_all(shown.as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Escapes all but the formatter's own colors.
fn text_line(line: &str) -> String {
    let mut parts = line.split("\u{1b}[");
    let mut shown = escaped(parts.next().unwrap_or_default(), is_invisible).into_owned();
    for part in parts {
        let after = part.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';');
        shown.push_str(if after.starts_with('m') {
            "\u{1b}["
        } else {
            "\\u{1b}["
        });
        shown.push_str(&escaped(part, is_invisible));
    }
    shown
}

/// Escapes as JSON does. The formatter escapes control characters itself, so the rest is in strings.
fn json_line(line: &str) -> String {
    if !line.chars().any(is_invisible) {
        return line.to_owned();
    }
    let mut shown = String::with_capacity(line.len() + 8);
    for c in line.chars() {
        if is_invisible(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                shown.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            shown.push(c);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(event: &str, format: LogFormat) -> String {
        let mut bytes = Vec::new();
        let mut lines = VisibleLines::new(&mut bytes, format);
        lines.write_all(event.as_bytes()).expect("written");
        String::from_utf8(bytes).expect("text")
    }

    #[test]
    fn an_event_is_one_line_and_keeps_only_our_colors() {
        let text = |event| written(event, LogFormat::Text);
        assert_eq!(
            text("\u{1b}[2mnow\u{1b}[0m ok\n"),
            "\u{1b}[2mnow\u{1b}[0m ok\n"
        );
        assert_eq!(
            text("a\nb\u{1b}[2J\u{1b}c\u{202e}\n"),
            "a\\nb\\u{1b}[2J\\u{1b}c\\u{202e}\n"
        );
        let json = written("{\"a\":\"1\u{202e}2\u{e0041}\"}\n", LogFormat::Json);
        assert_eq!(json, "{\"a\":\"1\\u202e2\\udb40\\udc41\"}\n");
        let read: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!(read["a"], "1\u{202e}2\u{e0041}");
    }

    proptest! {
        #[test]
        fn no_text_forges_a_line_or_hides_a_part_of_one(text in any::<String>()) {
            let line = written(&format!("{text}\n"), LogFormat::Text);
            prop_assert_eq!(line.matches('\n').count(), 1);
            let without_colors = line.trim_end().replace("\u{1b}[", "");
            prop_assert!(!without_colors.chars().any(is_invisible));
            let json = serde_json::json!({ "a": text }).to_string();
            let line = written(&format!("{json}\n"), LogFormat::Json);
            let read: serde_json::Value = serde_json::from_str(&line).expect("JSON");
            prop_assert_eq!(read["a"].as_str(), Some(text.as_str()));
            prop_assert!(!line.trim_end().chars().any(is_invisible));
        }
    }
}
