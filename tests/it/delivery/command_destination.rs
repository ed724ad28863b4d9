//! The command destination, with real programs.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ivesk_webhook::config::DestinationKind;
use ivesk_webhook::delivery::{Delivery, Destination, DestinationResponse};
use rustix::process::{Pid, test_kill_process_group};
use serde_json::{Value, json};

use crate::support::destinations::{
    AMPLE, COMPANY, VENDOR_API, config, delivered, delivery, destination_config, make_pipe,
    rejected, try_open, unavailable,
};
use crate::support::emulator::emulator;
use crate::support::process::{Installation, within, write_program};

/// A script in a folder of its own.
struct Script {
    folder: tempfile::TempDir,
}

impl Script {
    fn new(lines: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let script = format!("#!/bin/sh\n{lines}\n");
        write_program(&folder.path().join("destination.sh"), &script);
        Self { folder }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn kind(&self, arguments: &[&str], environment: &[&str]) -> DestinationKind {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        DestinationKind::Command {
            program: self.file("destination.sh"),
            arguments: texts(arguments),
            environment: texts(environment),
            folder: self.folder.path().to_owned(),
        }
    }

    fn destination(&self, timeout: Duration) -> Box<dyn Destination> {
        let destination = destination_config(self.kind(&[], &[]), timeout);
        try_open(&destination, &config(VENDOR_API), &[]).expect("a destination")
    }

    async fn response(&self) -> DestinationResponse {
        let destination = self.destination(AMPLE);
        within(
            "a response",
            destination.deliver(&delivery("a-1", json!({}))),
        )
        .await
    }

    /// Waits until the script writes to a named pipe; returns the text.
    async fn written_to_pipe(&self, name: &str) -> String {
        let pipe = self.file(name);
        let read = tokio::task::spawn_blocking(move || std::fs::read_to_string(pipe));
        let read = within("the script's text", read).await;
        read.expect("it ran").expect("text").trim().to_owned()
    }
}

#[tokio::test]
async fn each_exit_code_means_what_is_documented() {
    delivered(Script::new("cat >/dev/null").response().await);
    let script = Script::new("echo '  Nėra tokio kliento  '; exit 65");
    assert_eq!(rejected(script.response().await), "Nėra tokio kliento");
    let script = Script::new(r#"echo '{"message":"No such client","code":7}'; exit 65"#);
    assert_eq!(rejected(script.response().await), "No such client");
    let script = Script::new("head -c 10000 /dev/zero | tr '\\0' x; exit 65");
    assert_eq!(rejected(script.response().await).len(), 4096);

    for (lines, part) in [
        ("exit 65", "without a message"),
        (r#"echo '{"code":7}'; exit 65"#, "without a message"),
        ("exit 75", "temporary failure"),
        ("exit 1", "exited with 1"),
        ("exit 255", "exited with 255"),
        ("no-such-program", "exited with 127"),
        ("kill -9 $$", "signal: 9"),
    ] {
        let (error, retry_after) = unavailable(Script::new(lines).response().await);
        assert!(error.contains(part), "{lines}: {error}");
        assert_eq!(retry_after, None);
    }
}

#[tokio::test]
async fn the_last_line_of_standard_error_becomes_the_message() {
    let script = Script::new(
        "echo planted; echo first >&2; \
         printf 'no route to https://db/?password=planted \\033[31mnow\\n\\n' >&2; exit 2",
    );
    let (error, _) = unavailable(script.response().await);
    assert!(
        error.ends_with("no route to [address] [31mnow"),
        "{error:?}"
    );
    let script = Script::new("head -c 5000 /dev/zero | tr '\\0' e >&2; exit 2");
    let (error, _) = unavailable(script.response().await);
    assert!(error.ends_with("e…") && error.len() < 400, "{error}");
}

#[tokio::test]
async fn it_gets_the_document_on_stdin_and_its_names_in_variables() {
    let script = Script::new("pwd >here; cat >in; env >env; printf '%s\\n' \"$@\" >arguments");
    let kind = script.kind(&["--a b", "$HOME", ""], &["GIVEN"]);
    let environment = [
        ("PATH", "/usr/bin:/bin"),
        ("TZ", "Europe/Vilnius"),
        ("GIVEN", "given"),
        ("KEPT", "planted"),
        ("IVESK_WEBHOOK_API_KEY", "planted"),
    ];
    let api = config(VENDOR_API);
    let destination =
        try_open(&destination_config(kind, AMPLE), &api, &environment).expect("a destination");
    let document = delivery("a-1", json!({ "docnum": "Ąž" }));
    delivered(within("a response", destination.deliver(&document)).await);

    let read = |name: &str| std::fs::read_to_string(script.file(name)).expect("written");
    let input = read("in");
    assert_eq!(
        input.strip_suffix('\n').expect("a newline").as_bytes(),
        document.to_json().expect("JSON")
    );
    let input: Value = serde_json::from_str(&input).expect("JSON");
    assert_eq!(input["data"]["document"]["docnum"], "Ąž");
    assert_eq!(read("arguments"), "--a b\n$HOME\n\n");
    let here = Path::new(read("here").trim())
        .canonicalize()
        .expect("a folder");
    assert_eq!(here, script.folder.path().canonicalize().expect("a folder"));
    let text = read("env");
    let mut lines: Vec<&str> = text
        .lines()
        // Without the shell's own.
        .filter(|line| {
            !["PWD=", "OLDPWD=", "SHLVL=", "_=", "IVESK_SERVICE="]
                .iter()
                .any(|own| line.starts_with(own))
        })
        .collect();
    lines.sort_unstable();
    let key = format!("IVESK_KEY={}", document.key());
    let company = format!("IVESK_COMPANY={COMPANY}");
    assert_eq!(
        lines,
        [
            "GIVEN=given",
            "IVESK_ACCOUNT=default",
            &company,
            "IVESK_DOCUMENT_ID=a-1",
            &key,
            "IVESK_QUEUE=exported",
            "IVESK_SEQUENCE=0af1:7",
            "IVESK_VERSION=2026-01-31T22:30:00.000Z",
            "PATH=/usr/bin:/bin",
            "TZ=Europe/Vilnius",
        ]
    );
}

/// Returns a delivery that fills every pipe.
fn large_delivery() -> Delivery {
    delivery("a-1", json!({ "padding": "x".repeat(2_000_000) }))
}

#[tokio::test]
async fn a_program_that_never_reads_does_not_block() {
    let destination = Script::new("exit 0");
    let destination = destination.destination(AMPLE);
    delivered(within("a response", destination.deliver(&large_delivery())).await);
    let script = Script::new("exec <&-; echo no; exit 65");
    let response = within(
        "a response",
        script.destination(AMPLE).deliver(&large_delivery()),
    )
    .await;
    assert_eq!(rejected(response), "no");
}

#[tokio::test]
async fn a_program_that_writes_before_it_reads_is_drained() {
    let script = Script::new(
        "head -c 3000000 /dev/zero | tr '\\0' o; head -c 3000000 /dev/zero | tr '\\0' e >&2; \
         cat >/dev/null; exit 65",
    );
    let response = within(
        "a response",
        script.destination(AMPLE).deliver(&large_delivery()),
    )
    .await;
    assert_eq!(rejected(response), "o".repeat(4096));
}

/// Returns true if a process of this group is left, zombies aside.
fn group_is_alive(group: &str) -> bool {
    let Ok(processes) = std::fs::read_dir("/proc") else {
        // Systems without /proc leave no zombies here.
        let group = group.parse().ok().and_then(Pid::from_raw);
        return test_kill_process_group(group.expect("a number")).is_ok();
    };
    processes.flatten().any(|process| {
        let stat = std::fs::read_to_string(process.path().join("stat")).unwrap_or_default();
        // After the name in parentheses: state, parent, group.
        let fields = stat.rsplit(") ").next().unwrap_or_default();
        let fields: Vec<&str> = fields.split(' ').collect();
        matches!(fields[..], [state, _, own, ..] if own == group && state != "Z")
    })
}

async fn until_group_ends(group: &str) {
    within("the end of the process group", async {
        while group_is_alive(group) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// A program that ignores SIGTERM, as do its child and its grandchild.
const STUBBORN: &str = "trap '' TERM INT HUP\n\
    (trap '' TERM INT HUP; sh -c \"trap '' TERM; sleep 600\" & sleep 600) &\n\
    echo $$ >started\n\
    sleep 600; sleep 600";

#[tokio::test]
async fn a_program_that_hangs_is_killed_with_its_children() {
    let script = Script::new(STUBBORN);
    make_pipe(&script.file("started"));
    let destination = script.destination(Duration::from_secs(5));
    let document = delivery("a-1", json!({}));
    let (response, group) = tokio::join!(
        within("a response", destination.deliver(&document)),
        script.written_to_pipe("started")
    );
    let (error, _) = unavailable(response);
    assert!(error.contains("`timeout`"), "{error}");
    until_group_ends(&group).await;
}

#[tokio::test]
async fn a_program_is_killed_when_its_attempt_is_canceled() {
    let script = Script::new(STUBBORN);
    make_pipe(&script.file("started"));
    let destination = script.destination(AMPLE);
    let document = delivery("a-1", json!({}));
    let group = tokio::select! {
        response = destination.deliver(&document) => panic!("{response:?}"),
        group = script.written_to_pipe("started") => group,
    };
    until_group_ends(&group).await;
}

#[tokio::test]
async fn leftover_children_are_killed_and_delay_nothing() {
    let script = Script::new("sleep 600 & echo $$ >group; exit 0");
    delivered(script.response().await);
    let group = std::fs::read_to_string(script.file("group")).expect("written");
    until_group_ends(group.trim()).await;
}

#[test]
fn a_program_that_cannot_run_is_refused_at_startup() {
    let api = config(VENDOR_API);
    let refusal = |kind: DestinationKind| {
        let error = try_open(&destination_config(kind, AMPLE), &api, &[]).err();
        error.expect("a refusal").to_string()
    };
    let script = Script::new("");
    let error = refusal(script.kind(&[], &["NOT_SET"]));
    assert!(error.contains("NOT_SET, which is not set"), "{error}");
    let not_executable = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(script.file("destination.sh"), not_executable).expect("changed");
    let error = refusal(script.kind(&[], &[]));
    assert!(error.contains("make it executable"), "{error}");
    std::fs::remove_file(script.file("destination.sh")).expect("removed");
    let error = refusal(script.kind(&[], &[]));
    assert!(error.contains("can't be found"), "{error}");
    std::fs::create_dir(script.file("destination.sh")).expect("created");
    let error = refusal(script.kind(&[], &[]));
    assert!(error.contains("is not a file"), "{error}");
}

#[tokio::test]
async fn a_program_that_vanished_is_unavailable() {
    let script = Script::new("");
    let destination = script.destination(AMPLE);
    std::fs::remove_file(script.file("destination.sh")).expect("removed");
    let (error, _) = unavailable(destination.deliver(&delivery("a-1", json!({}))).await);
    assert!(error.contains("can't be found"), "{error}");
}

#[tokio::test]
async fn a_script_that_can_not_run_is_named_with_the_fix() {
    let script = Script::new("exit 0");
    let file = script.file("destination.sh");
    let api = config(VENDOR_API);
    let kind = destination_config(script.kind(&[], &[]), AMPLE);
    let path = [("PATH", "/usr/bin:/bin")];
    let document = delivery("a-1", json!({}));
    // It could run when the service was started.
    let started = try_open(&kind, &api, &path).expect("a destination");
    for (text, part, later) in [
        (
            "#!/bin/sh\r\nexit 0\r\n",
            "Windows line ends",
            "Windows line ends",
        ),
        // The interpreter runs, and says itself what it misses.
        ("#!/bin/sh -e\r\nexit 0\r\n", "Windows line ends", "option"),
        (
            "\u{feff}#!/bin/sh\nexit 0\n",
            "byte order mark",
            "byte order mark",
        ),
        (
            "#!/opt/no-such/php\n",
            "`/opt/no-such/php`",
            "`/opt/no-such/php`",
        ),
        ("#!/usr/bin/env no-such-php\n", "no-such-php", "no-such-php"),
    ] {
        write_program(&file, text);
        let (error, _) = unavailable(within("a response", started.deliver(&document)).await);
        let refused = try_open(&kind, &api, &path).err();
        let refused = refused.expect("a refusal");
        assert!(refused.to_string().contains(part), "{text:?}: {refused}");
        assert!(error.contains(later), "{text:?}: {error}");
    }
}

/// Waits until another process has given a file its name; returns its text.
async fn until_written(path: &Path) -> String {
    within("a file of the program", async {
        loop {
            match std::fs::read_to_string(path) {
                Ok(text) => return text,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    })
    .await
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_service_left_behind_ends_at_the_next_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let (program, started) = (folder.path().join("program"), folder.path().join("started"));
    // It works in the folder of the settings. The second time it accepts the document.
    let named = started.display();
    let stubborn = STUBBORN.replace(
        "echo $$ >started",
        &format!("echo $$ >{named}.new && mv {named}.new {named}"),
    );
    write_program(
        &program,
        &format!("#!/bin/sh\n[ -e {named} ] && exit 0\n{stubborn}\n"),
    );
    let emulator = emulator("").await;
    let sections = format!(
        "[destinations.program]\nkind = \"command\"\nhistory = \"deliver\"\nprogram = \"{}\"\n",
        program.display(),
    );
    let exported = emulator.control().export(COMPANY, 1);
    exported.expect("the company exists");
    let installation = Installation::beside(&emulator, "", &sections);
    let server = installation.start().await;
    let group = until_written(&started).await;
    let group = group.trim();
    server.kill().await;
    assert!(group_is_alive(group), "nothing has ended it");

    let again = installation.start().await;
    until_group_ends(group).await;
    again.terminate();
    let (status, log) = again.exited().await;
    assert!(status.success(), "{log}");
    assert!(
        log.contains("that a killed service had left behind"),
        "{log}"
    );
}
