//! The service in this process, with a store that can fail and a fake SNS.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use ivesk_webhook::config::{Config, Loopback, default_account};
use ivesk_webhook::domain::{Clock, DocumentVersion, Event, Queue};
use ivesk_webhook::service::{Service, store_options};
use ivesk_webhook::store::{
    LeaseRequest, PageEnd, PageToCommit, PullPlan, QuarantineRow, SharedStore, Store, StoreOptions,
    SubscriptionRow,
};
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};

use crate::support::databases::Database;
use crate::support::fake_sns::{FakeSns, Message, start_time};
use crate::support::faults::Faults;

/// Token of the webhook's path, which no log and no answer may show.
pub(crate) const PATH_TOKEN: &str = "planted-path-token-5e7f";

/// The configured token, with which the tests use the admin API.
pub(crate) const ADMIN_TOKEN: &str = "planted-private-token-5e7b";

/// A running service.
pub(crate) struct TestApp {
    pub(crate) sns: FakeSns,
    pub(crate) store: SharedStore,
    pub(crate) faults: Arc<Faults>,
    pub(crate) clock: Clock,
    service: Option<Service>,
    public: SocketAddr,
    admin: SocketAddr,
    client: reqwest::Client,
    config: Config,
    _dir: tempfile::TempDir,
    database: Option<Database>,
}

