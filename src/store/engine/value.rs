//! Values that go into statements, and columns that come out of rows.

use std::borrow::Cow;

use crate::domain::Timestamp;
use crate::store::StoreError;

/// A value of a statement; `None` is NULL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::store) enum Value<'a> {
    /// A whole number.
    Integer(Option<i64>),
    /// A truth value.
    Boolean(Option<bool>),
    /// Text.
    Text(Option<&'a str>),
    /// Bytes.
    Bytes(Option<&'a [u8]>),
    /// A list of texts.
    Texts(Vec<&'a str>),
    /// A list of whole numbers.
    Integers(&'a [i64]),
}

/// Something that a statement takes as a value.
pub(in crate::store) trait Param: Sync {
    /// Returns its value.
    fn value(&self) -> Value<'_>;
}

macro_rules! params {
    ($($rust:ty: $this:ident => $value:expr;)*) => {
        $(impl Param for $rust {
            fn value(&self) -> Value<'_> {
                let $this = self;
                $value
            }
        })*
    };
}

params! {
    i64: number => Value::Integer(Some(*number));
    u32: number => Value::Integer(Some(i64::from(*number)));
    u64: number => Value::Integer(Some(signed(*number)));
    usize: number => Value::Integer(Some(signed(*number)));
    Option<i64>: number => Value::Integer(*number);
    Timestamp: moment => Value::Integer(Some(moment.as_millis()));
    Option<Timestamp>: moment => Value::Integer(moment.map(Timestamp::as_millis));
    bool: yes => Value::Boolean(Some(*yes));
    &str: text => Value::Text(Some(text));
    String: text => Value::Text(Some(text));
    Option<&str>: text => Value::Text(*text);
    Option<String>: text => Value::Text(text.as_deref());
    &[u8]: bytes => Value::Bytes(Some(bytes));
    [u8; 32]: bytes => Value::Bytes(Some(bytes));
    Vec<u8>: bytes => Value::Bytes(Some(bytes));
    Option<&[u8]>: bytes => Value::Bytes(*bytes);
    Vec<&str>: texts => Value::Texts(texts.clone());
    Vec<String>: texts => Value::Texts(texts.iter().map(String::as_str).collect());
    Vec<i64>: numbers => Value::Integers(numbers);
    &[i64]: numbers => Value::Integers(numbers);
}

/// Converts a count or a limit to the signed number that databases expect.
fn signed(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

/// A row of a result.
pub(in crate::store) trait Row {
    /// Returns true if the column is NULL.
    fn is_null(&self, column: usize) -> Result<bool, StoreError>;

    /// Reads a whole number.
    fn integer(&self, column: usize) -> Result<i64, StoreError>;

    /// Reads a truth value.
    fn boolean(&self, column: usize) -> Result<bool, StoreError>;

    /// Reads text.
    fn text(&self, column: usize) -> Result<Cow<'_, str>, StoreError>;

    /// Reads bytes.
    fn bytes(&self, column: usize) -> Result<&[u8], StoreError>;

    /// Reads a list of texts: an array, or its JSON where the database has no arrays.
    fn texts(&self, column: usize) -> Result<Vec<String>, StoreError>;
}

impl dyn Row + '_ {
    /// Reads a column.
    pub(in crate::store) fn get<C: Column>(&self, column: usize) -> Result<C, StoreError> {
        C::read(self, column)
    }
}

/// Something that is read from one column, or from several that follow each other.
pub(in crate::store) trait Column: Sized {
    /// Reads it.
    fn read(row: &dyn Row, column: usize) -> Result<Self, StoreError>;
}

macro_rules! columns {
    ($($rust:ty: ($row:ident, $column:ident) => $value:expr;)*) => {
        $(impl Column for $rust {
            fn read($row: &dyn Row, $column: usize) -> Result<Self, StoreError> {
                Ok($value)
            }
        })*
    };
}

columns! {
    i64: (row, column) => row.integer(column)?;
    // Numbers that are never negative.
    u32: (row, column) => Self::try_from(row.integer(column)?).unwrap_or_default();
    u64: (row, column) => Self::try_from(row.integer(column)?).unwrap_or_default();
    usize: (row, column) => Self::try_from(row.integer(column)?).unwrap_or_default();
    bool: (row, column) => row.boolean(column)?;
    Timestamp: (row, column) => Self::from_millis(row.integer(column)?);
    String: (row, column) => row.text(column)?.into_owned();
    Vec<u8>: (row, column) => row.bytes(column)?.to_vec();
    Vec<String>: (row, column) => row.texts(column)?;
}

impl<C: Column> Column for Option<C> {
    fn read(row: &dyn Row, column: usize) -> Result<Self, StoreError> {
        if row.is_null(column)? {
            Ok(None)
        } else {
            C::read(row, column).map(Some)
        }
    }
}
