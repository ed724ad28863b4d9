//! Who gets in, and for what: each attack on the admin listener, and what stops it.

use std::collections::BTreeMap;
use std::time::Duration;

use ivesk_webhook::admin;
use ivesk_webhook::app::App;
use ivesk_webhook::config::{Config, DestinationConfig, DestinationKind};
use ivesk_webhook::domain::{DestinationName, Event};
use ivesk_webhook::store::SharedStore;
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tower::ServiceExt as _;

use crate::support::app::{ADMIN_TOKEN, TestApp, code, json_of};
use crate::support::fake_sns::{FOREIGN_TOPIC, Message};
use crate::support::faults::Fault;
use crate::support::process::{Installation, client, this_user, within};

/// The loopback listener of a fresh installation: nobody has configured a token.
fn without_token(config: &mut Config) {
    config.admin.token = None;
}

fn add_list(config: &mut Config, name: &str) {
    let name = DestinationName::parse(name).unwrap();
    let list = DestinationConfig::of(DestinationKind::List);
    config.destinations.insert(name, list);
}

/// Creates a token; returns its id and text.
async fn token(app: &TestApp, name: &str, rights: &str) -> (i64, String) {
    let request = json!({"name": name, "rights": rights});
    let (status, created) = app.admin_post("/v1/tokens", &request).await;
    assert_eq!(status, 200, "{created}");
    let id = created["id"].as_i64().unwrap();
    (id, created["token"].as_str().unwrap().to_owned())
}

/// Sends a request with a token and an empty object.
async fn as_bearer(app: &TestApp, token: &str, method: Method, path: &str) -> Response {
    let request = app
        .anonymous_request(method, path)
        .bearer_auth(token)
        .header("content-type", "application/json")
        .body("{}");
    request.send().await.unwrap()
}

async fn document(app: &TestApp) -> Value {
    app.admin("/v1/openapi.json").await
}

/// Returns method, path and needed right of every operation.
async fn operations(app: &TestApp) -> Vec<(Method, String, Option<String>)> {
    let document = document(app).await;
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            let right = operation["security"][0]["bearer"][0].as_str();
            operations.push((method, path.clone(), right.map(str::to_owned)));
        }
    }
    assert!(operations.len() > 30, "{operations:?}");
    operations
}

fn filled_in(path: &str) -> String {
    path.replace("{id}", "1").replace("{name}", "ledger")
}

#[tokio::test]
async fn nobody_on_the_machine_gets_in_without_proof() {
    let with_token = TestApp::spawn().await;
    let app = TestApp::with(without_token).await;
    for (method, path, right) in operations(&with_token).await {
        let request = app
            .anonymous_request(method.clone(), &filled_in(&path))
            .header("content-type", "application/json")
            .body("{}");
        let answer = request.send().await.unwrap();
        let is_open = ["/healthz", "/readyz"].contains(&path.as_str());
        assert_eq!(right.is_none(), is_open, "{method} {path}");
        let expected = if is_open { 200 } else { 401 };
        assert_eq!(answer.status(), expected, "{method} {path}");
    }
    assert_eq!(app.store.api_tokens().await.unwrap().len(), 0);
    for path in ["/v1/nothing", "/nothing"] {
        let answer = app.anonymous_request(Method::GET, path).send().await;
        assert_eq!(answer.unwrap().status(), 401, "{path}");
    }
    let page = app.anonymous_request(Method::GET, "/documents").send();
    let page = page.await.unwrap();
    assert_eq!(page.url().path(), "/login");
}

#[tokio::test]
async fn without_a_token_only_loopback_names_are_answered() {
    let app = TestApp::with(without_token).await;
    for host in [
        "rebound.example:8081",
        "127.0.0.1:rebound.example",
        "[::1]rebound.example",
    ] {
        for path in ["/v1/status", "/metrics", "/v1/nothing", "/", "/login"] {
            let request = app.anonymous_request(Method::GET, path);
            let answer = request.header("host", host).send().await.unwrap();
            let answer = code(answer).await;
            assert_eq!(answer, (403, "foreign_host".to_owned()), "{host} {path}");
        }
    }
}

