//! One integration binary: each promise is tested through the real parts.

mod command_line;
mod config;
mod ivesk;
mod ivesk_upload;
mod stand_in;
mod store;
