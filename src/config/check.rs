//! Checks of single values. Pure functions: text in, value or message out.
//!
//! A message says what is wrong and what to write. It repeats neither secrets nor addresses, which
//! may contain some.

use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

pub(super) use sns_messages::http::is_loopback;
use url::{Host, Url};

use super::environment::VARIABLE_PREFIX;

/// The least length of a token: 32 of 64 possible characters are 192 random bits.
pub(super) const MIN_TOKEN_CHARS: usize = 32;

/// The longest time span: far from where sums of times overflow.
const MAX_DURATION: Duration = Duration::from_secs(36_500 * 24 * 60 * 60);

/// The largest file of a secret; a larger one is the wrong file.
const MAX_SECRET_FILE_BYTES: u64 = 16 * 1024;

/// The longest part of a value that a message repeats.
const MAX_EXCERPT_CHARS: usize = 60;

/// Returns the name in the first `${NAME}` of a text.
pub(super) fn placeholder(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("${")?;
    let (name, _) = rest.split_once('}')?;
    Some(name)
}

/// Parses an `https` URL to which paths are appended; `http` on loopback only.
pub(super) fn base_url(text: &str) -> Result<Url, String> {
    let url = web_url(text, "write one such as https://hooks.example.lt")?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err("contains ? or #; remove it and what follows".to_owned());
    }
    Ok(url)
}

/// Parses an `https` URL without a user; `http` on loopback only.
pub(super) fn web_url(text: &str, example: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| match error {
        url::ParseError::RelativeUrlWithoutBase => {
            format!("does not begin with https://; {example}")
        }
        error => format!("is not a URL ({error}); {example}"),
    })?;
    if !matches!(url.scheme(), "https" | "http") || url.host().is_none() {
        return Err(format!("is not an http or https URL; {example}"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("contains a user name or a password; remove it, and the @".to_owned());
    }
    if url.scheme() == "http" && !is_loopback(&url) {
        return Err(
            "begins with http://, which is for loopback addresses only (127.0.0.1, [::1], \
             localhost); write https://"
                .to_owned(),
        );
    }
    Ok(url)
}

/// Parses a host, which includes its subdomains.
pub(super) fn host_name(text: &str) -> Result<String, String> {
    let is_address = Host::parse(text).is_ok_and(|host| !matches!(host, Host::Domain(_)));
    let in_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    let is_name = text.chars().all(in_name)
        && !text.starts_with(['.', '-'])
        && !text.ends_with(['.', '-'])
        // A top-level domain would include everybody's hosts.
        && (text.contains('.') || text == "localhost");
    if is_address || is_name {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "`{}` is not a host; write its name alone in lower case, such as files.example.lt, \
             which includes a.files.example.lt",
            excerpt(text)
        ))
    }
}

/// Parses an address and port to listen on.
pub(super) fn listen(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        format!(
            "`{}` is not an IP address and port; write one such as 127.0.0.1:8080 or [::]:8080",
            excerpt(text)
        )
    })
}

/// Parses a time span with its unit.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|_| {
        format!(
            "`{}` is not a time span; write a number with its unit, such as \"10s\", \"5m\", \
             \"24h\" or \"30d\"",
            excerpt(text)
        )
    })?;
    if duration.is_zero() {
        return Err("is zero; write a longer time span".to_owned());
    }
    if duration > MAX_DURATION {
        return Err("is longer than a hundred years; write a shorter time span".to_owned());
    }
    Ok(duration)
}

/// Formats a time span in the largest unit that divides it: `24h`, not `1day`.
pub(super) fn show_duration(duration: Duration) -> String {
    const UNITS: [(u128, &str); 4] = [
        (86_400_000, "d"),
        (3_600_000, "h"),
        (60_000, "m"),
        (1_000, "s"),
    ];
    let millis = duration.as_millis();
    let divides = |(length, _): &&(u128, &str)| millis >= *length && millis.is_multiple_of(*length);
    match UNITS.iter().find(divides) {
        // A single day is usually written in hours.
        Some((length, "d")) if millis == *length => "24h".to_owned(),
        Some((length, unit)) => format!("{}{unit}", millis / length),
        None => format!("{millis}ms"),
    }
}

/// Returns true if this may be a secret itself, which somebody wrote where the name of its file belongs.
pub(super) fn may_be_secret(file: &str) -> bool {
    const FEWEST_CHARS: usize = 20;
    // Some secrets are several parts with dots between.
    !file.starts_with('/') && file.split('.').any(|part| part.len() >= FEWEST_CHARS)
}

