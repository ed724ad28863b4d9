//! Operations in transactions of PostgreSQL.

use std::borrow::Cow;

use bytes::BytesMut;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};

use super::connection::{Parameter, Transaction};
use super::rows::{escape_nul, unescape_nul};
use crate::domain::Timestamp;
use crate::store::StoreError;
use crate::store::engine::{NewVersions, Param, ReadRow, Row, Sql, Tx, Value};

type BoxedError = Box<dyn std::error::Error + Sync + Send>;

impl Tx for Transaction<'_> {
    fn now_or(&self, _local: Timestamp) -> Timestamp {
        self.now()
    }

    async fn lock(&mut self, number: i64) -> Result<(), StoreError> {
        self.query("SELECT pg_advisory_xact_lock($1)", &[&number])
            .await?;
        Ok(())
    }

    async fn each(
        &mut self,
        sql: &'static Sql,
        params: &[&dyn Param],
        row: ReadRow<'_>,
    ) -> Result<(), StoreError> {
        self.stream(sql.postgres(), typed(params), |found| row(found))
            .await
    }

    async fn execute(
        &mut self,
        sql: &'static Sql,
        params: &[&dyn Param],
    ) -> Result<usize, StoreError> {
        let values = typed(params);
        let values: Vec<(&(dyn ToSql + Sync), Type)> = values
            .iter()
            .map(|(value, kind)| (value as &(dyn ToSql + Sync), kind.clone()))
            .collect();
        self.execute_typed(sql.postgres(), &values).await
    }

    async fn insert_versions(&mut self, new: &NewVersions<'_>) -> Result<(), StoreError> {
        let documents = || new.versions.iter().map(|version| version.document);
        let ids: Vec<String> = documents().map(|one| escape_nul(&one.id)).collect();
        let versions: Vec<String> = documents().map(|one| escape_nul(&one.version)).collect();
        let times: Vec<Option<i64>> = documents()
            .map(|one| one.version_time().map(Timestamp::as_millis))
            .collect();
        let bodies: Vec<&[u8]> = documents().map(|one| one.body.as_slice()).collect();
        let superseded: Vec<bool> = new.versions.iter().map(|one| one.superseded).collect();
        let values: [&dyn Parameter; 10] = [
            &i64::try_from(ids.len()).unwrap_or(i64::MAX),
            &ids,
            &versions,
            &times,
            &superseded,
            &bodies,
            &new.feed,
            &new.first_pull,
            &new.found_by,
            &new.stored_at.as_millis(),
        ];
        // Sent with COMMIT, so that nobody waits for the counter until then; a visible number
        // is committed, as are all before it.
        let inserted = self
            .execute_and_commit(
                "WITH counter AS (UPDATE sequence SET last = last + $1 RETURNING last - $1 AS before)
                 INSERT INTO document (sequence, feed_id, document_id, version, version_ms, superseded, first_pull,
                     found_by, stored_at, body)
                 SELECT counter.before + n.number, $7, n.document_id, n.version, n.version_ms, n.superseded, $8, $9, $10, n.body
                 FROM counter, unnest($2, $3, $4, $5, $6) WITH ORDINALITY
                     AS n (document_id, version, version_ms, superseded, body, number)",
                &values,
            )
            .await?;
        debug_assert_eq!(inserted, ids.len());
        Ok(())
    }
}

fn typed<'a>(params: &[&'a dyn Param]) -> Vec<(Value<'a>, Type)> {
    params
        .iter()
        .map(|param| {
            let value = param.value();
            let kind = kind(&value);
            (value, kind)
        })
        .collect()
}

/// Returns the value's type, which is not known otherwise as nothing is prepared.
fn kind(value: &Value<'_>) -> Type {
    match value {
        Value::Integer(_) => Type::INT8,
        Value::Boolean(_) => Type::BOOL,
        Value::Text(_) => Type::TEXT,
        Value::Bytes(_) => Type::BYTEA,
        Value::Texts(_) => Type::TEXT_ARRAY,
        Value::Integers(_) => Type::INT8_ARRAY,
    }
}

