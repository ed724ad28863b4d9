//! Giving the vendor a file to digitize: ask for a location, then put the file there.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use reqwest::header::{CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use reqwest::{Method, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use url::{Host, Url};

use super::client::{Client, MAX_SMALL_BODY_BYTES, encoded};
use super::error::ApiError;
use super::fields::Fields;
use super::observer::Endpoint;
use crate::config::is_loopback;
use crate::egress;

/// What a line of a small office uploads at least; a PUT's deadline grows with the
/// file at this rate.
const SLOWEST_BYTES_PER_SECOND: u64 = 32 * 1024;
/// The most bytes of a file name, as on most file systems.
const MAX_NAME_BYTES: usize = 255;

/// Under which name the correlation data goes (vendor-api U4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum CorrelationKey {
    /// `sourcedata`, as the vendor's newest client has it.
    #[default]
    Sourcedata,
    /// `userdata`, as the help article has it.
    Userdata,
    /// The same data under both names.
    Both,
}

impl CorrelationKey {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Sourcedata, Self::Userdata, Self::Both];

    /// The name in settings and flags.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sourcedata => "sourcedata",
            Self::Userdata => "userdata",
            Self::Both => "both",
        }
    }

    /// Reads [`CorrelationKey::as_str`].
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|key| key.as_str() == text)
    }

    const fn names(self) -> &'static [&'static str] {
        match self {
            Self::Sourcedata => &["sourcedata"],
            Self::Userdata => &["userdata"],
            Self::Both => &["sourcedata", "userdata"],
        }
    }
}

/// What may be asked for with an upload. What is none is not sent: the vendor
/// requires nothing and explains little (vendor-api, "Uploading").
#[derive(Clone, Debug, Default)]
pub struct UploadOptions {
    /// Data of ours that comes back with the document.
    pub correlation: Option<serde_json::Map<String, serde_json::Value>>,
    /// Under which name it goes.
    pub correlation_key: CorrelationKey,
    /// `processlines`
    pub process_lines: Option<bool>,
    /// `splitdocuments`
    pub split_documents: Option<bool>,
    /// `checkduplicates`
    pub check_duplicates: Option<bool>,
    /// `rejectnoninvoices`
    pub reject_non_invoices: Option<bool>,
    /// `warehouse`, a custom code.
    pub warehouse: Option<String>,
    /// `allocation`, a custom code.
    pub allocation: Option<String>,
    /// `tags`, sent with commas between them.
    pub tags: Vec<String>,
}

impl UploadOptions {
    /// `name=value` pairs, in the order of the vendor's own client.
    fn query(&self) -> String {
        let mut pairs: Vec<(&str, String)> = Vec::new();
        if let Some(data) = &self.correlation {
            let json = serde_json::Value::Object(data.clone()).to_string();
            let names = self.correlation_key.names();
            pairs.extend(names.iter().map(|name| (*name, STANDARD.encode(&json))));
        }
        let flags = [
            ("processlines", self.process_lines),
            ("splitdocuments", self.split_documents),
            ("checkduplicates", self.check_duplicates),
            ("rejectnoninvoices", self.reject_non_invoices),
        ];
        pairs.extend(
            flags
                .iter()
                .filter_map(|(name, flag)| Some((*name, (*flag)?.to_string()))),
        );
        let codes = [
            ("warehouse", &self.warehouse),
            ("allocation", &self.allocation),
        ];
        pairs.extend(
            codes
                .iter()
                .filter_map(|(name, code)| Some((*name, (*code).clone()?))),
        );
        if !self.tags.is_empty() {
            pairs.push(("tags", self.tags.join(",")));
        }
        let pairs: Vec<String> = pairs
            .iter()
            .map(|(name, value)| format!("{name}={}", encoded(value)))
            .collect();
        pairs.join("&")
    }
}

/// Where one file may be put, for a short while. Its URL is a secret.
#[derive(Clone, Debug)]
pub struct UploadLocation {
    url: SecretString,
    content_type: HeaderValue,
    content_disposition: HeaderValue,
}

