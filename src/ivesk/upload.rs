//! Uploads a file for digitization: requests a location, then puts the file there.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use reqwest::header::{CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use reqwest::{Method, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

use super::client::{Client, MAX_SMALL_BODY_BYTES, encoded};
use super::error::ApiError;
use super::fields::Fields;
use super::observer::Endpoint;
use crate::config::{ForbiddenLink, UploadOptions};
use crate::egress;

/// The slowest upload of a small office; a PUT's deadline grows with the file at this rate.
const SLOWEST_BYTES_PER_SECOND: u64 = 32 * 1024;
/// The greatest length of a file name, as on most file systems.
const MAX_NAME_BYTES: usize = 255;

/// Returns `name=value` pairs, in the order of the vendor's own client.
fn query(options: &UploadOptions) -> String {
    let mut pairs: Vec<(&str, String)> = Vec::new();
    if let Some(data) = &options.correlation {
        let json = serde_json::Value::Object(data.clone()).to_string();
        let names = options.correlation_key.parameter_names();
        pairs.extend(names.iter().map(|name| (*name, STANDARD.encode(&json))));
    }
    let flags = [
        ("processlines", options.process_lines),
        ("splitdocuments", options.split_documents),
        ("checkduplicates", options.check_duplicates),
        ("rejectnoninvoices", options.reject_non_invoices),
    ];
    pairs.extend(
        flags
            .iter()
            .filter_map(|(name, flag)| Some((*name, (*flag)?.to_string()))),
    );
    let codes = [
        ("warehouse", &options.warehouse),
        ("allocation", &options.allocation),
    ];
    pairs.extend(
        codes
            .iter()
            .filter_map(|(name, code)| Some((*name, (*code).clone()?))),
    );
    if !options.tags.is_empty() {
        pairs.push(("tags", options.tags.join(",")));
    }
    let pairs: Vec<String> = pairs
        .iter()
        .map(|(name, value)| format!("{name}={}", encoded(value)))
        .collect();
    pairs.join("&")
}

/// The location for one file, valid for a short while. Its URL is a secret.
#[derive(Clone, Debug)]
pub struct UploadLocation {
    answer: SecretString,
    url: SecretString,
    content_type: HeaderValue,
    content_disposition: HeaderValue,
}

impl UploadLocation {
    /// Parses the vendor's answer. The two headers' names have a dash or, in an older edition, none
    /// (vendor-api U5); letter case does not matter.
    fn read(body: &[u8]) -> Result<Self, ApiError> {
        let malformed = |what: &str| ApiError::Malformed(what.to_owned());
        let answer = std::str::from_utf8(body)
            .map_err(|_| malformed("the upload location is not UTF-8 text"))?;
        let fields = Fields::read(body)
            .ok_or_else(|| malformed("the upload location is not a JSON object"))?;
        let header = |name: &'static str| {
            let text = fields
                .text_where(|key| key.replace('-', "").eq_ignore_ascii_case(name))
                .ok_or_else(|| {
                    malformed("the upload location lacks Content-Type or Content-Disposition")
                })?;
            // From bytes: a file name may contain characters beyond ASCII.
            HeaderValue::from_bytes(text.as_bytes())
                .map_err(|_| malformed("the upload location contains an invalid header"))
        };
        let url = fields.text("url");
        Ok(Self {
            answer: answer.into(),
            url: url
                .ok_or_else(|| malformed("the upload location has no `url`"))?
                .into(),
            content_type: header("contenttype")?,
            content_disposition: header("contentdisposition")?,
        })
    }

    /// Returns the vendor's answer, a secret, from which [`UploadLocation::from_answer`] reads
    /// the location again.
    pub fn answer(&self) -> &SecretString {
        &self.answer
    }

    /// Reads a location that was kept as [`UploadLocation::answer`]; `None` if it is anything
    /// else.
    pub fn from_answer(answer: &SecretString) -> Option<Self> {
        Self::read(answer.expose_secret().as_bytes()).ok()
    }
}

