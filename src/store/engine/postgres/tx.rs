//! Operations in transactions of PostgreSQL.

use std::borrow::Cow;
use std::ops::ControlFlow;

use bytes::BytesMut;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};

use super::connection::Transaction;
use crate::domain::Timestamp;
use crate::store::engine::{
    NewNotification, NotificationColumns, Param, ReadRow, Row, Sql, Statement, TermsOf, Tx, Value,
    list, params, which_are_new,
};
use crate::store::error::Result;

type BoxedError = Box<dyn std::error::Error + Sync + Send>;

/// The futures of statements are on the heap: each has some 6 KB, and an operation that joins many would need much of a
/// thread's stack.
impl Tx for Transaction<'_> {
    const IN_PROCESS: bool = false;

    fn now_or(&self, _local: Timestamp) -> Timestamp {
        self.now()
    }

    async fn lock(&self, number: i64) -> Result<()> {
        let params: &[&dyn Param] = &[&number];
        Box::pin(Transaction::execute(
            self,
            "SELECT pg_advisory_xact_lock($1)",
            params,
        ))
        .await?;
        Ok(())
    }

    async fn each(&self, sql: &'static Sql, params: &[&dyn Param], row: ReadRow<'_>) -> Result<()> {
        Box::pin(Transaction::each(self, sql.postgres(), params, |found| {
            row(found)
        }))
        .await
    }

    async fn execute(&self, sql: &'static Sql, params: &[&dyn Param]) -> Result<usize> {
        Box::pin(Transaction::execute(self, sql.postgres(), params)).await
    }

    async fn insert_notifications(
        &self,
        notifications: &[NewNotification<'_>],
    ) -> Result<Vec<bool>> {
        static SQL: Sql = Sql::new(
            "INSERT INTO notification (account_id, event, published_at, message_id, kind, received_at, body)
             SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7)
             ON CONFLICT (published_at, message_id, account_id, event) DO NOTHING
             RETURNING published_at, message_id, account_id, event",
        );
        let new = NotificationColumns::of(notifications);
        let params = params! {
            new.account, new.event, new.published_at, new.message_id, new.kind, new.received_at, new.body,
        };
        let inserted = self.all(&SQL, params).await?;
        Ok(which_are_new(notifications, &inserted))
    }

    async fn last(&self, statements: &[Statement<'_>], row: ReadRow<'_>) -> Result<()> {
        Box::pin(self.run_and_commit(statements, |found| row(found))).await
    }

    async fn insert_numbered(
        &self,
        sql: &'static Sql,
        rows: &[Vec<&dyn Param>],
        terms: TermsOf<'_>,
    ) -> Result<()> {
        let mut rest = rows;
        while !rest.is_empty() {
            let (batch, later) = rest.split_at(first_batch(rest));
            let columns: Vec<Column<'_>> = (0..batch[0].len())
                .map(|column| Column(list(batch, |row| row[column])))
                .collect();
            let first = rows.len() - rest.len();
            let of_row = |at| {
                terms(first + at)
                    .into_iter()
                    .map(move |term| (at + 1, term))
            };
            let (places, terms): (Vec<usize>, Vec<String>) =
                (0..batch.len()).flat_map(of_row).unzip();
            let count = batch.len();
            let mut params: Vec<&dyn Param> = vec![&count];
            params.extend(columns.iter().map(|column| column as &dyn Param));
            params.extend([&places as &dyn Param, &terms]);
            if later.is_empty() {
                // Nobody waits for the counter until then; a visible number is committed, as are all
                // before it.
                let no_rows = |_: &_| Ok(ControlFlow::Break(()));
                Box::pin(self.run_and_commit(&[(sql, &params)], no_rows)).await?;
            } else {
                Tx::execute(self, sql, &params).await?;
            }
            rest = later;
        }
        Ok(())
    }
}

/// The most bytes of values in one statement, which its client copies twice; one row may have more.
const MAX_BATCH_BYTES: usize = 2 * 1024 * 1024;

