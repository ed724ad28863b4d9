//! The data of the emulated Įvesk.lt: accounts, companies, documents and the two queues.
//!
//! No HTTP and no time of its own: callers say what time it is.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::document::{Document, UploadedFrom};
use crate::domain::Queue;
use crate::switches::{
    CompanyFilter, CompanyIn, Doctypes, From, LastPageNext, PageEdge, ReExport, Switches,
};
use sns_messages::time::Timestamp;

/// One API key and what it may read.
pub(crate) struct Account {
    pub(crate) key: String,
    /// The UUID in `MessageAttributes.account`.
    pub(crate) id: Uuid,
    pub(crate) companies: Vec<usize>,
}

/// A place in a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// `exportedat` or `digitizedat`.
    pub(crate) at: i64,
    visible_at: i64,
    document: usize,
}

/// The lists of one account, each ascending by [`Entry::at`].
#[derive(Default)]
struct Lists {
    digitized: Vec<Entry>,
    exported: Vec<Entry>,
    exported_by_company: HashMap<usize, Vec<Entry>>,
    /// Digitized and not yet exported, oldest first, by company.
    waiting: HashMap<usize, BTreeSet<usize>>,
    /// Exported at least once.
    exported_once: HashSet<usize>,
}

/// Hands out timestamps: ascending, `ties` of them alike.
#[derive(Default)]
struct Stamps {
    last: i64,
    used: usize,
}

impl Stamps {
    /// Returns the next of `remaining` stamps of one click. They end at `now` rather than start
    /// there: a queue never lists what is yet to come.
    fn next(&mut self, now: i64, remaining: usize, ties: usize) -> i64 {
        if self.used > 0 && self.used < ties {
            self.used += 1;
            return self.last;
        }
        let steps = i64::try_from(remaining.div_ceil(ties)).unwrap_or(i64::MAX);
        self.last = (now - steps + 1).max(self.last + 1);
        self.used = 1;
        self.last
    }

    /// Ends a run of ties, so that a new click starts a new timestamp only where the
    /// switch says so.
    fn changed(&mut self) {
        self.used = 0;
    }
}

/// A list request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PageRequest<'a> {
    pub(crate) account: usize,
    pub(crate) queue: Queue,
    /// The company, if the request names one that the account has.
    pub(crate) company: Option<usize>,
    pub(crate) from: Option<i64>,
    pub(crate) doctype: Option<&'a str>,
    pub(crate) now: i64,
}

/// Its answer, before it is written.
pub(crate) struct PageAnswer {
    /// Each with its version and its company's code.
    pub(crate) documents: Vec<(Document, i64, Arc<str>)>,
    pub(crate) next: Option<i64>,
}

/// All data.
pub(crate) struct World {
    pub(crate) accounts: Vec<Account>,
    companies: Vec<Arc<str>>,
    documents: Vec<Document>,
    by_id: HashMap<Uuid, usize>,
    lists: Vec<Lists>,
    digitized_stamps: Stamps,
    exported_stamps: Stamps,
    ids: Ids,
}

/// Makes version 4 UUIDs from a seed (SplitMix64): fast, and not guessed by chance.
struct Ids(u64);

