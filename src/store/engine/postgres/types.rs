//! The types of values.

use tokio_postgres::types::Type;

use crate::store::engine::{Kind, Value};

/// Returns the type of a value.
pub(super) fn type_of(value: &Value<'_>) -> Type {
    match value {
        Value::Null(kind) => scalar(*kind),
        Value::Integer(_) => Type::INT8,
        Value::Boolean(_) => Type::BOOL,
        Value::Text(_) => Type::TEXT,
        Value::Bytes(_) => Type::BYTEA,
        Value::List(Kind::Integer, _) => Type::INT8_ARRAY,
        Value::List(Kind::Boolean, _) => Type::BOOL_ARRAY,
        Value::List(Kind::Text, _) => Type::TEXT_ARRAY,
        Value::List(Kind::Bytes, _) => Type::BYTEA_ARRAY,
    }
}

fn scalar(kind: Kind) -> Type {
    match kind {
        Kind::Integer => Type::INT8,
        Kind::Boolean => Type::BOOL,
        Kind::Text => Type::TEXT,
        Kind::Bytes => Type::BYTEA,
    }
}
