//! Documents by the text that a person writes, over everything that is stored.
//!
//! Each version has its terms in an index (src/domain/search_text.rs). Of the words of a search the one
//! whose documents reach furthest back is the rarest: its documents are read, newest first, and their
//! other terms decide. Nothing that is read grows with the store.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::documents::{COLUMNS, DocumentRow, OF_FEEDS};
use super::engine::{Fragment, Sql, Tx, operations, params};
use super::error::Result;
use super::uploads::uploads_named;
use crate::domain::search_text::{AllOf, AnyOf, SearchText, words};
use crate::domain::{Account, Company, Queue};

/// Most versions whose terms one search compares.
const MAX_EXAMINED: usize = 2_000;

/// Most times that one search reads on in the index.
const MAX_READS: usize = 10;

/// Versions that are read of each term, if several words must match.
const MANY: usize = 400;

/// The same, if one word does.
const FEW: usize = 100;

/// Most terms that the words of a search may begin.
const MAX_BEGUN: usize = 96;

/// Most uploads whose documents one name finds.
const MAX_UPLOADS: usize = 20;

/// A search for documents by a text: one row for each document, in the best version for the text among
/// its current ones. Those with the best rank are first, of one rank the newest.
#[derive(Clone, Debug)]
pub struct TextSearch {
    /// What is searched for.
    pub text: SearchText,
    /// Only this account's.
    pub account: Option<Account>,
    /// Only this queue's.
    pub queue: Option<Queue>,
    /// Only this company's.
    pub company: Option<Company>,
    /// Only what the whole text names: ids, uploads, numbers.
    pub whole: bool,
    /// Also versions that a newer one has replaced, and each version as a row.
    pub superseded: bool,
    /// Only what comes after this place.
    pub after: Option<Place>,
    /// Maximum number of rows.
    pub limit: usize,
}

impl TextSearch {
    /// Returns a search for what the whole text names, in any version, at most `limit`.
    pub fn named(text: &str, limit: usize) -> Self {
        Self {
            text: SearchText::read(text),
            account: None,
            queue: None,
            company: None,
            whole: true,
            superseded: true,
            after: None,
            limit,
        }
    }
}

/// A place in the results of a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The rank, as of [`SearchText`].
    pub rank: usize,
    /// The sequence number: what comes after the place in its rank has a lower one.
    pub before: i64,
}

impl Place {
    /// The place before everything.
    pub const START: Self = Self {
        rank: 0,
        before: i64::MAX,
    };

    /// Reads what [`Place`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        let (rank, before) = text.split_once('.')?;
        Some(Self {
            rank: rank.parse().ok()?,
            before: before.parse().ok()?,
        })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.rank, self.before)
    }
}

/// The result of a [`TextSearch`].
#[derive(Clone, Debug, Default)]
pub struct TextMatches {
    /// The versions, and the place of each.
    pub rows: Vec<(Place, DocumentRow)>,
    /// Where the search continues, which may find nothing; none at its end.
    pub next: Option<Place>,
    /// True if more terms begin with a word than were looked at: more letters would find more.
    pub incomplete: bool,
}

operations! {
    /// Finds documents by a text. One call examines a bounded number of versions, so it may return
    /// few rows, or none, and still tell where to continue.
    pub read find_documents(search: TextSearch) -> TextMatches;
}

