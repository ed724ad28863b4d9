//! One integration binary: each promise is tested through the real parts.

mod emulator;
