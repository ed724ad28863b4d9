//! A folder of JSON files, each with its PDF beside it.
//!
//! Who sees a JSON file sees what belongs to it: everything else is in its place, and
//! synced, before the JSON is renamed into its own. All that is under way lies in
//! [`UNDER_WAY`], and the PDFs themselves in [`STORED`], each content once; the names
//! that people read are hard links to them.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use aws_lc_rs::digest::{Context, SHA256};
use tracing::warn;

use super::files::{Fetched, Files, hex};
use super::{Delivery, Destination, Verdict};
use crate::config::{Config, DestinationConfig, DestinationKind, FolderLayout};
use crate::domain::{Clock, Company, DestinationName, Queue, Timestamp};
use crate::file_names::{self, component, identity};
use crate::ivesk::document::{self, Side};
use crate::ivesk::view::View;

/// Where PDFs are stored by the hash of their content. No company's folder begins so.
const STORED: &str = ".files";
/// Where files lie while they are written.
const UNDER_WAY: &str = ".files/tmp";
/// How old a file there is that nobody writes any more.
const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);
/// The most bytes of a document's date in a file's name.
const MAX_DATE_BYTES: usize = 20;
/// The most bytes of its number, and of a party's name.
const MAX_PART_BYTES: usize = 55;
/// What a file's name ends with: the document, its file, and why it has none.
const JSON: &str = ".json";
const PDF: &str = ".pdf";
const NO_PDF: &str = ".nopdf.txt";
/// How often a fresh link to a document's file is asked for.
const MOST_LINK_TRIES: u32 = 5;

/// A destination that is a folder.
pub(super) struct Folder {
    name: DestinationName,
    disk: Arc<Disk>,
    plan: Plan,
    files: Option<Files>,
    timeout: Duration,
    busy: Arc<Mutex<HashSet<String>>>,
}

impl Folder {
    /// A destination for `destination`, whose folder is made where it is missing.
    ///
    /// # Errors
    ///
    /// A folder that can't be made or written to.
    pub(super) fn new(
        name: &DestinationName,
        destination: &DestinationConfig,
        config: &Config,
        clock: &Clock,
    ) -> Result<Self, String> {
        let DestinationKind::Folder {
            path,
            layout,
            files,
            max_file_bytes,
        } = &destination.kind
        else {
            return Err("it is not a folder".to_owned());
        };
        let files = files
            .then(|| {
                Files::new(
                    &config.api,
                    *max_file_bytes,
                    destination.timeout,
                    clock.clone(),
                )
            })
            .transpose()?;
        let accounts = match destination.accounts.len() {
            0 => config.accounts.len(),
            some => some,
        };
        Ok(Self {
            name: name.clone(),
            disk: Arc::new(Disk::open(path)?),
            plan: Plan {
                layout: *layout,
                by_account: accounts > 1,
            },
            files,
            timeout: destination.timeout,
            busy: Arc::default(),
        })
    }

    async fn file(&self, item: &Delivery) -> Verdict {
        let Some(busy) = Busy::begin(&self.busy, item) else {
            return Verdict::Unavailable {
                error: "an earlier attempt is still writing this document; the disk is slow"
                    .to_owned(),
                retry_after: None,
            };
        };
        let filing = Filing {
            places: self.plan.places(item),
            body: item.body.clone(),
            earlier: item.earlier_note.clone(),
            wants_pdf: self.files.is_some(),
            _busy: busy,
        };
        let filing = match self.on_disk(filing, Disk::finish_if_filed).await {
            Ok((filing, false)) => filing,
            Ok((filing, true)) => return delivered(&filing),
            Err(verdict) => return verdict,
        };
        let attachment = match self.fetch(item).await {
            Ok(attachment) => attachment,
            Err(verdict) => return verdict,
        };
        if let Attachment::LeftOut(why) = &attachment {
            warn!(
                destination = %self.name, document.id = %item.document_id,
                "filing document `{}` without its PDF: {why}", item.document_id
            );
        }
        let file = move |disk: &Disk, filing: &Filing| disk.file(filing, &attachment);
        match self.on_disk(filing, file).await {
            Ok((filing, ())) => delivered(&filing),
            Err(verdict) => verdict,
        }
    }

