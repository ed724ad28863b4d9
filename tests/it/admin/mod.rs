//! The admin listener: its API, its document and its pages.

pub(crate) mod api;
mod openapi;
mod pages;
