//! Telling the vendor's accountant that a document could not be imported.

use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use serde::Serialize;

use super::client::{Client, MAX_SMALL_BODY_BYTES};
use super::error::ApiError;
use super::observer::Endpoint;
use crate::domain::Company;

impl Client {
    /// Reports that the company's document could not be imported, and why.
    ///
    /// The body is that of the vendor's documentation (vendor-api, "Reporting a failed
    /// import"). Whether a second report replaces the first, or is refused, is unknown (U8).
    ///
    /// # Errors
    ///
    /// [`ApiError::NotConfigured`] where `api.import_error_path` is not set; the others
    /// as they say.
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
                why: "Įvesk.lt does not publish the address; look at the API page of your account",
            });
        };
        let body = Body {
            documentid: document_id,
            companycode: company.as_str(),
            message,
        };
        // Three texts always make JSON.
        let body = serde_json::to_string(&body).unwrap_or_default();
        let request = self
            .request(Method::POST, path)?
            .header(CONTENT_TYPE, &self.config.import_error_type)
            .body(body);
        self.answer(Endpoint::ErrorReport, request, MAX_SMALL_BODY_BYTES, &[])
            .await?;
        Ok(())
    }
}
