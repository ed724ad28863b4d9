//! Processes, settings and results of the benchmarks.

#![allow(dead_code, reason = "each benchmark uses a part of it")]

use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use ivesk_webhook::config::{PostgresAddress, StoreUrl};
use ivesk_webhook::store::Store;
use serde_json::{Value, json};

pub(crate) mod ceiling;
pub(crate) mod fill;
pub(crate) mod load;
pub(crate) mod stored;

const PROGRAM: &str = env!("CARGO_BIN_EXE_ivesk-webhook");
const KEY: &str = "bench-key";

/// Returns the processor time that this process has used.
pub(crate) fn own_processor_time() -> anyhow::Result<Duration> {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Ok(Duration::new(
        used.tv_sec.try_into()?,
        used.tv_nsec.try_into()?,
    ))
}

/// Limit of every wait.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(600);

/// A process of the program, killed when it is dropped.
pub(crate) struct Process {
    child: Child,
    stdout: Lines<BufReader<ChildStdout>>,
}

impl Process {
    pub(crate) fn start(folder: &Path, arguments: &[&str]) -> anyhow::Result<Self> {
        Self::start_with_key(folder, arguments, KEY)
    }

    pub(crate) fn start_with_key(
        folder: &Path,
        arguments: &[&str],
        key: &str,
    ) -> anyhow::Result<Self> {
        let mut command = program(folder, arguments);
        Self::spawn(command.env("IVESK_WEBHOOK_API_KEY", key))
    }

    /// Starts one that can't pull.
    pub(crate) fn start_without_key(folder: &Path, arguments: &[&str]) -> anyhow::Result<Self> {
        Self::spawn(&mut program(folder, arguments))
    }

    /// Starts another program, with settings in its environment.
    pub(crate) fn start_program(
        program: &Path,
        folder: &Path,
        settings: &[(&str, String)],
    ) -> anyhow::Result<Self> {
        let settings = settings.iter().map(|(name, value)| (name, value));
        Self::spawn(Command::new(program).current_dir(folder).envs(settings))
    }

    fn spawn(command: &mut Command) -> anyhow::Result<Self> {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("failed to start the program")?;
        let stdout = child.stdout.take().context("it is piped")?;
        let stdout = BufReader::new(stdout).lines();
        Ok(Self { child, stdout })
    }

    /// Returns the processor time that the process has used.
    pub(crate) fn processor_time(&self) -> anyhow::Result<Duration> {
        /// Ticks of a second in `/proc`, the same on all of Linux's common machines.
        const TICKS: u64 = 100;
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The name, which may have spaces, is in parentheses; user and system time follow as the
        // 12th and 13th.
        let (_, fields) = stat.rsplit_once(')').context("/proc has a name")?;
        let times = fields.split_whitespace().skip(11).take(2);
        let ticks: u64 = times.map(|time| time.parse().unwrap_or(0)).sum();
        Ok(Duration::from_millis(ticks * 1_000 / TICKS))
    }

    /// Returns the rest of the first printed line that contains `mark`.
    pub(crate) fn line_with(&mut self, mark: &str) -> anyhow::Result<String> {
        for line in &mut self.stdout {
            if let Some((_, rest)) = line?.split_once(mark) {
                return Ok(rest.to_owned());
            }
        }
        Err(anyhow!("the program ended before it printed `{mark}`"))
    }

    /// Returns a number in `/proc/<pid>/status`; those of memory are in KiB.
    pub(crate) fn status(&self, name: &str) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))
            .context("failed to read /proc; this benchmark needs Linux")?;
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let value =
            line.and_then(|line| line.trim_matches([':', ' ', '\t', 'k', 'B']).parse().ok());
        value.with_context(|| format!("/proc has no {name}"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the program with these arguments, and no environment but the token of its admin listener.
fn program(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command
        .env_clear()
        .current_dir(folder)
        .args(arguments)
        .env("IVESK_WEBHOOK_ADMIN_TOKEN", ADMIN_TOKEN);
    command
}

/// The configured token of the measured servers.
const ADMIN_TOKEN: &str = "private-token-of-the-benches-0123456789";

/// Sends one request, without a client library whose start would be measured too.
pub(crate) fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    body: &str,
) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\
         authorization: Bearer {ADMIN_TOKEN}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(
        answer.starts_with("HTTP/1.1 200"),
        "{path}: {}",
        answer.lines().next().unwrap_or_default()
    );
    Ok(answer
        .split_once("\r\n\r\n")
        .map(|(_, body)| body.to_owned())
        .unwrap_or_default())
}

