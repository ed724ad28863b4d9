//! What the public listener promises to SNS, and to everybody else.

mod acknowledging;
mod callers;
mod commands;
mod connections;
mod logging;
mod refusing;
mod stopping;
mod subscriptions;
