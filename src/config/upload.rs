//! `[upload]`: what `serve` uploads by itself, and what goes with every upload.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::json;

use super::accounts::AccountConfig;
use super::layers::Layers;
use crate::domain::Account;

/// The names that are taken, as the vendor spells them.
const NAMES: &str = "processlines, splitdocuments, checkduplicates, rejectnoninvoices \
                     (true or false), warehouse, allocation, tags";

/// What `serve` uploads by itself, and what goes with every upload.
#[derive(Clone, Debug, Default)]
pub struct UploadConfig {
    /// `upload.watch`: a folder whose files `serve` uploads; none by default. Relative
    /// to the settings file.
    pub watch: Option<PathBuf>,
    /// `upload.account`: whose key the folder's files go with; needed where there are
    /// several accounts.
    pub account: Option<Account>,
    /// `upload.correlation_key`: under which name correlation data goes (vendor-api U4).
    pub correlation_key: CorrelationKey,
    /// `upload.parameters`: `name=value` pairs that go with every upload, where a flag
    /// does not say otherwise.
    pub parameters: Vec<String>,
}

impl UploadConfig {
    /// What goes with an upload that has nothing of its own.
    pub fn options(&self) -> UploadOptions {
        let mut options = UploadOptions {
            correlation_key: self.correlation_key,
            ..UploadOptions::default()
        };
        for parameter in &self.parameters {
            // Each was read once, when the settings were checked.
            let _ = add(&mut options, parameter);
        }
        options
    }
}

/// Under which name the correlation data goes (vendor-api U4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum CorrelationKey {
    /// `sourcedata`, as the vendor's newest client has it.
    #[default]
    Sourcedata,
    /// `userdata`, as the help article has it.
    Userdata,
    /// The same data under both names.
    Both,
}

impl CorrelationKey {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Sourcedata, Self::Userdata, Self::Both];

    /// The name in settings and flags.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sourcedata => "sourcedata",
            Self::Userdata => "userdata",
            Self::Both => "both",
        }
    }

    /// Reads [`CorrelationKey::as_str`].
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

/// What may be asked for with an upload. What is none is not sent: the vendor
/// requires nothing and explains little (vendor-api, "Uploading").
#[derive(Clone, Debug, Default)]
pub struct UploadOptions {
    /// Data of ours that comes back with the document.
    pub correlation: Option<serde_json::Map<String, serde_json::Value>>,
    /// Under which name it goes.
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
    /// `tags`, sent with commas between them.
    pub tags: Vec<String>,
}

/// `[upload]`
pub(super) fn read(
    layers: &mut Layers<'_>,
    accounts: &BTreeMap<Account, AccountConfig>,
) -> UploadConfig {
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
                add(&mut UploadOptions::default(), text)?;
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

/// Puts one `name=value` into `options`. Tags have commas between them.
///
/// # Errors
///
/// What is wrong with it, in words that follow the setting's name.
fn add(options: &mut UploadOptions, text: &str) -> Result<(), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| {
        format!("holds an entry without =; write name=value, with one of {NAMES}")
    })?;
    let (name, value) = (name.trim(), value.trim());
    let flag = || match value {
        "true" => Ok(Some(true)),
        "false" => Ok(Some(false)),
        _ => Err(format!("sets {name} to something else than true or false")),
    };
    match name {
        "processlines" => options.process_lines = flag()?,
        "splitdocuments" => options.split_documents = flag()?,
        "checkduplicates" => options.check_duplicates = flag()?,
        "rejectnoninvoices" => options.reject_non_invoices = flag()?,
        "warehouse" => options.warehouse = Some(value.to_owned()),
        "allocation" => options.allocation = Some(value.to_owned()),
        "tags" => options.tags = tags(value),
        other => {
            let other: String = other.chars().take(60).collect();
            return Err(format!("names `{other}`; there are {NAMES}"));
        }
    }
    Ok(())
}

/// The tags in a list with commas.
fn tags(text: &str) -> Vec<String> {
    text.split(',')
        .map(str::trim)
        .filter(|tag| !tag.is_empty())
        .map(str::to_owned)
        .collect()
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
            add(&mut options, text).expect(text);
        }
        assert_eq!(options.process_lines, Some(false));
        assert_eq!(options.split_documents, Some(true));
        assert_eq!(options.check_duplicates, Some(true));
        assert_eq!(options.reject_non_invoices, Some(true));
        assert_eq!(options.warehouse.as_deref(), Some("W=1"));
        assert_eq!(options.allocation.as_deref(), Some("A"));
        assert_eq!(options.tags, ["a", "b", "c"]);
        for bad in ["tags", "tag=a", "processlines=yes", "=", ""] {
            assert!(add(&mut options, bad).is_err(), "{bad}");
        }
    }
}
