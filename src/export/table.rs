//! Rows as CSV (RFC 4180), or as one JSON object a line.

use serde::{Deserialize, Serialize};

use super::cells::{self, Decimal, Encoding};
use super::columns::{CellKind, Column, Row};

/// The form of an export.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// A table for spreadsheets, with the columns' names in its first row
    Csv,
    /// One JSON object a line, with the values as Įvesk.lt wrote them
    Json,
}

/// What separates cells.
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
pub enum Separator {
    /// A comma
    #[default]
    Comma,
    /// A semicolon, as spreadsheets in Lithuanian expect
    Semicolon,
    /// A tab
    Tab,
}

impl Separator {
    const fn byte(self) -> u8 {
        match self {
            Self::Comma => b',',
            Self::Semicolon => b';',
            Self::Tab => b'\t',
        }
    }
}

/// How a table is written.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Its form.
    pub format: Format,
    /// Its columns.
    pub columns: Vec<Column>,
    /// What separates cells of CSV.
    pub separator: Separator,
    /// The sign before decimals in CSV.
    pub decimal: Decimal,
    /// The encoding of CSV. JSON is always UTF-8.
    pub encoding: Encoding,
}

impl Layout {
    /// Returns the content type.
    pub fn content_type(&self) -> String {
        match self.format {
            Format::Csv => format!(
                "text/csv; charset={}; header=present",
                self.encoding.charset()
            ),
            Format::Json => "application/x-ndjson".to_owned(),
        }
    }

    /// Returns the ending of a file's name.
    pub const fn file_ending(&self) -> &'static str {
        match self.format {
            Format::Csv => "csv",
            Format::Json => "jsonl",
        }
    }
}

/// A table that is being written.
pub(super) struct Table {
    layout: Layout,
    bytes: Vec<u8>,
}

impl Table {
    /// Begins a table: its first row, which names the columns.
    pub(super) fn begin(layout: Layout) -> Self {
        let mut table = Self {
            bytes: Vec::new(),
            layout,
        };
        if table.layout.format == Format::Csv {
            if table.layout.encoding == Encoding::Utf8Bom {
                table.bytes.extend_from_slice("\u{feff}".as_bytes());
            }
            let names = table.layout.columns.iter();
            let mut names: Vec<String> = names.map(|column| column.name.clone()).collect();
            for name in &mut names {
                table.layout.encoding.replace(name);
            }
            table.record(&names);
        }
        table
    }

    /// Adds a row; returns the number of its characters that the encoding does not have.
    pub(super) fn row(&mut self, row: &Row<'_>) -> u64 {
        match self.layout.format {
            Format::Csv => self.csv_row(row),
            Format::Json => {
                self.json_row(row);
                0
            }
        }
    }

    fn csv_row(&mut self, row: &Row<'_>) -> u64 {
        let Layout {
            columns,
            decimal,
            encoding,
            ..
        } = &self.layout;
        let mut replaced = 0;
        let mut record = Vec::with_capacity(columns.len());
        for column in columns {
            let raw = column.value(row);
            let mut cell = raw.map(|raw| cells::csv(&raw, column.kind, *decimal));
            let cell = cell.take().map(|mut cell| {
                replaced += encoding.replace(&mut cell);
                cell
            });
            record.push(cell.unwrap_or_default());
        }
        for (column, cell) in columns.iter().zip(&mut record) {
            if column.kind == CellKind::Replaced {
                *cell = replaced.to_string();
            }
        }
        self.record(&record);
        replaced
    }

    /// Adds a row of cells to a table of CSV.
    fn record(&mut self, cells: &[String]) {
        let mut writer = csv::WriterBuilder::new()
            .delimiter(self.layout.separator.byte())
            .terminator(csv::Terminator::CRLF)
            .from_writer(Vec::new());
        // Every row has the same number of cells, and memory takes all of it.
        let written = writer.write_record(cells);
        debug_assert!(written.is_ok(), "{written:?}");
        let text = writer.into_inner().unwrap_or_default();
        self.bytes.extend(self.layout.encoding.encode(&text));
    }

    fn json_row(&mut self, row: &Row<'_>) {
        self.bytes.push(b'{');
        let mut is_first = true;
        for column in &self.layout.columns {
            let raw = column.value(row);
            let Some(value) = raw.as_deref().and_then(|raw| cells::json(raw, column.kind)) else {
                continue;
            };
            let comma = if is_first { "" } else { "," };
            is_first = false;
            // The debug form of a name could differ from JSON.
            let name = serde_json::Value::from(column.name.as_str());
            self.bytes.extend(format!("{comma}{name}:").as_bytes());
            // A value may be written on several lines.
            self.bytes.extend(value.bytes().map(|byte| match byte {
                b'\n' | b'\r' => b' ',
                byte => byte,
            }));
        }
        self.bytes.extend_from_slice(b"}\n");
    }

    /// Returns the number of bytes that [`Table::take`] would return.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Returns what was added since the last call.
    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }
}
