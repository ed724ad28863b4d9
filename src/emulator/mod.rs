//! A faithful Įvesk.lt, SNS and S3 for demos and tests.

pub mod signer;
