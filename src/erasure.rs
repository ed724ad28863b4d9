//! Erases documents: what the store holds of their contents, and their files in folders that
//! destinations are.
//!
//! It works in small steps, so that messages are stored meanwhile, and every step may run
//! twice. Files that can't be removed now are removed later by [`remove_files`]. What other
//! destinations, exports and backups hold is out of reach.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::Config;
use crate::delivery;
use crate::domain::{Account, Clock, Company, DestinationName, Queue};
use crate::file_names::identity;
use crate::ivesk::Entry;
use crate::store::{ErasableVersion, ErasedFile, Store, StoreError};

/// Versions that one step erases: a few milliseconds of the store's time.
const STEP: usize = 100;

/// Numbers of versions that one step reads in search of a company's.
const STRETCH: i64 = 200;

/// Files that one step removes.
const FILES: usize = 100;

/// Time after which an erasure returns what it has done, to be continued.
pub const TURN: Duration = Duration::from_secs(20);

/// The documents to erase.
#[derive(Clone, Debug)]
pub enum Subject {
    /// Those of a company: of its own feeds, and digitized ones that name no other company.
    Company(Company),
    /// All versions of the document with this id.
    Document(String),
}

/// What was erased.
#[derive(Debug, Default)]
pub struct Erased {
    /// Versions whose contents were removed from the store.
    pub versions: u64,
    /// Unreadable entries that were removed.
    pub unreadable_entries: u64,
    /// Digitized versions that name other companies of yours too: they were kept, and can be
    /// erased as single documents.
    pub shared: u64,
    /// Files that were removed from folders of destinations.
    pub files: u64,
    /// Files that could not be removed now.
    pub files_left: Vec<FilesLeft>,
    /// There is more to do: send it as `after`; null if everything is erased.
    pub next: Option<i64>,
}

/// Files of erased documents that could not be removed.
#[derive(Debug)]
pub struct FilesLeft {
    /// The destination that is a folder.
    pub destination: DestinationName,
    /// Their number, a JSON file with its PDF counting as one.
    pub files: u64,
    /// The problem and its fix; the service tries again by itself.
    pub problem: String,
}

/// Erases documents and their files until [`TURN`] is over, or all is done.
///
/// `after` is [`Erased::next`] of the call that this one continues.
///
/// # Errors
///
/// If the store fails: what was erased before stays erased.
pub async fn erase(
    store: &Store,
    config: &Config,
    clock: &Clock,
    account: Option<Account>,
    subject: &Subject,
    after: Option<i64>,
) -> Result<Erased, StoreError> {
    let mut work = Work {
        store,
        clock,
        account,
        deadline: Instant::now() + TURN,
        erased: Erased::default(),
    };
    let after = after.unwrap_or(0);
    let reached = match subject {
        Subject::Company(company) => work.erase_company(company, after).await?,
        Subject::Document(id) => work.erase_document(id, after).await?,
    };
    let Work {
        mut erased,
        deadline,
        ..
    } = work;
    let files = remove_files(store, config, Some(deadline)).await?;
    erased.files = files.removed;
    erased.files_left = files.left;
    erased.next = match reached {
        None if files.more => Some(store.sequence().await?.last),
        other => other,
    };
    Ok(erased)
}

/// An erasure in progress.
struct Work<'a> {
    store: &'a Store,
    clock: &'a Clock,
    account: Option<Account>,
    deadline: Instant,
    erased: Erased,
}

