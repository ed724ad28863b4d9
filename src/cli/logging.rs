//! Logs and traces of subcommands.

use std::io::{IsTerminal as _, Stderr};

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

use super::log_lines::LogLines;
use super::outcome::Failure;
use crate::config::{LogConfig, LogFormat};
use crate::egress::Proxy;
use crate::otlp::Traces;

/// Starts logging to standard error. A second call changes nothing.
///
/// # Errors
///
/// If `log.level` is not a filter, which [`crate::config`] rules out.
pub(super) fn start(log: &LogConfig) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(&log.level).map_err(Failure::usage)?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(lines_to_stderr(log.format));
    let started = match log.format {
        LogFormat::Text => builder
            .with_ansi(std::io::stderr().is_terminal())
            .try_init(),
        LogFormat::Json => builder.json().with_ansi(false).try_init(),
    };
    // Fails only if logging was started before, for example by a test.
    drop(started);
    Ok(())
}

/// Starts logging as [`start`] does, and traces if `log.otlp_url` is set.
///
/// # Errors
///
/// As [`start`], and if no client for the collector can be created.
pub(super) fn start_with_traces(
    log: &LogConfig,
    proxy: Option<&Proxy>,
) -> Result<Option<Traces>, Failure> {
    let Some(url) = &log.otlp_url else {
        return start(log).map(|()| None);
    };
    let filter = EnvFilter::try_new(&log.level).map_err(Failure::usage)?;
    let lines = tracing_subscriber::fmt::layer().with_writer(lines_to_stderr(log.format));
    let lines = match log.format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().with_ansi(false).boxed(),
    };
    let traces = Traces::to(url, proxy)?;
    let started = tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        .with(traces.layer())
        .try_init();
    // As in `start`.
    drop(started);
    Ok(Some(traces))
}

/// Returns what makes the writer of each event.
fn lines_to_stderr(format: LogFormat) -> impl Fn() -> LogLines<Stderr> {
    move || LogLines::new(std::io::stderr(), format)
}
