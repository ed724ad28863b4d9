//! From text and variables to checked settings, section by section.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use url::Url;

use super::given::{Given, Raw};
use super::layers::{Layers, variable_of};
use super::problem::{ConfigError, Problem, Setting};
use super::{
    AccountConfig, AdminConfig, AlarmCommand, AlarmTarget, AlarmsConfig, ApiConfig, Config,
    ConfirmMode, DEFAULT_FILE, Environment, ImportErrorLanguage, ImportErrorsConfig, LogConfig,
    LogFormat, PublicConfig, PullConfig, RetentionConfig, SnsConfig, StoreConfig, StoreUrl,
    TopicRule, UploadConfig, accounts, check, destinations, vendor_topic,
};
use crate::domain::Account;
use crate::ivesk::upload::{CorrelationKey, UploadOptions};
use crate::uploads::parameters;

/// SNS goes on delivering for up to an hour (AWS caps the whole retry policy at
/// 3,600 s), and a retry carries the time of its first publication.
const MIN_MAX_AGE: Duration = Duration::from_secs(60 * 60);

impl Config {
    /// Reads the settings file, then the `IVESK_WEBHOOK_…` variables of
    /// `environment` over it; what neither sets has its default.
    ///
    /// A missing file is no mistake where it has the name that is looked for by
    /// itself and the variables name `public.url`: a container may need no file.
    ///
    /// # Errors
    ///
    /// Every mistake that was found, not only the first.
    pub fn load(path: &Path, environment: &BTreeMap<String, String>) -> Result<Self, ConfigError> {
        Self::explain(path, environment).map(|(config, _)| config)
    }

    /// The same as [`Config::load`], with the list of all settings in force and
    /// where each came from. Secrets in it read `[set]`.
    ///
    /// # Errors
    ///
    /// As [`Config::load`].
    pub fn explain(
        path: &Path,
        environment: &BTreeMap<String, String>,
    ) -> Result<(Self, Vec<Setting>), ConfigError> {
        let text = read_file(path, environment)?;
        let base_dir = path.parent().unwrap_or(Path::new(""));
        let source = path.display().to_string();
        read(Layers::new(source, &text, base_dir, environment))
    }

    /// Reads settings from text; `base_dir` is where relative paths in it start.
    ///
    /// # Errors
    ///
    /// As [`Config::load`].
    pub fn parse(
        toml_text: &str,
        base_dir: &Path,
        environment: &BTreeMap<String, String>,
    ) -> Result<Self, ConfigError> {
        let source = DEFAULT_FILE.to_owned();
        read(Layers::new(source, toml_text, base_dir, environment)).map(|(config, _)| config)
    }
}

fn read_file(path: &Path, environment: &BTreeMap<String, String>) -> Result<String, ConfigError> {
    let message = match std::fs::read_to_string(path) {
        Ok(text) => return Ok(text),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            if path == Path::new(DEFAULT_FILE)
                && environment.contains_key(&variable_of("public.url"))
            {
                return Ok(String::new());
            }
            "there is no such file; write one with `ivesk-webhook init --public-url URL`, name \
             another with --config, or set IVESK_WEBHOOK_PUBLIC_URL to do without one"
                .to_owned()
        }
        Err(error) if error.kind() == ErrorKind::InvalidData => {
            "the file is not UTF-8 text; save it as UTF-8".to_owned()
        }
        Err(error) if error.kind() == ErrorKind::IsADirectory => {
            "this is a folder; name the file in it with --config".to_owned()
        }
        Err(error) => format!(
            "the file can't be read: {error}; give it to the user that runs this, or run it as the \
             user that the file belongs to"
        ),
    };
    Err(ConfigError {
        problems: vec![Problem {
            setting: String::new(),
            place: path.display().to_string(),
            message,
        }],
    })
}

