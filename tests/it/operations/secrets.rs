//! Secrets: with trace logs and planted secrets, none appears in a log, an answer, a page, or
//! a text that the store keeps.

use std::time::Duration;

use ivesk_webhook::domain::{Event, Queue};
use ivesk_webhook::emulator::faults::{Fault, FaultKind};
use ivesk_webhook::emulator::{
    AccountSettings, Control, DEFAULT_COMPANIES, Emulator, EmulatorSettings, Endpoint, Publication,
    Switches, Tamper,
};
use ivesk_webhook::store::DocumentFilter;
use reqwest::StatusCode;
use serde_json::{Map, Value};

use crate::support::databases::{Database, query_sql};
use crate::support::emulator::emulator_with;
use crate::support::process::{Installation, Server, client, within};
use crate::support::stand_in::{Answer, StandIn};

const API_KEY: &str = "planted5e7-api-key-0123456789";
const EXPORTED_TOKEN: &str = "planted5e7-path-token-exported-0123456789abc";
const DIGITIZED_TOKEN: &str = "planted5e7-path-token-digitized-0123456789ab";
const PRIVATE_TOKEN: &str = "planted5e7-private-token-0123456789abcdef";
const STORE_PASSWORD: &str = "planted5e7-store-password";
const DOCUMENT: &str = "planted5e7-document-content";
const FILE: &str = "planted5e7-file-content";
const ALARM_PATH: &str = "/hooks/planted5e7-alarm-address";
const DESTINATION_SECRET: &str = "whsec_cGxhbnRlZDVlNy1zaW5rLXNlY3JldC0wMTIzNDU2Nzg5";

/// Parts of the planted secrets, the destination's in base64 too, and of links and
/// confirmations, which are secrets themselves.
const NEVER: [&str; 7] = [
    "planted5e7",
    "cGxhbnRlZDVlNy1",
    // Links of the emulator's storage and of any other.
    "ASIAEMULATOR",
    "Signature=",
    "X-Amz-",
    "Action=ConfirmSubscription",
    "Token=",
];

/// Answers that hold messages and documents, as no other may.
const HOLD_CONTENT: [&str; 3] = [
    "/v1/notifications/{id}",
    "/v1/quarantine/{id}",
    "/v1/destinations/{name}/documents",
];

/// All outputs, with their places.
#[derive(Default)]
struct Outputs(Vec<(String, String)>);

impl Outputs {
    fn add(&mut self, place: impl Into<String>, text: impl Into<String>) {
        self.0.push((place.into(), text.into()));
    }

    /// Asserts that no output holds one of `secrets`.
    fn assert_without(&self, secrets: &[String]) {
        for (place, text) in &self.0 {
            for secret in secrets {
                let line = text.lines().find(|line| line.contains(secret.as_str()));
                assert_eq!(line, None, "{place} holds `{secret}`");
            }
        }
    }
}

/// An installation with every kind of secret.
struct Scene {
    emulator: Emulator,
    installation: Installation,
    database: Option<Database>,
    alarms: StandIn,
    format: &'static str,
    outputs: Outputs,
}

impl Scene {
    async fn new(format: &'static str, database: Option<Database>) -> Self {
        let settings = EmulatorSettings {
            accounts: vec![AccountSettings {
                key: API_KEY.to_owned(),
                companies: DEFAULT_COMPANIES.map(str::to_owned).to_vec(),
            }],
            switches: Switches::parse("page_size=7,time_scale=0.002").expect("switches that exist"),
            ..EmulatorSettings::default()
        };
        let emulator = emulator_with(settings).await;
        let alarms = StandIn::start((0..100).map(|_| Answer::status(500, "no"))).await;
        let destination = StandIn::start((0..100).map(|_| Answer::status(500, "no"))).await;
        let store = match &database {
            Some(database) => format!("url = \"{}\"\n", database.url_text()),
            // The alarm `disk` is on below twice this, and messages are refused below it.
            None => format!("min_free_bytes = {}\n", free_bytes() / 3 * 2),
        };
        let sections = format!(
            "[store]\n{store}[log]\nlevel = \"trace\"\nformat = \"{format}\"\n\
             [alarms]\nurl = \"{}\"\n\
             [upload]\nwatch = \"outbox\"\nquiet_time = \"1s\"\n\
             [destinations.erp]\nkind = \"http\"\nurl = \"{}\"\nhistory = \"deliver\"\n\
             [destinations.files]\nkind = \"folder\"\npath = \"files\"\nhistory = \"deliver\"\n",
            alarms.url(ALARM_PATH),
            destination.url("/import"),
        );
        let installation = Installation::beside(&emulator, "", &sections);
        let file = installation.settings();
        let text = std::fs::read_to_string(&file).expect("settings");
        let text = format!(
            "{}\n[accounts.default.tokens]\non_exported = [\"{EXPORTED_TOKEN}\"]\non_digitized = [\"{DIGITIZED_TOKEN}\"]\n",
            text.replace("[api]\n", "[api]\nsubscribe_path = \"/subscriptions\"\n")
        );
        std::fs::write(&file, text).expect("written");
        std::fs::create_dir(installation.folder().join("outbox")).expect("created");
        Self {
            emulator,
            installation,
            database,
            alarms,
            format,
            outputs: Outputs::default(),
        }
    }

