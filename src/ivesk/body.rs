//! Reads the body of an answer: within a bound, decompressed, and in an encoding that is known.

use std::io::Read as _;

use flate2::bufread::MultiGzDecoder;
use reqwest::Response;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, DATE, HeaderMap};

use super::error::ApiError;
use crate::domain::Timestamp;
use crate::egress::{self, BodyError};
use crate::visible::foreign;

/// The first bytes of gzip data (RFC 1952 §2.3.1), with which no JSON begins.
const GZIP: &[u8] = b"\x1f\x8b";

/// The body of an answer, decompressed.
pub(super) struct Body {
    /// Its bytes.
    pub(super) bytes: Vec<u8>,
    /// The `charset` of its Content-Type, in lower case.
    charset: Option<String>,
    /// The server's clock by the `Date` of the answer.
    pub(super) date: Option<Timestamp>,
}

impl Body {
    /// Reads a body of at most `limit_bytes`, compressed and decompressed, and stops reading once it
    /// is longer. gzip is decompressed whether or not the headers name it: proxies compress what
    /// nobody asked them to.
    ///
    /// # Errors
    ///
    /// [`ApiError::TooLarge`], [`ApiError::Unreachable`] if the connection fails, and
    /// [`ApiError::Compressed`] for another compression or damaged data.
    pub(super) async fn read(response: Response, limit_bytes: usize) -> Result<Self, ApiError> {
        let announced = response.content_length();
        if announced.is_some_and(|bytes| bytes > limit_bytes as u64) {
            return Err(ApiError::TooLarge { limit_bytes });
        }
        if let Some(coding) = unsupported_coding(response.headers()) {
            return Err(ApiError::Compressed(format!(
                "it is compressed as `{coding}`, which was not asked for and can't be read; look for a \
                 proxy that changes answers"
            )));
        }
        let charset = charset(response.headers());
        let date = date(response.headers());
        let bytes = match egress::read_body(response, limit_bytes).await {
            Ok(bytes) => bytes,
            Err(BodyError::TooLarge { limit_bytes }) => {
                return Err(ApiError::TooLarge { limit_bytes });
            }
            Err(error @ BodyError::Broken(_)) => {
                return Err(ApiError::Unreachable(error.to_string()));
            }
        };
        let bytes = match bytes.starts_with(GZIP) {
            true => decompress(&bytes, limit_bytes)?,
            false => bytes,
        };
        Ok(Self {
            bytes,
            charset,
            date,
        })
    }

