//! All settings but those of destinations.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ivesk_webhook::config::{
    AlarmTarget, Config, ConfigError, ConfirmMode, EmailTls, LogFormat, Loopback, Origin, StoreUrl,
    vendor_topics,
};
use ivesk_webhook::domain::{Company, Event};
use proptest::prelude::*;
use secrecy::{ExposeSecret as _, SecretString};

use super::*;

#[test]
fn unset_settings_have_their_documented_defaults() {
    let config = valid(&public(""));
    assert_eq!(config.public.listen.to_string(), "0.0.0.0:8080");
    assert_eq!(config.admin.listen.to_string(), "127.0.0.1:8081");
    assert_eq!(
        config.store.url,
        StoreUrl::Sqlite(PathBuf::from("/etc/ivesk/ivesk-webhook.db"))
    );
    assert_eq!(config.sns.topics, vendor_topics());
    assert_eq!(config.sns.confirm, ConfirmMode::Auto);
    assert_eq!(config.sns.max_age, Duration::from_secs(8 * 3600));
    assert_eq!(config.api.url.as_str(), "https://app.ivesk.lt/api/pub");
    assert!(config.api.exported_path.is_none());
    assert_eq!(config.pull.lookback, Duration::from_secs(24 * 3600));
    assert_eq!(config.log.format, LogFormat::Text);
    let account = &config.accounts[&account("default")];
    assert!(account.api_key.is_none());
    assert!(account.digitized);
}

#[test]
fn a_variable_overrides_the_file() {
    let text = public("[pull]\nlookback = '1h'\n[sns]\nconfirm = 'ask'");
    let environment = [
        ("IVESK_WEBHOOK_PUBLIC_URL", "https://other.example.lt"),
        ("IVESK_WEBHOOK_PULL_LOOKBACK", "2h"),
        ("IVESK_WEBHOOK_PULL_REQUESTS_PER_ACCOUNT", "3"),
        ("IVESK_WEBHOOK_STORE_URL", "sqlite:///var/lib/x.db"),
        ("IVESK_WEBHOOK_SNS_CONFIRM", "auto"),
        (
            "IVESK_WEBHOOK_SNS_TOPICS",
            "eu-west-1:111122223333:A_,eu-north-1:111122223333:B_",
        ),
        ("IVESK_WEBHOOK_ACCOUNTS_DEFAULT_COMPANIES", "001,302320404"),
        ("IVESK_WEBHOOK_ACCOUNTS_DEFAULT_DIGITIZED", "false"),
        ("IVESK_WEBHOOK_API_KEY", " dp_key \n"),
    ];
    let config = parse_with(&text, &environment).expect("valid settings");
    assert_eq!(config.public.url.as_str(), "https://other.example.lt/");
    assert_eq!(config.pull.lookback, Duration::from_secs(7200));
    assert_eq!(config.pull.requests_per_account, 3);
    assert_eq!(
        config.store.url,
        StoreUrl::Sqlite(PathBuf::from("/var/lib/x.db"))
    );
    assert_eq!(config.sns.confirm, ConfirmMode::Auto);
    assert_eq!(config.sns.topics[1].name_prefix, "B_");
    assert_eq!(config.sns.topics[1].region, "eu-north-1");
    let account = &config.accounts[&account("default")];
    let codes: Vec<_> = account.companies.iter().map(Company::as_str).collect();
    assert_eq!(codes, ["001", "302320404"]);
    assert!(!account.digitized);
    let key = account.api_key.as_ref().expect("a key");
    assert_eq!(key.expose_secret(), "dp_key");
}

#[test]
fn variables_alone_are_enough() {
    let environment = [
        ("IVESK_WEBHOOK_PUBLIC_URL", "https://hooks.example.lt"),
        ("IVESK_WEBHOOK_ACCOUNTS_UAB_TOKENS_ON_EXPORTED", TOKEN_A),
        ("IVESK_WEBHOOK_ACCOUNTS_UAB_TOKENS_ON_DIGITIZED", TOKEN_B),
        ("IVESK_WEBHOOK_API_KEY", "key"),
    ];
    let config = parse_with("", &environment).expect("valid settings");
    assert!(config.accounts[&account("uab")].api_key.is_some());
}

