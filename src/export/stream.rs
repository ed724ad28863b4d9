//! Reads documents in the order of their arrival and writes the table, part by part: neither the
//! rows nor the table are ever in memory whole.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::yield_now;

use super::columns::{Per, Row};
use super::table::{Layout, Table};
use crate::domain::{Moment, Queue, Timestamp};
use crate::ivesk::Entry;
use crate::store::{DocumentRow, DocumentStretch, SharedStore, StoreError};

/// Size from which on a part is passed on.
const PART_BYTES: usize = 64 * 1024;

/// Parts that wait to be taken.
const WAITING_PARTS: usize = 2;

/// Documents after which others get their turn. Most may not match.
const DOCUMENTS_AT_ONCE: usize = 32;

/// Most rows that [`Summary`] names.
const MAX_NAMED: usize = 10;

/// Returns the moment that a person names: a date, which begins at midnight in UTC, or a date and time.
pub fn moment(text: &str) -> Option<Timestamp> {
    let moment =
        Moment::read(text).or_else(|| Moment::read(&format!("{}T00:00:00", text.trim())))?;
    moment.timestamp()
}

/// Decides whether a version that the store returns is exported.
pub type Matches = Box<dyn Fn(&DocumentRow) -> bool + Send + Sync>;

/// The documents to export.
pub enum Documents {
    /// Those of a stretch that match.
    Stretch(DocumentStretch, Matches),
    /// These.
    These(Vec<DocumentRow>),
}

/// An export: what, and how.
pub struct Export {
    /// The documents.
    pub documents: Documents,
    /// What a row is.
    pub per: Per,
    /// How they are written.
    pub layout: Layout,
}

/// A part of an export.
#[derive(Debug)]
pub enum Part {
    /// The next bytes of the table.
    Bytes(Bytes),
    /// The table is complete.
    End(Summary),
}

/// What a complete export holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Versions of documents in it.
    pub versions: u64,
    /// Rows in it.
    pub rows: u64,
    /// Versions left out since retention has removed their JSON, or a person has erased them.
    pub without_contents: u64,
    /// Characters that the encoding does not have.
    pub replaced: u64,
    /// The first versions with such characters.
    pub replaced_in: Vec<i64>,
    /// True if documents of both queues are in it: one that was digitized and exported is in it twice.
    pub has_both_queues: bool,
}

impl Export {
    /// Starts to write it; ends when all is written, the store can't be read, or nobody takes the parts.
    ///
    /// After an error the table is incomplete. The first part comes once the store has been read, however
    /// rare the documents are that match; it may be empty. `held` is dropped before the last part is sent.
    pub fn start(
        self,
        store: SharedStore,
        held: impl Send + 'static,
    ) -> mpsc::Receiver<Result<Part, StoreError>> {
        let (parts, taken) = mpsc::channel(WAITING_PARTS);
        tokio::spawn(async move {
            let mut writing = Writing {
                per: self.per,
                table: Table::begin(self.layout),
                summary: Summary::default(),
                queues: BTreeSet::new(),
                parts,
            };
            let end = match writing.write(self.documents, &store).await {
                Ok(()) => Ok(Part::End(writing.summary)),
                Err(Ended::Store(error)) => Err(error),
                Err(Ended::NobodyTakes) => return,
            };
            drop(held);
            // Whoever does not take it needs it no longer.
            let _ = writing.parts.send(end).await;
        });
        taken
    }
}

/// The reason for which writing has ended early.
enum Ended {
    Store(StoreError),
    NobodyTakes,
}

impl From<StoreError> for Ended {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

struct Writing {
    per: Per,
    table: Table,
    summary: Summary,
    queues: BTreeSet<Queue>,
    parts: mpsc::Sender<Result<Part, StoreError>>,
}

impl Writing {
    async fn write(&mut self, documents: Documents, store: &SharedStore) -> Result<(), Ended> {
        match documents {
            Documents::These(rows) => {
                for row in rows {
                    self.document(&row).await?;
                }
            }
            Documents::Stretch(mut stretch, matches) => {
                let mut is_first = true;
                loop {
                    let read = store.document_stretch(stretch.clone()).await?;
                    if std::mem::take(&mut is_first) {
                        self.send_written().await?;
                    }
                    self.stretch(read.rows, &matches).await?;
                    match read.next {
                        Some(next) => stretch.after = next,
                        None => break,
                    }
                }
            }
        }
        self.pass_on().await
    }

    /// Writes the documents of a stretch that match.
    async fn stretch(&mut self, rows: Vec<DocumentRow>, matches: &Matches) -> Result<(), Ended> {
        // Each is freed once it is written.
        let mut rows = VecDeque::from(rows);
        while let Some(row) = rows.pop_front() {
            if rows.len().is_multiple_of(DOCUMENTS_AT_ONCE) {
                yield_now().await;
            }
            if self.parts.is_closed() {
                return Err(Ended::NobodyTakes);
            }
            if matches(&row) {
                self.document(&row).await?;
            }
        }
        Ok(())
    }

    async fn document(&mut self, document: &DocumentRow) -> Result<(), Ended> {
        let entry = document.body.as_deref().and_then(Entry::parse);
        let Some(entry) = entry else {
            self.summary.without_contents += 1;
            return Ok(());
        };
        self.summary.versions += 1;
        self.queues.insert(document.feed.queue);
        self.summary.has_both_queues = self.queues.len() > 1;
        let lines = match self.per {
            Per::Document => Vec::new(),
            Per::Line => entry.lines(),
        };
        if lines.is_empty() {
            // A document without lines is not left out.
            return self.row(document, &entry, None).await;
        }
        for (number, line) in (1..).zip(lines) {
            let line = Entry::parse(line.as_bytes());
            self.row(document, &entry, Some((number, line.as_ref())))
                .await?;
        }
        Ok(())
    }

    async fn row(
        &mut self,
        document: &DocumentRow,
        entry: &Entry<'_>,
        line: Option<(usize, Option<&Entry<'_>>)>,
    ) -> Result<(), Ended> {
        let replaced = self.table.row(&Row {
            document,
            entry,
            line: line.and_then(|(_, line)| line),
            line_number: line.map(|(number, _)| number),
        });
        self.summary.rows += 1;
        self.summary.replaced += replaced;
        let named = &mut self.summary.replaced_in;
        if replaced > 0 && named.len() < MAX_NAMED && named.last() != Some(&document.sequence) {
            named.push(document.sequence);
        }
        if self.table.len() >= PART_BYTES {
            self.pass_on().await?;
        }
        Ok(())
    }

    /// Waits until there is room for what is written so far.
    async fn pass_on(&mut self) -> Result<(), Ended> {
        match self.table.len() {
            0 => Ok(()),
            _ => self.send_written().await,
        }
    }

    async fn send_written(&mut self) -> Result<(), Ended> {
        let bytes = Bytes::from(self.table.take());
        let sent = self.parts.send(Ok(Part::Bytes(bytes))).await;
        sent.map_err(|_| Ended::NobodyTakes)
    }
}
