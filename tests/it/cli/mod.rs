//! The program as a person runs it: commands, settings and what they print.

mod commands;
mod config;
mod doctor;
#[cfg(target_os = "linux")]
mod first_hour;
mod init;
mod mistakes;
mod options;
mod pull;
mod recordings;
mod restore;
mod status;
mod subscriptions;
mod tunnel;
mod verify;
