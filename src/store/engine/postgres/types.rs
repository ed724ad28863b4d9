//! The types of values.

use tokio_postgres::types::Type;

use crate::store::engine::{Kind, Value};

/// Returns the type of a value.
pub(super) fn type_of(value: &Value<'_>) -> Type {
    match (value.kind(), matches!(value, Value::List(..))) {
        (Kind::Integer, false) => Type::INT8,
        (Kind::Boolean, false) => Type::BOOL,
        (Kind::Text, false) => Type::TEXT,
        (Kind::Bytes, false) => Type::BYTEA,
        (Kind::Integer, true) => Type::INT8_ARRAY,
        (Kind::Boolean, true) => Type::BOOL_ARRAY,
        (Kind::Text, true) => Type::TEXT_ARRAY,
        (Kind::Bytes, true) => Type::BYTEA_ARRAY,
    }
}
