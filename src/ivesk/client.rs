//! The API for one account: every request with its key.

use std::sync::Arc;
use std::time::Instant;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{ACCEPT, ACCEPT_ENCODING, HeaderValue};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use url::{Origin, Url};

use super::body::Body;
use super::error::{ApiError, message};
use super::observer::{CompletedRequest, Endpoint, Observer, Unobserved};
use super::page::Page;
use crate::backoff;
use crate::config::ApiConfig;
use crate::domain::{Clock, Company, Cursor, Queue};
use crate::egress;

/// All but RFC 3986's unreserved characters, which need no encoding in a path segment nor in a
/// query.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');
/// The header of the key, on requests to the API only.
const KEY_HEADER: &str = "x-api-key";
/// Path of the digitized queue, known from the vendor's own client (vendor-api, "The queues").
const DIGITIZED_PATH: &str = "/digitized";
/// The most that is read of answers other than pages.
pub(super) const MAX_SMALL_BODY_BYTES: usize = 64 * 1024;

/// A client for one account.
#[derive(Debug)]
pub struct Client {
    pub(super) http: reqwest::Client,
    pub(super) config: ApiConfig,
    pub(super) origin: Origin,
    key: SecretString,
    key_header: HeaderValue,
    clock: Clock,
    observer: Arc<dyn Observer>,
}

impl Client {
    /// Creates a client that uses `key`.
    ///
    /// # Errors
    ///
    /// [`ApiError::NotConfigured`] if the key is not valid in a header, and
    /// [`ApiError::Unreachable`] if the machine has no TLS roots.
    pub fn new(config: &ApiConfig, key: SecretString) -> Result<Self, ApiError> {
        let header = HeaderValue::from_bytes(key.expose_secret().as_bytes());
        let mut key_header = header.map_err(|_| ApiError::NotConfigured {
            setting: "api_key_file",
            why: "the API key contains characters that are not valid in a header; copy it again",
        })?;
        key_header.set_sensitive(true);
        let http = egress::client(config.proxy.as_ref(), config.timeout)
            .map_err(|error| ApiError::Unreachable(error.to_string()))?;
        Ok(Self {
            http,
            origin: config.url.origin(),
            config: config.clone(),
            key,
            key_header,
            clock: Clock::system(),
            observer: Arc::new(Unobserved),
        })
    }

    /// Returns the client with another clock, which `Retry-After` dates are compared with.
    #[must_use]
    pub fn with_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// Returns the client with an observer of its requests.
    #[must_use]
    pub fn observed_by(self, observer: Arc<dyn Observer>) -> Self {
        Self { observer, ..self }
    }

    /// Passes a request that has ended to the observer.
    pub(super) fn observe(&self, endpoint: Endpoint, started: Instant, status: Option<u16>) {
        self.observer.request_completed(CompletedRequest {
            endpoint,
            status,
            duration: started.elapsed(),
        });
    }

    /// Fetches one page of a queue.
    ///
    /// The URL is built from scratch, with exactly one `from` if there is a cursor. `company` is
    /// used for the exported queue only: the digitized one mixes companies.
    ///
    /// # Errors
    ///
    /// [`ApiError::NotConfigured`] for the exported queue if `api.exported_path` is not set, and
    /// the other variants.
    pub async fn page(
        &self,
        queue: Queue,
        company: &Company,
        from: Option<&Cursor>,
    ) -> Result<Page, ApiError> {
        let path = self.page_path(queue, company, from)?;
        let request = self.request(Method::GET, &path)?;
        let limit_bytes = self.config.max_page_bytes;
        let endpoint = Endpoint::from(queue);
        match self.answer(endpoint, request, limit_bytes, &[]).await? {
            (StatusCode::NO_CONTENT, body) => Ok(Page {
                clock_offset: self.clock_offset(&body),
                ..Page::default()
            }),
            (_, body) => {
                let clock_offset = self.clock_offset(&body);
                let page = Page::read(body)?;
                Ok(Page {
                    clock_offset,
                    ..page
                })
            }
        }
    }

    /// Returns how many milliseconds the vendor's clock is ahead of ours, by an answer that has
    /// just arrived.
    fn clock_offset(&self, body: &Body) -> Option<i64> {
        let now = self.clock.now().as_millis();
        Some(body.date?.as_millis() - now)
    }

    fn page_path(
        &self,
        queue: Queue,
        company: &Company,
        from: Option<&Cursor>,
    ) -> Result<String, ApiError> {
        let mut path = match queue {
            Queue::Digitized => DIGITIZED_PATH.to_owned(),
            Queue::Exported => self.exported_path(company)?,
        };
        if let Some(from) = from {
            path.push(if path.contains('?') { '&' } else { '?' });
            path.push_str("from=");
            path.push_str(&encoded(from.as_str()));
        }
        Ok(path)
    }

