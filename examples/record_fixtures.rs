//! Records `fixtures/` again: `cargo run --example record_fixtures [FOLDER]`.
//!
//! Signs with a new key that is not stored: the certificate is, so the messages can always
//! be verified, and nobody can sign more. The pages are answers of the emulator.
//! `fixtures/README.md` describes each file.

#![expect(
    clippy::disallowed_methods,
    reason = "it connects only to the emulator in this process"
)]

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use ivesk_webhook::domain::{Clock, Event, Timestamp};
use ivesk_webhook::emulator::signer::{SNS_NAME, Signer, Unsigned};
use ivesk_webhook::emulator::{DEFAULT_KEY, Emulator, EmulatorSettings, Switches};
use ivesk_webhook::sns::MessageType;
use serde_json::{Map, Value, json};

/// Time of publication of every message.
const PUBLISHED: &str = "2026-01-15T08:00:00.000Z";
/// Validity of the certificate, which includes [`PUBLISHED`].
const NOT_BEFORE: &str = "2026-01-01T00:00:00Z";
const NOT_AFTER: &str = "2026-12-31T23:59:59Z";
/// The company in the vendor's documentation.
const COMPANY: &str = "302320404";
/// Origin of the links to files in the vendor's documents.
const VENDOR: &str = "https://app.ivesk.lt";
const SNS: &str = "https://sns.eu-west-1.amazonaws.com";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let folder = std::env::args_os().nth(1).map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures"),
        PathBuf::from,
    );
    for part in ["certs", "notifications", "pages"] {
        let part = folder.join(part);
        if part.exists() {
            std::fs::remove_dir_all(&part)
                .with_context(|| format!("failed to empty {}", part.display()))?;
        }
        std::fs::create_dir_all(&part)?;
    }
    let document = record_pages(&folder.join("pages")).await?;
    record_messages(&folder, &document)
}

fn moment(text: &str) -> anyhow::Result<Timestamp> {
    Timestamp::parse(text).with_context(|| format!("`{text}` is not a timestamp"))
}

/// Signs one message of each event, type and signature version, and the vendor's sample.
fn record_messages(folder: &Path, document: &str) -> anyhow::Result<()> {
    let signer = Signer::generate(SNS_NAME, moment(NOT_BEFORE)?, moment(NOT_AFTER)?)?;
    let certificate = signer.certificate_path();
    let file = certificate.trim_start_matches('/');
    std::fs::write(folder.join("certs").join(file), signer.certificate_pem())?;
    let url = format!("{SNS}{certificate}");
    let messages = folder.join("notifications");
    for event in Event::ALL {
        for (message_type, word) in [
            (MessageType::Notification, "notification"),
            (MessageType::SubscriptionConfirmation, "subscription"),
            (MessageType::UnsubscribeConfirmation, "unsubscribe"),
        ] {
            for version in [1, 2] {
                let unsigned = message(event, message_type, document)?;
                let body = signer.sign(&unsigned, version, &url);
                let name = format!("{event}-{word}-v{version}.json");
                std::fs::write(messages.join(name), body)?;
            }
        }
    }
    let sample = message(Event::OnExported, MessageType::Notification, document)?;
    let body = signer.sign(&sample, 1, &url);
    std::fs::write(messages.join("vendor-sample.json"), body)?;
    Ok(())
}

