//! The proxies' configurations in docs/reverse-proxy.md, started as they stand there, and
//! the systemd unit.

use std::net::IpAddr;
use std::path::Path;
use std::process::Stdio;

use ivesk_webhook::emulator::{DEFAULT_COMPANIES, Emulator, EmulatorSettings};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::cli::doctor::Report;
use crate::receiver::callers::line_about;
use crate::support::process::{Installation, Port, Server, within};

const PAGE: &str = include_str!("../../../docs/reverse-proxy.md");
const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// Whether a program is there; CI installs it (`.ci/run`), a developer may do without.
fn is_installed(program: &str) -> bool {
    let found = ["/usr/sbin", "/usr/bin", "/usr/local/bin", "/sbin", "/bin"]
        .iter()
        .any(|folder| Path::new(folder).join(program).exists());
    if !found {
        eprintln!("skipped: {program} is not installed");
    }
    found
}

/// The block of the page that begins with this line.
fn block(fence: &str) -> String {
    let begin = format!("```{fence}\n");
    let (_, rest) = PAGE.split_once(&begin).expect("the page has the block");
    rest.split_once("```").expect("it ends").0.to_owned()
}

/// A certificate for `localhost` with its authority, in `folder`.
fn make_certificate(folder: &Path) {
    let authority_key = KeyPair::generate().expect("a key");
    let mut authority = CertificateParams::new(Vec::new()).expect("parameters");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = authority.self_signed(&authority_key).expect("a root");
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate().expect("a key");
    let leaf = CertificateParams::new(["localhost".to_owned()]).expect("parameters");
    let leaf = leaf.signed_by(&key, &issuer).expect("a leaf");
    for (name, text) in [
        ("root.pem", root.pem()),
        ("leaf.pem", leaf.pem()),
        ("key.pem", key.serialize_pem()),
    ] {
        std::fs::write(folder.join(name), text).expect("written");
    }
}

/// A service behind a proxy on this machine, with TLS.
struct Behind {
    here: Installation,
    emulator: Emulator,
    port: Port,
}

impl Behind {
    async fn new(prefix: &str) -> Self {
        Self::with(prefix, "", "").await
    }

    /// [`Behind::new`] with more lines for `[public]` and more sections.
    async fn with(prefix: &str, of_public: &str, sections: &str) -> Self {
        let started = Emulator::start(EmulatorSettings::default(), ([127, 0, 0, 1], 0).into());
        let emulator = started.await.expect("a free port");
        let here = Installation::beside(&emulator, of_public, sections);
        let port = Port::reserve();
        let settings = std::fs::read_to_string(here.settings()).expect("settings");
        let own = format!("url = \"http://127.0.0.1:{}\"", here.public_port());
        let public = format!("url = \"https://localhost:{}{prefix}\"", port.number);
        let settings = settings.replace(&own, &public)
            + &format!(
                "tokens.on_exported = [\"{TOKEN}e\"]\ntokens.on_digitized = [\"{TOKEN}d\"]\n"
            );
        std::fs::write(here.settings(), settings).expect("written");
        make_certificate(here.folder());
        Self {
            here,
            emulator,
            port,
        }
    }

    fn path(&self, name: &str) -> String {
        self.here.folder().join(name).display().to_string()
    }

    /// A block of the page with this test's names, and shorter deadlines.
    fn adapted(&self, text: &str) -> String {
        text.replace(
            "/etc/letsencrypt/live/hooks.example.lt/fullchain.pem",
            &self.path("leaf.pem"),
        )
        .replace(
            "/etc/letsencrypt/live/hooks.example.lt/privkey.pem",
            &self.path("key.pem"),
        )
        .replace(
            "127.0.0.1:8080",
            &format!("127.0.0.1:{}", self.here.public_port()),
        )
        .replace(
            "listen 443",
            &format!("listen 127.0.0.1:{}", self.port.number),
        )
        .replace("_timeout 10s", "_timeout 1s")
        .replace("_timeout   10s", "_timeout   1s")
        .replace("read_header 10s", "read_header 1s")
        .replace("read_body 10s", "read_body 1s")
    }

    fn nginx(&self, server: &str) -> Child {
        let user = if rustix::process::geteuid().is_root() {
            "user root;"
        } else {
            ""
        };
        let server = self
            .adapted(server)
            .replace("hooks.example.lt", "localhost");
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
        self.start(command)
    }