    /// The document's PDF in a file of its own, or why there is none.
    async fn fetch(&self, item: &Delivery) -> Result<Attachment, Verdict> {
        let Some(files) = &self.files else {
            return Ok(Attachment::Filtered);
        };
        let own = document::link(&item.body);
        let link = item.link.as_ref().or(own.as_ref());
        let place = self
            .disk
            .temporary()
            .map_err(|error| self.disk.trouble(&error))?;
        match files.fetch(link, item.link_listed_at, &place.0).await {
            Fetched::Pdf(hash) => Ok(Attachment::Pdf { place, hash }),
            Fetched::LeftOut(why) => Ok(Attachment::LeftOut(why)),
            // The JSON must not wait for ever.
            Fetched::Not(Verdict::LinkExpired) if item.link_tries >= MOST_LINK_TRIES => {
                let why =
                    "its link has expired, and pulling the document again brought none that works";
                Ok(Attachment::LeftOut(why.to_owned()))
            }
            Fetched::Not(verdict) => Err(verdict),
            Fetched::Disk(error) => Err(self.disk.trouble(&error)),
        }
    }

    /// Does `work` where it may block. It goes on to its end even where nobody waits.
    async fn on_disk<T: Send + 'static>(
        &self,
        filing: Filing,
        work: impl FnOnce(&Disk, &Filing) -> io::Result<T> + Send + 'static,
    ) -> Result<(Filing, T), Verdict> {
        let disk = Arc::clone(&self.disk);
        let worked = tokio::task::spawn_blocking(move || {
            let done = work(&disk, &filing);
            (filing, done)
        });
        match worked.await {
            Ok((filing, Ok(done))) => Ok((filing, done)),
            Ok((_, Err(error))) => Err(self.disk.trouble(&error)),
            Err(error) => Err(self.disk.trouble(&io::Error::other(error))),
        }
    }
}

#[async_trait]
impl Destination for Folder {
    async fn deliver(&self, item: &Delivery) -> Verdict {
        let filed = tokio::time::timeout(self.timeout, self.file(item));
        filed.await.unwrap_or_else(|_| Verdict::Unavailable {
            error: format!(
                "the document was not filed within {:?} (`timeout`); its file or the disk is slow",
                self.timeout
            ),
            retry_after: None,
        })
    }
}

fn delivered(filing: &Filing) -> Verdict {
    let places: Vec<String> = filing
        .places
        .iter()
        .map(|place| format!("{place}{JSON}"))
        .collect();
    Verdict::Delivered {
        note: Some(places.join("\n")),
    }
}

/// Where documents lie in the folder.
struct Plan {
    layout: FolderLayout,
    /// Whether several accounts file here: their documents must not meet.
    by_account: bool,
}

impl Plan {
    /// Where an item is filed, relative to the folder and without the end of its name:
    /// once for each company of ours that it is about.
    fn places(&self, item: &Delivery) -> Vec<String> {
        let companies = match item.feed.queue {
            Queue::Exported => vec![item.feed.company.clone()],
            Queue::Digitized => document::companies(&item.body),
        };
        let view = View::read(&item.body);
        if companies.is_empty() {
            let nobody = self.place(item, &view, &Company::mixed());
            return vec![nobody];
        }
        let companies = companies.iter();
        companies
            .map(|company| self.place(item, &view, company))
            .collect()
    }

