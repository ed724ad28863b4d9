//! Documents that a destination does not receive, by what they say of themselves.

use crate::config::DestinationConfig;
use crate::domain::Company;
use crate::ivesk::Entry;
use crate::store::Delivery;
use crate::visible::foreign;

/// Returns why the settings exclude a document; `None` if the destination receives it.
///
/// A document's company is that of its feed, by which its lane was made. The digitized queue mixes
/// companies, and so does the exported one of a key if `api.exported_path` names no company: there
/// the document itself names them.
pub(super) fn exclusion(config: &DestinationConfig, delivery: &Delivery) -> Option<String> {
    let by_company = delivery.feed.mixes_companies() && !config.companies.is_empty();
    let by_type = !config.document_types.is_empty();
    if !(by_company || by_type) {
        return None;
    }
    let entry = Entry::parse(&delivery.body);
    let entry = entry.as_ref();
    let of_type = by_type.then(|| other_type(config, entry)).flatten();
    of_type.or_else(|| by_company.then(|| other_company(config, entry)).flatten())
}

fn other_type(config: &DestinationConfig, entry: Option<&Entry<'_>>) -> Option<String> {
    let Some(found) = entry.and_then(Entry::doctype) else {
        return Some("the document has no type, and `document_types` is set".to_owned());
    };
    let mut types = config.document_types.iter();
    let is_named = types.any(|one| one.to_lowercase() == found.to_lowercase());
    (!is_named).then(|| {
        let found = foreign(&found);
        format!("the document's type is `{found}`, which is not in `document_types`")
    })
}

fn other_company(config: &DestinationConfig, entry: Option<&Entry<'_>>) -> Option<String> {
    let parties = entry.map(Entry::own_parties).unwrap_or_default();
    let is_included = |company: &Option<Company>, name: &Option<String>| match (company, name) {
        (Some(company), _) => config.companies.contains(company),
        (None, Some(name)) => {
            let name = folded(name);
            config.company_names.iter().any(|one| folded(one) == name)
        }
        (None, None) => false,
    };
    let mut included = parties.iter();
    if included.any(|party| is_included(&party.company, &party.name)) {
        return None;
    }
    let codes = parties.iter().filter_map(|party| party.company.as_ref());
    let codes: Vec<&str> = codes.map(Company::as_str).collect();
    Some(if !codes.is_empty() {
        format!(
            "the document belongs to {}, which is not in `companies`",
            codes.join(" and ")
        )
    } else if parties.is_empty() {
        "the document says of neither party that it is yours, so that its company is not known"
            .to_owned()
    } else if config.company_names.is_empty() {
        "the document's company has no code; `company_names` would tell it by its name".to_owned()
    } else {
        "the document's company has no code, and its name is not in `company_names`".to_owned()
    })
}

/// Returns a name's letters and digits, small and without Lithuanian marks: Įvesk.lt writes names in
/// ASCII, and people differ in quotes and spaces.
fn folded(name: &str) -> String {
    let plain = |c: char| match c {
        'ą' => 'a',
        'č' => 'c',
        'ę' | 'ė' => 'e',
        'į' => 'i',
        'š' => 's',
        'ų' | 'ū' => 'u',
        'ž' => 'z',
        other => other,
    };
    let letters = name.chars().flat_map(char::to_lowercase);
    letters.filter(|c| c.is_alphanumeric()).map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_same_without_marks_quotes_and_case() {
        assert_eq!(
            folded("UAB \u{201e}Šviesos Ąžuolas\u{201c}"),
            "uabsviesosazuolas"
        );
        assert_eq!(folded("UAB  \"Sviesos azuolas\""), "uabsviesosazuolas");
        assert_ne!(folded("UAB Sviesa 2"), folded("UAB Sviesa"));
    }
}
