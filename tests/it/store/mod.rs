//! The store on both engines.

mod copy;
mod deliveries;
mod kill;
mod promises;
mod stopping;
