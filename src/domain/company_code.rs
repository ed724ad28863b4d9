//! Whether a company's code looks like one.

use std::fmt;

use super::{Company, counted};

/// The reason why a code is probably mistyped, and the likely one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodeDoubt {
    code: Company,
    reason: Reason,
    /// The code that was probably meant.
    pub likely: Option<Company>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    Vat,
    CheckDigit,
    Length(usize),
    NoNumber,
}

impl fmt::Display for CodeDoubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "company code `{}` ", self.code)?;
        match self.reason {
            Reason::Vat => f.write_str(
                "looks like a VAT code: a company's code has nine digits, an older one seven",
            )?,
            Reason::CheckDigit => {
                f.write_str("is probably mistyped: its last digit does not fit the others")?
            }
            Reason::Length(digits) => {
                let digits = counted(digits as u64, "digit");
                write!(
                    f,
                    "has {digits}; a company's code has nine, an older one seven"
                )?;
            }
            Reason::NoNumber => {
                f.write_str("is no number of nine digits, or seven for an older one")?
            }
        }
        if let Some(likely) = &self.likely {
            write!(f, "; did you mean `{likely}`?")?;
        }
        Ok(())
    }
}

impl Company {
    /// Returns why the code is probably mistyped; `None` if it looks right. It may be right all
    /// the same: only Įvesk.lt knows.
    pub fn doubt(&self) -> Option<CodeDoubt> {
        let code = self.as_str();
        if is_plausible(code) {
            return None;
        }
        let compact: String = code
            .chars()
            .filter(|c| !c.is_whitespace() && !matches!(c, '-' | '.' | '_' | '/'))
            .collect();
        let upper = compact.to_ascii_uppercase();
        let number = upper.strip_prefix("LT").unwrap_or(&upper);
        let has_prefix = number.len() != upper.len();
        let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        let reason = match number.len() {
            _ if !is_number => Reason::NoNumber,
            // Only what stands between its digits is wrong.
            9 if !has_prefix && is_plausible(number) => Reason::NoNumber,
            9 | 12 if has_prefix => Reason::Vat,
            12 => Reason::Vat,
            9 => Reason::CheckDigit,
            digits => Reason::Length(digits),
        };
        let bare = number.trim_start_matches('0');
        let likely = [number, bare].into_iter().find(|guess| is_plausible(guess));
        Some(CodeDoubt {
            code: self.clone(),
            reason,
            likely: likely.and_then(|guess| Company::parse(guess).ok()),
        })
    }
}

/// Returns true for nine digits of which the last one fits, and for seven.
fn is_plausible(code: &str) -> bool {
    let digits: Option<Vec<u32>> = code.chars().map(|c| c.to_digit(10)).collect();
    match digits.as_deref() {
        Some([first @ .., check]) if first.len() == 8 => check_digit(first) == *check,
        Some(digits) => digits.len() == 7,
        None => false,
    }
}

/// Returns the last digit of a code of nine digits, whose first eight are given.
fn check_digit(digits: &[u32]) -> u32 {
    let sum = |first_weight: u32| {
        let weights = (first_weight..=9).chain(1..);
        let sum: u32 = digits
            .iter()
            .zip(weights)
            .map(|(digit, weight)| digit * weight)
            .sum();
        sum % 11
    };
    match sum(1) {
        10 => sum(3) % 10,
        digit => digit,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn doubt(code: &str) -> Option<CodeDoubt> {
        Company::parse(code).expect(code).doubt()
    }

    #[test]
    fn codes_of_companies_raise_no_doubt() {
        // The vendor's example, and companies that everybody knows: the railways, Sodra, the
        // power grid.
        for code in [
            "302320404",
            "110053842",
            "191630223",
            "304151376",
            "1234567",
        ] {
            assert_eq!(doubt(code), None, "{code}");
        }
    }

    #[test]
    fn a_mistyped_code_is_doubted_and_the_likely_one_is_named() {
        for (code, likely, words) in [
            ("999999999", None, "last digit does not fit"),
            ("302320405", None, "last digit does not fit"),
            ("302320440", None, "last digit does not fit"),
            ("LT302320404", Some("302320404"), "VAT code"),
            ("lt 302320404", Some("302320404"), "VAT code"),
            ("LT100004801610", None, "VAT code"),
            ("100004801610", None, "VAT code"),
            ("302 320 404", Some("302320404"), "no number"),
            ("00302320404", Some("302320404"), "has 11 digits"),
            ("30232040", None, "has 8 digits; "),
            ("1", None, "has 1 digit; "),
            ("UAB Šiaurė", None, "no number"),
            ("LT", None, "no number"),
            ("٣٠٢٣٢٠٤٠٤", None, "no number"),
        ] {
            let doubt = doubt(code).expect(code);
            let named = doubt.likely.as_ref().map(Company::as_str);
            assert_eq!(named, likely, "{code}");
            let text = doubt.to_string();
            assert!(text.contains(words), "{text}");
            assert_eq!(text.contains("did you mean"), likely.is_some(), "{text}");
        }
    }
}