fn read(mut layers: Layers<'_>) -> Result<(Config, Vec<Setting>), ConfigError> {
    if !layers.readable() {
        let settings = layers.finish();
        return Err(settings.err().unwrap_or(ConfigError {
            problems: Vec::new(),
        }));
    }
    let environment = Environment::of(layers.environment());
    let public = public(&mut layers);
    let admin = admin(&mut layers, public.as_ref());
    let store = store(&mut layers);
    let sns = sns(&mut layers);
    let api = api(&mut layers);
    let pull = pull(&mut layers, &api);
    let retention = retention(&mut layers);
    let alarms = alarms(&mut layers);
    let log = log(&mut layers);
    let import_errors = import_errors(&mut layers);
    let accounts = accounts::read(&mut layers, public.as_ref());
    let upload = upload(&mut layers, &accounts);
    let destinations = destinations::read(&mut layers, &accounts);
    let settings = layers.finish()?;
    let Some(public) = public else {
        // `public` gives none only after noting why, which `finish` has given above.
        return Err(ConfigError {
            problems: Vec::new(),
        });
    };
    let config = Config {
        public,
        admin,
        store,
        sns,
        api,
        pull,
        upload,
        destinations,
        import_errors,
        retention,
        alarms,
        log,
        accounts,
        environment,
    };
    Ok((config, settings))
}

/// `[public]`; none where its URL, which has no default, is missing or wrong.
fn public(layers: &mut Layers<'_>) -> Option<PublicConfig> {
    let url = layers.text(
        "public.url",
        None,
        |text| check::public_url(text).map(Some),
        |url| {
            url.as_ref()
                .map_or(Value::Null, |url: &Url| url.as_str().into())
        },
    );
    if url.is_none() && !layers.has_failed("public.url") {
        layers.contradiction(
            "public.url",
            "is not set; write the https address under which SNS reaches this service, or set \
             IVESK_WEBHOOK_PUBLIC_URL",
        );
    }
    // The stand-in lets the other settings of the section be judged all the same.
    let stand_in = || ApiConfig::default().url;
    let default = PublicConfig::at(url.clone().unwrap_or_else(stand_in));
    let read = PublicConfig {
        listen: layers.text("public.listen", default.listen, check::listen, show),
        max_connections: layers.number(
            "public.max_connections",
            default.max_connections,
            1..=1_000_000,
        ),
        header_timeout: layers.duration("public.header_timeout", default.header_timeout),
        body_timeout: layers.duration("public.body_timeout", default.body_timeout),
        drain_timeout: layers.duration("public.drain_timeout", default.drain_timeout),
        trusted_proxies: layers.list(
            "public.trusted_proxies",
            default.trusted_proxies,
            check::network,
            |network| check::show_network(*network).into(),
        ),
        url: default.url,
    };
    url.map(|_| read)
}

/// `[admin]`
fn admin(layers: &mut Layers<'_>, public: Option<&PublicConfig>) -> AdminConfig {
    let default = AdminConfig::default();
    let listen = layers.text("admin.listen", default.listen, check::listen, show);
    let token = layers.secret(
        "admin.token_file",
        "IVESK_WEBHOOK_ADMIN_TOKEN",
        check::admin_token,
    );
    if !listen.ip().is_loopback() && token.is_none() && !layers.has_failed("admin.token_file") {
        layers.contradiction(
            "admin.listen",
            "is not a loopback address, and no token is set; listen on 127.0.0.1, or set \
             `admin.token_file` or IVESK_WEBHOOK_ADMIN_TOKEN",
        );
    }
    if public.is_some_and(|public| check::collide(public.listen, listen)) {
        layers.contradiction(
            "admin.listen",
            "is taken by `public.listen`; give the two different ports",
        );
    }
    AdminConfig {
        listen,
        token,
        requests_per_second: layers.number(
            "admin.requests_per_second",
            default.requests_per_second,
            1..=1_000_000,
        ),
    }
}

/// `[store]`
fn store(layers: &mut Layers<'_>) -> StoreConfig {
    let default = StoreConfig::default();
    let beside_settings = match default.url {
        StoreUrl::Sqlite(file) => StoreUrl::Sqlite(layers.path(&file.to_string_lossy())),
        shared => shared,
    };
    let url = layers.read(
        "store.url",
        beside_settings,
        |given, layers| {
            check::store_url(given.text()?).map(|url| match url {
                StoreUrl::Sqlite(path) => StoreUrl::Sqlite(layers.path(&path.to_string_lossy())),
                shared => shared,
            })
        },
        show,
    );
    let password = layers.secret(
        "store.password_file",
        "IVESK_WEBHOOK_STORE_PASSWORD",
        |text| Ok(text.into()),
    );
    let url = match (url, password) {
        (StoreUrl::Postgres(address), Some(_)) if address.has_password() => {
            layers.contradiction(
                "store.password_file",
                "is set, and `store.url` holds a password too; keep one of the two",
            );
            StoreUrl::Postgres(address)
        }
        (StoreUrl::Postgres(address), Some(password)) => {
            StoreUrl::Postgres(address.with_password(&password))
        }
        (url, None) => url,
        (url @ StoreUrl::Sqlite(_), Some(_)) => {
            if !layers.has_failed("store.url") {
                layers.contradiction(
                    "store.password_file",
                    "is set, and `store.url` names a file, which has no password; remove it",
                );
            }
            url
        }
    };
    StoreConfig {
        url,
        min_free_bytes: layers.number("store.min_free_bytes", default.min_free_bytes, 0..=1 << 50),
        queue: layers.number("store.queue", default.queue, 1..=1_000_000),
    }
}

