//! Signed notifications, the certificate that they name, and the connections that send them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use axum::routing::get;
use ivesk_webhook::domain::Clock;
use ivesk_webhook::emulator::signer::{SNS_NAME, Signer, Unsigned};
use ivesk_webhook::sns::MessageType;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const TOPIC: &str = "arn:aws:sns:eu-west-1:007272210889:DPWebHook_onexport";

/// What is sent.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Mix {
    /// Distinct notifications of each run
    #[arg(long, default_value_t = 30_000)]
    pub(crate) messages: usize,
    /// Send one of this many messages twice
    #[arg(long, default_value_t = 20)]
    duplicate_every: usize,
    /// Tamper with one of this many messages
    #[arg(long, default_value_t = 50)]
    tampered_every: usize,
    /// Number of companies in the notifications
    #[arg(long, default_value_t = 100)]
    companies: usize,
}

impl Mix {
    /// Returns one without duplicates and tampered messages.
    pub(crate) fn genuine_only(messages: usize) -> Self {
        Self {
            messages,
            duplicate_every: usize::MAX,
            tampered_every: usize::MAX,
            companies: 100,
        }
    }

    /// Returns the number of notifications that are genuine.
    pub(crate) fn genuine(&self) -> usize {
        (0..self.messages).filter(|n| !self.is_tampered(*n)).count()
    }

    fn is_tampered(&self, n: usize) -> bool {
        (n + 1).is_multiple_of(self.tampered_every)
    }
}

/// An emulated SNS: a key, and a server of its certificate.
pub(crate) struct Sns {
    signer: Arc<Signer>,
    /// The origin of the certificate's URL.
    pub(crate) origin: String,
}

impl Sns {
    /// Makes a key, and serves its certificate for as long as the runtime lives.
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let now = Clock::system().now();
        let day = Duration::from_secs(86_400);
        let signer = Arc::new(Signer::generate(SNS_NAME, now.before(day), now.after(day))?);
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let origin = format!("http://{}", listener.local_addr()?);
        let pem = signer.certificate_pem().to_owned();
        let certificate = get(move || async move { pem });
        let routes = axum::Router::new().route(&signer.certificate_path(), certificate);
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Ok(Self { signer, origin })
    }

    /// Signs the notifications of `mix`, on two threads. Version 1 takes a second for a thousand.
    pub(crate) fn sign(&self, mix: &Mix, version: u8) -> anyhow::Result<Vec<String>> {
        let url = format!("{}{}", self.origin, self.signer.certificate_path());
        let now = Clock::system().now();
        let sign = |n: usize| {
            let message_id = format!("{:08x}-0000-4000-8000-{n:012x}", scattered(n));
            let unsigned = Unsigned {
                message_type: MessageType::Notification,
                message_id,
                topic_arn: TOPIC.to_owned(),
                subject: None,
                message: format!(r#"{{"companyCode":"{}"}}"#, 300_000_000 + n % mix.companies),
                // As if published at about the rate at which they arrive.
                timestamp: now
                    .after(Duration::from_millis((n / 20) as u64))
                    .to_string(),
                token: None,
                subscribe_url: None,
                unsubscribe_url: Some(format!(
                    "{}/?Action=Unsubscribe&SubscriptionArn={TOPIC}:{n}",
                    self.origin
                )),
                attributes: serde_json::Map::new(),
            };
            let body = self.signer.sign(&unsigned, version, &url);
            match mix.is_tampered(n) {
                true => body.replacen("companyCode", "companyCodf", 1),
                false => body,
            }
        };
        let half = mix.messages / 2;
        let halves = std::thread::scope(|scope| {
            let first = scope.spawn(|| (0..half).map(sign).collect::<Vec<_>>());
            let second = (half..mix.messages).map(sign).collect::<Vec<_>>();
            first.join().map(|first| [first, second].concat())
        });
        halves.map_err(|_| anyhow::anyhow!("signing failed"))
    }
}

/// Returns a number that has no order, as the ids of SNS.
fn scattered(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(0).wrapping_mul(0x9E37_79B9)
}

