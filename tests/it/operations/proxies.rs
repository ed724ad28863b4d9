//! The proxy configurations of docs/reverse-proxy.md, run as documented, and the systemd unit.

use std::net::IpAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use ivesk_webhook::domain::Event;
use ivesk_webhook::emulator::{DEFAULT_COMPANIES, Emulator};
use ivesk_webhook::unexpected::UnexpectedRequest::{self, *};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use reqwest::StatusCode;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::support::app::TestApp;
use crate::support::doctor::Report;
use crate::support::emulator::emulator;
use crate::support::fake_sns::Message;
use crate::support::process::{Installation, Port, Server, within};

const PAGE: &str = include_str!("../../../docs/reverse-proxy.md");
const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// Returns true if a program is installed, as in CI (`.ci/run`); else the test is skipped.
fn is_installed(program: &str) -> bool {
    let folders = ["/usr/sbin", "/usr/bin", "/usr/local/bin", "/sbin", "/bin"];
    let found = folders
        .iter()
        .any(|folder| Path::new(folder).join(program).exists());
    if !found {
        eprintln!("skipped: {program} is not installed");
    }
    found
}

/// Returns the block of the page that begins with this line.
fn block(fence: &str) -> String {
    let begin = format!("```{fence}\n");
    let (_, rest) = PAGE.split_once(&begin).expect("the page has the block");
    rest.split_once("```").expect("it ends").0.to_owned()
}

/// Writes a certificate for `localhost`, its key and its authority into `folder`.
fn write_certificate(folder: &Path) {
    let authority_key = KeyPair::generate().expect("a key");
    let mut authority = CertificateParams::new(Vec::new()).expect("parameters");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = authority.self_signed(&authority_key).expect("a root");
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate().expect("a key");
    let leaf = CertificateParams::new(["localhost".to_owned()]).expect("parameters");
    let leaf = leaf.signed_by(&key, &issuer).expect("a leaf");
    for (name, text) in [
        ("both.pem", leaf.pem() + &key.serialize_pem()),
        ("root.pem", root.pem()),
        ("leaf.pem", leaf.pem()),
        ("key.pem", key.serialize_pem()),
    ] {
        std::fs::write(folder.join(name), text).expect("written");
    }
}

/// Returns a configuration with shorter deadlines for stalled senders.
fn impatient(configuration: &str) -> String {
    configuration
        .replace("_timeout 10s", "_timeout 1s")
        .replace("_timeout   10s", "_timeout   1s")
        .replace("read_header 10s", "read_header 1s")
        .replace("read_body 10s", "read_body 1s")
        .replace("timeout client 10s", "timeout client 1s")
        .replace("timeout http-request 10s", "timeout http-request 1s")
}

/// A proxy of the page.
#[derive(Clone, Copy)]
enum Proxy {
    Nginx,
    Caddy,
    Haproxy,
}

impl Proxy {
    fn program(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Caddy => "caddy",
            Self::Haproxy => "haproxy",
        }
    }

    /// Returns the configuration of the page.
    fn configuration(self) -> String {
        match self {
            Self::Nginx => block("nginx"),
            Self::Caddy => block("caddyfile"),
            Self::Haproxy => block("haproxy"),
        }
    }

    /// Returns the configuration with the page's block for a prefix.
    fn configuration_with_prefix(self) -> String {
        let whole = self.configuration();
        let (begin, end, with_prefix) = match self {
            Self::Nginx => ("    location /webhooks/ {", "\n    }\n", "nginx prefix"),
            Self::Caddy => ("\thandle /webhooks/* {", "\n\t}\n", "caddyfile prefix"),
            Self::Haproxy => ("    http-request deny", "\n", "haproxy prefix"),
        };
        let (before, rest) = whole.split_once(begin).expect("the block of webhooks");
        let (_, after) = rest.split_once(end).expect("its end");
        format!("{before}{}{after}", block(with_prefix))
    }
}

