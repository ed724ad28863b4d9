//! What a new user may do wrong: each is said with what to do about it, in the words of
//! docs/first-hour.md.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use ivesk_webhook::emulator::switches::Switches;
use ivesk_webhook::emulator::{DEFAULT_COMPANIES, Emulator, EmulatorSettings};
use tokio::net::{TcpListener, TcpSocket};
use tokio::process::Command;

use crate::cli::doctor::Report;
use crate::store::stopping::SmallDisk;
use crate::support::process::{Installation, program, within};
use crate::support::stand_in::{Answer, StandIn};

const PAGE: &str = include_str!("../../../docs/first-hour.md");

/// Whether the program said `words`, and the page says the same.
#[track_caller]
fn told(said: &str, words: &str) {
    assert!(
        said.contains(words),
        "the program does not say\n{words}\nbut\n{said}"
    );
    assert!(
        PAGE.contains(words),
        "docs/first-hour.md does not say\n{words}"
    );
}

/// Runs the program with these settings until it ends: exit code and all that it said.
async fn run(here: &Installation, arguments: &[&str]) -> (Option<i32>, String) {
    let (code, out, errors) = here.run(arguments).await;
    (code, out + &errors)
}

/// Settings in a folder whose file has these lines more.
fn with_lines(lines: &str) -> Installation {
    let here = Installation::alone("");
    let settings = std::fs::read_to_string(here.settings()).expect("settings");
    std::fs::write(here.settings(), format!("{settings}\n{lines}")).expect("written");
    here
}

async fn emulator(switches: &str) -> Emulator {
    let settings = EmulatorSettings {
        switches: Switches::parse(switches).expect("switches that exist"),
        ..EmulatorSettings::default()
    };
    let started = Emulator::start(settings, ([127, 0, 0, 1], 0).into()).await;
    started.expect("a free port")
}

