//! One integration binary: each promise is tested through the real parts.

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
