//! The store, on both engines.

mod access;
mod alarms;
mod copy;
mod deliveries;
mod feed_changes;
mod gaps;
mod kill;
pub(crate) mod known_messages;
pub(crate) mod messages;
mod pages;
mod plans;
mod reading;
mod restoring;
mod scale;
mod search;
mod secrets;
mod sqlite;
mod states;
mod stopping;
mod subscriptions;
mod test_store;
mod tokens;
mod triggers;
mod uploads;
mod waits;
