//! What the public listener promises to SNS, and to everybody else.

pub(crate) mod app;
pub(crate) mod fake_sns;
pub(crate) mod faulty_store;

pub(crate) mod callers;

mod acknowledging;
mod commands;
mod connections;
mod logging;
mod refusing;
mod stopping;