async fn find_documents<T: Tx>(tx: &T, search: TextSearch) -> Result<TextMatches> {
    let ids = ids(tx, &search.text).await?;
    let start = search.after.unwrap_or(Place::START);
    let readings = match search.whole {
        true => &search.text.readings()[..1],
        false => search.text.readings(),
    };
    let mut found = TextMatches::default();
    let (mut reads, mut examined) = (0, 0);
    for rank in start.rank..=readings.len() {
        let terms = match rank.checked_sub(1) {
            Some(at) => Some(expanded(tx, &readings[at], &search.company).await?),
            None => None,
        };
        let mut place = Place {
            rank,
            before: match rank == start.rank {
                true => start.before,
                false => i64::MAX,
            },
        };
        loop {
            if reads == MAX_READS {
                found.next = Some(place);
                return Ok(found);
            }
            reads += 1;
            let (candidates, next) = match &terms {
                Some(terms) => {
                    let read = candidates(tx, terms, place.before).await?;
                    found.incomplete |= read.is_cut;
                    (read.sequences, read.next)
                }
                None => identified(tx, &ids, place.before).await?,
            };
            let mut rest = candidates.as_slice();
            while !rest.is_empty() {
                if examined >= MAX_EXAMINED {
                    found.next = Some(place);
                    return Ok(found);
                }
                let wanted = (search.limit - found.rows.len() + 1).clamp(20, FEW);
                let (part, later) = rest.split_at(wanted.min(rest.len()));
                (examined, rest) = (examined + part.len(), later);
                for row in matching(tx, &search, &ids, rank, part).await? {
                    if found.rows.len() == search.limit {
                        found.next = found.rows.last().map(|(place, _)| *place);
                        return Ok(found);
                    }
                    let before = row.sequence;
                    found.rows.push((Place { rank, before }, row));
                }
                place.before = part.last().copied().unwrap_or(place.before);
            }
            match next {
                Some(next) => place.before = next,
                None => break,
            }
        }
    }
    Ok(found)
}

/// Returns the ids that a text names: its own, or those of an upload's documents.
async fn ids<T: Tx>(tx: &T, text: &SearchText) -> Result<Vec<String>> {
    let uploads = uploads_named(tx, text.as_str().to_owned(), MAX_UPLOADS).await?;
    let of_uploads = uploads.into_iter().flat_map(|upload| upload.documents);
    Ok(text.ids().into_iter().chain(of_uploads).collect())
}

/// Returns the versions of these documents before a sequence number, newest first, and where they
/// continue.
async fn identified<T: Tx>(tx: &T, ids: &[String], before: i64) -> Result<(Vec<i64>, Option<i64>)> {
    static SQL: Sql = Sql::new(
        "SELECT d.sequence FROM document d{by_identity}
         WHERE d.document_id IN ({elements}($1)) AND d.sequence < $2 ORDER BY d.sequence DESC LIMIT $3",
    );
    let found: Vec<i64> = tx.all(&SQL, params! { ids, before, MANY }).await?;
    let next = found.last().copied().filter(|_| found.len() == MANY);
    Ok((found, next))
}

/// Terms of which a version needs one.
struct Fitting {
    terms: Vec<String>,
    /// True if there are more.
    is_cut: bool,
}

/// Returns for each part of a reading the terms that fit it.
async fn expanded<T: Tx>(
    tx: &T,
    reading: &AllOf,
    company: &Option<Company>,
) -> Result<Vec<Fitting>> {
    let begun = reading.parts().iter().map(|part| part.beginnings.len());
    let each = MAX_BEGUN / begun.sum::<usize>().max(1);
    let mut all = Vec::new();
    for AnyOf { terms, beginnings } in reading.parts() {
        let (mut terms, mut is_cut) = (terms.clone(), false);
        for beginning in beginnings {
            // One more, to see whether there are more.
            let mut begun = terms_that_begin(tx, beginning, each + 1).await?;
            is_cut |= begun.len() > each;
            begun.truncate(each);
            begun.retain(|term| !terms.contains(term));
            terms.extend(begun);
        }
        all.push(Fitting { terms, is_cut });
    }
    // Each version has the code of its feed's company.
    let code = company.as_ref().map(|company| words(company.as_str()));
    all.extend(code.into_iter().flatten().map(|word| Fitting {
        terms: vec![word],
        is_cut: false,
    }));
    Ok(all)
}

