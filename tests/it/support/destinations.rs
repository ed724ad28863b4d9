//! Deliveries, destinations and their responses.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use ivesk_webhook::config::{Config, DestinationConfig, DestinationKind, default_account};
use ivesk_webhook::delivery::{Delivery, Destination, DestinationResponse, OpenError, open};
use ivesk_webhook::domain::{Account, Clock, Company, DestinationName, Feed, Timestamp};
use serde_json::{Value, json};

/// Timeout that no test reaches.
pub(crate) const AMPLE: Duration = Duration::from_secs(60);

/// The vendor's API, for tests that do not use it.
pub(crate) const VENDOR_API: &str = "https://app.ivesk.lt/api/pub";

/// The company of the documents.
pub(crate) const COMPANY: &str = "302320404";

/// Returns a delivery of [`COMPANY`]'s exported feed with these fields in its document.
pub(crate) fn delivery(id: &str, fields: Value) -> Delivery {
    let mut body = json!({ "id": id, "exportedat": "2026-01-31T22:30:00.000Z" });
    let fields = fields.as_object().cloned().unwrap_or_default();
    body.as_object_mut().expect("an object").extend(fields);
    Delivery {
        feed: Feed::exported(default_account(), Company::parse(COMPANY).expect("a code")),
        document_id: id.to_owned(),
        version: "2026-01-31T22:30:00.000Z".to_owned(),
        epoch: "0af1".to_owned(),
        sequence: 7,
        stored_at: Timestamp::from_millis(1_790_000_000_000),
        body: body.to_string().into_bytes(),
        link: None,
        link_listed_at: None,
        link_tries: 0,
        link_timed_out: false,
        earlier_note: None,
    }
}

/// Returns settings without a destination, for the API at `api_url`.
pub(crate) fn config(api_url: &str) -> Config {
    let text = format!("public.url = 'http://127.0.0.1:1'\napi.url = '{api_url}'");
    Config::parse(&text, Path::new("/nowhere"), &BTreeMap::new()).expect("valid settings")
}

/// Returns a destination of this kind with `timeout` for each delivery.
pub(crate) fn destination_config(kind: DestinationKind, timeout: Duration) -> DestinationConfig {
    DestinationConfig {
        timeout,
        ..DestinationConfig::of(kind)
    }
}

/// Opens a destination of `config` with the system's clock.
pub(crate) fn try_open(
    destination: &DestinationConfig,
    config: &Config,
    environment: &[(&str, &str)],
) -> Result<Box<dyn Destination>, OpenError> {
    let name = DestinationName::parse("erp").expect("a name");
    let environment = environment
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let opened = open(&name, destination, config, &environment, &Clock::system())?;
    Ok(opened.expect("a destination that gets documents"))
}

/// Returns the note of an accepting response.
pub(crate) fn delivered(response: DestinationResponse) -> Option<String> {
    match response {
        DestinationResponse::Accepted { note } => note,
        other => panic!("not delivered: {other:?}"),
    }
}

/// Returns the message of a rejecting response.
pub(crate) fn rejected(response: DestinationResponse) -> String {
    match response {
        DestinationResponse::Rejected { message } => message,
        other => panic!("not rejected: {other:?}"),
    }
}

/// Returns the error of an unavailable destination, and how long it wants to be left alone.
pub(crate) fn unavailable(response: DestinationResponse) -> (String, Option<Duration>) {
    match response {
        DestinationResponse::Unavailable { error, retry_after } => (error, retry_after),
        other => panic!("not unavailable: {other:?}"),
    }
}

/// Creates a named pipe.
pub(crate) fn make_pipe(path: &Path) {
    let made = std::process::Command::new("mkfifo").arg(path).status();
    assert!(made.expect("mkfifo is installed").success());
}

/// Returns an account other than the default one.
pub(crate) fn other_account() -> Account {
    Account::parse("other").expect("a name")
}
