//! Alarms by e-mail, at a mail server of the test.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ivesk_webhook::alarms::{Alarms, NotifyOutcome};
use ivesk_webhook::config::{AlarmEmail, AlarmTarget, Config, EmailTls};
use ivesk_webhook::domain::Clock;
use ivesk_webhook::metrics::Metrics;
use ivesk_webhook::service::open_store;
use ivesk_webhook::store::{
    AlarmFilter, AlarmKind, AlarmObservation, AlarmRow, Finding, SharedStore,
};

use crate::support::databases::Database;
use crate::support::emulator::emulator;
use crate::support::process::{Installation, Server, within};
use crate::support::puller::{folder, minutes, settings, start_time};
use crate::support::smtp::{Offer, PASSWORD, SmtpServer, USER};

/// A store whose alarms go to a mail server.
struct Scene {
    store: SharedStore,
    clock: Clock,
    alarms: Alarms,
    _dir: tempfile::TempDir,
    _database: Option<Database>,
}

impl Scene {
    async fn new(target: AlarmEmail) -> Self {
        let clock = Clock::manual(start_time());
        let dir = folder();
        let nowhere = "http://127.0.0.1:9";
        let mut config: Config = settings(dir.path(), nowhere, "planted-key", nowhere);
        let database = Database::of_the_suite().await;
        if let Some(database) = &database {
            config.store.url = database.url();
        }
        config.alarms.target = Some(AlarmTarget::Email(target));
        let store = open_store(&config, &clock).await.expect("the store opens");
        let alarms = Alarms::new(
            &config,
            Arc::clone(&store),
            Arc::new(Metrics::new()),
            Arc::default(),
            clock.clone(),
        );
        Self {
            alarms: alarms.expect("alarms"),
            store,
            clock,
            _dir: dir,
            _database: database,
        }
    }

    /// Raises an alarm of each subject, and ends all others.
    async fn observe(&self, subjects: &[&str]) {
        let found = subjects.iter().map(|subject| Finding {
            kind: AlarmKind::Destination,
            subject: (*subject).to_owned(),
            text: format!("gavėjas nieko nepriima: {subject}. Fix: run `destinations resume`"),
        });
        let updated = self.store.update_alarms(AlarmObservation {
            now: self.clock.now(),
            found: found.collect(),
            notify: true,
        });
        updated.await.expect("stored");
    }

    async fn notify(&self) -> NotifyOutcome {
        self.alarms.notify().await.expect("the store works")
    }

    async fn active(&self) -> Vec<AlarmRow> {
        let filter = AlarmFilter {
            active: true,
            after: 0,
            limit: 10,
        };
        self.store.alarms(filter).await.expect("readable")
    }
}

fn target(server: &SmtpServer, tls: EmailTls) -> AlarmEmail {
    AlarmEmail {
        host: "localhost".to_owned(),
        port: server.port,
        tls,
        from: "Ivesk <ivesk@example.lt>".parse().expect("an address"),
        to: ["ops@example.lt", "Budėtojas <duty@example.lt>"]
            .map(|to| to.parse().expect("an address"))
            .into(),
        login: None,
    }
}

#[tokio::test]
async fn an_alarm_is_one_plain_letter_at_each_end_and_retried() {
    let server = SmtpServer::start(Offer::Plain).await;
    let scene = Scene::new(target(&server, EmailTls::None)).await;
    scene.observe(&["books", "archive"]).await;
    server.refuse("451 4.3.0 try again later");
    assert_eq!(scene.notify().await, NotifyOutcome::Failed);
    let error = scene.active().await[0].last_error.clone();
    let error = error.expect("it failed");
    assert!(
        error.contains("alarms.email.server") && error.contains("try again later"),
        "{error}"
    );
    assert_eq!(scene.notify().await, NotifyOutcome::Sent, "the other alarm");
    assert_eq!(scene.notify().await, NotifyOutcome::Nothing, "not at once");
    scene.clock.advance(minutes(1));
    assert_eq!(scene.notify().await, NotifyOutcome::Sent);
    assert_eq!(scene.notify().await, NotifyOutcome::Nothing);
    scene.observe(&["archive"]).await;
    assert_eq!(scene.notify().await, NotifyOutcome::Sent);

    let mails = server.mails();
    let mut subjects: Vec<String> = mails
        .iter()
        .map(|mail| mail.header("Subject").expect("a subject"))
        .collect();
    let last = subjects.pop();
    subjects.sort();
    assert_eq!(
        subjects,
        [
            "[ivesk-webhook] raised: destination archive (2 active)",
            "[ivesk-webhook] raised: destination books (2 active)"
        ]
    );
    assert_eq!(
        last.as_deref(),
        Some("[ivesk-webhook] ended: destination books (1 active)")
    );
    let mail = &mails[0];
    assert!(mail.from.contains("<ivesk@example.lt>"), "{mail:?}");
    assert_eq!(mail.to.len(), 2, "{mail:?}");
    let kind = mail.header("Content-Type").expect("a type");
    assert!(kind.starts_with("text/plain"), "{kind}");
    for name in ["Date", "Message-ID", "From", "To"] {
        assert!(mail.header(name).is_some(), "{name}: {}", mail.data);
    }
    let body = mail.body();
    assert!(
        body.contains("gavėjas nieko nepriima") && body.contains("Active alarms now: 2"),
        "{body}"
    );
}