    fn place(&self, item: &Delivery, view: &View, company: &Company) -> String {
        let id = identity(&item.document_id);
        let part = |text: &Option<String>, max_bytes| {
            let text = text.as_deref().filter(|text| !text.trim().is_empty());
            text.map(|text| component(text, max_bytes))
        };
        let number = part(&view.number, MAX_PART_BYTES);
        let mut folders = Vec::new();
        if self.by_account {
            folders.push(identity(item.feed.account.as_str()));
        }
        folders.push(match company.as_str() {
            "" => item.feed.queue.as_str().to_owned(),
            code => identity(code),
        });
        let (parts, between) = match self.layout {
            FolderLayout::Company => (vec![number], "-"),
            FolderLayout::Archiver => {
                let side = document::side(&item.body, company);
                folders.push(month(item, view));
                let (folder, other) = match side {
                    Some(Side::Buyer) => ("Pirkimai", &view.seller),
                    Some(Side::Seller) => ("Pardavimai", &view.buyer),
                    None => ("Kiti", &view.seller),
                };
                folders.push(folder.to_owned());
                let date = part(&view.date, MAX_DATE_BYTES);
                (vec![date, number, part(other, MAX_PART_BYTES)], " ")
            }
        };
        let parts: Vec<String> = parts.into_iter().flatten().chain([id]).collect();
        let name = parts.join(between);
        debug_assert!(name.len() + NO_PDF.len() <= file_names::MAX_BYTES);
        folders.push(name);
        folders.join("/")
    }
}

/// `YYYY-MM`: of the document's own date, or of its version, or of when it came.
fn month(item: &Delivery, view: &View) -> String {
    let is_month = |text: &&str| {
        text.bytes().enumerate().all(|(at, byte)| match at {
            4 => byte == b'-',
            _ => byte.is_ascii_digit(),
        })
    };
    let of = |text: &str| text.get(..7).filter(is_month).map(str::to_owned);
    let own = view.date.as_deref().and_then(of);
    let version = || Timestamp::parse(&item.version).and_then(|moment| of(&moment.to_string()));
    let stored = || of(&item.stored_at.to_string());
    own.or_else(version)
        .or_else(stored)
        .unwrap_or_else(|| "0000-00".to_owned())
}

/// One item on its way into the folder.
struct Filing {
    places: Vec<String>,
    body: Vec<u8>,
    earlier: Option<String>,
    wants_pdf: bool,
    _busy: Busy,
}

/// That a document is being written. Writing can't be broken off, so it may outlast the
/// attempt that began it, and must not come after what a later one writes.
struct Busy {
    all: Arc<Mutex<HashSet<String>>>,
    own: String,
}

impl Busy {
    /// `None` where an earlier attempt has not ended.
    fn begin(all: &Arc<Mutex<HashSet<String>>>, item: &Delivery) -> Option<Self> {
        let own = format!("{}/{}", item.feed, item.document_id);
        let is_first = all
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(own.clone());
        is_first.then(|| Self {
            all: Arc::clone(all),
            own,
        })
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(&self.own);
    }
}

/// What goes beside the JSON.
enum Attachment {
    /// The settings want no files: those that are there are left alone.
    Filtered,
    /// A PDF that was fetched.
    Pdf { place: Temporary, hash: String },
    /// Why there is none.
    LeftOut(String),
}

/// A file that is removed once nobody needs it.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// The folder itself. Everything here may block.
struct Disk {
    root: PathBuf,
}

impl Disk {
    fn open(path: &Path) -> Result<Self, String> {
        let root = std::path::absolute(path)
            .map_err(|error| format!("its folder {}: {error}", path.display()))?;
        let disk = Self { root };
        let made = fs::create_dir_all(disk.root.join(UNDER_WAY)).and_then(|()| {
            disk.remove_abandoned()?;
            let probe = disk.temporary()?;
            File::create_new(&probe.0)?.sync_all()
        });
        made.map_err(|error| disk.describe(&error))?;
        Ok(disk)
    }

