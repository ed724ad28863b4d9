//! Measures the verification of one message: `cargo bench --bench verify`.
//!
//! `SNSBENCH_SKETCH` may name the ceiling of this machine (`support/ceiling.rs`): what it takes to parse and
//! verify a message is the difference between its processor time with and without.
//! `IVESK_WEBHOOK_BENCH_JSON` may name a file for the comparison; criterion writes its own results.

#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a benchmark prints its results"
)]

use std::hint::black_box;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use async_trait::async_trait;
use bytes::Bytes;
use clap::Parser as _;
use criterion::{Criterion, Throughput, criterion_group};
use ivesk_emulator::signer::{SNS_NAME, Signer, Unsigned};
use serde_json::json;
use sns_messages::canonical::{CanonicalText, SignedFields};
use sns_messages::time::{Clock, Timestamp};
use sns_messages::{
    CertificateStore, Envelope, MessageType, Settings, SnsHeaders, TopicRule, Verifier,
};

use support::ceiling::{self, Ceiling, Mode};
use support::load::{Mix, Sns, count, requests, send};
use support::{own_processor_time, write_json};

mod support;

const NOW: &str = "2026-11-23T08:00:00.000Z";

/// Returns a notification of an ordinary size.
fn message() -> Unsigned {
    let attributes = serde_json::json!({
        "account" : {"Type" : "String", "Value" : "1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed"}
    });
    Unsigned {
        message_type: MessageType::Notification,
        message_id: "165545c9-2a5c-472c-8df2-7ff2be2b3b1b".to_owned(),
        topic_arn: "arn:aws:sns:eu-west-1:123456789012:orders_shipped".to_owned(),
        subject: None,
        message: "{\"companyCode\":\"302320404\"}".to_owned(),
        timestamp: NOW.to_owned(),
        token: None,
        subscribe_url: None,
        unsubscribe_url: Some(
            "https://sns.eu-west-1.amazonaws.com/?Action=Unsubscribe&SubscriptionArn=arn:aws:sns:\
             eu-west-1:123456789012:orders_shipped:c9135db0-26c4-47ec-8998-413945fb5a96"
                .to_owned(),
        ),
        attributes: attributes.as_object().cloned().unwrap_or_default(),
    }
}

fn now() -> Timestamp {
    Timestamp::parse(NOW).expect("it is a date")
}

fn signer() -> Signer {
    let year = std::time::Duration::from_secs(365 * 24 * 3600);
    Signer::generate(SNS_NAME, now().before(year), now().after(year)).expect("a key can be made")
}

/// Holds the signer's certificate, so that nothing is fetched.
struct OneCertificate(String, Vec<u8>);

#[async_trait]
impl CertificateStore for OneCertificate {
    async fn load(&self) -> Vec<(String, Vec<u8>)> {
        vec![(self.0.clone(), self.1.clone())]
    }
    async fn save(&self, _: &str, _: &[u8]) {}
}

fn parse(criterion: &mut Criterion) {
    let signer = signer();
    let url = format!(
        "https://sns.eu-west-1.amazonaws.com{}",
        signer.certificate_path()
    );
    let headers = SnsHeaders::default();
    let mut group = criterion.benchmark_group("parse and canonical text");
    let large = Unsigned {
        message: "{\"companyCode\":\"302320404\",\"name\":\"Sąskaita\"}".repeat(2000),
        ..message()
    };
    for (name, message) in [("notification", message()), ("94 kB message", large)] {
        let body = Bytes::from(signer.sign(&message, 1, &url));
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| Envelope::parse(black_box(body.clone()), &headers));
        });
    }
    group.finish();
}

fn canonical(criterion: &mut Criterion) {
    let message = message();
    let fields = SignedFields {
        message_type: message.message_type,
        message: &message.message,
        message_id: &message.message_id,
        subject: None,
        subscribe_url: None,
        timestamp: &message.timestamp,
        token: None,
        topic_arn: &message.topic_arn,
    };
    criterion.bench_function("canonical text alone", |bencher| {
        bencher.iter(|| CanonicalText::new(black_box(&fields)));
    });
}

/// All that one delivery costs before the store: parse, policy, certificate, signature.
fn whole(criterion: &mut Criterion) {
    let signer = signer();
    let url = format!(
        "https://sns.eu-west-1.amazonaws.com{}",
        signer.certificate_path()
    );
    let certificates = OneCertificate(url.clone(), signer.certificate_pem().into());
    let settings = Settings {
        topics: vec![TopicRule {
            account: "123456789012".to_owned(),
            region: "eu-west-1".to_owned(),
            name_prefix: "orders_".to_owned(),
        }],
        ..Settings::default()
    };
    let verifier = Verifier::new(&settings, Arc::new(certificates), Clock::manual(now()))
        .expect("the CA certificates are there");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime can be made");
    let headers = SnsHeaders::default();
    let mut group = criterion.benchmark_group("parse and Verifier::verify");
    group.throughput(Throughput::Elements(1));
    for version in [1, 2] {
        let body = Bytes::from(signer.sign(&message(), version, &url));
        group.bench_function(format!("version {version}"), |bencher| {
            bencher.iter(|| {
                let envelope = Envelope::parse(body.clone(), &headers).expect("it is well-formed");
                runtime
                    .block_on(verifier.verify(envelope))
                    .expect("it is genuine")
            });
        });
    }
    group.finish();
}