impl ToSql for Value<'_> {
    /// Writes the value; its texts are escaped by [`escape_nul`].
    fn to_sql(&self, kind: &Type, out: &mut BytesMut) -> Result<IsNull, BoxedError> {
        match self {
            Self::Integer(number) => number.to_sql(kind, out),
            Self::Boolean(yes) => yes.to_sql(kind, out),
            Self::Text(text) => text.map(escape_nul).to_sql(kind, out),
            Self::Bytes(bytes) => bytes.to_sql(kind, out),
            Self::Integers(numbers) => numbers.to_sql(kind, out),
            Self::Texts(texts) => {
                let texts: Vec<String> = texts.iter().map(|text| escape_nul(text)).collect();
                texts.to_sql(kind, out)
            }
        }
    }

    fn accepts(_kind: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

impl Row for tokio_postgres::Row {
    fn is_null(&self, column: usize) -> Result<bool, StoreError> {
        let found: Option<Present> = self.try_get(column)?;
        Ok(found.is_none())
    }

    fn integer(&self, column: usize) -> Result<i64, StoreError> {
        let WholeNumber(number) = self.try_get(column)?;
        Ok(number)
    }

    fn boolean(&self, column: usize) -> Result<bool, StoreError> {
        Ok(self.try_get(column)?)
    }

    fn text(&self, column: usize) -> Result<Cow<'_, str>, StoreError> {
        let text: &str = self.try_get(column)?;
        Ok(if text.contains('\u{ffff}') {
            Cow::Owned(unescape_nul(text.to_owned()))
        } else {
            Cow::Borrowed(text)
        })
    }

    fn bytes(&self, column: usize) -> Result<&[u8], StoreError> {
        Ok(self.try_get(column)?)
    }

    fn texts(&self, column: usize) -> Result<Vec<String>, StoreError> {
        let texts: Vec<String> = self.try_get(column)?;
        Ok(texts.into_iter().map(unescape_nul).collect())
    }
}

/// A value of any type.
struct Present;

impl FromSql<'_> for Present {
    fn from_sql(_kind: &Type, _raw: &[u8]) -> Result<Self, BoxedError> {
        Ok(Self)
    }

    fn accepts(_kind: &Type) -> bool {
        true
    }
}

/// A whole number of a column, or of a function such as `length`, whose type is smaller.
struct WholeNumber(i64);

impl FromSql<'_> for WholeNumber {
    fn from_sql(kind: &Type, raw: &[u8]) -> Result<Self, BoxedError> {
        Ok(Self(if *kind == Type::INT4 {
            i32::from_sql(kind, raw)?.into()
        } else {
            i64::from_sql(kind, raw)?
        }))
    }

    fn accepts(kind: &Type) -> bool {
        matches!(*kind, Type::INT4 | Type::INT8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(param: &dyn Param) -> (Type, Option<Vec<u8>>) {
        let value = param.value();
        let kind = kind(&value);
        let mut out = BytesMut::new();
        let is_null = value.to_sql(&kind, &mut out).expect("wrote the value");
        let bytes = matches!(is_null, IsNull::No).then(|| out.to_vec());
        (kind, bytes)
    }

    #[test]
    fn values_are_written_with_their_types() {
        let number = |number: i64| Some(number.to_be_bytes().to_vec());
        assert_eq!(written(&5_i64), (Type::INT8, number(5)));
        assert_eq!(written(&usize::MAX), (Type::INT8, number(i64::MAX)));
        assert_eq!(written(&Timestamp::from_millis(7)), (Type::INT8, number(7)));
        assert_eq!(written(&None::<Timestamp>), (Type::INT8, None));
        assert_eq!(written(&true), (Type::BOOL, Some(vec![1])));
        assert_eq!(written(&"ą"), (Type::TEXT, Some("ą".into())));
        assert_eq!(written(&None::<String>), (Type::TEXT, None));
        assert_eq!(written(&[3; 32]), (Type::BYTEA, Some(vec![3; 32])));
        assert_eq!(written(&vec!["a"]).0, Type::TEXT_ARRAY);
        assert_eq!(written(&vec![5_i64]).0, Type::INT8_ARRAY);
    }

    #[test]
    fn a_nul_is_escaped_in_texts_and_in_lists() {
        let (_, text) = written(&"a\0b");
        assert_eq!(text, Some("a\u{ffff}0b".into()));
        let (_, list) = written(&vec!["\0"]);
        let list = list.expect("it is not NULL");
        assert!(list.ends_with("\u{ffff}0".as_bytes()), "{list:?}");
    }
}
