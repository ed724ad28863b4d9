//! What the vendor's accountant reads of a rejected document.
//!
//! The accountant filters by the text (vendor-api, "Reporting a failed import"), so equal
//! reasons give equal texts: nothing of the single document stands in them.

use crate::config::{ImportErrorLanguage, ImportErrorsConfig};

/// The most characters of a destination's words that the accountant is shown.
const MAX_CHARS: usize = 300;

/// What a line of a stack trace begins with, in the languages that accounting systems are
/// written in.
const TRACE_BEGINS: [&str; 11] = [
    "at ",
    "File \"",
    "Traceback",
    "Caused by:",
    "stack backtrace",
    "Stack trace",
    "stack trace",
    "Exception in thread",
    "thread '",
    "goroutine ",
    "#0 ",
];

/// The words of a destination as they may be kept and shown: one line, no control characters, at
/// most 300, nothing from where a stack trace or a page of HTML begins. Empty
/// where nothing of it is for people.
pub fn plain(message: &str) -> String {
    let mut words: Vec<&str> = Vec::new();
    for line in message.lines() {
        let line = line.trim();
        if TRACE_BEGINS.iter().any(|begin| line.starts_with(begin)) || is_markup(line) {
            break;
        }
        words.extend(
            line.split(|c: char| c.is_whitespace() || c.is_control())
                .filter(|word| !word.is_empty()),
        );
    }
    let text = words.join(" ");
    match text.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => format!("{}…", text[..end].trim_end()),
        None => text,
    }
}

fn is_markup(line: &str) -> bool {
    let begins = line.get(..9).unwrap_or(line).to_ascii_lowercase();
    begins.starts_with("<!doctype") || begins.starts_with("<html") || begins.starts_with("<?xml")
}

/// The text for the accountant.
pub fn report(settings: &ImportErrorsConfig, message: &str) -> String {
    let (without_reason, template) = match settings.language {
        ImportErrorLanguage::Lithuanian => (
            "priežastis nenurodyta",
            "Apskaitos sistema dokumento nepriėmė: {message}. Pataisykite dokumentą ir eksportuokite jį iš naujo.",
        ),
        ImportErrorLanguage::English => (
            "no reason was given",
            "The accounting system did not take the document: {message}. Correct the document and export it again.",
        ),
    };
    let message = plain(message);
    let message = if message.is_empty() {
        without_reason
    } else {
        message.as_str()
    };
    match &settings.template {
        Some(own) => own.replace("{message}", message),
        // The template's own full stop follows.
        None => template.replace("{message}", message.trim_end_matches('.')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_stack_trace_never_reaches_the_accountant() {
        for trace in [
            "Unknown VAT code PVM99\n    at Books.Import(Invoice.cs:12)\n    at Main()",
            "Unknown VAT code PVM99\nTraceback (most recent call last):\n  File \"a.py\", line 1\nKeyError",
            "Unknown VAT code PVM99\nCaused by: java.lang.NullPointerException",
            "Unknown VAT code PVM99\n<html><body>Server error</body></html>",
            "  Unknown\tVAT\u{1b} code\r\nPVM99  ",
        ] {
            assert_eq!(plain(trace), "Unknown VAT code PVM99", "{trace}");
        }
        for nothing in [
            "",
            "\n",
            "Traceback (most recent call last):\nValueError: x",
            "<!DOCTYPE html><title>500</title>",
        ] {
            assert_eq!(plain(nothing), "", "{nothing}");
        }
    }

    #[test]
    fn the_text_uses_the_configured_language_or_template() {
        let mut settings = ImportErrorsConfig::default();
        assert_eq!(
            report(&settings, "nežinomas PVM kodas."),
            "Apskaitos sistema dokumento nepriėmė: nežinomas PVM kodas. Pataisykite dokumentą ir \
             eksportuokite jį iš naujo."
        );
        assert!(report(&settings, "").contains("priežastis nenurodyta"));
        settings.language = ImportErrorLanguage::English;
        assert_eq!(
            report(&settings, "unknown VAT code"),
            "The accounting system did not take the document: unknown VAT code. Correct the document and \
             export it again."
        );
        settings.template = Some("Nepriimta ({message})".to_owned());
        assert_eq!(report(&settings, "x."), "Nepriimta (x.)");
    }

    proptest! {
        #[test]
        fn any_rejection_message_becomes_one_short_line(message in "\\PC{0,200}[\\x00-\\x1f]{0,5}\\PC{0,400}") {
            let text = plain(&message);
            prop_assert!(text.chars().count() <= MAX_CHARS + 1);
            prop_assert!(!text.chars().any(char::is_control));
        }
    }
}
