//! `[log]`: log lines on standard error, and traces.

use serde_json::Value;
use url::Url;

use super::check::{did_you_mean, excerpt};
use super::layers::Layers;

/// Log lines on standard error, and traces.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// `log.format`: `"text"` (default) or `"json"`.
    pub format: LogFormat,
    /// `log.level`, default `info`; a level, which exceptions for modules may follow: `info,ivesk_webhook::pull=debug`.
    pub level: String,
    /// `log.client_addresses`, default false: true if the log line of a refused message contains
    /// the address of its sender.
    pub client_addresses: bool,
    /// `log.otlp_url`: the collector to which `serve` sends traces; none by default. An
    /// address without a path means `/v1/traces` there.
    pub otlp_url: Option<Url>,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            format: LogFormat::Text,
            level: "info".to_owned(),
            client_addresses: false,
            otlp_url: None,
        }
    }
}

/// The format of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Reads `[log]`.
pub(super) fn read(layers: &mut Layers<'_>) -> LogConfig {
    let default = LogConfig::default();
    LogConfig {
        format: layers.text(
            "log.format",
            default.format,
            log_format,
            |format| match format {
                LogFormat::Text => "text".into(),
                LogFormat::Json => "json".into(),
            },
        ),
        level: layers.text("log.level", default.level, log_level, |level| {
            level.as_str().into()
        }),
        client_addresses: layers.read(
            "log.client_addresses",
            default.client_addresses,
            |value, _| value.switch(),
            |switch| (*switch).into(),
        ),
        otlp_url: layers.text(
            "log.otlp_url",
            default.otlp_url,
            |text| otlp_url(text).map(Some),
            |url| {
                url.as_ref()
                    .map_or(Value::Null, |url: &Url| url.as_str().into())
            },
        ),
    }
}

/// Parses `log.otlp_url`. It may be plain `http`: collectors run beside the service.
fn otlp_url(text: &str) -> Result<Url, String> {
    const HOW: &str = "write a collector's address such as http://127.0.0.1:4318";
    let mut url = Url::parse(text.trim()).map_err(|_| format!("is not a URL; {HOW}"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err(format!("does not begin with http:// or https://; {HOW}"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(
            "contains a user or a password; remove it and set OTEL_EXPORTER_OTLP_HEADERS"
                .to_owned(),
        );
    }
    if url.path() == "/" {
        url.set_path("/v1/traces");
    }
    Ok(url)
}

/// Parses `log.format`.
fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err(format!(
            "`{}` is neither \"text\" nor \"json\"; write one of them",
            excerpt(text)
        )),
    }
}

/// Checks `log.level`.
fn log_level(text: &str) -> Result<String, String> {
    const HOW: &str = "write error, warn, info, debug or trace, or such a level with exceptions, as in \
         info,ivesk_webhook::pull=debug";
    let parts: Vec<&str> = text.split(',').map(str::trim).collect();
    let (first, exceptions) = parts.split_first().unwrap_or((&"", &[]));
    // A filter takes any other word for the name of a module, and shows nothing of all others.
    if !is_level(first) {
        let meant = did_you_mean(first, LEVELS.into_iter());
        return Err(format!("`{}` is not a level{meant}; {HOW}", excerpt(first)));
    }
    for part in exceptions {
        let exception = part.split_once('=');
        if !exception.is_some_and(|(module, level)| is_module(module) && is_level(level)) {
            return Err(format!(
                "`{}` is not a module of the program with its level; {HOW}",
                excerpt(part)
            ));
        }
    }
    Ok(parts.join(","))
}

/// The levels, of which each shows those before it too.
const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

fn is_level(text: &str) -> bool {
    LEVELS.iter().any(|level| level.eq_ignore_ascii_case(text))
}

/// Returns true if it has the form of a module's path, such as `ivesk_webhook::pull`.
fn is_module(text: &str) -> bool {
    let is_word = |word: &str| {
        !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    text.split("::").all(is_word)
}
