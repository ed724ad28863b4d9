//! One integration binary: each promise is tested through the real parts.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unchecked_time_subtraction,
    clippy::unwrap_used,
    reason = "the rules are for the service; tests play its neighbors, and fail loudly"
)]

mod admin;
mod alarms;
mod browser;
mod command_line;
mod config;
mod databases;
mod delivery;
mod delivery_kill;
mod delivery_service;
mod delivery_store;
mod destination_support;
mod destinations_command;
mod destinations_examples;
mod destinations_folder;
mod destinations_http;
mod doctor;
mod emulator;
#[cfg(target_os = "linux")]
mod first_hour;
mod fixtures;
mod history;
mod ivesk;
mod ivesk_upload;
mod kill;
mod ledger;
mod metrics;
mod openapi;
mod otlp;
mod pages;
mod process;
mod proxies;
mod pull;
mod pull_command;
mod pull_faults;
mod pull_history;
mod pull_model;
mod pull_paging;
mod pull_service;
mod pull_support;
mod python;
mod receiver;
mod replicas;
mod secrets;
mod shared_store;
mod sns;
mod sns_certificates;
mod sns_confirmation;
mod sns_envelope;
mod sns_support;
mod sns_vectors;
mod sns_verify_command;
mod stand_in;
mod stopping_process;
mod store;
mod store_copy;
mod subscriptions;
mod tunnel;
mod uploads;
mod wires;
