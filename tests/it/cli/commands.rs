//! `init`, `config`, `tokens`, exit codes, and commands in the documentation.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use ivesk_webhook::config::{Config, Setting};
use ivesk_webhook::refusal::Refusal;
use ivesk_webhook::unexpected::UnexpectedRequest;
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_ivesk-webhook");

/// Runs the program in `folder`, with no variables of its own but `variables`.
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

fn settings_text(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("ivesk-webhook.toml")).expect("a settings file")
}

#[test]
fn a_token_is_printed_once_listed_by_name_and_revoked() {
    let folder = tempfile::tempdir().expect("a folder");
    assert_eq!(init(folder.path()).status.code(), Some(0));
    let tokens = |arguments: &[&str]| run(folder.path(), &[&["tokens"], arguments].concat(), &[]);
    let created = tokens(&["create", "--name", "monitoring", "--rights", "read"]);
    assert_eq!(created.status.code(), Some(0), "{}", text(&created.stderr));
    let token = text(&created.stdout);
    let token = token.strip_suffix('\n').expect("a line");
    assert!(
        token.starts_with("iwh_") && !token.contains('\n'),
        "{token}"
    );

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
    let printed = text(&output.stdout);
    assert!(
        printed.contains("serve") && printed.contains("subscriptions create --print"),
        "{printed}"
    );
}

