//! SNS's own address: its query API for subscribers, and its certificates.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use url::form_urlencoded;

use crate::domain::Event;
use crate::faults::Endpoint;
use crate::meter::RequestRecord;
use crate::vendor::Vendor;
use crate::{gate, sns};

const NAMESPACE: &str = "http://sns.amazonaws.com/doc/2010-03-31/";

/// Answers `GET /?Action=…`.
pub(crate) async fn query(State(vendor): State<Arc<Vendor>>, uri: Uri) -> Response {
    let parameters: Vec<(String, String)> =
        form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes())
            .into_owned()
            .collect();
    let value = |parameter: &str| {
        parameters
            .iter()
            .find(|(name, _)| name == parameter)
            .map_or("", |(_, value)| value.as_str())
    };
    let endpoint = match value("Action") {
        "ConfirmSubscription" => Endpoint::Confirm,
        "Unsubscribe" => Endpoint::Unsubscribe,
        "" => return about(&vendor),
        _ => {
            return error(
                &vendor,
                StatusCode::BAD_REQUEST,
                "InvalidAction",
                "The action is not valid for this endpoint.",
            );
        }
    };
    // The query holds the token, so it is not kept.
    let in_progress = vendor.meter.begin(record(endpoint, "/"));
    let answer = match gate::pass(&vendor, endpoint, None).await {
        Err(answer) => *answer,
        Ok(damage) => {
            let answer = match endpoint {
                Endpoint::Confirm => confirm(&vendor, value("TopicArn"), value("Token")),
                _ => unsubscribe(&vendor, value("SubscriptionArn")),
            };
            gate::damage(answer, damage).await
        }
    };
    in_progress.answered(answer.status().as_u16());
    answer
}

fn about(vendor: &Vendor) -> Response {
    format!(
        "This is ivesk-webhook's emulator of Įvesk.lt, SNS and S3.\nAPI: {}{}\nControl: POST {}/control/…\n",
        vendor.origin,
        crate::api::BASE,
        vendor.origin
    )
    .into_response()
}

fn confirm(vendor: &Vendor, topic: &str, token: &str) -> Response {
    let mut topics = Event::ALL.map(|event| vendor.topic_arn(event)).to_vec();
    topics.extend(
        vendor
            .ledger
            .subscriptions()
            .into_iter()
            .map(|s| s.topic_arn),
    );
    if !topics.iter().any(|known| known == topic) {
        return error(
            vendor,
            StatusCode::NOT_FOUND,
            "NotFound",
            "Topic does not exist",
        );
    }
    match sns::confirm(vendor, topic, token) {
        Some(arn) => success(
            vendor,
            "ConfirmSubscription",
            &format!(
                "<ConfirmSubscriptionResult><SubscriptionArn>{arn}</SubscriptionArn></ConfirmSubscriptionResult>"
            ),
        ),
        None => error(
            vendor,
            StatusCode::BAD_REQUEST,
            "InvalidParameter",
            "Invalid parameter: Token",
        ),
    }
}

fn unsubscribe(vendor: &Arc<Vendor>, arn: &str) -> Response {
    if sns::unsubscribe(vendor, arn) {
        success(vendor, "Unsubscribe", "")
    } else {
        error(
            vendor,
            StatusCode::NOT_FOUND,
            "NotFound",
            "Subscription does not exist",
        )
    }
}

fn success(vendor: &Vendor, action: &str, result: &str) -> Response {
    let request_id = vendor.uuid();
    let body = format!(
        "<{action}Response xmlns=\"{NAMESPACE}\">{result}<ResponseMetadata><RequestId>{request_id}</RequestId></ResponseMetadata></{action}Response>"
    );
    xml(StatusCode::OK, body)
}

fn error(vendor: &Vendor, status: StatusCode, code: &str, message: &str) -> Response {
    let request_id = vendor.uuid();
    let body = format!(
        "<ErrorResponse xmlns=\"{NAMESPACE}\"><Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error><RequestId>{request_id}</RequestId></ErrorResponse>"
    );
    xml(status, body)
}

fn xml(status: StatusCode, body: String) -> Response {
    (status, [(header::CONTENT_TYPE, "text/xml")], body).into_response()
}

/// Serves certificates, and answers 404 for everything else that has no route.
pub(crate) async fn certificate_or_nothing(
    State(vendor): State<Arc<Vendor>>,
    method: Method,
    uri: Uri,
) -> Response {
    let path = uri.path();
    if method != Method::GET || !path.starts_with("/SimpleNotificationService-") {
        return StatusCode::NOT_FOUND.into_response();
    }
    let in_progress = vendor.meter.begin(record(Endpoint::Certificate, path));
    let answer = match gate::pass(&vendor, Endpoint::Certificate, None).await {
        Err(answer) => *answer,
        Ok(damage) => {
            let answer = match vendor.ledger.certificate(path) {
                Some(pem) => {
                    let binary = [(header::CONTENT_TYPE, "binary/octet-stream")];
                    (binary, pem).into_response()
                }
                None => StatusCode::NOT_FOUND.into_response(),
            };
            gate::damage(answer, damage).await
        }
    };
    in_progress.answered(answer.status().as_u16());
    answer
}

fn record(endpoint: Endpoint, path: &str) -> RequestRecord {
    RequestRecord {
        endpoint,
        method: "GET".to_owned(),
        path: path.to_owned(),
        query: String::new(),
        account: None,
        status: None,
    }
}