#[test]
fn several_accounts_have_a_key_variable_each() {
    let text = local("[accounts.first-one]\n[accounts.second]");
    let config = parse_with(
        &text,
        &[
            ("IVESK_WEBHOOK_API_KEY_FIRST_ONE", "key1"),
            ("IVESK_WEBHOOK_API_KEY_SECOND", "key2"),
        ],
    )
    .expect("valid settings");
    let key = |name| config.accounts[&account(name)].api_key.as_ref();
    assert_eq!(key("first-one").map(|k| k.expose_secret()), Some("key1"));
    assert_eq!(key("second").map(|k| k.expose_secret()), Some("key2"));

    let message = refused_with(&text, &[("IVESK_WEBHOOK_API_KEY", "key")]);
    assert!(message.contains("IVESK_WEBHOOK_API_KEY_"), "{message}");
    let message = refused(&local("[accounts.a-b]\n[accounts.a_b]"));
    assert!(message.contains("same variables"), "{message}");
}

#[test]
fn every_mistake_is_named_not_only_the_first() {
    let text = "\
[public]
url = 'http://hooks.example.lt'
listne = '0.0.0.0:1'
drain_timeout = 10
[pull]
lookback = '24'
requests_per_account = 17
[sns]
topics = []
[store]
url = 'mysql://db/ivesk'
";
    let found = names(text);
    for name in [
        "public.url",
        "public.listne",
        "public.drain_timeout",
        "pull.lookback",
        "pull.requests_per_account",
        "sns.topics",
        "store.url",
    ] {
        assert!(found.contains(&name.to_owned()), "{name} not in {found:?}");
    }
    assert_eq!(found.len(), 7, "{found:?}");
    let message = refused(text);
    assert!(message.contains("line 3"), "{message}");
    assert!(
        message.contains("did you mean `public.listen`?"),
        "{message}"
    );
    assert!(message.contains("postgres://USER@HOST"), "{message}");
}

#[test]
fn a_misspelled_name_gets_the_nearest_one_as_a_hint() {
    for (text, nearest) in [
        ("[pubilc]\nlisten = '0.0.0.0:1'", "`public.listen`"),
        ("[pull]\nlook_back = '1h'", "`pull.lookback`"),
        ("[pull]\ntimeout = '1h'", "`api.timeout`"),
        (
            "[accounts.default]\ncompany = ['1']",
            "`accounts.default.companies`",
        ),
    ] {
        let message = refused(&local(text));
        assert!(message.contains(nearest), "{text}: {message}");
    }
    let message = refused(&local("[nonsense]"));
    assert!(message.contains("`nonsense`"), "{message}");
    let message = refused(&local("[accounts.default]\napi_key = 'dp_secret'"));
    assert!(message.contains("api_key_file"), "{message}");
    assert!(!message.contains("dp_secret"), "{message}");
}

#[test]
fn an_unknown_variable_of_ours_is_refused_and_others_are_not() {
    let message = refused_with(&local(""), &[("IVESK_WEBHOOK_STORE_ULR", "x")]);
    assert!(message.contains("IVESK_WEBHOOK_STORE_URL"), "{message}");
    let message = refused_with(&local(""), &[("IVESK_WEBHOOK_API_KEY_FILE", "x")]);
    assert!(message.contains("no such variable"), "{message}");
    let fine = [
        ("IVESK_WEBHOOK_CONFIG", "x"),
        ("IVESK_WEBHOOK_AWS_VECTORS", "x"),
        ("IVESK_WEBHOOK_TEST_KILLS", "x"),
        ("PATH", "${HOME}"),
    ];
    assert!(parse_with(&local(""), &fine).is_ok());
}

#[test]
fn an_empty_variable_is_named() {
    let message = refused(&local("[store]\nurl = 'sqlite://${DATA_DIR}/x.db'"));
    assert!(message.contains("`${DATA_DIR}`"), "{message}");
    let message = refused_with(&local(""), &[("IVESK_WEBHOOK_API_KEY", "${IVESK_KEY}")]);
    assert!(message.contains("`${IVESK_KEY}`"), "{message}");
    let text = public("").replace(TOKEN_A, "${TOKEN}");
    assert!(refused(&text).contains("`${TOKEN}`"));
}

#[test]
fn invalid_toml_is_refused_with_its_line_but_not_its_content() {
    let message = refused(&format!("[public]\nurl = 'x'\ntokens = ['{TOKEN_A}"));
    assert!(message.contains("line 3"), "{message}");
    assert!(!message.contains(TOKEN_A), "{message}");
}

#[test]
fn no_mistake_repeats_a_secret() {
    let short = "short-secret-token";
    let doubled = public("").replace(TOKEN_B, TOKEN_A);
    let short = public("").replace(TOKEN_A, short);
    for text in [doubled, short] {
        let message = refused(&text);
        assert!(!message.contains(TOKEN_A), "{message}");
        assert!(!message.contains("short-secret-token"), "{message}");
    }
    let text = local("[api]\nurl = 'https://user:hunter2@app.ivesk.lt'");
    assert!(!refused(&text).contains("hunter2"));
    let message = refused_with(&local(""), &[("IVESK_WEBHOOK_API_KEY", "two words")]);
    assert!(!message.contains("two words"), "{message}");
}

