//! A service with as much in its store as a year of an accounting office leaves there: 10,000
//! documents of 200 companies, and everything that can go wrong with them.

use std::time::Duration;

use ivesk_webhook::config::{
    Config, DestinationConfig, DestinationKind, FileMode, FolderLayout, default_account,
};
use ivesk_webhook::domain::{
    Company, Cursor, DestinationName, DocumentVersion, Event, Feed, Timestamp,
};
use ivesk_webhook::store::{
    AlarmKind, AlarmObservation, CertificateRow, Finding, FoundGap, IncompleteReason, LeaseRequest,
    NewUpload, PageEnd, PageToCommit, PullPlan, Trigger, TriggerKind, UploadEnd,
};
use serde_json::{Value, json};

use crate::support::app::TestApp;
use crate::support::fake_sns::{FOREIGN_TOPIC, Message, SIGNER};
use crate::support::process::within;

/// Companies of the store.
pub(crate) const COMPANIES: usize = 200;

/// Documents of each company that are from before its delivery began.
const OLD: usize = 47;

/// Documents of each company that came since.
const NEW: usize = 3;

/// All documents of the exported queue.
pub(crate) const DOCUMENTS: usize = COMPANIES * (OLD + NEW);

/// The destination that accepts and rejects.
pub(crate) const BOOKS: &str = "apskaita";

/// The destination that is a folder.
pub(crate) const ARCHIVE: &str = "archyvas";

const FIRST: [&str; 20] = [
    "Šiaurės žvaigždė",
    "Baltic Freight Solutions",
    "Ąžuolo medienos gaminiai",
    "Žalgirio logistika ir ekspedicija",
    "Ūkininko Petraičio daržovės",
    "Senamiesčio kepykla",
    "Vilniaus vandenys",
    "Nemuno statyba",
    "Kuršių marių žuvis",
    "Saulės energija",
    "Telšių tekstilė",
    "Įrangos nuoma",
    "Pajūrio viešbučiai ir restoranai",
    "Gėlių namai",
    "Autoservisas „Ratas“",
    "Dainavos knygos",
    "Medicinos technika",
    "Skaitmeniniai sprendimai",
    "Aukštaitijos pienas",
    "Čiurlionio galerija",
];

/// Returns the code of a company.
pub(crate) fn code(company: usize) -> String {
    (302_000_000 + company * 4_711).to_string()
}

/// Returns the name of a company.
pub(crate) fn name(company: usize) -> String {
    let kind = ["UAB", "MB", "AB", "VšĮ"][company % 4];
    let first = FIRST[company % FIRST.len()];
    match company / FIRST.len() {
        0 => format!("{kind} „{first}“"),
        more => format!("{kind} „{first} {more}“"),
    }
}

/// Returns the number of a document.
pub(crate) fn number(company: usize, at: usize) -> String {
    match company {
        // Longer than most, without a place to break.
        7 => format!("VILNIUSVANDENYS-2026-{:08}", at * 13),
        _ => format!("AB-{company:03}{at:02}"),
    }
}

