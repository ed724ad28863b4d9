//! Writes stored documents as rows of a table, and tells which fields they carry.
//!
//! - [`columns`]: the columns that may be chosen.
//! - [`cells`]: one cell as a spreadsheet reads it.
//! - [`table`]: rows as CSV or as lines of JSON.
//! - [`stream`]: reads the store and writes the table, part by part.
//! - [`fields`]: counts the fields of documents.
//!
//! Nothing is computed and nothing is guessed: an amount has the digits of its document, and a
//! field that a document does not have is an empty cell.

pub mod cells;
pub mod columns;
pub mod fields;
pub mod stream;
pub mod table;
