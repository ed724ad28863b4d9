//! Where a value comes from: file, variables, defaults; and what is wrong with it.
//!
//! [`Layers`] is asked for every setting by name, once. So what it was never asked
//! for is a setting that does not exist, and what it answered is the list that
//! `config show` prints: there is no second list of names to keep in step.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::SecretString;
use serde_json::Value;
use toml::de::{DeTable, DeValue};

use super::check;
use super::environment::{VARIABLE_PREFIX, variable_of};
use super::given::{Given, Raw};
use super::problem::{ConfigError, Origin, Problem, Setting};

/// Names that belong to other parts: the file's own name, and switches of the tests.
const FOREIGN_VARIABLES: [&str; 2] = ["IVESK_WEBHOOK_CONFIG", "IVESK_WEBHOOK_AWS_VECTORS"];
const TEST_VARIABLES: &str = "IVESK_WEBHOOK_TEST_";

/// The one setting that is a table with names of the user's choosing.
const FREE_TABLE: &str = "sns.certificate_names";

/// All layers, and what was found wrong in them so far.
pub(super) struct Layers<'a> {
    source: String,
    base_dir: &'a Path,
    environment: &'a BTreeMap<String, String>,
    file: BTreeMap<String, Given>,
    tables: BTreeMap<String, usize>,
    names: BTreeSet<String>,
    variables: BTreeSet<String>,
    failed: BTreeSet<String>,
    settings: Vec<Setting>,
    problems: Vec<Problem>,
}

