//! Traces, sent to a collector by OTLP where `log.otlp_url` names one.
//!
//! The steps of a document's way are spans of level `debug`: a message, a page, a
//! delivery. Without a collector nothing makes them, unless the log shows that level.
//! Their attributes are identifiers; what may not stand in a log may not stand there.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_http::{HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider};
use tokio::runtime::Handle;
use tracing::{Level, Metadata, Subscriber, info, warn};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;
use url::Url;

use crate::egress;

/// How long the collector may take for one batch.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How long the end of the process waits for what is still to be sent.
const FLUSH: Duration = Duration::from_secs(5);

/// Spans that may wait to be sent; further ones are dropped, and nothing waits for room.
const QUEUE: usize = 4096;

/// The most that is read of the collector's answer.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// Why no traces can be sent.
#[derive(Debug, thiserror::Error)]
pub enum OtlpError {
    /// The client can't be made.
    #[error("the HTTPS client can't be set up: {0}")]
    Client(#[from] reqwest::Error),
    /// The exporter can't be made.
    #[error("`log.otlp_url` can't be used: {0}")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
}

/// The way of spans to a collector.
#[derive(Debug)]
pub struct Traces {
    provider: SdkTracerProvider,
}

impl Traces {
    /// Opens the way to the collector at `url`; must be called within a runtime.
    ///
    /// # Errors
    ///
    /// [`OtlpError`]
    pub fn to(url: &Url) -> Result<Self, OtlpError> {
        let collector = Collector {
            client: egress::client(TIMEOUT)?,
            runtime: Handle::current(),
            failing: AtomicBool::new(false),
        };
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(collector)
            .with_endpoint(url.as_str())
            .with_timeout(TIMEOUT)
            .build()?;
        let limits = BatchConfigBuilder::default()
            .with_max_queue_size(QUEUE)
            .build();
        let processor = BatchSpanProcessor::builder(exporter)
            .with_batch_config(limits)
            .build();
        let resource = Resource::builder()
            .with_service_name(env!("CARGO_PKG_NAME"))
            .with_attribute(opentelemetry::KeyValue::new(
                "service.version",
                env!("CARGO_PKG_VERSION"),
            ))
            .build();
        let provider = SdkTracerProvider::builder()
            .with_span_processor(processor)
            .with_resource(resource)
            .build();
        Ok(Self { provider })
    }

    /// The layer that makes spans of our steps, and of lines of the log within them
    /// events.
    pub fn layer<S>(&self) -> impl Layer<S> + Send + Sync + 'static
    where
        S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
    {
        let tracer = self.provider.tracer(env!("CARGO_PKG_NAME"));
        tracing_opentelemetry::layer()
            .with_tracer(tracer)
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false)
            .with_context_activation(false)
            .with_filter(filter_fn(is_ours))
    }

    /// Sends what is still to be sent, for a few seconds at the most.
    pub async fn finish(self) {
        // Waits for the exporter's thread, which needs this runtime.
        let flushed =
            tokio::task::spawn_blocking(move || self.provider.shutdown_with_timeout(FLUSH)).await;
        if !matches!(flushed, Ok(Ok(()))) {
            warn!("the last traces could not be sent to `log.otlp_url`");
        }
    }
}

/// Other crates' spans and lines may hold anything.
fn is_ours(metadata: &Metadata<'_>) -> bool {
    let finest = if metadata.is_span() {
        Level::DEBUG
    } else {
        Level::INFO
    };
    let ours = ["ivesk_webhook", "sns_messages"]
        .iter()
        .any(|name| metadata.target().starts_with(name));
    ours && *metadata.level() <= finest
}

/// The collector, reached like every other host.
#[derive(Debug)]
struct Collector {
    client: reqwest::Client,
    /// The exporter has a thread of its own, where no runtime is.
    runtime: Handle,
    /// Said once, not for every batch.
    failing: AtomicBool,
}

impl Collector {
    fn note(&self, failure: Option<&str>) {
        let failed_before = self.failing.swap(failure.is_some(), Ordering::Relaxed);
        match failure {
            Some(why) if !failed_before => {
                warn!("traces can't be sent to `log.otlp_url` and are dropped: {why}");
            }
            None if failed_before => info!("traces are sent to `log.otlp_url` again"),
            _ => {}
        }
    }
}

async fn send(
    client: reqwest::Client,
    request: reqwest::Request,
) -> Result<Response<Bytes>, String> {
    let answer = client.execute(request).await.map_err(egress::describe)?;
    let status = answer.status();
    let body = egress::read_body(answer, MAX_ANSWER_BYTES)
        .await
        .map_err(|error| error.to_string())?;
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = status;
    Ok(response)
}

#[async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let request = reqwest::Request::try_from(request)?;
        let sending = self.runtime.spawn(send(self.client.clone(), request));
        let sent = sending.await?;
        match &sent {
            Ok(response) if response.status().is_success() => self.note(None),
            Ok(response) => self.note(Some(&format!("it answered {}", response.status().as_u16()))),
            Err(why) => self.note(Some(why)),
        }
        Ok(sent?)
    }
}