    /// Returns the name of the text's encoding, if it is known and is not UTF-8.
    pub(super) fn other_encoding(&self) -> Option<String> {
        let wide = match self.bytes.get(..4)? {
            [0xff, 0xfe, 0, 0] | [_, 0, 0, 0] | [0, 0, 0xfe, 0xff] | [0, 0, 0, _] => "UTF-32",
            // JSON begins with ASCII (RFC 4627 §3).
            [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [_, 0, ..] | [0, _, ..] => "UTF-16",
            _ => {
                let charset = self.charset.as_ref()?;
                let is_other = !matches!(charset.as_str(), "utf-8" | "utf8" | "us-ascii");
                return (is_other && str::from_utf8(&self.bytes).is_err())
                    .then(|| foreign(charset));
            }
        };
        Some(wide.to_owned())
    }
}

/// Returns the moment of the `Date` header.
fn date(headers: &HeaderMap) -> Option<Timestamp> {
    let date = headers.get(DATE)?.to_str().ok()?;
    let date = httpdate::parse_http_date(date).ok()?;
    let since = date.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(Timestamp::from_millis(
        i64::try_from(since.as_millis()).ok()?,
    ))
}

#[cfg(test)]
impl From<&[u8]> for Body {
    fn from(bytes: &[u8]) -> Self {
        Self {
            bytes: bytes.to_vec(),
            charset: None,
            date: None,
        }
    }
}

/// Returns the compression that Content-Encoding names, if it is not gzip alone.
fn unsupported_coding(headers: &HeaderMap) -> Option<String> {
    let values = headers.get_all(CONTENT_ENCODING).iter();
    let names = values.map(|value| String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase());
    let names: Vec<String> = names
        .flat_map(|names| {
            let names = names.split(',').map(str::trim).map(str::to_owned);
            names.collect::<Vec<_>>()
        })
        .filter(|name| !name.is_empty() && name != "identity")
        .collect();
    match names.as_slice() {
        [] => None,
        [name] if name == "gzip" || name == "x-gzip" => None,
        names => Some(foreign(&names.join(", "))),
    }
}

fn charset(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let text = text.to_ascii_lowercase();
    let (_, charset) = text.split_once("charset=")?;
    let charset = charset.split(';').next()?.trim().trim_matches('"');
    Some(charset.to_owned())
}

fn decompress(gzip: &[u8], limit_bytes: usize) -> Result<Vec<u8>, ApiError> {
    let mut bytes = Vec::new();
    MultiGzDecoder::new(gzip)
        .take(limit_bytes as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|_| {
            ApiError::Compressed("its gzip data is damaged or ends too early".to_owned())
        })?;
    if bytes.len() > limit_bytes {
        return Err(ApiError::TooLarge { limit_bytes });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(text).expect("written");
        encoder.finish().expect("written")
    }

    #[test]
    fn gzip_is_read_within_the_bound_and_in_several_members() {
        let two = [gzip(b"{\"documents\":"), gzip(b"[]}")].concat();
        assert_eq!(decompress(&two, 16).expect("read"), b"{\"documents\":[]}");
        assert!(matches!(
            decompress(&two, 15),
            Err(ApiError::TooLarge { limit_bytes: 15 })
        ));
        let bomb = gzip(&vec![b' '; 10_000_000]);
        assert!(bomb.len() < 20_000, "{}", bomb.len());
        assert!(matches!(
            decompress(&bomb, 100_000),
            Err(ApiError::TooLarge { .. })
        ));
        let error = decompress(&bomb[..bomb.len() - 9], usize::MAX >> 2).expect_err("cut");
        assert!(error.to_string().contains("gzip"), "{error}");
    }

    #[test]
    fn a_compression_other_than_gzip_is_named() {
        let coding = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(CONTENT_ENCODING, value.parse().expect("a value"));
            }
            unsupported_coding(&headers)
        };
        for fine in [
            &[][..],
            &["identity"],
            &["GZip"],
            &["x-gzip"],
            &["identity, gzip"],
        ] {
            assert_eq!(coding(fine), None, "{fine:?}");
        }
        assert_eq!(coding(&["br"]).as_deref(), Some("br"));
        assert_eq!(coding(&["gzip", "br"]).as_deref(), Some("gzip, br"));
        assert_eq!(coding(&["deflate"]).as_deref(), Some("deflate"));
    }

    #[test]
    fn another_encoding_is_recognized_by_its_bytes_or_its_name() {
        let encoding = |bytes: &[u8], charset: Option<&str>| {
            let body = Body {
                bytes: bytes.to_vec(),
                charset: charset.map(str::to_owned),
                date: None,
            };
            body.other_encoding()
        };
        for wide in [
            &b"\xff\xfe{\0\"\0"[..],
            b"\xfe\xff\0{\0\"",
            b"{\0\"\0",
            b"\0{\0\"",
        ] {
            assert_eq!(encoding(wide, None).as_deref(), Some("UTF-16"), "{wide:?}");
        }
        assert_eq!(encoding(b"{\0\0\0", None).as_deref(), Some("UTF-32"));
        let baltic = b"{\"name\":\"\xd0ARKA\"}";
        assert_eq!(
            encoding(baltic, Some("windows-1257")).as_deref(),
            Some("windows-1257")
        );
        assert_eq!(encoding(baltic, None), None);
        assert_eq!(encoding(b"{\"name\":\"A\"}", Some("windows-1257")), None);
    }

    #[test]
    fn the_charset_of_a_content_type_is_read() {
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, text.parse().expect("a value"));
            charset(&headers)
        };
        assert_eq!(
            read("application/json; Charset=\"Windows-1257\"; a=b").as_deref(),
            Some("windows-1257")
        );
        assert_eq!(read("application/json"), None);
    }
}