/// Returns whole HTTP requests with these bodies to `path`, in the order in which they are sent.
pub(crate) fn requests(mix: &Mix, bodies: &[String], path: &str) -> Vec<Vec<u8>> {
    let mut requests = Vec::with_capacity(bodies.len());
    for (n, body) in bodies.iter().enumerate() {
        let copies = if (n + 1).is_multiple_of(mix.duplicate_every) {
            2
        } else {
            1
        };
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain; charset=UTF-8\r\n\
             x-amz-sns-message-type: Notification\r\nx-amz-sns-topic-arn: {TOPIC}\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        requests.extend(std::iter::repeat_n(request.into_bytes(), copies));
    }
    requests
}

/// The answers to a number of requests.
#[derive(Default)]
pub(crate) struct Answers {
    /// Time from the first request to the last answer.
    pub(crate) elapsed: Duration,
    /// Latencies in milliseconds, ascending.
    pub(crate) latencies: Vec<f64>,
    /// Answers of 200.
    pub(crate) accepted: usize,
    /// Answers of 403.
    pub(crate) refused: usize,
    /// All other answers.
    pub(crate) other: usize,
}

impl Answers {
    /// Returns the number of answers in a second.
    pub(crate) fn rate(&self) -> f64 {
        count(self.latencies.len()) / self.elapsed.as_secs_f64()
    }

    /// Returns the latency in milliseconds that `share` of the requests do not exceed.
    pub(crate) fn at(&self, share: f64) -> f64 {
        percentile(&self.latencies, share)
    }
}

/// Returns the value that `share` of `sorted` do not exceed; 0 if there are none.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a place in a list"
)]
pub(crate) fn percentile(sorted: &[f64], share: f64) -> f64 {
    let place = (count(sorted.len()) * share) as usize;
    let place = place.min(sorted.len().saturating_sub(1));
    sorted.get(place).copied().unwrap_or(0.0)
}

/// Returns the median; 0 if there are none.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    percentile(&values, 0.5)
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
pub(crate) fn count(number: usize) -> f64 {
    number as f64
}

/// Sends `requests` over `connections` that are spread over `targets` and kept alive.
///
/// # Errors
///
/// If a connection ends.
pub(crate) async fn send(
    targets: &[SocketAddr],
    connections: usize,
    requests: Arc<Vec<Vec<u8>>>,
) -> anyhow::Result<Answers> {
    let next = Arc::new(AtomicUsize::new(0));
    let mut streams = Vec::new();
    for target in targets.iter().cycle().take(connections) {
        let stream = TcpStream::connect(target).await?;
        stream.set_nodelay(true)?;
        streams.push(stream);
    }
    let started = Instant::now();
    let mut sending = tokio::task::JoinSet::new();
    for stream in streams {
        sending.spawn(one_connection(
            stream,
            Arc::clone(&requests),
            Arc::clone(&next),
        ));
    }
    let mut answers = Answers::default();
    while let Some(part) = sending.join_next().await {
        for (latency, status) in part?? {
            answers.latencies.push(latency.as_secs_f64() * 1e3);
            match status {
                200 => answers.accepted += 1,
                403 => answers.refused += 1,
                _ => answers.other += 1,
            }
        }
    }
    answers.elapsed = started.elapsed();
    answers.latencies.sort_by(f64::total_cmp);
    Ok(answers)
}

async fn one_connection(
    mut stream: TcpStream,
    requests: Arc<Vec<Vec<u8>>>,
    next: Arc<AtomicUsize>,
) -> anyhow::Result<Vec<(Duration, u16)>> {
    let mut answers = Vec::new();
    let mut buffer = Vec::with_capacity(4096);
    while let Some(request) = requests.get(next.fetch_add(1, Ordering::Relaxed)) {
        let sent = Instant::now();
        stream.write_all(request).await?;
        let status = read_answer(&mut stream, &mut buffer).await?;
        answers.push((sent.elapsed(), status));
    }
    Ok(answers)
}

/// Reads one answer with its body; returns its status.
async fn read_answer(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> anyhow::Result<u16> {
    buffer.clear();
    loop {
        ensure!(
            stream.read_buf(buffer).await? > 0,
            "the receiver closed the connection"
        );
        let Some(head) = buffer.windows(4).position(|window| window == b"\r\n\r\n") else {
            continue;
        };
        let text = std::str::from_utf8(&buffer[..head])?.to_ascii_lowercase();
        let length: usize = text
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(Ok(0), str::parse)?;
        if buffer.len() >= head + 4 + length {
            return text
                .get(9..12)
                .context("a status line")?
                .parse()
                .context("a status");
        }
    }
}