/// An installation behind a proxy with TLS on this machine.
struct Proxied {
    installation: Installation,
    emulator: Emulator,
    port: Port,
    /// The port to which the proxy forwards.
    upstream: u16,
    proxy: Option<Child>,
}

impl Proxied {
    /// Writes settings for an installation whose proxy has this prefix; more lines for
    /// `[public]` and more sections.
    async fn with(prefix: &str, public_lines: &str, sections: &str) -> Self {
        let emulator = emulator("").await;
        let installation = Installation::beside(&emulator, public_lines, sections);
        let port = Port::reserve();
        let settings = std::fs::read_to_string(installation.settings()).expect("settings");
        let local = format!("url = \"http://127.0.0.1:{}\"", installation.public_port());
        let public = format!("url = \"https://localhost:{}{prefix}\"", port.number);
        let settings = settings.replace(&local, &public)
            + &format!(
                "tokens.on_exported = [\"{TOKEN}e\"]\ntokens.on_digitized = [\"{TOKEN}d\"]\n"
            );
        std::fs::write(installation.settings(), settings).expect("written");
        write_certificate(installation.folder());
        Self {
            upstream: installation.public_port(),
            installation,
            emulator,
            port,
            proxy: None,
        }
    }

    /// Starts a proxy before an installation without a prefix.
    async fn behind(proxy: Proxy, configuration: &str) -> Self {
        let mut proxied = Self::with("", "", "").await;
        proxied.start_proxy(proxy, configuration).await;
        proxied
    }

    /// Writes settings that trust a proxy at 127.0.0.1 only, and log the client's address.
    async fn with_logged_clients() -> Self {
        let log = "[log]\nformat = \"json\"\nclient_addresses = true\n";
        Self::with("", "trusted_proxies = [\"127.0.0.1\"]", log).await
    }

    fn url(&self) -> String {
        format!("https://localhost:{}", self.port.number)
    }

    fn path(&self, name: &str) -> String {
        self.installation.folder().join(name).display().to_string()
    }

    fn proxy_log(&self) -> String {
        std::fs::read_to_string(self.path("proxy.log")).unwrap_or_default()
    }

    /// Returns a block of the page with this test's names.
    fn adapt(&self, text: &str) -> String {
        text.replace(
            "/etc/letsencrypt/live/hooks.example.lt/fullchain.pem",
            &self.path("leaf.pem"),
        )
        .replace(
            "/etc/letsencrypt/live/hooks.example.lt/privkey.pem",
            &self.path("key.pem"),
        )
        .replace("127.0.0.1:8080", &format!("127.0.0.1:{}", self.upstream))
        .replace(
            "listen 443",
            &format!("listen 127.0.0.1:{}", self.port.number),
        )
        .replace("bind :443", &format!("bind 127.0.0.1:{}", self.port.number))
        .replace(
            "/etc/haproxy/certs/hooks.example.lt.pem",
            &self.path("both.pem"),
        )
    }

