//! Parses the arguments and runs one subcommand.

use std::process::ExitCode;

use clap::Parser;
use ivesk_webhook::cli::{self, Cli};

fn main() -> ExitCode {
    limit_heaps();
    match Cli::try_parse() {
        Ok(arguments) => cli::run(arguments),
        Err(error) => cli::end_of_arguments(&error),
    }
}

/// Lets the C library have one heap for each processor, and at least two, instead of eight: messages are allocated by the
/// thread that reads them and freed by the one that stores them, and what each heap keeps for itself
/// costs time and memory. `MALLOC_ARENA_MAX` decides where it is set.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "the C library has no safe way to set this")]
#[expect(clippy::disallowed_methods, reason = "a setting of the C library")]
fn limit_heaps() {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    if let Ok(heaps) = i32::try_from(processors.max(2))
        && std::env::var_os("MALLOC_ARENA_MAX").is_none()
    {
        // SAFETY: it takes two numbers, and no other thread runs yet.
        unsafe { libc::mallopt(libc::M_ARENA_MAX, heaps) };
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn limit_heaps() {}
