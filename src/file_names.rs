//! Turns untrusted texts into names of files and folders that can't leave their folder.

use aws_lc_rs::digest::{SHA256, digest};

use crate::hex::hex;
use crate::visible::is_invisible;

/// Longest name on most file systems, in bytes.
pub const MAX_BYTES: usize = 255;
/// Longest [`identity`], in bytes.
const MAX_IDENTITY_BYTES: usize = 100;
/// Hexadecimal digits of the hash that distinguishes two names.
const HASH_DIGITS: usize = 12;

/// Returns one readable path component of at most `max_bytes`: letters of every language are
/// kept, and characters that some system forbids are replaced by `_` or removed.
///
/// Two texts may have the same component; [`identity`] distinguishes them.
///
/// # Panics
///
/// Panics if `max_bytes` is less than 2.
pub fn component(text: &str, max_bytes: usize) -> String {
    assert!(max_bytes > 1, "a name needs room");
    let safe: String = text
        .chars()
        .filter(|c| c.is_whitespace() || !is_invisible(*c))
        .map(|c| match c {
            _ if c.is_whitespace() => ' ',
            '/' | '\\' | ':' | '*' | '?' | '"' | '<' | '>' | '|' => '_',
            _ => c,
        })
        .collect();
    let words: Vec<&str> = safe.split_whitespace().collect();
    let words = words.join(" ");
    // Windows drops trailing dots and spaces, so that two names could become one.
    let dropped = |c: char| c == '.' || c == ' ';
    // One byte is reserved for the `_` below.
    let mut name = truncate(words.trim_end_matches(dropped), max_bytes - 1)
        .trim_end_matches(dropped)
        .to_owned();
    if name.starts_with(['.', '-', '~']) {
        // A hidden file, an option of a command, or a home directory in a shell.
        name.replace_range(..1, "_");
    }
    if name.is_empty() || is_device(&name) {
        name.insert(0, '_');
    }
    name
}

/// Returns a path component that is unique to `text`, even where letter case is ignored. A text
/// of lowercase letters, digits, `-`, `_` and `.` is returned unchanged.
pub fn identity(text: &str) -> String {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
    let room = MAX_IDENTITY_BYTES - HASH_DIGITS - 1;
    let name = component(text, room);
    if name == text && text.chars().all(plain) {
        return name;
    }
    let hash = hex(digest(&SHA256, text.as_bytes()).as_ref());
    // No plain text contains a `~`.
    format!("{name}~{}", &hash[..HASH_DIGITS])
}

/// Returns the longest prefix of `text` of at most `max_bytes`.
pub fn truncate(text: &str, max_bytes: usize) -> &str {
    let mut end = text.len().min(max_bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Returns true if the name is a device on Windows, whatever follows its first dot.
fn is_device(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or_default();
    let stem = stem.trim_end().to_ascii_uppercase();
    let numbered = |port: &str| {
        stem.strip_prefix(port).is_some_and(|number| {
            matches!(
                number,
                "0" | "1" | "2" | "3" | "4" | "5" | "6" | "7" | "8" | "9" | "¹" | "²" | "³"
            )
        })
    };
    matches!(
        stem.as_str(),
        "CON" | "PRN" | "AUX" | "NUL" | "CONIN$" | "CONOUT$" | "CLOCK$"
    ) || numbered("COM")
        || numbered("LPT")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_name_stays_readable_and_a_single_component() {
        for (text, name) in [
            ("UAB „Ąžuolo šaknys“", "UAB „Ąžuolo šaknys“"),
            ("..", "_"),
            (".", "_"),
            ("", "_"),
            (" \t\n", "_"),
            ("../../etc/passwd", "_._.._etc_passwd"),
            ("a/b\\c:d", "a_b_c_d"),
            ("a\0b\u{1b}[2J", "ab[2J"),
            ("A  B\u{a0}C\u{2028}D", "A B C D"),
            ("invoice\u{202e}fdp.exe", "invoicefdp.exe"),
            ("name. . .", "name"),
            (".files", "_files"),
            ("-rf", "_rf"),
            ("con", "_con"),
            ("CON .tar.gz", "_CON .tar.gz"),
            ("lpt¹.x", "_lpt¹.x"),
            ("COM10", "COM10"),
            ("CONSUL", "CONSUL"),
        ] {
            assert_eq!(component(text, 80), name, "{text:?}");
        }
        assert_eq!(component("žžž", 4), "ž");
        assert_eq!(component("ab. cd", 4), "ab");
    }

    #[test]
    fn a_plain_id_is_kept_and_no_two_ids_collide() {
        let plain = "0b6a0e3c-7d3c-4b43-8c6e-3a9f5b1d2e4f";
        assert_eq!(identity(plain), plain);
        let twins = [
            "a/b",
            "a_b",
            "a\\b",
            "a:b",
            "A_b",
            "a_b ",
            "a_b.",
            "a\u{200b}_b",
            "ą",
            "a\u{328}",
            "",
            "_",
            ".",
            "..",
            "con",
            "_con",
            &"a".repeat(200),
            &"a".repeat(201),
        ];
        let mut names: Vec<String> = twins.iter().map(|text| identity(text)).collect();
        names.sort_unstable_by_key(|name| name.to_lowercase());
        names.dedup_by_key(|name| name.to_lowercase());
        assert_eq!(names.len(), twins.len(), "{names:?}");
    }

    /// Generates texts as hostile as a seller's name may be.
    fn text() -> impl Strategy<Value = String> {
        prop_oneof![
            any::<String>(),
            "[./\\\\:~ -]{0,12}",
            "(?i)(con|nul|aux|com1|lpt9)[ .]{0,3}[a-z]{0,3}",
            "[ąčęėįšųūž“„ .]{0,300}",
        ]
    }

    proptest! {
        #[test]
        fn any_text_becomes_one_component_that_fits(text in text(), max in 2_usize..300) {
            let name = component(&text, max);
            prop_assert!((1..=max).contains(&name.len()));
            let path = std::path::Path::new(&name);
            let parts: Vec<_> = path.components().collect();
            prop_assert!(matches!(parts[..], [std::path::Component::Normal(_)]), "{:?}", name);
            prop_assert!(!name.contains(['\\', '/', ':', '\0']));
            prop_assert!(!name.chars().any(|c| c.is_control()));
            prop_assert!(!name.ends_with(['.', ' ']) && !name.starts_with(['.', ' ', '-', '~']));
            prop_assert!(!is_device(&name));
        }

        #[test]
        fn two_ids_never_share_a_file_name(a in text(), b in text()) {
            prop_assume!(a != b);
            prop_assert_ne!(identity(&a).to_lowercase(), identity(&b).to_lowercase());
            prop_assert!(identity(&a).len() <= MAX_IDENTITY_BYTES);
        }
    }
}