#[test]
fn tokens_are_long_unique_and_required_unless_on_loopback() {
    assert!(parse(&local("")).is_ok());
    assert_eq!(
        names("public.url = 'https://hooks.example.lt'"),
        [
            "accounts.default.tokens.on_exported",
            "accounts.default.tokens.on_digitized"
        ]
    );
    assert_eq!(
        names(&public("").replace(TOKEN_B, TOKEN_A)),
        ["accounts.default.tokens.on_digitized"]
    );
    for bad in [
        "a".repeat(31),
        "a".repeat(201),
        format!("{TOKEN_A}/"),
        format!("{TOKEN_A}ž"),
    ] {
        assert_eq!(
            names(&public("").replace(TOKEN_A, &bad)),
            ["accounts.default.tokens.on_exported"],
            "{bad}"
        );
    }
}

#[test]
fn public_and_api_urls_are_https_unless_loopback() {
    for good in [
        "http://127.0.0.1:1",
        "http://[::1]:1",
        "http://localhost:1/x",
    ] {
        assert!(
            parse(&format!("public.url = '{good}'\napi.url = '{good}'")).is_ok(),
            "{good}"
        );
    }
    for bad in [
        "http://hooks.example.lt",
        "http://127.0.0.1.example.lt",
        "http://localhost.example.lt",
        "http://192.168.1.4",
        "ftp://hooks.example.lt",
        "hooks.example.lt",
        "https://user@hooks.example.lt",
        "https://hooks.example.lt/?a=b",
        "https://hooks.example.lt/#a",
    ] {
        assert_eq!(
            names(&format!("public.url = '{bad}'\napi.url = '{bad}'")),
            ["public.url", "api.url"],
            "{bad}"
        );
    }
    // SNS refuses such a host (docs/vendor-api.md, "How SNS delivers").
    assert_eq!(
        names(&public("").replace("hooks", "my_hooks")),
        ["public.url"]
    );
    assert_eq!(names(""), ["public.url"]);
}

#[test]
fn a_public_url_with_webhooks_in_it_is_refused_with_its_form() {
    let with =
        |path: &str| public("").replace("hooks.example.lt", &format!("hooks.example.lt{path}"));
    for (path, right) in [
        ("/webhooks", "`https://hooks.example.lt`"),
        ("/webhooks/", "`https://hooks.example.lt`"),
        ("/ivesk/webhooks/", "`https://hooks.example.lt/ivesk`"),
        (
            "/webhooks/default/on_exported/planted-token-5e7f",
            "`https://hooks.example.lt`",
        ),
    ] {
        let message = refused_with(&with(path), &[]);
        assert!(message.contains(right), "{message}");
        assert!(!message.contains("planted"), "{message}");
    }
    assert!(parse(&with("/webhooks-of-ours")).is_ok());
}

#[test]
fn an_empty_or_malformed_topic_list_refuses_to_start() {
    for bad in [
        "topics = []",
        "topics = ['DPWebHook_']",
        "topics = [{ account = '00727221088' }]",
        "topics = [{ account = '00727221088x' }]",
        "topics = [{ region = 'Ireland' }]",
        "topics = [{ name_prefix = 'DPWebHook_*' }]",
        "topics = [{ name = 'DPWebHook_' }]",
        "topics = '*'",
    ] {
        assert_eq!(
            names(&local(&format!("[sns]\n{bad}"))),
            ["sns.topics"],
            "{bad}"
        );
    }
    let message = refused_with(&local(""), &[("IVESK_WEBHOOK_SNS_TOPICS", "")]);
    assert!(message.contains("sns.topics"), "{message}");
}

#[test]
fn a_local_origin_must_be_exact() {
    let config = valid(&local(
        "[sns]\nlocal_origins = ['http://127.0.0.1:4566', 'http://localstack:4566']",
    ));
    assert_eq!(config.sns.local_origins.len(), 2);
    for bad in [
        "http://127.0.0.1:4566/",
        "http://127.0.0.1:4566/x",
        "http://127.0.0.1:80",
        "HTTP://127.0.0.1:4566",
        "http://user@127.0.0.1:4566",
        "*",
        "127.0.0.1:4566",
        "file:///tmp",
    ] {
        assert_eq!(
            names(&local(&format!("[sns]\nlocal_origins = ['{bad}']"))),
            ["sns.local_origins"],
            "{bad}"
        );
    }
}

