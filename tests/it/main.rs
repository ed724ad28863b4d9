//! One integration binary: each promise is tested through the real parts.

mod admin;
mod command_line;
mod config;
mod emulator;
mod history;
mod ivesk;
mod ivesk_upload;
mod kill;
mod process;
mod pull;
mod pull_command;
mod pull_faults;
mod pull_model;
mod pull_service;
mod pull_support;
mod receiver;
mod sns;
mod sns_certificates;
mod sns_confirmation;
mod sns_envelope;
mod sns_support;
mod sns_vectors;
mod sns_verify_command;
mod stand_in;
mod store;
mod subscriptions;
