//! `[import_errors]`: the texts that the vendor's accountant reads.

use serde_json::json;

use super::check::excerpt;
use super::layers::Layers;

/// Texts for the vendor's accountant about documents that a destination rejected.
#[derive(Clone, Debug, Default)]
pub struct ImportErrorsConfig {
    /// `import_errors.language`, default `lt`.
    pub language: ImportErrorLanguage,
    /// `import_errors.template`: a text with `{message}` in it, in place of the language's.
    pub template: Option<String>,
}

/// The language of the texts for the accountant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ImportErrorLanguage {
    /// `lt`
    #[default]
    Lithuanian,
    /// `en`
    English,
}

/// Reads `[import_errors]`.
pub(super) fn read(layers: &mut Layers<'_>) -> ImportErrorsConfig {
    let default = ImportErrorsConfig::default();
    ImportErrorsConfig {
        language: layers.text(
            "import_errors.language",
            default.language,
            language,
            |language| match language {
                ImportErrorLanguage::Lithuanian => "lt".into(),
                ImportErrorLanguage::English => "en".into(),
            },
        ),
        template: layers.text(
            "import_errors.template",
            default.template,
            |text| template(text).map(Some),
            |template| json!(template),
        ),
    }
}

/// Parses `import_errors.language`.
fn language(text: &str) -> Result<ImportErrorLanguage, String> {
    match text {
        "lt" => Ok(ImportErrorLanguage::Lithuanian),
        "en" => Ok(ImportErrorLanguage::English),
        _ => Err(format!(
            "`{}` is neither \"lt\" nor \"en\"; write one of them",
            excerpt(text)
        )),
    }
}

/// Parses `import_errors.template`.
fn template(text: &str) -> Result<String, String> {
    if text.matches("{message}").count() != 1 {
        return Err(
            "does not contain {message} exactly once; write it where the destination's message \
             belongs"
                .to_owned(),
        );
    }
    if text.len() > 500 || text.chars().any(char::is_control) {
        return Err("is longer than 500 bytes or more than one line; shorten it".to_owned());
    }
    Ok(text.to_owned())
}
