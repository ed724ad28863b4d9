//! One integration binary: each promise is tested through the real parts.

mod emulator;
mod sns;
mod sns_certificates;
mod sns_confirmation;
mod sns_envelope;
mod sns_support;
mod sns_vectors;
mod sns_verify_command;
