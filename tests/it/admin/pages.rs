//! The pages of the admin listener.

use std::time::Duration;

use ivesk_webhook::config::{
    Config, DestinationConfig, DestinationKind, HistoryMode, default_account,
};
use ivesk_webhook::domain::{Company, DestinationName, Feed, Queue};
use ivesk_webhook::store::{
    AlarmKind, AlarmObservation, CertificateRow, DestinationFilter, Finding, IMPORT_ERROR_WAIT,
    ImportErrorLeased, ImportErrorOutcome, NewUpload, UploadEnd,
};
use ivesk_webhook::visible::is_invisible;
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};

use crate::support::app::{ADMIN_TOKEN, TestApp};
use crate::support::browser::{Browser, Viewport, axe, chromium};
use crate::support::fake_sns::{FOREIGN_TOPIC, Message, SIGNER};
use crate::support::process::within;

const PAGES: [&str; 12] = [
    "/deliveries",
    "/",
    "/feeds",
    "/documents",
    "/destinations",
    "/import-errors",
    "/uploads",
    "/subscriptions",
    "/quarantine",
    "/certificates",
    "/alarms",
    "/audit",
];

/// Adds a list destination, to which nothing is sent.
fn add_destination(config: &mut Config) {
    let destination = DestinationConfig {
        history: HistoryMode::Hold,
        ..DestinationConfig::of(DestinationKind::List)
    };
    config.destinations.insert(destination_name(), destination);
}

fn destination_name() -> DestinationName {
    DestinationName::parse("ledger").expect("a name")
}

fn document(number: usize) -> Value {
    json!({
        "id": format!("7f3a-{number}"), "docnum": format!("SĄSK-{number:04}"), "date": "2026-11-20",
        "sellername": "UAB „Šiaurės žvaigždė“", "buyername": "MB <script>alert(1)</script>",
        "total": "1234.56", "currency": "EUR",
    })
}

/// Starts a service with rows on each page.
pub(super) async fn filled(change: impl FnOnce(&mut Config)) -> TestApp {
    let app = TestApp::with(|config| {
        add_destination(config);
        change(config);
    })
    .await;
    let now = app.clock.now();
    let registered = app
        .store
        .register_destinations(
            vec![(
                destination_name(),
                DestinationFilter::all_of(Queue::Exported),
            )],
            now,
        )
        .await;
    registered.expect("registered");
    let documents: Vec<Value> = (1..=60).map(document).collect();
    let mut documents = documents.as_slice();
    for (notifications, strangers, pulled) in [
        (2, 0, 5),
        (4, 0, 9),
        (1, 1, 4),
        (6, 3, 12),
        (3, 0, 7),
        (1, 0, 3),
        (5, 1, 11),
        (4, 0, 9),
    ] {
        for _ in 0..notifications {
            let message = Message::notification(&app.sns).published_at(app.clock.now());
            app.deliver(&message).await;
        }
        for _ in 0..strangers {
            let message = Message::notification(&app.sns).of_topic(FOREIGN_TOPIC);
            app.deliver(&message.published_at(app.clock.now())).await;
        }
        let (these, rest) = documents.split_at(pulled);
        app.store_documents(these).await;
        documents = rest;
        app.clock.advance(Duration::from_secs(3600));
    }
    let now = app.clock.now();
    app.deliver(&Message::confirmation(&app.sns).published_at(now))
        .await;
    app.clock.advance(Duration::from_secs(60));
    app.deliver(&Message::ended(&app.sns).published_at(app.clock.now()))
        .await;
    let stored = app.store.keep_certificate(CertificateRow {
        url: "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-0.pem".to_owned(),
        pem: SIGNER.certificate_pem().as_bytes().to_vec(),
        fetched_at: now,
    });
    stored.await.expect("stored");
    for (name, end) in [
        ("sąskaita-1.pdf", UploadEnd::Sent),
        (
            "sąskaita-2.pdf",
            UploadEnd::Refused("the file is no PDF".to_owned()),
        ),
    ] {
        let begun = app
            .store
            .begin_upload(NewUpload {
                account: ivesk_webhook::config::default_account(),
                sha256: name.to_owned(),
                size_bytes: 34_567,
                file_name: name.to_owned(),
                correlation: name.to_owned(),
                force: false,
                owner: "test".to_owned(),
                now,
                claim: Duration::from_secs(60),
            })
            .await;
        begun.expect("begun");
        let id = app.store.newest_uploads(None, 1).await.expect("readable")[0].id;
        let ended = app.store.end_upload(id, "test".to_owned(), end, now).await;
        assert!(ended.expect("stored"));
    }
    let finding = Finding {
        kind: AlarmKind::Silence,
        subject: "default".to_owned(),
        text: "documents come without `on_exported`; run `doctor`".to_owned(),
    };
    let updated = app.store.update_alarms(AlarmObservation {
        now,
        found: vec![finding],
        notify: false,
    });
    updated.await.expect("stored");
    app.quarantine().await;
    app
}