/// Returns a document as the vendor lists it.
pub(crate) fn document(company: usize, at: usize, exported_at: Timestamp) -> Value {
    let cents = (company * 7_919 + at * 104_729) % 2_500_000 + 99;
    let total = |cents: usize| format!("{}.{:02}", cents / 100, cents % 100);
    let vat = cents * 21 / 121;
    let partner = (company * 31 + at * 7) % COMPANIES;
    let (seller, buyer) = match at.is_multiple_of(3) {
        true => (company, partner),
        false => (partner, company),
    };
    let lines: Vec<Value> = match at % 5 {
        0 => vec![
            json!({"name": "Konsultavimo paslaugos, lapkritis", "quantity": "12", "unit": "val.", "price": "45.00",
                "subtotal": "540.00", "vatpercent": "21", "vat": "113.40", "total": "653.40"}),
            json!({"name": "Transportas Vilnius–Klaipėda", "quantity": "1", "unit": "vnt.", "price": "1250",
                "subtotal": "1250.00", "vatpercent": "21", "vat": "262.50", "total": "1512.50"}),
        ],
        _ => Vec::new(),
    };
    json!({
        "id": format!("0f8fad5b-d9cb-469f-a165-{company:06}{at:06}"),
        "doctype": "invoice",
        "docnum": number(company, at),
        "date": format!("2026-11-{:02}", at % 22 + 1),
        "duedate": "2026-12-20",
        "sellername": name(seller), "sellercode": code(seller), "sellervat": format!("LT{}", code(seller)),
        "selleraddress": "Gedimino pr. 9, LT-01103 Vilnius", "selleriban": "LT12 1000 0111 0100 1000",
        "sellerisfavorite": seller == company,
        "buyername": name(buyer), "buyercode": code(buyer), "buyervat": format!("LT{}", code(buyer)),
        "buyerisfavorite": buyer == company,
        "subtotal": total(cents - vat), "vat": total(vat), "total": total(cents), "currency": "EUR",
        "url": format!("http://127.0.0.1:9/public/{company}/{at}?Signature=planted"),
        "line": lines,
        "exportedat": exported_at.to_string(),
    })
}

fn destinations(config: &mut Config) {
    let folder = config.store.backup_dir.with_file_name("archive");
    let kinds = [
        (BOOKS, DestinationKind::List),
        (
            ARCHIVE,
            DestinationKind::Folder {
                path: folder,
                layout: FolderLayout::default(),
                files: false,
                max_file_bytes: 1 << 20,
                file_mode: FileMode::default(),
            },
        ),
    ];
    for (name, kind) in kinds {
        let destination = DestinationConfig {
            max_concurrency: 8,
            ..DestinationConfig::of(kind)
        };
        config.destinations.insert(parsed(name), destination);
    }
}

fn parsed(name: &str) -> DestinationName {
    DestinationName::parse(name).expect("a name")
}

