//! What each value must look like. Pure functions: text in, value or advice out.
//!
//! Advice says what is wrong and what to write. It repeats neither secrets nor
//! addresses, which may hold some.

use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use url::{Host, Url};

/// The fewest characters of a token: 32 of 64 possible ones are 192 random bits.
pub(super) const MIN_TOKEN_CHARS: usize = 32;

/// Longer than anyone waits, and far from where sums of times overflow.
const MAX_DURATION: Duration = Duration::from_secs(36_500 * 24 * 60 * 60);

/// Far more than a key needs; a larger file is the wrong file.
const MAX_SECRET_FILE_BYTES: u64 = 16 * 1024;

/// Whether a URL's host is this machine: `localhost`, `127.0.0.0/8` or `[::1]`.
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

/// The name in the first `${NAME}` of a text.
pub(super) fn placeholder(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("${")?;
    let (name, _) = rest.split_once('}')?;
    Some(name)
}

/// An `https` address to which paths are added; `http` on loopback only.
pub(super) fn base_url(text: &str) -> Result<Url, String> {
    let url = web_url(text, "write an address such as https://hooks.example.lt")?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err("holds a ? or a #; write the address without what follows it".to_owned());
    }
    Ok(url)
}

/// An `https` address without a user; `http` on loopback only.
pub(super) fn web_url(text: &str, example: &str) -> Result<Url, String> {
    let url =
        Url::parse(text).map_err(|error| format!("is not an address ({error}); {example}"))?;
    if !matches!(url.scheme(), "https" | "http") || url.host().is_none() {
        return Err(format!("is not a web address; {example}"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("holds a user name or a password; remove it, and the @".to_owned());
    }
    if url.scheme() == "http" && !is_loopback(&url) {
        return Err(
            "begins with http://; only a loopback address (127.0.0.1, [::1], localhost) may: \
             write https://"
                .to_owned(),
        );
    }
    Ok(url)
}

/// An address and port to listen on.
pub(super) fn listen(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        format!(
            "`{}` is not an IP address and port; write one such as 127.0.0.1:8080 or [::]:8080",
            shortened(text)
        )
    })
}

/// A time span with its unit.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|_| {
        format!(
            "`{}` is not a time span; write a number with its unit, such as \"10s\", \"5m\", \
             \"24h\" or \"30d\"",
            shortened(text)
        )
    })?;
    if duration.is_zero() {
        return Err("is zero; write a time span that is longer".to_owned());
    }
    if duration > MAX_DURATION {
        return Err("is more than a hundred years; write a shorter time span".to_owned());
    }
    Ok(duration)
}

/// A time span in the largest unit that divides it: `24h`, not `1day`.
pub(super) fn show_duration(duration: Duration) -> String {
    const UNITS: [(u128, &str); 4] = [
        (86_400_000, "d"),
        (3_600_000, "h"),
        (60_000, "m"),
        (1_000, "s"),
    ];
    let millis = duration.as_millis();
    let whole = |(length, _): &&(u128, &str)| millis >= *length && millis.is_multiple_of(*length);
    match UNITS.iter().find(whole) {
        // One day of retries or of overlap is thought of in hours.
        Some((length, "d")) if millis == *length => "24h".to_owned(),
        Some((length, unit)) => format!("{}{unit}", millis / length),
        None => format!("{millis}ms"),
    }
}

/// What a secret's file holds, without white space around it.
pub(super) fn secret_file(path: &Path) -> Result<String, String> {
    let shown = path.display();
    let file = File::open(path).map_err(|error| {
        format!(
            "{shown} can't be opened: {error}; write the secret into that file, let this user read \
             it, or name another file"
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
    if let Some(unfilled) = placeholder(secret) {
        return Err(format!(
            "{shown} still holds `${{{unfilled}}}`; write the secret itself into it"
        ));
    }
    Ok(secret.to_owned())
}

/// Advice for a setting that is kept elsewhere on purpose.
pub(super) fn kept_elsewhere(name: &str) -> Option<String> {
    if name == "admin.token" {
        return Some(
            "a secret does not stand in this file; remove it, and set `admin.token_file` or \
             IVESK_WEBHOOK_ADMIN_TOKEN"
                .to_owned(),
        );
    }
    if name.starts_with("destinations.") && name.ends_with(".secret") {
        return Some(
            "a secret does not stand in this file; remove it, and set `secret_file` or \
             IVESK_WEBHOOK_DESTINATIONS_<NAME>_SECRET"
                .to_owned(),
        );
    }
    (name.starts_with("accounts.") && name.ends_with(".api_key")).then(|| {
        "a key does not stand in this file; remove it, and set `api_key_file` or \
         IVESK_WEBHOOK_API_KEY"
            .to_owned()
    })
}

/// The name most like `name`, where one is like it.
pub(super) fn nearest<'a>(
    name: &str,
    names: impl Iterator<Item = &'a String>,
) -> Option<&'a String> {
    let leaf = |name: &str| name.rsplit('.').next().map(str::to_owned);
    let dedup_key = |other: &str| {
        // The right name in the wrong section is a likely slip as well.
        let same_leaf = name.contains('.') && leaf(name) == leaf(other);
        let dedup_key = strsim::normalized_damerau_levenshtein(name, other);
        if same_leaf {
            dedup_key.max(0.8)
        } else {
            dedup_key
        }
    };
    names
        .map(|other| (dedup_key(other), other))
        .filter(|(dedup_key, _)| *dedup_key >= 0.7)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, other)| other)
}

/// What may be repeated of a value that is no secret.
pub(super) fn shortened(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(60).collect()
}