/// An error of an upload.
///
/// Contains no URL: that of the location is presigned.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The file name is not valid.
    #[error(
        "the file name is empty, longer than {MAX_NAME_BYTES} bytes, or contains control characters; rename the file"
    )]
    FileName,
    /// The request for a location failed.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The settings do not permit the location.
    #[error("the upload location that Įvesk.lt returned {0}")]
    ForbiddenLocation(#[source] ForbiddenLink),
    /// No connection, or no answer in time.
    #[error("the file storage could not be reached: {0}")]
    Unreachable(String),
    /// The storage refused the file.
    #[error("the file storage answered {status}{}: {meaning}", code.as_deref().map(|c| format!(" ({c})")).unwrap_or_default())]
    Refused {
        /// The HTTP status.
        status: u16,
        /// S3's `<Code>`, if there is one.
        code: Option<String>,
        /// The meaning, and what to do.
        meaning: &'static str,
    },
}

/// The class of an [`UploadError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UploadErrorKind {
    /// Another attempt may succeed.
    Temporary {
        /// The wait that the vendor asked for.
        retry_after: Option<Duration>,
    },
    /// The vendor refuses this file.
    FileRefused,
    /// The vendor gives no location for this name, or for any.
    NoLocation,
    /// No upload succeeds until a person has fixed something.
    NeedsPerson,
}

/// Returns true if an S3 error with a 4xx is temporary.
fn is_temporary(code: Option<&str>) -> bool {
    matches!(
        code,
        Some("RequestTimeout" | "SlowDown" | "IncompleteBody" | "RequestTimeTooSkewed")
    )
}

/// Returns true if S3 says with a 400 that the session of a link's signer has ended (AWS, "Error responses").
pub(crate) fn has_ended(code: Option<&str>) -> bool {
    matches!(
        code,
        Some("ExpiredToken" | "InvalidToken" | "TokenRefreshRequired")
    )
}

impl UploadError {
    /// Returns true if a new location may help: the old one may have expired (vendor-api U6).
    pub fn asks_for_new_location(&self) -> bool {
        match self {
            Self::Refused { status, code, .. } => *status == 403 || has_ended(code.as_deref()),
            _ => false,
        }
    }

    /// Returns true if the file may be at its location all the same, or be sent there once more:
    /// no answer arrived, or the storage had an error.
    pub fn leaves_location_usable(&self) -> bool {
        match self {
            Self::Unreachable(_) => true,
            Self::Refused { status, .. } => {
                !matches!(status, 300..=399)
                    && !self.asks_for_new_location()
                    && matches!(self.kind(), UploadErrorKind::Temporary { .. })
            }
            Self::FileName | Self::Api(_) | Self::ForbiddenLocation(_) => false,
        }
    }

    /// Classifies the error.
    pub fn kind(&self) -> UploadErrorKind {
        let temporary = UploadErrorKind::Temporary { retry_after: None };
        match self {
            Self::FileName => UploadErrorKind::FileRefused,
            Self::ForbiddenLocation(_) => UploadErrorKind::NeedsPerson,
            Self::Unreachable(_) => temporary,
            Self::Refused { code, .. } if is_temporary(code.as_deref()) => temporary,
            Self::Refused { .. } if self.asks_for_new_location() => temporary,
            Self::Refused { status, .. } => match status {
                // S3 redirects a wrong location.
                300..=399 | 408 | 429 | 500.. => temporary,
                _ => UploadErrorKind::FileRefused,
            },
            Self::Api(error) => match error {
                ApiError::NotConfigured { .. } => UploadErrorKind::NeedsPerson,
                ApiError::Unreachable(_) => temporary,
                ApiError::TooLarge { .. } | ApiError::Compressed(_) | ApiError::Malformed(_) => {
                    temporary
                }
                ApiError::Status {
                    status,
                    retry_after,
                    ..
                } => match status {
                    401 => UploadErrorKind::NeedsPerson,
                    // Something may object to the name, or `api.url` or the key is wrong.
                    403 | 404 => UploadErrorKind::NoLocation,
                    408 | 429 | 500.. => UploadErrorKind::Temporary {
                        retry_after: *retry_after,
                    },
                    300..=399 => UploadErrorKind::NeedsPerson,
                    // The vendor refuses a parameter or a file name.
                    _ => UploadErrorKind::FileRefused,
                },
            },
        }
    }

