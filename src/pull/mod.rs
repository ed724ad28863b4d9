//! Reading the queues: scheduler, page step, reconciliation.
