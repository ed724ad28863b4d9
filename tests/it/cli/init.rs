//! `init`: asks on a terminal, and nobody elsewhere; what it writes works.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::{Command, Stdio};

use ivesk_webhook::config::Config;
use ivesk_webhook::emulator::{DEFAULT_COMPANIES, DEFAULT_KEY};
use secrecy::ExposeSecret as _;

use crate::support::emulator::emulator;
use crate::support::process::{Port, Server, program, within};
use crate::support::terminal::on_terminal;

const KEY: &str = "the-key-of-the-tests";

fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ivesk-webhook"));
    command
        .env_clear()
        .current_dir(folder)
        .args(arguments)
        .stdin(Stdio::null());
    command
}

/// Runs it where nobody can be asked; returns exit code and output.
fn run(folder: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let output = command(folder, arguments).output().expect("it runs");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    (output.status.code(), text)
}

fn mode(path: &Path) -> u32 {
    let about = std::fs::metadata(path).expect("it exists");
    about.permissions().mode() & 0o777
}

#[test]
fn init_asks_on_a_terminal_and_does_not_show_the_key() {
    let folder = tempfile::tempdir().expect("a folder");
    let quoted = format!("\"{KEY}\"\n");
    let answers = [
        ("hooks.example.lt: ", "http://hooks.example.lt\n"),
        ("write https://", "https://books.example.lt\n"),
        ("separated by spaces: ", "LT302320404 304567894 UAB\n"),
        ("Use 302320404? [Y/n] ", "\n"),
        ("Use it all the same? [Y/n] ", "n\n"),
        ("(not shown): ", &quoted),
    ];
    let init = on_terminal(command(folder.path(), &["init"]), 100, &answers);
    assert!(init.status.success(), "{}", init.shown);
    assert!(
        init.shown.contains("looks like a VAT code"),
        "{}",
        init.shown
    );
    assert!(
        init.shown.contains("quotes around the key"),
        "{}",
        init.shown
    );
    assert!(!init.shown.contains(KEY), "{}", init.shown);
    for next in ["serve", "doctor", "subscriptions create --print"] {
        let line = format!("  ivesk-webhook {next}");
        assert!(init.shown.contains(&line), "{}", init.shown);
    }

    let file = folder.path().join("ivesk-webhook.toml");
    let config = Config::load(&file, &BTreeMap::new()).expect("valid settings");
    assert_eq!(config.public.url.as_str(), "https://books.example.lt/");
    let account = config.accounts.values().next().expect("an account");
    let companies: Vec<&str> = account.companies.iter().map(|one| one.as_str()).collect();
    assert_eq!(companies, ["302320404", "304567894"]);
    let key = account.api_key.as_ref().map(|key| key.expose_secret());
    assert_eq!(key, Some(KEY));
    assert_eq!(mode(&file), 0o600);
    assert_eq!(mode(&folder.path().join("api-key")), 0o600);
}

#[test]
fn init_without_a_terminal_leaves_what_is_missing_to_serve() {
    let folder = tempfile::tempdir().expect("a folder");
    let (code, text) = run(folder.path(), &["init"]);
    assert_eq!(code, Some(0), "{text}");
    for missing in ["`public.url`", "api_key_file`", ".companies`"] {
        assert!(text.contains(missing), "{text}");
    }
    let (code, text) = run(folder.path(), &["serve"]);
    assert_eq!(code, Some(2), "{text}");
    assert!(
        text.contains("`public.url`: is not set; write the https"),
        "{text}"
    );
    let (code, text) = run(folder.path(), &["init", "--json", "--force"]);
    assert_eq!(code, Some(0), "{text}");
    let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(json["old"], "ivesk-webhook.toml.old");
    assert_eq!(json["next"][0], "edit ivesk-webhook.toml", "serve refuses");
    assert_eq!(json["next"].as_array().map(Vec::len), Some(5));
}

