//! Words import errors for the vendor's accountant.
//!
//! The accountant filters by the text (vendor-api, "Reporting a failed import"), so equal
//! reasons give equal texts: they contain nothing of the single document.

use crate::config::{ImportErrorLanguage, ImportErrorsConfig};
use crate::visible::foreign;

/// First words of lines of a stack trace, in languages that accounting systems are written in.
const TRACE_PREFIXES: [&str; 11] = [
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

/// Returns a destination's message as it is stored and shown: [`foreign`] words, up to the first
/// line of a stack trace or of HTML.
///
/// Returns an empty text if nothing of it is readable for people.
pub fn sanitize(message: &str) -> String {
    let is_readable = |line: &&str| {
        let line = line.trim();
        !TRACE_PREFIXES.iter().any(|prefix| line.starts_with(prefix)) && !is_markup(line)
    };
    let lines: Vec<&str> = message.lines().take_while(is_readable).collect();
    foreign(&lines.join("\n"))
}

fn is_markup(line: &str) -> bool {
    let start = line.get(..9).unwrap_or(line).to_ascii_lowercase();
    start.starts_with("<!doctype") || start.starts_with("<html") || start.starts_with("<?xml")
}

/// Returns the import error for a destination's rejection `message`.
pub fn import_error(settings: &ImportErrorsConfig, message: &str) -> String {
    let (without_reason, template) = match settings.language {
        ImportErrorLanguage::Lithuanian => (
            "priežastis nenurodyta",
            "Apskaitos sistema dokumento nepriėmė: {message}. Pataisykite dokumentą ir eksportuokite jį iš naujo.",
        ),
        ImportErrorLanguage::English => (
            "no reason was given",
            "The accounting system rejected the document: {message}. Correct the document and export it again.",
        ),
    };
    let message = sanitize(message);
    let message = if message.is_empty() {
        without_reason
    } else {
        message.as_str()
    };
    match &settings.template {
        Some(custom) => custom.replace("{message}", message),
        // The template has a full stop of its own.
        None => template.replace("{message}", message.trim_end_matches('.')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::visible::{MAX_CHARS, is_invisible};
    use proptest::prelude::*;

    #[test]
    fn a_stack_trace_never_reaches_the_accountant() {
        for trace in [
            "Unknown VAT code PVM99\n    at Books.Import(Invoice.cs:12)\n    at Main()",
            "Unknown VAT code PVM99\nTraceback (most recent call last):\n  File \"a.py\", line 1\nKeyError",
            "Unknown VAT code PVM99\nCaused by: java.lang.NullPointerException",
            "Unknown VAT code PVM99\n<html><body>Server error</body></html>",
            "  Unknown\tVAT\u{1b} code\r\nPVM99  ",
            "Unknown VAT code PVM99\n\r\n   at Books.Import(Invoice.cs:12)",
        ] {
            assert_eq!(sanitize(trace), "Unknown VAT code PVM99", "{trace}");
        }
        for unreadable in [
            "",
            "\n",
            "Traceback (most recent call last):\nValueError: x",
            "<!DOCTYPE html><title>500</title>",
        ] {
            assert_eq!(sanitize(unreadable), "", "{unreadable}");
        }
    }

    #[test]
    fn a_link_in_a_rejection_is_cut_before_it_is_kept_or_reported() {
        let rejection = "No file at https://b.s3.eu-west-1.amazonaws.com/1?X-Amz-Signature=planted\n\
                         nor at /1?X-Amz-Credential=planted; pay \u{202e}991 EUR\u{1b}[2J";
        let settings = ImportErrorsConfig::default();
        for text in [sanitize(rejection), import_error(&settings, rejection)] {
            let shown = "No file at [address] nor at [secret] pay \\u{202e}991 EUR";
            assert!(text.contains(shown), "{text}");
            assert!(
                !text.contains("planted") && !text.chars().any(is_invisible),
                "{text:?}"
            );
        }
    }

    #[test]
    fn the_text_follows_the_configured_language_or_template() {
        let mut settings = ImportErrorsConfig::default();
        assert_eq!(
            import_error(&settings, "nežinomas PVM kodas."),
            "Apskaitos sistema dokumento nepriėmė: nežinomas PVM kodas. Pataisykite dokumentą ir \
             eksportuokite jį iš naujo."
        );
        assert!(import_error(&settings, "").contains("priežastis nenurodyta"));
        settings.language = ImportErrorLanguage::English;
        assert_eq!(
            import_error(&settings, "unknown VAT code"),
            "The accounting system rejected the document: unknown VAT code. Correct the document and \
             export it again."
        );
        settings.template = Some("Nepriimta ({message})".to_owned());
        assert_eq!(import_error(&settings, "x."), "Nepriimta (x.)");
    }

    proptest! {
        #[test]
        fn any_message_becomes_one_short_line(message in "\\PC{0,200}[\\x00-\\x1f]{0,5}\\PC{0,400}") {
            let text = sanitize(&message);
            prop_assert!(text.chars().count() <= MAX_CHARS + 1);
            prop_assert!(!text.chars().any(is_invisible));
        }
    }
}
