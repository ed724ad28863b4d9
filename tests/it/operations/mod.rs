//! Operation: alarms, past failures, egress, files, metrics, packaging, traces, proxies and secrets.

mod alarms;
mod corpus;
mod egress;
mod emails;
mod erasing;
mod files;
mod metrics;
mod packaging;
mod postgres_faults;
mod proxies;
mod sbom;
mod secrets;
mod staying_up;
mod store_faults;
mod traces;