#[tokio::test]
async fn with_a_token_only_health_is_open() {
    let app = TestApp::spawn().await;
    for path in ["/v1/status", "/metrics", "/v1/feeds", "/v1/quarantine"] {
        let bare = app.anonymous_request(Method::GET, path).send().await;
        let bare = bare.unwrap();
        let scheme = bare.headers()["www-authenticate"].to_str().unwrap();
        assert!(scheme.starts_with("Bearer"), "{scheme}");
        assert_eq!(code(bare).await, (401, "unauthorized".to_owned()), "{path}");
        let wrong = as_bearer(&app, "private-tokem", Method::GET, path).await;
        assert_eq!(wrong.status(), 401, "{path}");
        let other_scheme = app
            .anonymous_request(Method::GET, path)
            .header("authorization", "Basic eDp5");
        assert_eq!(other_scheme.send().await.unwrap().status(), 401);
        let right = app.admin_request(Method::GET, path).send().await.unwrap();
        assert_eq!(right.status(), 200, "{path}");
        assert_eq!(right.headers()["cache-control"], "no-store", "{path}");
        assert_eq!(right.headers()["x-content-type-options"], "nosniff");
    }
    for path in ["/healthz", "/readyz"] {
        let bare = app.anonymous_request(Method::GET, path).send().await;
        assert_eq!(bare.unwrap().status(), 200, "{path}");
    }
}

/// Opens a connection to the admin listener and sends the first bytes of a request.
async fn connect(app: &TestApp, first_bytes: &str) -> TcpStream {
    let mut stream = TcpStream::connect(app.config().admin.listen).await.unwrap();
    stream.write_all(first_bytes.as_bytes()).await.unwrap();
    stream
}