/// Starts a service with a full store.
pub(crate) async fn full_store() -> TestApp {
    let app = TestApp::with(destinations).await;
    for company in 0..COMPANIES {
        pull(&app, company).await;
    }
    digitized(&app).await;
    let expected = (COMPANIES * OLD) as u64;
    within("what is new is delivered", async {
        loop {
            let rows = app.store.destinations().await.expect("readable");
            let is_done = rows
                .iter()
                .all(|row| row.held == expected && row.waiting == 0);
            if rows.len() == 2 && is_done {
                return;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    troubles(&app).await;
    messages(&app).await;
    others(&app).await;
    app.quarantine().await;
    app
}

/// Stores a page of a company's exported feed.
async fn pull(app: &TestApp, company: usize) {
    let feed = Feed::exported(
        default_account(),
        Company::parse(&code(company)).expect("a code"),
    );
    let now = app.clock.now();
    let old = (0..OLD).map(|at| {
        let age = Duration::from_secs(86_400 + (OLD - at) as u64 * 3_600);
        document(company, at, now.before(age))
    });
    let new = (OLD..OLD + NEW)
        .map(|at| document(company, at, now.after(Duration::from_secs(at as u64 * 60))));
    let gaps = match company % 60 {
        11 => vec![FoundGap {
            from: Some(Cursor::new("2026-11-20T08:15:00.000Z")),
            to: Some(Cursor::new("2026-11-20T08:15:00.001Z")),
            reason: IncompleteReason::GroupCut,
            entries: 100,
        }],
        _ => Vec::new(),
    };
    store_page(app, feed, old.chain(new).collect(), gaps).await;
    if company.is_multiple_of(10) {
        app.clock.advance(Duration::from_secs(3_600));
    }
}

/// Stores two documents of the digitized queue, one of which was exported since.
async fn digitized(app: &TestApp) {
    let now = app.clock.now();
    let documents = [(3, OLD), (5, OLD + NEW + 1)]
        .map(|(company, at)| {
            let mut document = document(company, at, now);
            document["digitizedat"] = json!(now.to_string());
            document
        })
        .to_vec();
    store_page(
        app,
        Feed::digitized(default_account()),
        documents,
        Vec::new(),
    )
    .await;
}

async fn store_page(app: &TestApp, feed: Feed, documents: Vec<Value>, gaps: Vec<FoundGap>) {
    let (now, hour) = (app.clock.now(), Duration::from_secs(3_600));
    let trigger = Trigger {
        feed: feed.clone(),
        kind: TriggerKind::Notification,
        due_at: now,
        from: None,
    };
    app.store.trigger(vec![trigger]).await.expect("triggered");
    let lease = app.store.lease_page(LeaseRequest {
        now,
        lease: hour,
        requests_per_account: 100,
        lookback: hour,
        min_interval: Duration::ZERO,
        reconcile_every: hour * 1_000,
        queues: vec![(default_account(), feed.queue)],
    });
    let lease = lease.await.expect("readable").expect("the feed is due");
    assert_eq!(lease.feed, feed);
    let field = feed.queue.version_field();
    let documents = documents.iter().map(|document| DocumentVersion {
        id: document["id"].as_str().expect("text").to_owned(),
        version: document[field].as_str().expect("text").to_owned(),
        body: document.to_string().into(),
    });
    let page = PageToCommit {
        documents: documents.collect(),
        cursor: Some(Cursor::new(now.to_string())),
        end: PageEnd::EndOfQueue,
        clock_offset: Some(0),
        gaps,
        ..PageToCommit::default()
    };
    let plan = PullPlan {
        now,
        follow_ups: [hour * 1_000; 2],
        reconcile_every: hour * 1_000,
        lookback: hour,
    };
    let committed = app.store.commit_page(lease, page, plan).await;
    committed.expect("committed");
}

/// Lets deliveries and companies be in each state, as months of work leave them.
async fn troubles(app: &TestApp) {
    let now = app.clock.now().as_millis();
    let day = 86_400_000_i64;
    let file = app.dir().join("test.db");
    let sql = format!(
        "PRAGMA busy_timeout = 20000;
         BEGIN IMMEDIATE;
         UPDATE delivery SET state = 'delivered', number = number, changed_at = {now} - sequence * 1000
             WHERE destination_id = (SELECT id FROM destination WHERE name = '{BOOKS}') AND sequence % 3 <> 0;
         UPDATE delivery SET state = 'rejected', detail = CASE sequence % 4
                 WHEN 0 THEN 'Nežinomas tiekėjo kodas: kortelės su šiuo kodu nėra'
                 WHEN 1 THEN 'PVM suma nesutampa su eilučių suma'
                 WHEN 2 THEN 'The period of this date is closed'
                 ELSE 'Dokumentas su tokiu numeriu jau yra' END, changed_at = {now} - sequence * 5000
             WHERE destination_id = (SELECT id FROM destination WHERE name = '{BOOKS}') AND sequence % 5 = 0;
         UPDATE delivery SET state = 'deferred', detail = 'the destination answered 500', number = NULL,
                 next_try_at = {now} + {day}
             WHERE destination_id = (SELECT id FROM destination WHERE name = '{BOOKS}') AND sequence % 97 = 0;
         UPDATE delivery SET state = 'waiting_file', number = NULL, next_try_at = {now} + {day}
             WHERE destination_id = (SELECT id FROM destination WHERE name = '{BOOKS}') AND sequence % 89 = 0;
         INSERT INTO delivery_attempt (destination_id, sequence, number, began_at, ended_at, result, detail, times)
             SELECT destination_id, sequence, 8, changed_at - 60000, changed_at - 60000, 'unavailable', 'HTTP 503', 4
             FROM delivery WHERE state = 'rejected';
         INSERT INTO delivery_attempt (destination_id, sequence, number, began_at, ended_at, result, detail, times)
             SELECT destination_id, sequence, 9, changed_at, changed_at, 'rejected', detail, 1
             FROM delivery WHERE state = 'rejected';
         UPDATE destination SET delivered = 12345, rejected = 120, last_success_at = {now} - 120000
             WHERE name = '{BOOKS}';
         UPDATE lane SET failures = 9, failing_since = {now} - 7200000, last_error = 'HTTP 503 Service Unavailable'
             WHERE destination_id = (SELECT id FROM destination WHERE name = '{BOOKS}') AND feed_id % 50 = 3;
         UPDATE feed SET up_to_date_at = {now} - id * 30000, pulled_at = {now} - id * 30000,
                 missed_notifications = id % 4 WHERE id > 0;
         UPDATE feed SET paused = 'not_found' WHERE id % 40 = 5;
         UPDATE feed SET paused = 'by_hand' WHERE id % 70 = 6;
         UPDATE feed SET failures = 3, last_error = 'Įvesk.lt answered 503' WHERE id % 45 = 7;
         UPDATE feed SET removed_at = {now} - {day} WHERE id % 99 = 8;
         COMMIT;"
    );
    let connection = rusqlite::Connection::open(file).expect("the database");
    connection.execute_batch(&sql).expect("it is changed");
}

/// Lets messages arrive: accepted and refused ones, and offers of topics that nobody knows.
async fn messages(app: &TestApp) {
    let confirmation = Message::confirmation(&app.sns).published_at(app.clock.now());
    app.deliver(&confirmation).await;
    for hour in 0..6 {
        for _ in 0..=hour {
            let message = Message::notification(&app.sns).published_at(app.clock.now());
            app.deliver(&message).await;
        }
        for _ in 0..12 {
            let message = Message::notification(&app.sns).of_topic(FOREIGN_TOPIC);
            app.deliver(&message.published_at(app.clock.now())).await;
        }
        let path = app.webhook(Event::OnExported);
        app.post(&path, "{}", &[("x-amz-sns-message-type", "Notification")])
            .await;
        app.clock.advance(Duration::from_secs(3_600));
    }
    let offer = Message::confirmation(&app.sns)
        .of_topic(FOREIGN_TOPIC)
        .published_at(app.clock.now());
    app.deliver(&offer).await;
}

/// Stores what the other pages show.
async fn others(app: &TestApp) {
    let now = app.clock.now();
    let stored = app.store.keep_certificate(CertificateRow {
        url: "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-0.pem".to_owned(),
        pem: SIGNER.certificate_pem().as_bytes().to_vec(),
        fetched_at: now,
    });
    stored.await.expect("stored");
    for at in 0..60 {
        let name = format!("sąskaita-2026-11-{at:03}.pdf");
        let begun = app.store.begin_upload(NewUpload {
            account: default_account(),
            sha256: name.clone(),
            size_bytes: 34_567,
            file_name: name.clone(),
            correlation: name.clone(),
            force: false,
            owner: "test".to_owned(),
            now: now.before(Duration::from_secs(86_400 * (at % 6))),
            claim: Duration::from_secs(60),
        });
        begun.await.expect("begun");
        let id = app.store.newest_uploads(None, 1).await.expect("readable")[0].id;
        let end = match at % 7 {
            0 => UploadEnd::Refused("the file is no PDF".to_owned()),
            _ => UploadEnd::Sent,
        };
        let ended = app.store.end_upload(id, "test".to_owned(), end, now).await;
        assert!(ended.expect("stored"));
    }
    let finding = |kind: AlarmKind, subject: &str, text: &str| Finding {
        kind,
        subject: subject.to_owned(),
        text: text.to_owned(),
    };
    let found = AlarmKind::ALL
        .into_iter()
        .map(|kind| {
            finding(
                kind,
                "default/exported",
                "what was found, in English. Fix: run `ivesk-webhook doctor`",
            )
        })
        .collect();
    let updated = app.store.update_alarms(AlarmObservation {
        now,
        found,
        notify: false,
    });
    updated.await.expect("stored");
}
