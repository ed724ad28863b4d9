//! Creates subscriptions: the vendor delivers an event to the service.

use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;

use super::client::{Client, MAX_SMALL_BODY_BYTES};
use super::error::ApiError;
use super::observer::Endpoint;
use crate::domain::Event;

/// Returns the request body of a subscription (vendor-api, "Subscribing"). A secret: the target
/// contains the path's token.
pub fn subscription_body(name: &str, event: Event, target: &SecretString) -> SecretString {
    #[derive(Serialize)]
    struct Body<'a> {
        name: &'a str,
        #[serde(rename = "eventType")]
        event_type: &'a str,
        target: &'a str,
    }
    let body = Body {
        name,
        event_type: event.as_str(),
        target: target.expose_secret(),
    };
    // Three texts always serialize.
    serde_json::to_string(&body).unwrap_or_default().into()
}

impl Client {
    /// Subscribes `target` to `event`, under a name for people.
    ///
    /// The answer of a success is unknown (U3); SNS then sends a SubscriptionConfirmation to the
    /// target.
    ///
    /// # Errors
    ///
    /// [`ApiError::NotConfigured`] if `api.subscribe_path` is not set, and the other variants.
    pub async fn subscribe(
        &self,
        name: &str,
        event: Event,
        target: &SecretString,
    ) -> Result<(), ApiError> {
        let Some(path) = &self.config.subscribe_path else {
            return Err(ApiError::NotConfigured {
                setting: "api.subscribe_path",
                why: "Įvesk.lt does not publish the address; `subscriptions create --print` shows \
                      the request to send by hand",
            });
        };
        let body = subscription_body(name, event, target);
        let request = self
            .request(Method::POST, path)?
            .header(CONTENT_TYPE, "application/json")
            .body(body.expose_secret().to_owned());
        let secrets = [target.expose_secret()];
        let endpoint = Endpoint::Subscribe;
        self.answer(endpoint, request, MAX_SMALL_BODY_BYTES, &secrets)
            .await?;
        Ok(())
    }
}