async fn text(response: Response) -> String {
    response.text().await.expect("text")
}

async fn get(app: &TestApp, path: &str) -> String {
    let response = app
        .admin_request(Method::GET, path)
        .send()
        .await
        .expect("an answer");
    assert_eq!(response.status(), 200, "{path}");
    text(response).await
}

fn between<'t>(text: &'t str, before: &str, after: &str) -> &'t str {
    let rest = text
        .split_once(before)
        .unwrap_or_else(|| panic!("no `{before}` in {text}"))
        .1;
    rest.split_once(after).expect("an end").0
}

/// Returns the token in a page's forms.
pub(crate) fn form_token(page: &str) -> String {
    between(page, "name=\"form_token\" value=\"", "\"").to_owned()
}

/// Returns a page and its cookie.
pub(crate) async fn page_and_cookie(app: &TestApp, path: &str) -> (String, String) {
    read_page(app.admin_request(Method::GET, path)).await
}

/// Returns a page for those who have not logged in, and its cookie.
async fn page_before_login(app: &TestApp, path: &str) -> (String, String) {
    read_page(app.anonymous_request(Method::GET, path)).await
}

async fn read_page(request: RequestBuilder) -> (String, String) {
    let response = request.send().await.expect("an answer");
    let cookie = response.headers()["set-cookie"]
        .to_str()
        .expect("text")
        .to_owned();
    assert!(
        cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"),
        "{cookie}"
    );
    let pair = cookie.split(';').next().expect("a pair").to_owned();
    (text(response).await, pair)
}

pub(crate) async fn submit(
    app: &TestApp,
    path: &str,
    cookie: &str,
    fields: &[(&str, &str)],
) -> Response {
    let request = app.admin_request(Method::POST, path);
    post_form(request, cookie, fields).await
}

/// Submits a form of a browser, which has nothing but its cookie.
async fn submit_with(app: &TestApp, path: &str, cookie: &str, fields: &[(&str, &str)]) -> Response {
    let request = app.anonymous_request(Method::POST, path);
    post_form(request, cookie, fields).await
}

async fn post_form(request: RequestBuilder, cookie: &str, fields: &[(&str, &str)]) -> Response {
    let body = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs(fields)
        .finish();
    let request = request
        .header("cookie", cookie)
        .header("content-type", "application/x-www-form-urlencoded")
        .body(body);
    request.send().await.expect("an answer")
}

#[tokio::test]
async fn each_page_shows_and_escapes_rows_in_both_languages() {
    let app = filled(|_| {}).await;
    for path in PAGES {
        for (language, word) in [("en", "Overview"), ("lt", "Apžvalga")] {
            let page = get(&app, &format!("{path}?lang={language}")).await;
            assert!(
                page.contains(&format!("<html lang=\"{language}\">")),
                "{path}"
            );
            assert!(page.contains(word), "{path} {language}");
            assert_eq!(page.matches("<script").count(), 1, "{path}: ours alone");
            assert!(!page.contains(" style="), "{path}: the policy forbids it");
        }
    }
    let has = |page: &str, text: &str| assert!(page.contains(text), "no {text} in {page}");
    let overview = get(&app, "/").await;
    has(&overview, "topic_not_allowed");
    has(&overview, "default/on_exported: ended");
    has(&get(&app, "/alarms").await, "run <code>doctor</code>");
    let feeds = get(&app, "/feeds").await;
    has(&feeds, "302320404");
    let documents = get(&app, "/documents?q=0007").await;
    has(&documents, "SĄSK-0007");
    has(&documents, "MB &lt;script&gt;alert(1)&lt;/script&gt;");
    let document = get(&app, "/documents/7").await;
    has(&document, "7f3a-7");
    has(&document, "UAB „Šiaurės žvaigždė“");
    has(&get(&app, "/uploads").await, "sąskaita-2.pdf");
    has(&get(&app, "/destinations").await, "Held documents");
    has(&get(&app, "/certificates").await, "2026-12-23");
    let subscriptions = get(&app, "/subscriptions?lang=lt").await;
    has(&subscriptions, "nutraukta");
    has(&subscriptions, "Atkurti");
    // Long lists are paged.
    let next = between(
        &get(&app, "/documents").await,
        "class=\"next\" href=\"",
        "\"",
    )
    .replace("&amp;", "&");
    let second = get(&app, &next).await;
    has(&second, "SĄSK-0010");
    assert!(!second.contains("SĄSK-0011"));
}