/// Returns an absolute path without `.` and `..`, so that two spellings of a folder are equal. Follows no
/// links: the folder may not exist yet.
pub(super) fn normalized(path: &Path) -> PathBuf {
    // It fails only for an empty path, or without a working folder.
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut normalized = PathBuf::new();
    for component in absolute.components() {
        match component {
            Component::CurDir => {}
            // The root stays: nothing is above it.
            Component::ParentDir => {
                normalized.pop();
            }
            other => normalized.push(other),
        }
    }
    normalized
}

/// Reads a secret's file, without white space around the secret.
pub(super) fn secret_file(path: &Path) -> Result<String, String> {
    let shown = path.display();
    let file = File::open(path).map_err(|error| {
        format!(
            "{shown} can't be opened: {error}; write the secret into that file, let the service's \
             user read it, or name another file"
        )
    })?;
    let mut text = String::new();
    file.take(MAX_SECRET_FILE_BYTES + 1)
        .read_to_string(&mut text)
        .map_err(|error| format!("{shown} can't be read as text: {error}"))?;
    if text.len() as u64 > MAX_SECRET_FILE_BYTES {
        return Err(format!(
            "{shown} is too large for a secret; name another file"
        ));
    }
    let secret = text.trim_start_matches('\u{feff}').trim();
    if secret.is_empty() {
        return Err(format!("{shown} is empty; write the secret into it"));
    }
    if let Some(name) = placeholder(secret) {
        return Err(format!(
            "{shown} contains `${{{name}}}`, which is not substituted; write the secret itself"
        ));
    }
    Ok(secret.to_owned())
}

/// Returns a secret as it is, unless something around it was copied too.
pub(super) fn bare_secret(secret: String) -> Result<String, String> {
    let is_quoted =
        |quote: char| secret.len() > 1 && secret.starts_with(quote) && secret.ends_with(quote);
    if ['"', '\'', '`'].into_iter().any(is_quoted)
        || (secret.starts_with('„') && secret.ends_with(['“', '”']))
    {
        return Err("the secret has quotes around it; write it without them".to_owned());
    }
    if secret.starts_with(VARIABLE_PREFIX) && secret.contains('=') {
        return Err(
            "the secret has the name of a variable and `=` in front of it; write it alone"
                .to_owned(),
        );
    }
    Ok(secret)
}

/// Returns the message for a setting that is deliberately not in the file.
pub(super) fn secret_in_file(name: &str) -> Option<String> {
    let (secret, instead) = if name == "admin.token" {
        (
            "the token",
            "`admin.token_file` or IVESK_WEBHOOK_ADMIN_TOKEN",
        )
    } else if name.starts_with("destinations.") && name.ends_with(".secret") {
        (
            "the secret",
            "`secret_file` or IVESK_WEBHOOK_DESTINATIONS_<NAME>_SECRET",
        )
    } else if name.starts_with("accounts.") && name.ends_with(".api_key") {
        ("the API key", "`api_key_file` or IVESK_WEBHOOK_API_KEY")
    } else {
        return None;
    };
    Some(format!(
        "{secret} is not kept in this file; remove it, and set {instead}"
    ))
}

/// Sections below which people choose names.
pub(super) const NAMED_SECTIONS: [&str; 2] = ["accounts", "destinations"];

/// Returns the name of a setting in the section that was meant, if the section is one of
/// [`NAMED_SECTIONS`], mistyped.
pub(super) fn in_right_section(name: &str) -> Option<String> {
    let (section, rest) = name.split_once('.')?;
    let similarity = |other: &&&str| strsim::normalized_damerau_levenshtein(section, other) >= 0.7;
    let meant = NAMED_SECTIONS.iter().find(similarity)?;
    (*meant != section).then(|| format!("{meant}.{rest}"))
}

/// Returns the most similar name, if one is similar enough to be meant.
pub(super) fn nearest<'a>(
    name: &str,
    names: impl Iterator<Item = &'a String>,
) -> Option<&'a String> {
    let leaf = |name: &str| name.rsplit('.').next().map(str::to_owned);
    let similarity = |other: &str| {
        let similarity = strsim::normalized_damerau_levenshtein(name, other);
        // The right name in the wrong section is a common mistake.
        if name.contains('.') && leaf(name) == leaf(other) {
            similarity.max(0.8)
        } else {
            similarity
        }
    };
    names
        .map(|other| (similarity(other), other))
        .filter(|(similarity, _)| *similarity >= 0.7)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, other)| other)
}

/// Returns `; did you mean …?` with the most similar name, or nothing if none is similar.
pub fn did_you_mean<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<String> = names.map(str::to_owned).collect();
    let nearest = nearest(name, names.iter());
    nearest.map_or_else(String::new, |name| format!("; did you mean `{name}`?"))
}

/// Returns the part of a value that a message repeats; not for secrets.
pub(super) fn excerpt(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_control())
        .take(MAX_EXCERPT_CHARS)
        .collect()
}
