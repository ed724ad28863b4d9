//! Databases for tests: each test has its own, on either engine.
//!
//! The PostgreSQL server is `IVESK_WEBHOOK_TEST_POSTGRES` (a URL whose user may create
//! databases), or a cluster that this process starts from the machine's binaries. Without
//! either, tests are skipped, or fail if `IVESK_WEBHOOK_TEST_REQUIRE_POSTGRES` is set.

use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use ivesk_webhook::config::{PostgresAddress, StoreUrl};
use ivesk_webhook::domain::Clock;
use ivesk_webhook::store::{SharedStore, Store, StoreError, StoreOptions};

use crate::support::plans::Statements;
use crate::support::skip::skip;

/// Options of a test's store.
#[derive(Clone)]
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

/// Runs each test function on both stores.
macro_rules! on_both_stores {
    ($($test:ident,)*) => {
        mod on_sqlite {
            $(
                #[tokio::test]
                async fn $test() {
                    super::$test(crate::support::databases::Database::sqlite()).await;
                }
            )*
        }
        mod on_postgres {
            $(
                #[tokio::test]
                async fn $test() {
                    let test = stringify!($test);
                    let database = crate::support::databases::Database::postgres(test).await;
                    if let Some(database) = database {
                        super::$test(database).await;
                    }
                }
            )*
        }
    };
}
pub(crate) use on_both_stores;

/// A new database of one test, removed when it is dropped.
pub(crate) enum Database {
    /// A file in a folder of its own.
    Sqlite(SqliteFile),
    /// A database of a server.
    Postgres(PostgresDatabase),
}

/// A SQLite file of one test.
pub(crate) struct SqliteFile {
    folder: tempfile::TempDir,
    statements: Arc<Statements>,
}

/// A PostgreSQL database of one test.
pub(crate) struct PostgresDatabase {
    server: String,
    name: String,
    statements: Arc<Statements>,
}

impl Database {
    pub(crate) fn sqlite() -> Self {
        Self::Sqlite(SqliteFile {
            folder: tempfile::tempdir().expect("a folder"),
            statements: Arc::default(),
        })
    }

    /// Creates a database, or skips `test` and returns `None` if there is no PostgreSQL.
    pub(crate) async fn postgres(test: &str) -> Option<Self> {
        static SHARED: OnceLock<Result<Server, String>> = OnceLock::new();
        match SHARED.get_or_init(Server::find) {
            Ok(server) => Some(Self::on(&server.url()).await),
            Err(why) => {
                skip_postgres(test, why);
                None
            }
        }
    }

    /// Returns the database of a test that works with either: a PostgreSQL database if
    /// `IVESK_WEBHOOK_TEST_STORE` is `postgres`, else `None` for a file that the test creates.
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

