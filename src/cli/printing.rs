//! `print!` and its like for subcommands: the standard library's panic if the output can't be
//! written, as for `… | head` or a full disk.

use std::fmt::Arguments;
use std::io::{self, ErrorKind, Write as _};

/// Exit code that shells report for a program that SIGPIPE ended. Not 0: `verify … | head`
/// has not shown that all messages are valid.
const ENDED_BY_SIGPIPE: i32 = 128 + 13;

/// Writes to standard output, or ends the process if that can't be written.
macro_rules! print {
    ($($part:tt)*) => {
        $crate::cli::printing::to_stdout(format_args!($($part)*))
    };
}

/// [`print!`] with a line feed.
macro_rules! println {
    () => {
        print!("\n")
    };
    ($format:literal $($part:tt)*) => {
        print!("{}\n", format_args!($format $($part)*))
    };
}

/// Writes to standard error, if that can be written.
macro_rules! eprint {
    ($($part:tt)*) => {
        $crate::cli::printing::to_stderr(format_args!($($part)*))
    };
}

/// [`eprint!`] with a line feed.
macro_rules! eprintln {
    ($format:literal $($part:tt)*) => {
        eprint!("{}\n", format_args!($format $($part)*))
    };
}

/// [`eprintln!`] for what is neither a result nor an error, which `--quiet` leaves out.
macro_rules! note {
    ($format:literal $($part:tt)*) => {
        if !$crate::cli::style::is_quiet() {
            eprintln!($format $($part)*)
        }
    };
}

/// Prints a result: a JSON value on one line with `--json`, else text.
macro_rules! result {
    ($json:expr, $format:literal $($part:tt)*) => {
        if $crate::cli::style::is_json() {
            println!("{}", $json)
        } else {
            println!($format $($part)*)
        }
    };
}

pub(super) fn to_stdout(text: Arguments<'_>) {
    let mut stdout = io::stdout();
    check(stdout.write_fmt(text).and_then(|()| stdout.flush()));
}

/// [`to_stdout`] for bytes that may be no text.
pub(super) fn bytes_to_stdout(bytes: &[u8]) {
    let mut stdout = io::stdout();
    check(stdout.write_all(bytes).and_then(|()| stdout.flush()));
}

pub(super) fn to_stderr(text: Arguments<'_>) {
    // There is no place left to report it.
    let _ = io::stderr().write_fmt(text);
}

/// Ends the process if its result can't be written.
fn check(written: io::Result<()>) {
    let Err(error) = written else {
        return;
    };
    let code = if error.kind() == ErrorKind::BrokenPipe {
        // The reader has read enough. SIGPIPE's default would end the process too, but `serve`
        // with it, at the first client that hangs up.
        ENDED_BY_SIGPIPE
    } else {
        to_stderr(format_args!(
            "error: failed to write to standard output: {error}\n"
        ));
        1
    };
    #[expect(
        clippy::disallowed_methods,
        reason = "nothing that the command does from here on could be shown"
    )]
    std::process::exit(code)
}
