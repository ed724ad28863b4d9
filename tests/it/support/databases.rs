//! Databases for tests: each test has one of its own, of either kind.
//!
//! PostgreSQL is taken from `IVESK_WEBHOOK_TEST_POSTGRES` (a URL whose user may create
//! databases), or a cluster of this process is started from the machine's binaries.
//! Where there are none, tests say what they left out, and with
//! `IVESK_WEBHOOK_TEST_REQUIRE_POSTGRES` they fail.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use ivesk_webhook::config::{PostgresAddress, StoreUrl};
use ivesk_webhook::domain::Clock;
use ivesk_webhook::store::postgres::{PostgresOptions, PostgresStore};
use ivesk_webhook::store::sqlite::{SqliteOptions, SqliteStore};
use ivesk_webhook::store::{SharedStore, StoreError};

/// How a test's store is opened.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) queue: usize,
    pub(crate) quarantine_bytes: u64,
    pub(crate) ask: bool,
    pub(crate) clock: Clock,
}

impl Options {
    pub(crate) fn at(clock: Clock) -> Self {
        Self {
            queue: 4096,
            quarantine_bytes: 64 << 20,
            ask: false,
            clock,
        }
    }
}

/// An empty database that nobody else uses, removed when it is dropped.
pub(crate) enum Database {
    /// A file in a folder of its own.
    Sqlite(tempfile::TempDir),
    /// A database of a server.
    Postgres(Own),
}

/// A PostgreSQL database of one test.
pub(crate) struct Own {
    server: String,
    name: String,
}

impl Database {
    pub(crate) fn sqlite() -> Self {
        Self::Sqlite(tempfile::tempdir().expect("a folder"))
    }

    /// `None` where this machine has no PostgreSQL: then `test` is left out, and says so.
    pub(crate) async fn postgres(test: &str) -> Option<Self> {
        static SHARED: OnceLock<Result<Server, String>> = OnceLock::new();
        match SHARED.get_or_init(Server::find) {
            Ok(server) => Some(Self::on(&server.url()).await),
            Err(why) => {
                leave_out(test, why);
                None
            }
        }
    }

    /// What a test that doesn't care is to use: a PostgreSQL database where
    /// `IVESK_WEBHOOK_TEST_STORE` is `postgres`, `None` for the file it would make itself.
    pub(crate) async fn of_the_suite() -> Option<Self> {
        match std::env::var("IVESK_WEBHOOK_TEST_STORE").as_deref() {
            Err(_) | Ok("sqlite") => None,
            Ok("postgres") => Some(
                Self::postgres("the whole suite")
                    .await
                    .expect("IVESK_WEBHOOK_TEST_STORE asks for PostgreSQL, and there is none"),
            ),
            Ok(other) => panic!("IVESK_WEBHOOK_TEST_STORE is {other}: sqlite or postgres"),
        }
    }

    /// A new database of the server at `url`.
    pub(crate) async fn on(url: &str) -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = format!("ivesk_test_{}_{number}", std::process::id());
        run_sql(url, &format!("CREATE DATABASE {name}")).await;
        Self::Postgres(Own {
            server: url.to_owned(),
            name,
        })
    }

    /// Where it is.
    pub(crate) fn url(&self) -> StoreUrl {
        match self {
            Self::Sqlite(folder) => StoreUrl::Sqlite(folder.path().join("test.db")),
            Self::Postgres(own) => {
                let server = PostgresAddress::parse(&own.server).expect("a usable address");
                StoreUrl::Postgres(server.with_database(&own.name))
            }
        }
    }

    /// Where it is, as text for settings.
    pub(crate) fn url_text(&self) -> String {
        match self {
            Self::Sqlite(_) => self.url().to_string(),
            Self::Postgres(own) => in_database(&own.server, &own.name),
        }
    }

    /// The folder of a SQLite file.
    pub(crate) fn folder(&self) -> &Path {
        match self {
            Self::Sqlite(folder) => folder.path(),
            Self::Postgres(_) => panic!("a PostgreSQL database has no folder"),
        }
    }

    /// Opens the store on it.
    pub(crate) async fn open(&self, options: Options) -> Result<SharedStore, StoreError> {
        Ok(match self.url() {
            StoreUrl::Sqlite(path) => std::sync::Arc::new(SqliteStore::open(SqliteOptions {
                path,
                queue: options.queue,
                quarantine_bytes: options.quarantine_bytes,
                ask: options.ask,
            })?),
            StoreUrl::Postgres(address) => std::sync::Arc::new(
                PostgresStore::open(PostgresOptions {
                    address,
                    queue: options.queue,
                    quarantine_bytes: options.quarantine_bytes,
                    ask: options.ask,
                    clock: options.clock,
                })
                .await?,
            ),
        })
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let (server, name) = (self.server.clone(), self.name.clone());
        // A test's runtime may be ending, so this has one of its own.
        let removed = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async move {
                let sql = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
                // Its server may be one that the test has stopped.
                if let Some(client) = connect(&server).await {
                    let _ = client.batch_execute(&sql).await;
                }
            });
        });
        let _ = removed.join();
    }
}

