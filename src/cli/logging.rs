//! Logs and traces of subcommands.

use std::io::IsTerminal as _;
use std::time::Duration;

use tracing::Subscriber;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer};

use super::log_lines::LogLines;
use super::outcome::Failure;
use super::visible_lines::VisibleLines;
use crate::config::{LogConfig, LogFormat};
use crate::egress::Proxy;
use crate::otlp::Traces;

/// Longest time for the last lines of a service.
pub(super) const FINISH_TIMEOUT: Duration = Duration::from_secs(1);

/// What a command that opens the store itself would say of itself, beside its result: its own line
/// of the audit list, and the origins that the settings trust, which `serve` tells.
const OF_SERVE_ALONE: &str = "ivesk_webhook::admin::audit=warn,sns_messages::local_origins=error";

/// Starts logging to standard error. A second call changes nothing.
///
/// # Errors
///
/// If `log.level` is not a filter, which [`crate::config`] rules out.
pub(super) fn start(log: &LogConfig) -> Result<(), Failure> {
    let format = log.format;
    let mut log = log.clone();
    log.level = format!("{},{OF_SERVE_ALONE}", log.level);
    start_to(
        &log,
        move || VisibleLines::new(std::io::stderr(), format),
        None,
    )
}

/// The log of a service, which never waits for its output.
pub(super) struct ServiceLog {
    lines: LogLines,
    traces: Option<Traces>,
}

impl ServiceLog {
    /// Starts logging as [`start`] does, but on a thread of its own, and traces if `log.otlp_url`
    /// is set.
    ///
    /// # Errors
    ///
    /// As [`start`], and if no client for the collector or no thread can be created.
    pub(super) fn start(log: &LogConfig, proxy: Option<&Proxy>) -> Result<Self, Failure> {
        let lines = LogLines::to(VisibleLines::new(std::io::stderr(), log.format))?;
        let url = log.otlp_url.as_ref();
        let traces = url.map(|url| Traces::to(url, proxy)).transpose()?;
        start_to(log, lines.clone(), traces.as_ref())?;
        Ok(Self { lines, traces })
    }

    /// Returns the lines on their way to the log.
    pub(super) fn lines(&self) -> &LogLines {
        &self.lines
    }

    /// Sends the last traces and writes the last lines, as far as the output accepts them.
    pub(super) async fn finish(self) {
        if let Some(traces) = self.traces {
            traces.finish().await;
        }
        self.lines.finish(FINISH_TIMEOUT);
    }
}

fn start_to<W>(log: &LogConfig, writer: W, traces: Option<&Traces>) -> Result<(), Failure>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_new(&log.level).map_err(Failure::usage)?;
    let started = match traces {
        None => tracing_subscriber::registry()
            .with(filter)
            .with(layer(log, writer))
            .try_init(),
        Some(traces) => tracing_subscriber::registry()
            .with(layer(log, writer).with_filter(filter))
            .with(traces.layer())
            .try_init(),
    };
    // Fails only if logging was started before, for example by a test.
    drop(started);
    Ok(())
}

/// Returns the layer that formats lines and writes each with one call.
fn layer<S, W>(log: &LogConfig, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(writer)
        // It would print them to standard error, and panic if that is closed.
        .log_internal_errors(false);
    match log.format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().with_ansi(false).boxed(),
    }
}
