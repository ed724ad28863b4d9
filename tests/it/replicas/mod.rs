//! Several replicas on one PostgreSQL.

pub(crate) mod load;
mod shared_store;