/// Returns terms that begin with a text, at most `limit`, without reading the versions that have them.
async fn terms_that_begin<T: Tx>(tx: &T, beginning: &str, limit: usize) -> Result<Vec<String>> {
    static SQL: Sql = Sql::new(
        "WITH RECURSIVE found (term, number) AS (
             SELECT (SELECT s.term FROM search_term s WHERE s.term >= $1 AND s.term < $2 ORDER BY s.term LIMIT 1), 1
             UNION ALL
             SELECT (SELECT s.term FROM search_term s WHERE s.term > found.term AND s.term < $2 ORDER BY s.term LIMIT 1), number + 1
             FROM found WHERE found.term IS NOT NULL AND number < $3)
         SELECT term FROM found WHERE term IS NOT NULL",
    );
    let end = format!("{beginning}{}", char::MAX);
    tx.all(&SQL, params! { beginning, end, limit }).await
}

/// Versions that have one of some terms, newest first.
struct Newest {
    sequences: Vec<i64>,
    /// The sequence number from which on all are known.
    reaches: i64,
    /// True if versions that have other terms are left out.
    is_cut: bool,
}

/// Versions that may be found.
#[derive(Default)]
struct Candidates {
    /// Their sequence numbers, newest first.
    sequences: Vec<i64>,
    /// Where they continue.
    next: Option<i64>,
    /// True if some may be left out.
    is_cut: bool,
}

/// Returns versions before a sequence number that may have one of the terms of each list.
async fn candidates<T: Tx>(tx: &T, lists: &[Fitting], before: i64) -> Result<Candidates> {
    let limit = if lists.len() == 1 { FEW } else { MANY };
    let mut newest = Vec::new();
    for fitting in lists {
        let read = newest_with(tx, fitting, before, limit).await?;
        if read.sequences.is_empty() && !read.is_cut {
            return Ok(Candidates::default());
        }
        newest.push(read);
    }
    // The rarest reaches furthest back, or has the fewest if it is read to its end.
    let rarest = newest
        .iter()
        .min_by_key(|one| (one.is_cut, one.reaches, one.sequences.len()));
    let Some(rarest) = rarest else {
        return Ok(Candidates::default());
    };
    let mut sequences = rarest.sequences.clone();
    for other in newest.iter().filter(|other| !other.is_cut) {
        let known: BTreeSet<i64> = other.sequences.iter().copied().collect();
        sequences.retain(|one| *one < other.reaches || known.contains(one));
    }
    Ok(Candidates {
        sequences,
        next: (rarest.reaches > i64::MIN).then_some(rarest.reaches),
        is_cut: rarest.is_cut,
    })
}

/// Returns the newest versions before a sequence number that have one of these terms.
async fn newest_with<T: Tx>(
    tx: &T,
    fitting: &Fitting,
    before: i64,
    limit: usize,
) -> Result<Newest> {
    static SQL: Sql = Sql::new(
        "SELECT sequence FROM search_term WHERE term = $1 AND sequence < $2 ORDER BY sequence DESC LIMIT $3",
    );
    let mut sequences = BTreeSet::new();
    let mut reaches = i64::MIN;
    for term in &fitting.terms {
        let read: Vec<i64> = tx.all(&SQL, params! { term, before, limit }).await?;
        if read.len() == limit {
            // Below there may be more with this term.
            reaches = reaches.max(read.last().copied().unwrap_or(before));
        }
        sequences.extend(read);
    }
    let sequences = sequences.split_off(&reaches);
    Ok(Newest {
        sequences: sequences.into_iter().rev().collect(),
        reaches,
        is_cut: fitting.is_cut,
    })
}