/// `[sns]`
fn sns(layers: &mut Layers<'_>) -> SnsConfig {
    let default = SnsConfig::default();
    let read = SnsConfig {
        topics: layers.read("sns.topics", default.topics, topics, |topics| {
            topics.iter().map(show_topic).collect::<Vec<_>>().into()
        }),
        certificate_names: layers.read(
            "sns.certificate_names",
            default.certificate_names,
            certificate_names,
            |names| json!(names),
        ),
        confirm: layers.text(
            "sns.confirm",
            default.confirm,
            check::confirm,
            |mode| match mode {
                ConfirmMode::Auto => "auto".into(),
                ConfirmMode::Ask => "ask".into(),
            },
        ),
        max_age: layers.duration("sns.max_age", default.max_age),
        local_origins: layers.list("sns.local_origins", Vec::new(), check::origin, |origin| {
            origin.as_str().into()
        }),
    };
    if read.max_age < MIN_MAX_AGE && !layers.has_failed("sns.max_age") {
        layers.contradiction(
            "sns.max_age",
            "is shorter than the hour for which SNS may go on delivering a message, so genuine \
             retries would be refused; write \"1h\" or more",
        );
    }
    read
}

fn show_topic(rule: &TopicRule) -> Value {
    format!("{}:{}:{}", rule.region, rule.account, rule.name_prefix).into()
}

fn topics(given: &Given, _: &Layers<'_>) -> Result<Vec<TopicRule>, String> {
    const HOW: &str = "write [[sns.topics]] with account, region and name_prefix below it";
    let rules: Vec<TopicRule> = match &given.raw {
        Raw::List(items) => items
            .iter()
            .map(|item| match item {
                Raw::Table(entries) => topic_table(entries),
                _ => Err(format!("holds something else than tables; {HOW}")),
            })
            .collect::<Result<_, _>>()?,
        _ => given
            .list()
            .map_err(|_| format!("is not a list of tables; {HOW}"))?
            .iter()
            .map(|text| check::topic_text(text))
            .collect::<Result<_, _>>()?,
    };
    if rules.is_empty() {
        return Err(
            "is empty, so that every message would be refused; remove it for the vendor's topics, \
             or name some"
                .to_owned(),
        );
    }
    Ok(rules)
}

fn topic_table(entries: &BTreeMap<String, Raw>) -> Result<TopicRule, String> {
    let default = vendor_topic();
    let mut parts = [default.account, default.region, default.name_prefix];
    for (key, value) in entries {
        let at = match key.as_str() {
            "account" => 0,
            "region" => 1,
            "name_prefix" => 2,
            other => {
                return Err(format!(
                    "has no `{}`; a topic has account, region and name_prefix",
                    other.chars().take(60).collect::<String>()
                ));
            }
        };
        match value {
            Raw::Text(text) => parts[at].clone_from(text),
            _ => {
                return Err(format!(
                    "`{key}` is not text; write it between double quotes"
                ));
            }
        }
    }
    let [account, region, name_prefix] = parts;
    check::topic(&account, &region, &name_prefix)
}

fn certificate_names(given: &Given, _: &Layers<'_>) -> Result<BTreeMap<String, String>, String> {
    const HOW: &str = "write region = \"name\", such as eu-west-1 = \"sns.amazonaws.com\"";
    match &given.raw {
        Raw::Table(entries) => entries
            .iter()
            .map(|(region, name)| match name {
                Raw::Text(name) => check::certificate_name(region, name),
                _ => Err(format!("holds a name that is not text; {HOW}")),
            })
            .collect(),
        _ => given
            .list()
            .map_err(|_| format!("is not a table; {HOW}"))?
            .iter()
            .map(|entry| match entry.split_once('=') {
                Some((region, name)) => check::certificate_name(region.trim(), name.trim()),
                None => Err(format!("holds an entry without =; {HOW}")),
            })
            .collect(),
    }
}