impl Work<'_> {
    fn is_over(&self) -> bool {
        Instant::now() >= self.deadline
    }

    async fn erase_versions(&mut self, sequences: Vec<i64>) -> Result<(), StoreError> {
        let now = self.clock.now();
        let erased = self.store.erase_versions(sequences, now).await?;
        self.erased.versions += erased as u64;
        Ok(())
    }

    /// Erases a company's documents; returns where to continue if time ran out.
    async fn erase_company(
        &mut self,
        company: &Company,
        after: i64,
    ) -> Result<Option<i64>, StoreError> {
        let feeds = self
            .store
            .feeds_to_erase(self.account.clone(), Some(company.clone()));
        for (_, feed) in feeds.await? {
            let mut reached = 0;
            loop {
                let sequences = self.store.erasable_of_feed(feed, reached, STEP).await?;
                let Some(&last) = sequences.last() else {
                    break;
                };
                reached = last;
                self.erase_versions(sequences).await?;
                if self.is_over() {
                    return Ok(Some(after));
                }
            }
            self.erase_unreadable(feed, None).await?;
        }
        self.erase_mixed(company, after).await
    }

    /// Erases a company's documents in feeds that mix companies.
    async fn erase_mixed(
        &mut self,
        company: &Company,
        mut after: i64,
    ) -> Result<Option<i64>, StoreError> {
        let feeds = self
            .store
            .feeds_to_erase(self.account.clone(), None)
            .await?;
        let mixed = feeds
            .into_iter()
            .filter(|(feed, _)| feed.queue == Queue::Digitized || feed.company == Company::mixed());
        let mixed: Vec<i64> = mixed.map(|(_, id)| id).collect();
        let last = self.store.sequence().await?.last;
        while after < last && !mixed.is_empty() {
            let stretch = self
                .store
                .erasable_of_stretch(mixed.clone(), after, STRETCH)
                .await?;
            let of_company = |version: &&ErasableVersion| match of(company, version) {
                Belongs::Alone => true,
                Belongs::WithOthers => {
                    self.erased.shared += 1;
                    false
                }
                Belongs::No => false,
            };
            let sequences: Vec<i64> = stretch
                .iter()
                .filter(of_company)
                .map(|version| version.sequence)
                .collect();
            if !sequences.is_empty() {
                self.erase_versions(sequences).await?;
            }
            after = after.saturating_add(STRETCH);
            if self.is_over() {
                return Ok(Some(after));
            }
        }
        for feed in mixed {
            let code = company.as_str().to_owned();
            self.erase_unreadable(feed, Some(code)).await?;
        }
        Ok(None)
    }

    /// Erases all versions of a document.
    async fn erase_document(&mut self, id: &str, after: i64) -> Result<Option<i64>, StoreError> {
        loop {
            let account = self.account.clone();
            let sequences = self
                .store
                .erasable_of_document(account, id.to_owned(), STEP)
                .await?;
            if sequences.is_empty() {
                break;
            }
            self.erase_versions(sequences).await?;
            if self.is_over() {
                return Ok(Some(after));
            }
        }
        for (_, feed) in self
            .store
            .feeds_to_erase(self.account.clone(), None)
            .await?
        {
            self.erase_unreadable(feed, Some(id.to_owned())).await?;
        }
        Ok(None)
    }

    /// Erases the unreadable entries of a feed, or those in which `part` stands by itself.
    async fn erase_unreadable(
        &mut self,
        feed: i64,
        part: Option<String>,
    ) -> Result<(), StoreError> {
        let mut after = Vec::new();
        loop {
            let found = self
                .store
                .unreadable_to_erase(feed, part.clone(), after, STEP);
            let (digests, last) = found.await?;
            if !digests.is_empty() {
                self.erased.unreadable_entries += digests.len() as u64;
                let now = self.clock.now();
                self.store.erase_unreadable(feed, digests, now).await?;
            }
            let Some(last) = last else {
                return Ok(());
            };
            after = last;
        }
    }
}

/// Whether a digitized version belongs to a company.
enum Belongs {
    No,
    Alone,
    WithOthers,
}

/// Returns whether a version of a feed that mixes companies belongs to `company`: by its JSON,
/// or by the names of its files once that is removed.
fn of(company: &Company, version: &ErasableVersion) -> Belongs {
    let (ours, others) = match &version.body {
        Some(body) => {
            let companies = Entry::parse(body).map_or_else(Vec::new, |entry| entry.companies());
            let ours = companies.contains(company);
            (ours, companies.len() > usize::from(ours))
        }
        None => {
            let folder = identity(company.as_str());
            let lines: BTreeSet<&str> = version
                .notes
                .iter()
                .flat_map(|notes| notes.lines())
                .collect();
            let is_ours = |line: &&&str| {
                let mut folders = Path::new(**line).components();
                folders.any(|part| part.as_os_str() == folder.as_str())
            };
            let ours = lines.iter().filter(is_ours).count();
            (ours > 0, ours < lines.len())
        }
    };
    match (ours, others) {
        (false, _) => Belongs::No,
        (true, false) => Belongs::Alone,
        (true, true) => Belongs::WithOthers,
    }
}

/// The result of [`remove_files`].
#[derive(Debug, Default)]
pub struct FilesRemoved {
    /// Files that were removed.
    pub removed: u64,
    /// Files that could not be removed.
    pub left: Vec<FilesLeft>,
    /// True if time ran out.
    pub more: bool,
}

/// Removes the files of erased documents from the folders of destinations, until `deadline` if
/// one is given.
///
/// # Errors
///
/// If the store fails.
pub async fn remove_files(
    store: &Store,
    config: &Config,
    deadline: Option<Instant>,
) -> Result<FilesRemoved, StoreError> {
    let mut outcome = FilesRemoved::default();
    for left in store.erased_files_left().await? {
        let name = left.destination;
        let mut problem = None;
        let mut after = ErasedFile::default();
        let settings = config.destinations.get(&name);
        while let Some(settings) = settings {
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                outcome.more = true;
                return Ok(outcome);
            }
            let files = store.erased_files(name.clone(), after, FILES).await?;
            let Some(last) = files.last() else {
                break;
            };
            after = last.clone();
            let is_last = files.len() < FILES;
            let Some(removed) = delivery::remove_files(settings, files, is_last).await else {
                problem = Some(NO_FOLDER.to_owned());
                break;
            };
            outcome.removed += removed.files as u64;
            problem = problem.or(removed.problem);
            store
                .forget_erased_files(name.clone(), removed.done)
                .await?;
            if is_last {
                break;
            }
        }
        if settings.is_none() {
            problem = Some(NO_FOLDER.to_owned());
        }
        if let Some(problem) = problem {
            let now_left = store.erased_files_left().await?;
            let of_this = now_left.into_iter().find(|one| one.destination == name);
            outcome.left.extend(of_this.map(|one| FilesLeft {
                destination: name,
                files: one.files,
                problem,
            }));
        }
    }
    Ok(outcome)
}

/// The problem with files of a destination that the settings no longer have.
const NO_FOLDER: &str =
    "the settings have no folder of this name any more; name it again, or remove the files by hand";