/// What the comparison needs, from the environment alone.
#[derive(Debug, clap::Parser)]
struct Comparison {
    #[command(flatten)]
    ceiling: Ceiling,
    /// Write the results to this file as JSON
    #[arg(long, env = "IVESK_WEBHOOK_BENCH_JSON")]
    json: Option<PathBuf>,
}

/// The number of distinct messages, and how often each is verified.
const COMPARED: (usize, usize) = (1_000, 20);

/// Compares what it takes to parse and verify a message with the ceiling, if one is named.
async fn compare(comparison: &Comparison) -> anyhow::Result<()> {
    if !comparison.ceiling.is_named() {
        return Ok(());
    }
    let sns = Sns::start().await?;
    let mut rows = Vec::new();
    for version in [1, 2] {
        let bodies = sns.sign(&Mix::genuine_only(COMPARED.0), version)?;
        let (Some(answer), Some(verify)) = (
            receiver_micros(comparison, Mode::Answer, &bodies).await?,
            receiver_micros(comparison, Mode::Verify, &bodies).await?,
        ) else {
            return Ok(());
        };
        let (ours, ceiling) = (own_micros(&sns, bodies).await?, verify - answer);
        let ratio = ours / ceiling;
        println!(
            "parse and verify, version {version}: {ours:.1} µs, ceiling {ceiling:.1} µs, ratio {ratio:.2}"
        );
        rows.push(json!({ "version": version, "ours_micros": ours, "ceiling_micros": ceiling, "ratio": ratio }));
    }
    write_json(comparison.json.as_deref(), &json!({ "rows": rows }))
}

/// Returns the ceiling's processor time for each message in microseconds; `None` if none is named.
async fn receiver_micros(
    comparison: &Comparison,
    mode: Mode,
    bodies: &[String],
) -> anyhow::Result<Option<f64>> {
    let folder = tempfile::tempdir()?;
    let Some((process, address)) = comparison.ceiling.start(mode, folder.path())? else {
        return Ok(None);
    };
    ceiling::wait_for(address).await?;
    let requests = requests(&Mix::genuine_only(bodies.len()), bodies, ceiling::PATH);
    // The first time it fetches the certificate.
    send(&[address], 1, Arc::new(requests.clone())).await?;
    let all: Vec<_> = std::iter::repeat_n(requests, COMPARED.1)
        .flatten()
        .collect();
    let all = Arc::new(all);
    let before = process.processor_time()?;
    let answers = send(&[address], 8, Arc::clone(&all)).await?;
    let used = process.processor_time()?.saturating_sub(before);
    ensure!(answers.accepted == all.len(), "messages were refused");
    Ok(Some(used.as_secs_f64() * 1e6 / count(all.len())))
}

/// Returns the processor time that the service takes to parse and verify a message, in microseconds.
async fn own_micros(sns: &Sns, bodies: Vec<String>) -> anyhow::Result<f64> {
    let settings = Settings {
        topics: vec![TopicRule {
            account: "007272210889".to_owned(),
            region: "eu-west-1".to_owned(),
            name_prefix: "DPWebHook_".to_owned(),
        }],
        local_origins: vec![sns.origin.clone()],
        ..Settings::default()
    };
    let none = OneCertificate(String::new(), Vec::new());
    let verifier = Verifier::new(&settings, Arc::new(none), Clock::system())?;
    let bodies: Vec<Bytes> = bodies.into_iter().map(Bytes::from).collect();
    let headers = SnsHeaders::default();
    let mut before = Duration::ZERO;
    // The first time it fetches the certificate.
    for round in 0..=COMPARED.1 {
        for body in &bodies {
            let envelope = Envelope::parse(body.clone(), &headers)?;
            verifier.verify(envelope).await?;
        }
        if round == 0 {
            before = own_processor_time()?;
        }
    }
    let used = own_processor_time()?.saturating_sub(before);
    Ok(used.as_secs_f64() * 1e6 / count(bodies.len() * COMPARED.1))
}

criterion_group!(benches, parse, canonical, whole);

fn main() -> anyhow::Result<()> {
    benches();
    Criterion::default().configure_from_args().final_summary();
    // The arguments are criterion's.
    let comparison = Comparison::parse_from(["verify"]);
    tokio::runtime::Runtime::new()?.block_on(compare(&comparison))
}