/// Returns the number of rows for one statement, of which there is at least one.
fn first_batch(rows: &[Vec<&dyn Param>]) -> usize {
    let size = |value: Value<'_>| match value {
        Value::Text(text) => text.len(),
        Value::Bytes(bytes) => bytes.len(),
        _ => size_of::<i64>(),
    };
    let mut bytes = 0;
    let fitting = rows.iter().take_while(|row| {
        bytes += row.iter().map(|param| size(param.value())).sum::<usize>();
        bytes <= MAX_BATCH_BYTES
    });
    fitting.count().max(1)
}

/// The values of one column, of which there is at least one.
struct Column<'a>(Vec<&'a dyn Param>);

impl Param for Column<'_> {
    fn value(&self) -> Value<'_> {
        let values = list(&self.0, |param| param.value());
        Value::List(values[0].kind(), values)
    }
}

/// Escapes NUL, which JSON can contain and PostgreSQL can't store. The escape is U+FFFF,
/// which is no character and is escaped too, so that different texts stay different.
fn escape_nul(text: &str) -> Cow<'_, str> {
    if text.contains(['\0', '\u{ffff}']) {
        let escaped = text.replace('\u{ffff}', "\u{ffff}f");
        Cow::Owned(escaped.replace('\0', "\u{ffff}0"))
    } else {
        Cow::Borrowed(text)
    }
}

/// Reverses [`escape_nul`].
fn unescape_nul(text: &str) -> Cow<'_, str> {
    if text.contains('\u{ffff}') {
        let unescaped = text.replace("\u{ffff}0", "\0");
        Cow::Owned(unescaped.replace("\u{ffff}f", "\u{ffff}"))
    } else {
        Cow::Borrowed(text)
    }
}

impl ToSql for Value<'_> {
    /// Writes the value; its texts are escaped by [`escape_nul`].
    fn to_sql(&self, kind: &Type, out: &mut BytesMut) -> Result<IsNull, BoxedError> {
        match self {
            Self::Null(_) => Ok(IsNull::Yes),
            Self::Integer(number) => number.to_sql(kind, out),
            Self::Boolean(yes) => yes.to_sql(kind, out),
            Self::Text(text) => escape_nul(text).to_sql(kind, out),
            Self::Bytes(bytes) => bytes.to_sql(kind, out),
            Self::List(_, values) => values.to_sql(kind, out),
        }
    }

    fn accepts(_kind: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

impl Row for tokio_postgres::Row {
    fn is_null(&self, column: usize) -> Result<bool> {
        let found: Option<Present> = self.try_get(column)?;
        Ok(found.is_none())
    }

    fn integer(&self, column: usize) -> Result<i64> {
        let WholeNumber(number) = self.try_get(column)?;
        Ok(number)
    }

    fn boolean(&self, column: usize) -> Result<bool> {
        Ok(self.try_get(column)?)
    }

    fn text(&self, column: usize) -> Result<Cow<'_, str>> {
        Ok(unescape_nul(self.try_get(column)?))
    }

    fn bytes(&self, column: usize) -> Result<&[u8]> {
        Ok(self.try_get(column)?)
    }

    fn texts(&self, column: usize) -> Result<Vec<String>> {
        let texts: Vec<&str> = self.try_get(column)?;
        Ok(list(&texts, |text| unescape_nul(text).into_owned()))
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
    use super::super::types::type_of;
    use super::*;
    use proptest::prelude::*;

    fn written(param: &dyn Param) -> (Type, Option<Vec<u8>>) {
        let value = param.value();
        let kind = type_of(&value);
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
        assert_eq!(written(&Vec::<i64>::new()).0, Type::INT8_ARRAY);
        assert_eq!(written(&vec![None::<&[u8]>]).0, Type::BYTEA_ARRAY);
    }

    #[test]
    fn a_nul_is_escaped_in_texts_and_in_lists() {
        let (_, text) = written(&"a\0b");
        assert_eq!(text, Some("a\u{ffff}0b".into()));
        let (_, list) = written(&vec!["\0"]);
        let list = list.expect("it is not NULL");
        assert!(list.ends_with("\u{ffff}0".as_bytes()), "{list:?}");
    }

    proptest! {
        #[test]
        fn any_text_survives_escaping(text in "[\0\u{ffff}0f\\PC]{0,20}") {
            let stored = escape_nul(&text);
            prop_assert!(!stored.contains('\0'));
            prop_assert_eq!(&*unescape_nul(&stored), text.as_str());
        }
    }
}
