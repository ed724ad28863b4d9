//! The columns of an export: our own, those of documents and lines, and any other field by name.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::ivesk::{DOCUMENT_FIELDS, Entry, FieldKind, LINE_FIELDS, LINES};
use crate::store::DocumentRow;
use crate::visible::visible;

/// Most columns of an export.
const MAX_COLUMNS: usize = 100;

/// Precedes the name of a field that has no column of its own.
const ANY_FIELD: &str = "field:";

/// Precedes the name of a line's field.
const OF_LINE: &str = "line.";

/// The columns unless others are chosen, of documents.
const DEFAULT: &str = "sequence,company,document_id,docnum,doctype,date,duedate,sellercode,sellervat,\
    sellername,sellernameascii,buyercode,buyervat,buyername,buyernameascii,subtotal,vat,total,currency";

/// The further ones of lines.
const DEFAULT_OF_LINES: &str = "line_number,line.code,line.name,line.quantity,line.unit,line.price,\
    line.subtotal,line.vatpercent,line.vat,line.total";

/// What a row of an export is.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Serialize,
    Deserialize,
    clap::ValueEnum,
    utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Per {
    /// A document
    #[default]
    Document,
    /// A line of a document; a document without lines has one row
    Line,
}

/// A column of our own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Own {
    Sequence,
    Account,
    Queue,
    Company,
    DocumentId,
    Version,
    StoredAt,
    Superseded,
    LineNumber,
    Replaced,
}

impl Own {
    const ALL: [(&'static str, Self); 10] = [
        ("sequence", Self::Sequence),
        ("account", Self::Account),
        ("queue", Self::Queue),
        ("company", Self::Company),
        ("document_id", Self::DocumentId),
        ("version", Self::Version),
        ("stored_at", Self::StoredAt),
        ("superseded", Self::Superseded),
        ("line_number", Self::LineNumber),
        ("replaced", Self::Replaced),
    ];
}

/// Where a column's cells come from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    Own(Own),
    /// A field of the document.
    Document(String),
    /// A field of the line.
    Line(String),
}

/// A column of an export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name, as in the table's first row.
    pub name: String,
    /// The kind of its cells.
    pub kind: CellKind,
    source: Source,
}

/// The kind of a column's cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CellKind {
    /// Text, a date, a code or a flag: as written, and empty if it is a list or an object.
    Text,
    /// A decimal number.
    Decimal,
    /// Whatever a field holds of which nothing is known.
    Any,
    /// The number of characters that the row's encoding does not have.
    Replaced,
}

/// Columns can't be exported.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ColumnError {
    /// There is no such column.
    #[error("there is no column `{name}`{}; `{ANY_FIELD}NAME` exports any other field of the JSON", similar(.like.as_deref()))]
    Unknown {
        /// The name.
        name: String,
        /// A column with a similar name.
        like: Option<String>,
    },
    /// A link can't be exported.
    #[error("`{0}` is a link that gives access to the document's file, and is not exported")]
    Link(String),
    /// Lines have columns of their own.
    #[error(
        "the lines have columns of their own, such as `line.name`; `documents show` prints a whole document"
    )]
    Lines,
    /// A column of lines in an export of documents.
    #[error("`{0}` belongs to a line; choose a row per line, or leave it out")]
    OfLine(String),
    /// None, or too many.
    #[error("choose 1 to {MAX_COLUMNS} columns")]
    Number,
}

fn similar(name: Option<&str>) -> String {
    name.map(|name| format!("; did you mean `{name}`?"))
        .unwrap_or_default()
}

impl Column {
    /// Finds the column of this name, in any letter case.
    fn find(name: &str) -> Result<Self, ColumnError> {
        let lower = name.to_ascii_lowercase();
        if let Some(field) = lower.strip_prefix(ANY_FIELD) {
            return Self::any_field(name, field);
        }
        if let Some(known) = known().into_iter().find(|known| known.name == lower) {
            return Ok(known);
        }
        match lower.as_str() {
            "url" => Err(ColumnError::Link(lower)),
            LINES => Err(ColumnError::Lines),
            _ => Err(ColumnError::Unknown {
                name: visible(name).chars().take(60).collect(),
                like: closest(&lower),
            }),
        }
    }