    /// Returns true if there was no answer.
    pub fn is_unreachable(&self) -> bool {
        matches!(
            self,
            Self::Unreachable(_) | Self::Api(ApiError::Unreachable(_))
        )
    }
}

impl Client {
    /// Requests a location for a file of this name. It is valid for a short while: use it at once.
    ///
    /// # Errors
    ///
    /// [`UploadError::FileName`] and [`UploadError::Api`].
    pub async fn upload_location(
        &self,
        filename: &str,
        options: &UploadOptions,
    ) -> Result<UploadLocation, UploadError> {
        // URL parsers resolve the dots, also when percent-encoded.
        let unusable = matches!(filename, "" | "." | "..")
            || filename.len() > MAX_NAME_BYTES
            || filename.chars().any(char::is_control);
        if unusable {
            return Err(UploadError::FileName);
        }
        let query = query(options);
        let mark = if query.is_empty() { "" } else { "?" };
        let path = format!("/uploadlocation/{}{mark}{query}", encoded(filename));
        let request = self.request(Method::GET, &path)?;
        let endpoint = Endpoint::UploadLocation;
        let (_, body) = self
            .answer(endpoint, request, MAX_SMALL_BODY_BYTES, &[])
            .await?;
        Ok(UploadLocation::read(&body.bytes)?)
    }

    /// Sends a file to its location: with the location's two headers and a Content-Length, and
    /// without the API key.
    ///
    /// # Errors
    ///
    /// All of [`UploadError`] but [`UploadError::FileName`] and [`UploadError::Api`].
    pub async fn put_file(
        &self,
        location: &UploadLocation,
        file: Bytes,
    ) -> Result<(), UploadError> {
        let size_bytes = u64::try_from(file.len()).unwrap_or(u64::MAX);
        self.put_stream(location, size_bytes, file.into()).await
    }

    /// Returns the deadline for a file of this size.
    pub fn put_deadline(&self, size_bytes: u64) -> Duration {
        self.config.timeout + Duration::from_secs(size_bytes / SLOWEST_BYTES_PER_SECOND)
    }

    /// Sends a file like [`Client::put_file`], without its content in memory. `file` must contain
    /// exactly `size_bytes`.
    ///
    /// # Errors
    ///
    /// As [`Client::put_file`].
    pub async fn put_stream(
        &self,
        location: &UploadLocation,
        size_bytes: u64,
        file: reqwest::Body,
    ) -> Result<(), UploadError> {
        let url = self.checked(&location.url)?;
        let started = Instant::now();
        let sent = self
            .http
            .put(url)
            .timeout(self.put_deadline(size_bytes))
            // S3 requires it. hyper omits it for an empty file and sends a stream in chunks.
            .header(CONTENT_LENGTH, size_bytes)
            .header(CONTENT_TYPE, &location.content_type)
            .header(CONTENT_DISPOSITION, &location.content_disposition)
            .body(file)
            .send()
            .await;
        let status = sent.as_ref().ok().map(|answer| answer.status().as_u16());
        self.observe(Endpoint::File, started, status);
        let response = sent.map_err(|error| UploadError::Unreachable(egress::describe(error)))?;
        let status = response.status();
        if status == StatusCode::OK {
            return Ok(());
        }
        let body = egress::read_body(response, MAX_SMALL_BODY_BYTES).await;
        let code = body.ok().and_then(|body| s3_code(&body));
        Err(UploadError::Refused {
            status: status.as_u16(),
            meaning: meaning(code.as_deref(), status),
            code,
        })
    }