    fn variables(&self) -> Vec<(&'static str, &'static str)> {
        let mut variables = vec![
            ("IVESK_WEBHOOK_API_KEY", API_KEY),
            ("IVESK_WEBHOOK_ADMIN_TOKEN", PRIVATE_TOKEN),
            ("IVESK_WEBHOOK_DESTINATIONS_ERP_SECRET", DESTINATION_SECRET),
        ];
        if self.database.is_some() {
            variables.push(("IVESK_WEBHOOK_STORE_PASSWORD", STORE_PASSWORD));
        }
        variables
    }

    async fn serve(&self, more: &[(&str, &str)]) -> Server {
        let mut command = self.installation.command(&["serve"]);
        command.envs(self.variables()).envs(more.iter().copied());
        let mut server = Server::spawn(command);
        server.ready().await;
        server
    }

    /// Stops the server and records its log.
    async fn stop(&mut self, server: Server) {
        server.terminate();
        let (status, log) = server.exited().await;
        assert!(status.success(), "{log}");
        assert!(log.contains("TRACE"), "the level is trace");
        self.outputs.add(format!("the {} log", self.format), log);
    }

    /// Runs a subcommand and records its output; returns standard output.
    async fn run(&mut self, arguments: &[&str]) -> String {
        let variables = self.variables();
        let (_, stdout, stderr) = self.installation.run_with(arguments, &variables).await;
        let place = format!("`{}`", arguments.join(" "));
        self.outputs
            .add(format!("{place} on standard error"), stderr);
        self.outputs.add(place, stdout.clone());
        stdout
    }

