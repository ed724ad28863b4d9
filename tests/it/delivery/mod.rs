//! From the stored document to the destinations.

mod command_destination;
mod example_receivers;
mod folder_destination;
mod http_destination;
mod import_errors;
mod kill;
mod restoring;
mod service;
mod worker;
