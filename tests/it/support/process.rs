//! The program in processes of its own, which tests start, stop, kill and restart on the
//! same ports.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ivesk_webhook::domain::Event;
use ivesk_webhook::emulator::{
    Control, DEFAULT_COMPANIES, DEFAULT_KEY, Emulator, SubscriptionState,
};
use ivesk_webhook::store::SharedStore;
use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder, Response};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader, Lines};
use tokio::net::{TcpSocket, TcpStream};
use tokio::process::{Child, ChildStdout, Command};

use crate::support::databases::open_file_for_reading;

/// The configured token of every [`Installation`], with which the tests use the admin API.
pub(crate) const ADMIN_TOKEN: &str = "private-token-of-the-tests-0123456789";

/// Longest wait for any event; a test that reaches it has failed.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Waits for `event`; panics with its name after [`TIMEOUT`].
pub(crate) async fn within<T>(what: &str, event: impl Future<Output = T>) -> T {
    match tokio::time::timeout(TIMEOUT, event).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: not within {TIMEOUT:?}"),
    }
}

/// Returns a client that ignores proxies of the environment.
pub(crate) fn client() -> reqwest::Client {
    let client = reqwest::Client::builder().no_proxy();
    client.build().expect("a client")
}

/// Writes an executable file.
pub(crate) fn write_program(path: &Path, text: &str) {
    std::fs::write(path, text).expect("a file");
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(path, executable).expect("allowed");
}

/// Returns a command that runs the program in an empty environment.
pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ivesk-webhook"));
    command.env_clear().kill_on_drop(true);
    command
}

/// A port reserved for a process that starts and stops on it.
///
/// Bound but not listening: the system assigns it to no other process, while a listener that
/// reuses addresses, as the program's does, can still bind it.
pub(crate) struct Port {
    pub(crate) number: u16,
    _holder: TcpSocket,
}

impl Port {
    pub(crate) fn reserve() -> Self {
        let holder = TcpSocket::new_v4().expect("a socket");
        holder.set_reuseaddr(true).expect("a socket option");
        holder
            .bind(([127, 0, 0, 1], 0).into())
            .expect("a free port");
        let number = holder.local_addr().expect("it is bound").port();
        Self {
            number,
            _holder: holder,
        }
    }
}

/// A folder with settings and a store, and the ports of its server.
pub(crate) struct Installation {
    folder: tempfile::TempDir,
    public: Port,
    admin: Port,
    with_key: bool,
}

impl Installation {
    /// Writes settings that trust `emulator` and pull from it, with more lines for `[public]`
    /// and more sections.
    pub(crate) fn beside(emulator: &Emulator, public: &str, sections: &str) -> Self {
        let (origin, api) = (emulator.origin(), emulator.api_url());
        let companies = DEFAULT_COMPANIES.join("\", \"");
        let sections = format!(
            "{sections}\n[sns]\nlocal_origins = [\"{origin}\"]\n\
             [api]\nurl = \"{api}\"\nexported_path = \"path\"\n\
             [accounts.default]\ncompanies = [\"{companies}\"]\n"
        );
        Self::write(true, public, &sections)
    }

    /// Writes settings without a vendor to pull from.
    pub(crate) fn alone(sections: &str) -> Self {
        Self::write(false, "", sections)
    }

    /// Writes settings without a vendor, but sets an API key.
    pub(crate) fn with_key(sections: &str) -> Self {
        Self::write(true, "", sections)
    }

