//! Verifying SNS messages and confirming subscriptions.

mod certificates;
mod confirmation;
mod envelope;
mod messages;
