//! Links to the emulated file store: their form, and the text that they sign.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use uuid::Uuid;

use crate::switches::UploadHost;
use sns_messages::time::Timestamp;

/// Temporary credentials begin with `ASIA`, as in the vendor's sample.
const ACCESS_KEY: &str = "ASIAEMULATOR00000000";
/// The first path segment of `upload_host=s3`.
pub(crate) const BUCKET: &str = "ivesk-emulator-uploads";

/// The parts that a link's signature covers.
pub(crate) struct Signed<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    /// All of the query before the signature.
    pub(crate) query: &'a str,
    pub(crate) content_type: &'a str,
    pub(crate) disposition: &'a str,
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |value: u8| char::from(DIGITS[usize::from(value)]);
    let pairs = bytes.iter().map(|byte| [byte >> 4, byte & 15]);
    pairs.flatten().map(digit).collect()
}

fn encode(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

pub(crate) fn path_of(host: UploadHost, id: Uuid) -> String {
    match host {
        UploadHost::Own => format!("/public/{id}"),
        UploadHost::S3 => format!("/{BUCKET}/{id}"),
    }
}

/// Returns the query of a link up to its signature, and the signature's parameter.
pub(crate) fn query_of(
    host: UploadHost,
    now: Timestamp,
    expires_ms: u64,
    headers: Option<(&str, &str)>,
) -> (String, &'static str) {
    let seconds = |millis: u64| millis.div_ceil(1000);
    match host {
        UploadHost::Own => {
            let now_ms = u64::try_from(now.as_millis()).unwrap_or(0);
            let expires = seconds(now_ms.saturating_add(expires_ms));
            let named = headers.map_or_else(String::new, |(content_type, disposition)| {
                format!(
                    "Content-Disposition={}&Content-Type={}&",
                    encode(disposition),
                    encode(content_type)
                )
            });
            let query = format!(
                "AWSAccessKeyId={ACCESS_KEY}&{named}Expires={expires}&x-amz-security-token=emulator"
            );
            (query, "Signature")
        }
        UploadHost::S3 => {
            let stamp = basic_time(now);
            let day = &stamp[..8];
            let names = match headers {
                Some(_) => "content-disposition%3Bcontent-type%3Bhost",
                None => "host",
            };
            let query = format!(
                "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={ACCESS_KEY}%2F{day}%2Feu-west-1%2Fs3%2Faws4_request&X-Amz-Date={stamp}&X-Amz-Expires={}&X-Amz-Security-Token=emulator&X-Amz-SignedHeaders={names}",
                seconds(expires_ms)
            );
            (query, "X-Amz-Signature")
        }
    }
}

/// Returns the moment as `20261123T080000Z`.
fn basic_time(moment: Timestamp) -> String {
    let text = moment.to_string();
    let digits: String = text[..19].chars().filter(|c| !"-:".contains(*c)).collect();
    format!("{digits}Z")
}

/// Returns the moment at which a link with this query expires.
pub(crate) fn expiry(query: &str) -> Option<Timestamp> {
    let value = |name: &str| {
        query
            .split('&')
            .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
    };
    let seconds = |text: &str| text.parse::<i64>().ok()?.checked_mul(1000);
    if let Some(expires) = value("Expires") {
        return seconds(expires).map(Timestamp::from_millis);
    }
    let stamp = value("X-Amz-Date").filter(|stamp| stamp.len() == 16 && stamp.is_ascii())?;
    let made = Timestamp::parse(&format!(
        "{}-{}-{}T{}:{}:{}Z",
        &stamp[..4],
        &stamp[4..6],
        &stamp[6..8],
        &stamp[9..11],
        &stamp[11..13],
        &stamp[13..15]
    ))?;
    let lasts = seconds(value("X-Amz-Expires")?)?;
    Some(Timestamp::from_millis(
        made.as_millis().saturating_add(lasts),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_link_contain_their_expiry() {
        let now = Timestamp::parse("2026-11-23T08:00:00.000Z").expect("valid");
        for host in [UploadHost::Own, UploadHost::S3] {
            let (query, _) = query_of(host, now, 900_000, None);
            let ends = expiry(&query).map(|moment| moment.to_string());
            assert_eq!(ends.as_deref(), Some("2026-11-23T08:15:00.000Z"));
        }
    }
}
