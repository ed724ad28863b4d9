//! How results look on a terminal: its width, and colors that the variable `NO_COLOR` turns off.

use std::io::IsTerminal as _;
use std::sync::OnceLock;

use anstream::{AutoStream, ColorChoice};
pub(super) use anstyle::Style;
use anstyle::{AnsiColor, Effects};
use tz::TimeZone;

/// A line that is fine.
pub(super) const GOOD: Style = AnsiColor::Green.on_default();
/// A line that a person should know of.
pub(super) const NOTE: Style = AnsiColor::Yellow.on_default();
/// A line that needs a person.
pub(super) const BAD: Style = AnsiColor::Red.on_default().effects(Effects::BOLD);
/// A heading.
pub(super) const HEADING: Style = Style::new().effects(Effects::BOLD);

/// What the command line says about the output.
#[derive(Debug, Default)]
pub(super) struct OutputOptions {
    /// Tables are as wide as their cells, also on a terminal.
    pub(super) wide: bool,
    /// Results and errors only.
    pub(super) quiet: bool,
    /// Results as JSON.
    pub(super) json: bool,
    /// The variable `TZ`.
    pub(super) time_zone: Option<String>,
}

/// Of the whole process, as its standard output is.
static OPTIONS: OnceLock<OutputOptions> = OnceLock::new();

/// Sets the options; the first call of a process counts.
pub(super) fn set(options: OutputOptions) {
    let _ = OPTIONS.set(options);
}

/// Returns true if only results and errors are printed.
pub(super) fn is_quiet() -> bool {
    OPTIONS.get().is_some_and(|options| options.quiet)
}

/// Returns true if results are printed as JSON.
pub(super) fn is_json() -> bool {
    OPTIONS.get().is_some_and(|options| options.json)
}

/// Returns the time zone of the person: that of `TZ`, or else of this machine.
pub(super) fn time_zone() -> TimeZone {
    let variable = OPTIONS
        .get()
        .and_then(|options| options.time_zone.as_deref());
    let named = variable.and_then(|name| TimeZone::from_posix_tz(name).ok());
    named
        .or_else(|| TimeZone::local().ok())
        .unwrap_or_else(TimeZone::utc)
}

/// Returns the number of columns that a table may have; `None` if nothing limits it, as in a file.
pub(super) fn width() -> Option<usize> {
    let stdout = std::io::stdout();
    let is_wide = OPTIONS.get().is_some_and(|options| options.wide);
    if is_wide || !stdout.is_terminal() {
        return None;
    }
    terminal_size::terminal_size_of(stdout).map(|(width, _)| usize::from(width.0))
}

/// Returns the text in a style, if standard output is a terminal that shows it.
pub(super) fn styled(style: Style, text: &str) -> String {
    match AutoStream::choice(&std::io::stdout()) {
        ColorChoice::Never => text.to_owned(),
        _ => format!("{style}{text}{style:#}"),
    }
}

/// [`styled`] for standard error.
pub(super) fn styled_error(style: Style, text: &str) -> String {
    match AutoStream::choice(&std::io::stderr()) {
        ColorChoice::Never => text.to_owned(),
        _ => format!("{style}{text}{style:#}"),
    }
}