    /// Runs `open`, which prints a link for the person, and lets a browser in by it. Returns the
    /// secrets of the link and of the session, which nothing else may hold.
    async fn open(&mut self) -> [String; 2] {
        let variables = self.variables();
        let (code, link, errors) = self.installation.run_with(&["open"], &variables).await;
        assert_eq!(code, Some(0), "{errors}");
        self.outputs.add("`open` on standard error", errors);
        let url = link
            .split_whitespace()
            .find(|word| word.starts_with("http"));
        let url = url.unwrap_or_else(|| panic!("no link: {link}")).to_owned();
        let secret = url.split(['#', '=', '/']).next_back().expect("a secret");
        let secret = secret.to_owned();
        assert!(secret.len() > 30, "{url}");
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none());
        let client = client.build().expect("a client");
        let page = client.get(&url).send().await.expect("an answer");
        let visitor = first_cookie(&page);
        let page = page.text().await.expect("text");
        let field = |name: &str| {
            let (_, rest) = page
                .split_once(&format!("name=\"{name}\" value=\""))
                .unwrap_or_else(|| panic!("no field {name}: {page}"));
            rest.split('"').next().expect("its end").to_owned()
        };
        let body = format!("form_token={}&link={}", field("form_token"), field("link"));
        let opened = client
            .post(self.installation.admin_url("/open"))
            .header("cookie", visitor)
            .body(body)
            .send()
            .await
            .expect("an answer");
        assert_eq!(opened.status(), StatusCode::SEE_OTHER);
        let session = first_cookie(&opened);
        let (_, session) = session.split_once('=').expect("a pair");
        [secret, session.to_owned()]
    }

    async fn get(&self, path: &str) -> (StatusCode, String) {
        let answer = client()
            .get(self.installation.admin_url(path))
            .bearer_auth(PRIVATE_TOKEN)
            .send()
            .await
            .expect("an answer");
        (answer.status(), answer.text().await.expect("text"))
    }

    /// Records the answers to every GET request that the OpenAPI document describes.
    async fn request_everything(&mut self) {
        let (_, document) = self.get("/v1/openapi.json").await;
        let document: Value = serde_json::from_str(&document).expect("JSON");
        let paths = document["paths"].as_object().expect("paths");
        let mut requests = 0;
        for (path, methods) in paths {
            if methods.get("get").is_none() || HOLD_CONTENT.contains(&path.as_str()) {
                continue;
            }
            let path = path
                .replace("{id}", "1")
                .replace("{name}", "erp")
                .replace("{destination}", "erp");
            let (_, text) = self.get(&path).await;
            self.outputs.add(path, text);
            requests += 1;
        }
        assert!(requests > 10, "{requests} of {paths:?}");
        for path in [
            "/metrics",
            "/v1/nothing/planted",
            "/v1/documents/search?q=302320404",
        ] {
            let (_, text) = self.get(path).await;
            self.outputs.add(path.replace("planted", "…"), text);
        }
    }

    /// Logs in, and records every page of the menu and a document's.
    async fn open_every_page(&mut self) {
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none());
        let client = client.build().expect("a client");
        let login = self.installation.admin_url("/login");
        let form = client.get(&login).send().await.expect("an answer");
        let visitor = first_cookie(&form);
        let form = form.text().await.expect("text");
        let form_token = form
            .split_once("name=\"form_token\" value=\"")
            .expect("a form token")
            .1;
        let form_token = form_token.split('"').next().expect("a form token");
        let shown = client
            .post(&login)
            .header("cookie", visitor)
            .body(format!("form_token={form_token}&token={PRIVATE_TOKEN}"))
            .send()
            .await
            .expect("an answer");
        assert_eq!(shown.status(), StatusCode::SEE_OTHER);
        let session = first_cookie(&shown);
        let open = async |path: &str| {
            let page = client
                .get(self.installation.admin_url(path))
                .header("cookie", &session)
                .send();
            let page = page.await.expect("an answer");
            assert_eq!(page.status(), StatusCode::OK, "{path}");
            page.text().await.expect("text")
        };
        let overview = open("/").await;
        let menu = overview.split_once("<nav").expect("a menu").1;
        let menu = menu.split_once("</nav>").expect("its end").0;
        let mut paths: Vec<&str> = menu
            .split("href=\"")
            .skip(1)
            .filter_map(|part| part.split('"').next())
            .collect();
        assert!(paths.len() > 5, "{menu}");
        paths.push("/documents/1");
        let mut pages = Vec::new();
        for path in paths {
            let mut page = open(path).await;
            // The page of a document shows what is in it, without links.
            if path == "/documents/1" {
                assert!(page.contains(DOCUMENT), "{page}");
                page = page.replace(DOCUMENT, "");
            }
            pages.push((format!("the page {path}"), page));
        }
        for (place, page) in pages {
            self.outputs.add(place, page);
        }
    }

    async fn post(&self, event: Event, token: &str, body: &str) -> String {
        let url = format!("{}/{token}", self.installation.webhook(event));
        let request = client().post(url).body(body.to_owned());
        let answer = request.send().await.expect("an answer");
        format!(
            "{:?}\n{}",
            answer.headers().clone(),
            answer.text().await.expect("text")
        )
    }

    /// Records errors and other texts that the store keeps for people.
    async fn read_stored_texts(&mut self) {
        const COLUMNS: [&str; 7] = [
            "%error%", "text", "message", "note", "reason", "headers", "detail",
        ];
        let columns = |quoted: &str| {
            let like: Vec<String> = COLUMNS
                .iter()
                .map(|name| format!("{quoted} LIKE '{name}'"))
                .collect();
            like.join(" OR ")
        };
        if let Some(database) = &self.database {
            let url = database.url_text();
            let found = query_sql(
                &url,
                &format!(
                    "SELECT table_name, column_name FROM information_schema.columns
                     WHERE table_schema = 'public' AND data_type = 'text' AND ({})",
                    columns("column_name")
                ),
            )
            .await;
            assert!(found.len() > 5, "{found:?}");
            for row in found {
                let (table, column) = (row[0].clone().unwrap(), row[1].clone().unwrap());
                let sql = format!("SELECT string_agg({column}, chr(10)) FROM {table}");
                let rows = query_sql(&url, &sql).await;
                let text = rows[0][0].clone().unwrap_or_default();
                self.outputs.add(format!("{table}.{column}"), text);
            }
            return;
        }
        let connection = rusqlite::Connection::open(self.installation.database()).expect("opens");
        let sql = format!(
            "SELECT t.name, c.name FROM sqlite_schema t JOIN pragma_table_info(t.name) c
             WHERE t.type = 'table' AND c.type = 'TEXT' AND ({})",
            columns("c.name")
        );
        let mut statement = connection.prepare(&sql).expect("SQL");
        let found: Vec<(String, String)> = statement
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
            .expect("rows")
            .collect::<Result<_, _>>()
            .expect("text");
        assert!(found.len() > 5, "{found:?}");
        for (table, column) in found {
            let sql = format!("SELECT group_concat({column}, char(10)) FROM {table}");
            let text: Option<String> = connection
                .query_row(&sql, [], |row| row.get(0))
                .expect("SQL");
            self.outputs
                .add(format!("{table}.{column}"), text.unwrap_or_default());
        }
    }

    /// Waits for an alarm's notice and records it.
    async fn receive_an_alarm(&mut self) {
        let notice = within("an alarm's notice", async {
            loop {
                if let Some(request) = self.alarms.requests().pop() {
                    break request;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
        assert_eq!(notice.target, ALARM_PATH);
        let text = String::from_utf8_lossy(&notice.body);
        self.outputs.add("the alarm's notice", text);
    }

    /// Asserts that the store holds the secrets.
    async fn assert_secrets_are_stored(&self) {
        if self.database.is_some() {
            return;
        }
        let store = self.installation.read_store().await;
        let filter = DocumentFilter {
            limit: 1_000,
            ..DocumentFilter::default()
        };
        let rows = store.documents(filter).await.expect("readable");
        let holds = |secret: &str| {
            let mut bodies = rows.iter().filter_map(|row| row.body.as_deref());
            bodies.any(|body| String::from_utf8_lossy(body).contains(secret))
        };
        assert!(holds(DOCUMENT), "a document with the planted content");
        assert!(holds("ASIAEMULATOR"), "a document with a link");
        let refused = store.quarantine(0, 100).await.expect("readable");
        let mut bodies = Vec::new();
        for row in refused {
            let message = store.quarantined(row.id).await.expect("readable");
            let body = message.expect("the row exists").body;
            bodies.push(String::from_utf8_lossy(&body).into_owned());
        }
        assert!(bodies.iter().any(|body| body.contains("planted5e7")));
        assert!(bodies.iter().any(|body| body.contains("\"Signature\"")));
        let rows = store.subscriptions().await.expect("readable");
        assert!(
            rows.iter().all(|row| row.subscription_arn.is_some()),
            "{rows:?}"
        );
        store.close().await.expect("it closes");
    }
}

/// Returns the first cookie that an answer sets, as a pair.
fn first_cookie(answer: &reqwest::Response) -> String {
    let cookie = answer.headers()["set-cookie"].to_str().expect("text");
    cookie.split(';').next().expect("a pair").to_owned()
}

/// Returns the free space of the disk with temporary files.
fn free_bytes() -> u64 {
    let disk = rustix::fs::statvfs(std::env::temp_dir()).expect("a disk");
    disk.f_bavail * disk.f_frsize
}

/// Exports documents with planted contents, and sends genuine, forged and broken messages.
async fn work(scene: &mut Scene) {
    let control = scene.emulator.control();
    scene.run(&["subscriptions", "create"]).await;
    within("the confirmations", control.idle()).await;
    let company = DEFAULT_COMPANIES[0];
    let ids = control
        .digitize(API_KEY, company, 3)
        .expect("a known company");
    let planted = Map::from_iter([("comment".to_owned(), DOCUMENT.into())]);
    for id in &ids {
        control
            .amend(id, planted.clone())
            .expect("a known document");
    }
    control.export(company, 3_usize).expect("a known company");
    for tamper in [Tamper::Nothing, Tamper::Message, Tamper::Signature] {
        let publication = Publication {
            copies: 2,
            tamper,
            ..Publication::exported(company)
        };
        control.notify(&publication).expect("the account exists");
    }
    within("the messages", control.idle()).await;
    within("the pages", pages(&control)).await;
    for (event, token, body) in [
        (Event::OnExported, "planted5e7-wrong-token", "{}"),
        (Event::OnExported, EXPORTED_TOKEN, "planted5e7 is no JSON"),
        (
            Event::OnExported,
            EXPORTED_TOKEN,
            r#"{"Message":"planted5e7","Type":"Notification"}"#,
        ),
        (Event::OnDigitized, EXPORTED_TOKEN, "{}"),
    ] {
        let answer = scene.post(event, token, body).await;
        scene.outputs.add("the answer to a message", answer);
    }
}

async fn pages(control: &Control) {
    control.requests_reached(Endpoint::Exported, 2).await;
    control.requests_reached(Endpoint::Digitized, 2).await;
}

/// A vendor whose errors quote the key, an address and a link.
async fn quoting_vendor() -> StandIn {
    let message = format!(
        "key {API_KEY} may not read https://files.example.lt/a?X-Amz-Signature=planted5e7&x=1"
    );
    let body = serde_json::json!({ "message": message }).to_string();
    StandIn::start((0..1_000).map(|_| Answer::status(500, body.clone()))).await
}

async fn assert_no_secret_appears(format: &'static str, database: Option<Database>) {
    let mut scene = Scene::new(format, database).await;
    let server = scene.serve(&[]).await;
    work(&mut scene).await;
    let control = scene.emulator.control();
    let folder = scene.installation.folder().to_owned();
    std::fs::write(folder.join("outbox/a.pdf"), FILE).expect("written");
    std::fs::write(folder.join("b.pdf"), format!("{FILE} too")).expect("written");
    // Its location is kept until the second attempt.
    control.fault(
        Fault::new(FaultKind::LostAnswer)
            .endpoint(Endpoint::Upload)
            .times(1),
    );
    scene.run(&["upload", "b.pdf"]).await;
    within("the upload from the folder", async {
        while control
            .uploads()
            .iter()
            .filter(|upload| upload.bytes.is_some())
            .count()
            < 2
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    if scene.database.is_none() {
        // The disk counts as nearly full from the first check on.
        scene.receive_an_alarm().await;
    }
    let created = scene
        .installation
        .run_with(
            &["tokens", "create", "--name", "watch", "--rights", "read"],
            &scene.variables(),
        )
        .await;
    let token = created
        .1
        .split_whitespace()
        .last()
        .expect("a token")
        .to_owned();
    for arguments in [
        &["doctor", "--quick"][..],
        &["subscriptions", "list"],
        &["quarantine", "list"],
        &["quarantine", "retry", "--all"],
        &["notifications", "list"],
        &["documents", "list"],
        &["documents", "search", "sf"],
        &["documents", "trace", "--sequence", "1"],
        &["feeds", "list"],
        &["destinations", "list"],
        &["deliveries", "list"],
        &["import-errors", "list"],
        &["uploads", "list"],
        &["tokens", "list"],
        &["pull"],
        &["config", "show"],
        &["config", "check"],
        &["store", "backup", "copy.db"],
    ] {
        scene.run(arguments).await;
    }
    let opened = scene.open().await;
    scene.request_everything().await;
    scene.open_every_page().await;
    scene.stop(server).await;

    // The same with a vendor whose errors hold secrets.
    let vendor = quoting_vendor().await;
    let url = vendor.url("/");
    let server = scene.serve(&[("IVESK_WEBHOOK_API_URL", &url)]).await;
    within("a stored failure", async {
        while !scene.get("/v1/feeds").await.1.contains("[secret]") {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    scene.request_everything().await;
    scene.open_every_page().await;
    scene.stop(server).await;
    scene.read_stored_texts().await;
    scene.assert_secrets_are_stored().await;

    let mut secrets: Vec<String> = NEVER.map(str::to_owned).to_vec();
    secrets.push(token);
    secrets.extend(opened);
    assert!(
        !control
            .documents(Queue::Exported, DEFAULT_COMPANIES[0])
            .is_empty()
    );
    scene.outputs.assert_without(&secrets);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_appears_with_text_logs() {
    assert_no_secret_appears("text", None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_appears_with_json_logs() {
    assert_no_secret_appears("json", None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_appears_with_a_shared_store() {
    if let Some(database) = Database::postgres("secrets at the finest level").await {
        assert_no_secret_appears("text", Some(database)).await;
    }
}
