//! The text that SNS signs.
//!
//! Fields and order: AWS, "Verifying the signatures of Amazon SNS messages". Each
//! field is a line with its name and a line with its unescaped value; `Subject` is
//! left out if there is none.
//!
//! The text has no escaping of its own. It is unambiguous only because no field but
//! `Message` contains a newline, which [`crate::Envelope::parse`] checks: read from
//! its end, every line but those of `Message` has its place.

use std::ops::Range;

use crate::message::MessageType;

/// The signed fields of one message, unescaped.
#[derive(Clone, Copy)]
pub struct SignedFields<'a> {
    /// `Type`, which decides which of the fields are signed.
    pub message_type: MessageType,
    /// `Message`
    pub message: &'a str,
    /// `MessageId`
    pub message_id: &'a str,
    /// `Subject`, signed in notifications only.
    pub subject: Option<&'a str>,
    /// `SubscribeURL`, signed in the two confirmations only.
    pub subscribe_url: Option<&'a str>,
    /// `Timestamp`
    pub timestamp: &'a str,
    /// `Token`, signed in the two confirmations only.
    pub token: Option<&'a str>,
    /// `TopicArn`
    pub topic_arn: &'a str,
}

/// The signed text, with the position of each field.
///
/// Fields are read back from the very bytes that the signature covers, so what
/// was verified and what is acted on can't differ.
#[derive(Clone)]
pub struct CanonicalText {
    text: String,
    message: Range<usize>,
    message_id: Range<usize>,
    subject: Option<Range<usize>>,
    subscribe_url: Option<Range<usize>>,
    timestamp: Range<usize>,
    token: Option<Range<usize>>,
    topic_arn: Range<usize>,
}

impl CanonicalText {
    /// Writes the text for `fields`; those that its type does not sign are left out.
    pub fn new(fields: &SignedFields<'_>) -> Self {
        let mut writer = Writer::for_fields(fields);
        let confirmation = fields.message_type != MessageType::Notification;
        let message = writer.field("Message", fields.message);
        let message_id = writer.field("MessageId", fields.message_id);
        let subject = fields
            .subject
            .filter(|_| !confirmation)
            .map(|subject| writer.field("Subject", subject));
        let subscribe_url = fields
            .subscribe_url
            .filter(|_| confirmation)
            .map(|url| writer.field("SubscribeURL", url));
        let timestamp = writer.field("Timestamp", fields.timestamp);
        let token = fields
            .token
            .filter(|_| confirmation)
            .map(|token| writer.field("Token", token));
        let topic_arn = writer.field("TopicArn", fields.topic_arn);
        writer.field("Type", fields.message_type.as_str());
        Self {
            text: writer.text,
            message,
            message_id,
            subject,
            subscribe_url,
            timestamp,
            token,
            topic_arn,
        }
    }

    /// Returns the bytes that the signature covers.
    pub fn as_bytes(&self) -> &[u8] {
        self.text.as_bytes()
    }

    /// Returns `Message`.
    pub fn message(&self) -> &str {
        &self.text[self.message.clone()]
    }

    /// Returns `MessageId`.
    pub fn message_id(&self) -> &str {
        &self.text[self.message_id.clone()]
    }

    /// Returns `Subject`, if it is signed.
    pub fn subject(&self) -> Option<&str> {
        self.subject.clone().map(|range| &self.text[range])
    }

    /// Returns `SubscribeURL`, if it is signed.
    pub fn subscribe_url(&self) -> Option<&str> {
        self.subscribe_url.clone().map(|range| &self.text[range])
    }

    /// Returns `Timestamp`, as written.
    pub fn timestamp(&self) -> &str {
        &self.text[self.timestamp.clone()]
    }

    /// Returns `Token`, if it is signed.
    pub fn token(&self) -> Option<&str> {
        self.token.clone().map(|range| &self.text[range])
    }

    /// Returns `TopicArn`.
    pub fn topic_arn(&self) -> &str {
        &self.text[self.topic_arn.clone()]
    }
}

/// Appends fields to a text that is allocated once.
struct Writer {
    text: String,
}

impl Writer {
    /// More than all the names and newlines take together.
    const NAMES_BYTES: usize = 128;

    fn for_fields(fields: &SignedFields<'_>) -> Self {
        let values = fields.message.len()
            + fields.message_id.len()
            + fields.subject.map_or(0, str::len)
            + fields.subscribe_url.map_or(0, str::len)
            + fields.timestamp.len()
            + fields.token.map_or(0, str::len)
            + fields.topic_arn.len();
        Self {
            text: String::with_capacity(values + Self::NAMES_BYTES),
        }
    }

    fn field(&mut self, name: &str, value: &str) -> Range<usize> {
        self.text.push_str(name);
        self.text.push('\n');
        let start = self.text.len();
        self.text.push_str(value);
        let end = self.text.len();
        self.text.push('\n');
        start..end
    }
}

#[cfg(test)]
mod tests {
    use proptest::option;
    use proptest::prelude::*;

    use super::*;