/// `[api]`
fn api(layers: &mut Layers<'_>) -> ApiConfig {
    let url = layers.text("api.url", ApiConfig::default().url, check::api_url, |url| {
        url.as_str().into()
    });
    let default = ApiConfig::at(url);
    ApiConfig {
        url: default.url,
        file_hosts: layers.list(
            "api.file_hosts",
            default.file_hosts,
            check::file_host,
            |host| host.as_str().into(),
        ),
        exported_path: layers.text(
            "api.exported_path",
            None,
            |text| check::exported_path(text).map(Some),
            |path| {
                path.as_ref()
                    .map_or(Value::Null, |path| path.template.as_str().into())
            },
        ),
        subscribe_path: layers.text(
            "api.subscribe_path",
            None,
            |text| check::api_path(text).map(Some),
            |path| json!(path),
        ),
        import_error_path: layers.text(
            "api.import_error_path",
            None,
            |text| check::api_path(text).map(Some),
            |path| json!(path),
        ),
        import_error_type: layers.text(
            "api.import_error_type",
            default.import_error_type,
            check::media_type,
            |kind| kind.as_str().into(),
        ),
        timeout: layers.duration("api.timeout", default.timeout),
        max_page_bytes: layers.number(
            "api.max_page_bytes",
            default.max_page_bytes,
            64 * 1024..=1 << 30,
        ),
    }
}

/// `[pull]`
fn pull(layers: &mut Layers<'_>, api: &ApiConfig) -> PullConfig {
    let default = PullConfig::default();
    let read = PullConfig {
        lookback: layers.duration("pull.lookback", default.lookback),
        follow_ups: layers.read("pull.follow_ups", default.follow_ups, follow_ups, |both| {
            both.map(check::show_duration).to_vec().into()
        }),
        reconcile_every: layers.duration("pull.reconcile_every", default.reconcile_every),
        requests_per_account: layers.number(
            "pull.requests_per_account",
            default.requests_per_account,
            1..=16,
        ),
        lease: layers.duration("pull.lease", default.lease),
    };
    let judged = !layers.has_failed("pull.lease") && !layers.has_failed("api.timeout");
    if judged && read.lease <= api.timeout {
        layers.contradiction(
            "pull.lease",
            format!(
                "is not longer than `api.timeout` ({}), so that a page could come after its lease; \
                 write a longer one",
                check::show_duration(api.timeout)
            ),
        );
    }
    read
}

fn follow_ups(given: &Given, _: &Layers<'_>) -> Result<[Duration; 2], String> {
    let read: Result<Vec<Duration>, String> = given
        .list()?
        .iter()
        .map(|item| check::duration(item))
        .collect();
    match read?.as_slice() {
        [first, second] if first <= second => Ok([*first, *second]),
        [_, _] => Err("names the later look first; write the shorter time span first".to_owned()),
        _ => Err("does not hold two time spans; write [\"30s\", \"5m\"]".to_owned()),
    }
}

/// `[upload]`
fn upload(layers: &mut Layers<'_>, accounts: &BTreeMap<Account, AccountConfig>) -> UploadConfig {
    let default = UploadConfig::default();
    let read = UploadConfig {
        watch: layers.read(
            "upload.watch",
            default.watch,
            |given, layers| match given.text()?.trim() {
                "" => Err("is empty; write a folder, or remove it".to_owned()),
                folder => Ok(Some(layers.path(folder))),
            },
            |folder| json!(folder),
        ),
        account: layers.text(
            "upload.account",
            default.account,
            |text| {
                let account = Account::parse(text).map_err(|error| error.to_string())?;
                if accounts.contains_key(&account) {
                    Ok(Some(account))
                } else {
                    Err(format!(
                        "names `{account}`, and there is no [accounts.{account}]"
                    ))
                }
            },
            |account| json!(account),
        ),
        correlation_key: layers.text(
            "upload.correlation_key",
            default.correlation_key,
            |text| {
                CorrelationKey::parse(text).ok_or_else(|| {
                    "is not \"sourcedata\", \"userdata\" or \"both\"; write one of these".to_owned()
                })
            },
            |key| key.as_str().into(),
        ),
        parameters: layers.list(
            "upload.parameters",
            default.parameters,
            |text| {
                parameters::add(&mut UploadOptions::default(), text)?;
                Ok(text.to_owned())
            },
            |text| text.as_str().into(),
        ),
    };
    let undecided = read.account.is_none() && accounts.len() > 1;
    if read.watch.is_some() && undecided && !layers.has_failed("upload.account") {
        layers.contradiction(
            "upload.account",
            "is not set, and there are several accounts; name the one whose key the files of \
             `upload.watch` go with",
        );
    }
    read
}