    /// Starts a proxy, in place of the one before, and waits until it accepts connections.
    async fn start_proxy(&mut self, proxy: Proxy, configuration: &str) {
        if let Some(mut before) = self.proxy.take() {
            before.kill().await.expect("it can be killed");
        }
        let mut command = match proxy {
            Proxy::Nginx => self.nginx(configuration),
            Proxy::Caddy => self.caddy(configuration),
            Proxy::Haproxy => self.haproxy(configuration),
        };
        let log = std::fs::File::create(self.path("proxy.log")).expect("a file");
        command
            .current_dir(self.installation.folder())
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/bin")
            .env("HOME", self.installation.folder())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true);
        let mut child = command.spawn().expect("the proxy starts");
        within("the start of the proxy", async {
            while TcpStream::connect(("127.0.0.1", self.port.number))
                .await
                .is_err()
            {
                let exited = child.try_wait().expect("a child");
                assert!(exited.is_none(), "the proxy exited: {}", self.proxy_log());
                tokio::task::yield_now().await;
            }
        })
        .await;
        self.proxy = Some(child);
    }

    fn nginx(&self, server: &str) -> Command {
        let user = if rustix::process::geteuid().is_root() {
            "user root;"
        } else {
            ""
        };
        let server = self.adapt(server).replace("hooks.example.lt", "localhost");
        let temp: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .iter()
            .map(|name| format!("{name}_temp_path {};\n", self.path(name)))
            .collect();
        let config = format!(
            "{user}\ndaemon off;\nmaster_process off;\npid {};\nerror_log stderr;\nevents {{}}\nhttp {{\naccess_log off;\n{temp}{server}\n}}\n",
            self.path("nginx.pid")
        );
        std::fs::write(self.path("nginx.conf"), config).expect("written");
        let mut command = Command::new("nginx");
        command.args(["-e", "stderr", "-c", &self.path("nginx.conf")]);
        command
    }

    fn haproxy(&self, configuration: &str) -> Command {
        let configuration = self.adapt(configuration);
        std::fs::write(self.path("haproxy.cfg"), configuration).expect("written");
        let mut command = Command::new("haproxy");
        // In the foreground.
        command.args(["-db", "-f", &self.path("haproxy.cfg")]);
        command
    }

    fn caddy(&self, site: &str) -> Command {
        let certificate = format!("tls {} {}", self.path("leaf.pem"), self.path("key.pem"));
        let site = self
            .adapt(site)
            .replacen("{\n", "{\n\tadmin off\n\tauto_https off\n", 1)
            .replace(
                "hooks.example.lt {",
                &format!("{} {{\n\tbind 127.0.0.1\n\t{certificate}", self.url()),
            );
        std::fs::write(self.path("Caddyfile"), site).expect("written");
        let mut command = Command::new("caddy");
        command
            .args(["run", "--adapter", "caddyfile", "--config"])
            .arg(self.path("Caddyfile"))
            .env("XDG_DATA_HOME", self.path("data"))
            .env("XDG_CONFIG_HOME", self.path("config"));
        command
    }

    /// Runs `doctor`, which trusts the proxy's certificate, and asserts that all is well.
    async fn assert_doctor_passes(&self, arguments: &[&str]) -> Report {
        let server = self.installation.start().await;
        let root = self.path("root.pem");
        let report = Report::with(&self.installation, arguments, &[("SSL_CERT_FILE", &root)]).await;
        for check in ["public_address", "large_body", "certificate"] {
            let results = report.results(check);
            assert!(!results.is_empty(), "{check}");
            assert!(
                results.iter().all(|result| *result == "pass"),
                "{}{}",
                report.words(check),
                self.proxy_log()
            );
        }
        assert_eq!(report.code, Some(0));
        drop(server);
        report
    }

    /// Returns a builder of clients that trust the proxy's certificate.
    fn client(&self) -> reqwest::ClientBuilder {
        let root = std::fs::read(self.path("root.pem")).expect("a root");
        let root = reqwest::Certificate::from_pem(&root).expect("a certificate");
        reqwest::Client::builder().tls_certs_only([root]).no_proxy()
    }

    /// Sends a request with forged headers from [`CLIENT`] to `url`; returns the client's
    /// address and the request's id that are logged.
    async fn logged_client(&self, server: &Server, url: &str) -> (String, String) {
        let client = self.client().local_address(IpAddr::from(CLIENT)).build();
        let client = client.expect("a client");
        let mut request = client.post(format!("{url}/webhooks/default/on_exported/wrong"));
        for (name, value) in FORGED {
            request = request.header(name, value);
        }
        let answer = request.send().await.expect("an answer");
        assert_eq!(answer.status(), 404);
        let line = server.line_about(&answer).await;
        let text = |field: &Value| field.as_str().expect("text").to_owned();
        (
            text(&line["fields"]["client.address"]),
            text(&line["fields"]["request.id"]),
        )
    }
}

/// Address of the client in [`Proxied::logged_client`], which is no trusted proxy.
const CLIENT: [u8; 4] = [127, 0, 0, 2];

/// Headers with which a stranger hides its address.
const FORGED: [(&str, &str); 3] = [
    ("x-forwarded-for", "203.0.113.9"),
    ("forwarded", "for=203.0.113.9"),
    ("x-request-id", "forged"),
];

