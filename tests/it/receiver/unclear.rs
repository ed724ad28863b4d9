//! Notifications whose shape is not understood.

use ivesk_webhook::domain::{Account, Company, Event, Feed};
use ivesk_webhook::emulator::Publication;
use ivesk_webhook::store::TriggerKind;

use crate::support::app::TestApp;
use crate::support::doctor::Report;
use crate::support::emulator::emulator;
use crate::support::fake_sns::Message;
use crate::support::process::{Installation, within};

const UNCLEAR: [&str; 6] = [
    r#"{"company_code":"302320404"}"#,
    r#"{"companyCode":["302320404","110053842"]}"#,
    r#"[{"companyCode":"302320404"}]"#,
    r#"{"detail":{"companyCode":"302320404"}}"#,
    r#""{\"companyCode\":\"302320404\"}""#,
    "{}",
];

fn exported(account: &str, company: &str) -> Feed {
    Feed::exported(
        Account::parse(account).expect("a name"),
        Company::parse(company).expect("a code"),
    )
}

/// Returns the feeds that a notification has triggered.
async fn triggered(app: &TestApp) -> Vec<String> {
    let rows = app.store.feeds().await.expect("readable");
    rows.into_iter()
        .filter(|row| row.triggers.contains(&TriggerKind::Notification))
        .map(|row| row.feed.to_string())
        .collect()
}

#[tokio::test]
async fn json_that_is_not_understood_triggers_all_exported_feeds() {
    for message in UNCLEAR {
        let app = TestApp::spawn().await;
        let feeds = vec![
            exported("default", "302320404"),
            exported("default", "110053842"),
            Feed::digitized(Account::parse("default").expect("a name")),
            exported("another", "302320404"),
        ];
        let registered = app.store.register_feeds(feeds, app.clock.now());
        registered.await.expect("registered");
        let answer = app
            .deliver(&Message::notification(&app.sns).saying(message))
            .await;
        assert_eq!(answer.status(), 200, "{message}");
        assert_eq!(
            triggered(&app).await,
            ["default/exported/110053842", "default/exported/302320404"],
            "{message}"
        );
        let metrics = app.metrics().await;
        let counted = metrics.contains("ivesk_webhook_unclear_notifications_total 1");
        assert!(counted, "{metrics}");
        let counts = app.store.unclear_notifications().await.expect("readable");
        assert_eq!((counts.len(), counts[0].total), (1, 1));
    }
}

#[tokio::test]
async fn a_text_that_is_no_json_is_accepted_and_triggers_nothing() {
    let app = TestApp::spawn().await;
    let feeds = vec![exported("default", "302320404")];
    let registered = app.store.register_feeds(feeds, app.clock.now());
    registered.await.expect("registered");
    let greeting = "Successfully validated SNS topic for Amazon SES event publishing.";
    let answer = app
        .deliver(&Message::notification(&app.sns).saying(greeting))
        .await;
    assert_eq!(answer.status(), 200);
    assert!(triggered(&app).await.is_empty());
    let metrics = app.metrics().await;
    assert!(metrics.contains("ivesk_webhook_unclear_notifications_total 0"));
}

#[tokio::test]
async fn what_on_digitized_says_triggers_its_one_feed() {
    let app = TestApp::spawn().await;
    for message in ["{\"id\":\"x\"}", "no JSON"] {
        let digitized = app.webhook(Event::OnDigitized);
        let notification = Message::notification(&app.sns).saying(message);
        let answer = app.deliver_to(&digitized, &notification).await;
        assert_eq!(answer.status(), 200, "{message}");
    }
    assert_eq!(triggered(&app).await, ["default/digitized"]);
    let counts = app.store.unclear_notifications().await.expect("readable");
    assert!(counts.is_empty());
}

#[tokio::test]
async fn an_unclear_notification_is_warned_about_and_in_doctor() {
    let emulator = emulator("").await;
    let installation = Installation::beside(&emulator, "", "");
    let server = installation.start().await;
    let control = emulator.control();
    installation.subscribe(&control, &[Event::OnExported]).await;
    for _ in 0..3 {
        let message = r#"{"company":"302320404"}"#;
        let published = Publication::new(Event::OnExported, message.to_owned());
        control.notify(&published).expect("published");
    }
    within("the deliveries", control.idle()).await;
    let report = Report::of(&installation, &["--quick"]).await;
    assert_eq!(report.results("notification_shape"), ["note"]);
    let words = report.words("notification_shape");
    assert!(
        words.contains("3 notifications of account `default`"),
        "{words}"
    );
    server.terminate();
    let (_, log) = server.exited().await;
    let warned = log
        .lines()
        .filter(|line| line.contains("in a shape that is understood"));
    assert_eq!(warned.count(), 1, "{log}");
}
