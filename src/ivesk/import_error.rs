//! Sends import errors, which the vendor's accountant reads.

use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use serde::Serialize;

use super::client::{Client, MAX_SMALL_BODY_BYTES};
use super::error::ApiError;
use super::observer::Endpoint;
use crate::domain::Company;

impl Client {
    /// Sends an import error: the company's document was rejected, with this message.
    ///
    /// The body is that of the vendor's documentation (vendor-api, "Reporting a failed
    /// import"). It is unknown whether a second import error replaces the first or is refused
    /// (U8).
    ///
    /// # Errors
    ///
    /// [`ApiError::NotConfigured`] if `api.import_error_path` is not set, and the other variants.
    pub async fn send_import_error(
        &self,
        document_id: &str,
        company: &Company,
        message: &str,
    ) -> Result<(), ApiError> {
        #[derive(Serialize)]
        struct Body<'a> {
            documentid: &'a str,
            companycode: &'a str,
            message: &'a str,
        }
        let Some(path) = &self.config.import_error_path else {
            return Err(ApiError::NotConfigured {
                setting: "api.import_error_path",
                why: "Įvesk.lt does not publish the address; see the API page of your account",
            });
        };
        let body = Body {
            documentid: document_id,
            companycode: company.as_str(),
            message,
        };
        // Three texts always serialize.
        let body = serde_json::to_string(&body).unwrap_or_default();
        let request = self
            .request(Method::POST, path)?
            .header(CONTENT_TYPE, &self.config.import_error_type)
            .body(body);
        self.answer(Endpoint::ImportError, request, MAX_SMALL_BODY_BYTES, &[])
            .await?;
        Ok(())
    }
}
