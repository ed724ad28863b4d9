//! `serve` as a process of its own: started, stopped, killed, and restarted on the same ports.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ivesk_webhook::domain::Event;
use ivesk_webhook::emulator::{DEFAULT_COMPANIES, DEFAULT_KEY, Emulator};
use ivesk_webhook::store::SharedStore;
use ivesk_webhook::store::sqlite::SqliteStore;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader, Lines};
use tokio::net::{TcpSocket, TcpStream};
use tokio::process::{Child, ChildStdout, Command};

/// The longest that anything here may take; a test that gets there has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Waits for `event`, and says which one never came.
pub(crate) async fn within<T>(what: &str, event: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, event).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: nothing within {PATIENCE:?}"),
    }
}

/// The program with an environment of its own.
pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ivesk-webhook"));
    command.env_clear().kill_on_drop(true);
    command
}

/// A port that nobody else is given while a process comes and goes on it.
///
/// Bound but not listening: the system hands it to no other, and a listener that reuses
/// addresses, as ours does, may still have it.
pub(crate) struct Port {
    pub(crate) number: u16,
    _holder: TcpSocket,
}

impl Port {
    pub(crate) fn reserve() -> Self {
        let holder = TcpSocket::new_v4().expect("a socket");
        holder.set_reuseaddr(true).expect("an option of sockets");
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

/// A folder with settings and a store, and the ports that its server listens on.
pub(crate) struct Installation {
    folder: tempfile::TempDir,
    public: Port,
    admin: Port,
    with_key: bool,
}

impl Installation {
    /// Settings under which the server trusts `emulator` and pulls from it, with more
    /// lines for `[public]` and more sections.
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

    /// Settings that name nobody to pull from.
    pub(crate) fn alone(sections: &str) -> Self {
        Self::write(false, "", sections)
    }

    /// Settings for the one subcommand or the other, with an API key.
    pub(crate) fn with_key(sections: &str) -> Self {
        Self::write(true, "", sections)
    }

    fn write(with_key: bool, of_public: &str, sections: &str) -> Self {
        let installation = Self {
            folder: tempfile::tempdir().expect("a folder"),
            public: Port::reserve(),
            admin: Port::reserve(),
            with_key,
        };
        let (public, admin) = (installation.public.number, installation.admin.number);
        let settings = format!(
            "[public]\nurl = \"http://127.0.0.1:{public}\"\nlisten = \"127.0.0.1:{public}\"\n{of_public}\n\
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

    /// Where deliveries go; on loopback the token may be missing.
    pub(crate) fn webhook(&self, event: Event) -> String {
        format!(
            "http://127.0.0.1:{}/webhooks/default/{event}",
            self.public.number
        )
    }

    /// An address of the admin listener.
    pub(crate) fn admin_url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.admin.number)
    }

    /// The program with these settings.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = program();
        command.current_dir(self.folder()).args(arguments);
        self.with_surroundings(&mut command);
        command
    }

    fn with_surroundings(&self, command: &mut Command) {
        command.env("IVESK_WEBHOOK_CONFIG", self.settings());
        if self.with_key {
            command.env("IVESK_WEBHOOK_API_KEY", DEFAULT_KEY);
        }
    }

    /// Runs a subcommand to its end: exit code, standard output, standard error.
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
        let output = within("a subcommand's end", command.output()).await;
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

    /// [`Installation::spawn`] with SIGXFSZ ignored, so that a file that reaches the
    /// process's limit is an error of the write and not the end of the process.
    pub(crate) fn spawn_with_file_limits(&self) -> Server {
        let mut command = Command::new("/bin/sh");
        command
            .env_clear()
            .kill_on_drop(true)
            .current_dir(self.folder())
            .args(["-c", "trap '' XFSZ; exec \"$0\" serve"])
            .arg(env!("CARGO_BIN_EXE_ivesk-webhook"));
        self.with_surroundings(&mut command);
        Server::spawn(command)
    }

    /// Starts `serve` and waits until it says where it receives.
    pub(crate) async fn start(&self) -> Server {
        let mut server = self.spawn();
        server.receiving().await;
        server
    }

    /// The store, for reading, whether a server has it or not.
    pub(crate) fn read_store(&self) -> SharedStore {
        let store = SqliteStore::open_for_reading(&self.database());
        Arc::new(store.expect("the store can be read"))
    }
}

/// A `serve` process. It is killed when this is dropped.
pub(crate) struct Server {
    child: Child,
    stdout: Lines<BufReader<ChildStdout>>,
    heard: bool,
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
        let written = Arc::clone(&log);
        let reading = tokio::spawn(async move {
            let mut part = vec![0; 16 * 1024];
            while let Ok(length @ 1..) = stderr.read(&mut part).await {
                let text = String::from_utf8_lossy(&part[..length]);
                written.lock().expect("never poisoned").push_str(&text);
            }
        });
        Self {
            child,
            stdout,
            heard: false,
            log,
            reading,
        }
    }

    /// Waits until it has said where it receives: both listeners are open then.
    pub(crate) async fn receiving(&mut self) {
        if self.heard {
            return;
        }
        let line = within("the server's first line", self.stdout.next_line()).await;
        let line = line.expect("its output is text").unwrap_or_default();
        assert!(line.contains("receives at"), "{line}\n{}", self.log());
        self.heard = true;
    }

    pub(crate) fn pid(&self) -> Pid {
        let id = self.child.id().expect("it runs");
        Pid::from_raw(id.try_into().expect("a process id")).expect("not 0")
    }

    /// Stops it: what it printed after its first line.
    pub(crate) async fn printed(mut self) -> String {
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

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().expect("never poisoned").clone()
    }

    /// `kill -9`, and waits until the system has taken it away.
    pub(crate) async fn kill(mut self) -> String {
        self.child.kill().await.expect("it can be killed");
        self.reading.await.expect("reading ends with the process");
        self.log.lock().expect("never poisoned").clone()
    }

    /// `kill`, as a service manager stops it.
    pub(crate) fn terminate(&self) {
        kill_process(self.pid(), Signal::TERM).expect("it can be signalled");
    }

    /// Whether it ends before `pause` is over.
    pub(crate) async fn has_ended_within(&mut self, pause: Duration) -> bool {
        tokio::time::timeout(pause, self.child.wait()).await.is_ok()
    }

    /// Waits for its end: how it ended, and all that it logged.
    pub(crate) async fn ended(mut self) -> (ExitStatus, String) {
        let status = within("the server's end", self.child.wait()).await;
        self.reading.await.expect("reading ends with the process");
        let log = self.log.lock().expect("never poisoned").clone();
        (status.expect("it was our child"), log)
    }
}

/// Waits until nobody listens on `port` any more.
pub(crate) async fn closed(port: u16) {
    within("the listener's end", async {
        while TcpStream::connect(("127.0.0.1", port)).await.is_ok() {}
    })
    .await;
}