#[tokio::test]
async fn alarms_name_companies_and_say_what_is_deferred() {
    let app = filled(|_| {}).await;
    let finding = |kind, subject: &str| Finding {
        kind,
        subject: subject.to_owned(),
        text: "in English".to_owned(),
    };
    let updated = app.store.update_alarms(AlarmObservation {
        now: app.clock.now(),
        found: vec![
            finding(AlarmKind::Destination, "ledger/deferred"),
            finding(AlarmKind::Destination, "ledger"),
            finding(AlarmKind::Behind, "default/exported/302320404"),
        ],
        notify: false,
    });
    updated.await.expect("stored");
    for (language, deferred, refuses) in [
        (
            "en",
            "documents are deferred",
            "a destination accepts nothing",
        ),
        ("lt", "yra atidėtų dokumentų", "gavėjas nieko nepriima"),
    ] {
        let page = get(&app, &format!("/alarms?lang={language}")).await;
        for shown in [
            deferred,
            refuses,
            "href=\"/deliveries?destination=ledger&amp;state=deferred\"",
            "<span class=\"code\">302320404</span>",
        ] {
            assert!(page.contains(shown), "no {shown} in {page}");
        }
        assert!(!page.contains("ledger/deferred"), "{page}");
    }
}

#[tokio::test]
async fn a_browser_gets_a_page_about_an_unknown_address() {
    let app = TestApp::spawn().await;
    let open = async |request: RequestBuilder, accept: &str| {
        let response = request.header("accept", accept).send().await;
        let response = response.expect("an answer");
        let kind = response.headers().get("content-type");
        let kind = kind
            .and_then(|kind| kind.to_str().ok())
            .unwrap_or_default()
            .to_owned();
        (response.status().as_u16(), kind, text(response).await)
    };
    let browser = "text/html,application/xhtml+xml,*/*;q=0.8";
    for (language, words) in [
        ("en", "there is nothing at this address"),
        ("lt", "Tokio puslapio nėra."),
    ] {
        for path in ["/nope", "/documents/1/2/3"] {
            let request = app.admin_request(Method::GET, &format!("{path}?lang={language}"));
            let (status, kind, page) = open(request, browser).await;
            assert_eq!(
                (status, &*kind),
                (404, "text/html; charset=utf-8"),
                "{path}"
            );
            assert!(page.contains(words) && page.contains("<nav"), "{page}");
        }
    }
    // Strangers learn nothing but where to log in.
    let (_, _, page) = open(app.anonymous_request(Method::GET, "/nope"), browser).await;
    assert!(page.contains("action=\"/login\""), "{page}");
    // Programs get a problem.
    for (path, accept) in [("/nope", "*/*"), ("/v1/nope", browser)] {
        let (status, kind, problem) = open(app.admin_request(Method::GET, path), accept).await;
        assert_eq!(
            (status, &*kind),
            (404, "application/problem+json"),
            "{path}"
        );
        assert!(problem.contains("\"unknown_path\""), "{problem}");
    }
}

#[tokio::test]
async fn an_upload_without_a_document_is_settled_with_a_button() {
    let app = filled(|_| {}).await;
    let (page, cookie) = page_and_cookie(&app, "/uploads").await;
    assert_eq!(page.matches("action=\"/do/settle\"").count(), 1, "{page}");
    let (id, form_token) = (
        between(&page, "name=\"id\" value=\"", "\""),
        form_token(&page),
    );
    let without = [("id", id), ("form_token", &form_token)];
    let refused = submit(&app, "/do/settle", &cookie, &without).await;
    assert_eq!(refused.status(), 400);
    let fields = [
        ("id", id),
        ("reason", "jau yra kita kopija"),
        ("form_token", &form_token),
    ];
    let settled = submit(&app, "/do/settle", &cookie, &fields).await;
    assert_eq!(settled.status(), 200);
    for (language, word) in [("en", "settled"), ("lt", "nebelaukiama")] {
        let page = get(&app, &format!("/uploads?lang={language}")).await;
        assert!(
            page.contains(word) && page.contains("jau yra kita kopija"),
            "{page}"
        );
        assert!(!page.contains("/do/settle"), "{page}");
    }
    let audit = app.admin("/v1/audit").await.to_string();
    assert!(audit.contains("uploads settle"), "{audit}");
    // A second time, from an old page.
    let again = submit(&app, "/do/settle", &cookie, &fields).await;
    assert_eq!(again.status(), 409);
}