/// The URL of another database of the same server.
fn in_database(server: &str, name: &str) -> String {
    let mut url = url::Url::parse(server).expect("a URL");
    url.set_path(name);
    url.into()
}

async fn connect(url: &str) -> Option<tokio_postgres::Client> {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls)
        .await
        .ok()?;
    tokio::spawn(connection);
    Some(client)
}

/// Runs statements at `url`.
pub(crate) async fn run_sql(url: &str, sql: &str) {
    let client = connect(url).await.expect("PostgreSQL answers");
    client.batch_execute(sql).await.expect("it runs");
}

/// Runs a query at `url` and gives its rows as text.
pub(crate) async fn query_sql(url: &str, sql: &str) -> Vec<Vec<Option<String>>> {
    let client = connect(url).await.expect("PostgreSQL answers");
    let answer = client.simple_query(sql).await.expect("it runs");
    answer
        .into_iter()
        .filter_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => Some(
                (0..row.len())
                    .map(|column| row.get(column).map(str::to_owned))
                    .collect(),
            ),
            _ => None,
        })
        .collect()
}

/// Says that a test was left out, or fails where that is not allowed.
pub(crate) fn leave_out(test: &str, why: &str) {
    assert!(
        std::env::var_os("IVESK_WEBHOOK_TEST_REQUIRE_POSTGRES").is_none(),
        "PostgreSQL is required, and {why}"
    );
    // Straight to standard error, so that `cargo test` shows it for tests that pass.
    let line = format!("left out on PostgreSQL: {test}: {why}\n");
    let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
}

/// A server for tests.
pub(crate) enum Server {
    /// Somebody else's.
    Given(String),
    /// A cluster of this process.
    Started(Cluster),
}

impl Server {
    fn find() -> Result<Self, String> {
        if let Ok(url) = std::env::var("IVESK_WEBHOOK_TEST_POSTGRES") {
            return Ok(Self::Given(url));
        }
        Cluster::start().map(Self::Started)
    }

    fn url(&self) -> String {
        match self {
            Self::Given(url) => url.clone(),
            Self::Started(cluster) => cluster.url(),
        }
    }
}

/// A cluster that ends with this process, however that ends.
pub(crate) struct Cluster {
    folder: PathBuf,
    binaries: PathBuf,
    user: Option<String>,
    /// A process that waits for this one's end, then stops and removes the cluster.
    _keeper: Child,
}

impl Cluster {
    /// Starts one on a Unix socket in a folder of its own; never as root.
    pub(crate) fn start() -> Result<Self, String> {
        let binaries = binaries().ok_or("this machine has no initdb and pg_ctl")?;
        let user = unprivileged_user()?;
        let folder = tempfile::Builder::new()
            .prefix("ivesk-pg-")
            .tempdir()
            .map_err(|error| error.to_string())?
            .keep();
        if let Some(user) = &user {
            run(Command::new("chown").arg(user).arg(&folder))?;
        }
        let mut keeper = Command::new("sh");
        // `cat` ends when this process does: it holds the only other end of the pipe.
        let script = "cat >/dev/null; \"$1/pg_ctl\" -D \"$2/data\" -m immediate stop >/dev/null 2>&1; rm -rf \"$2\"";
        keeper
            .args(["-c", script, "sh"])
            .args([&binaries, &folder])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .current_dir("/");
        // A signal to the tests' group, such as Ctrl-C, is not for it.
        std::os::unix::process::CommandExt::process_group(&mut keeper, 0);
        let keeper = as_user(keeper, user.as_deref())
            .spawn()
            .map_err(|error| error.to_string())?;
        let cluster = Self {
            folder,
            binaries,
            user,
            _keeper: keeper,
        };
        run(cluster.tool("initdb").args([
            "--auth=trust",
            "--username=postgres",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
        ]))?;
        cluster.resume()?;
        Ok(cluster)
    }

