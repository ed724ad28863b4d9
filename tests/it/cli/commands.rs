//! The binary itself: `init`, `config`, exit codes, and what it does when nobody reads.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use ivesk_webhook::config::{Config, Setting};
use ivesk_webhook::refusal::Refusal;
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_ivesk-webhook");

/// Runs the program in `folder`, with no variable of ours but `variables`.
fn run(folder: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(PROGRAM);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("IVESK_WEBHOOK_") {
            command.env_remove(name);
        }
    }
    command
        .current_dir(folder)
        .args(arguments)
        .envs(variables.iter().copied())
        .output()
        .expect("the program runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn init(folder: &Path) -> Output {
    run(
        folder,
        &["init", "--public-url", "https://hooks.example.lt"],
        &[],
    )
}

fn written(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("ivesk-webhook.toml")).expect("a settings file")
}

#[test]
fn a_token_is_printed_once_listed_by_name_and_revoked() {
    let folder = tempfile::tempdir().expect("a folder");
    assert_eq!(init(folder.path()).status.code(), Some(0));
    let tokens = |arguments: &[&str]| run(folder.path(), &[&["tokens"], arguments].concat(), &[]);
    let made = tokens(&["create", "--name", "monitoring", "--rights", "read"]);
    assert_eq!(made.status.code(), Some(0), "{}", text(&made.stderr));
    let token = text(&made.stdout);
    let token = token.strip_suffix('\n').expect("a line");
    assert!(
        token.starts_with("iwh_") && !token.contains('\n'),
        "{token}"
    );
    assert!(text(&made.stderr).contains("admin.token_file"));

    let again = tokens(&["create", "--name", "monitoring", "--rights", "operate"]);
    assert_eq!(again.status.code(), Some(1));
    let listed = text(&tokens(&["list"]).stdout);
    assert!(
        listed.contains("monitoring") && !listed.contains(&token[4..]),
        "{listed}"
    );
    let listed: Value = serde_json::from_slice(&tokens(&["list", "--json"]).stdout).expect("JSON");
    let id = listed[0]["id"].to_string();
    assert_eq!(tokens(&["revoke", &id]).status.code(), Some(0));
    assert_eq!(tokens(&["revoke", &id]).status.code(), Some(1));
    assert_eq!(
        tokens(&["create", "--name", "x", "--rights", "all"])
            .status
            .code(),
        Some(2)
    );
}

#[test]
fn init_writes_a_valid_file_that_only_its_owner_can_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let arguments = [
        "init",
        "--public-url",
        "https://hooks.example.lt",
        "--account",
        "uab",
        "--company",
        "001",
        "--company",
        "kodas \"2\"",
    ];
    let output = run(folder.path(), &arguments, &[]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let file = folder.path().join("ivesk-webhook.toml");
    let config = Config::load(&file, &Default::default()).expect("the file loads");
    let (name, account) = config.accounts.first_key_value().expect("an account");
    assert_eq!(name.as_str(), "uab");
    assert_eq!(account.companies.len(), 2);
    assert_eq!(account.tokens.len(), 2);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(&file)
            .expect("metadata")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    let said = text(&output.stdout);
    assert!(
        said.contains("serve") && said.contains("subscribe --print"),
        "{said}"
    );
}

#[test]
fn init_replaces_a_file_only_if_asked_and_keeps_the_old_one() {
    let folder = tempfile::tempdir().expect("a folder");
    assert_eq!(init(folder.path()).status.code(), Some(0));
    let first = written(folder.path());

    let again = init(folder.path());
    assert_eq!(again.status.code(), Some(2));
    assert!(
        text(&again.stderr).contains("--force"),
        "{}",
        text(&again.stderr)
    );
    assert_eq!(written(folder.path()), first);

    let arguments = [
        "init",
        "--force",
        "--public-url",
        "https://hooks.example.lt",
    ];
    let forced = run(folder.path(), &arguments, &[]);
    assert_eq!(forced.status.code(), Some(0), "{}", text(&forced.stderr));
    assert_ne!(written(folder.path()), first, "the tokens are fresh");
    let old = std::fs::read_to_string(folder.path().join("ivesk-webhook.toml.old"));
    assert_eq!(old.expect("the old file"), first);
}

#[test]
fn init_writes_nothing_for_an_unusable_address() {
    let folder = tempfile::tempdir().expect("a folder");
    for url in [
        "http://hooks.example.lt",
        "https://hooks.example.lt/?x",
        "x\"\ny",
    ] {
        let output = run(
            folder.path(),
            &["init", "--force", "--public-url", url],
            &[],
        );
        assert_eq!(output.status.code(), Some(2), "{url}");
        assert!(text(&output.stderr).contains("public.url"), "{url}");
    }
    assert_eq!(
        std::fs::read_dir(folder.path()).expect("a folder").count(),
        0
    );
}

