//! Makes the words of others safe to read: what can't be seen is shown, and what is secret is cut.
//!
//! A document, a file's name or an error of another system may hold characters that drive a terminal,
//! forge a line of a log, or reverse the order in which a number is read (Unicode TR36, "Unicode
//! Security Considerations"). They are kept as they are and escaped where people read them: in tables,
//! pages and logs.

use std::borrow::Cow;
use std::fmt::Write as _;

/// The most characters of the words of others that are logged or kept.
pub const MAX_CHARS: usize = 300;

/// Words that make a link, or a part of one, a secret: parameters of presigned and of SNS links.
const SECRET_PARAMETERS: [&str; 5] = [
    "signature=",
    "sig=",
    "token=",
    "credential=",
    "accesskeyid=",
];

/// Returns true for characters that are invisible or change the order of visible ones: controls,
/// separators of lines, and the default-ignorable characters (Unicode 16, `DerivedCoreProperties.txt`).
pub fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
            | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// Returns `text` with each invisible character as its escape, such as `\n` or `\u{202e}`.
pub fn visible(text: &str) -> Cow<'_, str> {
    escaped(text, is_invisible)
}

/// Returns the same as [`visible`], but with the ends of lines as they are.
pub fn visible_lines(text: &str) -> Cow<'_, str> {
    escaped(text, |c| c != '\n' && is_invisible(c))
}

/// Returns `text` with each character that `is_hidden` as its escape.
pub fn escaped(text: &str, is_hidden: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.chars().any(&is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if is_hidden(c) {
            // Writing to a String can't fail.
            let _ = write!(shown, "{}", c.escape_default());
        } else {
            shown.push(c);
        }
    }
    Cow::Owned(shown)
}

/// Returns the words of others as they may be logged, kept and reported: one line of visible
/// characters, of at most [`MAX_CHARS`], without addresses and signatures.
pub fn foreign(text: &str) -> String {
    let text = without_addresses(text);
    let spaced = text.replace(char::is_control, " ");
    let words: Vec<&str> = spaced
        .split_whitespace()
        .map(|word| {
            // A link within a link is encoded, perhaps several times.
            let lower = word.to_ascii_lowercase().replace("%25", "%");
            let lower = lower.replace("%25", "%").replace("%3d", "=");
            let is_secret = SECRET_PARAMETERS
                .iter()
                .any(|parameter| lower.contains(parameter));
            if is_secret { "[secret]" } else { word }
        })
        .collect();
    let line = words.join(" ");
    let line = visible(&line);
    match line.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => format!("{}…", line[..end].trim_end()),
        None => line.into_owned(),
    }
}

/// Returns `text` as one word of a command that a person copies into a shell.
pub fn shell_word(text: &str) -> Cow<'_, str> {
    let is_plain = |c: char| c.is_alphanumeric() || "._:/+-@,=".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(format!("'{}'", text.replace('\'', r"'\''")))
}

/// Replaces each address in `text` by `[address]`: it may be a presigned one.
fn without_addresses(text: &str) -> String {
    let ends_address = |c: char| c.is_whitespace() || c.is_control() || "\"'<>".contains(c);
    let mut clean = String::new();
    let mut rest = text;
    while let Some(colon) = rest.find("://") {
        let (before, after) = rest.split_at(colon);
        let scheme = before
            .rfind(|c: char| !c.is_ascii_alphanumeric())
            .map_or(0, |at| {
                at + before[at..].chars().next().map_or(0, char::len_utf8)
            });
        clean.push_str(&before[..scheme]);
        clean.push_str("[address]");
        rest = after.find(ends_address).map_or("", |end| &after[end..]);
    }
    clean.push_str(rest);
    clean
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_invisible_is_shown_and_nothing_else_changes() {
        for (text, shown) in [
            ("UAB „Ąžuolo šaknys“ 漢字 🙂", "UAB „Ąžuolo šaknys“ 漢字 🙂"),
            ("a\u{a0}b", "a\u{a0}b"),
            ("1\u{202e}99\u{202c}", "1\\u{202e}99\\u{202c}"),
            (
                "a\u{2066}b\u{200b}c\u{feff}",
                "a\\u{2066}b\\u{200b}c\\u{feff}",
            ),
            ("a\nb\r\u{1b}[2J\u{9b}", "a\\nb\\r\\u{1b}[2J\\u{9b}"),
            ("a\u{2028}b\u{e0041}\u{ad}", "a\\u{2028}b\\u{e0041}\\u{ad}"),
        ] {
            assert_eq!(visible(text), shown, "{text:?}");
        }
        assert_eq!(visible_lines("a\nb\u{1b}"), "a\nb\\u{1b}");
    }

    #[test]
    fn the_words_of_others_are_one_line_without_links() {
        for (text, safe) in [
            ("no  such\n VAT code ", "no such VAT code"),
            (
                "see https://s3/x?X-Amz-Signature=planted now",
                "see [address] now",
            ),
            (
                "GET /bucket/x?X-Amz-Date=1&X-Amz-Signature=planted failed",
                "GET [secret] failed",
            ),
            ("token=planted was refused", "[secret] was refused"),
            (
                "no /proxy?u=https%3A%2F%2Fs3%2Fx%3FX-Amz-Signature%3Dplanted",
                "no [secret]",
            ),
            ("u=x%253Fsig%253Dplanted failed", "[secret] failed"),
            ("u=%25252Fx%25253Fsignature%25253Dplanted", "[secret]"),
            ("AWSAccessKeyId=planted", "[secret]"),
            ("pay \u{202e}991 EUR", "pay \\u{202e}991 EUR"),
            ("\u{1b}[31mred\u{7}", "[31mred"),
        ] {
            assert_eq!(foreign(text), safe, "{text:?}");
        }
        assert_eq!(foreign(&"ž".repeat(1000)), "ž".repeat(MAX_CHARS) + "…");
    }

    proptest! {
        #[test]
        fn no_text_keeps_an_invisible_character(text in any::<String>()) {
            prop_assert!(!visible(&text).chars().any(is_invisible));
            prop_assert!(!foreign(&text).chars().any(is_invisible));
            prop_assert!(foreign(&text).chars().count() <= MAX_CHARS + 1);
        }

        #[test]
        fn no_address_is_left_in_the_words_of_others(before in "\\PC{0,20}", after in "\\PC{0,20}") {
            let text = format!("{before} https://host/secret {after}");
            prop_assert!(!foreign(&text).contains("host/secret"));
        }
    }
}
