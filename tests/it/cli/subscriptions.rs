//! `subscriptions` and `doctor` beside a server, where the topic's owner is not known.

use std::process::Stdio;

use ivesk_webhook::domain::Event;
use ivesk_webhook::emulator::{Emulator, Publication};
use serde_json::Value;

use crate::support::doctor::Report;
use crate::support::emulator::emulator;
use crate::support::process::{Installation, Server, this_user, within};

const OWNER: &str = "123456789012";
const TOPIC: &str = "arn:aws:sns:eu-west-1:123456789012:DPWebHook_onexport";

/// A running server, subscribed by `subscriptions create` at a vendor whose AWS account is
/// not known.
struct Scene {
    emulator: Emulator,
    installation: Installation,
    server: Server,
}

impl Scene {
    async fn new() -> Self {
        let emulator = emulator(&format!("topic_owner={OWNER}")).await;
        let installation = Installation::beside(&emulator, "", "");
        let server = installation.start().await;
        let scene = Self {
            emulator,
            installation,
            server,
        };
        scene.create().await;
        scene
    }

    async fn create(&self) {
        let arguments = ["subscriptions", "create", "--event", "on_exported"];
        let path = [("IVESK_WEBHOOK_API_SUBSCRIBE_PATH", "/subscriptions")];
        let (code, _, errors) = self.installation.run_with(&arguments, &path).await;
        assert_eq!(code, Some(0), "{errors}");
        within("the confirmations", self.emulator.control().idle()).await;
    }

    async fn run(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        self.installation.run(arguments).await
    }

    async fn rows(&self) -> Vec<Value> {
        let (code, out, errors) = self.run(&["subscriptions", "list", "--json"]).await;
        assert_eq!(code, Some(0), "{errors}");
        serde_json::from_str(&out).expect("a JSON array")
    }

