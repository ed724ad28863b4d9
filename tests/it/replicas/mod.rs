//! Several replicas on one PostgreSQL.

mod load;
mod shared_store;
