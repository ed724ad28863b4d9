//! What `Debug` shows of documents and messages.

use ivesk_webhook::domain::{Account, Company, DocumentVersion, Event, Feed, Queue, Timestamp};
use ivesk_webhook::ivesk::Page;
use ivesk_webhook::store::{
    DocumentRow, NotificationRow, PageToCommit, QuarantineRow, Quarantined, QuarantinedMessage,
    StoredNotification, TriggerKind, UnreadableEntry,
};

const SECRET: &str = "planted-secret";

#[test]
fn debug_shows_the_length_of_a_body_but_not_the_body() {
    let body = || SECRET.as_bytes().to_vec();
    let account = Account::parse("default").expect("a valid name");
    let event = Event::OnExported;
    let received_at = Timestamp::from_millis(0);
    let document = DocumentVersion {
        id: "1".to_owned(),
        version: String::new(),
        body: body().into(),
    };
    let unreadable = UnreadableEntry {
        dedup_key: body(),
        body: body().into(),
    };
    let shown = [
        format!("{document:?}"),
        format!("{unreadable:?}"),
        format!(
            "{:?}",
            PageToCommit {
                documents: vec![document],
                unreadable: vec![unreadable],
                ..PageToCommit::default()
            }
        ),
        format!(
            "{:?}",
            Page {
                documents: vec![body().into()],
                next: None,
                repaired: Vec::new(),
                clock_offset: None,
            }
        ),
        format!(
            "{:?}",
            StoredNotification {
                row: NotificationRow {
                    id: 1,
                    account: account.clone(),
                    event,
                    kind: String::new(),
                    message_id: String::new(),
                    received_at,
                },
                body: Some(body()),
            }
        ),
        format!(
            "{:?}",
            DocumentRow {
                sequence: 1,
                feed: Feed {
                    account: account.clone(),
                    queue: Queue::Digitized,
                    company: Company::mixed(),
                },
                document_id: String::new(),
                version: String::new(),
                superseded: false,
                first_pull: false,
                found_by: TriggerKind::Notification,
                stored_at: received_at,
                erased_at: None,
                body: Some(body()),
            }
        ),
        format!(
            "{:?}",
            Quarantined {
                received_at,
                account: account.clone(),
                event,
                reason: String::new(),
                allowed_topic: false,
                headers: SECRET.to_owned(),
                body: body().into(),
            }
        ),
        format!(
            "{:?}",
            QuarantinedMessage {
                row: QuarantineRow {
                    id: 1,
                    received_at,
                    account,
                    event,
                    reason: String::new(),
                    size_bytes: 0,
                    topic_arn: None,
                },
                headers: SECRET.to_owned(),
                body: body(),
            }
        ),
    ];
    let as_numbers = format!("{:?}", SECRET.as_bytes());
    let as_numbers = as_numbers.trim_matches(['[', ']']);
    for text in shown {
        assert!(!text.contains(SECRET), "{text}");
        assert!(!text.contains(as_numbers), "{text}");
        assert!(text.contains("[14 bytes]"), "{text}");
    }
}
