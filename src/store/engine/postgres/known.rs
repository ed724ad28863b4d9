//! Ingest of notifications whose accounts, feeds and subscriptions are known, as nearly all are: in one statement, which
//! takes one wait for the server instead of three.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use super::connection::Transaction;
use crate::domain::{Event, Timestamp};
use crate::sns::MessageType;
use crate::store::engine::{
    Columns, NewNotification, NotificationColumns, Sql, Tx as _, params, which_are_new,
};
use crate::store::error::Result;
use crate::store::ingest::{RAISE_AGAIN, RowIds, StoredGroup, in_order, outcomes};
use crate::store::subscription_messages::HEARD_PRECISION;
use crate::store::tallies::{ADD, PART, Tally};
use crate::store::trigger_kind::TriggerKind;
use crate::store::{AcceptedMessage, Triggers};

/// Messages that are notifications of known accounts and feeds.
pub(super) struct KnownGroup<'m> {
    messages: &'m [AcceptedMessage],
    /// The account of each.
    accounts: Vec<i64>,
    /// The feed that each triggers, if it does.
    feeds: Vec<Option<i64>>,
}

impl<'m> KnownGroup<'m> {
    /// Returns the group; `None` if one of the messages is of another kind.
    pub(super) fn of(messages: &'m [AcceptedMessage], known: &RowIds) -> Option<Self> {
        let ids = |incoming: &AcceptedMessage| {
            let is_of_the_kind = incoming.message.message_type() == MessageType::Notification
                && incoming.triggers != Triggers::AllFeeds
                && !incoming.needs_approval;
            let account = known
                .account(&incoming.account)
                .filter(|_| is_of_the_kind)?;
            match incoming.triggers.feed() {
                Some(feed) => Some((account, Some(known.feed(feed)?))),
                None => Some((account, None)),
            }
        };
        let (accounts, feeds) = messages.iter().map(ids).collect::<Option<_>>()?;
        Some(Self {
            messages,
            accounts,
            feeds,
        })
    }

    /// Returns the number of messages.
    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    /// Stores the messages with their triggers, due at `due_at` or, by default, at the database's time, and commits.
    ///
    /// `None`, and nothing is stored, if a message may change what is known of its topic's subscriptions.
    pub(super) async fn store(
        &self,
        transaction: &Transaction<'_>,
        due_at: Option<Timestamp>,
    ) -> Result<Option<StoredGroup>> {
        // No news: the topic has confirmed subscriptions, and each was heard, one of the cases in which `change_of` records
        // nothing.
        //
        // Each part is read by the next, so that rows are locked in the order in which `store_group` locks them.
        static SQL: Sql = Sql::with(
            "WITH heard AS (
                 SELECT bool_and(coalesce((
                     SELECT bool_and(coalesce(s.last_heard_at > t.since, false)) FROM subscription s
                     WHERE s.account_id = t.account_id AND s.event = t.event AND s.topic_arn = t.topic_arn
                         AND s.state = 'confirmed'), false)) AS is_no_news
                 FROM unnest($9, $10, $11, $12) AS t (account_id, event, topic_arn, since)),
             new AS (
                 INSERT INTO notification (account_id, event, published_at, message_id, kind, received_at, body)
                 SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7) WHERE (SELECT is_no_news FROM heard)
                 ON CONFLICT (published_at, message_id, account_id, event) DO NOTHING
                 RETURNING published_at, message_id, account_id, event, received_at),
             due AS (
                 SELECT v.feed_id, count(*) AS triggers
                 FROM new JOIN unnest($1, $2, $3, $4, $8) AS v (account_id, event, published_at, message_id, feed_id)
                     USING (published_at, message_id, account_id, event)
                 WHERE v.feed_id IS NOT NULL GROUP BY v.feed_id),
             moment AS (
                 SELECT coalesce($14, (date_part('epoch', clock_timestamp()) * 1000)::bigint) AS due_at),
             raised AS (
                 INSERT INTO feed_trigger AS d (feed_id, kind, raised, due_at, account_id, queue, next_at)
                 SELECT f.id, $13, due.triggers, m.due_at, f.account_id, f.queue, m.due_at
                 FROM due JOIN feed f ON f.id = due.feed_id CROSS JOIN moment m ORDER BY f.id
                 {raise_again} RETURNING next_at = due_at AS is_new),
             summary AS (
                 SELECT coalesce(bool_or(is_new), false) AS is_raised FROM raised),
             counted AS (
                 INSERT INTO tally AS t (what, hour, part, count)
                 SELECT $15, n.received_at - n.received_at % 3600000 AS hour, {part}, count(*)
                 FROM new n CROSS JOIN summary GROUP BY hour ORDER BY hour {add})
             SELECT heard.is_no_news, summary.is_raised, new.published_at, new.message_id, new.account_id, new.event
             FROM heard CROSS JOIN summary LEFT JOIN new ON true",
            &[("raise_again", RAISE_AGAIN), ("part", PART), ("add", ADD)],
        );
        let (places, rows) = in_order(self.messages, &self.accounts);
        let columns = NotificationColumns::of(&rows);
        let topics = self.heard();
        let (topics, since): (Vec<_>, Vec<Timestamp>) = topics.into_iter().unzip();
        let params = params! {
            columns.account, columns.event, columns.published_at, columns.message_id, columns.kind,
            columns.received_at, columns.body, self.feeds_of(&places, &rows),
            topics.iter().map(|topic| topic.0).collect::<Vec<i64>>(),
            topics.iter().map(|topic| topic.1).collect::<Vec<Event>>(),
            topics.iter().map(|topic| topic.2).collect::<Vec<&str>>(),
            since, TriggerKind::Notification, due_at, Tally::Accepted,
        };
        let (mut is_stored, mut raised, mut new) = (false, false, Vec::new());
        transaction
            .last(&[(&SQL, params)], &mut |row| {
                let mut columns = Columns::of(row);
                (is_stored, raised) = columns.get()?;
                if !row.is_null(2)? {
                    new.push(columns.get()?);
                }
                Ok(ControlFlow::Continue(()))
            })
            .await?;
        Ok(is_stored.then(|| StoredGroup {
            outcomes: outcomes(&places, which_are_new(&rows, &new)),
            row_ids: RowIds::default(),
            raised,
        }))
    }

    /// Returns the feed that each of the rows in order triggers: of several copies the first does.
    fn feeds_of(&self, places: &[usize], rows: &[NewNotification<'_>]) -> Vec<Option<i64>> {
        let is_copy = |at: usize| at > 0 && rows[at].identity() == rows[at - 1].identity();
        let feed = |(at, place): (usize, &usize)| self.feeds[*place].filter(|_| !is_copy(at));
        places.iter().enumerate().map(feed).collect()
    }

    /// Returns the topics of the messages, and since when each must have been heard for what they say to be no news.
    fn heard(&self) -> BTreeMap<(i64, Event, &str), Timestamp> {
        let mut topics = BTreeMap::new();
        for (incoming, account) in self.messages.iter().zip(&self.accounts) {
            let topic = (*account, incoming.event, incoming.message.topic_arn());
            let since = incoming.message.timestamp().before(HEARD_PRECISION);
            let newest = topics.entry(topic).or_insert(since);
            *newest = since.max(*newest);
        }
        topics
    }
}