impl TestApp {
    pub(crate) async fn spawn() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let sns = FakeSns::start().await;
        let dir = tempfile::tempdir().unwrap();
        let mut config = settings(&sns, dir.path());
        let database = Database::of_the_suite().await;
        if let Some(database) = &database {
            config.store.url = database.url();
        }
        change(&mut config);
        let clock = Clock::manual(start_time());
        let faults = Faults::none();
        let options = StoreOptions {
            hooks: Some(faults.clone()),
            ..store_options(&config, &clock)
        };
        let store = Arc::new(Store::open(options).await.unwrap());
        let service = Service::start_with(config.clone(), Arc::clone(&store), clock.clone())
            .await
            .unwrap();
        Self {
            sns,
            store,
            faults,
            clock,
            public: service.public_address(),
            admin: service.admin_address(),
            service: Some(service),
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
            config,
            _dir: dir,
            database,
        }
    }

    /// Returns settings with which a second process finds this one.
    pub(crate) fn config(&self) -> Config {
        let mut config = self.config.clone();
        config.public.listen = self.public;
        config.admin.listen = self.admin;
        config
    }

    /// Returns the store's URL for settings in [`TestApp::dir`].
    pub(crate) fn store_url(&self) -> String {
        match &self.database {
            Some(database) => database.url_text(),
            None => "sqlite://test.db".to_owned(),
        }
    }

    pub(crate) fn dir(&self) -> &Path {
        self._dir.path()
    }

    pub(crate) fn service(&self) -> &Service {
        self.service.as_ref().unwrap()
    }

    /// Stops the service as SIGTERM does; returns true if it stopped cleanly.
    pub(crate) async fn stop(&mut self) -> bool {
        self.service.take().unwrap().stop().await
    }

    pub(crate) fn take_service(&mut self) -> Service {
        self.service.take().unwrap()
    }

    pub(crate) fn public(&self) -> SocketAddr {
        self.public
    }

    pub(crate) fn webhook(&self, event: Event) -> String {
        format!("/webhooks/default/{event}/{PATH_TOKEN}")
    }

    pub(crate) async fn deliver(&self, message: &Message) -> Response {
        self.deliver_to(&self.webhook(Event::OnExported), message)
            .await
    }

    pub(crate) async fn deliver_to(&self, path: &str, message: &Message) -> Response {
        self.post(
            path,
            message.body(),
            &[("x-amz-sns-message-type", message.type_name())],
        )
        .await
    }

    pub(crate) async fn post(
        &self,
        path: &str,
        body: impl Into<reqwest::Body>,
        headers: &[(&'static str, &str)],
    ) -> Response {
        let mut request = self
            .client
            .post(format!("http://{}{path}", self.public))
            .body(body)
            .header("content-type", "text/plain; charset=UTF-8");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> StatusCode {
        let url = format!("http://{}{path}", self.public);
        self.client.get(url).send().await.unwrap().status()
    }

    /// Returns a request to the admin listener with [`ADMIN_TOKEN`], which the test sends.
    pub(crate) fn admin_request(
        &self,
        method: reqwest::Method,
        path: &str,
    ) -> reqwest::RequestBuilder {
        self.anonymous_request(method, path)
            .bearer_auth(ADMIN_TOKEN)
    }

    /// Returns a request to the admin listener that proves nothing.
    pub(crate) fn anonymous_request(
        &self,
        method: reqwest::Method,
        path: &str,
    ) -> reqwest::RequestBuilder {
        self.client
            .request(method, format!("http://{}{path}", self.admin))
    }

    /// Returns a client that does not follow redirects.
    pub(crate) fn without_redirects(&self) -> reqwest::Client {
        let client = reqwest::Client::builder().no_proxy();
        let client = client.redirect(reqwest::redirect::Policy::none());
        client.build().unwrap()
    }

    pub(crate) async fn admin(&self, path: &str) -> Value {
        let response = self.admin_request(reqwest::Method::GET, path).send().await;
        json_of(response.unwrap()).await.1
    }

    pub(crate) async fn admin_post(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        let response = self
            .admin_request(reqwest::Method::POST, path)
            .header("content-type", "application/json")
            .body(body.to_string())
            .send()
            .await;
        json_of(response.unwrap()).await
    }

    /// Creates a link that lets a browser in, as `open` does.
    pub(crate) async fn login_link(&self) -> String {
        let rights = json!({"rights": "admin"});
        let (status, link) = self.admin_post("/v1/login-links", &rights).await;
        assert_eq!(status, StatusCode::OK, "{link}");
        format!("http://{}{}", self.admin, link["path"].as_str().unwrap())
    }

    pub(crate) async fn metrics(&self) -> String {
        let response = self
            .admin_request(reqwest::Method::GET, "/metrics")
            .send()
            .await;
        response.unwrap().text().await.unwrap()
    }

    pub(crate) async fn stored_ids(&self) -> Vec<String> {
        let rows = self.store.notifications(0, 1_000).await.unwrap();
        rows.into_iter().map(|row| row.message_id).collect()
    }

    /// Returns the quarantine, once everything offered to it so far is stored.
    pub(crate) async fn quarantine(&self) -> Vec<QuarantineRow> {
        self.store.quarantine(0, 1_000).await.unwrap()
    }

    pub(crate) async fn subscription(&self) -> SubscriptionRow {
        let mut rows = self.store.subscriptions().await.unwrap();
        assert_eq!(rows.len(), 1, "{rows:?}");
        rows.remove(0)
    }

    /// Stores documents as one page of company 1's exported feed.
    pub(crate) async fn store_documents(&self, documents: &[Value]) {
        let documents: Vec<String> = documents.iter().map(Value::to_string).collect();
        self.store_bodies(&documents).await;
    }

    /// Stores documents of this JSON, byte for byte, as [`TestApp::store_documents`] does. Their versions
    /// are their `exportedat`, or else of one moment.
    pub(crate) async fn store_bodies(&self, documents: &[impl AsRef<str>]) {
        self.admin_post("/v1/pull", &json!({"company": "1", "new": true}))
            .await;
        let hour = std::time::Duration::from_secs(3600);
        let account = default_account();
        let lease = self
            .store
            .lease_page(LeaseRequest {
                now: self.clock.now(),
                lease: hour,
                requests_per_account: 1,
                lookback: hour,
                min_interval: std::time::Duration::ZERO,
                reconcile_every: hour,
                queues: vec![(account, Queue::Exported)],
            })
            .await;
        let page = PageToCommit {
            documents: documents
                .iter()
                .map(|body| {
                    let document: Value = serde_json::from_str(body.as_ref()).unwrap();
                    let version = document["exportedat"].as_str();
                    DocumentVersion {
                        id: document["id"].as_str().unwrap().to_owned(),
                        version: version.unwrap_or("2026-11-02T10:00:00.000Z").to_owned(),
                        body: body.as_ref().to_owned().into(),
                    }
                })
                .collect(),
            end: PageEnd::EndOfQueue,
            clock_offset: Some(0),
            ..PageToCommit::default()
        };
        let plan = PullPlan {
            now: self.clock.now(),
            follow_ups: [hour, hour],
            reconcile_every: hour,
            lookback: hour,
        };
        let lease = lease.unwrap().expect("the feed is due");
        self.store.commit_page(lease, page, plan).await.unwrap();
    }
}

fn settings(sns: &FakeSns, dir: &Path) -> Config {
    let mut config = Config::for_loopback(Loopback {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        store: dir.join("test.db"),
        api_url: "http://127.0.0.1:9/".parse().unwrap(),
        api_key: "planted-api-key-5e7a".to_owned().into(),
        local_origins: vec![sns.origin()],
        companies: Vec::new(),
    });
    config.admin.token = Some(ADMIN_TOKEN.to_owned().into());
    // Nothing is pulled in these tests.
    let account = config.accounts.get_mut(&default_account()).unwrap();
    account.api_key = None;
    account.digitized = false;
    // Not on loopback, so that the path's token is required.
    config.public.url = "https://hooks.example.lt/".parse().unwrap();
    let account = config.accounts.get_mut(&default_account()).unwrap();
    for event in Event::ALL {
        let token = PATH_TOKEN.to_owned();
        account.tokens.insert(event, vec![token.into()]);
    }
    config
}

/// Returns the status, and the body as JSON or else as text.
pub(crate) async fn json_of(response: Response) -> (StatusCode, Value) {
    let status = response.status();
    let text = response.text().await.unwrap();
    (
        status,
        serde_json::from_str(&text).unwrap_or(Value::String(text)),
    )
}

/// Returns status and `code` of a problem+json answer.
pub(crate) async fn code(response: Response) -> (u16, String) {
    let kind = response.headers()["content-type"]
        .to_str()
        .unwrap()
        .to_owned();
    assert_eq!(kind, "application/problem+json");
    let (status, problem) = json_of(response).await;
    assert_eq!(problem["status"], status.as_u16());
    (
        status.as_u16(),
        problem["code"].as_str().unwrap().to_owned(),
    )
}