fn message(event: Event, message_type: MessageType, document: &str) -> anyhow::Result<Unsigned> {
    let topic_arn = match event {
        Event::OnExported => "arn:aws:sns:eu-west-1:007272210889:DPWebHook_onexport",
        Event::OnDigitized => "arn:aws:sns:eu-west-1:007272210889:DPWebHook_ondigitize",
    };
    let subscription = format!("{topic_arn}:{}", uuid()?);
    let token = message_type != MessageType::Notification;
    let token = token.then(token_text).transpose()?;
    let message = match (message_type, event) {
        (MessageType::Notification, Event::OnExported) => {
            json!({ "companyCode": COMPANY }).to_string()
        }
        (MessageType::Notification, Event::OnDigitized) => document.to_owned(),
        (MessageType::SubscriptionConfirmation, _) => format!(
            "You have chosen to subscribe to the topic {topic_arn}.\nTo confirm the subscription, visit the SubscribeURL included in this message."
        ),
        (MessageType::UnsubscribeConfirmation, _) => format!(
            "You have chosen to deactivate subscription {subscription}.\nTo cancel this operation and restore the subscription, visit the SubscribeURL included in this message."
        ),
    };
    let notification = token.is_none();
    Ok(Unsigned {
        message_type,
        message_id: uuid()?,
        topic_arn: topic_arn.to_owned(),
        subject: None,
        message,
        timestamp: PUBLISHED.to_owned(),
        subscribe_url: token.as_ref().map(|token| {
            format!("{SNS}/?Action=ConfirmSubscription&TopicArn={topic_arn}&Token={token}")
        }),
        token,
        unsubscribe_url: notification
            .then(|| format!("{SNS}/?Action=Unsubscribe&SubscriptionArn={subscription}")),
        attributes: if notification {
            attributes()?
        } else {
            Map::new()
        },
    })
}

fn attributes() -> anyhow::Result<Map<String, Value>> {
    let mut attributes = Map::new();
    attributes.insert(
        "account".to_owned(),
        json!({ "Type": "String", "Value": uuid()? }),
    );
    Ok(attributes)
}

fn random<const LENGTH: usize>() -> anyhow::Result<[u8; LENGTH]> {
    let mut bytes = [0; LENGTH];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("no random bytes: {error}"))?;
    Ok(bytes)
}

fn uuid() -> anyhow::Result<String> {
    let id = uuid::Builder::from_random_bytes(random()?).into_uuid();
    Ok(id.to_string())
}

/// Returns a token as long as those of SNS.
fn token_text() -> anyhow::Result<String> {
    Ok(random::<96>()?
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

/// Records pages of both queues from an emulator; returns a digitized document.
async fn record_pages(folder: &Path) -> anyhow::Result<String> {
    let listen: SocketAddr = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?;
    let settings = EmulatorSettings {
        switches: Switches::parse("page_size=3")?,
        clock: Clock::manual(moment(PUBLISHED)?),
        origin: Some(VENDOR.to_owned()),
        ..EmulatorSettings::default()
    };
    let emulator = Emulator::start(settings, listen).await?;
    let control = emulator.control();
    control.load(DEFAULT_KEY, COMPANY, 5)?;
    let client = reqwest::Client::builder().no_proxy().build()?;
    let mut document = None;
    for (queue, path) in [
        ("exported", format!("exported/{COMPANY}")),
        ("digitized", "digitized".to_owned()),
    ] {
        let url = format!("http://{listen}/api/pub/{path}");
        control.set_switches("last_page_next=present")?;
        let first = fetch(&client, &url, None).await?;
        let last = fetch(&client, &url, next(&first)?.as_deref()).await?;
        let empty = fetch(&client, &url, next(&last)?.as_deref()).await?;
        control.set_switches("last_page_next=absent")?;
        let without_next = fetch(&client, &url, next(&first)?.as_deref()).await?;
        ensure!(
            next(&without_next)?.is_none(),
            "the last page should have no `next`"
        );
        for (name, page) in [
            ("first", &first),
            ("last", &last),
            ("last-without-next", &without_next),
            ("after-last", &empty),
        ] {
            std::fs::write(folder.join(format!("{queue}-{name}.json")), page)?;
        }
        let page: Value = serde_json::from_str(&first)?;
        document = Some(page["documents"][0].to_string());
    }
    emulator.stop().await;
    document.context("there is no digitized document")
}

fn next(page: &str) -> anyhow::Result<Option<String>> {
    let page: Value = serde_json::from_str(page)?;
    Ok(page["next"].as_str().map(str::to_owned))
}

async fn fetch(client: &reqwest::Client, url: &str, from: Option<&str>) -> anyhow::Result<String> {
    let mut url = url::Url::parse(url)?;
    if let Some(from) = from {
        url.query_pairs_mut().append_pair("from", from);
    }
    let answer = client
        .get(url)
        .header("x-api-key", DEFAULT_KEY)
        .send()
        .await?;
    Ok(answer.error_for_status()?.text().await?)
}