async fn assert_documented_configuration_works(proxy: Proxy) {
    if !is_installed(proxy.program()) {
        return;
    }
    let configuration = impatient(&proxy.configuration());
    let proxied = Proxied::behind(proxy, &configuration).await;
    let report = proxied.assert_doctor_passes(&[]).await;
    assert_eq!(report.results("header_deadline"), ["pass"]);
    assert_eq!(report.results("body_deadline"), ["pass"]);
    // Without the service, the proxy's own answer makes SNS retry.
    let client = proxied.client().build().expect("a client");
    let webhook = format!("{}/webhooks/x", proxied.url());
    let answer = client.post(webhook).send().await.expect("an answer");
    let retried = [StatusCode::BAD_GATEWAY, StatusCode::SERVICE_UNAVAILABLE];
    assert!(retried.contains(&answer.status()), "{}", answer.status());
    let elsewhere = client.get(proxied.url()).send().await;
    assert_eq!(
        elsewhere.expect("an answer").status(),
        StatusCode::NOT_FOUND
    );
    assert!(!proxied.proxy_log().contains(TOKEN));
}

#[tokio::test]
async fn the_documented_nginx_configuration_works() {
    assert_documented_configuration_works(Proxy::Nginx).await;
}

#[tokio::test]
async fn the_documented_caddy_configuration_works() {
    assert_documented_configuration_works(Proxy::Caddy).await;
}

#[tokio::test]
async fn the_documented_haproxy_configuration_works() {
    assert_documented_configuration_works(Proxy::Haproxy).await;
}

async fn assert_prefix_works(proxy: Proxy) {
    if !is_installed(proxy.program()) {
        return;
    }
    let mut proxied = Proxied::with("/ivesk", "", "").await;
    let configuration = proxy.configuration_with_prefix();
    proxied.start_proxy(proxy, &configuration).await;
    proxied.assert_doctor_passes(&["--quick"]).await;
}

#[tokio::test]
async fn nginx_works_below_a_prefix() {
    assert_prefix_works(Proxy::Nginx).await;
}

#[tokio::test]
async fn caddy_works_below_a_prefix() {
    assert_prefix_works(Proxy::Caddy).await;
}

#[tokio::test]
async fn haproxy_works_below_a_prefix() {
    assert_prefix_works(Proxy::Haproxy).await;
}

/// A proxy that is set up wrongly, and what `doctor` says about it.
struct Mistake {
    proxy: Proxy,
    right: &'static str,
    wrong: &'static str,
    /// The check that fails, and the kind of request that it explains.
    check: &'static str,
    kind: UnexpectedRequest,
}

const fn mistake(
    proxy: Proxy,
    right: &'static str,
    wrong: &'static str,
    kind: UnexpectedRequest,
) -> Mistake {
    let check = match kind {
        PathCut | PathSlash | PathPrefix => "public_address",
        _ => "unexpected_requests",
    };
    Mistake {
        proxy,
        right,
        wrong,
        check,
        kind,
    }
}

const NGINX_PASS: &str = "proxy_pass http://ivesk_webhook;";
const CADDY_PASS: &str = "reverse_proxy 127.0.0.1:8080 {";
const HAPROXY_PASS: &str = "server local 127.0.0.1:8080";