    /// Returns the location's URL, if the settings permit it.
    fn checked(&self, url: &SecretString) -> Result<Url, UploadError> {
        let forbidden = UploadError::ForbiddenLocation;
        let url = Url::parse(url.expose_secret());
        let url = url.map_err(|_| forbidden(ForbiddenLink::NotHttps))?;
        self.config.permit(&url).map_err(forbidden)?;
        Ok(url)
    }
}

/// Returns the `<Code>` of an S3 error, if it is a plain word.
pub(crate) fn s3_code(body: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?;
    let (_, rest) = text.split_once("<Code>")?;
    let (code, _) = rest.split_once("</Code>")?;
    let plain = (1..=64).contains(&code.len()) && code.bytes().all(|b| b.is_ascii_alphanumeric());
    plain.then(|| code.to_owned())
}

/// Returns the meaning of an S3 error (AWS, "Error responses", S3 API reference).
fn meaning(code: Option<&str>, status: StatusCode) -> &'static str {
    match code {
        Some("AccessDenied" | "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired") => {
            "the upload link has expired; retry"
        }
        Some("SignatureDoesNotMatch") => {
            "the link was signed for other headers; check that no proxy changes headers, and retry"
        }
        Some("EntityTooLarge") => "the file is too large for Įvesk.lt",
        Some("RequestTimeout" | "SlowDown" | "InternalError" | "ServiceUnavailable") => {
            "the storage is busy; retry later"
        }
        _ if status.is_server_error() => "the storage has an error; retry later",
        _ if status.is_redirection() => {
            "the storage redirects, and redirects are not followed; retry"
        }
        _ => "the storage refused the file; retry, and ask Įvesk.lt if it happens again",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn both_spellings_of_the_headers_key_or_none_are_accepted() {
        for body in [
            r#"{"url":"https://x/y","Content-Type":"application/pdf","Content-Disposition":"filename=\"a.pdf\""}"#,
            r#"{"url":"https://x/y","ContentType":"application/pdf","ContentDisposition":"filename=\"a.pdf\""}"#,
            r#"{"url":"https://x/y","content-type":"application/pdf","contentdisposition":"filename=\"a.pdf\""}"#,
        ] {
            let location = UploadLocation::read(body.as_bytes()).expect(body);
            assert_eq!(location.content_type, "application/pdf");
            assert_eq!(location.content_disposition, "filename=\"a.pdf\"");
        }
        for body in [
            "[]",
            "{}",
            r#"{"url":"https://x/y"}"#,
            r#"{"url":"https://x/y","Content-Type":"a"}"#,
            r#"{"Content-Type":"a","Content-Disposition":"b"}"#,
            r#"{"url":"https://x/y","Content-Type":"a\r\nx-evil: 1","Content-Disposition":"b"}"#,
        ] {
            assert!(UploadLocation::read(body.as_bytes()).is_err(), "{body}");
        }
    }

    #[test]
    fn a_location_never_prints_its_url() {
        let body = r#"{"url":"https://x/y?Signature=planted","Content-Type":"a","Content-Disposition":"b"}"#;
        let location = UploadLocation::read(body.as_bytes()).expect("a location");
        assert!(!format!("{location:?}").contains("planted"));
    }

    #[test]
    fn an_s3_error_gives_its_code_and_nothing_else() {
        let xml = b"<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code><Message>secret</Message></Error>";
        assert_eq!(s3_code(xml).as_deref(), Some("AccessDenied"));
        for none in [
            "",
            "<Code></Code>",
            "<Code>a b</Code>",
            "<Code>x",
            "{\"Code\":1}",
        ] {
            assert_eq!(s3_code(none.as_bytes()), None, "{none}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_cause_a_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = UploadLocation::read(&body);
            let _ = s3_code(&body);
        }

        #[test]
        fn a_code_with_any_letters_stays_one_query_value(code in "\\PC{0,30}") {
            let options = UploadOptions { warehouse: Some(code.clone()), ..UploadOptions::default() };
            let query = query(&options);
            let pairs: Vec<_> = url::form_urlencoded::parse(query.as_bytes()).collect();
            prop_assert_eq!(pairs, [("warehouse".into(), code.into())]);
        }
    }
}
