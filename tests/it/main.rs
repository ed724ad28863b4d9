//! One integration binary: each promise is tested through the real parts.

mod admin;
mod config;
mod receiver;
mod store;
mod subscriptions;