    fn write(with_key: bool, public_lines: &str, sections: &str) -> Self {
        let installation = Self {
            folder: tempfile::tempdir().expect("a folder"),
            public: Port::reserve(),
            admin: Port::reserve(),
            with_key,
        };
        let (public, admin) = (installation.public.number, installation.admin.number);
        let settings = format!(
            "[public]\nurl = \"http://127.0.0.1:{public}\"\nlisten = \"127.0.0.1:{public}\"\n{public_lines}\n\
             [admin]\nlisten = \"127.0.0.1:{admin}\"\n{sections}\n"
        );
        std::fs::write(installation.settings(), settings).expect("a file");
        installation
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn settings(&self) -> PathBuf {
        self.folder.path().join("ivesk-webhook.toml")
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.folder.path().join("ivesk-webhook.db")
    }

    pub(crate) fn public_port(&self) -> u16 {
        self.public.number
    }

    pub(crate) fn admin_port(&self) -> u16 {
        self.admin.number
    }

    /// Returns the webhook's address; on loopback it needs no token.
    pub(crate) fn webhook(&self, event: Event) -> String {
        format!(
            "http://127.0.0.1:{}/webhooks/default/{event}",
            self.public.number
        )
    }

    /// Returns an address of the admin listener.
    pub(crate) fn admin_url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.admin.number)
    }

    /// Subscribes the webhooks of `events`, and waits until the server has confirmed them.
    pub(crate) async fn subscribe(&self, control: &Control, events: &[Event]) {
        let targets = events.iter().map(|event| (*event, self.webhook(*event)));
        subscribe(control, targets).await;
    }

    /// Returns a request to the admin listener with [`ADMIN_TOKEN`], which the test sends.
    pub(crate) fn admin_request(&self, method: Method, path: &str) -> RequestBuilder {
        client()
            .request(method, self.admin_url(path))
            .bearer_auth(ADMIN_TOKEN)
    }

    /// Requests `path` of the admin listener and returns the JSON of the answer.
    pub(crate) async fn admin_json(&self, path: &str) -> Value {
        let answer = self.admin_request(Method::GET, path).send().await;
        let text = answer.expect("an answer").text().await.expect("a body");
        serde_json::from_str(&text).expect("JSON")
    }

    /// Returns the program with these settings.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = program();
        command.current_dir(self.folder()).args(arguments);
        self.set_environment(&mut command);
        command
    }

    fn set_environment(&self, command: &mut Command) {
        command.env("IVESK_WEBHOOK_CONFIG", self.settings());
        command.env("IVESK_WEBHOOK_ADMIN_TOKEN", ADMIN_TOKEN);
        if self.with_key {
            command.env("IVESK_WEBHOOK_API_KEY", DEFAULT_KEY);
        }
    }

    /// Runs a subcommand; returns exit code, standard output and standard error.
    pub(crate) async fn run(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        self.run_with(arguments, &[]).await
    }

    /// [`Installation::run`] with more variables.
    pub(crate) async fn run_with(
        &self,
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> (Option<i32>, String, String) {
        let mut command = self.command(arguments);
        command.envs(variables.iter().copied());
        let output = within("the subcommand's exit", command.output()).await;
        let output = output.expect("the program runs");
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    }

    /// Starts `serve` and returns at once.
    pub(crate) fn spawn(&self) -> Server {
        Server::spawn(self.command(&["serve"]))
    }

    /// [`Installation::spawn`] with more arguments.
    pub(crate) fn spawn_with(&self, arguments: &[&str]) -> Server {
        Server::spawn(self.command(&[&["serve"], arguments].concat()))
    }

    /// [`Installation::spawn`] with SIGXFSZ ignored, so that a write beyond the process's
    /// limit for files fails instead of ending the process.
    pub(crate) fn spawn_with_file_limits(&self) -> Server {
        let mut command = Command::new("/bin/sh");
        command
            .env_clear()
            .kill_on_drop(true)
            .current_dir(self.folder())
            .args(["-c", "trap '' XFSZ; exec \"$0\" serve"])
            .arg(env!("CARGO_BIN_EXE_ivesk-webhook"));
        self.set_environment(&mut command);
        Server::spawn(command)
    }

    /// Starts `serve` and waits until it is ready.
    pub(crate) async fn start(&self) -> Server {
        let mut server = self.spawn();
        server.ready().await;
        server
    }

    /// Opens the store for reading, beside a server or without one.
    pub(crate) async fn read_store(&self) -> SharedStore {
        let store = open_file_for_reading(&self.database()).await;
        Arc::new(store.expect("the store can be read"))
    }
}

/// Subscribes webhooks, and waits until they are confirmed.
pub(crate) async fn subscribe(
    control: &Control,
    targets: impl IntoIterator<Item = (Event, String)>,
) {
    for (event, target) in targets {
        control.subscribe(event, &target).expect("on this machine");
    }
    within("the confirmations", control.idle()).await;
    for subscription in control.subscriptions() {
        assert_eq!(subscription.state, SubscriptionState::Confirmed);
    }
}