    fn exported_path(&self, company: &Company) -> Result<String, ApiError> {
        let Some(path) = &self.config.exported_path else {
            return Err(ApiError::NotConfigured {
                setting: "api.exported_path",
                why: "Įvesk.lt does not publish the queue's address; try the presets path, query, \
                      prefix and none",
            });
        };
        // URL parsers resolve these segments, also when percent-encoded.
        if matches!(company.as_str(), "." | "..") {
            return Err(ApiError::Malformed(
                "the company's code is not valid in a URL".to_owned(),
            ));
        }
        Ok(path
            .template
            .replace("{company}", &encoded(company.as_str())))
    }

    /// Creates a request with the key, to the API's origin only.
    pub(super) fn request(&self, method: Method, path: &str) -> Result<RequestBuilder, ApiError> {
        let base = self.config.url.as_str().trim_end_matches('/');
        let url = Url::parse(&format!("{base}{path}"))
            .ok()
            .filter(|url| url.origin() == self.origin);
        let Some(url) = url else {
            return Err(ApiError::Malformed(
                "the URL is outside of the API's origin; check the paths in `[api]`".to_owned(),
            ));
        };
        let request = self.http.request(method, url);
        Ok(request
            .header(KEY_HEADER, self.key_header.clone())
            .header(ACCEPT, "application/json")
            // Without this header any compression would be allowed (RFC 9110 §12.5.3).
            .header(ACCEPT_ENCODING, "gzip"))
    }

    /// Sends a request and returns status and body of a success. An error contains neither the key nor
    /// `secrets`, which the request contained.
    pub(super) async fn answer(
        &self,
        endpoint: Endpoint,
        request: RequestBuilder,
        limit_bytes: usize,
        secrets: &[&str],
    ) -> Result<(StatusCode, Body), ApiError> {
        let started = Instant::now();
        let sent = request.send().await;
        let status = sent.as_ref().ok().map(|answer| answer.status().as_u16());
        let outcome = self.read_answer(sent, limit_bytes, secrets).await;
        self.observe(endpoint, started, status);
        outcome
    }

    async fn read_answer(
        &self,
        sent: Result<Response, reqwest::Error>,
        limit_bytes: usize,
        secrets: &[&str],
    ) -> Result<(StatusCode, Body), ApiError> {
        let response = sent.map_err(|error| ApiError::Unreachable(egress::describe(error)))?;
        if !response.status().is_success() {
            return Err(self.failure(response, secrets).await);
        }
        let status = response.status();
        Ok((status, Body::read(response, limit_bytes).await?))
    }

    async fn failure(&self, response: Response, secrets: &[&str]) -> ApiError {
        let status = response.status().as_u16();
        let retry_after = egress::retry_after(
            response.headers(),
            self.clock.now(),
            backoff::LONGEST_VENDOR_RETRY_AFTER,
        );
        // The status is known even if the body can't be read.
        let body = Body::read(response, MAX_SMALL_BODY_BYTES).await;
        let secrets = [&[self.key.expose_secret()], secrets].concat();
        ApiError::Status {
            status,
            message: body.ok().and_then(|body| message(&body.bytes, &secrets)),
            retry_after,
        }
    }
}

/// Encodes `text` as one path segment or one query value.
pub(super) fn encoded(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ExportedPath;
    use proptest::prelude::*;

    fn url(template: &str, company: &Company, from: &Cursor) -> Url {
        let config = ApiConfig {
            exported_path: Some(ExportedPath {
                template: template.to_owned(),
            }),
            ..ApiConfig::default()
        };
        let client = Client::new(&config, SecretString::from("key")).expect("a client");
        let path = client.page_path(Queue::Exported, company, Some(from));
        let request = client.request(Method::GET, &path.expect("a path"));
        let request = request.expect("a request").build().expect("a request");
        request.url().clone()
    }

    proptest! {
        // Each case creates a client, which loads the system's certificates.
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn any_company_is_one_segment_and_any_cursor_one_value(
            code in "[^\\p{Cc}\\s]{1,16}",
            cursor in "\\PC{0,40}",
        ) {
            prop_assume!(code != "." && code != "..");
            let company = Company::parse(&code).expect("a code");
            let from = Cursor::new(cursor.clone());

            let in_path = url("/exported/{company}", &company, &from);
            let path = in_path.path().strip_prefix("/api/pub/exported/").expect("the prefix");
            prop_assert!(!path.contains('/'));
            let decoded = percent_encoding::percent_decode_str(path).decode_utf8();
            prop_assert_eq!(decoded.expect("UTF-8"), code.as_str());
            let pairs: Vec<_> = in_path.query_pairs().collect();
            prop_assert_eq!(pairs, [("from".into(), cursor.as_str().into())]);

            let in_query = url("/exported?companycode={company}", &company, &from);
            let pairs: Vec<_> = in_query.query_pairs().collect();
            prop_assert_eq!(
                pairs,
                [("companycode".into(), code.into()), ("from".into(), cursor.into())]
            );
        }
    }
}
