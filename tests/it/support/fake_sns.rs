//! A fake SNS on loopback: serves a signing certificate and confirms subscriptions.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::routing::get;
use ivesk_webhook::domain::Timestamp;
use ivesk_webhook::emulator::signer::{Signer, Unsigned};
use ivesk_webhook::sns::MessageType;

pub(crate) const TOPIC: &str = "arn:aws:sns:eu-west-1:007272210889:DPWebHook_onexport";
pub(crate) const FOREIGN_TOPIC: &str = "arn:aws:sns:eu-west-1:123456789012:DPWebHook_onexport";

/// Start of the tokens of confirmations, which no log may show.
pub(crate) const PLANTED_TOKEN: &str = "planted5e7c0nf1rmat10nt0ken";

/// Returns the moment at which the tests' clocks start.
pub(crate) fn start_time() -> Timestamp {
    Timestamp::parse("2026-11-23T08:00:00Z").unwrap()
}

fn signer(name: &str) -> Signer {
    let day = Duration::from_secs(86_400);
    Signer::generate(
        name,
        start_time().before(day * 30),
        start_time().after(day * 30),
    )
    .unwrap()
}

/// Signs as SNS does. Keys are slow to generate, so all tests share these.
pub(crate) static SIGNER: LazyLock<Signer> = LazyLock::new(|| signer("sns.amazonaws.com"));
pub(crate) static STRANGER: LazyLock<Signer> = LazyLock::new(|| signer("sns.amazonaws.com"));
pub(crate) static MISNAMED: LazyLock<Signer> = LazyLock::new(|| signer("sns.example.com"));

/// Answer to requests of SubscribeURL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Confirming {
    Succeeds,
    Fails,
    IsRefused,
    /// A web filter answers in place of SNS.
    IsFiltered,
}

struct Behavior {
    confirming: Mutex<Confirming>,
    visits: AtomicUsize,
    certificate_down: Mutex<bool>,
}

/// The fake SNS, which ends with the test's runtime.
pub(crate) struct FakeSns {
    address: SocketAddr,
    behavior: Arc<Behavior>,
}

impl FakeSns {
    pub(crate) async fn start() -> Self {
        let behavior = Arc::new(Behavior {
            confirming: Mutex::new(Confirming::Succeeds),
            visits: AtomicUsize::new(0),
            certificate_down: Mutex::new(false),
        });
        let routes = Router::new()
            .route(&SIGNER.certificate_path(), get(certificate))
            .route("/", get(confirm))
            .with_state(Arc::clone(&behavior));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Self { address, behavior }
    }

    pub(crate) fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn certificate_url(&self) -> String {
        format!("{}{}", self.origin(), SIGNER.certificate_path())
    }

    pub(crate) fn set_confirming(&self, confirming: Confirming) {
        *self.behavior.confirming.lock().unwrap() = confirming;
    }

    pub(crate) fn set_certificate_down(&self, down: bool) {
        *self.behavior.certificate_down.lock().unwrap() = down;
    }

    pub(crate) fn visits(&self) -> usize {
        self.behavior.visits.load(Ordering::SeqCst)
    }
}

async fn certificate(State(behavior): State<Arc<Behavior>>) -> (StatusCode, String) {
    if *behavior.certificate_down.lock().unwrap() {
        return (StatusCode::SERVICE_UNAVAILABLE, String::new());
    }
    (StatusCode::OK, SIGNER.certificate_pem().to_owned())
}

async fn confirm(
    State(behavior): State<Arc<Behavior>>,
    Query(query): Query<HashMap<String, String>>,
) -> (StatusCode, String) {
    behavior.visits.fetch_add(1, Ordering::SeqCst);
    let confirming = *behavior.confirming.lock().unwrap();
    match confirming {
        Confirming::Succeeds => (
            StatusCode::OK,
            format!(
                "<ConfirmSubscriptionResponse><ConfirmSubscriptionResult><SubscriptionArn>{}:0f0e\
                 </SubscriptionArn></ConfirmSubscriptionResult></ConfirmSubscriptionResponse>",
                query["TopicArn"]
            ),
        ),
        Confirming::Fails => (StatusCode::INTERNAL_SERVER_ERROR, String::new()),
        Confirming::IsFiltered => (
            StatusCode::FORBIDDEN,
            "<html><head><title>Access denied</title></head><body>web filter</body></html>\n"
                .to_owned(),
        ),
        Confirming::IsRefused => (
            StatusCode::BAD_REQUEST,
            "<ErrorResponse><Error><Code>InvalidParameter</Code></Error></ErrorResponse>"
                .to_owned(),
        ),
    }
}