const MISTAKES: [Mistake; 8] = [
    mistake(
        Proxy::Nginx,
        NGINX_PASS,
        "proxy_pass http://ivesk_webhook/;",
        PathCut,
    ),
    mistake(
        Proxy::Nginx,
        NGINX_PASS,
        "proxy_pass http://ivesk_webhook//webhooks/;",
        PathSlash,
    ),
    mistake(
        Proxy::Nginx,
        NGINX_PASS,
        "proxy_pass http://ivesk_webhook/x/webhooks/;",
        PathPrefix,
    ),
    mistake(
        Proxy::Nginx,
        NGINX_PASS,
        "proxy_pass https://ivesk_webhook;",
        Tls,
    ),
    mistake(
        Proxy::Caddy,
        "handle /webhooks/* {",
        "handle_path /webhooks/* {",
        PathCut,
    ),
    mistake(
        Proxy::Caddy,
        CADDY_PASS,
        "reverse_proxy h2c://127.0.0.1:8080 {",
        Http2,
    ),
    mistake(
        Proxy::Haproxy,
        HAPROXY_PASS,
        "server local 127.0.0.1:8080 send-proxy",
        ProxyProtocol,
    ),
    mistake(
        Proxy::Haproxy,
        HAPROXY_PASS,
        "server local 127.0.0.1:8080 send-proxy-v2",
        ProxyProtocol,
    ),
];

#[tokio::test]
async fn doctor_tells_apart_what_a_proxy_does_wrong() {
    let mut proxied = Proxied::with("", "", "").await;
    for mistake in &MISTAKES {
        if !is_installed(mistake.proxy.program()) {
            continue;
        }
        let right = mistake.proxy.configuration();
        assert!(right.contains(mistake.right), "{}", mistake.right);
        let wrong = right.replace(mistake.right, mistake.wrong);
        proxied.start_proxy(mistake.proxy, &wrong).await;
        let server = proxied.installation.start().await;
        let root = proxied.path("root.pem");
        let report = Report::with(
            &proxied.installation,
            &["--quick"],
            &[("SSL_CERT_FILE", &root)],
        )
        .await;
        // HAProxy answers nothing where a connection has ended that it used before.
        let reached = report.results("public_address");
        assert!(!reached.contains(&"pass"), "{}", mistake.wrong);
        let words = report.words(mistake.check);
        let found = mistake.kind.explanation().found;
        assert!(words.contains(found), "{}: {words}", mistake.wrong);
        report.assert_explained();
        drop(server);
    }
}

#[tokio::test]
async fn doctor_recognizes_a_proxy_that_leads_to_another_instance() {
    if !is_installed("nginx") {
        return;
    }
    let other = Installation::alone("");
    let _other = other.start().await;
    let mut proxied = Proxied::with("", "", "").await;
    proxied.upstream = other.public_port();
    proxied
        .start_proxy(Proxy::Nginx, &Proxy::Nginx.configuration())
        .await;
    let server = proxied.installation.start().await;
    let root = proxied.path("root.pem");
    let variables = [("SSL_CERT_FILE", root.as_str())];
    let report = Report::with(&proxied.installation, &["--quick"], &variables).await;
    assert_eq!(report.results("public_address"), ["fail", "fail"]);
    let words = report.words("public_address");
    assert!(words.contains("another ivesk-webhook answers"), "{words}");
    drop(server);
}

/// Messages that [`assert_no_message_is_lost`] sends at once.
const SENDERS: usize = 50;

/// Time after which the service closes an idle connection in these tests.
const IDLE: Duration = Duration::from_millis(600);

/// Returns how often each of [`SENDERS`] sends: enough to meet the race, or with the variable
/// `IVESK_WEBHOOK_TEST_IDLE_REQUESTS` for that many requests in all.
fn rounds() -> usize {
    let requests = std::env::var("IVESK_WEBHOOK_TEST_IDLE_REQUESTS").ok();
    requests.map_or(4, |requests| {
        let requests: usize = requests.parse().expect("a number");
        requests.div_ceil(SENDERS)
    })
}