/// `[import_errors]`
fn import_errors(layers: &mut Layers<'_>) -> ImportErrorsConfig {
    let default = ImportErrorsConfig::default();
    ImportErrorsConfig {
        language: layers.text(
            "import_errors.language",
            default.language,
            check::report_language,
            |language| match language {
                ImportErrorLanguage::Lithuanian => "lt".into(),
                ImportErrorLanguage::English => "en".into(),
            },
        ),
        template: layers.text(
            "import_errors.template",
            default.template,
            |text| check::report_template(text).map(Some),
            |template| json!(template),
        ),
    }
}

/// `[retention]`
fn retention(layers: &mut Layers<'_>) -> RetentionConfig {
    let default = RetentionConfig::default();
    RetentionConfig {
        notifications: layers.duration("retention.notifications", default.notifications),
        documents: layers.duration("retention.documents", default.documents),
        quarantine: layers.duration("retention.quarantine", default.quarantine),
        quarantine_bytes: layers.number(
            "retention.quarantine_bytes",
            default.quarantine_bytes,
            0..=1 << 40,
        ),
    }
}

/// `[alarms]`
fn alarms(layers: &mut Layers<'_>) -> AlarmsConfig {
    let default = AlarmsConfig::default();
    let url = layers.text(
        "alarms.url",
        None,
        |text| check::alarm_url(text).map(Some),
        |url| url.as_ref().map_or(Value::Null, |_: &Url| "[set]".into()),
    );
    let command = layers.read(
        "alarms.command",
        None,
        |given, layers| {
            let words = given.list()?;
            let (program, arguments) = check::command(&words)?;
            Ok(Some(AlarmCommand {
                program: layers.path(program),
                arguments: arguments.to_vec(),
            }))
        },
        |command| {
            command
                .as_ref()
                .map_or(Value::Null, |command: &AlarmCommand| json!(command.program))
        },
    );
    if url.is_some() && command.is_some() {
        layers.contradiction(
            "alarms.command",
            "is set, and `alarms.url` too; keep one of the two: the command can send to several",
        );
    }
    let url = url.map(|url| AlarmTarget::Url(String::from(url).into()));
    AlarmsConfig {
        target: url.or(command.map(AlarmTarget::Command)),
        silence_after: layers.duration("alarms.silence_after", default.silence_after),
        behind_after: layers.duration("alarms.behind_after", default.behind_after),
        destination_after: layers.duration("alarms.destination_after", default.destination_after),
        refusals: layers.number("alarms.refusals", default.refusals, 1..=1_000_000),
        certificate_left: layers.duration("alarms.certificate_left", default.certificate_left),
        free_bytes: layers.number("alarms.free_bytes", default.free_bytes, 0..=1 << 50),
    }
}

/// `[log]`
fn log(layers: &mut Layers<'_>) -> LogConfig {
    let default = LogConfig::default();
    LogConfig {
        format: layers.text(
            "log.format",
            default.format,
            check::log_format,
            |format| match format {
                LogFormat::Text => "text".into(),
                LogFormat::Json => "json".into(),
            },
        ),
        level: layers.text("log.level", default.level, check::log_level, |level| {
            level.as_str().into()
        }),
        client_addresses: layers.read(
            "log.client_addresses",
            default.client_addresses,
            |given, _| given.switch(),
            |switch| (*switch).into(),
        ),
        otlp_url: layers.text(
            "log.otlp_url",
            default.otlp_url,
            |text| check::otlp_url(text).map(Some),
            |url| {
                url.as_ref()
                    .map_or(Value::Null, |url: &Url| url.as_str().into())
            },
        ),
    }
}

fn show<T: ToString>(value: &T) -> Value {
    value.to_string().into()
}