    /// Removes what a crash left under way; younger files may be another process's.
    fn remove_abandoned(&self) -> io::Result<()> {
        for entry in fs::read_dir(self.root.join(UNDER_WAY))? {
            let entry = entry?;
            let changed = entry.metadata().and_then(|about| about.modified());
            #[expect(
                clippy::disallowed_methods,
                reason = "the file's time is the machine's too"
            )]
            let age = changed.map(|changed| SystemTime::now().duration_since(changed));
            if matches!(age, Ok(Ok(age)) if age > ABANDONED) {
                ignore_missing(fs::remove_file(entry.path()))?;
            }
        }
        Ok(())
    }

    /// A name under way that nobody else has.
    fn temporary(&self) -> io::Result<Temporary> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        Ok(Temporary(self.root.join(UNDER_WAY).join(hex(&bytes))))
    }

    /// What is wrong with the folder and what to do, for people.
    fn describe(&self, error: &io::Error) -> String {
        let advice = match error.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory => {
                "is missing or was changed under way; is its disk mounted? Restarting the service \
                 makes it anew"
            }
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
                "can't be written to; let the service's user write there"
            }
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "is full; make room there",
            ErrorKind::CrossesDevices => {
                "lies on several file systems; let all of it lie on one, or files can't come into \
                 it whole"
            }
            _ => "can't be used; look at the disk",
        };
        format!("its folder {} {advice} ({error})", self.root.display())
    }

    fn trouble(&self, error: &io::Error) -> Verdict {
        Verdict::Unavailable {
            error: self.describe(error),
            retry_after: None,
        }
    }

    fn path(&self, place: &str, ending: &str) -> PathBuf {
        self.root.join(format!("{place}{ending}"))
    }

    fn stored(&self, hash: &str) -> PathBuf {
        self.root.join(STORED).join(format!("{hash}{PDF}"))
    }

    /// Whether all of it is in place already, from an attempt that nobody heard of. Then
    /// what is left to do of that attempt is done.
    fn finish_if_filed(&self, filing: &Filing) -> io::Result<bool> {
        for place in &filing.places {
            let is_same = holds(&self.path(place, JSON), &filing.body)?;
            let has_pdf = self.path(place, PDF).is_file() && !self.path(place, NO_PDF).exists();
            if !is_same || (filing.wants_pdf && !has_pdf) {
                return Ok(false);
            }
        }
        self.remove_earlier(filing, filing.wants_pdf)?;
        Ok(true)
    }

    /// Puts everything in its place, the JSON last, then removes what it replaces.
    fn file(&self, filing: &Filing, attachment: &Attachment) -> io::Result<()> {
        let has_pdf = matches!(attachment, Attachment::Pdf { .. });
        if let Attachment::Pdf { place, hash } = attachment {
            self.store(&place.0, hash)?;
        }
        for place in &filing.places {
            let folder = self.make_folder(place)?;
            match attachment {
                Attachment::Filtered => {}
                Attachment::Pdf { place: pdf, hash } => self.attach(place, &pdf.0, hash)?,
                Attachment::LeftOut(why) => {
                    let note = format!(
                        "The PDF of this document is not here: {why}.\n\
                         A PDF of the same name is that of an earlier version.\n"
                    );
                    self.write(&self.path(place, NO_PDF), note.as_bytes())?;
                }
            }
            sync_folder(&folder)?;
            self.write(&self.path(place, JSON), &filing.body)?;
            if has_pdf {
                ignore_missing(fs::remove_file(self.path(place, NO_PDF)))?;
            }
            sync_folder(&folder)?;
        }
        self.remove_earlier(filing, has_pdf)
    }

    /// Makes the folder of a place, and has each new one's name written to the disk.
    fn make_folder(&self, place: &str) -> io::Result<PathBuf> {
        let mut folder = self.root.clone();
        let names = Path::new(place).parent().unwrap_or(Path::new(""));
        for name in names {
            let parent = folder.clone();
            folder.push(name);
            match fs::create_dir(&folder) {
                Ok(()) => sync_folder(&parent)?,
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Ok(folder)
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let temporary = self.temporary()?;
        let mut file = File::create_new(&temporary.0)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary.0, path)
    }

    /// Keeps a fetched PDF under its hash, unless it is there as it was stored.
    fn store(&self, fetched: &Path, hash: &str) -> io::Result<()> {
        let stored = self.stored(hash);
        if hash_of(&stored)?.as_deref() == Some(hash) {
            return Ok(());
        }
        let temporary = self.temporary()?;
        link_or_copy(fetched, &temporary.0)?;
        fs::rename(&temporary.0, &stored)?;
        sync_folder(&self.root.join(STORED))
    }

    /// Gives the stored PDF the name that people read.
    fn attach(&self, place: &str, fetched: &Path, hash: &str) -> io::Result<()> {
        let path = self.path(place, PDF);
        let earlier = hash_of(&path)?;
        if earlier.as_deref() == Some(hash) {
            return Ok(());
        }
        let temporary = self.temporary()?;
        match link_or_copy(&self.stored(hash), &temporary.0) {
            // Another document's removal took it for unused a moment ago.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                link_or_copy(fetched, &temporary.0)?;
            }
            other => other?,
        }
        fs::rename(&temporary.0, &path)?;
        match earlier {
            Some(earlier) => self.forget(&earlier),
            None => Ok(()),
        }
    }

    fn remove_pdf(&self, path: &Path) -> io::Result<()> {
        let hash = hash_of(path)?;
        ignore_missing(fs::remove_file(path))?;
        match hash {
            Some(hash) => self.forget(&hash),
            None => Ok(()),
        }
    }

    /// Removes a stored PDF that no name leads to any more.
    fn forget(&self, hash: &str) -> io::Result<()> {
        let stored = self.stored(hash);
        match fs::symlink_metadata(&stored) {
            Ok(about) if about.nlink() == 1 => ignore_missing(fs::remove_file(&stored)),
            Ok(_) => Ok(()),
            Err(error) => ignore_missing(Err(error)),
        }
    }

    /// Removes the files of an earlier version that lay elsewhere, where they still do; its
    /// PDF only where another has come in its place.
    fn remove_earlier(&self, filing: &Filing, has_pdf: bool) -> io::Result<()> {
        let noted = filing.earlier.as_deref().unwrap_or_default().lines();
        for place in noted.filter_map(|line| line.strip_suffix(JSON)) {
            if filing.places.iter().any(|new| new == place) || !self.is_inside(place)? {
                continue;
            }
            // The JSON first, as it came last.
            ignore_missing(fs::remove_file(self.path(place, JSON)))?;
            ignore_missing(fs::remove_file(self.path(place, NO_PDF)))?;
            if has_pdf {
                self.remove_pdf(&self.path(place, PDF))?;
            }
        }
        Ok(())
    }

    /// Whether a place that was noted is one of this folder's, also once every link in its
    /// way is followed.
    fn is_inside(&self, place: &str) -> io::Result<bool> {
        let mut names = Path::new(place).components();
        if !names.all(|name| matches!(name, Component::Normal(_))) || place.starts_with('.') {
            return Ok(false);
        }
        let path = self.path(place, JSON);
        match path.parent().unwrap_or(&self.root).canonicalize() {
            Ok(folder) => Ok(folder.starts_with(self.root.canonicalize()?)),
            Err(error) => ignore_missing(Err(error)).map(|()| false),
        }
    }
}