    /// Creates a database on the server at `url`.
    pub(crate) async fn on(url: &str) -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = format!("ivesk_test_{}_{number}", std::process::id());
        run_sql(url, &format!("CREATE DATABASE {name}")).await;
        Self::Postgres(PostgresDatabase {
            server: url.to_owned(),
            name,
            statements: Arc::default(),
        })
    }

    /// Returns its URL.
    pub(crate) fn url(&self) -> StoreUrl {
        match self {
            Self::Sqlite(own) => StoreUrl::Sqlite(own.folder.path().join("test.db")),
            Self::Postgres(own) => {
                let server = PostgresAddress::parse(&own.server).expect("a usable address");
                StoreUrl::Postgres(server.with_database(&own.name))
            }
        }
    }

    /// Returns its URL as text for settings.
    pub(crate) fn url_text(&self) -> String {
        match self {
            Self::Sqlite(_) => self.url().to_string(),
            Self::Postgres(own) => in_database(&own.server, &own.name),
        }
    }

    /// Returns the folder of a SQLite file.
    pub(crate) fn folder(&self) -> &Path {
        match self {
            Self::Sqlite(own) => own.folder.path(),
            Self::Postgres(_) => panic!("a PostgreSQL database has no folder"),
        }
    }

    /// Runs statements, as another program would.
    pub(crate) async fn run(&self, sql: &str) {
        match self {
            Self::Sqlite(own) => {
                let file = rusqlite::Connection::open(own.folder.path().join("test.db"));
                file.and_then(|file| file.execute_batch(sql))
                    .expect("it runs");
            }
            Self::Postgres(_) => run_sql(&self.url_text(), sql).await,
        }
    }

    /// Returns the number that a query counts, as another program would.
    pub(crate) async fn count(&self, sql: &str) -> i64 {
        match self {
            Self::Sqlite(own) => {
                let file = rusqlite::Connection::open(own.folder.path().join("test.db"));
                let count = file.and_then(|file| file.query_row(sql, [], |row| row.get(0)));
                count.expect("it counts")
            }
            Self::Postgres(_) => {
                let rows = query_sql(&self.url_text(), sql).await;
                let count = rows[0][0].as_ref().expect("a number");
                count.parse().expect("a number")
            }
        }
    }

    /// Explains the statements that no test has explained yet; returns those that read a
    /// whole table.
    pub(crate) async fn explain(&self) -> Vec<String> {
        match self {
            Self::Sqlite(own) => {
                let path = own.folder.path().join("test.db");
                own.statements.explain_in_file(&path)
            }
            Self::Postgres(own) => {
                let client = connect(&self.url_text()).await.expect("PostgreSQL answers");
                own.statements.explain_with(&client).await
            }
        }
    }

    /// Returns the statements that its stores run.
    pub(crate) fn statements(&self) -> Arc<Statements> {
        match self {
            Self::Sqlite(own) => Arc::clone(&own.statements),
            Self::Postgres(own) => Arc::clone(&own.statements),
        }
    }

    /// Returns the plans of the statements that its stores ran and that contain `part`.
    pub(crate) fn plans(&self, part: &str) -> Vec<String> {
        let path = self.folder().join("test.db");
        self.statements().plans_in_file(&path, part)
    }

    /// Opens its store, whose statements are explained when the test ends.
    pub(crate) async fn open(&self, options: Options) -> Result<SharedStore, StoreError> {
        let options = StoreOptions {
            url: self.url(),
            queue: options.queue,
            quarantine_bytes: options.quarantine_bytes,
            ask: options.ask,
            clock: options.clock,
            hooks: Some(self.statements()),
        };
        Ok(Arc::new(Store::open(options).await?))
    }
}

impl Drop for SqliteFile {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let path = self.folder.path().join("test.db");
            let found = self.statements.explain_in_file(&path);
            assert!(found.is_empty(), "{}", found.join("\n\n"));
        }
    }
}

impl Drop for PostgresDatabase {
    fn drop(&mut self) {
        let (server, name) = (self.server.clone(), self.name.clone());
        let explained = (!std::thread::panicking()).then(|| Arc::clone(&self.statements));
        // The test's runtime may be shutting down, so this has its own.
        let removed = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async move {
                let own = connect(&in_database(&server, &name)).await;
                let found = match (explained, own) {
                    (Some(statements), Some(client)) => statements.explain_with(&client).await,
                    _ => Vec::new(),
                };
                let sql = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
                // The test may have stopped the server.
                if let Some(client) = connect(&server).await {
                    let _ = client.batch_execute(&sql).await;
                }
                assert!(found.is_empty(), "{}", found.join("\n\n"));
            });
        });
        if let Err(panic) = removed.join()
            && !std::thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

/// Returns the URL of another database of the same server.
fn in_database(server: &str, name: &str) -> String {
    let mut url = url::Url::parse(server).expect("a URL");
    url.set_path(name);
    url.into()
}