impl UploadLocation {
    /// Reads the vendor's answer. The two headers' names come with a dash and, in an
    /// older edition, without (vendor-api U5); letter case does not count.
    fn read(body: &[u8]) -> Result<Self, ApiError> {
        let malformed = |what: &str| ApiError::Malformed(what.to_owned());
        let fields = Fields::read(body)
            .ok_or_else(|| malformed("the upload location is not a JSON object"))?;
        let header = |name: &'static str| {
            let text = fields
                .text_where(|key| key.replace('-', "").eq_ignore_ascii_case(name))
                .ok_or_else(|| {
                    malformed("the upload location lacks Content-Type or Content-Disposition")
                })?;
            // From bytes: a file name may hold letters beyond ASCII.
            HeaderValue::from_bytes(text.as_bytes())
                .map_err(|_| malformed("the upload location holds a header that can't be sent"))
        };
        let url = fields.text("url");
        Ok(Self {
            url: url
                .ok_or_else(|| malformed("the upload location has no `url`"))?
                .into(),
            content_type: header("contenttype")?,
            content_disposition: header("contentdisposition")?,
        })
    }
}

/// Why a file did not reach the vendor's storage.
///
/// Holds no URL: that of the location is presigned.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// No file has such a name.
    #[error(
        "the file name is empty, longer than {MAX_NAME_BYTES} bytes, or holds control characters; rename the file"
    )]
    FileName,
    /// The API gave no location.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The location is on a host that no policy names.
    #[error("Įvesk.lt named an upload address that is not https; nothing was sent there")]
    UntrustedLocation,
    /// No connection, or no answer in time.
    #[error("the file storage could not be reached: {0}")]
    Unreachable(String),
    /// The storage did not take the file.
    #[error("the file storage answered {status}{}: {meaning}", code.as_deref().map(|c| format!(" ({c})")).unwrap_or_default())]
    Refused {
        /// The HTTP status.
        status: u16,
        /// S3's `<Code>`, where it gave one.
        code: Option<String>,
        /// What that means and what to do.
        meaning: &'static str,
    },
}

/// What a failed attempt means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Another attempt may pass, not sooner than this where the vendor names a time.
    TryAgain(Option<Duration>),
    /// The vendor does not want this file.
    FileRefused,
    /// Nothing passes until a person has put something right.
    NoneWillPass,
}

/// Whether an S3 error of a 4xx passes by itself.
fn is_passing(code: Option<&str>) -> bool {
    matches!(
        code,
        Some("RequestTimeout" | "SlowDown" | "IncompleteBody" | "RequestTimeTooSkewed")
    )
}

impl UploadError {
    /// Whether a new location may help: the old one may have expired (vendor-api U6).
    pub fn asks_for_new_location(&self) -> bool {
        matches!(self, Self::Refused { status: 403, .. })
    }

    /// What this means for the file, and for those that follow it.
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::FileName => Verdict::FileRefused,
            Self::UntrustedLocation => Verdict::NoneWillPass,
            Self::Unreachable(_) => Verdict::TryAgain(None),
            Self::Refused { code, .. } if is_passing(code.as_deref()) => Verdict::TryAgain(None),
            Self::Refused { status, .. } => match status {
                // S3 answers 403 to a location that has expired, and redirects where it is wrong.
                300..=399 | 403 | 408 | 429 | 500.. => Verdict::TryAgain(None),
                _ => Verdict::FileRefused,
            },
            Self::Api(error) => match error {
                ApiError::NotConfigured { .. } => Verdict::NoneWillPass,
                ApiError::Unreachable(_) => Verdict::TryAgain(None),
                ApiError::TooLarge { .. } | ApiError::Malformed(_) => Verdict::TryAgain(None),
                ApiError::Status {
                    status,
                    retry_after,
                    ..
                } => match status {
                    401 | 403 => Verdict::NoneWillPass,
                    408 | 429 | 500.. => Verdict::TryAgain(*retry_after),
                    // A parameter or a file name that the vendor does not take; 404 would be
                    // the API's address.
                    404 | 300..=399 => Verdict::NoneWillPass,
                    _ => Verdict::FileRefused,
                },
            },
        }
    }

    /// Whether nobody answered.
    pub fn is_unreachable(&self) -> bool {
        matches!(
            self,
            Self::Unreachable(_) | Self::Api(ApiError::Unreachable(_))
        )
    }
}