fn ignore_missing(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Whether there is a file with exactly these bytes.
fn holds(path: &Path, bytes: &[u8]) -> io::Result<bool> {
    match File::open(path) {
        Ok(file) if file.metadata()?.len() == bytes.len() as u64 => {
            let mut there = Vec::with_capacity(bytes.len());
            file.take(bytes.len() as u64 + 1).read_to_end(&mut there)?;
            Ok(there == bytes)
        }
        Ok(_) => Ok(false),
        Err(error) => ignore_missing(Err(error)).map(|()| false),
    }
}

/// The SHA-256 of a file's content, where there is such a file.
fn hash_of(path: &Path) -> io::Result<Option<String>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) => return ignore_missing(Err(error)).map(|()| None),
    };
    let mut digest = Context::new(&SHA256);
    let mut chunk = vec![0; 64 * 1024];
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(Some(hex(digest.finish().as_ref()))),
            count => digest.update(&chunk[..count]),
        }
    }
}

/// A second name for a file, or a copy where the file system has no such thing.
fn link_or_copy(from: &Path, to: &Path) -> io::Result<()> {
    match fs::hard_link(from, to) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            fs::copy(from, to)?;
            File::open(to)?.sync_all()
        }
        other => other,
    }
}

/// Has the names in a folder written to the disk.
fn sync_folder(folder: &Path) -> io::Result<()> {
    match File::open(folder)?.sync_all() {
        // Some network file systems have no such thing.
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::InvalidInput | ErrorKind::Unsupported
            ) =>
        {
            Ok(())
        }
        other => other,
    }
}
