//! Recognizes what other AWS services make of an SNS message, for a refusal that names it.

use serde::Deserialize;
use serde::de::IgnoredAny;

/// The keys by which the wrappers differ.
#[derive(Deserialize)]
struct Body {
    #[serde(rename = "Records")]
    records: Option<Vec<Record>>,
    #[serde(rename = "Messages")]
    messages: Option<IgnoredAny>,
    #[serde(rename = "ReceiptHandle")]
    receipt_handle: Option<IgnoredAny>,
    #[serde(rename = "detail-type")]
    detail_type: Option<IgnoredAny>,
    #[serde(rename = "requestContext")]
    request_context: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Record {
    #[serde(rename = "Sns")]
    sns: Option<IgnoredAny>,
    #[serde(rename = "receiptHandle")]
    receipt_handle: Option<IgnoredAny>,
}

/// Returns what the JSON object `body` is; `None` if it is no wrapper that is known.
pub(crate) fn of(body: &[u8]) -> Option<&'static str> {
    let body: Body = serde_json::from_slice(body).ok()?;
    if let Some(records) = body.records {
        return Some(match records.first() {
            Some(Record { sns: Some(_), .. }) => {
                "the event of an AWS Lambda function (`Records[0].Sns`)"
            }
            Some(Record {
                receipt_handle: Some(_),
                ..
            }) => "a batch of Amazon SQS for an AWS Lambda function (`Records[0].body`)",
            _ => "an event of another AWS service (`Records`)",
        });
    }
    if body.messages.is_some() || body.receipt_handle.is_some() {
        return Some("a message of an Amazon SQS queue (`Body`)");
    }
    if body.detail_type.is_some() {
        return Some("an event of Amazon EventBridge (`detail`)");
    }
    let gateway = "a request of Amazon API Gateway to an AWS Lambda function (`body`)";
    body.request_context.map(|_| gateway)
}
