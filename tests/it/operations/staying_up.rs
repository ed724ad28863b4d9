//! The process stays up whatever happens to its log, its terminal and its environment.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use ivesk_webhook::domain::Event;
use reqwest::Method;
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::support::doctor::Report;
use crate::support::emulator::emulator;
use crate::support::process::{ADMIN_TOKEN, Installation, Server, client, within};

/// `serve` with a standard error of the test's choice.
struct Serve {
    child: Child,
    installation: Installation,
}

impl Serve {
    async fn with_log(stderr: impl Into<Stdio>) -> Self {
        let installation = Installation::alone("");
        // A file beyond the limit is an error, not the end of the process.
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", "trap '' XFSZ; exec \"$0\" serve"])
            .arg(env!("CARGO_BIN_EXE_ivesk-webhook"))
            .env_clear()
            .env("IVESK_WEBHOOK_CONFIG", installation.settings())
            .env("IVESK_WEBHOOK_ADMIN_TOKEN", ADMIN_TOKEN)
            .current_dir(installation.folder())
            .kill_on_drop(true)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr);
        let mut child = command.spawn().expect("the program starts");
        let stdout = child.stdout.take().expect("it is piped");
        let mut lines = BufReader::new(stdout).lines();
        let first = within("the first line", lines.next_line()).await;
        let first = first.expect("text").unwrap_or_default();
        assert!(first.contains("receives at"), "{first}");
        Self {
            child,
            installation,
        }
    }

    /// Asserts that requests are answered.
    async fn assert_answers_once(&self) {
        let client = client();
        let webhook = self.installation.webhook(Event::OnExported);
        let answer = client.post(webhook).body("{}").send().await;
        assert_eq!(answer.expect("an answer").status(), 400);
        let ready = ready(&self.installation);
        let answer = client.get(ready).send().await.expect("an answer");
        assert_eq!(answer.status(), 200);
    }

    /// Asserts that requests are answered, and that lost lines are counted.
    async fn assert_answers(&self) {
        let metrics = || self.installation.admin_request(Method::GET, "/metrics");
        let lost = async {
            loop {
                self.assert_answers_once().await;
                let answer = metrics().send().await.expect("an answer");
                let text = answer.text().await.expect("text");
                if counts_lost_lines(&text) {
                    return;
                }
            }
        };
        within("the count of lost lines", lost).await;
    }

    fn pid(&self) -> Pid {
        let id = self.child.id().expect("it runs");
        Pid::from_raw(id.try_into().expect("a process id")).expect("not 0")
    }

    async fn stop(mut self) -> ExitStatus {
        kill_process(self.pid(), Signal::TERM).expect("it can be signaled");
        let status = within("the exit", self.child.wait()).await;
        status.expect("it was our child")
    }
}

fn ready(installation: &Installation) -> String {
    format!("http://127.0.0.1:{}/readyz", installation.public_port())
}

fn counts_lost_lines(metrics: &str) -> bool {
    let lines = metrics.lines();
    let mut values =
        lines.filter_map(|line| line.strip_prefix("ivesk_webhook_log_lines_lost_total "));
    values.next().expect("the metric") != "0"
}

#[tokio::test]
async fn a_log_whose_reader_is_gone_changes_nothing_else() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let serve = Serve::with_log(writer).await;
    drop(reader);
    serve.assert_answers().await;
    assert_eq!(serve.stop().await.code(), Some(0));
}

#[tokio::test]
async fn a_log_on_a_full_disk_changes_nothing_else() {
    let full = File::options().write(true).open("/dev/full");
    let serve = Serve::with_log(full.expect("Linux has it")).await;
    serve.assert_answers().await;
    assert_eq!(serve.stop().await.code(), Some(0));
}

#[tokio::test]
async fn a_log_on_a_closed_terminal_changes_nothing_else() {
    let (terminal, line) = terminal();
    let serve = Serve::with_log(line).await;
    drop(terminal);
    serve.assert_answers().await;
    assert_eq!(serve.stop().await.code(), Some(0));
}

/// Returns both ends of a terminal: the one that shows, and the one that a program has.
fn terminal() -> (OwnedFd, File) {
    let terminal =
        openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a terminal");
    grantpt(&terminal).expect("it is ours");
    unlockpt(&terminal).expect("it is ours");
    let name = ptsname(&terminal, Vec::new()).expect("a name");
    let line = File::options()
        .write(true)
        .open(name.to_str().expect("text"));
    (terminal, line.expect("it can be opened"))
}