#[test]
fn a_trusted_proxy_is_an_address_or_a_network_never_everyone() {
    let config = valid(&local("public.trusted_proxies = ['10.0.0.5', 'fd00::/8']"));
    let named: Vec<String> = config
        .public
        .trusted_proxies
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(named, ["10.0.0.5/32", "fd00::/8"]);
    assert!(
        valid(&local("public.trusted_proxies = []"))
            .public
            .trusted_proxies
            .is_empty()
    );
    for bad in [
        "proxy.example.lt",
        "10.0.0.0/33",
        "10.0.0.5:80",
        "0.0.0.0/0",
        "::/0",
    ] {
        let text = local(&format!("public.trusted_proxies = ['{bad}']"));
        assert_eq!(names(&text), ["public.trusted_proxies"], "{bad}");
    }
    let message = refused(&local("public.trusted_proxies = ['10.1.2.3/8']"));
    assert!(
        message.contains("`10.1.2.3`") && message.contains("`10.0.0.0/8`"),
        "{message}"
    );
}

#[test]
fn contradictory_settings_are_refused() {
    for (text, name) in [
        ("[admin]\nlisten = '127.0.0.1:8080'", "admin.listen"),
        ("[sns]\nmax_age = '5m'", "sns.max_age"),
        ("[pull]\nlease = '30s'", "pull.lease"),
        ("[api]\ntimeout = '5m'", "pull.lease"),
    ] {
        assert_eq!(names(&local(text)), [name], "{text}");
    }
    // Nobody gets in without proof, wherever the listener is.
    let text = local("[admin]\nlisten = '0.0.0.0:8081'");
    assert!(parse_with(&text, &[]).is_ok());
}

#[test]
fn an_exported_path_is_a_preset_or_a_template() {
    for (written, template) in [
        ("path", "/exported/{company}"),
        ("query", "/exported?companycode={company}"),
        ("prefix", "/{company}/exported"),
        ("none", "/exported"),
        ("/v2/{company}/exported?x=1", "/v2/{company}/exported?x=1"),
    ] {
        let config = valid(&local(&format!("[api]\nexported_path = '{written}'")));
        let path = config.api.exported_path.expect("a path");
        assert_eq!(path.template, template);
    }
    for bad in [
        "exported",
        "paht",
        "/exported/{company}/{company}",
        "/exported/{code}",
        "/exported/{company}?from={from}",
        "/exported/{company}?FROM=1",
        "//evil.example/{company}",
        "/../{company}",
        "/%2E%2e/{company}",
        "/exported/{company}#x",
        "https://evil.example/{company}",
    ] {
        let text = local(&format!("[api]\nexported_path = '{bad}'"));
        assert_eq!(names(&text), ["api.exported_path"], "{bad}");
    }
}

#[test]
fn a_key_file_is_read_beside_the_settings_and_trimmed() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("key.txt"), "\u{feff} dp_key\r\n").expect("written");
    std::fs::write(folder.path().join("empty.txt"), " \n").expect("written");
    let read = |name: &str, environment: &[(&str, &str)]| {
        let text = local(&format!("[accounts.default]\napi_key_file = '{name}'"));
        Config::parse(&text, folder.path(), &variables(environment))
    };
    let key = |config: &Config| {
        let key = config.accounts[&account("default")].api_key.clone();
        key.expect("a key").expose_secret().to_owned()
    };
    assert_eq!(key(&read("key.txt", &[]).expect("valid")), "dp_key");
    let variable = [("IVESK_WEBHOOK_API_KEY", "from_variable")];
    assert_eq!(
        key(&read("key.txt", &variable).expect("valid")),
        "from_variable"
    );
    for (name, words) in [("empty.txt", "is empty"), ("none.txt", "can't be opened")] {
        let message = read(name, &[]).expect_err(name).to_string();
        assert!(message.contains(words), "{message}");
        assert!(message.contains("api_key_file"), "{message}");
    }
    // The key itself, where its file's name belongs, is not repeated.
    for key in [
        "3f0c6c6b-1f5e-4f0f-9d7f-2a8e5b7c9d10",
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJpdmVzayJ9AAAA.c2lnbmF0dXJl",
    ] {
        let message = read(key, &[]).expect_err("no file").to_string();
        assert!(message.contains("not the secret itself"), "{message}");
        assert!(!message.contains(key), "{message}");
    }
    let both = [
        ("IVESK_WEBHOOK_API_KEY", "key"),
        ("IVESK_WEBHOOK_ACCOUNTS_DEFAULT_API_KEY_FILE", "key.txt"),
    ];
    let message = refused_with(&local(""), &both);
    assert!(message.contains("keep one of the two"), "{message}");
}

