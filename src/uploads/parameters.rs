//! What goes with an upload, as settings and flags write it: `name=value`.

use crate::ivesk::upload::UploadOptions;

/// The names that are taken, as the vendor spells them.
const NAMES: &str = "processlines, splitdocuments, checkduplicates, rejectnoninvoices \
                     (true or false), warehouse, allocation, tags";

/// Puts one `name=value` into `options`. Tags have commas between them.
///
/// # Errors
///
/// What is wrong with it, in words that follow the setting's name.
pub fn add(options: &mut UploadOptions, text: &str) -> Result<(), String> {
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
pub fn tags(text: &str) -> Vec<String> {
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
