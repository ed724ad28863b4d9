//! Reads the settings file and the variables into checked settings, section by section.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;

use super::environment::{Environment, variable_of};
use super::layers::Layers;
use super::problem::{ConfigError, HIDDEN, Origin, Problem, Setting};
use super::{
    Config, DEFAULT_FILE, SYSTEM_FILE, StoreUrl, accounts, admin, alarms, api, check, destinations,
    egress, import_errors, log, pages, public, pull, retention, sns, store, upload,
};

impl Config {
    /// Reads the settings file, then the `IVESK_WEBHOOK_…` variables of `environment`, which take
    /// precedence; a setting in neither has its default.
    ///
    /// [`DEFAULT_FILE`] may be missing if the variables set `public.url`: a container may need no
    /// file.
    ///
    /// # Errors
    ///
    /// Every problem that was found, not only the first.
    pub fn load(path: &Path, environment: &BTreeMap<String, String>) -> Result<Self, ConfigError> {
        Self::explain(path, environment).map(|(config, _)| config)
    }

    /// Returns the same as [`Config::load`], and the list of all effective settings with their
    /// origins. Secrets in it read `[set]`.
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
        let (mut config, settings) = read(Layers::new(source, &text, base_dir, environment))?;
        let secrets = secrets_in_file(&config, &settings);
        let secrets = secrets.into_iter().map(|holds| (path.to_owned(), holds));
        config.secret_files.extend(secrets);
        Ok((config, settings))
    }

    /// Reads settings from text; relative paths in it start from `base_dir`.
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

/// Returns what the settings file holds that nobody else should read: each secret is shown as `[set]`,
/// unless the file only names where it is; the URL of the store is shown without its password.
fn secrets_in_file(config: &Config, settings: &[Setting]) -> Vec<String> {
    let is_set = |setting: &Setting| setting.value.to_string().contains(HIDDEN);
    let has_password = matches!(&config.store.url, StoreUrl::Postgres(address) if address.has_password())
        && !settings
            .iter()
            .any(|setting| setting.name == "store.password_file" && is_set(setting));
    let is_secret = |setting: &&Setting| {
        matches!(setting.origin, Origin::File { .. })
            && !setting.name.ends_with("_file")
            && (is_set(setting) || (has_password && setting.name == "store.url"))
    };
    let secrets = settings.iter().filter(is_secret);
    let (tokens, others): (Vec<_>, Vec<_>) = secrets.partition(|setting| {
        setting.name.starts_with("accounts.") && setting.name.contains(".tokens.")
    });
    let tokens = tokens
        .first()
        .map(|_| "the secret ends of the webhooks' paths".to_owned());
    let others = others
        .into_iter()
        .map(|setting| format!("the secret in `{}`", setting.name));
    tokens.into_iter().chain(others).collect()
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
            return Err(missing_file(path));
        }
        Err(error) if error.kind() == ErrorKind::InvalidData => {
            "the file is not UTF-8 text; save it as UTF-8".to_owned()
        }
        Err(error) if error.kind() == ErrorKind::IsADirectory => {
            "this is a folder; name the file in it with --config".to_owned()
        }
        Err(error) => format!(
            "failed to read the file: {error}; let the user that runs this read it, or run this as \
             the user that owns it"
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

fn missing_file(path: &Path) -> ConfigError {
    let message = if path == Path::new(DEFAULT_FILE) {
        format!(
            "there is no settings file: neither {DEFAULT_FILE} here nor {SYSTEM_FILE}; write one with \
             `ivesk-webhook init`, or with `ivesk-webhook init --emulator` to practice, or name one with --config"
        )
    } else {
        let shown = path.display();
        format!("{shown}: no such file; `ivesk-webhook init --config {shown}` writes it")
    };
    ConfigError {
        problems: vec![Problem {
            setting: String::new(),
            place: String::new(),
            message,
        }],
    }
}

fn read(mut layers: Layers<'_>) -> Result<(Config, Vec<Setting>), ConfigError> {
    if !layers.is_readable() {
        let settings = layers.finish();
        return Err(settings.err().unwrap_or(ConfigError {
            problems: Vec::new(),
        }));
    }
    let environment = Environment::of(layers.environment());
    let public = public::read(&mut layers);
    let store = store::read(&mut layers);
    let admin = admin::read(&mut layers, public.as_ref(), &store.url);
    let pages = pages::read(&mut layers);
    let egress = egress::read(&mut layers);
    let sns = sns::read(&mut layers, &egress);
    let api = api::read(&mut layers, &egress);
    let pull = pull::read(&mut layers, &api);
    let retention = retention::read(&mut layers);
    let alarms = alarms::read(&mut layers);
    let log = log::read(&mut layers);
    let import_errors = import_errors::read(&mut layers);
    let accounts = accounts::read(&mut layers, public.as_ref());
    let upload = upload::read(&mut layers, &accounts);
    let destinations = destinations::read(&mut layers, &accounts);
    let watched = upload.watch.as_deref().map(check::normalized);
    if watched == Some(check::normalized(&store.backup_dir)) {
        layers.report(
            "store.backup_dir",
            "is the folder of `upload.watch`, whose files are sent to Įvesk.lt; name another folder",
        );
    }
    let secret_files = layers.secret_files();
    let file_digest = layers.file_digest();
    let settings = layers.finish()?;
    let Some(public) = public else {
        // `public` returns none only after it reported why, so `finish` has returned an error.
        return Err(ConfigError {
            problems: Vec::new(),
        });
    };
    let config = Config {
        public,
        admin,
        pages,
        store,
        sns,
        api,
        pull,
        upload,
        destinations,
        import_errors,
        egress,
        retention,
        alarms,
        log,
        accounts,
        environment,
        secret_files,
        file_digest,
    };
    Ok((config, settings))
}