#[test]
fn a_mistyped_log_level_does_not_silence_the_log() {
    let refused = |level: &str| {
        let text = local(&format!("log.level = '{level}'"));
        let refused = Config::parse(&text, Path::new("/etc/ivesk"), &variables(&[]));
        refused.err().map(|error| error.to_string())
    };
    for level in [
        "warn",
        "INFO",
        "info,ivesk_webhook::pull=debug",
        "error, hyper=trace",
    ] {
        assert_eq!(refused(level), None, "{level}");
    }
    for (level, words) in [
        ("warning", "is not a level; write error, warn, info"),
        ("inof", "did you mean `info`?"),
        ("verbose", "is not a level"),
        ("info;debug", "is not a level"),
        ("ivesk_webhook::pull=debug", "is not a level"),
        ("info,foo", "is not a module"),
        ("info,ivesk_webhook:pull=debug", "is not a module"),
        ("info,ivesk_webhook=loud", "is not a module"),
    ] {
        let message = refused(level).expect(level);
        assert!(message.contains(words), "{level}: {message}");
        assert!(message.contains("log.level"), "{message}");
    }
}

#[test]
fn a_settings_file_with_the_password_of_the_store_is_a_secret() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("ivesk-webhook.toml");
    let holds = |url: &str, environment: &[(&str, &str)]| {
        let text = local(&format!("store.url = '{url}'"));
        std::fs::write(&file, text).expect("written");
        let config = Config::load(&file, &variables(environment)).expect("valid");
        let secrets = config.secret_files.into_iter();
        let secrets = secrets.filter(|(path, _)| *path == file);
        secrets.map(|(_, holds)| holds).collect::<Vec<_>>()
    };
    let with_password = holds("postgres://u:pw@db.example/d", &[]);
    assert_eq!(with_password, ["the secret in `store.url`"]);
    let password = [("IVESK_WEBHOOK_STORE_PASSWORD", "pw")];
    let without: [String; 0] = [];
    assert_eq!(holds("postgres://u@db.example/d", &password), without);
}

#[test]
fn backups_are_beside_the_store_and_never_uploaded() {
    let dir = |text: &str| valid(&local(text)).store.backup_dir;
    assert_eq!(dir(""), Path::new("/etc/ivesk/backups"));
    let store = "store.url = 'sqlite:///var/lib/ivesk/x.db'";
    assert_eq!(dir(store), Path::new("/var/lib/ivesk/backups"));
    assert_eq!(dir("store.backup_dir = 'b'"), Path::new("/etc/ivesk/b"));
    let drop_folder = local("store.backup_dir = 'outbox'\n[upload]\nwatch = './outbox/'");
    assert_eq!(names(&drop_folder), ["store.backup_dir"]);
    let beside = Config::parse(&drop_folder, Path::new(""), &variables(&[]));
    let error = beside.expect_err("the same folder, relative to the working folder");
    assert_eq!(error.problems[0].setting, "store.backup_dir");
}

#[test]
fn a_proxy_is_an_address_and_its_password_is_never_shown() {
    let text = |lines: &str| local(&format!("[egress]\n{lines}"));
    let config = valid(&text(
        "proxy = 'http://user:planted@proxy.example.lt:3128'\ndirect_hosts = ['books.example.lt']",
    ));
    assert!(config.egress.proxy.is_some() && config.api.proxy.is_some());
    assert!(config.sns.settings().proxy.is_some());
    assert!(!format!("{config:?}").contains("planted"));
    for bad in [
        "proxy.example.lt:3128",
        "socks5://x:1",
        "http://x:1/path",
        "http://x:1?a",
        "",
    ] {
        let text = text(&format!("proxy = '{bad}'"));
        assert_eq!(names(&text), ["egress.proxy"], "{bad}");
    }
    let message = refused(&text("proxy = 'ftp://user:planted@x:1'"));
    assert!(!message.contains("planted"), "{message}");
    let unused = text("direct_hosts = ['books.example.lt']");
    assert_eq!(names(&unused), ["egress.direct_hosts"]);
}

#[test]
fn a_store_url_may_be_a_file() {
    for bad in [
        "sqlite://",
        "sqlite://:memory:",
        "sqlite://x.db?mode=ro",
        "sqlite://folder/",
        "x.db",
        "mysql://x",
    ] {
        let text = local(&format!("[store]\nurl = '{bad}'"));
        assert_eq!(names(&text), ["store.url"], "{bad}");
    }
}