    /// Returns the column of a field about which nothing is known; `name` is as chosen.
    fn any_field(name: &str, field: &str) -> Result<Self, ColumnError> {
        // The JSON may have other letter case, which is found too; the name is kept as chosen.
        let source = match field.strip_prefix(OF_LINE) {
            Some(field) => Source::Line(field.to_owned()),
            None => Source::Document(field.to_owned()),
        };
        match &source {
            Source::Line(field) | Source::Document(field) if field.is_empty() => {
                return Err(ColumnError::Unknown {
                    name: name.to_owned(),
                    like: None,
                });
            }
            Source::Document(field) if field == "url" => {
                return Err(ColumnError::Link(field.clone()));
            }
            Source::Document(field) if field == LINES => return Err(ColumnError::Lines),
            _ => {}
        }
        Ok(Self {
            name: name.to_owned(),
            kind: CellKind::Any,
            source,
        })
    }

    fn is_of_line(&self) -> bool {
        matches!(self.source, Source::Line(_) | Source::Own(Own::LineNumber))
    }

    /// Returns true if it may hold anything, such as a link.
    pub fn may_hold_anything(&self) -> bool {
        self.kind == CellKind::Any
    }

    /// Returns the cell of a row as JSON, as written; `None` if the document does not have it.
    pub(super) fn value<'a>(&self, row: &Row<'a>) -> Option<Cow<'a, str>> {
        let text = |text: &str| serde_json::to_string(text).ok().map(Cow::Owned);
        let document = row.document;
        match &self.source {
            Source::Own(own) => match own {
                Own::Sequence => Some(document.sequence.to_string().into()),
                Own::Account => text(document.feed.account.as_str()),
                Own::Queue => text(document.feed.queue.as_str()),
                Own::Company => text(document.feed.company.as_str()),
                Own::DocumentId => text(&document.document_id),
                Own::Version => text(&document.version),
                Own::StoredAt => text(&document.stored_at.to_string()),
                Own::Superseded => Some(document.superseded.to_string().into()),
                Own::LineNumber => row.line_number.map(|number| number.to_string().into()),
                // Known once all other cells of the row are.
                Own::Replaced => None,
            },
            Source::Document(field) => row.entry.raw(field).map(Cow::Borrowed),
            Source::Line(field) => row.line?.raw(field).map(Cow::Borrowed),
        }
    }
}

/// The row whose cells are read: a document, and perhaps one of its lines.
pub(super) struct Row<'a> {
    pub(super) document: &'a DocumentRow,
    pub(super) entry: &'a Entry<'a>,
    pub(super) line: Option<&'a Entry<'a>>,
    pub(super) line_number: Option<usize>,
}

/// Returns every column that has a name of its own.
pub fn known() -> Vec<Column> {
    let own = Own::ALL.into_iter().map(|(name, own)| Column {
        name: name.to_owned(),
        kind: match own {
            Own::Replaced => CellKind::Replaced,
            _ => CellKind::Text,
        },
        source: Source::Own(own),
    });
    let kind = |kind: FieldKind| match kind {
        FieldKind::Text => Some(CellKind::Text),
        FieldKind::Decimal => Some(CellKind::Decimal),
        FieldKind::Link | FieldKind::Lines => None,
    };
    let of_document = DOCUMENT_FIELDS.into_iter().filter_map(|field| {
        Some(Column {
            name: field.name.to_owned(),
            kind: kind(field.kind)?,
            source: Source::Document(field.name.to_owned()),
        })
    });
    let of_line = LINE_FIELDS.into_iter().filter_map(|field| {
        Some(Column {
            name: format!("{OF_LINE}{}", field.name),
            kind: kind(field.kind)?,
            source: Source::Line(field.name.to_owned()),
        })
    });
    own.chain(of_document).chain(of_line).collect()
}