    /// Starts it (again) and waits until it answers.
    pub(crate) fn resume(&self) -> Result<(), String> {
        self.resume_with("")
    }

    /// [`Cluster::resume`] with more options for the server.
    pub(crate) fn resume_with(&self, more: &str) -> Result<(), String> {
        // No test takes the machine down, and what a process wrote survives its kill.
        let options = format!(
            "-k {} -c listen_addresses='' -c max_connections=300 -c fsync=off {more}",
            self.folder.display()
        );
        run(self
            .tool("pg_ctl")
            .args(["-w", "-t", "120", "-o", &options, "-l"])
            .arg(self.folder.join("log"))
            .arg("start"))
    }

    /// Stops it as a crash does: every connection is cut, nothing is tidied up.
    pub(crate) fn crash(&self) -> Result<(), String> {
        run(self.tool("pg_ctl").args(["-w", "-m", "immediate", "stop"]))
    }

    /// Makes a file the server's own, which nobody else may read.
    pub(crate) fn own(&self, file: &Path) -> Result<(), String> {
        run(Command::new("chmod").arg("600").arg(file))?;
        match &self.user {
            Some(user) => run(Command::new("chown").arg(user).arg(file)),
            None => Ok(()),
        }
    }

    /// The folder that holds its socket.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whom it runs as, where that is not who runs the tests.
    pub(crate) fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// Where it is, for a user who may do everything.
    pub(crate) fn url(&self) -> String {
        let host = self.folder.display().to_string().replace('/', "%2F");
        format!("postgres://postgres@{host}/postgres")
    }

    fn tool(&self, name: &str) -> Command {
        let mut command = Command::new(self.binaries.join(name));
        command
            .arg("-D")
            .arg(self.folder.join("data"))
            .current_dir(&self.folder)
            .stdin(Stdio::null());
        as_user(command, self.user.as_deref())
    }
}

/// The newest PostgreSQL of Debian's places, else that of the path.
fn binaries() -> Option<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .collect();
    found.sort();
    let debian = found.into_iter().rev().map(|(_, folder)| folder);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let complete =
        |folder: &PathBuf| folder.join("initdb").exists() && folder.join("pg_ctl").exists();
    debian.chain(std::env::split_paths(&path)).find(complete)
}

/// Whom to run PostgreSQL as, which refuses to run as root; `None` is who runs the tests.
fn unprivileged_user() -> Result<Option<String>, String> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let known = |user: &&str| {
        Command::new("id")
            .args(["-u", user])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    };
    ["postgres", "nobody"]
        .iter()
        .find(|user| known(user))
        .map(|user| Some((*user).to_owned()))
        .ok_or_else(|| "the tests run as root, and there is no user postgres or nobody".to_owned())
}

/// The same command as another user.
pub(crate) fn as_user(command: Command, user: Option<&str>) -> Command {
    let Some(user) = user else {
        return command;
    };
    let mut wrapped = Command::new("setpriv");
    wrapped
        .args(["--reuid", user, "--regid"])
        .arg(primary_group(user))
        .args(["--clear-groups", "--"])
        .arg(command.get_program())
        .args(command.get_args());
    if let Some(folder) = command.get_current_dir() {
        wrapped.current_dir(folder);
    }
    // What a command's standard streams are can't be asked, so each is set anew.
    wrapped.stdin(Stdio::piped());
    wrapped.stdout(Stdio::null());
    wrapped.stderr(Stdio::piped());
    std::os::unix::process::CommandExt::process_group(&mut wrapped, 0);
    wrapped
}

fn primary_group(user: &str) -> String {
    let output = Command::new("id").args(["-g", user]).output();
    output
        .ok()
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .map_or_else(|| user.to_owned(), |group| group.trim().to_owned())
}

fn run(command: &mut Command) -> Result<(), String> {
    let status = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        // A server that is started keeps it open, so it must be no pipe.
        .stderr(Stdio::null())
        .status()
        .map_err(|error| format!("{:?}: {error}", command.get_program()))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("{command:?} failed: {status}"))
    }
}