impl Client {
    /// Asks where to put a file of this name. The location is good for a short while:
    /// use it at once.
    ///
    /// # Errors
    ///
    /// [`UploadError::FileName`] and [`UploadError::Api`].
    pub async fn upload_location(
        &self,
        filename: &str,
        options: &UploadOptions,
    ) -> Result<UploadLocation, UploadError> {
        // The dots are steps of a path to a URL parser, also when percent-encoded.
        let unusable = matches!(filename, "" | "." | "..")
            || filename.len() > MAX_NAME_BYTES
            || filename.chars().any(char::is_control);
        if unusable {
            return Err(UploadError::FileName);
        }
        let query = options.query();
        let mark = if query.is_empty() { "" } else { "?" };
        let path = format!("/uploadlocation/{}{mark}{query}", encoded(filename));
        let request = self.request(Method::GET, &path)?;
        let endpoint = Endpoint::UploadLocation;
        let body = self
            .answer(endpoint, request, MAX_SMALL_BODY_BYTES, &[])
            .await?;
        Ok(UploadLocation::read(&body)?)
    }

    /// Puts a file's bytes at its location: with the two headers that came with it,
    /// a Content-Length, and without the API key.
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

    /// How long putting a file of this size may take.
    pub fn put_deadline(&self, size_bytes: u64) -> Duration {
        self.config.timeout + Duration::from_secs(size_bytes / SLOWEST_BYTES_PER_SECOND)
    }

    /// The same as [`Client::put_file`] for a file that need not be in memory:
    /// `file` must give exactly `size_bytes`.
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
            // hyper leaves it out for an empty file and would send a stream in chunks; S3
            // insists on it.
            .header(CONTENT_LENGTH, size_bytes)
            .header(CONTENT_TYPE, &location.content_type)
            .header(CONTENT_DISPOSITION, &location.content_disposition)
            .body(file)
            .send()
            .await;
        let status = sent.as_ref().ok().map(|answer| answer.status().as_u16());
        self.tell(Endpoint::File, started, status);
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

    /// The location's URL, where it is https, or on this machine as the API is.
    fn checked(&self, url: &SecretString) -> Result<Url, UploadError> {
        let url = Url::parse(url.expose_secret()).map_err(|_| UploadError::UntrustedLocation)?;
        let own_machine = self.config.url.scheme() == "http"
            && is_loopback(&self.config.url)
            && url.scheme() == "http"
            && is_loopback(&url);
        let https_elsewhere =
            url.scheme() == "https" && matches!(url.host(), Some(Host::Domain(_)));
        let no_user = url.username().is_empty() && url.password().is_none();
        if no_user && (own_machine || https_elsewhere) {
            Ok(url)
        } else {
            Err(UploadError::UntrustedLocation)
        }
    }
}

/// The `<Code>` of an S3 error, where it is a plain word.
pub(crate) fn s3_code(body: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?;
    let (_, rest) = text.split_once("<Code>")?;
    let (code, _) = rest.split_once("</Code>")?;
    let plain = (1..=64).contains(&code.len()) && code.bytes().all(|b| b.is_ascii_alphanumeric());
    plain.then(|| code.to_owned())
}

/// What an S3 error means here (AWS, "Error responses", S3 API reference).
fn meaning(code: Option<&str>, status: StatusCode) -> &'static str {
    match code {
        Some("AccessDenied" | "ExpiredToken" | "InvalidToken") => {
            "the upload link has expired; ask for a new one"
        }
        Some("SignatureDoesNotMatch") => {
            "the link was made for other headers; ask for a new one, and look for a proxy that \
             changes headers"
        }
        Some("EntityTooLarge") => "the file is too large for Įvesk.lt",
        Some("RequestTimeout" | "SlowDown" | "InternalError" | "ServiceUnavailable") => {
            "the storage is busy; try again later"
        }
        _ if status.is_server_error() => "the storage is in trouble; try again later",
        _ if status.is_redirection() => {
            "the storage points elsewhere, and redirects are not followed; ask for a new link"
        }
        _ => "the storage refused the file; ask for a new link, and tell Įvesk.lt if it goes on",
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
            let query = options.query();
            let pairs: Vec<_> = url::form_urlencoded::parse(query.as_bytes()).collect();
            prop_assert_eq!(pairs, [("warehouse".into(), code.into())]);
        }
    }
}