#[test]
fn the_list_of_settings_shows_origins_and_no_secret() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("settings.toml");
    std::fs::write(&file, public("")).expect("written");
    let environment = variables(&[
        ("IVESK_WEBHOOK_API_KEY", "dp_planted"),
        ("IVESK_WEBHOOK_LOG_FORMAT", "json"),
    ]);
    let (config, settings) = Config::explain(&file, &environment).expect("valid settings");
    let find = |name: &str| {
        let found = settings.iter().find(|setting| setting.name == name);
        found.unwrap_or_else(|| panic!("{name} is not listed"))
    };
    assert_eq!(find("public.url").origin, Origin::File { line: 1 });
    assert_eq!(find("pull.lookback").origin, Origin::Default);
    assert_eq!(find("pull.lookback").value, "24h");
    assert_eq!(
        find("log.format").origin,
        Origin::Variable("IVESK_WEBHOOK_LOG_FORMAT".to_owned())
    );
    assert_eq!(find("accounts.default.api_key_file").value, "[set]");

    let shown = serde_json::to_string(&settings).expect("JSON");
    let debug = format!("{config:?}");
    for secret in ["dp_planted", TOKEN_A, TOKEN_B] {
        assert!(!shown.contains(secret), "{shown}");
        assert!(!debug.contains(secret), "{debug}");
    }
}

#[test]
fn a_missing_file_says_how_to_write_one() {
    let message = Config::load(Path::new("/nowhere/x.toml"), &BTreeMap::new())
        .expect_err("no file")
        .to_string();
    assert!(message.contains("/nowhere/x.toml"), "{message}");
    assert!(
        message.contains("init --config /nowhere/x.toml"),
        "{message}"
    );
}

#[test]
fn a_webhook_target_ends_in_the_first_token() {
    let text = public("").replace(
        &format!("'{TOKEN_A}'"),
        &format!("'{TOKEN_A}', 'cccccccccccccccccccccccccccccccccccc'"),
    );
    let config = valid(&text.replace("example.lt", "example.lt/in/"));
    let target = config.webhook_target(&account("default"), Event::OnExported);
    assert_eq!(
        target.expect("a target").expose_secret(),
        format!("https://hooks.example.lt/in/webhooks/default/on_exported/{TOKEN_A}")
    );
    assert!(
        config
            .webhook_target(&account("other"), Event::OnExported)
            .is_none()
    );
}

#[test]
fn settings_for_one_machine_need_no_token() {
    let config = Config::for_loopback(Loopback {
        listen: SocketAddr::from(([127, 0, 0, 1], 18080)),
        store: PathBuf::from("x.db"),
        api_url: "http://127.0.0.1:4570/api/pub".parse().expect("a URL"),
        api_key: SecretString::from("key"),
        local_origins: vec!["http://127.0.0.1:4566".to_owned()],
        companies: vec![Company::parse("1").expect("a code")],
    });
    let target = config.webhook_target(&account("default"), Event::OnDigitized);
    assert_eq!(
        target.expect("a target").expose_secret(),
        "http://127.0.0.1:18080/webhooks/default/on_digitized"
    );
}

/// Returns the names of all settings but those of destinations.
fn setting_names() -> Vec<String> {
    static NAMES: std::sync::LazyLock<Vec<String>> = std::sync::LazyLock::new(|| {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("x.toml");
        std::fs::write(&file, local("[accounts.default]")).expect("written");
        let (_, settings) = Config::explain(&file, &BTreeMap::new()).expect("valid");
        settings.into_iter().map(|setting| setting.name).collect()
    });
    NAMES.clone()
}

/// Generates values as TOML writes them, many of them near to what a setting expects.
fn toml_value() -> impl Strategy<Value = String> {
    let text = prop_oneof![
        "\\PC{0,20}",
        "[0-9]{1,6}(ms|s|m|h|d|y|)",
        "(https?|postgres|sqlite|ftp)://[a-z@:/.?#\\[\\]0-9]{0,20}",
        "[0-9.:\\[\\]/]{0,20}",
        "/?[a-z{}?=&./%2e]{0,20}",
    ];
    let text = text.prop_map(|text| toml::Value::String(text).to_string());
    let leaf = prop_oneof![
        text,
        any::<i64>().prop_map(|number| number.to_string()),
        any::<bool>().prop_map(|switch| switch.to_string()),
        Just("1.5".to_owned()),
        Just("2026-11-28".to_owned()),
    ];
    leaf.prop_recursive(2, 6, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3)
                .prop_map(|items| format!("[{}]", items.join(", "))),
            inner.prop_map(|value| format!("{{ account = {value} }}")),
        ]
    })
}