    /// Exports a document, whose notification the vendor sends; returns its last status.
    async fn notify(&self) -> Option<u16> {
        let control = self.emulator.control();
        let publication = Publication::exported("302320404");
        control.notify(&publication).expect("published");
        within("the delivery", control.idle()).await;
        control
            .deliveries()
            .last()
            .and_then(|last| last.last_status)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_topic_is_shown_approved_and_heard() {
    let scene = Scene::new().await;

    // Shown everywhere, with its ARN and owner.
    let rows = scene.rows().await;
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!(rows[0]["state"], "unknown_topic");
    assert_eq!(rows[0]["topic_arn"], TOPIC);
    assert_eq!(rows[0]["aws_account"], OWNER);
    assert_eq!(rows[0]["name"], "ivesk-webhook-default-on_exported");
    let (_, list, _) = scene.run(&["subscriptions", "list"]).await;
    assert!(
        list.contains(TOPIC) && list.contains("Needs a person"),
        "{list}"
    );
    let report = Report::of(&scene.installation, &["--quick"]).await;
    let words = report.words("subscription");
    assert!(
        words.contains(TOPIC) && words.contains("approve 1"),
        "{words}"
    );
    assert_eq!(report.results("subscription")[0], "fail");
    assert_eq!(report.code, Some(1));
    report.assert_explained();
    let log = scene.server.log();
    let line = log.lines().find(|line| line.contains(TOPIC));
    let line = line.unwrap_or_else(|| panic!("{log}"));
    assert!(line.contains("ERROR") && line.contains(OWNER), "{line}");

    // A second request leaves one row that waits.
    scene.create().await;
    assert_eq!(scene.rows().await.len(), 1);

    // Nobody to ask.
    let mut command = scene
        .installation
        .command(&["subscriptions", "approve", "1"]);
    command.stdin(Stdio::null());
    let refused = within("the exit", command.output()).await.expect("it runs");
    assert_eq!(refused.status.code(), Some(2));
    let errors = String::from_utf8_lossy(&refused.stderr);
    assert!(
        errors.contains("--yes") && errors.contains(OWNER),
        "{errors}"
    );
    assert_eq!(scene.rows().await[0]["state"], "unknown_topic");

    let (code, out, errors) = scene.run(&["subscriptions", "approve", "1", "--yes"]).await;
    assert_eq!(code, Some(0), "{out}{errors}");
    assert!(errors.contains(TOPIC) && errors.contains(OWNER), "{errors}");
    assert!(out.contains("confirmed"), "{out}");
    let rows = scene.rows().await;
    assert_eq!(rows[0]["state"], "confirmed");
    let arn = rows[0]["subscription_arn"].as_str().expect("an ARN");
    assert!(arn.starts_with(TOPIC), "{arn}");
    assert_eq!(rows[0]["last_heard_at"], Value::Null);
    assert_eq!(rows[0]["fix"], Value::Null);

    assert_eq!(scene.notify().await, Some(200));
    let rows = scene.rows().await;
    assert!(rows[0]["last_heard_at"].is_string(), "{rows:?}");
    let report = Report::of(&scene.installation, &["--quick"]).await;
    let words = report.words("subscription");
    assert!(words.contains("is confirmed, last heard at"), "{words}");
    // Only the default accounts are suggested to be removed.
    assert!(report.results("topics").is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_approval_is_revoked_by_number_and_by_arn() {
    let scene = Scene::new().await;
    let approve = ["subscriptions", "approve", "1", "--yes"];
    let (code, _, errors) = scene.run(&approve).await;
    assert_eq!(code, Some(0), "{errors}");
    let user = this_user();
    let row = scene.rows().await.remove(0);
    assert_eq!(row["topic_approved_by"], user);
    let arn = row["subscription_arn"].as_str().expect("an ARN").to_owned();

    let (code, out, errors) = scene.run(&["subscriptions", "revoke", "1"]).await;
    assert_eq!(code, Some(0), "{errors}");
    assert!(out.contains(TOPIC), "{out}");
    assert!(scene.rows().await.is_empty());
    assert_eq!(scene.notify().await, Some(403));
    for unknown in ["1", TOPIC] {
        let (code, _, errors) = scene.run(&["subscriptions", "revoke", unknown]).await;
        assert_eq!(code, Some(1), "{errors}");
    }

    // SNS asks again only for a subscription that it does not have.
    let control = scene.emulator.control();
    assert!(control.unsubscribe(&arn));
    within("the announcement", control.idle()).await;
    scene.create().await;
    let id = scene.rows().await[0]["id"].to_string();
    let approve = ["subscriptions", "approve", &id, "--yes"];
    let (code, _, errors) = scene.run(&approve).await;
    assert_eq!(code, Some(0), "{errors}");
    let (code, _, errors) = scene.run(&["subscriptions", "revoke", TOPIC]).await;
    assert_eq!(code, Some(0), "{errors}");
    let (_, list, _) = scene.run(&["audit", "list"]).await;
    assert_eq!(list.matches("subscriptions revoke").count(), 2, "{list}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_notification_of_an_unknown_topic_is_named() {
    let scene = Scene::new().await;
    // Another topic of the same owner, which was never offered.
    let other = format!("{TOPIC}2");
    let control = scene.emulator.control();
    let (code, _, errors) = scene.run(&["subscriptions", "approve", "1", "--yes"]).await;
    assert_eq!(code, Some(0), "{errors}");
    let mut publication = Publication::exported("302320404");
    publication.topic_arn = Some(other.clone());
    control.notify(&publication).expect("published");
    within("the delivery", control.idle()).await;

    let last = control.deliveries().pop().expect("a delivery");
    assert_eq!(last.last_status, Some(403));
    let (_, listed, _) = scene.run(&["quarantine", "list"]).await;
    assert!(listed.contains(&other), "{listed}");
    assert!(
        scene.server.log().contains(&other),
        "{}",
        scene.server.log()
    );
}

/// Once one of the two accounts has proven to be the vendor's, the other needs no trust.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn doctor_suggests_removing_the_other_default_account() {
    for (owner, other) in [
        ("007272210889", "007268210879"),
        ("007268210879", "007272210889"),
    ] {
        let emulator = emulator(&format!("topic_owner={owner}")).await;
        let installation = Installation::beside(&emulator, "", "");
        let server = installation.start().await;
        let report = Report::of(&installation, &["--quick"]).await;
        assert!(report.results("topics").is_empty(), "nothing is proven");
        assert_eq!(report.results("subscription"), ["note", "note"]);
        assert!(report.words("subscription").contains("has no subscription"));

        installation
            .subscribe(&emulator.control(), &[Event::OnExported])
            .await;

        let report = Report::of(&installation, &["--quick"]).await;
        assert_eq!(report.results("topics"), ["note"]);
        let words = report.words("topics");
        assert!(words.contains(owner) && words.contains(other), "{words}");
        drop(server);
    }
}

/// The change of the signing certificate, rehearsed with both alive.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_and_new_certificates_are_accepted_side_by_side() {
    let emulator = emulator("").await;
    let installation = Installation::beside(&emulator, "", "");
    let server = installation.start().await;
    let control = emulator.control();
    installation.subscribe(&control, &[Event::OnExported]).await;
    let publish = || {
        let publication = Publication::exported("302320404");
        control.notify(&publication).expect("published")
    };
    let first = publish();
    within("the delivery", control.idle()).await;
    server.terminate();
    server.exited().await;

    // Signed with the old certificate, and delivered only after the change.
    let old = publish();
    control.rotate_certificate().expect("a certificate");
    let new = publish();
    let server = installation.start().await;
    within("the deliveries", async {
        loop {
            control.retry_now();
            let deliveries = control.deliveries();
            let arrived = [&first, &old, &new].iter().all(|id| {
                deliveries.iter().any(|delivery| {
                    delivery.message_id == **id && delivery.last_status == Some(200)
                })
            });
            if arrived {
                break;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    let again = publish();
    within("the delivery", control.idle()).await;
    let accepted = control.deliveries();
    let last = accepted
        .iter()
        .find(|delivery| delivery.message_id == again);
    assert_eq!(last.and_then(|last| last.last_status), Some(200));
    drop(server);
}