/// Runs statements on PostgreSQL.
pub(crate) async fn sql(url: &str, statements: &str) -> anyhow::Result<()> {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
    tokio::spawn(connection);
    Ok(client.batch_execute(statements).await?)
}

/// Returns the URL of a database of a PostgreSQL server.
pub(crate) fn database_of(server: &str, name: &str) -> anyhow::Result<String> {
    let mut url = url::Url::parse(server)?;
    url.set_path(name);
    Ok(url.into())
}

/// A new store, for one measurement.
pub(crate) struct NewStore {
    /// `store.url`
    pub(crate) setting: String,
    pub(crate) url: StoreUrl,
}

/// Runs `work` on a new store: a database of this PostgreSQL server, which is dropped at the end, or
/// else a file in `folder`.
pub(crate) async fn with_new_store<T>(
    server: Option<&str>,
    folder: &Path,
    work: impl AsyncFnOnce(&NewStore) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let Some(server) = server else {
        let file = folder.join("bench.db");
        let setting = format!("sqlite://{}", file.display());
        let url = StoreUrl::Sqlite(file);
        return work(&NewStore { setting, url }).await;
    };
    let database = format!("ivesk_bench_{}", std::process::id());
    let setting = database_of(server, &database)?;
    let address = PostgresAddress::parse(&setting).map_err(anyhow::Error::msg)?;
    sql(server, &format!("CREATE DATABASE {database}")).await?;
    let url = StoreUrl::Postgres(address);
    let measured = work(&NewStore { setting, url }).await;
    sql(server, &format!("DROP DATABASE {database} WITH (FORCE)")).await?;
    measured
}

/// Writes the results to a file, if there is to be one.
pub(crate) fn write_json(path: Option<&Path>, results: &Value) -> anyhow::Result<()> {
    match path {
        Some(path) => Ok(std::fs::write(path, serde_json::to_vec_pretty(results)?)?),
        None => Ok(()),
    }
}

pub(crate) fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?)
}

/// Writes the settings; returns the addresses of the public and the admin listener.
pub(crate) fn write_settings(
    folder: &Path,
    sections: &str,
) -> anyhow::Result<(SocketAddr, SocketAddr)> {
    let (public, admin) = (free_address()?, free_address()?);
    let settings = format!(
        "[public]\nurl = \"http://{public}\"\nlisten = \"{public}\"\n[admin]\nlisten = \"{admin}\"\n{sections}"
    );
    std::fs::write(folder.join("ivesk-webhook.toml"), settings)?;
    Ok((public, admin))
}

/// The vendor: the program's own `emulator`.
pub(crate) struct Vendor {
    _process: Process,
    /// URL of its API, for settings.
    pub(crate) api: String,
    control: SocketAddr,
}

impl Vendor {
    pub(crate) fn start(folder: &Path, companies: &[&str]) -> anyhow::Result<Self> {
        let mut arguments = vec!["emulator", "--listen", "127.0.0.1:0", "--key", KEY];
        for company in companies {
            arguments.extend(["--company", company]);
        }
        let mut process = Process::start(folder, &arguments)?;
        let api = process.line_with("API       ")?;
        let api = api.split_whitespace().next().context("an address")?;
        let control = api.trim_start_matches("http://").split('/').next();
        Ok(Self {
            control: control.context("an address")?.parse()?,
            api: api.to_owned(),
            _process: process,
        })
    }

    /// Exports `count` documents of `company` without notifications.
    pub(crate) fn load(&self, company: &str, count: usize) -> anyhow::Result<()> {
        let body = json!({ "key": KEY, "company": company, "count": count }).to_string();
        request(self.control, "POST", "/control/load", &body).map(drop)
    }
}

/// Returns the number of stored messages.
pub(crate) async fn stored_messages(store: &Store) -> anyhow::Result<usize> {
    let mut count = 0;
    let mut after = 0;
    loop {
        let page = store.notifications(after, 10_000).await?;
        let Some(last) = page.last() else {
            return Ok(count);
        };
        after = last.id;
        count += page.len();
    }
}

/// Returns the number of stored documents.
pub(crate) fn stored(admin: SocketAddr) -> anyhow::Result<u64> {
    let feeds: Value = serde_json::from_str(&request(admin, "GET", "/v1/feeds", "")?)?;
    let feeds = feeds["rows"].as_array().context("a list of feeds")?;
    Ok(feeds
        .iter()
        .filter_map(|feed| feed["documents"].as_u64())
        .sum())
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
pub(crate) fn mebibytes(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
pub(crate) fn per_second(count: u64, seconds: f64) -> f64 {
    count as f64 / seconds
}
