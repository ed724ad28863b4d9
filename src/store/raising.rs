//! Raising triggers of several feeds at once, which may be new.

use super::Store;
use super::engine::{Tx, operations};
use super::error::Result;
use super::feeds::Trigger;
use super::row_ids::feed_ids;
use super::trigger_kind::TriggerKind;
use super::triggers::{raise, start_backfill};

operations! {
    /// Raises triggers, adding feeds that are not known yet.
    write raise_all(triggers: Vec<Trigger>) -> (), then wake_pullers;
}

impl Store {
    /// Raises triggers, adding feeds that are not known yet.
    ///
    /// # Errors
    ///
    /// If the store fails; feeds may have been added then.
    pub async fn trigger(&self, triggers: Vec<Trigger>) -> Result<()> {
        let due_at = triggers.iter().map(|trigger| trigger.due_at).min();
        let has_backfill = triggers
            .iter()
            .any(|trigger| trigger.kind == TriggerKind::Backfill);
        // A backfill waits for a page of its feed that is being stored, and that page may wait to add feeds.
        // So new ones are added before.
        if let Some(due_at) = due_at.filter(|_| has_backfill) {
            let feeds = triggers.iter().map(|trigger| trigger.feed.clone());
            self.register_feeds(feeds.collect(), due_at).await?;
        }
        self.raise_all(triggers).await
    }
}

async fn raise_all<T: Tx>(tx: &T, triggers: Vec<Trigger>) -> Result<()> {
    let Some(due_at) = triggers.iter().map(|trigger| trigger.due_at).min() else {
        return Ok(());
    };
    let feeds = triggers.iter().map(|trigger| trigger.feed.clone());
    let ids = feed_ids(tx, feeds, tx.now_or(due_at)).await?;
    let triggers = triggers.into_iter();
    let mut triggers: Vec<(i64, Trigger)> = triggers
        .filter_map(|trigger| Some((*ids.get(&trigger.feed)?, trigger)))
        .collect();
    // The same order everywhere prevents deadlocks.
    triggers.sort_by_key(|(feed, trigger)| (*feed, trigger.kind));
    for (feed, trigger) in triggers {
        // A future moment of a caller's clock would delay work.
        let due_at = match trigger.kind {
            TriggerKind::Notification | TriggerKind::Backfill => {
                trigger.due_at.min(tx.now_or(trigger.due_at))
            }
            _ => trigger.due_at,
        };
        if trigger.kind == TriggerKind::Backfill {
            start_backfill(tx, feed, trigger.from).await?;
        }
        raise(tx, feed, trigger.kind, due_at).await?;
    }
    Ok(())
}
