//! Parses the text of a notification.

use serde::de::IgnoredAny;

use super::fields::Fields;
use crate::domain::Company;

/// What the text of an `on_exported` notification says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Announcement {
    /// Documents of this company were exported.
    Company(Company),
    /// It is JSON in a shape that is not understood: without a company, with several, or nested.
    Unclear,
    /// Nothing: it is no JSON, such as the greeting that SNS sends.
    Nothing,
}

impl Announcement {
    /// Reads the text of a notification.
    ///
    /// The vendor's sample is `{"companyCode":"302320404"}`. The key's letter case does not
    /// matter, and the code is text or number (vendor-api U17).
    pub fn read(message: &str) -> Self {
        let fields = Fields::read(message.as_bytes());
        let code = fields.and_then(|fields| fields.text("companyCode"));
        if let Some(company) = code.and_then(|code| Company::parse(&code).ok()) {
            return Self::Company(company);
        }
        let json = message.trim_start_matches('\u{feff}');
        match serde_json::from_str::<IgnoredAny>(json) {
            Ok(_) => Self::Unclear,
            Err(_) => Self::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_company_is_read_in_every_spelling_with_its_zeros() {
        for (message, code) in [
            (r#"{"companyCode":"302320404"}"#, "302320404"),
            (r#"{"companycode":"302320404"}"#, "302320404"),
            (r#"{"CompanyCode": 302320404}"#, "302320404"),
            (
                r#"{"x":{"companyCode":"1"},"companyCode":" 00123 "}"#,
                "00123",
            ),
            (r#"{"companyCode":"\u0161 1"}"#, "š 1"),
            (r#"{"companyCode":"LT123"}"#, "LT123"),
        ] {
            let company = Company::parse(code).expect("a code");
            let expected = Announcement::Company(company);
            assert_eq!(Announcement::read(message), expected, "{message}");
        }
    }

    #[test]
    fn json_without_one_usable_company_is_unclear() {
        for message in [
            "null",
            "302320404",
            "[]",
            "{}",
            r#"{"companyCode":null}"#,
            r#"{"companyCode":""}"#,
            r#"{"companyCode":{}}"#,
            r#"{"companyCode":"a\nb"}"#,
            r#"{"company_code":"302320404"}"#,
            r#"{"companyCode":["302320404","110053842"]}"#,
            r#"[{"companyCode":"302320404"}]"#,
            r#"{"detail":{"companyCode":"302320404"}}"#,
            r#""{\"companyCode\":\"302320404\"}""#,
            "\u{feff}{\"company\":\"302320404\"}",
        ] {
            assert_eq!(
                Announcement::read(message),
                Announcement::Unclear,
                "{message}"
            );
        }
    }

    #[test]
    fn a_text_that_is_no_json_says_nothing() {
        for message in [
            "",
            "Successfully validated SNS topic",
            r#"{"companyCode":"1"} more"#,
            r#"{"companyCode":"3023"#,
        ] {
            assert_eq!(
                Announcement::read(message),
                Announcement::Nothing,
                "{message}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_text_causes_a_panic(message in "\\PC*") {
            let _ = Announcement::read(&message);
        }
    }
}