/// Sends messages around the moment at which the service closes idle connections, and asserts
/// that each is answered 200.
async fn assert_no_message_is_lost(proxy: Proxy) {
    if !is_installed(proxy.program()) {
        return;
    }
    let app = TestApp::with(|config| config.public.header_timeout = IDLE).await;
    let mut proxied = Proxied::with("", "", "").await;
    proxied.upstream = app.public().port();
    let configuration = proxy
        .configuration()
        .replace("keepalive_timeout 5s", "keepalive_timeout 300ms")
        .replace("keepalive 5s", "keepalive 300ms");
    proxied.start_proxy(proxy, &configuration).await;
    let url = format!("{}{}", proxied.url(), app.webhook(Event::OnExported));
    // Only the connections between proxy and service are to be reused.
    let client = proxied.client().pool_max_idle_per_host(0);
    let client = client.build().expect("a client");
    let send = async |body: String| {
        let answer = client.post(&url).body(body).send().await;
        answer.expect("an answer").status()
    };
    for round in 0..rounds() {
        let mut sent = Vec::new();
        for sender in 0..SENDERS {
            let message = Message::notification(&app.sns);
            // From 80 % to 120 % of the limit after the round before.
            let pause = IDLE.mul_f64(0.8 + 0.4 * sender as f64 / SENDERS as f64);
            let send = &send;
            sent.push(async move {
                tokio::time::sleep(pause).await;
                send(message.body()).await
            });
        }
        for status in futures_util::future::join_all(sent).await {
            assert_eq!(status, 200, "round {round}: {}", proxied.proxy_log());
        }
    }
    assert_eq!(app.faults.accepts(), rounds() * SENDERS);
}

#[tokio::test]
async fn nginx_loses_no_message_at_the_idle_limit() {
    assert_no_message_is_lost(Proxy::Nginx).await;
}

#[tokio::test]
async fn caddy_loses_no_message_at_the_idle_limit() {
    assert_no_message_is_lost(Proxy::Caddy).await;
}

#[tokio::test]
async fn haproxy_loses_no_message_at_the_idle_limit() {
    assert_no_message_is_lost(Proxy::Haproxy).await;
}

/// Asserts that the client's own address is logged; returns the request's id.
async fn assert_client_is_logged(proxy: Proxy, configuration: &str) -> String {
    let mut proxied = Proxied::with_logged_clients().await;
    proxied.start_proxy(proxy, configuration).await;
    let server = proxied.installation.start().await;
    let (address, id) = proxied.logged_client(&server, &proxied.url()).await;
    assert_eq!(address, "127.0.0.2");
    id
}

#[tokio::test]
async fn nginx_passes_the_true_client_address_and_id() {
    if !is_installed("nginx") {
        return;
    }
    let documented = Proxy::Nginx.configuration();
    // The page's variant for a proxy behind another one.
    let appending = documented.replace("$remote_addr", "$proxy_add_x_forwarded_for");
    for configuration in [documented, appending] {
        let id = assert_client_is_logged(Proxy::Nginx, &configuration).await;
        // nginx's ids are 32 digits, unlike the service's own.
        assert!(
            id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()),
            "{id}"
        );
    }
}

#[tokio::test]
async fn caddy_passes_the_true_client_address_and_id() {
    if !is_installed("caddy") {
        return;
    }
    let id = assert_client_is_logged(Proxy::Caddy, &Proxy::Caddy.configuration()).await;
    assert!(uuid::Uuid::try_parse(&id).is_ok(), "{id}");
}

#[tokio::test]
async fn haproxy_passes_the_true_client_address_and_id() {
    if !is_installed("haproxy") {
        return;
    }
    let id = assert_client_is_logged(Proxy::Haproxy, &Proxy::Haproxy.configuration()).await;
    assert!(uuid::Uuid::try_parse(&id).is_ok(), "{id}");
}

#[tokio::test]
async fn headers_of_a_stranger_past_the_proxy_are_ignored() {
    let proxied = Proxied::with_logged_clients().await;
    let server = proxied.installation.start().await;
    let url = format!("http://127.0.0.1:{}", proxied.installation.public_port());

    let (address, id) = proxied.logged_client(&server, &url).await;

    assert_eq!(address, "127.0.0.2");
    assert_ne!(id, "forged");
}