/// Lets the destination reject the first documents; returns their number.
pub(super) async fn reject(app: &TestApp, count: i64) {
    app.admin_post("/v1/destinations/ledger/start", &json!({ "from": "all" }))
        .await;
    within("the list", async {
        loop {
            let listed = app.admin("/v1/documents").await;
            if listed["documents"]
                .as_array()
                .is_some_and(|all| !all.is_empty())
            {
                return;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    for sequence in 1..=count {
        let path = format!("/v1/documents/{sequence}/outcome");
        let outcome =
            json!({ "outcome": "rejected", "message": format!("Nežinomas <kodas> {sequence}") });
        app.admin_post(&path, &outcome).await;
    }
}

#[tokio::test]
async fn import_errors_are_sent_or_discarded_with_buttons() {
    let app = filled(|_| {}).await;
    reject(&app, 3).await;
    let (page, cookie) = page_and_cookie(&app, "/import-errors").await;
    assert!(page.contains("Nežinomas &lt;kodas&gt; 2"), "{page}");
    // People know a document by its number and its company's name.
    assert!(page.contains(">SĄSK-0002</a>"), "{page}");
    let form_token = form_token(&page);
    let press = async |action: &str, id: &str| {
        let fields = [("action", action), ("id", id), ("form_token", &*form_token)];
        submit(&app, "/do/import-error", &cookie, &fields)
            .await
            .status()
    };
    assert_eq!(press("discard", "1").await, 200);
    assert_eq!(press("retry", "2").await, 200);
    assert_eq!(press("retry", "99").await, 409);
    assert_eq!(press("forget", "1").await, 400);
    for (language, word) in [("en", "discarded by hand"), ("lt", "išsiuntimo atsisakyta")] {
        let page = get(&app, &format!("/import-errors?lang={language}")).await;
        assert!(page.contains(word), "{page}");
    }
    let rows = app.admin("/v1/import-errors").await;
    let states: Vec<&str> = rows["rows"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|row| row["state"].as_str())
        .collect();
    assert_eq!(states, ["discarded", "pending", "pending"]);
    let audit = app.admin("/v1/audit").await.to_string();
    for action in ["import-errors discard", "import-errors retry"] {
        assert!(audit.contains(action), "{audit}");
    }
    let company = rows["rows"][1]["company"].clone();
    // The way to several is the API; nothing is selected by chance.
    let several = app
        .admin_post("/v1/import-errors/discard", &json!({ "company": company }))
        .await;
    assert_eq!(several.1["changed"], 2, "{several:?}");
    for body in [json!({}), json!({ "all": true, "company": "1" })] {
        let (status, _) = app.admin_post("/v1/import-errors/retry", &body).await;
        assert_eq!(status, 400, "{body}");
    }
}

#[tokio::test]
async fn paused_import_errors_are_shown_with_their_way_out() {
    let app = filled(|_| {}).await;
    reject(&app, 1).await;
    app.clock.advance(IMPORT_ERROR_WAIT);
    let (account, now) = (ivesk_webhook::config::default_account(), app.clock.now());
    let leased = app
        .store
        .lease_import_error(vec![account], now, Duration::from_secs(60))
        .await;
    let ImportErrorLeased::Lease(lease) = leased.expect("the store works") else {
        panic!("none is due");
    };
    let outcome = ImportErrorOutcome::NotFound {
        error: "HTTP 404".to_owned(),
        retry_at: now.after(Duration::from_secs(3_600)),
    };
    let ended = app
        .store
        .end_import_error(lease, "/wrong-path".to_owned(), outcome, now)
        .await;
    ended.expect("recorded");
    let (page, cookie) = page_and_cookie(&app, "/import-errors").await;
    assert!(
        page.contains("/wrong-path") && page.contains("HTTP 404"),
        "{page}"
    );
    let overview = get(&app, "/").await;
    assert!(
        overview.contains("import errors are not sent"),
        "{overview}"
    );
    let paused = app.admin("/v1/import-errors/paused").await;
    assert_eq!(paused["rows"][0]["path"], "/wrong-path");
    let fields = [
        ("action", "resume"),
        ("account", "default"),
        ("form_token", &*form_token(&page)),
    ];
    let resumed = submit(&app, "/do/import-error", &cookie, &fields).await;
    assert_eq!(resumed.status(), 200);
    let paused = app.admin("/v1/import-errors/paused").await;
    assert_eq!(paused["rows"], json!([]));
}

#[tokio::test]
async fn what_is_invisible_in_a_document_is_shown_as_an_escape() {
    let app = TestApp::spawn().await;
    let hostile = json!({
        "id": "x-1", "docnum": "SF\u{200b}-7", "sellername": "UAB \u{202e}dabar\u{202c}",
        "total": "1\u{2066}99", "buyername": "a\u{1b}[2J\u{e0041}",
    });
    app.store_documents(&[hostile]).await;
    for path in ["/documents", "/documents/1"] {
        let page = get(&app, path).await;
        for shown in [
            "SF\\u{200b}-7",
            "UAB \\u{202e}dabar\\u{202c}",
            "a[2J\\u{e0041}",
        ] {
            assert!(page.contains(shown), "{shown} in {page}");
        }
        let hidden = page.chars().find(|c| *c != '\n' && is_invisible(*c));
        assert_eq!(hidden, None, "{path}");
    }
}

/// Returns true if a page shows the topic, which may be broken into lines behind its colons.
fn has_topic(page: &str) -> bool {
    page.replace("<wbr>", "").contains(FOREIGN_TOPIC)
}

#[tokio::test]
async fn an_unknown_topic_comes_first_and_a_button_allows_it() {
    let app = filled(|_| {}).await;
    let offer = Message::confirmation(&app.sns)
        .of_topic(FOREIGN_TOPIC)
        .published_at(app.clock.now());
    assert_eq!(app.deliver(&offer).await.status(), 200);

    for (language, owner) in [
        (
            "en",
            "a topic of AWS account 123456789012, which is not allowed",
        ),
        (
            "lt",
            "kuri priklauso AWS paskyrai 123456789012 ir nėra leidžiama",
        ),
    ] {
        let overview = get(&app, &format!("/?lang={language}")).await;
        let list = between(&overview, "<ul class=\"attention\">", "</ul>");
        let first = between(list, "<li>", "</li>");
        assert!(first.contains(owner), "{list}");
        assert!(has_topic(first), "{list}");
    }
    let (page, cookie) = page_and_cookie(&app, "/subscriptions").await;
    let first = between(&page, "<tbody role=\"rowgroup\">", "</tr>");
    assert!(has_topic(first), "{first}");
    assert!(
        first.contains("says that AWS account 123456789012 is theirs"),
        "{first}"
    );
    let lithuanian = get(&app, "/subscriptions?lang=lt").await;
    assert!(lithuanian.contains("AWS paskyra 123456789012 yra jų"));
    assert!(lithuanian.contains("Leisti šią temą"));

    let rows = app.store.subscriptions().await.expect("readable");
    let row = rows
        .iter()
        .find(|row| row.topic_arn.as_deref() == Some(FOREIGN_TOPIC));
    let id = row.expect("it is kept").id.to_string();
    let form_token = form_token(&page);
    let fields = [("form_token", form_token.as_str()), ("id", id.as_str())];
    let page = submit(&app, "/do/approve", &cookie, &fields).await;
    let page = text(page).await;
    assert!(page.contains("Subscription confirmed."), "{page}");
    let notification = Message::notification(&app.sns)
        .of_topic(FOREIGN_TOPIC)
        .published_at(app.clock.now());
    assert_eq!(app.deliver(&notification).await.status(), 200);
}

#[tokio::test]
async fn a_missing_subscription_is_on_the_overview() {
    let app = TestApp::spawn().await;
    for (language, words) in [
        (
            "en",
            "default/on_exported: no subscription, so no notifications arrive",
        ),
        (
            "lt",
            "default/on_exported: prenumeratos nėra, todėl pranešimai negaunami",
        ),
    ] {
        let overview = get(&app, &format!("/?lang={language}")).await;
        assert!(overview.contains(words), "{overview}");
    }
    app.deliver(&Message::confirmation(&app.sns)).await;
    assert!(!get(&app, "/").await.contains("no subscription"));
}

#[tokio::test]
async fn a_button_works_from_our_own_forms_only() {
    let app = filled(|_| {}).await;
    let (page, cookie) = page_and_cookie(&app, "/feeds").await;
    let form_token = form_token(&page);
    let feed = [
        ("account", "default"),
        ("queue", "exported"),
        ("company", "302320404"),
    ];
    let with = |form_token: &'static str| {
        let mut fields = feed.to_vec();
        fields.push(("form_token", form_token));
        fields
    };
    let paused = async |app: &TestApp| {
        let feeds = app.store.feeds().await.expect("readable");
        let feed = feeds
            .iter()
            .find(|row| row.feed.company.as_str() == "302320404");
        feed.expect("known").paused.is_some()
    };
    let form_token: &'static str = form_token.leak();

    for (cookie, fields) in [
        (cookie.as_str(), feed.to_vec()),
        (cookie.as_str(), with("")),
        (cookie.as_str(), with("guessed")),
        ("ivesk_session=another", with(form_token)),
        ("", with(form_token)),
    ] {
        let refused = submit(&app, "/do/pause-feed", cookie, &fields).await;
        assert_eq!(refused.status(), 403, "{cookie} {fields:?}");
    }
    for (name, value) in [
        ("origin", "http://evil.example"),
        ("origin", "null"),
        ("sec-fetch-site", "cross-site"),
    ] {
        let request = app
            .admin_request(Method::POST, "/do/pause-feed")
            .header("cookie", &cookie)
            .header(name, value)
            .body(format!(
                "account=default&queue=exported&company=302320404&form_token={form_token}"
            ));
        assert_eq!(
            request.send().await.expect("an answer").status(),
            403,
            "{name} {value}"
        );
    }
    assert!(!paused(&app).await);

    let page = text(submit(&app, "/do/pause-feed", &cookie, &with(form_token)).await).await;
    assert!(page.contains("Paused."), "{page}");
    assert!(paused(&app).await);
    let page = text(submit(&app, "/do/resume", &cookie, &with(form_token)).await).await;
    assert!(page.contains("Resumed."), "{page}");
    assert!(!paused(&app).await);

    let page = submit(&app, "/do/pull", &cookie, &with(form_token)).await;
    assert!(text(page).await.contains("Pull requested."));
    let page = submit(&app, "/do/retry", &cookie, &[("form_token", form_token)]).await;
    assert!(text(page).await.contains("5\u{a0}refused again"));
    let row = app.subscription().await.id.to_string();
    let page = submit(
        &app,
        "/do/restore",
        &cookie,
        &[("form_token", form_token), ("id", &row)],
    )
    .await;
    assert!(text(page).await.contains("Subscription confirmed."));
    let plan = get(&app, "/destinations?start=ledger").await;
    assert!(plan.contains("Deliver 60\u{a0}documents"), "{plan}");
    for (action, from) in [
        ("pause", ""),
        ("resume", ""),
        ("start", "all"),
        ("stop", ""),
        ("retry", ""),
    ] {
        let fields = [
            ("form_token", form_token),
            ("destination", "ledger"),
            ("action", action),
            ("from", from),
        ];
        let page = submit(&app, "/do/destination", &cookie, &fields).await;
        let notice = if action == "start" {
            "are delivered now."
        } else {
            "Done."
        };
        let page = text(page).await;
        assert!(
            page.contains(notice) || page.contains("is delivered now"),
            "{action}: {page}"
        );
    }
    let deliveries = get(&app, "/deliveries?destination=ledger&state=rejected").await;
    assert!(deliveries.contains("No deliveries."), "{deliveries}");
    let wrong = [
        ("form_token", form_token),
        ("destination", "nobody"),
        ("action", "pause"),
    ];
    assert_eq!(
        submit(&app, "/do/destination", &cookie, &wrong)
            .await
            .status(),
        404
    );
}

#[tokio::test]
async fn pages_require_a_login_and_respect_its_rights() {
    let app = filled(|_| {}).await;
    for path in PAGES {
        let page = app.anonymous_request(Method::GET, path).send().await;
        let page = text(page.expect("an answer")).await;
        assert!(page.contains("action=\"/login\""), "{path}");
        assert!(!page.contains("302320404"), "{path}");
    }
    let create = app
        .admin_request(Method::POST, "/v1/tokens")
        .header("content-type", "application/json")
        .body(r#"{"name":"reader","rights":"read"}"#);
    let created: Value =
        serde_json::from_str(&text(create.send().await.expect("an answer")).await).expect("JSON");
    let read = created["token"].as_str().expect("a token").to_owned();

    let (page, cookie) = page_before_login(&app, "/login").await;
    let wrong = [
        ("form_token", &*form_token(&page)),
        ("token", "iwh_guessed"),
    ];
    let answer = text(submit_with(&app, "/login", &cookie, &wrong).await).await;
    assert!(answer.contains("Unknown token."), "{answer}");

    let mut sessions = Vec::new();
    for token in [ADMIN_TOKEN, &read] {
        let answer = app
            .without_redirects()
            .post(format!("http://{}/login", app.config().admin.listen))
            .header("cookie", &cookie)
            .body(format!("form_token={}&token={token}", form_token(&page)))
            .send()
            .await
            .expect("an answer");
        assert_eq!(answer.status(), 303);
        let session = answer.headers()["set-cookie"].to_str().expect("text");
        assert!(!session.contains(token));
        sessions.push(session.split(';').next().expect("a pair").to_owned());
    }
    let feeds = async |cookie: &str| {
        let request = app
            .anonymous_request(Method::GET, "/feeds")
            .header("cookie", cookie);
        text(request.send().await.expect("an answer")).await
    };
    let with_admin = feeds(&sessions[0]).await;
    assert!(with_admin.contains("302320404") && with_admin.contains("/do/pause-feed"));
    let with_read = feeds(&sessions[1]).await;
    assert!(with_read.contains("302320404") && !with_read.contains("/do/pause-feed"));
    let pause = [
        ("form_token", &*form_token(&with_read)),
        ("account", "default"),
    ];
    assert_eq!(
        submit_with(&app, "/do/pause-feed", &sessions[1], &pause)
            .await
            .status(),
        403
    );

    let id = created["id"].as_i64().expect("a number");
    assert!(app.store.revoke_api_token(id).await.expect("revoked"));
    assert!(
        feeds(&sessions[1]).await.contains("action=\"/login\""),
        "its sessions end with it"
    );
    submit_with(
        &app,
        "/logout",
        &sessions[0],
        &[("form_token", &form_token(&with_admin))],
    )
    .await;
    assert!(feeds(&sessions[0]).await.contains("action=\"/login\""));
}

#[tokio::test]
async fn pages_send_security_headers() {
    let app = TestApp::spawn().await;
    for path in ["/", "/login", "/feeds", "/documents/99"] {
        let answer = app
            .admin_request(Method::GET, path)
            .send()
            .await
            .expect("an answer");
        let header = |name: &str| answer.headers()[name].to_str().expect("text").to_owned();
        let policy = header("content-security-policy");
        assert!(policy.starts_with("default-src 'none';"), "{policy}");
        assert!(
            !policy.contains("unsafe") && policy.contains("script-src 'self';"),
            "{policy}"
        );
        assert_eq!(header("cache-control"), "no-store");
        assert_eq!(header("x-content-type-options"), "nosniff");
    }
    let missing = app.admin_request(Method::GET, "/documents/99").send().await;
    assert_eq!(missing.expect("an answer").status(), 404);
}

/// What axe-core checks of a page: options of `axe.run`.
const ALL: &str = "{}";
const COLORS: &str = "{runOnly: ['color-contrast', 'link-in-text-block']}";
const ALL_BUT_COLORS: &str =
    "{rules: {'color-contrast': {enabled: false}, 'link-in-text-block': {enabled: false}}}";

/// Returns what axe-core checks of a page that is looked at in each language and color scheme, as far as it
/// differs: colors, which take most of the time, in one language, and all else in one color scheme.
pub(crate) fn checks_of(language: &str, dark: bool) -> Option<&'static str> {
    match (language, dark) {
        ("en", false) => Some(ALL),
        ("en", true) => Some(COLORS),
        (_, false) => Some(ALL_BUT_COLORS),
        (_, true) => None,
    }
}

/// Returns the faults of the page in the browser: too wide, errors in the console, and those that axe-core finds
/// with these checks.
pub(crate) async fn faults(
    browser: &mut Browser,
    axe: &str,
    checks: Option<&'static str>,
) -> Vec<String> {
    let mut faults = browser.errors().await;
    let wide = browser
        .evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        .await;
    if wide != 0 {
        faults.push(format!("{wide} px too wide"));
    }
    let Some(checks) = checks else {
        return faults;
    };
    browser.evaluate(&format!("{axe};0")).await;
    let run = format!(
        "axe.run(document, {{...{checks}, resultTypes: ['violations'], selectors: false}}).then(found => ({{
             passes: found.passes.length, violations: found.violations.map(
             one => one.id + ': ' + one.nodes.map(node => node.html).slice(0, 3).join(' | '))}}))"
    );
    let found = browser.evaluate(&run).await;
    let least = if checks == COLORS { 1 } else { 6 };
    assert!(
        found["passes"].as_u64() >= Some(least),
        "axe checks the page: {found}"
    );
    let violations = found["violations"].as_array().expect("a list");
    faults.extend(violations.iter().map(Value::to_string));
    faults
}