#[tokio::test]
async fn a_log_that_nobody_reads_delays_nothing_else() {
    let (mut reader, mut writer) = std::io::pipe().expect("a pipe");
    // Room for a few lines is left.
    writer
        .write_all(&[b'\n'; 15 * 4096])
        .expect("there is room");
    let serve = Serve::with_log(writer).await;
    for _ in 0..100 {
        serve.assert_answers_once().await;
    }
    assert_eq!(serve.stop().await.code(), Some(0));
    let mut log = String::new();
    reader.read_to_string(&mut log).expect("text");
    assert!(!log.contains("stopped"), "it was full: {log}");
}

#[tokio::test]
async fn lost_lines_are_told_once_the_log_has_room() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("log");
    let log = File::options().append(true).create(true).open(&path);
    let log = log.expect("a file");
    // Longer than the database, which has the same limit.
    let length = 1 << 26;
    log.set_len(length).expect("there is room");
    let serve = Serve::with_log(log.try_clone().expect("a descriptor")).await;
    let limit = |bytes: Option<u64>| {
        let limit = Rlimit {
            current: bytes,
            maximum: None,
        };
        prlimit(Some(serve.pid()), Resource::Fsize, limit).expect("it is ours");
    };
    limit(Some(length));
    serve.assert_answers().await;
    limit(None);

    within("the line about lost lines", async {
        while !text_after(&path, length).contains("log lines were lost") {
            serve.assert_answers_once().await;
        }
    })
    .await;
    assert_eq!(serve.stop().await.code(), Some(0));
}

/// Returns what a file holds after its first bytes.
fn text_after(path: &Path, bytes: u64) -> String {
    let mut file = File::open(path).expect("the log");
    file.seek(SeekFrom::Start(bytes)).expect("it is longer");
    let mut text = String::new();
    file.read_to_string(&mut text).expect("text");
    text
}