#[tokio::test]
async fn a_missing_or_misspelled_settings_file_is_named_with_a_fix() {
    let folder = tempfile::tempdir().expect("a folder");
    let run = async |arguments: &[&str]| {
        let mut command = program();
        let run = command.current_dir(folder.path()).args(arguments).output();
        let output = within("its end", run).await.expect("it runs");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    told(
        &run(&["serve"]).await,
        "error: invalid setting: ivesk-webhook.toml: no such file; write one with \
         `ivesk-webhook init --public-url URL`, name another with --config, or set \
         IVESK_WEBHOOK_PUBLIC_URL to run without a file",
    );
    let misspelt = run(&["--config", "ivesk-webhok.toml", "serve"]).await;
    assert!(
        misspelt.contains("ivesk-webhok.toml: no such file"),
        "{misspelt}"
    );
    let a_folder = run(&["--config", ".", "serve"]).await;
    assert!(
        a_folder.contains("this is a folder; name the file in it"),
        "{a_folder}"
    );

    std::fs::write(folder.path().join("ivesk-webhook.toml"), "").expect("written");
    told(
        &run(&["serve"]).await,
        "`public.url`: is not set; write the https address under which SNS reaches this service, \
         or set IVESK_WEBHOOK_PUBLIC_URL",
    );
    let settings = "[public]\nurl = \"http://127.0.0.1:9\"\nlissten = \"127.0.0.1:9\"\n";
    std::fs::write(folder.path().join("ivesk-webhook.toml"), settings).expect("written");
    told(
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
    told(
        &nowhere,
        "; run this in a folder that you may write to, or name a file with --config",
    );
}

#[tokio::test]
async fn without_a_key_or_a_path_it_starts_and_says_what_to_set() {
    let here = Installation::alone("");
    let without_key = introduction(&here).await;
    told(
        &without_key,
        "  missing     API key of account default: notifications are stored, but nothing is \
         pulled. Set IVESK_WEBHOOK_API_KEY or `accounts.default.api_key_file`",
    );
    let (code, pulled) = run(&here, &["pull"]).await;
    assert_eq!(code, Some(2), "{pulled}");
    assert!(
        pulled.contains("(IVESK_WEBHOOK_API_KEY or `api_key_file`)"),
        "{pulled}"
    );
    let report = Report::of(&here, &["--quick"]).await;
    assert_eq!(report.results("api_key"), ["fail"]);
    report.explains_itself();

    told(
        &introduction(&Installation::with_key("")).await,
        "  missing     `api.exported_path`: notifications are stored, but the exported queue of account \
         default is not pulled. `ivesk-webhook doctor --company CODE` finds the setting",
    );

    let no_file = with_lines("[accounts.default]\napi_key_file = \"api-key.txt\"\n");
    let (code, said) = run(&no_file, &["serve"]).await;
    assert_eq!(code, Some(2), "{said}");
    told(
        &said,
        "can't be opened: No such file or directory (os error 2); write the secret into that \
         file, let the service's user read it, or name another file",
    );
}

/// What `serve` prints below its first line.
async fn introduction(here: &Installation) -> String {
    here.start().await.printed().await
}

#[tokio::test]
async fn a_wrong_key_is_reported_with_a_fix_and_no_path_is_guessed() {
    let emulator = emulator("status=401").await;
    let here = Installation::beside(&emulator, "", "");
    let (code, said) = run(&here, &["pull"]).await;
    assert_eq!(code, Some(1), "{said}");
    told(
        &said,
        "(the API key is invalid; make a new one at app.ivesk.lt/settings/general)",
    );
    let report = Report::of(&here, &["--company", DEFAULT_COMPANIES[0]]).await;
    assert_eq!(report.results("api"), ["fail"]);
    assert_eq!(report.results("exported_path_probe"), ["skipped"]);
    assert!(
        report.results("exported_path").is_empty(),
        "it is set, and nothing was found out"
    );
}

/// A listener of somebody else's on this port.
fn occupy(port: u16) -> TcpListener {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_reuseaddr(true).expect("an option of sockets");
    socket
        .bind(([127, 0, 0, 1], port).into())
        .expect("reserved for this test");
    socket.listen(1).expect("it listens")
}

#[tokio::test]
async fn a_port_in_use_is_named_once_with_its_setting() {
    let here = Installation::alone("");
    for (setting, port) in [
        ("public.listen", here.public_port()),
        ("admin.listen", here.admin_port()),
    ] {
        let taken = occupy(port);
        let (code, said) = run(&here, &["serve"]).await;
        assert_eq!(code, Some(2), "{said}");
        assert!(
            said.contains(&format!(
                "error: failed to listen on `{setting}` = 127.0.0.1:{port}"
            )),
            "{said}"
        );
        assert_eq!(said.matches("os error 98").count(), 1, "{said}");
        told(
            &said,
            "another program uses this port (`ss -ltnp` names it): stop that program, or set another port",
        );
        let report = Report::of(&here, &["--quick"]).await;
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
        drop(taken);
    }
    let report = Report::of(&here, &["--quick"]).await;
    assert_eq!(
        report.results("listen"),
        ["pass", "pass"],
        "{}",
        report.words("listen")
    );
}

#[tokio::test]
async fn a_foreign_address_is_distinguished_from_a_port_in_use() {
    let here = Installation::alone("");
    let variables = [("IVESK_WEBHOOK_PUBLIC_LISTEN", "192.0.2.7:8080")];
    let (code, _, said) = here.run_with(&["serve"], &variables).await;
    assert_eq!(code, Some(2), "{said}");
    told(
        &said,
        "failed to listen on `public.listen` = 192.0.2.7:8080: Cannot assign requested address \
         (os error 99); no interface of this machine has this address (`ip address` lists them): \
         set one of those, or 0.0.0.0 for all",
    );
}

#[tokio::test]
async fn a_store_that_cannot_be_created_names_the_missing_folder() {
    let here = Installation::alone("");
    for (url, found) in [
        ("sqlite://missing/x.db", "can't write"),
        ("sqlite://ivesk-webhook.toml/x.db", "can't write"),
        ("sqlite://.", "is a folder"),
    ] {
        let variables = [("IVESK_WEBHOOK_STORE_URL", url)];
        let (code, _, said) = here.run_with(&["serve"], &variables).await;
        assert_eq!(code, Some(2), "{said}");
        told(
            &said,
            "`ivesk-webhook doctor`, run as the same user, finds the cause",
        );
        let report = Report::with(&here, &["--quick"], &variables).await;
        assert_eq!(report.results("store"), ["fail"], "{url}");
        assert!(
            report.words("store").contains(found),
            "{}",
            report.words("store")
        );
    }
}

/// The program as a user who may write nothing of root's.
///
/// The test's own user where that is not root: then a file without a right is enough.
struct Nobody {
    program: PathBuf,
}

impl Nobody {
    fn at(here: &Installation) -> Self {
        // The build's folder may be closed to others.
        let program = here.folder().join("program");
        std::fs::copy(env!("CARGO_BIN_EXE_ivesk-webhook"), &program).expect("copied");
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(here.folder(), open).expect("opened");
        Self { program }
    }

    async fn run(&self, here: &Installation, arguments: &[&str]) -> (Option<i32>, String) {
        let mut command = Command::new(&self.program);
        command
            .env_clear()
            .current_dir(here.folder())
            .args(arguments);
        if rustix::process::geteuid().is_root() {
            command.uid(65_534).gid(65_534);
        }
        let output = within("its end", command.output()).await.expect("it runs");
        let said = [output.stdout, output.stderr].concat();
        (
            output.status.code(),
            String::from_utf8_lossy(&said).into_owned(),
        )
    }
}

#[tokio::test]
async fn doctor_names_the_store_file_that_another_user_owns() {
    let here = Installation::alone("");
    drop(here.start().await);
    let nobody = Nobody::at(&here);
    let forbid = |path: PathBuf, mode| {
        let closed = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(path, closed).expect("changed");
    };
    let open_folder = std::fs::Permissions::from_mode(0o777);
    std::fs::set_permissions(here.folder(), open_folder).expect("changed");
    let lock = here.folder().join("ivesk-webhook.db.lock");
    forbid(lock, 0o666);
    forbid(here.database(), 0o444);
    for end in ["-wal", "-shm"] {
        let beside = here.folder().join(format!("ivesk-webhook.db{end}"));
        if beside.exists() {
            forbid(beside, 0o666);
        }
    }

    let (code, said) = nobody.run(&here, &["serve"]).await;
    assert_eq!(code, Some(2), "{said}");
    assert!(
        said.contains("`ivesk-webhook doctor`, run as the same user"),
        "{said}"
    );
    let (_, said) = nobody.run(&here, &["doctor", "--quick"]).await;
    assert!(
        said.contains("store: this user can't write ivesk-webhook.db: "),
        "{said}"
    );
    told(&said, "run `doctor` as that user; or set `store.url`");

    // Nor may anything be made in a folder of another's.
    std::fs::remove_file(here.database()).expect("removed");
    forbid(here.folder().to_owned(), 0o555);
    forbid(here.folder().join("ivesk-webhook.db.lock"), 0o444);
    let (code, said) = nobody.run(&here, &["serve"]).await;
    assert_eq!(code, Some(2), "{said}");
    told(
        &said,
        "can't be opened: Permission denied (os error 13); check that its folder exists and that \
         this user may write there. `ivesk-webhook doctor`, run as the same user, finds the cause",
    );
    forbid(here.folder().to_owned(), 0o755);
}

#[tokio::test]
async fn a_full_disk_is_reported_at_first_start_and_by_doctor() {
    let here = Installation::alone("");
    let much = [("IVESK_WEBHOOK_STORE_MIN_FREE_BYTES", "1125899906842624")];
    let report = Report::with(&here, &["--quick"], &much).await;
    assert_eq!(report.results("disk"), ["fail"], "{}", report.words("disk"));
    report.explains_itself();

    let Some(disk) = SmallDisk::mount() else {
        eprintln!("skipped: this user may not mount a small disk");
        return;
    };
    let _ballast = disk.fill();
    let url = format!("sqlite://{}", disk.folder().join("x.db").display());
    let full = [("IVESK_WEBHOOK_STORE_URL", url.as_str())];
    let (code, _, said) = here.run_with(&["serve"], &full).await;
    assert_eq!(code, Some(1), "{said}");
    told(
        &said,
        "is full; free some space, nothing that was acknowledged is lost",
    );
    let report = Report::with(&here, &["--quick"], &full).await;
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
        let here = Installation::alone("");
        let report = Report::with(&here, &["--quick"], &variables).await;
        assert_eq!(report.results("clock"), ["fail"]);
        let words = report.words("clock");
        assert!(words.contains(side), "{words}");
        told(
            &words,
            "let the system keep the time (`timedatectl set-ntp true`)",
        );
    }
}