/// Every setting of a freshly written file, as `config show --json` gives it.
fn shown(folder: &Path) -> Vec<Setting> {
    let file = folder.join("ivesk-webhook.toml");
    let (_, settings) = Config::explain(&file, &Default::default()).expect("valid settings");
    settings
}

#[test]
fn the_written_file_shows_every_setting_with_its_default() {
    let folder = tempfile::tempdir().expect("a folder");
    init(folder.path());
    let before = shown(folder.path());

    // What `#name = value` says, switched on; examples are not defaults.
    let is_setting = |line: &str| {
        let line = line.strip_prefix('#').unwrap_or_default();
        line.starts_with("[[")
            || (line.starts_with(|c: char| c.is_ascii_lowercase())
                && line.contains(" = ")
                && !line.contains("# example"))
    };
    let lines = written(folder.path());
    let switched: Vec<&str> = lines
        .lines()
        .map(|line| if is_setting(line) { &line[1..] } else { line })
        .collect();
    let file = folder.path().join("ivesk-webhook.toml");
    std::fs::write(&file, switched.join("\n")).expect("written");
    for (was, is) in before.iter().zip(shown(folder.path())) {
        assert_eq!(was.value, is.value, "{}", was.name);
        let has_default = !matches!(&is.value, Value::Null | Value::Object(_));
        let in_file = matches!(is.origin, ivesk_webhook::config::Origin::File { .. });
        assert_eq!(in_file, has_default, "{} in the file", is.name);
    }
    for setting in before {
        let leaf = setting.name.rsplit('.').next().expect("a name");
        assert!(
            lines.contains(&format!("{leaf} = "))
                || lines.contains(&format!("[[{}]]", setting.name)),
            "{}",
            setting.name
        );
    }
}

#[test]
fn the_examples_in_the_written_file_are_valid() {
    let folder = tempfile::tempdir().expect("a folder");
    init(folder.path());
    let secret = "0123456789abcdef0123456789abcdef";
    for name in ["private-token.txt", "api-key.txt", "store-password.txt"] {
        std::fs::write(folder.path().join(name), secret).expect("written");
    }
    let signs = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
    std::fs::write(folder.path().join("erp-secret.txt"), signs).expect("written");
    let lines = written(folder.path());
    let switched: Vec<&str> = lines
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(setting) if line.contains("# example") => setting,
            _ => line,
        })
        .collect();
    std::fs::write(
        folder.path().join("ivesk-webhook.toml"),
        switched.join("\n"),
    )
    .expect("written");
    let mut set = shown(folder.path());
    // The one that stands in the place of another.
    set.retain(|setting| setting.name != "alarms.command");
    assert!(
        set.iter().all(|setting| !setting.value.is_null()),
        "{set:#?}"
    );
}

#[test]
fn the_docs_list_every_setting_with_variable_and_default() {
    let documentation =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/settings.md"))
            .expect("docs/settings.md");
    let folder = tempfile::tempdir().expect("a folder");
    let signs = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
    std::fs::write(folder.path().join("secret"), signs).expect("written");
    let of_destinations = [
        "kind = 'http'\nurl = 'https://x.example.lt'\nsecret_file = 'secret'",
        "kind = 'command'\nprogram = '/bin/true'",
        "kind = 'folder'\npath = 'archive'",
    ];
    let settings = of_destinations.iter().flat_map(|of_destination| {
        let text = format!(
            "public.url = 'http://127.0.0.1:8080'\n[accounts.name]\n[destinations.name]\n{of_destination}"
        );
        std::fs::write(folder.path().join("ivesk-webhook.toml"), text).expect("written");
        shown(folder.path())
    });
    for setting in settings {
        let name = setting.name.replace("accounts.name", "accounts.NAME");
        let name = name.replace("destinations.name", "destinations.NAME");
        let variable = setting.variable.replace("_NAME_", "_<NAME>_");
        let row = format!("| `{name}` | `{variable}` | ");
        let line = documentation.lines().find(|line| line.starts_with(&row));
        let line = line.unwrap_or_else(|| panic!("docs/settings.md has no row {row}"));
        let default = match setting.value {
            Value::String(text) if setting.name == "store.url" => {
                assert!(text.ends_with("/ivesk-webhook.db"), "{text}");
                "sqlite://ivesk-webhook.db".to_owned()
            }
            Value::String(_) if line.contains("` | required |") => continue,
            Value::String(text) => text,
            Value::Array(items) if !items.is_empty() => {
                let items: Vec<_> = items.iter().filter_map(Value::as_str).collect();
                items.join(",")
            }
            Value::Null | Value::Array(_) | Value::Object(_) => continue,
            other => other.to_string(),
        };
        assert!(
            line.starts_with(&format!("{row}`{default}` |")),
            "{line} should say {default}"
        );
    }
}

