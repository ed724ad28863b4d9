//! One integration binary: each promise is tested through the real parts.

mod admin;
mod command_line;
mod config;
mod ivesk;
mod ivesk_upload;
mod receiver;
mod stand_in;
mod store;
mod subscriptions;