/// A `serve` process, killed when this is dropped.
pub(crate) struct Server {
    child: Child,
    stdout: Lines<BufReader<ChildStdout>>,
    is_ready: bool,
    log: Arc<Mutex<String>>,
    reading: tokio::task::JoinHandle<()>,
}

impl Server {
    pub(crate) fn spawn(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let stdout = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let mut stderr = child.stderr.take().expect("it is piped");
        let log = Arc::new(Mutex::new(String::new()));
        let shared = Arc::clone(&log);
        let reading = tokio::spawn(async move {
            let mut part = vec![0; 16 * 1024];
            while let Ok(length @ 1..) = stderr.read(&mut part).await {
                let text = String::from_utf8_lossy(&part[..length]);
                shared.lock().expect("never poisoned").push_str(&text);
            }
        });
        Self {
            child,
            stdout,
            is_ready: false,
            log,
            reading,
        }
    }

    /// Waits for its first line, which it prints once both listeners are open.
    pub(crate) async fn ready(&mut self) {
        if self.is_ready {
            return;
        }
        let line = within("the server's first line", self.stdout.next_line()).await;
        let line = line.expect("its output is text").unwrap_or_default();
        assert!(line.contains("receives at"), "{line}\n{}", self.log());
        self.is_ready = true;
    }

    pub(crate) fn pid(&self) -> Pid {
        let id = self.child.id().expect("it runs");
        Pid::from_raw(id.try_into().expect("a process id")).expect("not 0")
    }

    /// Stops it; returns what it printed after its first line.
    pub(crate) async fn stop_and_read(mut self) -> String {
        self.terminate();
        let mut printed = String::new();
        while let Some(line) = within("the server's lines", self.stdout.next_line())
            .await
            .expect("its output is text")
        {
            printed.push_str(&line);
            printed.push('\n');
        }
        printed
    }

    /// Returns its log so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().expect("never poisoned").clone()
    }

    /// Waits for the log's line about the request of this answer.
    pub(crate) async fn line_about(&self, answer: &Response) -> Value {
        let id = request_id(answer.headers());
        let line = async {
            loop {
                let log = self.log();
                let mut lines = log.lines().filter_map(|line| {
                    let line: Value = serde_json::from_str(line).ok()?;
                    (line["fields"]["request.id"] == id).then_some(line)
                });
                if let Some(line) = lines.next() {
                    return line;
                }
                tokio::task::yield_now().await;
            }
        };
        within("the line about the request", line).await
    }

    /// Sends SIGKILL and waits until the process is gone; returns its log.
    pub(crate) async fn kill(mut self) -> String {
        self.child.kill().await.expect("it can be killed");
        self.reading.await.expect("reading ends with the process");
        self.log.lock().expect("never poisoned").clone()
    }

    /// Sends SIGTERM, as a service manager does.
    pub(crate) fn terminate(&self) {
        kill_process(self.pid(), Signal::TERM).expect("it can be signaled");
    }

    /// Returns true if it exits within `time`.
    pub(crate) async fn exits_within(&mut self, time: Duration) -> bool {
        tokio::time::timeout(time, self.child.wait()).await.is_ok()
    }

    /// Waits for its exit; returns its status and its log.
    pub(crate) async fn exited(mut self) -> (ExitStatus, String) {
        let status = within("the server's exit", self.child.wait()).await;
        self.reading.await.expect("reading ends with the process");
        let log = self.log.lock().expect("never poisoned").clone();
        (status.expect("it was our child"), log)
    }
}

/// Returns the request's id, which every answer has once.
pub(crate) fn request_id(headers: &HeaderMap) -> String {
    let mut values = headers.get_all("x-request-id").iter();
    let value = values.next().expect("a request id");
    assert!(values.next().is_none(), "two request ids");
    value.to_str().expect("text").to_owned()
}

/// Waits until `port` is closed.
pub(crate) async fn until_closed(port: u16) {
    within("the closing of the listener", async {
        while TcpStream::connect(("127.0.0.1", port)).await.is_ok() {}
    })
    .await;
}

/// Returns the user of this process as the audit list names it.
pub(crate) fn this_user() -> String {
    let uid = rustix::process::geteuid().as_raw();
    let named = std::process::Command::new("id").arg("-un").output();
    let named = named.expect("it runs").stdout;
    let name = String::from_utf8(named).expect("text");
    format!("user:{uid}:{}", name.trim())
}
