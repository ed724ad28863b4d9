//! Mistakes of a new user: each message says what to do, in the words of docs/first-hour.md.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use ivesk_webhook::emulator::DEFAULT_COMPANIES;
use tokio::net::{TcpListener, TcpSocket};
use tokio::process::Command;

use crate::support::doctor::Report;
use crate::support::emulator::emulator;
use crate::support::process::{Installation, program, within};
use crate::support::small_disk::SmallDisk;
use crate::support::stand_in::{Answer, StandIn};

const PAGE: &str = include_str!("../../../docs/first-hour.md");

/// Asserts that both the program's output and the page contain `text`.
#[track_caller]
fn assert_documented(output: &str, text: &str) {
    assert!(
        output.contains(text),
        "the program does not print\n{text}\nbut\n{output}"
    );
    assert!(
        PAGE.contains(text),
        "docs/first-hour.md does not contain\n{text}"
    );
}

/// Runs the program; returns exit code and output.
async fn run(installation: &Installation, arguments: &[&str]) -> (Option<i32>, String) {
    let (code, out, errors) = installation.run(arguments).await;
    (code, out + &errors)
}

/// Writes settings with these additional lines.
fn with_lines(lines: &str) -> Installation {
    let installation = Installation::alone("");
    let settings = std::fs::read_to_string(installation.settings()).expect("settings");
    std::fs::write(installation.settings(), format!("{settings}\n{lines}")).expect("written");
    installation
}

