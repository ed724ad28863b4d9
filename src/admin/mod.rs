//! The private listener: API, metrics, health.