/// Returns the first line of an answer.
async fn first_line(stream: &mut TcpStream) -> String {
    let mut bytes = vec![0; 4096];
    let length = within("an answer", stream.read(&mut bytes)).await.unwrap();
    let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
    text.lines().next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn stalled_bodies_do_not_close_the_listener() {
    let app = TestApp::spawn().await;
    let stalled = |token: &str| {
        format!(
            "POST /v1/pull HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n\
             content-type: application/json\r\ncontent-length: 1000\r\n\r\n{{"
        )
    };
    let mut open = Vec::new();
    for _ in 0..64 {
        let mut stream = connect(&app, &stalled("unknown")).await;
        // Strangers are answered before their body arrives.
        let line = first_line(&mut stream).await;
        assert!(line.contains(" 401 ") || line.contains(" 429 "), "{line}");
        open.push(stream);
    }
    for _ in 0..47 {
        // Those with a token have a deadline, and may not take every place.
        open.push(connect(&app, &stalled(ADMIN_TOKEN)).await);
    }
    drop(open);
    let answer = app.anonymous_request(Method::GET, "/healthz").send();
    assert_eq!(within("an answer", answer).await.unwrap().status(), 200);
}

#[tokio::test]
async fn origin_and_cookie_are_checked_before_the_body() {
    let app = TestApp::spawn().await;
    let secret = "planted";
    for (path, headers) in [
        // Another site's page, with the viewer's own cookie.
        (
            "/login",
            format!("cookie: ivesk_session={secret}\r\norigin: http://evil.example"),
        ),
        // A form without the cookie that it belongs to.
        ("/login", "accept: */*".to_owned()),
        ("/open", "accept: */*".to_owned()),
        // A page that posts JSON with a script.
        (
            "/v1/pull",
            format!(
                "authorization: Bearer {ADMIN_TOKEN}\r\ncontent-type: application/json\r\norigin: http://evil.example"
            ),
        ),
    ] {
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\n{headers}\r\ncontent-length: 60000\r\n\r\n{{"
        );
        let mut stream = connect(&app, &head).await;
        let line = first_line(&mut stream).await;
        assert!(line.contains(" 403 ") || line.contains(" 415 "), "{line}");
    }
}

#[tokio::test]
async fn a_command_sends_no_token_to_whoever_holds_the_port() {
    let installation = Installation::alone("");
    let thief = tokio::net::TcpListener::bind(("127.0.0.1", installation.admin_port())).await;
    let thief = thief.unwrap();
    for arguments in [&["feeds", "list"][..], &["tokens", "list"], &["open"]] {
        let command = installation.run(arguments);
        tokio::select! {
            (_, printed, errors) = command => {
                assert!(!printed.contains("http://"), "{arguments:?}: {printed} {errors}");
            }
            caller = thief.accept() => panic!("{arguments:?} called the port: {caller:?}"),
        }
    }
}

#[tokio::test]
async fn another_user_of_the_machine_may_not_use_the_socket() {
    use std::os::unix::fs::PermissionsExt as _;
    if !rustix::process::geteuid().is_root() {
        // Only root can run a program as another user.
        return;
    }
    let installation = Installation::alone("");
    let server = installation.start().await;
    let everybody = |mode| std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(installation.folder(), everybody(0o755)).unwrap();
    std::fs::set_permissions(installation.settings(), everybody(0o644)).unwrap();

    for arguments in [&["feeds", "list"][..], &["open"]] {
        let mut command = installation.command(arguments);
        command.uid(65_534).gid(65_534);
        let output = within("its exit", command.output()).await.unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{errors}");
        assert!(
            errors.contains("may not use the server's socket"),
            "{errors}"
        );
        assert!(output.stdout.is_empty());
    }
    let (code, link, errors) = installation.run(&["open"]).await;
    assert_eq!(code, Some(0), "{errors}");
    assert!(link.starts_with("http://127.0.0.1:"), "{link}");
    drop(server);
}

#[tokio::test]
async fn serve_prints_the_command_and_never_a_link() {
    let installation = Installation::alone("");
    let server = installation.start().await;
    let (_, link, _) = installation.run(&["open"]).await;
    assert!(link.contains("/open?link="), "{link}");
    let log = server.log();
    let printed = server.stop_and_read().await;
    assert!(printed.contains("`ivesk-webhook open`"), "{printed}");
    let secret = link.trim().split_once("link=").unwrap().1;
    for text in [&printed, &log] {
        assert!(
            !text.contains("/open?link=") && !text.contains(secret),
            "{text}"
        );
    }
    assert!(!installation.folder().join("ivesk-webhook.db.sock").exists());
}

/// A browser: one cookie, no redirects.
struct Browser {
    client: reqwest::Client,
    cookie: String,
}

impl Browser {
    fn new(app: &TestApp) -> Self {
        Self {
            client: app.without_redirects(),
            cookie: String::new(),
        }
    }

    async fn get(&mut self, url: &str) -> (StatusCode, String) {
        let request = self.client.get(url).header("cookie", &self.cookie);
        self.answer(request.send().await.unwrap()).await
    }

    async fn post(&mut self, url: &str, fields: &[(&str, &str)]) -> (StatusCode, String) {
        let body = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(fields)
            .finish();
        let request = self.client.post(url).header("cookie", &self.cookie);
        self.answer(request.body(body).send().await.unwrap()).await
    }

    async fn answer(&mut self, answer: Response) -> (StatusCode, String) {
        if let Some(cookie) = answer.headers().get("set-cookie") {
            let cookie = cookie.to_str().unwrap().split(';').next();
            self.cookie = cookie.unwrap().to_owned();
        }
        (answer.status(), answer.text().await.unwrap())
    }

    /// Opens a login link and presses its button.
    async fn use_link(&mut self, link: &str) -> StatusCode {
        let (status, page) = self.get(link).await;
        assert_eq!(status, 200, "{page}");
        let (address, secret) = link.split_once("?link=").unwrap();
        let fields = [("form_token", form_token(&page)), ("link", secret)];
        self.post(address, &fields).await.0
    }
}

fn form_token(page: &str) -> &str {
    let rest = page.split_once("name=\"form_token\" value=\"").unwrap().1;
    rest.split_once('"').unwrap().0
}

#[tokio::test]
async fn a_login_link_works_once_by_its_button() {
    let app = TestApp::spawn().await;
    let link = app.login_link().await;
    let feeds = format!("http://{}/feeds", app.config().admin.listen);
    // Programs that look at links, such as those of chats, use up nothing.
    for _ in 0..3 {
        assert_eq!(Browser::new(&app).get(&link).await.0, 200);
    }
    let mut browser = Browser::new(&app);
    assert_eq!(browser.get(&feeds).await.0, 303);
    assert_eq!(browser.use_link(&link).await, 303);
    assert_eq!(browser.get(&feeds).await.0, 200);

    let mut thief = Browser::new(&app);
    assert_eq!(thief.use_link(&link).await, 403);
    assert_eq!(thief.get(&feeds).await.0, 303);

    let late = app.login_link().await;
    app.clock.advance(Duration::from_secs(600));
    assert_eq!(thief.use_link(&late).await, 403);

    app.clock.advance(Duration::from_secs(12 * 3600));
    assert_eq!(browser.get(&feeds).await.0, 303, "the session has ended");
}

#[tokio::test]
async fn only_hashes_of_links_and_sessions_are_stored() {
    let app = TestApp::spawn().await;
    let link = app.login_link().await;
    let mut browser = Browser::new(&app);
    let unused = app.login_link().await;
    assert_eq!(browser.use_link(&link).await, 303);
    let secret = browser.cookie.split_once('=').unwrap().1;
    let unused = unused.split_once("link=").unwrap().1;
    for file in std::fs::read_dir(app.dir()).unwrap() {
        let path = file.unwrap().path();
        if let Ok(bytes) = std::fs::read(&path) {
            for secret in [secret, unused, ADMIN_TOKEN] {
                let found = bytes
                    .windows(secret.len())
                    .any(|part| part == secret.as_bytes());
                assert!(!found, "{}", path.display());
            }
        }
    }
}

#[tokio::test]
async fn a_session_is_known_to_every_replica() {
    let app = TestApp::spawn().await;
    let mut browser = Browser::new(&app);
    assert_eq!(browser.use_link(&app.login_link().await).await, 303);
    let feeds = format!("http://{}/feeds", app.config().admin.listen);
    let (_, page) = browser.get(&feeds).await;

    let store: SharedStore = app.store.clone();
    let other = App::assemble(app.config(), store, app.clock.clone()).unwrap();
    let other = admin::router(other);
    let request = axum::http::Request::post("/do/pull")
        .header("cookie", &browser.cookie)
        .header("host", "localhost")
        .body(axum::body::Body::from(format!(
            "form_token={}",
            form_token(&page)
        )))
        .unwrap();
    let answer = other.oneshot(request).await.unwrap();

    assert_eq!(answer.status(), 303);
    assert_eq!(answer.headers()["location"], "/feeds?notice=pulling");
}

#[tokio::test]
async fn behind_tls_a_browser_gets_a_secure_cookie() {
    let app = TestApp::spawn().await;
    let request = app.anonymous_request(Method::GET, "/login");
    let answer = request.header("x-forwarded-proto", "https").send().await;
    let answer = answer.unwrap();
    let cookie = answer.headers()["set-cookie"].to_str().unwrap().to_owned();
    assert!(cookie.starts_with("__Host-ivesk_session="), "{cookie}");
    assert!(cookie.contains("; Secure"), "{cookie}");
    let page = answer.text().await.unwrap();

    let login = app
        .without_redirects()
        .post(format!("http://{}/login", app.config().admin.listen))
        .header("cookie", cookie.split(';').next().unwrap())
        .header("host", "admin.example.lt")
        .header("origin", "https://admin.example.lt")
        .body(format!(
            "form_token={}&token={ADMIN_TOKEN}",
            form_token(&page)
        ));
    let login = login.send().await.unwrap();
    assert_eq!(login.status(), 303);
    let session = login.headers()["set-cookie"].to_str().unwrap();
    assert!(session.starts_with("__Host-ivesk_session="), "{session}");
}

#[tokio::test]
async fn each_right_opens_its_routes_and_no_others() {
    let app = TestApp::with(|config| add_list(config, "ledger")).await;
    let ladder = ["metrics", "read", "operate", "admin"];
    let mut tokens = BTreeMap::new();
    for rights in ladder.into_iter().chain(["destination:ledger"]) {
        tokens.insert(rights, token(&app, rights, rights).await.1);
    }
    // What is wrong with the requests themselves is found only after the rights.
    let mut checked = 0;
    for (method, path, needed) in operations(&app).await {
        let Some(needed) = needed else { continue };
        if ["tokens", "login-links", "backup"]
            .iter()
            .any(|part| path.contains(part))
        {
            assert_eq!(needed, "admin", "{path}");
        }
        for (rights, token) in &tokens {
            let position = |rights: &str| ladder.iter().position(|step| *step == rights);
            let permitted = match (position(rights), position(&needed)) {
                (Some(has), Some(needs)) => has >= needs,
                (Some(has), None) => has >= 2,
                (None, _) => needed == "destination:NAME",
            };
            // The body is no JSON, so nothing is changed.
            let answer = app
                .anonymous_request(method.clone(), &filled_in(&path))
                .bearer_auth(token)
                .header("content-type", "application/json")
                .body("?");
            let answer = answer.send().await.unwrap();
            let status = answer.status();
            let body = answer.text().await.unwrap();
            let refused = status == 403 && body.contains("missing_right");
            assert_eq!(refused, !permitted, "{rights} {method} {path}: {status}");
            checked += 1;
        }
    }
    assert!(checked > 150, "{checked}");
}

#[tokio::test]
async fn a_token_can_not_read_or_report_to_another_list() {
    let app = TestApp::with(|config| {
        add_list(config, "ledger");
        add_list(config, "archive");
    })
    .await;
    let (_, ledger) = token(&app, "till", "destination:ledger").await;
    let get = async |path: &str| as_bearer(&app, &ledger, Method::GET, path).await;
    assert_eq!(get("/v1/documents").await.status(), 200, "its own");
    let own = get("/v1/documents?destination=ledger").await;
    assert_eq!(own.status(), 200);
    let other = get("/v1/documents?destination=archive").await;
    assert_eq!(code(other).await, (403, "missing_right".to_owned()));
    let report = app
        .anonymous_request(Method::POST, "/v1/documents/1/outcome")
        .bearer_auth(&ledger)
        .header("content-type", "application/json")
        .body(json!({"destination": "archive", "outcome": "delivered"}).to_string());
    let report = report.send().await.unwrap();
    assert_eq!(code(report).await, (403, "missing_right".to_owned()));
    for path in ["/v1/status", "/metrics", "/v1/tokens", "/v1/deliveries"] {
        assert_eq!(get(path).await.status(), 403, "{path}");
    }
    let unknown = json!({"name": "x", "rights": "destination:nobody"});
    assert_eq!(app.admin_post("/v1/tokens", &unknown).await.0, 400);
}

#[tokio::test]
async fn a_read_token_sees_no_token_and_no_link() {
    let app = TestApp::with(|config| add_list(config, "ledger")).await;
    let (_, read) = token(&app, "auditor", "read").await;
    app.deliver(&Message::confirmation(&app.sns)).await;
    app.deliver(&Message::ended(&app.sns)).await;
    app.deliver(&Message::notification(&app.sns)).await;
    app.deliver(&Message::confirmation(&app.sns).of_topic(FOREIGN_TOPIC))
        .await;
    app.deliver(&Message::notification(&app.sns).of_topic(FOREIGN_TOPIC))
        .await;
    app.quarantine().await;
    let link = "https://files.example.lt/1.pdf?X-Amz-Signature=planted-signature";
    let document = json!({"id": "7f3a", "docnum": "SF-1", "filepath": link, "total": "1.00"});
    app.store_documents(&[document]).await;
    const SECRETS: [&str; 6] = [
        "\"SubscribeURL\"",
        "\"UnsubscribeURL\"",
        "\"Token\"",
        "Token=",
        "planted-signature",
        "X-Amz-",
    ];

    let mut seen = 0;
    for (method, path, _) in operations(&app).await {
        if method != Method::GET {
            continue;
        }
        for query in ["", "?q=7f3a"] {
            let path = format!("{}{query}", filled_in(&path));
            let answer = as_bearer(&app, &read, Method::GET, &path).await;
            seen += u32::from(answer.status() == 200);
            let text = answer.text().await.unwrap();
            if path.contains("openapi") {
                continue;
            }
            for secret in SECRETS {
                assert!(!text.contains(secret), "{path} holds {secret}: {text}");
            }
        }
    }
    assert!(seen > 15, "{seen}");
    for path in ["/v1/notifications/1", "/v1/quarantine/1"] {
        let refused = as_bearer(&app, &read, Method::GET, path).await;
        assert_eq!(code(refused).await, (403, "missing_right".to_owned()));
        let (status, _) = json_of(app.admin_request(Method::GET, path).send().await.unwrap()).await;
        assert_eq!(status, 200, "{path}");
    }
    for path in [
        "/",
        "/documents",
        "/documents/1",
        "/quarantine",
        "/subscriptions",
    ] {
        let page = as_bearer(&app, &read, Method::GET, path).await;
        assert_eq!(page.status(), 200, "{path}");
        let page = page.text().await.unwrap();
        for secret in ["SubscribeURL", "Token=", "planted-signature", "X-Amz-"] {
            assert!(!page.contains(secret), "{path} holds {secret}");
        }
    }
}

#[tokio::test]
async fn a_stored_token_has_its_rights_until_it_is_revoked() {
    let app = TestApp::spawn().await;
    let (reader, read) = token(&app, "the monitoring", "read").await;
    let (_, operate) = token(&app, "the bookkeeper", "operate").await;
    for bearer in [&read, &operate] {
        let status = as_bearer(&app, bearer, Method::GET, "/v1/status").await;
        assert_eq!(status.status(), 200);
        let tokens = as_bearer(&app, bearer, Method::GET, "/v1/tokens").await;
        assert_eq!(code(tokens).await, (403, "missing_right".to_owned()));
    }
    let pull = "/v1/pull";
    let refused = as_bearer(&app, &read, Method::POST, pull).await;
    assert_eq!(code(refused).await, (403, "missing_right".to_owned()));
    let pulled = as_bearer(&app, &operate, Method::POST, pull).await;
    assert_eq!(pulled.status(), 200);

    let listed = app.admin("/v1/tokens").await;
    assert_eq!(listed["rows"][0]["name"], "the monitoring");
    assert_eq!(listed["rows"][1]["rights"], "operate");
    assert!(!listed.to_string().contains(&read[4..]), "{listed}");

    let revoke = format!("/v1/tokens/{reader}/revoke");
    assert_eq!(app.admin_post(&revoke, &json!({})).await.0, 200);
    let revoked = as_bearer(&app, &read, Method::GET, "/v1/status").await;
    assert_eq!(code(revoked).await, (401, "unauthorized".to_owned()));
    assert_eq!(app.admin_post(&revoke, &json!({})).await.0, 404);
}

#[tokio::test]
async fn token_names_are_unique_and_only_hashes_are_stored() {
    let app = TestApp::spawn().await;
    let (_, first) = token(&app, "till", "operate").await;
    assert!(first.len() > 40 && first.starts_with("iwh_"), "{first}");
    for (name, expected) in [("till", 409), (" till ", 409), ("", 400), ("a\nb", 400)] {
        let request = json!({"name": name, "rights": "read"});
        let (status, problem) = app.admin_post("/v1/tokens", &request).await;
        assert_eq!(status, expected, "{name:?}: {problem}");
    }
    let rows = app.store.api_tokens().await.unwrap();
    assert_eq!(rows.len(), 1);
    assert!(!format!("{rows:?}").contains(&first[4..]));
}

#[tokio::test]
async fn a_token_ends_at_its_time_with_its_sessions() {
    let app = TestApp::spawn().await;
    let end = app.clock.now().after(Duration::from_secs(3600)).to_string();
    let request = json!({"name": "a month", "rights": "read", "expires_at": end});
    let (_, created) = app.admin_post("/v1/tokens", &request).await;
    let token = created["token"].as_str().unwrap();
    let login = format!("http://{}/login", app.config().admin.listen);
    let mut browser = Browser::new(&app);
    let (_, page) = browser.get(&login).await;
    let fields = [("form_token", form_token(&page)), ("token", token)];
    assert_eq!(browser.post(&login, &fields).await.0, 303);
    let feeds = login.replace("/login", "/feeds");
    assert_eq!(browser.get(&feeds).await.0, 200);
    let used = as_bearer(&app, token, Method::GET, "/v1/status").await;
    assert_eq!(used.status(), 200);
    // Recorded beside the request.
    within("the last use", async {
        loop {
            let rows = app.store.api_tokens().await.unwrap();
            if rows[0].last_used_at.is_some() {
                break;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    let listed = app.admin("/v1/tokens").await;
    assert_eq!(listed["rows"][0]["expires_at"], end);

    app.clock.advance(Duration::from_secs(3600));
    let expired = as_bearer(&app, token, Method::GET, "/v1/status").await;
    assert_eq!(code(expired).await, (401, "token_expired".to_owned()));
    assert_eq!(browser.get(&feeds).await.0, 303);
    for wrong in ["2020-01-01T00:00:00Z", "soon"] {
        let request = json!({"name": "x", "rights": "read", "expires_at": wrong});
        assert_eq!(app.admin_post("/v1/tokens", &request).await.0, 400);
    }
}

#[tokio::test]
async fn links_of_a_token_end_with_it_and_so_do_their_sessions() {
    let app = TestApp::spawn().await;
    let end = app.clock.now().after(Duration::from_secs(300)).to_string();
    let request = json!({"name": "five minutes", "rights": "admin", "expires_at": end});
    let (_, created) = app.admin_post("/v1/tokens", &request).await;
    let token = created["token"].as_str().unwrap();
    let link = async || {
        let request = app
            .anonymous_request(Method::POST, "/v1/login-links")
            .bearer_auth(token)
            .header("content-type", "application/json")
            .body(r#"{"rights": "read"}"#);
        let (_, link) = json_of(request.send().await.unwrap()).await;
        assert_eq!(link["expires_at"], end);
        let path = link["path"].as_str().unwrap();
        format!("http://{}{path}", app.config().admin.listen)
    };
    let (used, unused) = (link().await, link().await);
    let mut browser = Browser::new(&app);
    assert_eq!(browser.use_link(&used).await, 303);
    let feeds = format!("http://{}/feeds", app.config().admin.listen);
    assert_eq!(browser.get(&feeds).await.0, 200);
    app.clock.advance(Duration::from_secs(300));
    assert_eq!(browser.get(&feeds).await.0, 303);
    assert_eq!(Browser::new(&app).use_link(&unused).await, 403);
}

#[tokio::test]
async fn strangers_do_not_lock_out_the_right_token() {
    let app = TestApp::spawn().await;
    let (_, stored) = token(&app, "monitoring", "metrics").await;
    let mut limited = 0;
    for number in 0..30 {
        let guess = format!("iwh_guess-{number}");
        let answer = as_bearer(&app, &guess, Method::GET, "/metrics").await;
        if answer.status() == 429 {
            assert!(answer.headers().contains_key("retry-after"));
            limited += 1;
        } else {
            assert_eq!(answer.status(), 401);
        }
    }
    assert_eq!(limited, 20);
    for right in [ADMIN_TOKEN, &stored] {
        let answer = as_bearer(&app, right, Method::GET, "/metrics").await;
        assert_eq!(answer.status(), 200);
    }
    let link = app.login_link().await;
    assert_eq!(Browser::new(&app).use_link(&link).await, 303);
}

#[tokio::test]
async fn actions_are_kept_in_the_audit_list_without_secrets() {
    let app = TestApp::spawn().await;
    let (id, operate) = token(&app, "till", "operate").await;
    as_bearer(&app, &operate, Method::POST, "/v1/pull").await;
    as_bearer(&app, &operate, Method::GET, "/v1/status").await;
    as_bearer(&app, &operate, Method::POST, "/v1/feeds/pause").await;
    let pause = json!({"account": "default"});
    assert_eq!(app.admin_post("/v1/feeds/pause", &pause).await.0, 200);
    let mut browser = Browser::new(&app);
    assert_eq!(browser.use_link(&app.login_link().await).await, 303);
    let feeds = format!("http://{}/feeds", app.config().admin.listen);
    let (_, page) = browser.get(&feeds).await;
    let fields = [("form_token", form_token(&page)), ("account", "default")];
    let resume = feeds.replace("/feeds", "/do/resume");
    assert_eq!(browser.post(&resume, &fields).await.0, 303);
    app.admin_post(&format!("/v1/tokens/{id}/revoke"), &json!({}))
        .await;

    let page = app.admin("/v1/audit").await;
    let rows = page["rows"].as_array().unwrap();
    let text = |row: &Value, field: &str| row[field].as_str().unwrap().to_owned();
    let actions: Vec<_> = rows.iter().map(|row| text(row, "action")).collect();
    assert_eq!(
        actions,
        [
            "tokens revoke",
            "feeds resume",
            "log in",
            "open",
            "feeds pause",
            "pull",
            "tokens create"
        ]
    );
    assert_eq!(text(&rows[5], "actor"), format!("token:{id}:till"));
    assert!(text(&rows[4], "actor").starts_with("token_file:"));
    assert_eq!(text(&rows[4], "subject"), "account=default");
    assert_eq!(text(&rows[6], "subject"), "name=till rights=operate");
    let cookie = browser.cookie.split_once('=').unwrap().1;
    let list = page.to_string();
    assert!(!list.contains(&operate[4..]) && !list.contains(cookie));

    let first = app.admin("/v1/audit?limit=3").await;
    let next = first["next"].as_str().unwrap();
    let second = app.admin(&format!("/v1/audit?limit=10&after={next}")).await;
    assert_eq!(second["rows"].as_array().unwrap().len(), 4);
    let shown = app
        .admin_request(Method::GET, "/audit")
        .send()
        .await
        .unwrap();
    let shown = shown.text().await.unwrap();
    assert!(shown.contains(&format!("token:{id}:till")), "{shown}");
}

/// Sends a request, and closes the connection while what it asks for waits for the store, until `action` is in the
/// audit list: whatever else is written may let it leave too early. Returns what the list names as its subject.
async fn send_and_leave(app: &TestApp, head: &str, body: &str, action: &str) -> String {
    let length = body.len();
    let request = format!("{head}\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}");
    let listed = async {
        loop {
            app.faults.hold_writes();
            let before = app.faults.writes();
            let mut client = TcpStream::connect(app.config().admin.listen).await.unwrap();
            client.write_all(request.as_bytes()).await.unwrap();
            while app.faults.writes() == before {
                tokio::task::yield_now().await;
            }
            client.shutdown().await.unwrap();
            // The listener closes it too: nobody waits for the answer any more.
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.unwrap();
            assert!(answer.is_empty(), "{}", String::from_utf8_lossy(&answer));
            app.faults.release_writes();
            // What waited is written before this.
            app.store.end_session([0; 32]).await.unwrap();
            let page = app.admin("/v1/audit").await;
            let rows = page["rows"].as_array().unwrap();
            if let Some(row) = rows.iter().find(|row| row["action"] == action) {
                return row["subject"].as_str().unwrap().to_owned();
            }
        }
    };
    within("the action in the list", listed).await
}

#[tokio::test]
async fn what_is_done_for_clients_that_left_is_in_the_audit_list() {
    let app = TestApp::spawn().await;
    let mut browser = Browser::new(&app);
    assert_eq!(browser.use_link(&app.login_link().await).await, 303);
    let feeds = format!("http://{}/feeds", app.config().admin.listen);
    let (_, page) = browser.get(&feeds).await;
    let head = format!(
        "POST /v1/feeds/pause HTTP/1.1\r\nAuthorization: Bearer {ADMIN_TOKEN}\r\nContent-Type: application/json"
    );
    let body = json!({"account": "default"}).to_string();
    let paused = send_and_leave(&app, &head, &body, "feeds pause").await;
    assert_eq!(paused, "account=default");
    let head = format!("POST /do/resume HTTP/1.1\r\nCookie: {}", browser.cookie);
    // What the action doesn't read is not listed, and hides nothing.
    let padding = "z".repeat(400);
    let token = form_token(&page);
    let body =
        format!("pad={padding}&form_token={token}&account=default&queue=digitized&account=other");
    let resumed = send_and_leave(&app, &head, &body, "feeds resume").await;
    assert_eq!(resumed, "account=default queue=digitized");
}

#[tokio::test]
async fn an_action_that_failed_is_listed_as_such() {
    let app = TestApp::spawn().await;
    app.faults.set(Some(Fault::AnswerLost));
    let pause = json!({"account": "default"});
    assert_eq!(app.admin_post("/v1/feeds/pause", &pause).await.0, 503);
    app.faults.set(None);
    let page = app.admin("/v1/audit").await;
    assert_eq!(page["rows"][0]["action"], "feeds pause");
    assert_eq!(
        page["rows"][0]["detail"],
        "answered 503, part of it may be done"
    );
}

#[tokio::test]
async fn a_user_of_the_socket_is_named_in_the_audit_list() {
    let installation = Installation::alone("");
    let server = installation.start().await;
    let arguments = ["tokens", "create", "--name", "till", "--rights", "read"];
    let (code, _, errors) = installation.run(&arguments).await;
    assert_eq!(code, Some(0), "{errors}");
    let (code, listed, errors) = installation.run(&["audit", "list"]).await;
    assert_eq!(code, Some(0), "{errors}");
    let user = this_user();
    assert!(
        listed.contains(&user) && listed.contains("tokens create"),
        "{listed}"
    );
    server.terminate();
    server.exited().await;

    // Without a server the command does the same in its own process.
    let (code, listed, _) = installation.run(&["audit", "list", "--json"]).await;
    assert_eq!(code, Some(0));
    let rows: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(rows[0]["actor"], user);
}

/// Returns the memory that a process holds now, in bytes.
fn memory_bytes(process: rustix::process::Pid) -> u64 {
    let path = format!("/proc/{}/status", process.as_raw_nonzero());
    let status = std::fs::read_to_string(path).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS"));
    let kib = line.unwrap().split_whitespace().nth(1).unwrap();
    kib.parse::<u64>().unwrap() * 1024
}

#[tokio::test]
async fn lists_of_large_messages_take_little_memory() {
    let installation = Installation::alone("");
    let server = installation.start().await;
    let webhook = installation.webhook(Event::OnExported);
    let large = "x".repeat(100 * 1024);
    for _ in 0..300 {
        let refused = client().post(&webhook).body(large.clone()).send().await;
        assert_eq!(refused.unwrap().status(), 400);
    }
    let before = memory_bytes(server.pid());
    let mut most = before;
    let mut listed = 0;
    for path in ["/v1/quarantine?limit=500", "/quarantine"] {
        for _ in 0..5 {
            let list = installation.admin_request(Method::GET, path).send().await;
            let list = list.unwrap();
            assert_eq!(list.status(), 200);
            let text = list.text().await.unwrap();
            most = most.max(memory_bytes(server.pid()));
            let json: Value = serde_json::from_str(&text).unwrap_or_default();
            let rows = json["rows"].as_array().into_iter().flatten();
            listed += rows
                .filter_map(|row| row["size_bytes"].as_u64())
                .sum::<u64>();
        }
    }
    let stored = listed / 5;
    assert!(stored > 20 << 20, "{stored}");
    let grown = most - before;
    assert!(grown < stored / 2, "{grown} bytes for a list of {stored}");
}