#[tokio::test]
async fn other_signals_are_logged_and_change_nothing() {
    let installation = Installation::alone("");
    let server = installation.start().await;
    for (signal, name) in [
        (Signal::HUP, "SIGHUP"),
        (Signal::USR1, "SIGUSR1"),
        (Signal::USR2, "SIGUSR2"),
    ] {
        kill_process(server.pid(), signal).expect("it can be signaled");
        let line = format!("received {name}, which changes nothing");
        within(&line, async {
            while !server.log().contains(&line) {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
    let answer = client()
        .get(ready(&installation))
        .send()
        .await
        .expect("an answer");
    assert_eq!(answer.status(), 200);
    server.terminate();
    let (status, log) = server.exited().await;
    assert_eq!(status.code(), Some(0), "{log}");
}

#[tokio::test]
async fn the_soft_limit_of_open_files_is_raised() {
    let installation = Installation::alone("");
    let mut limited = Command::new("/bin/sh");
    limited
        .args(["-c", "ulimit -Sn 128; exec \"$0\" serve"])
        .arg(env!("CARGO_BIN_EXE_ivesk-webhook"))
        .env_clear()
        .env("IVESK_WEBHOOK_CONFIG", installation.settings())
        .current_dir(installation.folder())
        .kill_on_drop(true);
    let mut server = Server::spawn(limited);
    server.ready().await;

    let limits = format!("/proc/{}/limits", server.pid().as_raw_pid());
    let limits = std::fs::read_to_string(limits).expect("Linux has it");
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let numbers: Vec<u64> = line
        .expect("the limit")
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    assert_eq!(numbers[0], numbers[1].min(65_536), "{limits}");
    let mut connections = Vec::new();
    for _ in 0..200 {
        let address = ("127.0.0.1", installation.public_port());
        connections.push(tokio::net::TcpStream::connect(address).await.expect("open"));
    }
    let answer = client()
        .get(ready(&installation))
        .send()
        .await
        .expect("an answer");
    assert_eq!(answer.status(), 200);
    assert!(
        !server.log().contains("too many open files"),
        "{}",
        server.log()
    );
}

/// What Kubernetes injects for a service that is named like the program.
const INJECTED: [(&str, &str); 8] = [
    ("IVESK_WEBHOOK_SERVICE_HOST", "10.96.0.12"),
    ("IVESK_WEBHOOK_SERVICE_PORT", "8080"),
    ("IVESK_WEBHOOK_SERVICE_PORT_HTTP", "8080"),
    ("IVESK_WEBHOOK_PORT", "tcp://10.96.0.12:8080"),
    ("IVESK_WEBHOOK_PORT_8080_TCP", "tcp://10.96.0.12:8080"),
    ("IVESK_WEBHOOK_PORT_8080_TCP_PROTO", "tcp"),
    ("IVESK_WEBHOOK_PORT_8080_TCP_PORT", "8080"),
    ("IVESK_WEBHOOK_PORT_8080_TCP_ADDR", "10.96.0.12"),
];

#[tokio::test]
async fn variables_that_kubernetes_injects_are_no_settings() {
    let installation = Installation::alone("");
    let (code, _, errors) = installation.run_with(&["config", "check"], &INJECTED).await;
    assert_eq!(code, Some(0), "{errors}");
    let mut command = installation.command(&["serve"]);
    command.envs(INJECTED);
    let mut server = Server::spawn(command);
    server.ready().await;

    let misspelled = [("IVESK_WEBHOOK_PUBLIC_PORT", "8080")];
    let check = installation
        .run_with(&["config", "check"], &misspelled)
        .await;
    assert_eq!(check.0, Some(2));
    assert!(
        check.1.contains("IVESK_WEBHOOK_PUBLIC_PORT")
            || check.2.contains("IVESK_WEBHOOK_PUBLIC_PORT")
    );
}

/// An image without CA certificates.
const NO_CERTIFICATES: [(&str, &str); 2] = [
    ("SSL_CERT_FILE", "/dev/null"),
    ("SSL_CERT_DIR", "/nonexistent"),
];

#[tokio::test]
async fn without_ca_certificates_serve_and_doctor_name_the_fix() {
    let emulator = emulator("").await;
    let installation = Installation::beside(&emulator, "", "");
    let (code, _, errors) = installation.run_with(&["serve"], &NO_CERTIFICATES).await;
    assert_eq!(code, Some(1));
    for fix in ["`ca-certificates`", "SSL_CERT_FILE"] {
        assert!(errors.contains(fix), "{errors}");
    }

    let assert_named = async |server: &str| {
        let report = Report::with(&installation, &["--quick"], &NO_CERTIFICATES).await;
        assert_eq!(report.results("https"), ["fail"]);
        let words = report.words("https");
        assert!(words.contains("SSL_CERT_FILE"), "{words}");
        assert_eq!(report.results("settings"), ["pass"]);
        assert_eq!(report.results("store"), ["pass"]);
        assert_eq!(report.results("server"), [server]);
        assert_eq!(report.code, Some(1));
        report.assert_explained();
    };
    assert_named("fail").await;
    let _server = installation.start().await;
    assert_named("pass").await;
}

#[tokio::test]
async fn a_result_that_cannot_be_written_ends_with_one_line() {
    let installation = Installation::alone("");
    let _server = installation.start().await;
    for arguments in [
        &["documents", "list"][..],
        &["config", "show"],
        &["completions", "bash"],
        &["doctor", "--json"],
    ] {
        let full = File::options().write(true).open("/dev/full");
        let mut command = installation.command(arguments);
        command.stdout(full.expect("Linux has it"));
        command.stderr(Stdio::piped());
        let child = command.spawn().expect("it runs");
        let output = within("the exit", child.wait_with_output()).await;
        let output = output.expect("our child");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {errors}");
        assert!(
            errors.starts_with("error: failed to write to standard output: No space left"),
            "{errors}"
        );
        assert_eq!(errors.lines().count(), 1, "{errors}");

        // Neither output has a reader.
        let mut command = installation.command(arguments);
        let (reader, writer) = std::io::pipe().expect("a pipe");
        let both = writer.try_clone().expect("a descriptor");
        command.stdout(writer).stderr(both);
        drop(reader);
        let mut child = command.spawn().expect("it runs");
        drop(command);
        let status = within("the exit", child.wait()).await.expect("our child");
        assert_eq!(status.code(), Some(141), "{arguments:?}");
    }
}
