//! Layers of values: defaults, file and variables, and the problems found in them.
//!
//! The sections read every setting by name, once, through [`Layers`]. A name that was never read
//! does not exist, and the settings that were read are the list that `config show` prints: there is
//! no second list of names to keep in step.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use secrecy::SecretString;
use serde_json::Value;
use toml::de::{DeTable, DeValue};

use super::check;
use super::environment::{VARIABLE_PREFIX, injected, variable_of};
use super::problem::{ConfigError, HIDDEN, Origin, Problem, Setting};
use super::value::{ConfigValue, RawValue};
use crate::hex::hex;

/// Variables that are no settings: the file's own name, and a switch of the tests.
const OTHER_VARIABLES: [&str; 2] = ["IVESK_WEBHOOK_CONFIG", "IVESK_WEBHOOK_AWS_VECTORS"];

/// Variable of systemd: the folder with the copies of secrets that the service may read.
const CREDENTIALS_DIRECTORY: &str = "CREDENTIALS_DIRECTORY";

/// Prefix of the variables of the tests.
const TEST_VARIABLES: &str = "IVESK_WEBHOOK_TEST_";

/// All layers, and the problems found in them so far.
pub(super) struct Layers<'a> {
    source: String,
    base_dir: &'a Path,
    environment: &'a BTreeMap<String, String>,
    file: BTreeMap<String, ConfigValue>,
    tables: BTreeMap<String, usize>,
    /// Names of settings that exist.
    names: BTreeSet<String>,
    /// Variables that exist.
    variables: BTreeSet<String>,
    invalid: BTreeSet<String>,
    settings: Vec<Setting>,
    /// Files that secrets were read from, and what they hold.
    secret_files: Vec<(PathBuf, String)>,
    problems: Vec<Problem>,
}

impl<'a> Layers<'a> {
    /// Parses the file's text. `source` is its name in messages.
    pub(super) fn new(
        source: String,
        toml_text: &str,
        base_dir: &'a Path,
        environment: &'a BTreeMap<String, String>,
    ) -> Self {
        let mut layers = Self {
            source,
            base_dir,
            environment,
            file: BTreeMap::new(),
            tables: BTreeMap::new(),
            names: BTreeSet::new(),
            variables: BTreeSet::new(),
            invalid: BTreeSet::new(),
            settings: Vec::new(),
            secret_files: Vec::new(),
            problems: Vec::new(),
        };
        let text = toml_text.strip_prefix('\u{feff}').unwrap_or(toml_text);
        match DeTable::parse(text) {
            Ok(table) => layers.flatten(text, "", table.get_ref()),
            Err(error) => {
                // The error's own Display shows the line, which may contain a token.
                let line = error.span().map_or(1, |span| line_of(text, span.start));
                layers.problems.push(Problem {
                    setting: String::new(),
                    place: format!("{}, line {line}", layers.source),
                    message: format!("invalid TOML: {}", error.message()),
                });
            }
        }
        layers
    }

    fn flatten(&mut self, text: &str, prefix: &str, table: &DeTable<'_>) {
        for (key, value) in table {
            let name = format!("{prefix}{}", key.get_ref());
            let line = line_of(text, key.span().start);
            if let DeValue::Table(inner) = value.get_ref() {
                self.flatten(text, &format!("{name}."), inner);
                self.tables.insert(name, line);
            } else {
                let raw = RawValue::read(value.get_ref());
                let origin = Origin::File { line };
                self.file.insert(name, ConfigValue { raw, origin });
            }
        }
    }

    /// Returns a digest of the names and values in the file, whatever their order and the comments
    /// between them. It tells nothing of a secret to whoever does not know the others: the tokens of
    /// the webhooks' paths are among them.
    pub(super) fn file_digest(&self) -> String {
        let mut context = Context::new(&SHA256);
        for (name, value) in &self.file {
            context.update(format!("{name:?}={:?}\n", value.raw).as_bytes());
        }
        hex(context.finish().as_ref())
    }

    /// Returns false if the file is not TOML, so that it has no settings to read.
    pub(super) fn is_readable(&self) -> bool {
        self.problems.is_empty()
    }

    /// Returns the names directly below a section, such as the accounts below `accounts`.
    pub(super) fn names_below(&self, section: &str) -> BTreeSet<String> {
        let prefix = format!("{section}.");
        let leaves = self.file.keys().chain(self.tables.keys());
        leaves
            .filter_map(|name| name.strip_prefix(&prefix)?.split('.').next())
            .map(str::to_owned)
            .collect()
    }

