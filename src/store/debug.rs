//! `Debug` of the store's types without bodies, so that no log, error or failed assertion
//! repeats a document or a message.

use std::fmt;

use super::{
    Delivery, DocumentRow, Quarantined, QuarantinedMessage, StoredNotification, UnreadableEntry,
};
use crate::domain::Redacted;

impl fmt::Debug for StoredNotification {
    /// Omits the body.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredNotification")
            .field("row", &self.row)
            .field("body", &self.body.as_deref().map(Redacted))
            .finish()
    }
}

impl fmt::Debug for UnreadableEntry {
    /// Omits the entry, from which the key is made too.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnreadableEntry")
            .field("dedup_key", &Redacted(&self.dedup_key))
            .field("body", &Redacted(&self.body))
            .finish()
    }
}

impl fmt::Debug for DocumentRow {
    /// Omits the body.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DocumentRow")
            .field("sequence", &self.sequence)
            .field("feed", &self.feed)
            .field("document_id", &self.document_id)
            .field("version", &self.version)
            .field("superseded", &self.superseded)
            .field("first_pull", &self.first_pull)
            .field("found_by", &self.found_by)
            .field("stored_at", &self.stored_at)
            .field("body", &self.body.as_deref().map(Redacted))
            .finish()
    }
}

impl fmt::Debug for Delivery {
    /// Omits the body and the link.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("feed", &self.feed)
            .field("document_id", &self.document_id)
            .field("version", &self.version)
            .field("sequence", &self.sequence)
            .field("body", &Redacted(&self.body))
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Quarantined {
    /// Omits headers and body, which a stranger may have written.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Quarantined")
            .field("received_at", &self.received_at)
            .field("account", &self.account)
            .field("event", &self.event)
            .field("reason", &self.reason)
            .field("allowed_topic", &self.allowed_topic)
            .field("headers", &Redacted(self.headers.as_bytes()))
            .field("body", &Redacted(&self.body))
            .finish()
    }
}

impl fmt::Debug for QuarantinedMessage {
    /// Omits headers and body, which a stranger may have written.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuarantinedMessage")
            .field("row", &self.row)
            .field("headers", &Redacted(self.headers.as_bytes()))
            .field("body", &Redacted(&self.body))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Account, Company, DocumentVersion, Event, Feed, Queue, Timestamp};
    use crate::ivesk::Page;
    use crate::store::{NotificationRow, PageToCommit, QuarantineRow, TriggerKind};

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
            body: body(),
        };
        let unreadable = UnreadableEntry {
            dedup_key: body(),
            body: body(),
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
                    documents: vec![body()],
                    next: None
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
}