/// A message, signed when [`Message::body`] is called.
pub(crate) struct Message {
    unsigned: Unsigned,
    signer: &'static Signer,
    certificate_url: String,
    version: u8,
}

static NEXT_ID: AtomicUsize = AtomicUsize::new(1);

impl Message {
    fn new(sns: &FakeSns, message_type: MessageType, message: &str) -> Self {
        let number = NEXT_ID.fetch_add(1, Ordering::SeqCst);
        Self {
            unsigned: Unsigned {
                message_type,
                message_id: format!("00000000-0000-4000-8000-{number:012x}"),
                topic_arn: TOPIC.to_owned(),
                subject: None,
                message: message.to_owned(),
                timestamp: start_time().to_string(),
                token: None,
                subscribe_url: None,
                unsubscribe_url: None,
                attributes: serde_json::Map::new(),
            },
            signer: &SIGNER,
            certificate_url: sns.certificate_url(),
            version: 1,
        }
    }

    pub(crate) fn notification(sns: &FakeSns) -> Self {
        let message = r#"{"companyCode":"302320404"}"#;
        Self::new(sns, MessageType::Notification, message)
    }

    pub(crate) fn confirmation(sns: &FakeSns) -> Self {
        Self::with_token(sns, MessageType::SubscriptionConfirmation)
    }

    pub(crate) fn ended(sns: &FakeSns) -> Self {
        Self::with_token(sns, MessageType::UnsubscribeConfirmation)
    }

    fn with_token(sns: &FakeSns, message_type: MessageType) -> Self {
        let mut message = Self::new(sns, message_type, "You have chosen to …");
        let number = NEXT_ID.load(Ordering::SeqCst);
        let token = format!("{PLANTED_TOKEN}{number}");
        message.unsigned.subscribe_url = Some(format!(
            "{}/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token={token}",
            sns.origin()
        ));
        message.unsigned.token = Some(token);
        message
    }

    pub(crate) fn saying(mut self, message: &str) -> Self {
        self.unsigned.message = message.to_owned();
        self
    }

    pub(crate) fn of_topic(mut self, topic_arn: &str) -> Self {
        let url = self.unsigned.subscribe_url.as_mut();
        if let Some(url) = url {
            *url = url.replace(&self.unsigned.topic_arn, topic_arn);
        }
        self.unsigned.topic_arn = topic_arn.to_owned();
        self
    }

    /// Says which subscription has ended, in SNS's own words.
    pub(crate) fn of_subscription(self, subscription_arn: &str) -> Self {
        self.saying(&format!(
            "You have chosen to deactivate subscription {subscription_arn}.\nTo cancel this \
             operation and restore the subscription, visit the SubscribeURL included in this message."
        ))
    }

    pub(crate) fn published_at(mut self, moment: Timestamp) -> Self {
        self.unsigned.timestamp = moment.to_string();
        self
    }

    pub(crate) fn signed_by(mut self, signer: &'static Signer) -> Self {
        self.signer = signer;
        self
    }

    pub(crate) fn with_certificate_at(mut self, url: &str) -> Self {
        self.certificate_url = url.to_owned();
        self
    }

    pub(crate) fn with_subscribe_url(mut self, url: &str) -> Self {
        self.unsigned.subscribe_url = Some(url.to_owned());
        self
    }

    pub(crate) fn with_attribute(mut self, name: &str, value: &str) -> Self {
        let attribute = serde_json::json!({"Type": "String", "Value": value});
        self.unsigned.attributes.insert(name.to_owned(), attribute);
        self
    }

    pub(crate) fn id(&self) -> &str {
        &self.unsigned.message_id
    }

    pub(crate) fn body(&self) -> String {
        self.signer
            .sign(&self.unsigned, self.version, &self.certificate_url)
    }

    pub(crate) fn type_name(&self) -> &'static str {
        self.unsigned.message_type.as_str()
    }
}
