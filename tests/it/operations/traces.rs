//! Traces, as a collector receives them.

use std::collections::BTreeSet;

use ivesk_webhook::emulator::DEFAULT_KEY;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use tokio::net::TcpListener;

use crate::support::emulator::emulator;
use crate::support::load::one_of_each;
use crate::support::process::{Installation, Server, within};
use crate::support::stand_in::{Answer, StandIn};

/// Stops the server as a service manager does, asserts that it stopped cleanly, and returns
/// its log.
async fn stop(server: Server) -> String {
    server.terminate();
    let (status, log) = server.exited().await;
    assert!(status.success(), "{log}");
    log
}

/// Returns an attribute's text or number.
fn attribute(span: &Span, name: &str) -> Option<String> {
    let found = span.attributes.iter().find(|pair| pair.key == name)?;
    Some(match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        other => format!("{other:?}"),
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_receives_all_spans_without_secrets() {
    let collector = StandIn::start((0..100).map(|_| Answer::ok(""))).await;
    let emulator = emulator("page_size=7").await;
    let control = emulator.control();
    let sections = format!(
        "[log]\notlp_url = \"{}\"\n[destinations.files]\nkind = \"folder\"\npath = \"files\"\nfiles = false\nhistory = \"deliver\"\n",
        collector.url("")
    );
    let installation = Installation::beside(&emulator, "", &sections);
    let server = installation.start().await;
    one_of_each(&control, &installation).await;
    let filed = installation.folder().join("files/302320404");
    within("a document at the destination", async {
        while !filed.is_dir() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let log = stop(server).await;
    assert!(!log.contains("otlp_url"), "{log}");

    let requests = collector.requests();
    let mut spans: Vec<Span> = Vec::new();
    for request in &requests {
        assert_eq!(request.target, "/v1/traces");
        assert_eq!(
            request.header("content-type"),
            Some(&b"application/x-protobuf"[..])
        );
        let decoded = ExportTraceServiceRequest::decode(request.body.clone());
        for resource in decoded.expect("protobuf").resource_spans {
            let resource_attributes = resource.resource.expect("a resource");
            let name = resource_attributes
                .attributes
                .iter()
                .find(|pair| pair.key == "service.name");
            assert!(format!("{name:?}").contains("ivesk-webhook"), "{name:?}");
            spans.extend(
                resource
                    .scope_spans
                    .into_iter()
                    .flat_map(|scope| scope.spans),
            );
        }
    }
    let named = |name: &'static str| spans.iter().filter(move |span| span.name == name);
    let outcomes: BTreeSet<String> = named("message")
        .filter_map(|span| attribute(span, "outcome"))
        .collect();
    for outcome in ["new", "duplicate", "signature_mismatch"] {
        assert!(outcomes.contains(outcome), "{outcome}: {outcomes:?}");
    }
    let stored = installation.read_store().await;
    let rows = stored.notifications(0, 100).await.expect("readable");
    let ids: BTreeSet<String> = named("message")
        .filter_map(|span| attribute(span, "sns.message_id"))
        .collect();
    assert!(
        rows.iter().all(|row| ids.contains(&row.message_id)),
        "{ids:?}"
    );
    let exported = "default/exported/302320404";
    for name in ["message", "page", "delivery"] {
        let of_feed = named(name).any(|span| attribute(span, "feed").as_deref() == Some(exported));
        assert!(of_feed, "{name}");
    }
    assert!(named("delivery").all(|span| attribute(span, "document.id").is_some()));
    let ours = ["message", "page", "delivery"];
    assert!(spans.iter().all(|span| ours.contains(&span.name.as_str())));
    for request in &requests {
        let text = String::from_utf8_lossy(&request.body);
        for secret in [DEFAULT_KEY, "X-Amz-", "Token=", "http"] {
            assert!(!text.contains(secret), "{secret}: {text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hanging_collector_delays_neither_messages_nor_shutdown() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let emulator = emulator("page_size=7").await;
    let control = emulator.control();
    let sections = format!("[log]\notlp_url = \"http://{address}\"\n");
    let installation = Installation::beside(&emulator, "", &sections);
    let server = installation.start().await;
    one_of_each(&control, &installation).await;

    let started = std::time::Instant::now();
    let log = stop(server).await;

    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
    assert!(log.contains("failed to send the last traces"), "{log}");
    drop(listener);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_refuses_is_logged_once() {
    let collector = StandIn::start((0..100).map(|_| Answer::status(401, ""))).await;
    let emulator = emulator("page_size=7").await;
    let sections = format!("[log]\notlp_url = \"{}\"\n", collector.url("/own/path"));
    let installation = Installation::beside(&emulator, "", &sections);
    let server = installation.start().await;
    one_of_each(&emulator.control(), &installation).await;

    let log = stop(server).await;

    let lines = log
        .matches("failed to send traces to `log.otlp_url`")
        .count();
    assert_eq!(lines, 1, "{log}");
    assert!(log.contains("it answered 401"), "{log}");
    let requests = collector.requests();
    assert!(requests.iter().all(|request| request.target == "/own/path"));
}