/// Returns those of these versions whose rank this is, newest first: of each document the one with the
/// best rank, of those the newest.
async fn matching<T: Tx>(
    tx: &T,
    search: &TextSearch,
    ids: &[String],
    rank: usize,
    sequences: &[i64],
) -> Result<Vec<DocumentRow>> {
    static ROWS: Sql = Sql::with(
        "SELECT {columns} FROM document d {of_feeds} AND d.sequence IN ({elements}($1)) AND ($5 OR NOT d.superseded)
         ORDER BY d.sequence DESC",
        &[("columns", COLUMNS), ("of_feeds", OF_FEEDS)],
    );
    static OTHERS: Sql = Sql::new(
        "SELECT d.sequence, o.sequence
         FROM document d {then_join} feed f ON f.id = d.feed_id
         {then_join} document o{by_identity} ON o.document_id = d.document_id
         {then_join} feed p ON p.id = o.feed_id AND p.account_id = f.account_id
         WHERE d.sequence IN ({elements}($1)) AND o.sequence <> d.sequence AND NOT o.superseded
           AND ($2 IS NULL OR p.queue = $2) AND ($3 IS NULL OR p.company = $3)",
    );
    let TextSearch {
        text,
        account,
        queue,
        company,
        superseded,
        ..
    } = search;
    let mut sequences = sequences.to_vec();
    if rank > 0 {
        let terms = terms_of(tx, &sequences).await?;
        sequences.retain(|one| terms.get(one).and_then(|terms| text.rank(terms)) == Some(rank));
    }
    if sequences.is_empty() {
        return Ok(Vec::new());
    }
    let params = params! { sequences, account, queue, company, superseded };
    let mut rows: Vec<DocumentRow> = tx.all(&ROWS, params).await?;
    if rank > 0 {
        // They have been found by it.
        rows.retain(|row| !ids.contains(&row.document_id));
    }
    if *superseded || rows.is_empty() {
        return Ok(rows);
    }
    let sequences: Vec<i64> = rows.iter().map(|row| row.sequence).collect();
    let others: Vec<(i64, i64)> = tx
        .all(&OTHERS, params! { sequences, queue, company })
        .await?;
    let numbers: Vec<i64> = others.iter().map(|(_, other)| *other).collect();
    let terms = match rank {
        0 => BTreeMap::new(),
        _ => terms_of(tx, &numbers).await?,
    };
    let rank_of = |other: i64| match rank {
        0 => Some(0),
        _ => terms.get(&other).and_then(|terms| text.rank(terms)),
    };
    let is_better = |(one, other): &&(i64, i64)| {
        let other_rank = rank_of(*other);
        other_rank.is_some_and(|found| (found, Reverse(*other)) < (rank, Reverse(*one)))
    };
    let worse: BTreeSet<i64> = others
        .iter()
        .filter(is_better)
        .map(|(one, _)| *one)
        .collect();
    rows.retain(|row| !worse.contains(&row.sequence));
    Ok(rows)
}

/// Is one of the list $1. PostgreSQL may read the whole table for a join.
const AMONG: Fragment = Fragment::Differs("IN (SELECT value FROM json_each($1))", "= ANY ($1)");

/// Returns the terms of these versions.
async fn terms_of<T: Tx>(tx: &T, sequences: &[i64]) -> Result<BTreeMap<i64, BTreeSet<String>>> {
    static SQL: Sql = Sql::with(
        "SELECT sequence, term FROM search_term WHERE sequence {among}",
        &[("among", AMONG)],
    );
    let mut terms: BTreeMap<i64, BTreeSet<String>> = BTreeMap::new();
    if sequences.is_empty() {
        return Ok(terms);
    }
    let rows: Vec<(i64, String)> = tx.all(&SQL, params! { sequences }).await?;
    for (sequence, term) in rows {
        terms.entry(sequence).or_default().insert(term);
    }
    Ok(terms)
}

/// Removes the terms of versions whose contents are removed.
pub(super) async fn remove_terms<T: Tx>(tx: &T, sequences: &[i64]) -> Result<()> {
    static SQL: Sql = Sql::with(
        "DELETE FROM search_term WHERE sequence {among}",
        &[("among", AMONG)],
    );
    tx.run(&SQL, params! { sequences }).await
}
