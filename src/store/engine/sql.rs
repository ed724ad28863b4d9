//! The text of a statement, written once and rendered for each database.

use std::sync::OnceLock;

/// A part of a statement that has a name.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) enum Fragment {
    /// The same text for both databases.
    Same(&'static str),
    /// SQLite's text and PostgreSQL's.
    Differs(&'static str, &'static str),
}

impl Fragment {
    const fn texts(self) -> [&'static str; 2] {
        match self {
            Self::Same(text) => [text, text],
            Self::Differs(sqlite, postgres) => [sqlite, postgres],
        }
    }
}

/// A fragment and its name.
type Named = (&'static str, Fragment);

/// The fragments of every statement: what the two databases say differently.
const DIALECT: &[Named] = &[
    // The greater and the lesser of several values; NULL if SQLite finds one among them.
    ("greatest", Fragment::Differs("max", "greatest")),
    ("least", Fragment::Differs("min", "least")),
    // Orders text by its bytes.
    ("bytewise", Fragment::Differs("", " COLLATE \"C\"")),
    // The elements of a list that is one parameter: `IN ({elements}($2))`.
    (
        "elements",
        Fragment::Differs("SELECT value FROM json_each", "SELECT unnest"),
    ),
    // The number of elements of such a list: `{length}($2) = 0`.
    (
        "length",
        Fragment::Differs("json_array_length", "cardinality"),
    ),
    // Gathers texts in one list: `{list}(name ORDER BY name)`; no rows may be NULL.
    ("list", Fragment::Differs("json_group_array", "array_agg")),
    // Joins after the tables before it. SQLite reorders inner joins otherwise, and may choose
    // one that scans or sorts.
    ("then_join", Fragment::Differs("CROSS JOIN", "JOIN")),
    // Joins the delivery `h` of a version `d` to destination $1, if there is one. PostgreSQL looks
    // each up, whatever it knows of the table: as long as nothing has analyzed it, it takes a
    // destination for one of two hundred, and may read all deliveries for each version.
    (
        "with_delivery",
        Fragment::Differs(
            "LEFT JOIN delivery h ON h.destination_id = $1 AND h.sequence = d.sequence",
            "LEFT JOIN LATERAL (SELECT * FROM delivery
                 WHERE destination_id = $1 AND sequence = d.sequence LIMIT 1) AS h ON true",
        ),
    ),
    // Reads a document's few versions; SQLite would otherwise scan its whole feed.
    (
        "by_identity",
        Fragment::Differs(" INDEXED BY document_identity", ""),
    ),
    // Keeps PostgreSQL from using an index of a column, for a comparison or for an order:
    // `feed_id{no_index} = $1`. It would read a whole feed that it takes for a small one, or a whole table
    // for its order.
    ("no_index", Fragment::Differs("", " + 0")),
    // Reads the deliveries in one state, the lanes that are due, the versions that are tried again soon,
    // and the lanes in trouble; SQLite would otherwise read all of their destination.
    (
        "by_state",
        Fragment::Differs(" INDEXED BY delivery_state", ""),
    ),
    ("by_due", Fragment::Differs(" INDEXED BY lane_due", "")),
    (
        "by_retry",
        Fragment::Differs(" INDEXED BY delivery_retry", ""),
    ),
    (
        "by_trouble",
        Fragment::Differs(" INDEXED BY lane_trouble", ""),
    ),
    // Locks the selected rows until the end of the transaction.
    ("lock_rows", Fragment::Differs("", " FOR NO KEY UPDATE")),
    // Locks the selected rows in the order of ids, which prevents deadlocks.
    (
        "lock_in_order",
        Fragment::Differs("", " ORDER BY id FOR NO KEY UPDATE"),
    ),
    // Locks the selected rows; those that another transaction holds are left out.
    (
        "skip_locked",
        Fragment::Differs("", " FOR UPDATE SKIP LOCKED"),
    ),
];

/// A statement.
///
/// Parameters are `$1`, `$2` and following. `{name}` stands for a fragment: one of the
/// statement's own, whose text may contain later ones, or one of the common ones. An unknown name
/// fails to compile in a `static`.
#[derive(Debug)]
pub(in crate::store) struct Sql {
    text: &'static str,
    fragments: &'static [Named],
    rendered: [OnceLock<String>; 2],
}

/// Indexes of the databases in [`Fragment::texts`] and [`Sql::rendered`].
const SQLITE: usize = 0;
const POSTGRES: usize = 1;

impl Sql {
    /// Returns the statement with this text.
    pub(in crate::store) const fn new(text: &'static str) -> Self {
        Self::with(text, &[])
    }

