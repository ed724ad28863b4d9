//! The public listener.

mod acknowledging;
mod callers;
mod commands;
mod connections;
mod logging;
mod refusing;
mod stopping;
mod subscriptions;
mod unclear;
mod unexpected;
