//! One integration binary: each promise is tested through the real parts.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::print_stderr,
    clippy::unchecked_time_subtraction,
    clippy::unwrap_used,
    reason = "the rules are for the service; tests play its neighbors, and fail loudly"
)]

mod admin;
mod cli;
mod delivery;
mod emulator;
mod operations;
mod pull;
mod receiver;
mod replicas;
mod sns;
mod store;
mod support;
mod uploads;
