//! Values that go into statements, and columns that come out of rows.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;

use crate::domain::Timestamp;
use crate::store::error::Result;

/// The kind of a value, which NULL has too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Kind {
    Integer,
    Boolean,
    Text,
    Bytes,
}

/// A value of a statement.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::store) enum Value<'a> {
    /// NULL.
    Null(Kind),
    /// A whole number.
    Integer(i64),
    /// A truth value.
    Boolean(bool),
    /// Text.
    Text(&'a str),
    /// Bytes.
    Bytes(&'a [u8]),
    /// A list of values of one kind.
    List(Kind, Vec<Value<'a>>),
}

impl fmt::Debug for Value<'_> {
    /// Prints the kind alone: a value may be a secret, and the client of PostgreSQL logs values.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.kind())
    }
}

impl Value<'_> {
    /// Returns its kind, or that of its elements.
    pub(in crate::store) fn kind(&self) -> Kind {
        match self {
            Self::Null(kind) | Self::List(kind, _) => *kind,
            Self::Integer(_) => Kind::Integer,
            Self::Boolean(_) => Kind::Boolean,
            Self::Text(_) => Kind::Text,
            Self::Bytes(_) => Kind::Bytes,
        }
    }
}

/// Something that a statement takes as a value.
pub(in crate::store) trait Param: Sync {
    /// Returns its value.
    fn value(&self) -> Value<'_>;
}

/// A [`Param`] whose values are of one kind, so that there may be none, or several.
pub(in crate::store) trait Scalar: Param {
    /// The kind.
    const KIND: Kind;
}

/// Implements [`Scalar`]: `type: its kind, value => how it is written;`.
macro_rules! scalars {
    ($($rust:ty: $kind:ident, $this:ident => $value:expr;)*) => {
        $(impl $crate::store::engine::Param for $rust {
            fn value(&self) -> $crate::store::engine::Value<'_> {
                let $this = self;
                $crate::store::engine::Value::$kind($value)
            }
        }

        impl $crate::store::engine::Scalar for $rust {
            const KIND: $crate::store::engine::Kind = $crate::store::engine::Kind::$kind;
        })*
    };
}
pub(in crate::store) use scalars;

scalars! {
    i64: Integer, number => *number;
    u32: Integer, number => i64::from(*number);
    u64: Integer, number => signed(*number);
    usize: Integer, number => signed(*number);
    Timestamp: Integer, moment => moment.as_millis();
    bool: Boolean, yes => *yes;
    str: Text, text => text;
    String: Text, text => text;
    [u8]: Bytes, bytes => bytes;
    [u8; 32]: Bytes, bytes => bytes;
    Vec<u8>: Bytes, bytes => bytes;
    Bytes: Bytes, bytes => bytes;
}

impl<P: Scalar> Param for Option<P> {
    fn value(&self) -> Value<'_> {
        self.as_ref().map_or(Value::Null(P::KIND), P::value)
    }
}

impl<P: Scalar> Scalar for Option<P> {
    const KIND: Kind = P::KIND;
}

impl<P: Scalar> Param for [P] {
    fn value(&self) -> Value<'_> {
        Value::List(P::KIND, self.iter().map(P::value).collect())
    }
}

impl<P: Scalar> Param for Vec<P> {
    fn value(&self) -> Value<'_> {
        self.as_slice().value()
    }
}

impl<P: Param + ?Sized> Param for &P {
    fn value(&self) -> Value<'_> {
        (**self).value()
    }
}

impl<P: Scalar + ?Sized> Scalar for &P {
    const KIND: Kind = P::KIND;
}

/// Returns the parameters of a statement: `params! { id, name }`.
macro_rules! params {
    ($($param:expr),* $(,)?) => {
        &[$(&$param as &dyn $crate::store::engine::Param),*]
    };
}
pub(in crate::store) use params;

/// Converts a count or a limit to the signed number that databases expect.
fn signed(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

/// A row of a result.
pub(in crate::store) trait Row {
    /// Returns true if the column is NULL.
    fn is_null(&self, column: usize) -> Result<bool>;

    /// Reads a whole number.
    fn integer(&self, column: usize) -> Result<i64>;

    /// Reads a truth value.
    fn boolean(&self, column: usize) -> Result<bool>;

    /// Reads text.
    fn text(&self, column: usize) -> Result<Cow<'_, str>>;

    /// Reads bytes.
    fn bytes(&self, column: usize) -> Result<&[u8]>;

    /// Reads a list of texts: an array, or its JSON where the database has no arrays.
    fn texts(&self, column: usize) -> Result<Vec<String>>;
}

/// The columns of a row that were not read yet.
pub(in crate::store) struct Columns<'r> {
    row: &'r dyn Row,
    next: usize,
}

impl<'r> Columns<'r> {
    /// Returns all columns of a row.
    pub(in crate::store) fn of(row: &'r dyn Row) -> Self {
        Self { row, next: 0 }
    }

    /// Reads the next column, or the next several.
    pub(in crate::store) fn get<C: Column>(&mut self) -> Result<C> {
        C::read(self)
    }

    /// Reads the next column as text.
    pub(in crate::store) fn text(&mut self) -> Result<Cow<'r, str>> {
        self.next(Row::text)
    }

    fn next<C>(&mut self, read: impl FnOnce(&'r dyn Row, usize) -> Result<C>) -> Result<C> {
        let column = self.next;
        self.next += 1;
        read(self.row, column)
    }
}

/// Something that is read from one column, or from several that follow each other.
pub(in crate::store) trait Column: Sized {
    /// Reads it.
    fn read(columns: &mut Columns<'_>) -> Result<Self>;
}

macro_rules! columns {
    ($($rust:ty: ($row:ident, $column:ident) => $value:expr;)*) => {
        $(impl Column for $rust {
            fn read(columns: &mut Columns<'_>) -> Result<Self> {
                columns.next(|$row, $column| Ok($value))
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
    // NULL is a list without elements.
    Vec<String>: (row, column) => match row.is_null(column)? {
        true => Vec::new(),
        false => row.texts(column)?,
    };
}

/// A row that exists.
impl Column for () {
    fn read(_columns: &mut Columns<'_>) -> Result<Self> {
        Ok(())
    }
}

/// One column that may be NULL.
impl<C: Column> Column for Option<C> {
    fn read(columns: &mut Columns<'_>) -> Result<Self> {
        if columns.row.is_null(columns.next)? {
            columns.next += 1;
            return Ok(None);
        }
        C::read(columns).map(Some)
    }
}

/// Implements [`Column`] for tuples and structs whose parts follow each other.
macro_rules! rows {
    ($($rust:ident { $($field:ident),* $(,)? })*) => {
        $(impl $crate::store::engine::Column for $rust {
            fn read(
                columns: &mut $crate::store::engine::Columns<'_>,
            ) -> Result<Self, $crate::store::StoreError> {
                Ok(Self { $($field: columns.get()?),* })
            }
        })*
    };
}
pub(in crate::store) use rows;

macro_rules! tuples {
    ($(($($part:ident),*))*) => {
        $(impl<$($part: Column),*> Column for ($($part,)*) {
            fn read(columns: &mut Columns<'_>) -> Result<Self> {
                Ok(($(columns.get::<$part>()?,)*))
            }
        })*
    };
}

tuples! { (A, B) (A, B, C) (A, B, C, D) }