#[tokio::test]
async fn the_file_of_init_works_behind_nginx_with_only_addresses_set() {
    if !is_installed("nginx") {
        return;
    }
    let proxied = Proxied::behind(Proxy::Nginx, &Proxy::Nginx.configuration()).await;
    let url = proxied.url();
    let (installation, emulator) = (&proxied.installation, &proxied.emulator);
    let arguments = ["init", "--force", "--company", DEFAULT_COMPANIES[0]];
    let arguments = [&arguments[..], &["--public-url", &url]].concat();
    let (code, printed, errors) = installation.run(&arguments).await;
    assert_eq!(code, Some(0), "{errors}");
    assert!(printed.contains(&url), "{printed}");

    let local = |port: u16| format!("127.0.0.1:{port}");
    let (public, admin) = (
        local(installation.public_port()),
        local(installation.admin_port()),
    );
    let (origin, api, root) = (
        emulator.origin(),
        emulator.api_url(),
        proxied.path("root.pem"),
    );
    let variables = [
        ("IVESK_WEBHOOK_PUBLIC_LISTEN", public.as_str()),
        ("IVESK_WEBHOOK_ADMIN_LISTEN", admin.as_str()),
        ("IVESK_WEBHOOK_API_URL", api.as_str()),
        ("IVESK_WEBHOOK_API_EXPORTED_PATH", "path"),
        ("IVESK_WEBHOOK_SNS_LOCAL_ORIGINS", origin.as_str()),
        ("SSL_CERT_FILE", root.as_str()),
    ];
    let mut serve = installation.command(&["serve"]);
    serve.envs(variables);
    let mut server = Server::spawn(serve);
    server.ready().await;

    let report = Report::with(installation, &["--quick"], &variables).await;

    let words = report.words("public_address");
    assert_eq!(
        report.results("public_address"),
        ["pass", "pass"],
        "{words}"
    );
    assert_eq!(report.code, Some(0));
}

#[tokio::test]
async fn doctor_finds_a_low_body_limit_and_an_untrusted_certificate() {
    if !is_installed("nginx") {
        return;
    }
    let configuration = Proxy::Nginx
        .configuration()
        .replace("client_max_body_size 2m;", "");
    let proxied = Proxied::behind(Proxy::Nginx, &configuration).await;
    let installation = &proxied.installation;
    let server = installation.start().await;
    let root = proxied.path("root.pem");
    let report = Report::with(installation, &["--quick"], &[("SSL_CERT_FILE", &root)]).await;
    assert_eq!(report.results("large_body"), ["fail"]);
    let words = report.words("large_body");
    assert!(words.contains("client_max_body_size"), "{words}");

    let report = Report::of(installation, &["--quick"]).await;
    let results = report.results("public_address");
    assert_eq!(results, ["unreachable", "unreachable"]);
    let words = report.words("public_address");
    assert!(words.contains("fullchain.pem"), "{words}");
    drop(server);
}

#[tokio::test]
async fn the_systemd_unit_is_valid_and_hardened() {
    if !is_installed("systemd-analyze") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let unit = include_str!("../../../packaging/ivesk-webhook.service");
    let unit = unit.replace(
        "ExecStart=/usr/bin/ivesk-webhook",
        concat!("ExecStart=", env!("CARGO_BIN_EXE_ivesk-webhook")),
    );
    let path = folder.path().join("ivesk-webhook.service");
    std::fs::write(&path, unit).expect("written");
    let analyze = async |arguments: &[&str]| {
        let mut command = Command::new("systemd-analyze");
        let output = command.args(arguments).arg(&path).output().await;
        let output = output.expect("it runs");
        let text = [output.stdout, output.stderr].concat();
        (
            output.status.success(),
            String::from_utf8_lossy(&text).into_owned(),
        )
    };
    let text = std::fs::read_to_string(&path).expect("readable");
    assert!(text.contains("\nLimitCORE=0\n"), "no core dump holds keys");
    let (passes, text) = analyze(&["verify", "--man=no"]).await;
    assert!(passes, "{text}");
    // It passes a unit with misspelled keys, too, and only warns.
    assert!(!text.to_lowercase().contains("unknown"), "{text}");
    // An exposure of 2.0 of 10 at most; an ordinary service has 9.
    let (passes, text) = analyze(&["security", "--offline=true", "--threshold=20"]).await;
    assert!(passes, "{text}");
}