/// Returns the known column with the most similar name, if one is similar.
fn closest(name: &str) -> Option<String> {
    const SIMILAR: f64 = 0.7;
    let similarity = |column: &Column| strsim::normalized_damerau_levenshtein(name, &column.name);
    let best = known()
        .into_iter()
        .max_by(|a, b| similarity(a).total_cmp(&similarity(b)))?;
    (similarity(&best) >= SIMILAR).then_some(best.name)
}

/// Parses the chosen columns, separated by commas: names, `all` for all that have a name, and the
/// default ones if there are none.
///
/// # Errors
///
/// A [`ColumnError`].
pub fn parse(text: Option<&str>, per: Per) -> Result<Vec<Column>, ColumnError> {
    let columns = match text.map(str::trim).filter(|text| !text.is_empty()) {
        Some("all") => {
            let mut all = known();
            all.retain(|column| per == Per::Line || !column.is_of_line());
            all
        }
        chosen => {
            let text = match (chosen, per) {
                (Some(text), _) => text.to_owned(),
                (None, Per::Document) => DEFAULT.to_owned(),
                (None, Per::Line) => format!("{DEFAULT},{DEFAULT_OF_LINES}"),
            };
            let names = text
                .split(',')
                .map(str::trim)
                .filter(|name| !name.is_empty());
            // One more than is allowed shows that there are too many.
            let names = names.take(MAX_COLUMNS + 1);
            names.map(Column::find).collect::<Result<_, _>>()?
        }
    };
    if !(1..=MAX_COLUMNS).contains(&columns.len()) {
        return Err(ColumnError::Number);
    }
    if per == Per::Document
        && let Some(column) = columns.iter().find(|column| column.is_of_line())
    {
        return Err(ColumnError::OfLine(column.name.clone()));
    }
    Ok(columns)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str, per: Per) -> String {
        parse(Some(text), per).expect_err(text).to_string()
    }

    #[test]
    fn a_column_that_does_not_exist_is_named_with_a_similar_one() {
        let text = error("docnum,sellernam", Per::Document);
        assert!(
            text.contains("`sellernam`") && text.contains("`sellername`"),
            "{text}"
        );
        let text = error("field:", Per::Document);
        assert!(text.contains("`field:`"), "{text}");
        assert!(error(",,", Per::Document).contains("1 to 100"));
        assert!(error(&"date,".repeat(101), Per::Document).contains("1 to 100"));
    }

    #[test]
    fn no_column_holds_the_link_to_the_file() {
        for name in ["url", "URL", "field:url", "field:Url"] {
            assert!(error(name, Per::Line).contains("link"), "{name}");
        }
        assert!(known().iter().all(|column| column.name != "url"));
    }

    #[test]
    fn columns_of_lines_need_a_row_per_line() {
        for name in ["line.total", "line_number", "field:line.color"] {
            assert!(
                error(name, Per::Document).contains("row per line"),
                "{name}"
            );
            assert!(parse(Some(name), Per::Line).is_ok(), "{name}");
        }
        assert!(error("line", Per::Line).contains("line.name"));
        assert!(error("field:line", Per::Line).contains("line.name"));
        for per in [Per::Document, Per::Line] {
            for text in [None, Some(""), Some("all")] {
                assert!(parse(text, per).is_ok(), "{text:?} {per:?}");
            }
        }
    }

    #[test]
    fn the_documentation_lists_every_column_with_its_evidence() {
        let text = include_str!("../../docs/export.md");
        for (name, _) in Own::ALL {
            assert!(text.contains(&format!("| `{name}` |")), "{name}");
        }
        let line = |field: &crate::ivesk::ExpectedField, prefix: &str| {
            let row = format!("| `{prefix}{}` | {} |", field.name, field.evidence.as_str());
            assert!(text.contains(&row), "{row}");
        };
        for field in &DOCUMENT_FIELDS {
            if !matches!(field.kind, FieldKind::Link | FieldKind::Lines) {
                line(field, "");
            }
        }
        LINE_FIELDS.iter().for_each(|field| line(field, OF_LINE));
    }
}