#[test]
fn config_check_names_every_mistake_and_exits_with_2() {
    let folder = tempfile::tempdir().expect("a folder");
    init(folder.path());
    let good = run(folder.path(), &["config", "check"], &[]);
    assert_eq!(good.status.code(), Some(0), "{}", text(&good.stderr));
    assert!(text(&good.stdout).contains("`api.exported_path`"));

    let environment = [
        ("IVESK_WEBHOOK_PULL_LEASE", "1s"),
        ("IVESK_WEBHOOK_NONSENSE", "1"),
    ];
    let bad = run(folder.path(), &["config", "check"], &environment);
    assert_eq!(bad.status.code(), Some(2));
    let said = text(&bad.stderr);
    assert!(
        said.contains("pull.lease") && said.contains("IVESK_WEBHOOK_NONSENSE"),
        "{said}"
    );
    assert!(bad.stdout.is_empty());
}

#[test]
fn config_show_prints_origins_and_no_secret() {
    let folder = tempfile::tempdir().expect("a folder");
    init(folder.path());
    let file = written(folder.path());
    let token = |event: &str| {
        let (_, rest) = file.split_once(&format!("{event} = [\"")).expect("a token");
        rest.split('"').next().expect("a token").to_owned()
    };
    let planted = [
        token("on_exported"),
        token("on_digitized"),
        "dp_planted".to_owned(),
    ];
    let environment = [("IVESK_WEBHOOK_API_KEY", "dp_planted")];
    for arguments in [&["config", "show"][..], &["config", "show", "--json"]] {
        let output = run(folder.path(), arguments, &environment);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let said = text(&output.stdout);
        assert!(
            said.contains("[set]") && said.contains("IVESK_WEBHOOK_API_KEY"),
            "{said}"
        );
        for secret in &planted {
            assert!(!said.contains(secret), "{said}");
        }
    }
    let json = run(folder.path(), &["config", "show", "--json"], &[]);
    let json: Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert!(
        json["settings"]
            .as_array()
            .is_some_and(|all| all.len() > 30)
    );
}

#[test]
fn wrong_use_exits_with_2_and_help_lists_the_exit_codes() {
    let folder = tempfile::tempdir().expect("a folder");
    for arguments in [&["nonsense"][..], &["config"], &["config", "check"], &[]] {
        let output = run(folder.path(), arguments, &[]);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(!output.stderr.is_empty(), "{arguments:?}");
    }
    let help = run(folder.path(), &["--help"], &[]);
    assert_eq!(help.status.code(), Some(0));
    let said = text(&help.stdout);
    assert!(
        said.contains("Exit codes:") && said.contains("Examples:"),
        "{said}"
    );
}

#[cfg(unix)]
#[test]
fn a_closed_standard_output_causes_no_panic() {
    let folder = tempfile::tempdir().expect("a folder");
    init(folder.path());
    let (reader, writer) = std::io::pipe().expect("a pipe");
    // Closed before the program writes its first line.
    drop(reader);
    let output = Command::new(PROGRAM)
        .current_dir(folder.path())
        .args(["config", "show"])
        .stdout(writer)
        .stderr(Stdio::piped())
        .output()
        .expect("the program runs");
    assert_eq!(text(&output.stderr), "");
    // As a shell sees a program that SIGPIPE ended.
    assert_eq!(output.status.code(), Some(141));
}

#[test]
fn the_documentation_lists_every_refusal_and_its_status() {
    let documentation =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/refusals.md"))
            .expect("docs/refusals.md");
    let mut listed: Vec<(&str, &str)> = documentation
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` | "))
        .map(|(code, rest)| (code, rest.split(' ').next().unwrap_or_default()))
        .collect();
    let mut reasons: Vec<(&str, &str)> = Refusal::REASONS
        .iter()
        .map(|reason| (reason.code, reason.status.as_str()))
        .collect();
    listed.sort_unstable();
    reasons.sort_unstable();
    assert_eq!(listed, reasons);
}

#[test]
fn completions_and_man_pages_cover_every_subcommand() {
    let folder = tempfile::tempdir().expect("a folder");
    for shell in ["bash", "zsh", "fish"] {
        let output = run(folder.path(), &["completions", shell], &[]);
        assert_eq!(output.status.code(), Some(0), "{shell}");
        let script = text(&output.stdout);
        for word in ["doctor", "upload", "subscribe", "--parallel"] {
            let word = if shell == "fish" {
                word.trim_start_matches('-')
            } else {
                word
            };
            assert!(script.contains(word), "{shell} lacks {word}");
        }
    }
    let output = run(folder.path(), &["man", "pages"], &[]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    for page in [
        "ivesk-webhook.1",
        "ivesk-webhook-upload.1",
        "ivesk-webhook-store-backup.1",
    ] {
        let page = std::fs::read_to_string(folder.path().join("pages").join(page));
        assert!(page.expect("a page").contains(".TH"));
    }
}