    /// Returns the names in a section's variables, in lower case: the part between the section
    /// and one of `settings`.
    pub(super) fn names_in_variables(&self, section: &str, settings: &[&str]) -> BTreeSet<String> {
        let prefix = format!("{}_", variable_of(section));
        let endings: Vec<String> = settings
            .iter()
            .map(|setting| format!("_{}", setting.replace('.', "_").to_ascii_uppercase()))
            .collect();
        let below = self.environment.keys();
        let below = below.filter_map(|name| name.strip_prefix(&prefix));
        below
            .filter_map(|rest| {
                let names = endings
                    .iter()
                    .filter_map(|ending| rest.strip_suffix(ending));
                // If several endings match, the longest is meant.
                names.min_by_key(|name| name.len())
            })
            .map(str::to_ascii_lowercase)
            .collect()
    }

    /// Reports a setting that does not belong where it is, if it is set.
    pub(super) fn reject_if_set(&mut self, name: &str, message: impl FnOnce() -> String) {
        if let Some(value) = self.value(name, &variable_of(name)) {
            self.push_problem(name, &value.origin, message());
        }
    }

    /// Accepts a setting without reading it.
    pub(super) fn ignore(&mut self, name: &str) {
        self.names.insert(name.to_owned());
        self.variables.insert(variable_of(name));
    }

    /// Returns true if a variable, which exists, is set.
    pub(super) fn has_variable(&mut self, name: &str) -> bool {
        self.variables.insert(name.to_owned());
        self.environment.contains_key(name)
    }