#[tokio::test]
async fn a_wrong_recipient_keeps_no_alarm_from_the_others() {
    let server = SmtpServer::start(Offer::Plain).await;
    server.refuse_recipient("ops@example.lt");
    let scene = Scene::new(target(&server, EmailTls::None)).await;
    scene.observe(&["books"]).await;
    assert_eq!(scene.notify().await, NotifyOutcome::Sent);
    let mails = server.mails();
    assert_eq!(mails.len(), 1);
    assert!(
        matches!(&mails[0].to[..], [to] if to.contains("duty@example.lt")),
        "{mails:?}"
    );
    assert_eq!(scene.notify().await, NotifyOutcome::Nothing, "only once");
    server.refuse_recipient("duty@example.lt");
    scene.observe(&[]).await;
    assert_eq!(scene.notify().await, NotifyOutcome::Failed);
}

#[tokio::test]
async fn a_server_that_repeats_a_password_does_not_publish_it() {
    let server = SmtpServer::start(Offer::Plain).await;
    let email = AlarmEmail {
        login: Some((USER.to_owned(), "other-password".to_owned().into())),
        ..target(&server, EmailTls::None)
    };
    let scene = Scene::new(email).await;
    scene.observe(&["books"]).await;
    assert_eq!(scene.notify().await, NotifyOutcome::Failed);
    let error = scene.active().await[0].last_error.clone();
    let error = error.expect("it failed");
    assert!(error.contains("wrong password in"), "{error}");
    let sent = STANDARD.encode(format!("\0{USER}\0other-password"));
    assert!(server.commands().contains(&sent));
    assert_eq!(server.commands().matches("AUTH").count(), 1, "no guessing");
    for secret in [sent.as_str(), "other-password"] {
        assert!(!error.contains(secret), "{error}");
    }
}

#[tokio::test]
async fn what_others_wrote_adds_no_header_and_is_bounded() {
    let server = SmtpServer::start(Offer::Plain).await;
    let scene = Scene::new(target(&server, EmailTls::None)).await;
    let long = "ž".repeat(50_000);
    scene
        .observe(&["x\r\nBcc: stranger@example.lt\r\n\r\nbody", &long])
        .await;
    for _ in 0..2 {
        assert_eq!(scene.notify().await, NotifyOutcome::Sent);
    }
    for mail in server.mails() {
        assert_eq!(mail.header("Bcc"), None, "{}", mail.data);
        assert_eq!(mail.to.len(), 2, "{:?}", mail.to);
        assert!(mail.data.len() < 100_000, "{}", mail.data.len());
    }
}

#[tokio::test]
async fn a_letter_that_was_taken_is_sent_whatever_the_goodbye() {
    let server = SmtpServer::start(Offer::Plain).await;
    server.stay();
    let scene = Scene::new(target(&server, EmailTls::None)).await;
    scene.observe(&["books"]).await;
    assert_eq!(scene.notify().await, NotifyOutcome::Sent);
    assert_eq!(scene.notify().await, NotifyOutcome::Nothing);
    assert_eq!(server.mails().len(), 1);
    assert!(server.commands().contains("QUIT"));
}

#[tokio::test]
async fn nothing_is_sent_without_the_encryption_of_the_settings() {
    // A server without STARTTLS, or somebody who removes it on the way; a certificate of nobody
    // who is known; plain text where TLS is expected.
    for (offer, tls) in [
        (Offer::Plain, EmailTls::StartTls),
        (Offer::StartTls, EmailTls::StartTls),
        (Offer::Tls, EmailTls::Implicit),
        (Offer::Plain, EmailTls::Implicit),
    ] {
        let server = SmtpServer::start(offer).await;
        let email = AlarmEmail {
            login: Some((USER.to_owned(), PASSWORD.to_owned().into())),
            ..target(&server, tls)
        };
        assert!(!format!("{email:?}").contains(PASSWORD));
        let scene = Scene::new(email).await;
        scene.observe(&["books"]).await;
        assert_eq!(scene.notify().await, NotifyOutcome::Failed, "{offer:?}");
        assert!(server.mails().is_empty());
        let commands = server.commands();
        for secret in ["AUTH", "MAIL", "books"] {
            assert!(!commands.contains(secret), "{offer:?}: {commands}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn serve_sends_letters_by_starttls_and_tls_after_a_login() {
    for (offer, tls) in [(Offer::StartTls, "starttls"), (Offer::Tls, "tls")] {
        let emulator = emulator("").await;
        let mail_server = SmtpServer::start(offer).await;
        let sections = format!(
            "[alarms.email]\nserver = \"localhost:{}\"\ntls = \"{tls}\"\n\
             from = \"ivesk@example.lt\"\nto = [\"ops@example.lt\"]\nusername = \"{USER}\"\n",
            mail_server.port
        );
        let installation = Installation::beside(&emulator, "", &sections);
        let ca = installation.folder().join("ca.pem");
        std::fs::write(&ca, &mail_server.ca_pem).expect("written");
        let variables = [
            ("IVESK_WEBHOOK_ALARMS_EMAIL_PASSWORD", PASSWORD),
            ("IVESK_WEBHOOK_STORE_MIN_FREE_BYTES", "1000000000000000"),
            ("SSL_CERT_FILE", ca.to_str().expect("text")),
        ];
        // An alarm from the start on: no disk has so much room.
        let mut command = installation.command(&["serve"]);
        command.envs(variables);
        let server = Server::spawn(command);
        let mails = within("a letter", mail_server.until_taken(1)).await;
        let mail = &mails[0];
        assert!(mail.encrypted && mail.logged_in, "{mail:?}");
        let subject = mail.header("Subject").expect("a subject");
        assert_eq!(subject, "[ivesk-webhook] raised: disk store (1 active)");
        let body = mail.body();
        assert!(body.contains("free some space"), "{body}");
        let log = server.stop_and_read().await;
        assert!(!log.contains(PASSWORD), "{log}");
    }
}
