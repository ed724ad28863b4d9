//! Sends traces by OTLP to the collector that `log.otlp_url` names.
//!
//! Each message, page and delivery is a span of level `debug`. Without a collector no spans
//! are created, unless the log shows that level. Attributes are identifiers; what must not be
//! logged must not be an attribute either.

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

use crate::egress::{self, Proxy};

/// Time limit of one batch.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Time limit of sending the remaining spans at shutdown.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// Spans that may wait to be sent; further ones are dropped, so that nothing blocks.
const MAX_QUEUE: usize = 4096;

/// Longest body that is read of the collector's response.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// An error of setting up the exporter.
#[derive(Debug, thiserror::Error)]
pub enum OtlpError {
    /// The HTTPS client can't be created.
    #[error(transparent)]
    Client(#[from] egress::SetupError),
    /// The exporter can't be created.
    #[error("`log.otlp_url` can't be used: {0}")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
}

/// An exporter of spans to a collector.
#[derive(Debug)]
pub struct Traces {
    provider: SdkTracerProvider,
}

impl Traces {
    /// Creates an exporter to the collector at `url`; must be called within a runtime.
    ///
    /// # Errors
    ///
    /// Fails if the HTTPS client or the exporter can't be created.
    pub fn to(url: &Url, proxy: Option<&Proxy>) -> Result<Self, OtlpError> {
        let collector = Collector {
            client: egress::client(proxy, TIMEOUT)?,
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
            .with_max_queue_size(MAX_QUEUE)
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

    /// Returns the layer that exports this service's spans, with log lines as their events.
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

    /// Sends the remaining spans, for a few seconds at most.
    pub async fn finish(self) {
        // Off the runtime's threads: the exporter's thread needs the runtime meanwhile.
        let shutdown =
            tokio::task::spawn_blocking(move || self.provider.shutdown_with_timeout(FLUSH_TIMEOUT));
        if !matches!(shutdown.await, Ok(Ok(()))) {
            warn!("failed to send the last traces to `log.otlp_url`");
        }
    }
}

/// Excludes other crates' spans and log lines, which may contain anything.
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

/// The collector, reached through the same HTTP client as every other host.
#[derive(Debug)]
struct Collector {
    client: reqwest::Client,
    /// The exporter runs on a thread without a runtime.
    runtime: Handle,
    /// True after a failure, so that only the first of several is logged.
    failing: AtomicBool,
}

impl Collector {
    fn log(&self, error: Option<&str>) {
        let failed_before = self.failing.swap(error.is_some(), Ordering::Relaxed);
        match error {
            Some(error) if !failed_before => {
                warn!("failed to send traces to `log.otlp_url`; they are dropped: {error}");
            }
            None if failed_before => info!("sending traces to `log.otlp_url` again"),
            _ => {}
        }
    }
}

async fn send(
    client: reqwest::Client,
    request: reqwest::Request,
) -> Result<Response<Bytes>, String> {
    let response = client.execute(request).await.map_err(egress::describe)?;
    let status = response.status();
    let body = egress::read_body(response, MAX_BODY_BYTES)
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
        let response = sending.await?;
        match &response {
            Ok(response) if response.status().is_success() => self.log(None),
            Ok(response) => self.log(Some(&format!("it answered {}", response.status().as_u16()))),
            Err(error) => self.log(Some(error)),
        }
        Ok(response?)
    }
}
