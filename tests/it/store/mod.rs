//! The store on both engines.

mod copy;
mod deliveries;
pub(crate) mod kill;
pub(crate) mod promises;
pub(crate) mod stopping;
