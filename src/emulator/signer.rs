//! Makes and signs SNS messages with a certificate of its own.