proptest! {
    #[test]
    fn no_text_causes_a_panic(text in "\\PC{0,200}", value in "\\PC{0,60}") {
        let _ = parse(&text);
        let _ = parse_with(&local(""), &[
            ("IVESK_WEBHOOK_PUBLIC_URL", &value),
            ("IVESK_WEBHOOK_SNS_TOPICS", &value),
            ("IVESK_WEBHOOK_API_EXPORTED_PATH", &value),
            ("IVESK_WEBHOOK_STORE_URL", &value),
            ("IVESK_WEBHOOK_PULL_LOOKBACK", &value),
        ]);
    }

    /// Any value of any setting is valid, or the mistake names the setting.
    #[test]
    fn any_value_of_any_setting_is_valid_or_a_mistake_that_names_it(
        place in any::<prop::sample::Index>(),
        value in toml_value(),
    ) {
        let names = setting_names();
        let name = place.get(&names);
        let text = format!("{name} = {value}\n");
        let text = match name.as_str() {
            "public.url" => text,
            _ => format!("public.url = 'http://127.0.0.1:8080'\n{text}"),
        };
        if let Err(error) = parse(&text) {
            // The problem is of its section, or names it: `pull.lease` depends on `api.timeout`.
            let section = name.split('.').next().expect("a section");
            let is_near = |problem: &ivesk_webhook::config::Problem| {
                problem.setting.starts_with(section)
                    || problem.message.contains(name.as_str())
                    || name == "public.url"
            };
            prop_assert!(error.problems.iter().all(is_near), "{}: {}", text, error);
        }
    }

    #[test]
    fn a_printed_duration_round_trips(millis in 1_u64..100_000_000_000) {
        let text = local(&format!("[pull]\nlookback = '{millis}ms'"));
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("x.toml");
        std::fs::write(&file, text).expect("written");
        let (config, settings) = Config::explain(&file, &BTreeMap::new()).expect("valid");
        let shown = settings.iter().find(|s| s.name == "pull.lookback").expect("listed");
        let again = valid(&local(&format!("[pull]\nlookback = {}", shown.value)));
        prop_assert_eq!(again.pull.lookback, config.pull.lookback);
    }
}

fn postgres(url: &str, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
    parse_with(&local(&format!("store.url = '{url}'")), environment)
}

#[test]
fn a_store_password_has_one_source_and_is_never_shown() {
    let apart = [("IVESK_WEBHOOK_STORE_PASSWORD", "planted-s3cret")];
    let config = postgres("postgres://ivesk@db.example.lt/ivesk", &apart).expect("usable");
    let shown = format!("{config:?}");
    assert!(!shown.contains("planted-s3cret"), "{shown}");
    assert!(matches!(&config.store.url, StoreUrl::Postgres(address) if address.has_password()));
    let inside = "postgres://ivesk:planted-s3cret@db.example.lt/ivesk";
    let config = postgres(inside, &[]).expect("usable");
    let shown = format!("{config:?} {}", config.store.url);
    assert!(!shown.contains("planted-s3cret"), "{shown}");
    let error = postgres(inside, &apart).expect_err("two places");
    let shown = format!("{error} {error:?}");
    assert!(shown.contains("keep one of the two"), "{shown}");
    assert!(!shown.contains("planted-s3cret"), "{shown}");
    let error = postgres("sqlite://x.db", &apart).expect_err("a file has none");
    assert!(error.to_string().contains("password"), "{error}");
}

#[test]
fn files_are_fetched_from_the_api_and_s3_by_default() {
    let config = valid(&local("[api]\nurl = 'https://stagingapp.ivesk.lt/api/pub'"));
    assert_eq!(
        config.api.file_hosts,
        ["stagingapp.ivesk.lt", "amazonaws.com"]
    );
    for good in ["files.example.lt", "127.0.0.1", "[::1]", "localhost"] {
        let text = local(&format!("[api]\nfile_hosts = ['{good}']"));
        assert_eq!(valid(&text).api.file_hosts, [good]);
    }
    for bad in [
        "",
        "lt",
        "*.example.lt",
        ".example.lt",
        "https://example.lt",
        "Example.lt",
    ] {
        let text = local(&format!("[api]\nfile_hosts = ['{bad}']"));
        assert_eq!(names(&text), ["api.file_hosts"], "{bad}");
    }
}