    /// Returns the variables of the process.
    pub(super) fn environment(&self) -> &'a BTreeMap<String, String> {
        self.environment
    }

    /// Returns a path, relative to the settings file's folder.
    pub(super) fn path(&self, text: &str) -> PathBuf {
        self.base_dir.join(text)
    }

    /// Returns true if a setting is set to an invalid value, so that others are not checked
    /// against it.
    pub(super) fn is_invalid(&self, name: &str) -> bool {
        self.invalid.contains(name)
    }

    /// Returns the value of a variable, which exists.
    fn variable(&mut self, variable: &str) -> Option<ConfigValue> {
        self.variables.insert(variable.to_owned());
        let value = self.environment.get(variable)?;
        Some(ConfigValue {
            raw: RawValue::Text(value.clone()),
            origin: Origin::Variable(variable.to_owned()),
        })
    }

    /// Returns the value of a setting from the layer that takes precedence.
    fn value(&mut self, name: &str, variable: &str) -> Option<ConfigValue> {
        self.names.insert(name.to_owned());
        let from_variable = self.variable(variable);
        let value = from_variable.or_else(|| self.file.get(name).cloned())?;
        self.without_placeholder(name, variable, value)
    }

    /// Returns `value`, unless it contains a `${NAME}`, which is reported.
    fn without_placeholder(
        &mut self,
        name: &str,
        variable: &str,
        value: ConfigValue,
    ) -> Option<ConfigValue> {
        let Some(placeholder) = value.raw.placeholder() else {
            return Some(value);
        };
        let message = format!(
            "contains `${{{placeholder}}}`, and variables are not substituted here; write the \
             value itself, or remove it and set {variable} in the environment"
        );
        self.push_problem(name, &value.origin, message);
        None
    }

    /// Adds a problem with a setting.
    fn push_problem(&mut self, name: &str, origin: &Origin, message: String) {
        self.invalid.insert(name.to_owned());
        let place = match origin {
            Origin::Default => String::new(),
            Origin::File { line } => format!("{}, line {line}", self.source),
            Origin::Variable(variable) => format!("variable {variable}"),
        };
        self.problems.push(Problem {
            setting: name.to_owned(),
            place,
            message,
        });
    }

    /// Reports a problem with a setting that has been read: it is missing, or contradicts another.
    pub(super) fn report(&mut self, name: &str, message: impl Into<String>) {
        let origin = self.origin_of(name);
        self.push_problem(name, &origin, message.into());
    }

    fn origin_of(&self, name: &str) -> Origin {
        let setting = self.settings.iter().find(|setting| setting.name == name);
        setting.map_or(Origin::Default, |setting| setting.origin.clone())
    }

    /// Adds a setting to the list of effective settings.
    fn record(&mut self, name: &str, variable: String, value: Value, origin: Origin) {
        self.settings.push(Setting {
            name: name.to_owned(),
            variable,
            value,
            origin,
        });
    }

    /// Reads a setting: `parse` converts the value, `show` returns what may be shown of it. A
    /// problem is reported, and the default is returned.
    pub(super) fn read<T>(
        &mut self,
        name: &str,
        default: T,
        parse: impl FnOnce(&ConfigValue, &Self) -> Result<T, String>,
        show: impl FnOnce(&T) -> Value,
    ) -> T {
        let parse = |value: &ConfigValue, layers: &Self| {
            parse(value, layers).map_err(|message| vec![message])
        };
        self.read_all(name, default, parse, show)
    }

    /// [`Layers::read`] of a value that may have several problems.
    fn read_all<T>(
        &mut self,
        name: &str,
        default: T,
        parse: impl FnOnce(&ConfigValue, &Self) -> Result<T, Vec<String>>,
        show: impl FnOnce(&T) -> Value,
    ) -> T {
        let variable = variable_of(name);
        let (value, origin) = match self.value(name, &variable) {
            None => (default, Origin::Default),
            Some(value) => match parse(&value, self) {
                Ok(parsed) => (parsed, value.origin),
                Err(messages) => {
                    for message in messages {
                        self.push_problem(name, &value.origin, message);
                    }
                    (default, value.origin)
                }
            },
        };
        self.record(name, variable, show(&value), origin);
        value
    }

    /// Reads a text.
    pub(super) fn text<T>(
        &mut self,
        name: &str,
        default: T,
        parse: impl FnOnce(&str) -> Result<T, String>,
        show: impl FnOnce(&T) -> Value,
    ) -> T {
        self.read(name, default, |value, _| parse(value.text()?), show)
    }

    /// Reads a time span, written with its unit.
    pub(super) fn duration(&mut self, name: &str, default: Duration) -> Duration {
        self.text(name, default, check::duration, |value| {
            check::show_duration(*value).into()
        })
    }

    /// Reads a whole number within `bounds`.
    pub(super) fn number<N>(
        &mut self,
        name: &str,
        default: N,
        bounds: std::ops::RangeInclusive<u64>,
    ) -> N
    where
        N: TryFrom<u64> + Copy + Into<Value>,
    {
        let parse = |value: &ConfigValue, _: &Self| {
            let number = value.number()?;
            if !bounds.contains(&number) {
                return Err(format!(
                    "is {number}; write a number from {} to {}",
                    bounds.start(),
                    bounds.end()
                ));
            }
            N::try_from(number).map_err(|_| format!("is {number}, which is too large"))
        };
        self.read(name, default, parse, |value| (*value).into())
    }

    /// Reads a list.
    pub(super) fn list<T>(
        &mut self,
        name: &str,
        default: Vec<T>,
        parse: impl Fn(&str) -> Result<T, String>,
        show: impl Fn(&T) -> Value,
    ) -> Vec<T> {
        let parse_all = |value: &ConfigValue, _: &Self| {
            let entries = value.list().map_err(|message| vec![message])?;
            let mut parsed = Vec::new();
            let mut problems = Vec::new();
            for entry in &entries {
                match parse(entry) {
                    Ok(item) => parsed.push(item),
                    // Two entries may have the same problem.
                    Err(message) if problems.contains(&message) => {}
                    Err(message) => problems.push(message),
                }
            }
            if problems.is_empty() {
                Ok(parsed)
            } else {
                Err(problems)
            }
        };
        self.read_all(name, default, parse_all, |items| {
            items.iter().map(show).collect::<Vec<_>>().into()
        })
    }

    /// Reads a secret from its own variable or its own file; it is never in the settings file. The
    /// variable takes precedence over the settings file.
    pub(super) fn secret(
        &mut self,
        file_setting: &str,
        secret_variable: &str,
        parse: impl Fn(&str) -> Result<SecretString, String>,
    ) -> Option<SecretString> {
        let file_variable = variable_of(file_setting);
        let file = self.value(file_setting, &file_variable);
        let direct = self.variable(secret_variable);
        let direct = direct
            .and_then(|direct| self.without_placeholder(file_setting, secret_variable, direct));
        let value = match (direct, file) {
            (Some(direct), Some(file)) if file.is_variable() => {
                let message = format!(
                    "{secret_variable} is set too; keep one of the two and remove the other"
                );
                self.push_problem(file_setting, &file.origin, message);
                Some(direct)
            }
            (Some(direct), _) => Some(direct),
            (None, file) => file,
        };
        let (secret, origin) = match value {
            None => (None, Origin::Default),
            Some(value) => {
                let text = match &value.origin {
                    Origin::Variable(name) if name == secret_variable => {
                        value.text().map(str::to_owned)
                    }
                    _ => value.text().and_then(|text| {
                        let path = self.path(text);
                        let path = self.credential(&path).unwrap_or(path);
                        if check::may_be_secret(text) && !path.exists() {
                            return Err(
                                "names no file; write the name of the file that holds the secret, \
                                 not the secret itself"
                                    .to_owned(),
                            );
                        }
                        let holds = format!("the secret of `{file_setting}`");
                        self.secret_files.push((path.clone(), holds));
                        check::secret_file(&path)
                    }),
                };
                let text = text.and_then(check::bare_secret);
                match text.and_then(|text| parse(&text)) {
                    Ok(secret) => (Some(secret), value.origin),
                    Err(message) => {
                        self.push_problem(file_setting, &value.origin, message);
                        (None, value.origin)
                    }
                }
            }
        };
        let shown = secret.as_ref().map_or(Value::Null, |_| HIDDEN.into());
        self.record(file_setting, file_variable, shown, origin);
        secret
    }

    /// Returns the copy of a secret's file that systemd made for the service
    /// (`LoadCredential=`), under the same name; `None` if it made none.
    ///
    /// Only root may need to read the file itself then, so that its commands and the service have
    /// the same settings.
    fn credential(&self, path: &Path) -> Option<PathBuf> {
        let folder = self.environment.get(CREDENTIALS_DIRECTORY)?;
        let copy = Path::new(folder).join(path.file_name()?);
        // One that is empty stands for a missing file (`SetCredential=` in the unit).
        check::secret_file(&copy).is_ok().then_some(copy)
    }

    /// Returns the files that secrets were read from, and what they hold.
    pub(super) fn secret_files(&mut self) -> Vec<(PathBuf, String)> {
        std::mem::take(&mut self.secret_files)
    }

    /// Reports settings and variables that were never read, and returns those that were.
    pub(super) fn finish(mut self) -> Result<Vec<Setting>, ConfigError> {
        self.find_unknown_settings();
        self.find_unknown_variables();
        if self.problems.is_empty() {
            Ok(self.settings)
        } else {
            Err(ConfigError {
                problems: self.problems,
            })
        }
    }

    fn find_unknown_settings(&mut self) {
        let unknown: Vec<(String, Origin)> = self
            .file
            .iter()
            .filter(|(name, _)| !self.names.contains(*name) && !self.is_below_a_problem(name))
            .map(|(name, value)| (name.clone(), value.origin.clone()))
            .collect();
        for (name, origin) in unknown {
            let message = check::secret_in_file(&name).unwrap_or_else(|| {
                let nearest = check::in_right_section(&name)
                    .or_else(|| check::nearest(&name, self.names.iter()).cloned());
                match nearest {
                    Some(nearest) => format!("there is no such setting; did you mean `{nearest}`?"),
                    None => "there is no such setting; docs/settings.md lists all".to_owned(),
                }
            });
            self.push_problem(&name, &origin, message);
        }
        let is_section = |table: &str| {
            let below = format!("{table}.");
            check::NAMED_SECTIONS.contains(&table)
                || self.names.iter().any(|name| name.starts_with(&below))
                || self.file.keys().any(|name| name.starts_with(&below))
        };
        let unknown: Vec<(String, usize)> = self
            .tables
            .iter()
            .filter(|(table, _)| !is_section(table))
            .map(|(table, line)| (table.clone(), *line))
            .collect();
        for (table, line) in unknown {
            let message = "there is no such section; remove it".to_owned();
            self.push_problem(&table, &Origin::File { line }, message);
        }
    }

    /// Returns true if the account or destination that a setting belongs to has a problem already, such
    /// as a name that can't be one.
    fn is_below_a_problem(&self, name: &str) -> bool {
        let mut problems = self.problems.iter().map(|problem| &problem.setting);
        problems.any(|setting| {
            let rest = name.strip_prefix(setting.as_str());
            setting.contains('.') && rest.is_some_and(|rest| rest.starts_with('.'))
        })
    }

    fn find_unknown_variables(&mut self) {
        let injected = injected(self.environment);
        let unknown: Vec<String> = self
            .environment
            .keys()
            .filter(|name| !injected.contains(name.as_str()))
            .filter(|name| name.starts_with(VARIABLE_PREFIX))
            .filter(|name| !OTHER_VARIABLES.contains(&name.as_str()))
            .filter(|name| !name.starts_with(TEST_VARIABLES))
            .filter(|name| !self.variables.contains(*name))
            .cloned()
            .collect();
        for name in unknown {
            let message = match check::nearest(&name, self.variables.iter()) {
                Some(nearest) => format!("there is no such variable; did you mean {nearest}?"),
                None => "there is no such variable; docs/settings.md lists all".to_owned(),
            };
            self.problems.push(Problem {
                setting: name,
                place: "environment".to_owned(),
                message,
            });
        }
    }
}

/// Formats a value as it is written in the file.
pub(super) fn show<T: ToString>(value: &T) -> Value {
    value.to_string().into()
}

/// Returns the line, counted from 1, that contains byte `offset`.
fn line_of(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().iter().take(offset);
    before.filter(|byte| **byte == b'\n').count() + 1
}