    const FIELDS: SignedFields<'_> = SignedFields {
        message_type: MessageType::Notification,
        message: "m\n1",
        message_id: "id",
        subject: Some("s"),
        subscribe_url: Some("https://u"),
        timestamp: "2026-11-23T08:00:00.000Z",
        token: Some("tok"),
        topic_arn: "arn",
    };

    #[test]
    fn a_notification_signs_its_subject_but_no_token_or_url() {
        let text = CanonicalText::new(&FIELDS);

        assert_eq!(
            std::str::from_utf8(text.as_bytes()).unwrap(),
            "Message\nm\n1\nMessageId\nid\nSubject\ns\nTimestamp\n2026-11-23T08:00:00.000Z\n\
             TopicArn\narn\nType\nNotification\n"
        );
        assert_eq!((text.token(), text.subscribe_url()), (None, None));
        assert_eq!(text.subject(), Some("s"));
    }

    #[test]
    fn a_notification_without_subject_has_no_line_for_it() {
        let text = CanonicalText::new(&SignedFields {
            subject: None,
            ..FIELDS
        });

        assert_eq!(
            std::str::from_utf8(text.as_bytes()).unwrap(),
            "Message\nm\n1\nMessageId\nid\nTimestamp\n2026-11-23T08:00:00.000Z\n\
             TopicArn\narn\nType\nNotification\n"
        );
    }

    #[test]
    fn confirmations_sign_subscribe_url_and_token_but_no_subject() {
        for message_type in [
            MessageType::SubscriptionConfirmation,
            MessageType::UnsubscribeConfirmation,
        ] {
            let text = CanonicalText::new(&SignedFields {
                message_type,
                ..FIELDS
            });

            assert_eq!(
                std::str::from_utf8(text.as_bytes()).unwrap(),
                format!(
                    "Message\nm\n1\nMessageId\nid\nSubscribeURL\nhttps://u\nTimestamp\n\
                     2026-11-23T08:00:00.000Z\nToken\ntok\nTopicArn\narn\nType\n{}\n",
                    message_type.as_str()
                )
            );
            assert_eq!(text.subject(), None);
        }
    }

    #[test]
    fn the_text_of_a_message_is_allocated_once() {
        let value = "v".repeat(200);
        let fields = SignedFields {
            message_type: MessageType::UnsubscribeConfirmation,
            message: &value,
            message_id: &value,
            subject: None,
            subscribe_url: Some(&value),
            timestamp: &value,
            token: Some(&value),
            topic_arn: &value,
        };
        let capacity = Writer::for_fields(&fields).text.capacity();
        let needed = CanonicalText::new(&fields).as_bytes().len();
        assert!((needed..needed + Writer::NAMES_BYTES).contains(&capacity));
        // A subject takes the place of token and URL.
        let fields = SignedFields {
            message_type: MessageType::Notification,
            subject: Some(&value),
            subscribe_url: None,
            token: None,
            ..fields
        };
        let capacity = Writer::for_fields(&fields).text.capacity();
        let needed = CanonicalText::new(&fields).as_bytes().len();
        assert!((needed..needed + Writer::NAMES_BYTES).contains(&capacity));
    }

    /// Parses a notification's text from its end, the only way that works.
    fn read_back(text: &str) -> (String, String, Option<String>, String, String) {
        let lines: Vec<&str> = text.strip_suffix('\n').unwrap().split('\n').collect();
        let (rest, tail) = lines.split_at(lines.len() - 6);
        assert_eq!(
            (tail[0], tail[2], tail[4]),
            ("Timestamp", "TopicArn", "Type")
        );
        let (rest, subject) = match rest {
            [rest @ .., "Subject", subject] => (rest, Some((*subject).to_owned())),
            rest => (rest, None),
        };
        let [rest @ .., "MessageId", id] = rest else {
            panic!("no MessageId")
        };
        (
            rest[1..].join("\n"),
            (*id).to_owned(),
            subject,
            tail[1].to_owned(),
            tail[3].to_owned(),
        )
    }

    proptest! {
        #[test]
        fn a_text_can_be_read_in_one_way_only(
            message in "(Message|MessageId|Subject|Timestamp|TopicArn|Type|Notification|\n|\\PC){0,12}",
            message_id in "(Subject|Timestamp|\\PC{0,9})",
            subject in option::of("(Timestamp|MessageId|\\PC{0,9})"),
            timestamp in "(TopicArn|\\PC{0,9})",
            topic_arn in "(Type|\\PC{0,9})",
        ) {
            let canonical = CanonicalText::new(&SignedFields {
                message_type: MessageType::Notification,
                message: &message,
                message_id: &message_id,
                subject: subject.as_deref(),
                subscribe_url: None,
                timestamp: &timestamp,
                token: None,
                topic_arn: &topic_arn,
            });

            let read = read_back(std::str::from_utf8(canonical.as_bytes()).unwrap());

            prop_assert_eq!(canonical.message(), &message);
            prop_assert_eq!(canonical.message_id(), &message_id);
            prop_assert_eq!(canonical.subject(), subject.as_deref());
            prop_assert_eq!(canonical.timestamp(), &timestamp);
            prop_assert_eq!(canonical.topic_arn(), &topic_arn);
            prop_assert_eq!(read, (message, message_id, subject, timestamp, topic_arn));
        }
    }
}
