//! Publishes the notifications of digitized and exported documents.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::document::{Document, Rendering};
use crate::domain::{Event, Queue};
use crate::publication::{MAX_MESSAGE_BYTES, Publication};
use crate::sns;
use crate::switches::{CompanyCode, CompanyCodeKey, DigitizedMessage, ExportEvents, Switches};
use crate::vendor::Vendor;
use sns_messages::time::Timestamp;

/// Returns a document as the list of `queue` shows it.
pub(crate) fn to_json(
    vendor: &Vendor,
    switches: &Switches,
    queue: Queue,
    document: &Document,
    version: i64,
    company_code: &str,
) -> String {
    document.to_json(&Rendering {
        switches,
        queue,
        company_code,
        url: vendor
            .uploads
            .file_url(&vendor.origin, switches, document.id, vendor.now()),
        exported_at: (queue == Queue::Exported).then(|| Timestamp::from_millis(version)),
    })
}

/// Publishes one `on_digitized` notification for each document.
pub(crate) fn digitized(vendor: &Arc<Vendor>, documents: &[usize]) {
    let switches = vendor.switches();
    for index in documents {
        let (document, account, code) = {
            let world = vendor.world();
            let document = world.at_index(*index).clone();
            let account = world.accounts[document.account].id;
            let code = world.company_code(document.company);
            (document, account, code)
        };
        let topic = vendor.topic_arn(Event::OnDigitized);
        if !vendor.ledger.has_subscribers(&topic, account) {
            continue;
        }
        let message = digitized_message(vendor, &switches, &document, &code);
        let publication = Publication {
            company: Some(code.to_string()),
            ..Publication::new(Event::OnDigitized, message)
        };
        sns::publish(vendor, account, &publication);
    }
}

fn digitized_message(
    vendor: &Vendor,
    switches: &Switches,
    document: &Document,
    code: &str,
) -> String {
    let message = match switches.digitized_message {
        DigitizedMessage::Text => format!("Dokumentas {} suskaitmenintas", document.docnum()),
        DigitizedMessage::Id => json!({ "id": document.id }).to_string(),
        DigitizedMessage::Document => to_json(
            vendor,
            switches,
            Queue::Digitized,
            document,
            document.digitized_at,
            code,
        ),
    };
    if switches.huge_message.is_on() {
        filled_up(message)
    } else {
        message
    }
}

/// Fills a message up to the most that SNS carries, with what grows when it is escaped.
fn filled_up(message: String) -> String {
    let Ok(Value::Object(mut fields)) = serde_json::from_str::<Value>(&message) else {
        let missing = MAX_MESSAGE_BYTES.saturating_sub(message.len());
        return message + &"\"".repeat(missing);
    };
    fields.insert("comment".to_owned(), "".into());
    let empty = Value::Object(fields.clone()).to_string().len();
    // A quote takes two bytes here, and four in the envelope.
    let missing = MAX_MESSAGE_BYTES.saturating_sub(empty);
    let comment = "\"".repeat(missing / 2) + &"x".repeat(missing % 2);
    fields.insert("comment".to_owned(), comment.into());
    Value::Object(fields).to_string()
}

/// Publishes what one click of the accountant makes: a notification for each company,
/// or for each document.
pub(crate) fn exported(vendor: &Arc<Vendor>, documents: &[(usize, i64)]) {
    let switches = vendor.switches();
    let mut by_company: BTreeMap<(Uuid, String), usize> = BTreeMap::new();
    {
        let world = vendor.world();
        for (index, _) in documents {
            let document = world.at_index(*index);
            let account = world.accounts[document.account].id;
            let code = world.company_code(document.company).to_string();
            *by_company.entry((account, code)).or_default() += 1;
        }
    }
    for ((account, code), count) in by_company {
        let times = match switches.export_events {
            ExportEvents::Company => 1,
            ExportEvents::Document => count,
        };
        let publication = Publication {
            company: Some(code.clone()),
            ..Publication::new(Event::OnExported, exported_message(&switches, &code))
        };
        for _ in 0..times {
            sns::publish(vendor, account, &publication);
        }
    }
}

fn exported_message(switches: &Switches, code: &str) -> String {
    let key = match switches.company_code_key {
        CompanyCodeKey::Camel => "companyCode",
        CompanyCodeKey::Lower => "companycode",
    };
    let value = match (switches.company_code, code.parse::<u64>()) {
        (CompanyCode::Number, Ok(number)) => number.into(),
        _ => Value::from(code),
    };
    let message: Map<String, Value> = [(key.to_owned(), value)].into_iter().collect();
    Value::Object(message).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_huge_message_is_as_long_as_sns_allows_and_still_json() {
        for message in ["{\"id\":\"1\"}", "{\"id\":\"12\"}"] {
            let filled = filled_up(message.to_owned());
            assert_eq!(filled.len(), MAX_MESSAGE_BYTES);
            assert!(serde_json::from_str::<Value>(&filled).is_ok());
        }
        assert_eq!(filled_up("words".to_owned()).len(), MAX_MESSAGE_BYTES);
    }
}