impl Ids {
    fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn uuid(&mut self) -> Uuid {
        let random = (u128::from(self.number()) << 64) | u128::from(self.number());
        uuid::Builder::from_random_bytes(random.to_be_bytes()).into_uuid()
    }
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            accounts: Vec::new(),
            companies: Vec::new(),
            documents: Vec::new(),
            by_id: HashMap::new(),
            lists: Vec::new(),
            digitized_stamps: Stamps::default(),
            exported_stamps: Stamps::default(),
            ids: Ids(seed),
        }
    }

    pub(crate) fn uuid(&mut self) -> Uuid {
        self.ids.uuid()
    }

    /// Adds an account, or companies to the one that has this key.
    pub(crate) fn add_account(&mut self, key: &str, companies: &[String]) -> usize {
        let account = self.account_by_key(key).unwrap_or_else(|| {
            let id = self.ids.uuid();
            self.accounts.push(Account {
                key: key.to_owned(),
                id,
                companies: Vec::new(),
            });
            self.lists.push(Lists::default());
            self.accounts.len() - 1
        });
        for code in companies {
            let company = self.company(code).unwrap_or_else(|| {
                self.companies.push(code.as_str().into());
                self.companies.len() - 1
            });
            let known = &mut self.accounts[account].companies;
            if !known.contains(&company) {
                known.push(company);
            }
        }
        account
    }

    pub(crate) fn account_by_key(&self, key: &str) -> Option<usize> {
        self.accounts.iter().position(|account| account.key == key)
    }

    pub(crate) fn account_by_id(&self, id: Uuid) -> Option<usize> {
        self.accounts.iter().position(|account| account.id == id)
    }

    fn company(&self, code: &str) -> Option<usize> {
        self.companies.iter().position(|known| &**known == code)
    }

    pub(crate) fn company_code(&self, company: usize) -> Arc<str> {
        Arc::clone(&self.companies[company])
    }

    /// Returns the company with this code, if `account` has it.
    pub(crate) fn company_of(&self, account: usize, code: &str) -> Option<usize> {
        self.company(code)
            .filter(|company| self.accounts[account].companies.contains(company))
    }

    /// Returns the accounts that have the company, and its number.
    pub(crate) fn holders(&self, code: &str) -> Option<(Vec<usize>, usize)> {
        let company = self.company(code)?;
        let holders: Vec<usize> = (0..self.accounts.len())
            .filter(|account| self.accounts[*account].companies.contains(&company))
            .collect();
        (!holders.is_empty()).then_some((holders, company))
    }

    pub(crate) fn document(&self, id: &str) -> Option<&Document> {
        let index = self.by_id.get(&Uuid::parse_str(id).ok()?)?;
        self.documents.get(*index)
    }

    pub(crate) fn document_count(&self) -> usize {
        self.documents.len()
    }

    /// Sets fields of a document over the generated ones.
    pub(crate) fn amend(&mut self, id: &str, fields: Map<String, Value>) -> bool {
        let index = Uuid::parse_str(id).ok().and_then(|id| self.by_id.get(&id));
        let Some(index) = index else { return false };
        self.documents[*index]
            .amended
            .get_or_insert_default()
            .extend(fields);
        true
    }

    /// Makes `count` documents of `company` and lists them as digitized.
    pub(crate) fn digitize(
        &mut self,
        account: usize,
        company: usize,
        count: usize,
        now: Timestamp,
        switches: &Switches,
    ) -> Vec<usize> {
        (0..count)
            .map(|made| {
                let at =
                    self.digitized_stamps
                        .next(now.as_millis(), count - made, switches.ties.get());
                self.add_document(account, company, at, now, switches, None)
            })
            .collect()
    }

    /// Makes one document of an uploaded file and lists it as digitized.
    pub(crate) fn digitize_upload(
        &mut self,
        account: usize,
        company: usize,
        file: (String, Option<String>, Bytes),
        now: Timestamp,
        switches: &Switches,
    ) -> usize {
        let at = self
            .digitized_stamps
            .next(now.as_millis(), 1, switches.ties.get());
        let (file_name, correlation, content) = file;
        let upload = UploadedFrom {
            file_name,
            correlation,
            content,
        };
        self.add_document(account, company, at, now, switches, Some(Box::new(upload)))
    }

    fn add_document(
        &mut self,
        account: usize,
        company: usize,
        at: i64,
        now: Timestamp,
        switches: &Switches,
        upload: Option<Box<UploadedFrom>>,
    ) -> usize {
        let index = self.documents.len();
        let id = self.ids.uuid();
        let number = u32::try_from(index + 1).unwrap_or(u32::MAX);
        self.documents.push(Document {
            id,
            number,
            account,
            company,
            digitized_at: at,
            is_invoice: switches.doctypes == Doctypes::Invoice || !number.is_multiple_of(3),
            upload,
            amended: None,
        });
        self.by_id.insert(id, index);
        let lists = &mut self.lists[account];
        lists.digitized.push(entry(at, now, switches, index));
        lists.waiting.entry(company).or_default().insert(index);
        index
    }

    /// Documents of the company that wait for their export, oldest first, at most `count`.
    pub(crate) fn waiting(&self, account: usize, company: usize, count: usize) -> Vec<usize> {
        self.lists[account]
            .waiting
            .get(&company)
            .map(|waiting| waiting.iter().copied().take(count).collect())
            .unwrap_or_default()
    }

    /// Exports documents as one click of the accountant, in their order.
    ///
    /// Returns the queue's entry for each; a repeated export that the `re_export` switch
    /// ignores has none.
    pub(crate) fn export(
        &mut self,
        documents: &[usize],
        now: Timestamp,
        switches: &Switches,
    ) -> Vec<(usize, i64)> {
        let mut exported = Vec::with_capacity(documents.len());
        for (done, index) in documents.iter().copied().enumerate() {
            let (account, company) = {
                let document = &self.documents[index];
                (document.account, document.company)
            };
            let lists = &mut self.lists[account];
            let again = lists.exported_once.contains(&index);
            if again && switches.re_export == ReExport::Keeps {
                continue;
            }
            let at = self.exported_stamps.next(
                now.as_millis(),
                documents.len() - done,
                switches.ties.get(),
            );
            let entry = entry(at, now, switches, index);
            let by_company = lists.exported_by_company.entry(company).or_default();
            if again && switches.re_export == ReExport::Moves {
                lists.exported.retain(|old| old.document != index);
                by_company.retain(|old| old.document != index);
            }
            lists.exported.push(entry);
            by_company.push(entry);
            lists.exported_once.insert(index);
            if let Some(waiting) = lists.waiting.get_mut(&company) {
                waiting.remove(&index);
            }
            exported.push((index, at));
        }
        exported
    }

    /// Returns the index of the document with this id.
    pub(crate) fn index_of(&self, id: &str) -> Option<usize> {
        self.by_id.get(&Uuid::parse_str(id).ok()?).copied()
    }

    pub(crate) fn at_index(&self, index: usize) -> &Document {
        &self.documents[index]
    }

    /// Starts a new timestamp after a change of the `ties` switch.
    pub(crate) fn switches_changed(&mut self) {
        self.digitized_stamps.changed();
        self.exported_stamps.changed();
    }

    /// Answers a list request.
    pub(crate) fn page(&self, request: &PageRequest<'_>, switches: &Switches) -> PageAnswer {
        let list = self.list(request, switches);
        let start = request.from.map_or(0, |from| match switches.from {
            From::Inclusive => list.partition_point(|entry| entry.at < from),
            From::Exclusive => list.partition_point(|entry| entry.at <= from),
        });
        let mut rest = list[start..].iter().filter(|entry| {
            entry.visible_at <= request.now
                && request
                    .doctype
                    .is_none_or(|doctype| self.documents[entry.document].doctype() == doctype)
        });
        let mut page: Vec<Entry> = Vec::new();
        let mut more = false;
        for entry in rest.by_ref() {
            let full = page.len() >= switches.page_size.get();
            let tied = page.last().is_some_and(|last| last.at == entry.at);
            if full && !(tied && switches.page_edge == PageEdge::Whole) {
                more = true;
                break;
            }
            page.push(*entry);
        }
        let mut next = page
            .last()
            .map(|last| last.at)
            .filter(|_| more || switches.last_page_next == LastPageNext::Present);
        if switches.stuck_next.is_on() && request.from.is_some() {
            next = request.from;
        }
        let documents = page
            .into_iter()
            .map(|entry| {
                let document = self.documents[entry.document].clone();
                let code = self.company_code(document.company);
                (document, entry.at, code)
            })
            .collect();
        PageAnswer { documents, next }
    }

    fn list(&self, request: &PageRequest<'_>, switches: &Switches) -> &[Entry] {
        let lists = &self.lists[request.account];
        let mixed = switches.company_filter == CompanyFilter::Ignored
            || switches.company_in == CompanyIn::None;
        match (request.queue, request.company) {
            (Queue::Digitized, _) => &lists.digitized,
            (Queue::Exported, _) if mixed => &lists.exported,
            (Queue::Exported, Some(company)) => lists
                .exported_by_company
                .get(&company)
                .map_or(&[], Vec::as_slice),
            (Queue::Exported, None) => &[],
        }
    }

    /// Returns everything that the queue lists or will list, over all accounts.
    pub(crate) fn truth(&self, queue: Queue, code: &str) -> Vec<(String, String)> {
        let company = self.company(code);
        let mut truth = Vec::new();
        for lists in &self.lists {
            let list = match queue {
                Queue::Digitized => &lists.digitized,
                Queue::Exported => &lists.exported,
            };
            for entry in list {
                let document = &self.documents[entry.document];
                if code.is_empty() || Some(document.company) == company {
                    let version = Timestamp::from_millis(entry.at);
                    truth.push((document.id.to_string(), version.to_string()));
                }
            }
        }
        truth
    }
}

fn entry(at: i64, now: Timestamp, switches: &Switches, document: usize) -> Entry {
    let lag = i64::try_from(switches.visibility_lag_ms).unwrap_or(i64::MAX);
    Entry {
        at,
        // Without a lag a document is there at once, whatever the clock does later.
        visible_at: if lag == 0 {
            i64::MIN
        } else {
            now.as_millis().saturating_add(lag)
        },
        document,
    }
}