#[test]
fn alarms_by_email_need_a_server_and_addresses() {
    let whole =
        "server = 'smtp.example.lt'\nfrom = 'Ivesk <ivesk@example.lt>'\nto = ['ops@example.lt']\n";
    let email = |lines: &str| public(&format!("[alarms.email]\n{lines}"));
    let with = |more: &str| email(&format!("{whole}{more}"));
    let target = |text: &str| match valid(text).alarms.target {
        Some(AlarmTarget::Email(email)) => email,
        other => panic!("{other:?}"),
    };
    for (more, tls, port) in [
        ("", EmailTls::StartTls, 587),
        ("tls = 'starttls'", EmailTls::StartTls, 587),
        ("tls = 'tls'", EmailTls::Implicit, 465),
    ] {
        let email = target(&with(more));
        assert_eq!((email.tls, email.port), (tls, port));
        assert_eq!(email.host, "smtp.example.lt");
        assert_eq!(email.from.email.to_string(), "ivesk@example.lt");
        assert!(email.login.is_none());
    }
    for host in ["localhost", "127.0.0.1", "[::1]"] {
        let text = whole.replace("smtp.example.lt", &format!("{host}:2525"));
        let email = target(&email(&format!("{text}tls = 'none'")));
        assert_eq!((email.tls, email.port), (EmailTls::None, 2525));
    }
    for (lines, setting) in [
        (with("tls = 'none'"), "alarms.email.tls"),
        (with("tls = 'ssl'"), "alarms.email.tls"),
        (with("username = 'ivesk'"), "alarms.email.username"),
        (email("from = 'ivesk@example.lt'"), "alarms.email.from"),
        (
            email("server = 'smtp.example.lt'\nto = ['ops@example.lt']"),
            "alarms.email.from",
        ),
        (
            email("server = 'smtp.example.lt'\nfrom = 'ivesk@example.lt'"),
            "alarms.email.to",
        ),
        (
            email(&whole.replace("smtp.example.lt", "smtp://smtp.example.lt")),
            "alarms.email.server",
        ),
        (
            email(&whole.replace("ops@example.lt", "ops")),
            "alarms.email.to",
        ),
        (
            public(&format!(
                "[alarms]\nurl = 'https://chat.example.lt/x'\n[alarms.email]\n{whole}"
            )),
            "alarms.email.server",
        ),
    ] {
        assert_eq!(names(&lines), [setting], "{lines}");
    }
}

#[test]
fn automatic_backups_are_of_files_and_not_too_frequent() {
    let store = |lines: &str| public(&format!("[store]\n{lines}"));
    let settings = valid(&store("backup_every = '24h'\nbackup_keep = 3")).store;
    assert_eq!(settings.backup_every, Some(Duration::from_secs(86_400)));
    assert_eq!(settings.backup_keep, 3);
    assert_eq!(valid(&store("")).store.backup_every, None);
    assert_eq!(
        names(&store("backup_every = '59s'")),
        ["store.backup_every"]
    );
    assert_eq!(names(&store("backup_keep = 0")), ["store.backup_keep"]);
    let postgres = store("url = 'postgres://ivesk@localhost/ivesk'\nbackup_every = '24h'");
    assert!(refused(&postgres).contains("pg_dump"));
}

#[test]
fn alarms_go_to_one_address_or_one_program() {
    let command = valid(&public("[alarms]\ncommand = ['bin/notify', '-x']"));
    let Some(AlarmTarget::Command(command)) = command.alarms.target else {
        panic!("{:?}", command.alarms);
    };
    assert_eq!(command.program, PathBuf::from("/etc/ivesk/bin/notify"));
    assert_eq!(command.arguments, ["-x"]);

    let url = "https://chat.example.lt/hooks/planted";
    let with_url = valid(&public(&format!("[alarms]\nurl = '{url}'")));
    assert!(
        matches!(&with_url.alarms.target, Some(AlarmTarget::Url(it)) if it.expose_secret() == url)
    );
    assert!(!format!("{with_url:?}").contains("planted"));

    let both = public(&format!(
        "[alarms]\nurl = '{url}'\ncommand = ['/bin/notify']"
    ));
    assert_eq!(names(&both), ["alarms.command"]);
    for (wrong, why) in [
        ("url = 'http://chat.example.lt/planted'", "https://"),
        ("url = 'planted'", "is not a URL"),
        ("command = ['notify']", "whole path"),
        ("command = []", "is empty"),
    ] {
        let message = refused(&public(&format!("[alarms]\n{wrong}")));
        assert!(message.contains(why), "{wrong}: {message}");
        assert!(!message.contains("planted"), "{message}");
    }
}

#[test]
fn every_wrong_entry_of_a_list_is_reported() {
    let text =
        local("upload.parameters = ['foo=bar', 'checkduplicates=maybe', 'tags=a', 'foo=baz']");
    assert_eq!(names(&text), ["upload.parameters"; 2]);
    let message = refused(&text);
    assert!(message.starts_with("2 invalid settings:"), "{message}");
    assert!(
        message.contains("sets `foo`; the parameters are"),
        "{message}"
    );
    assert!(
        message.contains("sets checkduplicates to neither true nor false"),
        "{message}"
    );
}
