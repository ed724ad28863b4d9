//! `[upload]`: the drop folder, and the parameters of every upload.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use super::accounts::AccountConfig;
use super::check;
use super::layers::Layers;
use crate::domain::{Account, Timestamp};
use crate::working_hours;

/// The parameters that may be set, as the vendor spells them.
const PARAMETERS: &str = "processlines, splitdocuments, checkduplicates, rejectnoninvoices \
                          (true or false), warehouse, allocation, tags";

/// The drop folder, and the parameters of every upload.
#[derive(Clone, Debug)]
pub struct UploadConfig {
    /// `upload.watch`: a folder whose files `serve` uploads; none by default. Relative
    /// to the settings file.
    pub watch: Option<PathBuf>,
    /// `upload.account`: the account that uploads the folder's files; required if there are
    /// several.
    pub account: Option<Account>,
    /// `upload.quiet_time`, default 10 s: how long a file of the folder must not change before
    /// it is sent.
    pub quiet_time: Duration,
    /// `upload.late_after`, default 12 h, at most 1000 h: the working time (Monday to Friday,
    /// 8:00 to 17:00 in Lithuania, except public holidays) after which a sent file without a
    /// document is late.
    pub late_after: Duration,
    /// `upload.correlation_key`: the parameter that carries correlation data (vendor-api U4).
    pub correlation_key: CorrelationKey,
    /// `upload.parameters`: `name=value` pairs of every upload, which flags override.
    pub parameters: Vec<String>,
}

/// Longest `upload.late_after`: about half a year of working days.
const MAX_LATE_AFTER: Duration = Duration::from_secs(1000 * 60 * 60);

impl Default for UploadConfig {
    fn default() -> Self {
        Self {
            watch: None,
            account: None,
            quiet_time: Duration::from_secs(10),
            // What the vendor promises (vendor-api, "Uploading").
            late_after: Duration::from_secs(12 * 60 * 60),
            correlation_key: CorrelationKey::default(),
            parameters: Vec::new(),
        }
    }
}

impl UploadConfig {
    /// Returns the moment before which a file must have been sent to be late at `now`.
    pub fn late_before(&self, now: Timestamp) -> Timestamp {
        working_hours::before(now, self.late_after)
    }

    /// Returns the options of an upload without flags.
    pub fn options(&self) -> UploadOptions {
        let mut options = UploadOptions {
            correlation_key: self.correlation_key,
            ..UploadOptions::default()
        };
        for parameter in &self.parameters {
            // Each was checked when the settings were read.
            let _ = options.set(parameter);
        }
        options
    }
}

/// The parameter that carries the correlation data (vendor-api U4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum CorrelationKey {
    /// `sourcedata`, as in the vendor's newest client.
    #[default]
    Sourcedata,
    /// `userdata`, as in the help article.
    Userdata,
    /// The same data under both names.
    Both,
}

impl CorrelationKey {
    /// Every key.
    pub const ALL: [Self; 3] = [Self::Sourcedata, Self::Userdata, Self::Both];

    /// Returns the name in settings and flags.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sourcedata => "sourcedata",
            Self::Userdata => "userdata",
            Self::Both => "both",
        }
    }

    /// Parses [`CorrelationKey::as_str`].
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|key| key.as_str() == text)
    }

    /// Returns the names of the vendor's parameters that carry the data.
    pub(crate) const fn parameter_names(self) -> &'static [&'static str] {
        match self {
            Self::Sourcedata => &["sourcedata"],
            Self::Userdata => &["userdata"],
            Self::Both => &["sourcedata", "userdata"],
        }
    }
}

/// Options of an upload. None is required, and those that are not set are not sent: the vendor
/// explains little (vendor-api, "Uploading").
#[derive(Clone, Debug, Default)]
pub struct UploadOptions {
    /// Data of ours that comes back with the document.
    pub correlation: Option<serde_json::Map<String, serde_json::Value>>,
    /// The parameter that carries it.
    pub correlation_key: CorrelationKey,
    /// `processlines`
    pub process_lines: Option<bool>,
    /// `splitdocuments`
    pub split_documents: Option<bool>,
    /// `checkduplicates`
    pub check_duplicates: Option<bool>,
    /// `rejectnoninvoices`
    pub reject_non_invoices: Option<bool>,
    /// `warehouse`, a custom code.
    pub warehouse: Option<String>,
    /// `allocation`, a custom code.
    pub allocation: Option<String>,
    /// `tags`, separated by commas when sent.
    pub tags: Vec<String>,
}

