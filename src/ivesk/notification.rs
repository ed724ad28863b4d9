//! Parses the text of a notification.

use super::fields::Fields;
use crate::domain::Company;

/// Returns the company that an `on_exported` notification names.
///
/// The vendor's sample is `{"companyCode":"302320404"}`. The key's letter
/// case does not matter, and the code is text or number (vendor-api U17). `None` if the text names
/// no company: SNS also delivers plain greetings.
pub fn company(message: &str) -> Option<Company> {
    let code = Fields::read(message.as_bytes())?.text("companyCode")?;
    Company::parse(&code).ok()
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
            let read = company(message);
            assert_eq!(read.as_ref().map(Company::as_str), Some(code), "{message}");
        }
    }

    #[test]
    fn a_text_that_names_no_company_triggers_nothing() {
        for message in [
            "",
            "Successfully validated SNS topic",
            "null",
            "[]",
            "{}",
            r#"{"companyCode":null}"#,
            r#"{"companyCode":""}"#,
            r#"{"companyCode":{}}"#,
            r#"{"companyCode":"a\nb"}"#,
            r#"{"companyCode":"1"} more"#,
        ] {
            assert_eq!(company(message), None, "{message}");
        }
    }

    proptest! {
        #[test]
        fn no_text_causes_a_panic(message in "\\PC*") {
            let _ = company(&message);
        }
    }
}