#[test]
fn init_names_mistakes_in_the_words_of_its_options() {
    let folder = tempfile::tempdir().expect("a folder");
    let wrong = ["init", "--public-url", "hooks.example.lt"];
    let (code, text) = run(folder.path(), &wrong);
    assert_eq!(code, Some(2), "{text}");
    assert!(
        text.contains("`public.url`: does not begin with https://"),
        "{text}"
    );
    assert!(!text.contains(", line "), "{text}");
    let (code, text) = run(folder.path(), &["-c", "sub/x.toml", "init"]);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("its folder does not exist"), "{text}");
    let mistyped = ["init", "--company", "302320405"];
    let (code, text) = run(folder.path(), &mistyped);
    assert_eq!(code, Some(0), "{text}");
    let words = "its last digit does not fit the others; correct it in `accounts.default.companies` of ivesk-webhook.toml";
    assert!(text.contains(words), "{text}");
}

#[test]
fn init_for_a_system_lets_the_folders_group_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let etc = folder.path().join("etc");
    let file = etc.join("ivesk-webhook.toml");
    let config = file.to_str().expect("text");
    let init = ["--config", config, "init", "--system"];
    let (code, text) = run(folder.path(), &init);
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains("systemctl enable --now ivesk-webhook"),
        "{text}"
    );
    assert_eq!(mode(&etc), 0o750);
    let written = std::fs::read_to_string(&file).expect("readable");
    let store = "\nurl = \"sqlite:///var/lib/ivesk-webhook/ivesk-webhook.db\"\n";
    assert!(written.contains(store), "{written}");
    let socket = "\nsocket = \"/var/lib/ivesk-webhook/admin.sock\"\n";
    assert!(written.contains(socket), "{written}");
    // The key has its place, and the service says what is missing.
    let key = etc.join("api-key");
    assert!(
        text.contains(&format!("{}: your API key", key.display())),
        "{text}"
    );
    let (code, text) = run(folder.path(), &["--config", config, "config", "check"]);
    assert_eq!(code, Some(2), "{text}");
    for missing in ["`public.url`: is not set", "api-key is empty"] {
        assert!(text.contains(missing), "{text}");
    }
    std::fs::write(&key, KEY).expect("written");
    if !rustix::process::geteuid().is_root() {
        return;
    }
    assert_eq!(mode(&file), 0o600, "nobody else is in root's group");
    const GROUP: u32 = 54_321;
    std::os::unix::fs::chown(&etc, None, Some(GROUP)).expect("changed");
    let (code, text) = run(folder.path(), &[&init[..], &["--force"]].concat());
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(std::fs::read_to_string(&key).expect("readable"), KEY);
    std::fs::remove_file(&key).expect("removed");
    let (code, text) = run(folder.path(), &[&init[..], &["--force"]].concat());
    assert_eq!(code, Some(0), "{text}");
    for file in [&file, &key] {
        assert_eq!(mode(file), 0o640);
        assert_eq!(std::fs::metadata(file).expect("it exists").gid(), GROUP);
    }
}

#[test]
fn a_quoted_key_is_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().expect("a folder");
    for (key, found) in [
        (format!("\"{KEY}\"\n"), "has quotes around it"),
        (format!("„{KEY}“"), "has quotes around it"),
        (
            format!("IVESK_WEBHOOK_API_KEY={KEY}"),
            "the name of a variable",
        ),
    ] {
        std::fs::write(folder.path().join("key.txt"), key).expect("written");
        let (code, text) = run(folder.path(), &["init", "--api-key-file", "key.txt"]);
        assert_eq!(code, Some(2), "{text}");
        assert!(text.contains(found) && !text.contains(KEY), "{text}");
        assert!(!folder.path().join("ivesk-webhook.toml").exists());
    }
    std::fs::write(folder.path().join("key.txt"), KEY).expect("written");
    let (code, text) = run(folder.path(), &["init", "--api-key-file", "key.txt"]);
    assert_eq!(code, Some(0), "{text}");
    let written = std::fs::read_to_string(folder.path().join("ivesk-webhook.toml"));
    let written = written.expect("readable");
    assert!(
        written.contains("\napi_key_file = \"key.txt\"\n"),
        "{written}"
    );
}

