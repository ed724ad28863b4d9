//! Operation: alarms, files, metrics, traces, proxies and secrets.

mod alarms;
mod files;
mod metrics;
mod proxies;
mod secrets;
mod traces;