#[tokio::test]
async fn a_missing_or_misspelled_settings_file_is_named_with_a_fix() {
    let folder = tempfile::tempdir().expect("a folder");
    let run = async |arguments: &[&str]| {
        let mut command = program();
        let run = command.current_dir(folder.path()).args(arguments).output();
        let output = within("the exit", run).await.expect("it runs");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert_documented(
        &run(&["serve"]).await,
        "error: there is no settings file: neither ivesk-webhook.toml here nor \
         /etc/ivesk-webhook/ivesk-webhook.toml; write one with `ivesk-webhook init`, or with \
         `ivesk-webhook init --emulator` to practice, or name one with --config",
    );
    let misspelled = run(&["--config", "ivesk-webhok.toml", "serve"]).await;
    assert!(
        misspelled.contains("ivesk-webhok.toml: no such file"),
        "{misspelled}"
    );
    let a_folder = run(&["--config", ".", "serve"]).await;
    assert!(
        a_folder.contains("this is a folder; name the file in it"),
        "{a_folder}"
    );

    std::fs::write(folder.path().join("ivesk-webhook.toml"), "").expect("written");
    assert_documented(
        &run(&["serve"]).await,
        "`public.url`: is not set; write the https address at which SNS reaches this service, \
         or set IVESK_WEBHOOK_PUBLIC_URL",
    );
    let settings = "[public]\nurl = \"http://127.0.0.1:9\"\nlissten = \"127.0.0.1:9\"\n";
    std::fs::write(folder.path().join("ivesk-webhook.toml"), settings).expect("written");
    assert_documented(
        &run(&["serve"]).await,
        "`public.lissten` (ivesk-webhook.toml, line 3): there is no such setting; did you mean \
         `public.listen`?",
    );
    let nowhere = [
        "--config",
        "ivesk-webhook.toml/x.toml",
        "init",
        "--public-url",
    ];
    let nowhere = run(&[&nowhere[..], &["https://hooks.example.lt"]].concat()).await;
    assert_documented(
        &nowhere,
        "; run this in a folder that you may write to, or name a file with --config",
    );
}

#[tokio::test]
async fn without_a_key_or_a_path_it_starts_and_says_what_to_set() {
    let installation = Installation::alone("");
    let without_key = introduction(&installation).await;
    assert_documented(
        &without_key,
        "  missing     API key of account default: notifications are stored, but nothing is \
         pulled. Set IVESK_WEBHOOK_API_KEY or `accounts.default.api_key_file`",
    );
    let (code, pulled) = run(&installation, &["pull"]).await;
    assert_eq!(code, Some(2), "{pulled}");
    assert!(
        pulled.contains("set IVESK_WEBHOOK_API_KEY or `accounts.default.api_key_file`"),
        "{pulled}"
    );
    let report = Report::of(&installation, &["--quick"]).await;
    assert_eq!(report.results("api_key"), ["fail"]);
    report.assert_explained();

    assert_documented(
        &introduction(&Installation::with_key("")).await,
        "  missing     `api.exported_path`: notifications are stored, but the exported queue of account \
         default is not pulled. `ivesk-webhook doctor --company CODE` finds the setting",
    );

    let no_file = with_lines("[accounts.default]\napi_key_file = \"api-key.txt\"\n");
    let (code, output) = run(&no_file, &["serve"]).await;
    assert_eq!(code, Some(2), "{output}");
    assert_documented(
        &output,
        "can't be opened: No such file or directory (os error 2); write the secret into that \
         file, let the service's user read it, or name another file",
    );
}

/// Returns what `serve` prints below its first line.
async fn introduction(installation: &Installation) -> String {
    installation.start().await.stop_and_read().await
}

#[tokio::test]
async fn a_wrong_key_is_reported_with_a_fix_and_no_path_is_guessed() {
    let emulator = emulator("status=401").await;
    let installation = Installation::beside(&emulator, "", "");
    let (code, output) = run(&installation, &["pull"]).await;
    assert_eq!(code, Some(1), "{output}");
    assert_documented(
        &output,
        "(the API key is invalid; make a new one at app.ivesk.lt/settings/general)",
    );
    let report = Report::of(&installation, &["--company", DEFAULT_COMPANIES[0]]).await;
    assert_eq!(report.results("api"), ["fail"]);
    assert_eq!(report.results("exported_path_probe"), ["skipped"]);
    assert!(
        report.results("exported_path").is_empty(),
        "it is set, so it is not guessed"
    );
}

/// Listens on this port as another program.
fn occupy(port: u16) -> TcpListener {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_reuseaddr(true).expect("a socket option");
    socket
        .bind(([127, 0, 0, 1], port).into())
        .expect("reserved for this test");
    socket.listen(1).expect("it listens")
}

#[tokio::test]
async fn a_port_in_use_is_named_once_with_its_setting() {
    let installation = Installation::alone("");
    for (setting, port) in [
        ("public.listen", installation.public_port()),
        ("admin.listen", installation.admin_port()),
    ] {
        let occupied = occupy(port);
        let (code, output) = run(&installation, &["serve"]).await;
        assert_eq!(code, Some(2), "{output}");
        assert!(
            output.contains(&format!(
                "error: failed to listen on `{setting}` = 127.0.0.1:{port}"
            )),
            "{output}"
        );
        assert_eq!(output.matches("os error 98").count(), 1, "{output}");
        assert_documented(
            &output,
            "another program uses this port (`ss -ltnp` names it): stop that program, or set another port",
        );
        let report = Report::of(&installation, &["--quick"]).await;
        let wrong = report
            .results("listen")
            .iter()
            .filter(|result| **result == "fail")
            .count();
        assert_eq!(wrong, 1, "{}", report.words("listen"));
        assert!(
            report.words("listen").contains("another program"),
            "{}",
            report.words("listen")
        );
        drop(occupied);
    }
    let report = Report::of(&installation, &["--quick"]).await;
    assert_eq!(
        report.results("listen"),
        ["pass", "pass"],
        "{}",
        report.words("listen")
    );
}

#[tokio::test]
async fn a_foreign_address_is_distinguished_from_a_port_in_use() {
    let installation = Installation::alone("");
    let variables = [("IVESK_WEBHOOK_PUBLIC_LISTEN", "192.0.2.7:8080")];
    let (code, _, output) = installation.run_with(&["serve"], &variables).await;
    assert_eq!(code, Some(2), "{output}");
    assert_documented(
        &output,
        "failed to listen on `public.listen` = 192.0.2.7:8080: Cannot assign requested address \
         (os error 99); no interface of this machine has this address (`ip address` lists them): \
         set one of those, or 0.0.0.0 for all",
    );
}

#[tokio::test]
async fn a_store_that_cannot_be_created_names_the_missing_folder() {
    let installation = Installation::alone("");
    for (url, found) in [
        ("sqlite://missing/x.db", "can't write"),
        ("sqlite://ivesk-webhook.toml/x.db", "can't write"),
        ("sqlite://.", "is a folder"),
    ] {
        let variables = [("IVESK_WEBHOOK_STORE_URL", url)];
        let (code, _, output) = installation.run_with(&["serve"], &variables).await;
        assert_eq!(code, Some(2), "{output}");
        assert_documented(
            &output,
            "`ivesk-webhook doctor`, run as the same user, finds the cause",
        );
        let report = Report::with(&installation, &["--quick"], &variables).await;
        assert_eq!(report.results("store"), ["fail"], "{url}");
        assert!(
            report.words("store").contains(found),
            "{}",
            report.words("store")
        );
    }
}

/// The program as an unprivileged user: `nobody` if the tests run as root, else the tests'
/// own user.
struct Nobody {
    program: PathBuf,
}

impl Nobody {
    fn at(installation: &Installation) -> Self {
        // Other users may have no access to the build's folder.
        let program = installation.folder().join("program");
        std::fs::copy(env!("CARGO_BIN_EXE_ivesk-webhook"), &program).expect("copied");
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(installation.folder(), open).expect("opened");
        Self { program }
    }

    async fn run(&self, installation: &Installation, arguments: &[&str]) -> (Option<i32>, String) {
        let mut command = Command::new(&self.program);
        command
            .env_clear()
            .current_dir(installation.folder())
            .args(arguments);
        if rustix::process::geteuid().is_root() {
            command.uid(65_534).gid(65_534);
        }
        let output = within("the exit", command.output()).await.expect("it runs");
        let text = [output.stdout, output.stderr].concat();
        (
            output.status.code(),
            String::from_utf8_lossy(&text).into_owned(),
        )
    }
}

#[tokio::test]
async fn doctor_names_the_store_file_that_another_user_owns() {
    let installation = Installation::alone("");
    drop(installation.start().await);
    let nobody = Nobody::at(&installation);
    let set_mode = |path: PathBuf, mode| {
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(path, permissions).expect("changed");
    };
    set_mode(installation.folder().to_owned(), 0o777);
    let lock = installation.folder().join("ivesk-webhook.db.lock");
    set_mode(lock, 0o666);
    set_mode(installation.database(), 0o444);
    for end in ["-wal", "-shm"] {
        let beside = installation.folder().join(format!("ivesk-webhook.db{end}"));
        if beside.exists() {
            set_mode(beside, 0o666);
        }
    }

    let (code, output) = nobody.run(&installation, &["serve"]).await;
    assert_eq!(code, Some(2), "{output}");
    assert!(
        output.contains("`ivesk-webhook doctor`, run as the same user"),
        "{output}"
    );
    let (_, output) = nobody.run(&installation, &["doctor", "--quick"]).await;
    assert!(
        output.contains("store: this user can't write ivesk-webhook.db: "),
        "{output}"
    );
    assert_documented(&output, "run `doctor` as that user; or set `store.url`");

    // Without a store, in a folder of another user.
    std::fs::remove_file(installation.database()).expect("removed");
    set_mode(installation.folder().to_owned(), 0o555);
    set_mode(installation.folder().join("ivesk-webhook.db.lock"), 0o444);
    let (code, output) = nobody.run(&installation, &["serve"]).await;
    assert_eq!(code, Some(2), "{output}");
    assert_documented(
        &output,
        "can't be opened: Permission denied (os error 13); check that its folder exists and that \
         this user may write there. `ivesk-webhook doctor`, run as the same user, finds the cause",
    );
    set_mode(installation.folder().to_owned(), 0o755);
}

#[tokio::test]
async fn an_address_of_another_machine_gets_safe_advice() {
    let installation = Installation::alone("");
    let elsewhere = [("IVESK_WEBHOOK_ADMIN_LISTEN", "192.0.2.7:8081")];
    let (code, _, errors) = installation.run_with(&["serve"], &elsewhere).await;
    assert_eq!(code, Some(2));
    assert!(
        errors.contains("set 127.0.0.1, or one of those"),
        "{errors}"
    );
    assert!(!errors.contains("0.0.0.0"), "{errors}");
}

#[tokio::test]
async fn a_second_pull_is_told_to_wait_for_the_first() {
    // It accepts requests and never answers.
    let vendor = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = vendor.local_addr().expect("it is bound");
    let installation = Installation::with_key(&format!(
        "[api]\nurl = \"http://{address}\"\nexported_path = \"path\"\n"
    ));
    let mut first = installation.command(&["pull"]);
    let mut first = first.spawn().expect("it runs");
    let request = within("the first request", vendor.accept()).await;

    let (code, output) = run(&installation, &["pull"]).await;

    assert_eq!(code, Some(3), "{output}");
    assert_documented(
        &output,
        "If another command such as `pull` is running, wait until it has ended",
    );
    first.kill().await.expect("it is our child");
    drop(request);
}

#[tokio::test]
async fn a_full_disk_is_reported_at_first_start_and_by_doctor() {
    let installation = Installation::alone("");
    let required = [("IVESK_WEBHOOK_STORE_MIN_FREE_BYTES", "1125899906842624")];
    let report = Report::with(&installation, &["--quick"], &required).await;
    assert_eq!(report.results("disk"), ["fail"], "{}", report.words("disk"));
    report.assert_explained();

    let Some(disk) = SmallDisk::mount(2) else {
        eprintln!("skipped: this user may not mount a small disk");
        return;
    };
    let _ballast = disk.fill();
    let url = format!("sqlite://{}", disk.folder().join("x.db").display());
    let full = [("IVESK_WEBHOOK_STORE_URL", url.as_str())];
    let (code, _, output) = installation.run_with(&["serve"], &full).await;
    assert_eq!(code, Some(1), "{output}");
    assert_documented(
        &output,
        "is full; free some space, nothing that was acknowledged is lost",
    );
    let report = Report::with(&installation, &["--quick"], &full).await;
    assert_eq!(report.results("disk"), ["fail"], "{}", report.words("disk"));
}

#[tokio::test]
async fn a_wrong_clock_is_reported_with_its_offset_and_direction() {
    for (date, side) in [
        ("Sun, 06 Nov 1994 08:49:37 GMT", "ahead of that of"),
        ("Thu, 06 Nov 2070 08:49:37 GMT", "behind that of"),
    ] {
        let sns = StandIn::start([Answer::status(404, "").with("date", date)]).await;
        let origins = sns.url("");
        let variables = [("IVESK_WEBHOOK_SNS_LOCAL_ORIGINS", origins.as_str())];
        let installation = Installation::alone("");
        let report = Report::with(&installation, &["--quick"], &variables).await;
        assert_eq!(report.results("clock"), ["fail"]);
        let words = report.words("clock");
        assert!(words.contains(side), "{words}");
        assert_documented(
            &words,
            "let the system set its clock (`timedatectl set-ntp true`)",
        );
    }
}
