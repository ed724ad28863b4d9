//! Files that are sent to the vendor.

mod sending;
mod vendor_api;