    /// Returns the statement with this text and these fragments.
    ///
    /// # Panics
    ///
    /// Panics if a fragment is unknown.
    pub(in crate::store) const fn with(text: &'static str, fragments: &'static [Named]) -> Self {
        assert_known(text, fragments);
        let mut index = 0;
        while index < fragments.len() {
            let [sqlite, postgres] = fragments[index].1.texts();
            index += 1;
            // It may contain those after it.
            let (_, later) = fragments.split_at(index);
            assert_known(sqlite, later);
            assert_known(postgres, later);
        }
        Self {
            text,
            fragments,
            rendered: [const { OnceLock::new() }; 2],
        }
    }

    /// Returns SQLite's text.
    pub(in crate::store) fn sqlite(&self) -> &str {
        self.rendered[SQLITE].get_or_init(|| question_marks(&self.render(SQLITE)))
    }

    /// Returns PostgreSQL's text.
    pub(in crate::store) fn postgres(&self) -> &str {
        self.rendered[POSTGRES].get_or_init(|| self.render(POSTGRES))
    }

    fn render(&self, database: usize) -> String {
        let own = replace(self.text, self.fragments, database);
        replace(&own, DIALECT, database)
    }
}

/// Replaces the fragments of `text`; names that are none of `fragments` remain.
fn replace(text: &str, fragments: &[Named], database: usize) -> String {
    let mut text = text.to_owned();
    for (name, fragment) in fragments {
        let name = format!("{{{name}}}");
        if text.contains(&name) {
            text = text.replace(&name, fragment.texts()[database]);
        }
    }
    text
}

/// Replaces `$1` by `?1` outside of quoted text: SQLite takes `$1` for a name.
fn question_marks(text: &str) -> String {
    let mut quoted = false;
    text.chars()
        .map(|character| {
            quoted ^= character == '\'';
            if character == '$' && !quoted {
                '?'
            } else {
                character
            }
        })
        .collect()
}

/// Panics if `text` names a fragment that is neither in `fragments` nor a common one.
const fn assert_known(text: &str, fragments: &[Named]) {
    let text = text.as_bytes();
    let mut index = 0;
    while index < text.len() {
        if text[index] == b'{' {
            assert!(
                is_named_at(text, index + 1, fragments) || is_named_at(text, index + 1, DIALECT),
                "a statement names an unknown fragment"
            );
        }
        index += 1;
    }
}

/// Returns true if the name of one of `fragments` and a closing brace are at `start`.
const fn is_named_at(text: &[u8], start: usize, fragments: &[Named]) -> bool {
    let mut index = 0;
    while index < fragments.len() {
        let name = fragments[index].0.as_bytes();
        let end = start + name.len();
        let mut same = end < text.len() && text[end] == b'}';
        let mut offset = 0;
        while same && offset < name.len() {
            same = text[start + offset] == name[offset];
            offset += 1;
        }
        if same {
            return true;
        }
        index += 1;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_rewritten_outside_of_quoted_text() {
        static SQL: Sql = Sql::new("SELECT $1, '$2 isn''t $3', $12 FROM t WHERE a = $1");
        assert_eq!(
            SQL.sqlite(),
            "SELECT ?1, '$2 isn''t $3', ?12 FROM t WHERE a = ?1"
        );
        assert_eq!(
            SQL.postgres(),
            "SELECT $1, '$2 isn''t $3', $12 FROM t WHERE a = $1"
        );
    }

    #[test]
    fn fragments_are_rendered_for_each_database() {
        const FRAGMENTS: &[Named] = &[
            ("columns", Fragment::Same("id, {greatest}(a, $1)")),
            ("rows", Fragment::Differs("r", "ROW(r)")),
        ];
        static SQL: Sql = Sql::with(
            "SELECT {columns}, {rows} FROM t WHERE b IN ({elements}($2)){skip_locked}",
            FRAGMENTS,
        );
        assert_eq!(
            SQL.sqlite(),
            "SELECT id, max(a, ?1), r FROM t WHERE b IN (SELECT value FROM json_each(?2))"
        );
        assert_eq!(
            SQL.postgres(),
            "SELECT id, greatest(a, $1), ROW(r) FROM t WHERE b IN (SELECT unnest($2)) \
             FOR UPDATE SKIP LOCKED"
        );
    }

    #[test]
    #[should_panic(expected = "unknown fragment")]
    fn an_unknown_fragment_is_refused() {
        let _ = Sql::new("SELECT {no_such_fragment} FROM t");
    }
}
