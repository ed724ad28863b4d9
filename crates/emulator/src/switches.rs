//! The emulator's switches: one for each behavior that Įvesk.lt might have either way.
//!
//! [`Switches::set`] parses `name=value,…`; every switch is declared once, in the
//! table at the end of this file, with its type, its default and its meaning.

use std::fmt;

use crate::positions::Setting;
pub use crate::positions::*;
use crate::topics::SAMPLE_OWNER;

/// A switch that does not exist, or a value that it does not take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SwitchError {
    /// No switch has this name.
    #[error("there is no switch `{0}`; the emulator has: {names}", names = Switches::NAMES.join(", "))]
    UnknownName(String),
    /// The switch does not take this value.
    #[error("the switch `{name}` takes {allowed}, not `{value}`")]
    BadValue {
        /// The switch.
        name: &'static str,
        /// The refused value.
        value: String,
        /// The accepted values.
        allowed: String,
    },
    /// A part without `=`.
    #[error("`{0}` is not of the form name=value")]
    NotAPair(String),
}

/// Makes [`Switches`], its defaults, its reader and its list from one table.
macro_rules! switches {
    ($($(#[$meta:meta])* $field:ident: $type:ty = $default:expr,)+) => {
        /// The position of every switch. `docs/emulator.md` has the same table.
        #[derive(Clone, Debug, PartialEq)]
        pub struct Switches { $($(#[$meta])* pub $field: $type,)+ }

        impl Default for Switches {
            fn default() -> Self {
                Self { $($field: $default,)+ }
            }
        }

        impl Switches {
            /// Every switch's name.
            pub const NAMES: &'static [&'static str] = &[$(stringify!($field)),+];

            fn set_one(&mut self, name: &str, value: &str) -> Result<(), SwitchError> {
                match name {
                    $(stringify!($field) => {
                        self.$field = <$type as Setting>::read(value).ok_or_else(|| {
                            SwitchError::BadValue {
                                name: stringify!($field),
                                value: value.to_owned(),
                                allowed: <$type as Setting>::allowed(),
                            }
                        })?;
                    })+
                    _ => return Err(SwitchError::UnknownName(name.to_owned())),
                }
                Ok(())
            }

            /// Returns every switch with its position and its accepted values.
            pub fn list(&self) -> Vec<(&'static str, String, String)> {
                vec![$((stringify!($field), self.$field.write(), <$type as Setting>::allowed()),)+]
            }
        }
    };
}

impl Switches {
    /// Applies `name=value,…` to the current positions: all of them, or none.
    ///
    /// # Errors
    ///
    /// A name or a value that does not exist, naming what does.
    pub fn set(&mut self, text: &str) -> Result<(), SwitchError> {
        let mut changed = self.clone();
        for pair in text
            .split(',')
            .map(str::trim)
            .filter(|pair| !pair.is_empty())
        {
            let (name, value) = pair
                .split_once('=')
                .ok_or_else(|| SwitchError::NotAPair(pair.to_owned()))?;
            changed.set_one(name.trim(), value.trim())?;
        }
        *self = changed;
        Ok(())
    }

    /// Returns the defaults with `name=value,…` on top.
    ///
    /// # Errors
    ///
    /// As [`Switches::set`].
    pub fn parse(text: &str) -> Result<Self, SwitchError> {
        let mut switches = Self::default();
        switches.set(text)?;
        Ok(switches)
    }
}

impl fmt::Display for Switches {
    /// Writes `name=value,…`, which [`Switches::set`] parses.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, value, _)) in self.list().iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{name}={value}")?;
        }
        Ok(())
    }
}

switches! {
    /// Place of the company in the exported queue's URL.
    company_in: CompanyIn = CompanyIn::Path,
    /// Treatment of the document at `from`.
    from: From = From::Exclusive,
    /// Presence of `next` on the last page.
    last_page_next: LastPageNext = LastPageNext::Present,
    /// Form of `next`.
    next_form: NextForm = NextForm::Time,
    /// `next` is always the `from` that was sent: the cursor never moves (U15).
    stuck_next: Toggle = Toggle::Off,
    /// Documents in a page.
    page_size: Count = Count(100),
    /// Treatment of equal timestamps at a page's end.
    page_edge: PageEdge = PageEdge::Whole,
    /// Number of documents in a row that share one timestamp.
    ties: Count = Count(1),
    /// A document made while this is set is listed only so many milliseconds later (U16).
    visibility_lag_ms: u64 = 0,
    /// Treatment of the requested company.
    company_filter: CompanyFilter = CompanyFilter::Honored,
    /// Answer for a company that is not the key's.
    unknown_company: UnknownCompany = UnknownCompany::NotFound,
    /// Effect of a second export.
    re_export: ReExport = ReExport::Adds,
    /// Every optional field of documents is `null` (U22).
    null_fields: Toggle = Toggle::Off,
    /// JSON type of amounts.
    money: Money = Money::Number,
    /// Kinds of document that are digitized.
    doctypes: Doctypes = Doctypes::Invoice,
    /// Key of correlation data.
    correlation_key: CorrelationKey = CorrelationKey::Sourcedata,
    /// Spelling of the upload location's keys.
    header_keys: HeaderKeys = HeaderKeys::Dashed,
    /// Form of a file name that is not ASCII in Content-Disposition.
    disposition: Disposition = Disposition::Raw,
    /// Form of upload locations and file links.
    upload_host: UploadHost = UploadHost::Own,
    /// Lifetime of an upload location.
    upload_expires_ms: u64 = 900_000,
    /// Time at which uploads are digitized.
    digitize_uploads: DigitizeUploads = DigitizeUploads::Auto,
    /// Answer of file links.
    pdf: Pdf = Pdf::Ok,
    /// Lifetime of a file link.
    pdf_expires_ms: u64 = 3_600_000,
    /// Path of the error report (U2).
    errors_path: ApiPath = ApiPath("/errors".to_owned()),
    /// Content-Type that an error report must have.
    error_content_type: ReportType = ReportType::Any,
    /// Answer to a repeated error report.
    error_repeat: ErrorRepeat = ErrorRepeat::Accepted,
    /// Path for subscribing (U2).
    subscriptions_path: ApiPath = ApiPath("/subscriptions".to_owned()),
    /// The AWS account that owns the topics (U10).
    topic_owner: AwsAccount = AwsAccount(SAMPLE_OWNER.to_owned()),
    /// JSON type of the company's code in a notification.
    company_code: CompanyCode = CompanyCode::Text,
    /// Spelling of its key.
    company_code_key: CompanyCodeKey = CompanyCodeKey::Camel,
    /// Notifications for one click.
    export_events: ExportEvents = ExportEvents::Company,
    /// Content of an `on_digitized` notification.
    digitized_message: DigitizedMessage = DigitizedMessage::Document,
    /// `on_digitized` notifications are as large as SNS allows, and full of quotes.
    huge_message: Toggle = Toggle::Off,
    /// SNS's signature version.
    signature_version: SignatureVersion = SignatureVersion::V1,
    /// Factor of the waits between attempts.
    time_scale: TimeScale = TimeScale(1.0),
    /// Time after which an unanswered attempt counts as failed; SNS waits 15 s. Not scaled.
    delivery_timeout_ms: u64 = 15_000,
    /// A status that every API request answers.
    status: ForcedStatus = ForcedStatus(None),
    /// `Retry-After` of 429 and 503.
    retry_after: RetryAfter = RetryAfter(None),
    /// Form of error answers.
    error_body: ErrorBody = ErrorBody::Json,
    /// An account with more API requests in flight than this gets 429; 0 sets no limit (U12).
    max_in_flight: u64 = 0,
    /// Every API answer is delayed by this time.
    slow_ms: u64 = 0,
    /// No API request is answered until this is off again.
    hang: Toggle = Toggle::Off,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printed_switches_parse_back() {
        let switches = Switches::parse(
            "company_in=prefix, from=inclusive,ties=3,status=429,retry_after=2,time_scale=0.001,errors_path=/documents/errors",
        )
        .expect("all exist");
        assert_eq!(Switches::parse(&switches.to_string()), Ok(switches));
    }

    #[test]
    fn a_wrong_part_changes_nothing_and_is_named() {
        let mut switches = Switches::default();
        let error = switches
            .set("ties=3,company_in=header")
            .expect_err("no such position");
        assert_eq!(
            error.to_string(),
            "the switch `company_in` takes path|query|prefix|none, not `header`"
        );
        assert_eq!(switches, Switches::default());
        assert!(matches!(
            switches.set("tie=3"),
            Err(SwitchError::UnknownName(_))
        ));
        assert!(matches!(
            switches.set("ties"),
            Err(SwitchError::NotAPair(_))
        ));
        for bad in [
            "ties=0",
            "status=200",
            "time_scale=-1",
            "topic_owner=7268210879",
            "errors_path=errors",
            "page_size=x",
        ] {
            assert!(switches.set(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_documentation_lists_every_switch_with_its_default() {
        let page = include_str!("../../../docs/emulator.md");
        for (name, default, _) in Switches::default().list() {
            assert!(
                page.contains(&format!("| `{name}` | `{default}`")),
                "docs/emulator.md lacks `{name}` with its default `{default}`"
            );
        }
    }
}
