//! Receives messages in an axum handler, and confirms subscriptions.
//!
//! `cargo run -p sns-messages --example receive ACCOUNT REGION NAME_PREFIX` listens on
//! 127.0.0.1:3000 for messages of the topics that match.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "an example prints what it does"
)]

use std::sync::Arc;

use anyhow::Context as _;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use sns_messages::time::Clock;
use sns_messages::{
    ConfirmError, Confirmer, Envelope, MAX_BODY_BYTES, MessageType, NoCertificateStore, Settings,
    SnsHeaders, TopicRule, VerifiedMessage, Verifier, VerifyError,
};

struct App {
    verifier: Verifier,
    confirmer: Confirmer,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut next = |name: &str| arguments.next().with_context(|| format!("name the {name}"));
    let settings = Settings {
        topics: vec![TopicRule {
            account: next("topics' AWS account")?,
            region: next("topics' region")?,
            name_prefix: next("beginning of the topics' names")?,
        }],
        ..Settings::default()
    };
    let app = App {
        verifier: Verifier::new(&settings, Arc::new(NoCertificateStore), Clock::system())?,
        confirmer: Confirmer::new(&settings)?,
    };
    let routes = Router::new()
        .route("/", post(receive))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(Arc::new(app));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    axum::serve(listener, routes).await?;
    Ok(())
}

async fn receive(State(app): State<Arc<App>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let message = match verify(&app, &headers, body).await {
        Ok(message) => message,
        Err(error) => {
            eprintln!("refused a message ({}): {error}", error.code());
            // SNS retries what is answered with 500 and above, and nothing else.
            return if error.could_pass_later() {
                StatusCode::SERVICE_UNAVAILABLE
            } else {
                StatusCode::FORBIDDEN
            };
        }
    };
    match message.message_type() {
        // Here a real program stores the message before it answers.
        MessageType::Notification => println!("{}", message.message()),
        MessageType::SubscriptionConfirmation => match confirm(&app, &message).await {
            Ok(subscription) => println!("confirmed {subscription}"),
            Err(error @ ConfirmError::Unavailable(_)) => {
                eprintln!("{error}");
                return StatusCode::SERVICE_UNAVAILABLE;
            }
            Err(error) => eprintln!("{error}"),
        },
        MessageType::UnsubscribeConfirmation => println!("a subscription has ended"),
    }
    StatusCode::OK
}

async fn verify(
    app: &App,
    headers: &HeaderMap,
    body: Bytes,
) -> Result<VerifiedMessage, VerifyError> {
    let header = |name: &str| headers.get(name)?.to_str().ok().map(str::to_owned);
    let headers = SnsHeaders {
        message_type: header("x-amz-sns-message-type"),
        message_id: header("x-amz-sns-message-id"),
        topic_arn: header("x-amz-sns-topic-arn"),
        subscription_arn: header("x-amz-sns-subscription-arn"),
        raw_delivery: header("x-amz-sns-rawdelivery").is_some_and(|value| value == "true"),
    };
    app.verifier.verify(Envelope::parse(body, &headers)?).await
}

async fn confirm(app: &App, message: &VerifiedMessage) -> Result<String, ConfirmError> {
    // A verified confirmation always has both.
    let (Some(url), Some(token)) = (message.subscribe_url(), message.token()) else {
        return Err(ConfirmError::Untrusted);
    };
    app.confirmer.confirm(message.topic_arn(), url, token).await
}
