//! [`Control`] over HTTP: `POST /control/<operation>` with a JSON object, which
//! may be left out where every field may.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::control::{Control, ControlError, Selection};
use crate::domain::{Event, Queue};
use crate::publication::Publication;
use crate::vendor::Vendor;
use sns_messages::time::Timestamp;

/// Most documents, or copies of a message, of one operation: all are made in memory at once.
const MAX_COUNT: usize = 200_000;

/// Why an operation was refused: status and message of the answer.
struct Refused(StatusCode, String);

impl From<ControlError> for Refused {
    fn from(error: ControlError) -> Self {
        let status = match error {
            ControlError::UnknownKey
            | ControlError::UnknownCompany(_)
            | ControlError::UnknownDocument(_)
            | ControlError::UnknownUpload(_) => StatusCode::NOT_FOUND,
            ControlError::Switch(_) | ControlError::Target(_) => StatusCode::BAD_REQUEST,
            ControlError::Certificate(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self(status, error.to_string())
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.0, axum::Json(json!({ "message": self.1 }))).into_response()
    }
}

#[derive(Deserialize)]
struct AddAccount {
    key: String,
    #[serde(default)]
    companies: Vec<String>,
}

#[derive(Deserialize)]
struct Digitize {
    key: String,
    company: String,
    #[serde(default = "one")]
    count: usize,
}

#[derive(Deserialize)]
struct Export {
    company: String,
    #[serde(default = "next_one")]
    documents: Selection,
}

#[derive(Deserialize)]
struct ById {
    id: String,
}

#[derive(Deserialize)]
struct Amend {
    id: String,
    fields: Map<String, Value>,
}

#[derive(Deserialize)]
struct SetSwitches {
    switches: String,
}

#[derive(Deserialize)]
struct Subscribe {
    #[serde(default)]
    key: Option<String>,
    event: Event,
    target: String,
}

#[derive(Deserialize)]
struct Unsubscribe {
    subscription_arn: String,
}

#[derive(Deserialize)]
struct Count {
    #[serde(default = "one")]
    count: usize,
}

#[derive(Deserialize)]
struct Documents {
    queue: Queue,
    #[serde(default)]
    company: String,
}

#[derive(Deserialize)]
struct DigitizeUpload {
    id: Uuid,
    #[serde(default)]
    company: Option<String>,
}

#[derive(Deserialize)]
struct Advance {
    ms: u64,
}

#[derive(Deserialize)]
struct SetClock {
    to: String,
}

const fn one() -> usize {
    1
}

const fn next_one() -> Selection {
    Selection::Next(1)
}

/// Does one operation.
pub(crate) async fn answer(
    State(vendor): State<Arc<Vendor>>,
    Path(operation): Path<String>,
    body: Bytes,
) -> Response {
    let control = Control(vendor);
    match perform(&control, &operation, &body).await {
        Ok(value) => axum::Json(value).into_response(),
        Err(refused) => refused.into_response(),
    }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refused> {
    let body = if body.trim_ascii().is_empty() {
        b"{}"
    } else {
        body
    };
    serde_json::from_slice(body)
        .map_err(|error| Refused(StatusCode::BAD_REQUEST, format!("the body: {error}")))
}

/// Returns a field's number unless it is too large.
fn bounded(field: &str, count: usize) -> Result<usize, Refused> {
    if count <= MAX_COUNT {
        return Ok(count);
    }
    Err(Refused(
        StatusCode::BAD_REQUEST,
        format!("`{field}` is {count}; write a number up to {MAX_COUNT}"),
    ))
}

async fn perform(control: &Control, operation: &str, body: &[u8]) -> Result<Value, Refused> {
    match operation {
        "idle" => {
            control.idle().await;
            Ok(json!({}))
        }
        "deliveries" => Ok(json!({ "deliveries": control.deliveries() })),
        "requests" => Ok(json!(control.requests())),
        "subscriptions" => Ok(json!({ "subscriptions": control.subscriptions() })),
        "uploads" => Ok(json!({ "uploads": control.uploads() })),
        "errors" => Ok(json!({ "errors": control.reported_errors() })),
        "switches" => Ok(switches(control)),
        "documents" => {
            let asked: Documents = read(body)?;
            Ok(versions(control.documents(asked.queue, &asked.company)))
        }
        "add_account" | "digitize" | "export" | "re_export" | "load" | "amend"
        | "digitize_upload" => change_documents(control, operation, body),
        "subscribe"
        | "unsubscribe"
        | "notify"
        | "lose_next_notifications"
        | "retry_now"
        | "forget_deliveries"
        | "rotate_certificate" => publish(control, operation, body).await,
        _ => set(control, operation, body),
    }
}

fn change_documents(control: &Control, operation: &str, body: &[u8]) -> Result<Value, Refused> {
    match operation {
        "add_account" => {
            let asked: AddAccount = read(body)?;
            let companies: Vec<&str> = asked.companies.iter().map(String::as_str).collect();
            Ok(json!({ "account": control.add_account(&asked.key, &companies) }))
        }
        "digitize" => {
            let asked: Digitize = read(body)?;
            let count = bounded("count", asked.count)?;
            let ids = control.digitize(&asked.key, &asked.company, count)?;
            Ok(json!({ "ids": ids }))
        }
        "load" => {
            let asked: Digitize = read(body)?;
            let count = bounded("count", asked.count)?;
            control.load(&asked.key, &asked.company, count)?;
            Ok(json!({ "documents": control.document_count() }))
        }
        "export" => {
            let asked: Export = read(body)?;
            if let Selection::Next(count) = asked.documents {
                bounded("documents", count)?;
            }
            Ok(versions(control.export(&asked.company, asked.documents)?))
        }
        "re_export" => {
            let asked: ById = read(body)?;
            Ok(json!({ "version": control.re_export(&asked.id)? }))
        }
        "amend" => {
            let asked: Amend = read(body)?;
            control.amend(&asked.id, asked.fields)?;
            Ok(json!({}))
        }
        _ => {
            let asked: DigitizeUpload = read(body)?;
            let id = control.digitize_upload(asked.id, asked.company.as_deref())?;
            Ok(json!({ "id": id }))
        }
    }
}

async fn publish(control: &Control, operation: &str, body: &[u8]) -> Result<Value, Refused> {
    match operation {
        "subscribe" => {
            let asked: Subscribe = read(body)?;
            let arn = match &asked.key {
                Some(key) => control.subscribe_as(key, asked.event, &asked.target)?,
                None => control.subscribe(asked.event, &asked.target)?,
            };
            Ok(json!({ "subscription_arn": arn }))
        }
        "unsubscribe" => {
            let asked: Unsubscribe = read(body)?;
            Ok(json!({ "found": control.unsubscribe(&asked.subscription_arn) }))
        }
        "notify" => {
            let publication: Publication = read(body)?;
            bounded("copies", publication.copies)?;
            Ok(json!({ "message_id": control.notify(&publication)? }))
        }
        "lose_next_notifications" => {
            let asked: Count = read(body)?;
            control.lose_next_notifications(asked.count);
            Ok(json!({}))
        }
        "retry_now" => {
            control.retry_now();
            Ok(json!({}))
        }
        "forget_deliveries" => {
            control.forget_deliveries();
            Ok(json!({}))
        }
        _ => {
            let handle = control.clone();
            // Making an RSA key is seconds of arithmetic in an unoptimised build.
            tokio::task::spawn_blocking(move || handle.rotate_certificate())
                .await
                .map_err(|error| Refused(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))??;
            Ok(json!({ "certificate_url": control.certificate_url() }))
        }
    }
}

fn set(control: &Control, operation: &str, body: &[u8]) -> Result<Value, Refused> {
    match operation {
        "set_switches" => {
            let asked: SetSwitches = read(body)?;
            control.set_switches(&asked.switches)?;
            Ok(switches(control))
        }
        "fault" => {
            control.fault(read(body)?);
            Ok(json!({}))
        }
        "clear_faults" => {
            control.clear_faults();
            Ok(json!({}))
        }
        "reset_requests" => {
            control.reset_requests();
            Ok(json!({}))
        }
        "advance" => {
            let asked: Advance = read(body)?;
            control.advance(Duration::from_millis(asked.ms));
            Ok(json!({ "now": control.now() }))
        }
        "set_clock" => {
            let asked: SetClock = read(body)?;
            let to = Timestamp::parse(&asked.to).ok_or_else(|| {
                let message = "`to` is not a date such as 2026-11-23T08:00:00Z";
                Refused(StatusCode::BAD_REQUEST, message.to_owned())
            })?;
            control.set_clock(to);
            Ok(json!({ "now": control.now() }))
        }
        _ => Err(Refused(
            StatusCode::NOT_FOUND,
            format!("there is no operation `{operation}`; see docs/emulator.md"),
        )),
    }
}

fn switches(control: &Control) -> Value {
    let switches = control.switches();
    let positions: Map<String, Value> = switches
        .list()
        .into_iter()
        .map(|(name, value, _)| (name.to_owned(), value.into()))
        .collect();
    json!({ "switches": positions })
}

fn versions(documents: Vec<(String, String)>) -> Value {
    let documents: Vec<Value> = documents
        .into_iter()
        .map(|(id, version)| json!({ "id": id, "version": version }))
        .collect();
    json!({ "documents": documents })
}