#[tokio::test]
async fn in_a_browser_every_page_is_accessible() {
    let test = "every page is accessible";
    let (Some(program), Some(axe)) = (chromium(test), axe(test)) else {
        return;
    };
    let app = filled(|_| {}).await;
    let page = |path: &str| format!("http://{}{path}", app.config().admin.listen);
    let mut pages: Vec<(&str, String)> = PAGES
        .map(|path| (path.trim_start_matches('/'), page(path)))
        .to_vec();
    pages[0].0 = "overview";
    pages.push(("document", page("/documents/7")));
    pages.push(("none", page("/documents?q=nothing")));
    let mut browser = Browser::start(&program).await;
    let mut found = Vec::new();
    for name in ["login", "open"] {
        browser.open(&page(&format!("/{name}"))).await;
        let faults = faults(&mut browser, &axe, Some(ALL)).await;
        found.extend(faults.iter().map(|fault| format!("{name}: {fault}")));
    }
    browser.open(&app.login_link().await).await;
    browser.tab_to_and_enter("Log in").await;
    for (shade, dark) in [("light", false), ("dark", true)] {
        for width in [1280, 360] {
            browser.set_viewport(Viewport { width, dark }).await;
            for language in ["en", "lt"] {
                for (name, address) in &pages {
                    let mark = if address.contains('?') { '&' } else { '?' };
                    browser
                        .open(&format!("{address}{mark}lang={language}"))
                        .await;
                    let name = format!("{name}-{language}-{width}-{shade}");
                    let checks = checks_of(language, dark);
                    let faults = faults(&mut browser, &axe, checks).await;
                    found.extend(faults.iter().map(|fault| format!("{name}: {fault}")));
                    browser.picture(&name).await;
                }
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));

    browser.open(&page("/documents/999")).await;
    // The error about its status, which is 404.
    assert_eq!(browser.errors().await.len(), 1);
    assert_eq!(faults(&mut browser, &axe, Some(ALL)).await, [""; 0]);
    browser
        .evaluate(
            "const heading = document.querySelector('h1');
             heading.innerHTML = '<img src=\"/icon.svg\"> <span>pale</span>';
             const style = heading.querySelector('span').style;
             [style.color, style.background] = ['#999', '#aaa']; 0",
        )
        .await;
    for (checks, expected) in [
        (ALL, [true, true]),
        (COLORS, [false, true]),
        (ALL_BUT_COLORS, [true, false]),
    ] {
        let faults = faults(&mut browser, &axe, Some(checks)).await;
        let is_found = ["image-alt", "color-contrast"]
            .map(|rule| faults.iter().any(|fault| fault.contains(rule)));
        assert_eq!(is_found, expected, "{checks}: {faults:?}");
    }
}

/// Opens the menu of a row.
async fn open_menu(browser: &mut Browser, row: &str) {
    let is_there = format!("document.activeElement.matches('summary[aria-label$={row:?}]')");
    while browser.evaluate(&is_there).await != true {
        browser.press("Tab").await;
    }
    browser.press(" ").await;
}

#[tokio::test]
async fn without_scripts_the_keyboard_logs_in_and_presses_buttons() {
    let Some(program) = chromium("the keyboard presses buttons") else {
        return;
    };
    let app = filled(|_| {}).await;
    let origin = format!("http://{}", app.config().admin.listen);
    let mut browser = Browser::start(&program).await;
    browser
        .call(
            "Emulation.setScriptExecutionDisabled",
            json!({"value": true}),
        )
        .await;
    browser
        .set_viewport(Viewport {
            width: 360,
            dark: false,
        })
        .await;

    browser.open(&format!("{origin}/feeds")).await;
    let address = "location.pathname + location.search";
    assert_eq!(browser.evaluate(address).await, "/login");
    while browser.evaluate("document.activeElement.id").await != "token" {
        browser.press("Tab").await;
    }
    browser.write(ADMIN_TOKEN).await;
    browser.tab_to_and_enter("Log in").await;
    assert_eq!(browser.evaluate(address).await, "/");

    browser.tab_to_and_enter("Companies").await;
    open_menu(&mut browser, "302320404").await;
    browser.tab_to_and_enter("Pause: 302320404").await;
    assert_eq!(browser.evaluate(address).await, "/feeds?notice=paused");
    let message = browser
        .evaluate("document.querySelector('[role=status]').textContent")
        .await;
    assert_eq!(message, "Paused.");
    let feeds = app.store.feeds().await.expect("readable");
    let paused = feeds.iter().filter(|row| row.paused.is_some()).count();
    assert_eq!(paused, 1);

    browser.tab_to_and_enter("Lietuviškai").await;
    open_menu(&mut browser, "302320404").await;
    browser.tab_to_and_enter("Tęsti: 302320404").await;
    let feeds = app.store.feeds().await.expect("readable");
    assert!(feeds.iter().all(|row| row.paused.is_none()));
    browser.tab_to_and_enter("Atsijungti").await;
    assert_eq!(browser.evaluate(address).await, "/login");
    assert_eq!(browser.errors().await, [""; 0]);
}

#[tokio::test]
async fn certificates_that_are_not_kept_are_not_denied() {
    let app = TestApp::spawn().await;
    let message = Message::notification(&app.sns);
    assert_eq!(app.deliver(&message).await.status(), 200);
    let page = get(&app, "/certificates").await;
    assert!(!page.contains("No message has been verified"), "{page}");
    assert!(
        page.contains(
            "Certificates of sns.local_origins, which stand in for Amazon SNS, are not kept."
        ),
        "{page}"
    );
}

#[tokio::test]
async fn the_digitized_queue_is_not_counted_as_a_company() {
    let app = TestApp::spawn().await;
    let account = default_account();
    let company = Company::parse("302320404").expect("a code");
    let feeds = vec![
        Feed::exported(account.clone(), company),
        Feed::digitized(account),
    ];
    let registered = app.store.register_feeds(feeds, app.clock.now()).await;
    registered.expect("registered");
    for path in ["/", "/feeds", "/feeds?q=default"] {
        let page = get(&app, path).await;
        assert!(page.contains("1\u{a0}company<"), "{path}: {page}");
    }
}