    fn caddy(&self, site: &str) -> Child {
        let address = format!("https://localhost:{}", self.port.number);
        let own_certificate = format!("tls {} {}", self.path("leaf.pem"), self.path("key.pem"));
        let site = self
            .adapted(site)
            .replacen("{\n", "{\n\tadmin off\n\tauto_https off\n", 1)
            .replace(
                "hooks.example.lt {",
                &format!("{address} {{\n\tbind 127.0.0.1\n\t{own_certificate}"),
            );
        std::fs::write(self.path("Caddyfile"), site).expect("written");
        let mut command = Command::new("caddy");
        command
            .args([
                "run",
                "--adapter",
                "caddyfile",
                "--config",
                &self.path("Caddyfile"),
            ])
            .env("XDG_DATA_HOME", self.path("data"))
            .env("XDG_CONFIG_HOME", self.path("config"));
        self.start(command)
    }

    fn start(&self, mut command: Command) -> Child {
        let log = std::fs::File::create(self.path("proxy.log")).expect("made");
        command
            .current_dir(self.here.folder())
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/bin")
            .env("HOME", self.here.folder())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true);
        command.spawn().expect("the proxy starts")
    }

    /// Waits until the proxy takes connections.
    async fn ready(&self, proxy: &mut Child) {
        within("the proxy's start", async {
            while TcpStream::connect(("127.0.0.1", self.port.number))
                .await
                .is_err()
            {
                let ended = proxy.try_wait().expect("a child");
                let log = std::fs::read_to_string(self.path("proxy.log")).unwrap_or_default();
                assert!(ended.is_none(), "the proxy ended: {log}");
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    /// `doctor` through the proxy: everything is as it should be.
    async fn is_well(&self, proxy: &mut Child, arguments: &[&str]) -> Report {
        self.ready(proxy).await;
        let server = self.here.start().await;
        let root = self.path("root.pem");
        let report = Report::with(&self.here, arguments, &[("SSL_CERT_FILE", &root)]).await;
        for check in ["public_address", "large_body", "certificate"] {
            let verdicts = report.results(check);
            assert!(!verdicts.is_empty(), "{check}");
            let log = std::fs::read_to_string(self.path("proxy.log")).unwrap_or_default();
            assert!(
                verdicts.iter().all(|verdict| *verdict == "pass"),
                "{}{log}",
                report.words(check)
            );
        }
        assert_eq!(report.code, Some(0));
        drop(server);
        report
    }
}

#[tokio::test]
async fn the_documented_nginx_configuration_works() {
    if !is_installed("nginx") {
        return;
    }
    let behind = Behind::new("").await;
    let mut proxy = behind.nginx(&block("nginx"));
    let report = behind.is_well(&mut proxy, &[]).await;
    assert_eq!(report.results("header_deadline"), ["pass"]);
    assert_eq!(report.results("body_deadline"), ["pass"]);
    // The service is gone: the proxy's own answer makes SNS try again.
    let client = client(&behind);
    let url = format!("https://localhost:{}", behind.port.number);
    let away = client.post(format!("{url}/webhooks/x")).send().await;
    assert_eq!(away.expect("an answer").status(), 502);
    let elsewhere = client.get(url).send().await;
    assert_eq!(elsewhere.expect("an answer").status(), 404);
    let log = std::fs::read_to_string(behind.path("proxy.log")).expect("a log");
    assert!(!log.contains(TOKEN), "{log}");
}

#[tokio::test]
async fn the_file_of_init_works_behind_nginx_with_only_addresses_set() {
    if !is_installed("nginx") {
        return;
    }
    let behind = Behind::new("").await;
    let mut proxy = behind.nginx(&block("nginx"));
    behind.ready(&mut proxy).await;
    let url = format!("https://localhost:{}", behind.port.number);
    let arguments = ["init", "--force", "--company", DEFAULT_COMPANIES[0]];
    let arguments = [&arguments[..], &["--public-url", &url]].concat();
    let (code, said, errors) = behind.here.run(&arguments).await;
    assert_eq!(code, Some(0), "{errors}");
    assert!(said.contains(&url), "{said}");

    let (here, emulator) = (&behind.here, &behind.emulator);
    let local = |port: u16| format!("127.0.0.1:{port}");
    let (public, private) = (local(here.public_port()), local(here.admin_port()));
    let (origin, api, root) = (
        emulator.origin(),
        emulator.api_url(),
        behind.path("root.pem"),
    );
    let variables = [
        ("IVESK_WEBHOOK_PUBLIC_LISTEN", public.as_str()),
        ("IVESK_WEBHOOK_ADMIN_LISTEN", private.as_str()),
        ("IVESK_WEBHOOK_API_URL", api.as_str()),
        ("IVESK_WEBHOOK_API_EXPORTED_PATH", "path"),
        ("IVESK_WEBHOOK_SNS_LOCAL_ORIGINS", origin.as_str()),
        ("SSL_CERT_FILE", root.as_str()),
    ];
    let mut serve = here.command(&["serve"]);
    serve.envs(variables);
    let mut server = Server::spawn(serve);
    server.receiving().await;

    let report = Report::with(here, &["--quick"], &variables).await;

    let words = report.words("public_address");
    assert_eq!(
        report.results("public_address"),
        ["pass", "pass"],
        "{words}"
    );
    assert_eq!(report.code, Some(0));
}

#[tokio::test]
async fn nginx_works_below_a_prefix() {
    if !is_installed("nginx") {
        return;
    }
    let behind = Behind::new("/ivesk").await;
    let whole = block("nginx");
    let (before, rest) = whole.split_once("    location /webhooks/ {").expect("it");
    let (_, after) = rest.split_once("    }\n").expect("its end");
    let server = format!("{before}{}{after}", block("nginx prefix"));
    let mut proxy = behind.nginx(&server);
    behind.is_well(&mut proxy, &["--quick"]).await;
}

#[tokio::test]
async fn the_documented_caddy_configuration_works() {
    if !is_installed("caddy") {
        return;
    }
    let behind = Behind::new("").await;
    let mut proxy = behind.caddy(&block("caddyfile"));
    let report = behind.is_well(&mut proxy, &[]).await;
    assert_eq!(report.results("header_deadline"), ["pass"]);
    assert_eq!(report.results("body_deadline"), ["pass"]);
    let client = client(&behind);
    let url = format!("https://localhost:{}", behind.port.number);
    let away = client.post(format!("{url}/webhooks/x")).send().await;
    assert_eq!(away.expect("an answer").status(), 502);
    let elsewhere = client.get(url).send().await;
    assert_eq!(elsewhere.expect("an answer").status(), 404);
}

#[tokio::test]
async fn caddy_works_below_a_prefix() {
    if !is_installed("caddy") {
        return;
    }
    let behind = Behind::new("/ivesk").await;
    let whole = block("caddyfile");
    let (before, rest) = whole.split_once("\thandle /webhooks/* {").expect("it");
    let (_, after) = rest.split_once("\thandle {").expect("its end");
    let site = format!("{before}{}\thandle {{{after}", block("caddyfile prefix"));
    let mut proxy = behind.caddy(&site);
    behind.is_well(&mut proxy, &["--quick"]).await;
}

/// Where the client of [`who_asked`] speaks from: this machine, and no proxy of ours.
const CLIENT: [u8; 4] = [127, 0, 0, 2];

/// What a stranger writes to be taken for somebody else.
const FORGED: [(&str, &str); 3] = [
    ("x-forwarded-for", "203.0.113.9"),
    ("forwarded", "for=203.0.113.9"),
    ("x-request-id", "forged"),
];

/// A service that trusts a proxy at 127.0.0.1 alone and logs who asks.
async fn behind_one_proxy() -> Behind {
    Behind::with(
        "",
        "trusted_proxies = [\"127.0.0.1\"]",
        "[log]\nformat = \"json\"\nclient_addresses = true\n",
    )
    .await
}

/// Who asked, as the log has it, where a client at [`CLIENT`] forges all it can.
async fn who_asked(behind: &Behind, server: &Server, base: &str) -> (String, String) {
    let client = trusting(behind).local_address(IpAddr::from(CLIENT)).build();
    let client = client.expect("a client");
    let mut request = client.post(format!("{base}/webhooks/default/on_exported/wrong"));
    for (name, value) in FORGED {
        request = request.header(name, value);
    }
    let answer = request.send().await.expect("an answer");
    assert_eq!(answer.status(), 404);
    let line = line_about(server, &answer).await;
    let text = |field: &Value| field.as_str().expect("text").to_owned();
    (
        text(&line["fields"]["client.address"]),
        text(&line["fields"]["request.id"]),
    )
}

#[tokio::test]
async fn nginx_passes_the_true_client_address_and_id() {
    if !is_installed("nginx") {
        return;
    }
    let appending = block("nginx").replace("$remote_addr", "$proxy_add_x_forwarded_for");
    // As the page shows it, and as it says for a proxy behind another one.
    for server_block in [block("nginx"), appending] {
        let behind = behind_one_proxy().await;
        let mut proxy = behind.nginx(&server_block);
        behind.ready(&mut proxy).await;
        let server = behind.here.start().await;
        let base = format!("https://localhost:{}", behind.port.number);

        let (address, id) = who_asked(&behind, &server, &base).await;

        assert_eq!(address, "127.0.0.2");
        // nginx writes its own as 32 digits; ours looks otherwise.
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
    let behind = behind_one_proxy().await;
    let mut proxy = behind.caddy(&block("caddyfile"));
    behind.ready(&mut proxy).await;
    let server = behind.here.start().await;
    let base = format!("https://localhost:{}", behind.port.number);

    let (address, id) = who_asked(&behind, &server, &base).await;

    assert_eq!(address, "127.0.0.2");
    assert!(uuid::Uuid::try_parse(&id).is_ok(), "{id}");
}

#[tokio::test]
async fn headers_of_a_stranger_past_the_proxy_are_ignored() {
    let behind = behind_one_proxy().await;
    let server = behind.here.start().await;
    let base = format!("http://127.0.0.1:{}", behind.here.public_port());

    let (address, id) = who_asked(&behind, &server, &base).await;

    assert_eq!(address, "127.0.0.2");
    assert_ne!(id, "forged");
}

#[tokio::test]
async fn doctor_finds_a_low_body_limit_and_an_untrusted_certificate() {
    if !is_installed("nginx") {
        return;
    }
    let behind = Behind::new("").await;
    let server = block("nginx").replace("client_max_body_size 2m;", "");
    let mut proxy = behind.nginx(&server);
    behind.ready(&mut proxy).await;
    let running = behind.here.start().await;
    let root = behind.path("root.pem");
    let report = Report::with(&behind.here, &["--quick"], &[("SSL_CERT_FILE", &root)]).await;
    assert_eq!(report.results("large_body"), ["fail"]);
    let words = report.words("large_body");
    assert!(words.contains("client_max_body_size"), "{words}");

    let report = Report::of(&behind.here, &["--quick"]).await;
    let verdicts = report.results("public_address");
    assert_eq!(verdicts, ["unreachable", "unreachable"]);
    let words = report.words("public_address");
    assert!(words.contains("fullchain.pem"), "{words}");
    drop(running);
}

fn client(behind: &Behind) -> reqwest::Client {
    trusting(behind).build().expect("a client")
}

/// What becomes a client that trusts the proxy's certificate.
fn trusting(behind: &Behind) -> reqwest::ClientBuilder {
    let root = std::fs::read(behind.path("root.pem")).expect("a root");
    let root = reqwest::Certificate::from_pem(&root).expect("a certificate");
    reqwest::Client::builder().tls_certs_only([root]).no_proxy()
}

#[tokio::test]
async fn the_systemd_unit_is_valid_and_hardened() {
    if !is_installed("systemd-analyze") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let unit = include_str!("../../../packaging/ivesk-webhook.service");
    let unit = unit.replace(
        "/usr/local/bin/ivesk-webhook",
        env!("CARGO_BIN_EXE_ivesk-webhook"),
    );
    let path = folder.path().join("ivesk-webhook.service");
    std::fs::write(&path, unit).expect("written");
    let analyze = async |arguments: &[&str]| {
        let mut command = Command::new("systemd-analyze");
        let output = command.args(arguments).arg(&path).output().await;
        let output = output.expect("it runs");
        let said = [output.stdout, output.stderr].concat();
        (
            output.status.success(),
            String::from_utf8_lossy(&said).into_owned(),
        )
    };
    let (well, said) = analyze(&["verify", "--man=no"]).await;
    assert!(well, "{said}");
    // 2.0 of 10, less is better; an ordinary service has 9.
    let (well, said) = analyze(&["security", "--offline=true", "--threshold=20"]).await;
    assert!(well, "{said}");
}