#[test]
fn a_copy_that_systemd_made_is_read_in_place_of_a_secret() {
    let folder = tempfile::tempdir().expect("a folder");
    let copies = tempfile::tempdir().expect("a folder");
    let settings = "[public]\nurl = \"http://127.0.0.1:8080\"\n\
                    [accounts.default]\napi_key_file = \"api-key\"\n";
    let variable = copies.path().to_str().expect("text").to_owned();
    let environment = BTreeMap::from([("CREDENTIALS_DIRECTORY".to_owned(), variable)]);
    let key = || {
        let config = Config::parse(settings, folder.path(), &environment).ok()?;
        let account = config.accounts.values().next()?;
        Some(account.api_key.as_ref()?.expose_secret().to_owned())
    };
    assert_eq!(key(), None);
    std::fs::write(copies.path().join("api-key"), "a-copy").expect("written");
    assert_eq!(
        key().as_deref(),
        Some("a-copy"),
        "the file may be unreadable"
    );
    // As `SetCredential=` makes it for a missing file.
    std::fs::write(copies.path().join("api-key"), "\n").expect("written");
    assert_eq!(key(), None);
    std::fs::write(folder.path().join("api-key"), "the-file").expect("written");
    assert_eq!(key().as_deref(), Some("the-file"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn init_for_the_emulator_works_as_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let (code, text) = run(folder.path(), &["init", "--emulator"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("  ivesk-webhook emulator "), "{text}");
    let settings = std::fs::read_to_string(folder.path().join("ivesk-webhook.toml"));
    let settings = settings.expect("written");
    for line in emulated_settings() {
        assert!(settings.contains(&line), "{line} is missing in\n{settings}");
    }
    let (_, help) = run(folder.path(), &["emulator", "--help"]);
    assert!(help.contains("[default: 127.0.0.1:4566]"), "{help}");

    // The same settings with ports that are free.
    let emulator = emulator("").await;
    let (public, admin) = (Port::reserve(), Port::reserve());
    let file = folder.path().join("ivesk-webhook.toml");
    let written = std::fs::read_to_string(&file).expect("readable");
    let origin = emulator.origin();
    let origin = origin.strip_prefix("http://").expect("an address");
    let free = written
        .replace("127.0.0.1:4566", origin)
        .replace("127.0.0.1:8080", &format!("127.0.0.1:{}", public.number));
    assert_ne!(written, free);
    std::fs::write(&file, free).expect("written");
    let command = |arguments: &[&str]| {
        let mut command = program();
        let admin = format!("127.0.0.1:{}", admin.number);
        command
            .current_dir(folder.path())
            .env("IVESK_WEBHOOK_ADMIN_LISTEN", admin)
            .args(arguments);
        command
    };
    let run = async |arguments: &[&str]| {
        let output = within("the exit", command(arguments).output()).await;
        let output = output.expect("it runs");
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        (output.status.code(), text)
    };
    let mut server = Server::spawn(command(&["serve"]));
    server.ready().await;
    let (code, text) = run(&["subscriptions", "create"]).await;
    assert_eq!(code, Some(0), "{text}");
    within("the confirmations", emulator.control().idle()).await;
    let (_, text) = run(&["subscriptions", "list"]).await;
    assert_eq!(text.matches(" confirmed ").count(), 2, "{text}");
    let exported = emulator.control().export(DEFAULT_COMPANIES[0], 3);
    exported.expect("a company of the emulator's");
    within("the documents", async {
        loop {
            let (_, text) = run(&["status"]).await;
            if text.contains("302320404  active, 3 documents") {
                return;
            }
        }
    })
    .await;
    let (code, text) = run(&["doctor", "--quick"]).await;
    assert_eq!(code, Some(0), "{text}");
    assert!(!text.contains(DEFAULT_KEY), "{text}");
    drop(server);
}

/// Returns the settings that the emulator prints, as the guide shows them; a test of the emulator
/// compares the two.
fn emulated_settings() -> Vec<String> {
    let guide = include_str!("../../../docs/first-hour.md");
    let (_, settings) = guide.split_once("  [public]\n").expect("the settings");
    let (settings, _) = settings
        .split_once("\nand in the environment")
        .expect("their end");
    let lines = settings.lines().map(str::trim);
    lines
        .filter(|line| line.contains(" = "))
        .map(str::to_owned)
        .collect()
}
