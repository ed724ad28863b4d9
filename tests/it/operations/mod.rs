//! Operation: alarms, metrics, traces, proxies and secrets.

mod alarms;
mod metrics;
mod proxies;
mod secrets;
mod staying_up;
mod store_faults;
mod traces;
