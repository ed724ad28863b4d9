//! The admin listener: its API, its document and its pages.

mod access;
mod api;
mod export;
mod openapi;
mod page_terms;
mod pages;
mod pages_full;
mod search;