#[test]
fn init_replaces_a_file_only_if_asked_and_keeps_the_old_one() {
    let folder = tempfile::tempdir().expect("a folder");
    assert_eq!(init(folder.path()).status.code(), Some(0));
    let first = settings_text(folder.path());

    let again = init(folder.path());
    assert_eq!(again.status.code(), Some(2));
    assert!(
        text(&again.stderr).contains("--force"),
        "{}",
        text(&again.stderr)
    );
    assert_eq!(settings_text(folder.path()), first);

    let arguments = [
        "init",
        "--force",
        "--public-url",
        "https://hooks.example.lt",
    ];
    let forced = run(folder.path(), &arguments, &[]);
    assert_eq!(forced.status.code(), Some(0), "{}", text(&forced.stderr));
    assert_ne!(settings_text(folder.path()), first, "the tokens are fresh");
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

/// Returns the folder's settings as `config show --json` shows them.
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

    // Uncomment each `#name = value`, except for examples, which are not defaults.
    let is_setting = |line: &str| {
        let line = line.strip_prefix('#').unwrap_or_default();
        line.starts_with("[[")
            || (line.starts_with(|c: char| c.is_ascii_lowercase())
                && line.contains(" = ")
                && !line.contains("# example"))
    };
    let lines = settings_text(folder.path());
    let uncommented: Vec<&str> = lines
        .lines()
        .map(|line| if is_setting(line) { &line[1..] } else { line })
        .collect();
    let file = folder.path().join("ivesk-webhook.toml");
    std::fs::write(&file, uncommented.join("\n")).expect("written");
    for (before, after) in before.iter().zip(shown(folder.path())) {
        assert_eq!(before.value, after.value, "{}", before.name);
        let has_default = !matches!(&after.value, Value::Null | Value::Object(_));
        let in_file = matches!(after.origin, ivesk_webhook::config::Origin::File { .. });
        assert_eq!(in_file, has_default, "{} in the file", after.name);
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
    for name in ["admin-token.txt", "api-key", "store-password.txt"] {
        std::fs::write(folder.path().join(name), secret).expect("written");
    }
    let signing_secret = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
    std::fs::write(folder.path().join("erp-secret.txt"), signing_secret).expect("written");
    std::fs::write(folder.path().join("smtp-password.txt"), secret).expect("written");
    let lines = settings_text(folder.path());
    // Alarms go to one target, and backups are those of a file.
    let excludes_others = |line: &str| {
        ["backup_every", "smtp", "@example.lt"]
            .iter()
            .any(|part| line.contains(part))
    };
    let with_examples = |wanted: &dyn Fn(&str) -> bool| {
        let uncommented: Vec<&str> = lines
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some("to = []  # such as [\"ops@example.lt\"]") if wanted(line) => {
                    "to = [\"ops@example.lt\"]"
                }
                Some(setting) if line.contains("# example") && wanted(line) => setting,
                _ => line,
            })
            .collect();
        std::fs::write(
            folder.path().join("ivesk-webhook.toml"),
            uncommented.join("\n"),
        )
        .expect("written");
        shown(folder.path())
    };
    let others = with_examples(&excludes_others);
    let mut set = with_examples(&|line| !excludes_others(line));
    for setting in &mut set {
        if setting.value.is_null() {
            let other = others.iter().find(|other| other.name == setting.name);
            setting.value = other.expect("the same settings").value.clone();
        }
    }
    // It excludes `alarms.url`.
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
    let signing_secret = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
    std::fs::write(folder.path().join("secret"), signing_secret).expect("written");
    let destinations = [
        "kind = 'http'\nurl = 'https://x.example.lt'\nsecret_file = 'secret'",
        "kind = 'command'\nprogram = '/bin/true'",
        "kind = 'folder'\npath = 'archive'",
    ];
    let settings = destinations.iter().flat_map(|destination| {
        let text = format!(
            "public.url = 'http://127.0.0.1:8080'\n[accounts.name]\n[destinations.name]\n{destination}"
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
            Value::String(text) if setting.name == "store.backup_dir" => {
                assert!(text.ends_with("/backups"), "{text}");
                "backups".to_owned()
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
        ("IVESK_WEBHOOK_SNS_MAX_AGE", "1s"),
        ("IVESK_WEBHOOK_NONSENSE", "1"),
    ];
    let bad = run(folder.path(), &["config", "check"], &environment);
    assert_eq!(bad.status.code(), Some(2));
    let errors = text(&bad.stderr);
    assert!(
        errors.contains("sns.max_age") && errors.contains("IVESK_WEBHOOK_NONSENSE"),
        "{errors}"
    );
    assert!(bad.stdout.is_empty());
}

#[test]
fn config_show_prints_origins_and_no_secret() {
    let folder = tempfile::tempdir().expect("a folder");
    init(folder.path());
    let file = settings_text(folder.path());
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
        let printed = text(&output.stdout);
        assert!(
            printed.contains("[set]") && printed.contains("IVESK_WEBHOOK_API_KEY"),
            "{printed}"
        );
        for secret in &planted {
            assert!(!printed.contains(secret), "{printed}");
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
    let help = text(&help.stdout);
    assert!(
        help.contains("Exit codes:") && help.contains("Examples:"),
        "{help}"
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
    // A shell reports this code for a program that SIGPIPE ended.
    assert_eq!(output.status.code(), Some(141));
}

#[test]
fn every_test_that_the_docs_name_exists() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let sources = ["tests/it", "src", "crates"].map(|folder| rust_sources(&root.join(folder)));
    for (page, least) in [("docs/architecture.md", 30), ("docs/security.md", 40)] {
        let text = std::fs::read_to_string(root.join(page)).expect("the page");
        let named: Vec<&str> = text
            .lines()
            .flat_map(|line| line.split('`').skip(1).step_by(2))
            .filter(|code| {
                let in_name = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
                code.len() > 20 && code.matches('_').count() > 2 && code.bytes().all(in_name)
            })
            .collect();
        assert!(named.len() >= least, "{page}: {named:?}");
        for test in named {
            let definition = format!("fn {test}(");
            assert!(
                sources.iter().any(|text| text.contains(&definition)),
                "{page}: {test}"
            );
        }
    }
}

/// Returns the text of all Rust files below `folder`.
fn rust_sources(folder: &std::path::Path) -> String {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let mut text = String::new();
    for path in entries.map(|entry| entry.expect("an entry").path()) {
        if path.is_dir() {
            text.push_str(&rust_sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&std::fs::read_to_string(&path).expect("a file"));
        }
    }
    text
}

#[test]
fn the_docs_list_every_refusal_with_its_status() {
    let documentation =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/refusals.md"))
            .expect("docs/refusals.md");
    let (documentation, unexpected) = documentation
        .split_once("## Requests that reach no webhook")
        .expect("the section");
    let listed = unexpected
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
    let listed: Vec<&str> = listed.map(|(code, _)| code).collect();
    let kinds = UnexpectedRequest::ALL.iter().map(|kind| kind.code());
    assert_eq!(listed, kinds.collect::<Vec<_>>());
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
        for word in ["doctor", "upload", "subscriptions", "--parallel"] {
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
        let page = page.expect("a page");
        for part in [
            ".TH",
            ".SH FILES",
            ".SH ENVIRONMENT",
            ".SH \"EXIT STATUS\"",
            ".SH \"SEE ALSO\"",
        ] {
            assert!(page.contains(part), "{part} is missing in\n{page}");
        }
        assert!(!page.contains("EXTRA"), "{page}");
    }
    let page = std::fs::read_to_string(folder.path().join("pages/ivesk-webhook.1"));
    let page = page.expect("a page");
    let examples = page.split(".SH EXAMPLES").nth(1).expect("examples");
    assert!(
        examples.starts_with("\n.nf\n"),
        "one command a line: {examples}"
    );
    let start = std::fs::read_to_string(
        folder
            .path()
            .join("pages/ivesk-webhook-destinations-start.1"),
    );
    let start = start.expect("a page").replace("\\-", "-");
    assert!(start.contains("<--all|--from <MOMENT>>"), "{start}");
}

/// Adds path and text of every file below `folder` with one of these endings.
fn add_texts(folder: &Path, endings: &[&str], texts: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.display().to_string();
        if path.is_dir() {
            add_texts(&path, endings, texts);
        } else if endings.iter().any(|ending| name.ends_with(ending)) {
            texts.push((name, std::fs::read_to_string(&path).expect("text")));
        }
    }
}

/// Returns the mistake in `words`, such as `feeds list --json`, as a command of the program.
fn mistake(program: &clap::Command, words: &str) -> Option<String> {
    let mut command = program;
    for word in words.split_whitespace() {
        let word = word.trim_end_matches([',', ';', ':', '.', ')']);
        if let Some(option) = word.strip_prefix("--") {
            let option = option.split('=').next().unwrap_or_default();
            let mut options = command.get_arguments().filter_map(clap::Arg::get_long);
            if !options.any(|known| known == option) && option != "help" {
                return Some(format!("`{}` has no option --{option}", command.get_name()));
            }
        } else if ["#", "|", ">", "\\"].contains(&word) {
            return None;
        } else if command.has_subcommands() {
            let Some(subcommand) = command.find_subcommand(word) else {
                return Some(format!("`{}` has no command {word}", command.get_name()));
            };
            command = subcommand;
        }
    }
    None
}

#[test]
fn every_command_in_the_docs_exists() {
    use clap::CommandFactory as _;

    let mut program = ivesk_webhook::cli::Cli::command();
    program.build();
    // `doctor`, `feeds list`; also `subscribe --print`, which no longer exists.
    let looks_like_command = |words: &str| {
        let mut words = words.split_whitespace();
        let is_command = |word| program.find_subcommand(word).is_some();
        words.next().is_some_and(is_command)
            || words.next().is_some_and(|word| word.starts_with("--"))
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages = Vec::new();
    add_texts(&root.join("docs"), &[".md", ".yml"], &mut pages);
    add_texts(&root.join("src"), &[".rs"], &mut pages);
    let readme = std::fs::read_to_string(root.join("README.md")).expect("README.md");
    pages.push(("README.md".to_owned(), readme));

    let mut commands = Vec::new();
    for (name, text) in &pages {
        for line in text.lines().map(str::trim) {
            // A description may follow after some spaces.
            let example = line.strip_prefix("ivesk-webhook ").into_iter();
            let example = example.filter_map(|words| words.split("   ").next());
            commands.extend(
                example
                    .filter(|words| looks_like_command(words))
                    .map(|words| (name, words)),
            );
            for quoted in line.split('`').skip(1).step_by(2) {
                match quoted.strip_prefix("ivesk-webhook ") {
                    Some(words) => commands.push((name, words)),
                    // In Rust, most quoted words are names in the code.
                    None if !name.ends_with(".rs") && looks_like_command(quoted) => {
                        commands.push((name, quoted));
                    }
                    None => {}
                }
            }
        }
    }
    assert!(commands.len() > 100, "{} commands", commands.len());
    let mistakes: Vec<String> = commands
        .iter()
        .filter_map(|(name, words)| {
            Some(format!("{name}: `{words}`: {}", mistake(&program, words)?))
        })
        .collect();
    assert!(mistakes.is_empty(), "{}", mistakes.join("\n"));
}
