//! From the trigger to the stored document: the vendor's API and the pulls.

mod faults;
mod logging;
mod model;
mod odd_answers;
mod pace;
mod paging;
mod random_operations;
mod service;
mod unknowns;
mod vendor_api;
