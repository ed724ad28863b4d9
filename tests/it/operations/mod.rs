//! Operation: alarms, egress, files, metrics, traces, proxies and secrets.

mod alarms;
mod egress;
mod files;
mod metrics;
mod proxies;
mod secrets;
mod traces;