impl UploadOptions {
    /// Sets one `name=value` parameter. Tags are separated by commas.
    ///
    /// # Errors
    ///
    /// Returns the problem, in words that follow the setting's name.
    fn set(&mut self, text: &str) -> Result<(), String> {
        let (name, value) = text.split_once('=').ok_or_else(|| {
            format!("contains an entry without =; write name=value, with one of {PARAMETERS}")
        })?;
        let (name, value) = (name.trim(), value.trim());
        let flag = || match value {
            "true" => Ok(Some(true)),
            "false" => Ok(Some(false)),
            _ => Err(format!("sets {name} to neither true nor false")),
        };
        match name {
            "processlines" => self.process_lines = flag()?,
            "splitdocuments" => self.split_documents = flag()?,
            "checkduplicates" => self.check_duplicates = flag()?,
            "rejectnoninvoices" => self.reject_non_invoices = flag()?,
            "warehouse" => self.warehouse = Some(value.to_owned()),
            "allocation" => self.allocation = Some(value.to_owned()),
            "tags" => {
                self.tags = value
                    .split(',')
                    .map(str::trim)
                    .filter(|tag| !tag.is_empty())
                    .map(str::to_owned)
                    .collect();
            }
            other => {
                let other: String = other.chars().take(60).collect();
                return Err(format!("sets `{other}`; the parameters are {PARAMETERS}"));
            }
        }
        Ok(())
    }
}

/// Reads `[upload]`.
pub(super) fn read(
    layers: &mut Layers<'_>,
    accounts: &BTreeMap<Account, AccountConfig>,
) -> UploadConfig {
    let default = UploadConfig::default();
    let config = UploadConfig {
        watch: layers.read(
            "upload.watch",
            default.watch,
            |value, layers| Ok(Some(layers.path(value.text()?))),
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
                        "is `{account}`, and there is no [accounts.{account}]"
                    ))
                }
            },
            |account| json!(account),
        ),
        quiet_time: layers.duration("upload.quiet_time", default.quiet_time),
        late_after: layers.text(
            "upload.late_after",
            default.late_after,
            |text| {
                let time = check::duration(text)?;
                if time > MAX_LATE_AFTER {
                    return Err(format!(
                        "is longer than {}; write a shorter time",
                        check::show_duration(MAX_LATE_AFTER)
                    ));
                }
                Ok(time)
            },
            |time| check::show_duration(*time).into(),
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
                UploadOptions::default().set(text)?;
                Ok(text.to_owned())
            },
            |text| text.as_str().into(),
        ),
    };
    let is_ambiguous = config.account.is_none() && accounts.len() > 1;
    if config.watch.is_some() && is_ambiguous && !layers.is_invalid("upload.account") {
        layers.report(
            "upload.account",
            "is not set, and there are several accounts; write the one that uploads the files of \
             `upload.watch`",
        );
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_parameter_has_the_vendors_name_and_no_other() {
        let mut options = UploadOptions::default();
        for text in [
            "processlines=false",
            "splitdocuments=true",
            "checkduplicates = true",
            "rejectnoninvoices=true",
            "warehouse=W=1",
            "allocation=A",
            "tags=a, b,,c",
        ] {
            options.set(text).expect(text);
        }
        assert_eq!(options.process_lines, Some(false));
        assert_eq!(options.split_documents, Some(true));
        assert_eq!(options.check_duplicates, Some(true));
        assert_eq!(options.reject_non_invoices, Some(true));
        assert_eq!(options.warehouse.as_deref(), Some("W=1"));
        assert_eq!(options.allocation.as_deref(), Some("A"));
        assert_eq!(options.tags, ["a", "b", "c"]);
        for bad in ["tags", "tag=a", "processlines=yes", "=", ""] {
            assert!(options.set(bad).is_err(), "{bad}");
        }
    }
}