impl<'a> Layers<'a> {
    /// Reads the file's text. `source` is what messages call it.
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
            failed: BTreeSet::new(),
            settings: Vec::new(),
            problems: Vec::new(),
        };
        let text = toml_text.strip_prefix('\u{feff}').unwrap_or(toml_text);
        match DeTable::parse(text) {
            Ok(table) => layers.flatten(text, "", table.get_ref()),
            Err(error) => {
                // The error's own Display shows the line, and the line may hold a token.
                let line = error.span().map_or(1, |span| line_of(text, span.start));
                layers.problems.push(Problem {
                    setting: String::new(),
                    place: format!("{}, line {line}", layers.source),
                    message: format!("this is not TOML: {}", error.message()),
                });
            }
        }
        layers
    }

    fn flatten(&mut self, text: &str, prefix: &str, table: &DeTable<'_>) {
        for (key, value) in table {
            let name = format!("{prefix}{}", key.get_ref());
            let line = line_of(text, key.span().start);
            if let DeValue::Table(inner) = value.get_ref()
                && name != FREE_TABLE
            {
                self.flatten(text, &format!("{name}."), inner);
                self.tables.insert(name, line);
            } else {
                let raw = Raw::read(value.get_ref());
                let origin = Origin::File { line };
                self.file.insert(name, Given { raw, origin });
            }
        }
    }

    /// Whether the text could be read at all; if not, asking for settings is no use.
    pub(super) fn readable(&self) -> bool {
        self.problems.is_empty()
    }

    /// The names directly below a section, such as the accounts below `accounts`.
    pub(super) fn names_below(&self, section: &str) -> BTreeSet<String> {
        let prefix = format!("{section}.");
        let leaves = self.file.keys().chain(self.tables.keys());
        leaves
            .filter_map(|name| name.strip_prefix(&prefix)?.split('.').next())
            .map(str::to_owned)
            .collect()
    }

    /// The names that variables give the entries of a section, in small letters: what
    /// stands between its own name and one of its entries' `settings`.
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
                // Of endings that end alike the longest is meant.
                names.min_by_key(|name| name.len())
            })
            .map(str::to_ascii_lowercase)
            .collect()
    }

    /// Notes a setting that has no business where it stands, if it was given.
    pub(super) fn out_of_place(&mut self, name: &str, message: impl FnOnce() -> String) {
        if let Some(given) = self.given(name, &variable_of(name)) {
            self.fail(name, &given.origin, message());
        }
    }

    /// Notes that a setting exists, whatever it was given.
    pub(super) fn leave_unjudged(&mut self, name: &str) {
        self.names.insert(name.to_owned());
        self.variables.insert(variable_of(name));
    }

    /// Whether a variable, which exists, is set.
    pub(super) fn has_variable(&mut self, name: &str) -> bool {
        self.variables.insert(name.to_owned());
        self.environment.contains_key(name)
    }

    /// The variables of the process.
    pub(super) fn environment(&self) -> &'a BTreeMap<String, String> {
        self.environment
    }

    /// The folder that relative paths start from.
    pub(super) fn path(&self, text: &str) -> PathBuf {
        self.base_dir.join(text)
    }

    /// Whether a setting was given and could not be used: what depends on it is not judged.
    pub(super) fn has_failed(&self, name: &str) -> bool {
        self.failed.contains(name)
    }

    /// What a variable holds, marking it as one that exists.
    fn variable(&mut self, variable: &str) -> Option<Given> {
        self.variables.insert(variable.to_owned());
        let value = self.environment.get(variable)?;
        Some(Given {
            raw: Raw::Text(value.clone()),
            origin: Origin::Variable(variable.to_owned()),
        })
    }

    /// The value of a setting from the layer that decides it.
    fn given(&mut self, name: &str, variable: &str) -> Option<Given> {
        self.names.insert(name.to_owned());
        let above = self.variable(variable);
        let given = above.or_else(|| self.file.get(name).cloned())?;
        self.filled(name, variable, given)
    }

    /// `given`, unless a `${NAME}` was left in it.
    fn filled(&mut self, name: &str, variable: &str, given: Given) -> Option<Given> {
        let Some(unfilled) = given.raw.placeholder() else {
            return Some(given);
        };
        let message = format!(
            "still holds `${{{unfilled}}}`: nothing fills variables in here; write the value \
             itself, or remove it and set {variable} in the environment"
        );
        self.fail(name, &given.origin, message);
        None
    }

    /// Notes a mistake in a setting that was given.
    pub(super) fn fail(&mut self, name: &str, origin: &Origin, message: String) {
        self.failed.insert(name.to_owned());
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

    /// Notes that settings contradict each other, at the one that is to change.
    pub(super) fn contradiction(&mut self, name: &str, message: impl Into<String>) {
        let origin = self.origin_of(name);
        self.fail(name, &origin, message.into());
    }

    fn origin_of(&self, name: &str) -> Origin {
        let setting = self.settings.iter().find(|setting| setting.name == name);
        setting.map_or(Origin::Default, |setting| setting.origin.clone())
    }

    /// Notes what is in force.
    fn record(&mut self, name: &str, variable: String, value: Value, origin: Origin) {
        self.settings.push(Setting {
            name: name.to_owned(),
            variable,
            value,
            origin,
        });
    }

    /// Reads a setting: `check` turns what was given into its value, `show` gives
    /// what may be shown of it. A mistake is noted, and the default stands in.
    pub(super) fn read<T>(
        &mut self,
        name: &str,
        default: T,
        check: impl FnOnce(&Given, &Self) -> Result<T, String>,
        show: impl FnOnce(&T) -> Value,
    ) -> T {
        let variable = variable_of(name);
        let (value, origin) = match self.given(name, &variable) {
            None => (default, Origin::Default),
            Some(given) => match check(&given, self) {
                Ok(value) => (value, given.origin),
                Err(message) => {
                    self.fail(name, &given.origin, message);
                    (default, given.origin)
                }
            },
        };
        self.record(name, variable, show(&value), origin);
        value
    }

    /// A text that `check` understands.
    pub(super) fn text<T>(
        &mut self,
        name: &str,
        default: T,
        check: impl FnOnce(&str) -> Result<T, String>,
        show: impl FnOnce(&T) -> Value,
    ) -> T {
        self.read(name, default, |given, _| check(given.text()?), show)
    }

    /// A time span, written with its unit.
    pub(super) fn duration(&mut self, name: &str, default: Duration) -> Duration {
        self.text(name, default, check::duration, |value| {
            check::show_duration(*value).into()
        })
    }

    /// A whole number within `bounds`.
    pub(super) fn number<N>(
        &mut self,
        name: &str,
        default: N,
        bounds: std::ops::RangeInclusive<u64>,
    ) -> N
    where
        N: TryFrom<u64> + Copy + Into<Value>,
    {
        let check = |given: &Given, _: &Self| {
            let number = given.number()?;
            if !bounds.contains(&number) {
                return Err(format!(
                    "is {number}; write a number from {} to {}",
                    bounds.start(),
                    bounds.end()
                ));
            }
            N::try_from(number).map_err(|_| format!("is {number}, which is too large here"))
        };
        self.read(name, default, check, |value| (*value).into())
    }

    /// A list whose entries `check` understands.
    pub(super) fn list<T>(
        &mut self,
        name: &str,
        default: Vec<T>,
        check: impl Fn(&str) -> Result<T, String>,
        show: impl Fn(&T) -> Value,
    ) -> Vec<T> {
        let each = |given: &Given, _: &Self| given.list()?.iter().map(|item| check(item)).collect();
        self.read(name, default, each, |items| {
            items.iter().map(show).collect::<Vec<_>>().into()
        })
    }

    /// A secret that is kept in a variable of its own or in a file of its own, never
    /// in the settings themselves. The variable decides over the settings file.
    pub(super) fn secret(
        &mut self,
        file_setting: &str,
        secret_variable: &str,
        check: impl Fn(&str) -> Result<SecretString, String>,
    ) -> Option<SecretString> {
        let file_variable = variable_of(file_setting);
        let file = self.given(file_setting, &file_variable);
        let direct = self.variable(secret_variable);
        let direct = direct.and_then(|direct| self.filled(file_setting, secret_variable, direct));
        let given = match (direct, file) {
            (Some(direct), Some(file)) if file.is_variable() => {
                let message = format!(
                    "{secret_variable} is set too; keep one of the two and remove the other"
                );
                self.fail(file_setting, &file.origin, message);
                Some(direct)
            }
            (Some(direct), _) => Some(direct),
            (None, file) => file,
        };
        let (secret, origin) = match given {
            None => (None, Origin::Default),
            Some(given) => {
                let text = match &given.origin {
                    Origin::Variable(name) if name == secret_variable => {
                        given.text().map(str::to_owned)
                    }
                    _ => given
                        .text()
                        .and_then(|path| check::secret_file(&self.path(path))),
                };
                match text.and_then(|text| check(&text)) {
                    Ok(secret) => (Some(secret), given.origin),
                    Err(message) => {
                        self.fail(file_setting, &given.origin, message);
                        (None, given.origin)
                    }
                }
            }
        };
        let shown = secret.as_ref().map_or(Value::Null, |_| "[set]".into());
        self.record(file_setting, file_variable, shown, origin);
        secret
    }

    /// Notes what nobody asked for, and gives all that was found.
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
            .filter(|(name, _)| !self.names.contains(*name))
            .map(|(name, given)| (name.clone(), given.origin.clone()))
            .collect();
        for (name, origin) in unknown {
            let message = check::kept_elsewhere(&name).unwrap_or_else(|| {
                match check::nearest(&name, self.names.iter()) {
                    Some(nearest) => format!("there is no such setting; did you mean `{nearest}`?"),
                    None => "there is no such setting; `ivesk-webhook config show` lists them all"
                        .to_owned(),
                }
            });
            self.fail(&name, &origin, message);
        }
        let is_section = |table: &str| {
            let below = format!("{table}.");
            table == "accounts"
                || table == "destinations"
                || table == FREE_TABLE
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
            self.fail(&table, &Origin::File { line }, message);
        }
    }

    fn find_unknown_variables(&mut self) {
        let unknown: Vec<String> = self
            .environment
            .keys()
            .filter(|name| name.starts_with(VARIABLE_PREFIX))
            .filter(|name| !FOREIGN_VARIABLES.contains(&name.as_str()))
            .filter(|name| !name.starts_with(TEST_VARIABLES))
            .filter(|name| !self.variables.contains(*name))
            .cloned()
            .collect();
        for name in unknown {
            let message = match check::nearest(&name, self.variables.iter()) {
                Some(nearest) => format!("there is no such variable; did you mean {nearest}?"),
                None => "there is no such variable; `ivesk-webhook config show` lists them all"
                    .to_owned(),
            };
            self.problems.push(Problem {
                setting: name,
                place: "environment".to_owned(),
                message,
            });
        }
    }
}

/// The line, counted from 1, on which byte `offset` stands.
fn line_of(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().iter().take(offset);
    before.filter(|byte| **byte == b'\n').count() + 1
}

/// A value as it is written.
pub(super) fn show<T: ToString>(value: &T) -> Value {
    value.to_string().into()
}