pub(crate) async fn connect(url: &str) -> Option<tokio_postgres::Client> {
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

/// Runs a query at `url` and returns its rows as text.
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

/// Opens a SQLite file for reading.
pub(crate) async fn open_file_for_reading(path: &Path) -> Result<Store, StoreError> {
    Store::open_for_reading(&StoreUrl::Sqlite(path.to_owned())).await
}

/// Skips a test that needs PostgreSQL.
pub(crate) fn skip_postgres(test: &str, why: &str) {
    skip(test, "IVESK_WEBHOOK_TEST_REQUIRE_POSTGRES", why);
}

/// A PostgreSQL server for tests.
enum Server {
    /// The server at `IVESK_WEBHOOK_TEST_POSTGRES`.
    External(String),
    /// A cluster of this process.
    Own(Cluster),
}

impl Server {
    fn find() -> Result<Self, String> {
        if let Ok(url) = std::env::var("IVESK_WEBHOOK_TEST_POSTGRES") {
            return Ok(Self::External(url));
        }
        Cluster::start().map(Self::Own)
    }

    fn url(&self) -> String {
        match self {
            Self::External(url) => url.clone(),
            Self::Own(cluster) => cluster.url(),
        }
    }
}

/// A cluster that is stopped when this process ends, even by SIGKILL.
pub(crate) struct Cluster {
    folder: PathBuf,
    binaries: PathBuf,
    user: Option<String>,
    /// A process that waits for the end of this one, then stops and removes the cluster.
    _keeper: Child,
}

impl Cluster {
    /// Starts a cluster on a Unix socket in a folder of its own, never as root.
    pub(crate) fn start() -> Result<Self, String> {
        let binaries = binaries().ok_or("this machine has no initdb and pg_ctl")?;
        let user = unprivileged_user()?;
        let folder = tempfile::Builder::new()
            .prefix("ivesk-pg-")
            .tempdir_in(folder_for_clusters())
            .map_err(|error| error.to_string())?
            .keep();
        if let Some(user) = &user {
            run(Command::new("chown").arg(user).arg(&folder))?;
        }
        let mut keeper = Command::new("sh");
        // `cat` ends with this process, which holds the other end of the pipe.
        let script = "cat >/dev/null; \"$1/pg_ctl\" -D \"$2/data\" -m immediate stop >/dev/null 2>&1; rm -rf \"$2\"";
        keeper
            .args(["-c", script, "sh"])
            .args([&binaries, &folder])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .current_dir("/");
        // In a group of its own, so that Ctrl-C does not end it.
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

    /// Starts it, or starts it again, and waits until it answers.
    pub(crate) fn resume(&self) -> Result<(), String> {
        self.resume_with("")
    }

    /// [`Cluster::resume`] with more options for the server.
    pub(crate) fn resume_with(&self, more: &str) -> Result<(), String> {
        // Without fsync: what a killed process wrote is kept, and no test crashes the machine.
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

    /// Stops it as a crash would: connections are cut, nothing is cleaned up.
    pub(crate) fn crash(&self) -> Result<(), String> {
        run(self.tool("pg_ctl").args(["-w", "-m", "immediate", "stop"]))
    }

    /// Makes the server's user the owner and only reader of a file.
    pub(crate) fn own(&self, file: &Path) -> Result<(), String> {
        run(Command::new("chmod").arg("600").arg(file))?;
        match &self.user {
            Some(user) => run(Command::new("chown").arg(user).arg(file)),
            None => Ok(()),
        }
    }

    /// Makes the server's user the owner of a folder, which it can reach.
    pub(crate) fn own_folder(&self, folder: &Path) -> Result<(), String> {
        let parents = folder.ancestors().skip(1).take(1);
        for parent in parents {
            run(Command::new("chmod").arg("755").arg(parent))?;
        }
        match &self.user {
            Some(user) => run(Command::new("chown").arg(user).arg(folder)),
            None => Ok(()),
        }
    }

    /// Returns the folder of its socket.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns the user that it runs as, if another than runs the tests.
    pub(crate) fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// Returns its URL for the superuser.
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

/// Returns the folder to make clusters in: in memory where there is room, since a database
/// has 300 files, which ext4 takes long to create soon after others were removed.
fn folder_for_clusters() -> PathBuf {
    const ROOM: u64 = 3 << 30;
    let memory = PathBuf::from("/dev/shm");
    let has_room = rustix::fs::statvfs(&memory)
        .is_ok_and(|disk| disk.f_bavail.saturating_mul(disk.f_frsize) >= ROOM);
    if has_room {
        memory
    } else {
        std::env::temp_dir()
    }
}

/// Returns the folder of the newest PostgreSQL in Debian's places, else of that in `PATH`.
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

/// Returns the user to run PostgreSQL as, which refuses to run as root; `None` is the user
/// that runs the tests.
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

/// Returns the same command as another user.
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
    // A command does not reveal its standard streams, so each is set again.
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
        // A server that this starts keeps it open, so it must be no pipe.
        .stderr(Stdio::null())
        .status()
        .map_err(|error| format!("{:?}: {error}", command.get_program()))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("{command:?} failed: {status}"))
    }
}

/// Overwrites the first page of a table.
pub(crate) fn damage(database: &Path, table: &str) {
    let connection = rusqlite::Connection::open(database).expect("it opens");
    let sql = "SELECT rootpage FROM sqlite_schema WHERE name = ?1";
    let page: u64 = connection
        .query_row(sql, [table], |row| row.get(0))
        .expect("the table exists");
    let size: u64 = connection
        .pragma_query_value(None, "page_size", |row| row.get(0))
        .expect("a number");
    drop(connection);
    let file = std::fs::File::options().write(true).open(database);
    let garbage = vec![0x5a; usize::try_from(size).expect("small")];
    file.expect("a file")
        .write_all_at(&garbage, (page - 1) * size)
        .expect("written");
}
