//! The folder of a destination on the disk.
//!
//! A JSON file appears last: everything that belongs to it is in place and synced before
//! the JSON is renamed to its name. Unfinished files are in `.files/tmp`, and the PDFs
//! themselves in `.files`, each content once; the names that people read are hard links to
//! them.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{Context, SHA256};
use rustix::fs::{Mode, fchmod};

use super::destination::DestinationResponse;
use super::layout::{FilePath, NO_PDF};
use crate::config::FileMode;
use crate::domain::Queue;
use crate::hex::hex;
use crate::ivesk::Entry;
use crate::private_files::{Dir, FOLDER_MODE, create_dir_all};
use crate::store::{Delivery, ErasedFile};

/// Folder of PDFs by the hash of their content. No company's folder begins with a dot.
const STORED: &str = ".files";
/// Folder in it of files that are being written.
const TEMPORARY: &str = "tmp";
/// Age after which a temporary file counts as left behind by a crash.
const ABANDONED_AFTER: Duration = Duration::from_secs(24 * 60 * 60);
/// Longest JSON of a document that is read, to find out whose files have a name.
const MAX_JSON_BYTES: u64 = 64 << 20;
/// Endings of file names: the document, and its file.
pub(super) const JSON: &str = ".json";
pub(super) const PDF: &str = ".pdf";

/// One document version to file.
pub(super) struct Filing {
    pub(super) document_id: String,
    pub(super) paths: Vec<FilePath>,
    pub(super) body: Vec<u8>,
    pub(super) earlier: Option<String>,
    pub(super) with_pdf: bool,
    pub(super) _busy: BusyGuard,
}

/// Marks a document as being written. Writing can't be interrupted, so it may outlast its
/// attempt, and must not overwrite what a later attempt writes.
pub(super) struct BusyGuard {
    busy: Arc<Mutex<HashSet<String>>>,
    document: String,
}

impl BusyGuard {
    /// Returns `None` if an earlier attempt is still writing the document.
    pub(super) fn acquire(busy: &Arc<Mutex<HashSet<String>>>, delivery: &Delivery) -> Option<Self> {
        let document = format!("{}/{}", delivery.feed, delivery.document_id);
        let is_first = busy
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(document.clone());
        is_first.then(|| Self {
            busy: Arc::clone(busy),
            document,
        })
    }
}

impl Drop for BusyGuard {
    fn drop(&mut self) {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        busy.remove(&self.document);
    }
}

/// The file that belongs to a document.
pub(super) enum Attachment {
    /// The settings disable files; existing ones are left alone.
    Disabled,
    /// A fetched PDF.
    Pdf { file: TemporaryFile, hash: String },
    /// No PDF; the reason.
    Missing(String),
}

/// A file that is removed on drop.
pub(super) struct TemporaryFile {
    folder: Dir,
    name: String,
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        let _ = self.folder.remove(&self.name);
    }
}

/// The folder on the disk. Every method may block.
///
/// Others may write in it too. So its folders are opened one after another from the root on, and no
/// link in it is followed; a link in the path of the root is.
pub(super) struct Disk {
    root: PathBuf,
    /// Held while names are chosen that two documents could both prefer.
    choosing: Mutex<()>,
    file_mode: Mode,
    folder_mode: Mode,
}

/// The folder of a document's files, and their name without an ending.
struct Place {
    folder: Dir,
    stem: String,
}

impl Place {
    fn name(&self, ending: &str) -> String {
        format!("{}{ending}", self.stem)
    }
}

impl Disk {
    pub(super) fn open(path: &Path, mode: FileMode) -> Result<Self, String> {
        let disk = Self::existing(path, mode)
            .map_err(|error| format!("its folder {}: {error}", path.display()))?;
        let checked = create_dir_all(&disk.root, disk.folder_mode).and_then(|()| {
            let root = disk.root()?;
            let (stored, _) = root.make_child(STORED, FOLDER_MODE)?;
            stored.make_child(TEMPORARY, FOLDER_MODE)?;
            stored.sync()?;
            root.sync()?;
            disk.remove_abandoned()?;
            let (_probe, file) = disk.temporary()?;
            file.sync_all()
        });
        checked.map_err(|error| disk.describe(&error))?;
        Ok(disk)
    }

    /// Returns the folder of a destination as it is, without making anything.
    fn existing(path: &Path, mode: FileMode) -> io::Result<Self> {
        Ok(Self {
            root: std::path::absolute(path)?,
            choosing: Mutex::default(),
            file_mode: Mode::from_raw_mode(mode.of_files().into()),
            folder_mode: Mode::from_raw_mode(mode.of_folders().into()),
        })
    }

    fn root(&self) -> io::Result<Dir> {
        Dir::open(&self.root)
    }

    /// Opens the folder of PDFs by the hash of their content.
    fn stored(&self) -> io::Result<Dir> {
        self.root()?.child(STORED)
    }

    /// Removes temporary files that a crash left behind; younger ones may be another process's.
    fn remove_abandoned(&self) -> io::Result<()> {
        let folder = self.stored()?.child(TEMPORARY)?;
        for entry in fs::read_dir(self.root.join(STORED).join(TEMPORARY))? {
            let entry = entry?;
            let modified = entry.metadata().and_then(|metadata| metadata.modified());
            #[expect(
                clippy::disallowed_methods,
                reason = "the file's time is the machine's too"
            )]
            let age = modified.map(|modified| SystemTime::now().duration_since(modified));
            if matches!(age, Ok(Ok(age)) if age > ABANDONED_AFTER) {
                folder.remove(entry.file_name())?;
            }
        }
        Ok(())
    }

    /// Returns the name of a temporary file, which is not in use.
    fn temporary_name(&self) -> io::Result<TemporaryFile> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        Ok(TemporaryFile {
            folder: self.stored()?.child(TEMPORARY)?,
            name: hex(&bytes),
        })
    }

    /// Creates a temporary file. It has its final permissions: only this user may enter its folder.
    pub(super) fn temporary(&self) -> io::Result<(TemporaryFile, File)> {
        let temporary = self.temporary_name()?;
        let file = temporary.folder.create_new(&temporary.name)?;
        fchmod(&file, self.file_mode)?;
        Ok((temporary, file))
    }

    /// Describes a problem with the folder and its fix.
    fn describe(&self, error: &io::Error) -> String {
        let problem = match error.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory => {
                "is missing or was replaced; is its disk mounted? Restarting the service creates it \
                 again"
            }
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
                "is not writable; give the service's user write access"
            }
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "is full; free some space there",
            ErrorKind::CrossesDevices => {
                "spans several file systems, so files can't be moved into it; keep all of it on one"
            }
            ErrorKind::InvalidInput => {
                "contains something that the service did not put there; replace it by a folder"
            }
            _ => "can't be used; check the disk",
        };
        format!("its folder {} {problem} ({error})", self.root.display())
    }

    pub(super) fn unavailable(&self, error: &io::Error) -> DestinationResponse {
        DestinationResponse::unavailable(self.describe(error))
    }

    /// Opens the place of a path; `None` if its folder does not exist.
    fn find(&self, path: &str) -> io::Result<Option<Place>> {
        let (folders, stem) = split(path);
        let mut folder = self.root()?;
        for name in folders {
            folder = match folder.child(name) {
                Ok(child) => child,
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error),
            };
        }
        Ok(Some(Place { folder, stem }))
    }

    /// Opens the place of a path that a note names; `None` if nothing of ours can be there.
    fn find_ours(&self, path: &str) -> io::Result<Option<Place>> {
        if !is_ours(path) {
            return Ok(None);
        }
        match self.find(path) {
            // A link has taken its place: what it leads to is not ours.
            Err(error) if error.kind() == ErrorKind::InvalidInput => Ok(None),
            other => other,
        }
    }

    /// Removes the files that belong to a line of a note, each if it is a regular file and not those of
    /// another document; returns their number.
    fn erase(&self, file: &ErasedFile) -> io::Result<usize> {
        let Some(path) = file.path.strip_suffix(JSON) else {
            return Ok(0);
        };
        let Some(place) = self.find_ours(path)? else {
            return Ok(0);
        };
        if has_another(&place, |id| file.is_of(id))? {
            return Ok(0);
        }
        let mut removed = 0;
        for ending in [JSON, NO_PDF, PDF] {
            if !place.folder.has_file(place.name(ending))? {
                continue;
            }
            match ending {
                PDF => self.remove_pdf(&place)?,
                _ => place.folder.remove(place.name(ending))?,
            }
            removed += 1;
        }
        place.folder.sync()?;
        Ok(removed)
    }

    /// Opens the place of a path, creates its folders, and syncs the name of each new one.
    fn make(&self, path: &str) -> io::Result<Place> {
        let (folders, stem) = split(path);
        let mut folder = self.root()?;
        for name in folders {
            let (child, created) = folder.make_child(name, self.folder_mode)?;
            if created {
                folder.sync()?;
            }
            folder = child;
        }
        Ok(Place { folder, stem })
    }

    /// Returns the paths if an earlier attempt has filed everything already; finishes that attempt.
    pub(super) fn finish_if_filed(&self, filing: &Filing) -> io::Result<Option<Vec<String>>> {
        let mut filed = Vec::with_capacity(filing.paths.len());
        for FilePath { preferred, own } in &filing.paths {
            if self.is_filed(preferred, filing)? {
                filed.push(preferred.clone());
            } else if preferred != own && self.is_filed(own, filing)? {
                filed.push(own.clone());
            } else {
                return Ok(None);
            }
        }
        self.remove_earlier(filing, &filed, filing.with_pdf)?;
        Ok(Some(filed))
    }

    fn is_filed(&self, path: &str, filing: &Filing) -> io::Result<bool> {
        let Some(place) = self.find(path)? else {
            return Ok(false);
        };
        let Place { folder, .. } = &place;
        if !has_content(folder, &place.name(JSON), &filing.body)? {
            return Ok(false);
        }
        let is_filed = !filing.with_pdf
            || (folder.has_file(place.name(PDF))? && folder.about(place.name(NO_PDF))?.is_none());
        if is_filed {
            // An earlier attempt may have ended before it synced the names.
            folder.sync()?;
        }
        Ok(is_filed)
    }

    /// Writes all files, the JSON last, then removes those of an earlier version; returns their paths.
    pub(super) fn file(&self, filing: &Filing, attachment: &Attachment) -> io::Result<Vec<String>> {
        let has_pdf = matches!(attachment, Attachment::Pdf { .. });
        let mut filed = Vec::with_capacity(filing.paths.len());
        for path in &filing.paths {
            let _choosing = match path.preferred == path.own {
                true => None,
                // Whoever panicked has left the folder as a crash does.
                false => Some(self.choosing.lock().unwrap_or_else(PoisonError::into_inner)),
            };
            let path = self.choose(path, filing, attachment)?;
            self.file_at(path, filing, attachment)?;
            filed.push(path.to_owned());
        }
        self.remove_earlier(filing, &filed, has_pdf)?;
        Ok(filed)
    }

    fn file_at(&self, path: &str, filing: &Filing, attachment: &Attachment) -> io::Result<()> {
        let place = self.make(path)?;
        match attachment {
            Attachment::Disabled => {}
            Attachment::Pdf { file, hash } => {
                self.attach(&place, file, hash)?;
                place.folder.sync()?;
            }
            Attachment::Missing(reason) => {
                let note = format!(
                    "The PDF of this document is missing: {reason}.\n\
                     A PDF of the same name belongs to an earlier version.\n"
                );
                self.write(&place, NO_PDF, note.as_bytes())?;
                place.folder.sync()?;
            }
        }
        self.write(&place, JSON, &filing.body)?;
        if matches!(attachment, Attachment::Pdf { .. }) {
            place.folder.remove(place.name(NO_PDF))?;
        }
        place.folder.sync()
    }

    /// Returns the path to file a document at: the preferred one, unless files that are not its own
    /// have that name. A PDF of the same content, such as the archiver's, is its own.
    fn choose<'p>(
        &self,
        FilePath { preferred, own }: &'p FilePath,
        filing: &Filing,
        attachment: &Attachment,
    ) -> io::Result<&'p str> {
        let earlier = filing.earlier.as_deref().unwrap_or_default();
        let was_here = |path: &str| {
            earlier
                .lines()
                .any(|line| line.strip_suffix(JSON) == Some(path))
        };
        if preferred == own || was_here(own) {
            return Ok(own);
        }
        let Some(place) = self.find(preferred)? else {
            return Ok(preferred);
        };
        let is_free = if let Some(id) = id_of(&place)? {
            id == filing.document_id
        } else if place.folder.about(place.name(JSON))?.is_some() {
            false
        } else {
            match (attachment, hash_of(&place.folder, &place.name(PDF))?) {
                (Attachment::Disabled, _) | (_, None) => true,
                (Attachment::Pdf { hash, .. }, Some(there)) => *hash == there,
                (Attachment::Missing(_), Some(_)) => false,
            }
        };
        Ok(if is_free { preferred } else { own })
    }

    fn write(&self, place: &Place, ending: &str, bytes: &[u8]) -> io::Result<()> {
        let (temporary, mut file) = self.temporary()?;
        file.write_all(bytes)?;
        file.sync_all()?;
        let TemporaryFile { folder, name } = &temporary;
        folder.rename(name, &place.folder, place.name(ending))
    }

    /// Stores a fetched PDF under its hash, unless an intact copy exists.
    fn store(&self, fetched: &TemporaryFile, hash: &str) -> io::Result<()> {
        let stored = self.stored()?;
        let name = stored_name(hash);
        if hash_of(&stored, &name)?.as_deref() == Some(hash) {
            return Ok(());
        }
        let linked = self.link_or_copy(&fetched.folder, &fetched.name)?;
        linked.folder.rename(&linked.name, &stored, name)?;
        stored.sync()
    }

    /// Links the stored PDF under the name that people read.
    fn attach(&self, place: &Place, fetched: &TemporaryFile, hash: &str) -> io::Result<()> {
        let name = place.name(PDF);
        let earlier = hash_of(&place.folder, &name)?;
        if earlier.as_deref() == Some(hash) {
            // It may be a file of the archiver, which needs no second copy.
            return Ok(());
        }
        self.store(fetched, hash)?;
        let linked = match self.link_or_copy(&self.stored()?, &stored_name(hash)) {
            // Another document has just removed the stored PDF as unused.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.link_or_copy(&fetched.folder, &fetched.name)?
            }
            other => other?,
        };
        linked.folder.rename(&linked.name, &place.folder, name)?;
        match earlier {
            Some(earlier) => self.remove_unused(&earlier),
            None => Ok(()),
        }
    }

    /// Gives the file `name` of `folder` a second, temporary name, or copies it if the file system
    /// has no hard links.
    fn link_or_copy(&self, folder: &Dir, name: &str) -> io::Result<TemporaryFile> {
        let linked = self.temporary_name()?;
        match folder.link(name, &linked.folder, &linked.name) {
            Ok(()) => Ok(linked),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(error),
            Err(_) => {
                let (temporary, mut copy) = self.temporary()?;
                io::copy(&mut folder.open_file(name)?, &mut copy)?;
                copy.sync_all()?;
                Ok(temporary)
            }
        }
    }

    fn remove_pdf(&self, place: &Place) -> io::Result<()> {
        let name = place.name(PDF);
        let hash = hash_of(&place.folder, &name)?;
        place.folder.remove(name)?;
        match hash {
            Some(hash) => self.remove_unused(&hash),
            None => Ok(()),
        }
    }

    /// Removes a stored PDF if no document links to it.
    fn remove_unused(&self, hash: &str) -> io::Result<()> {
        let stored = self.stored()?;
        let name = stored_name(hash);
        match stored.about(&name)? {
            Some(about) if about.st_nlink == 1 => stored.remove(name),
            _ => Ok(()),
        }
    }

    /// Removes every stored PDF that no document links to.
    ///
    /// A PDF whose document was moved away or changed by others has left one behind.
    fn remove_all_unused(&self) -> io::Result<()> {
        let stored = self.stored()?;
        for entry in fs::read_dir(self.root.join(STORED))? {
            let name = entry?.file_name();
            match stored.about(&name)? {
                Some(about) if about.st_nlink == 1 && stored.has_file(&name)? => {
                    stored.remove(&name)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Removes the files of an earlier version that had another path; its PDF only if another
    /// one has replaced it.
    fn remove_earlier(&self, filing: &Filing, filed: &[String], has_pdf: bool) -> io::Result<()> {
        let earlier = filing.earlier.as_deref().unwrap_or_default().lines();
        for path in earlier.filter_map(|line| line.strip_suffix(JSON)) {
            if filed.iter().any(|new| new == path) {
                continue;
            }
            let Some(place) = self.find_ours(path)? else {
                continue;
            };
            // Somebody has emptied the folder, and the name was free for another document.
            if has_another(&place, |id| id == filing.document_id)? {
                continue;
            }
            // The JSON first: a JSON file never exists without its other files.
            place.folder.remove(place.name(JSON))?;
            place.folder.remove(place.name(NO_PDF))?;
            if has_pdf {
                self.remove_pdf(&place)?;
            }
        }
        Ok(())
    }
}

/// Files of erased documents that were removed from a folder.
#[derive(Debug, Default)]
pub struct RemovedFiles {
    /// Those that are gone.
    pub done: Vec<ErasedFile>,
    /// The number of files that were removed.
    pub files: usize,
    /// The problem with the first one that remains, and its fix.
    pub problem: Option<String>,
}

/// Removes files of erased documents from the folder of a destination: those that were filed
/// there, and nothing through a link. May block.
///
/// The last call of several also removes the stored PDFs that are left without a document.
pub(super) fn remove_filed(
    path: &Path,
    mode: FileMode,
    files: Vec<ErasedFile>,
    is_last: bool,
) -> RemovedFiles {
    let mut removed = RemovedFiles::default();
    let disk = match Disk::existing(path, mode) {
        Ok(disk) => disk,
        Err(error) => {
            removed.problem = Some(format!("its folder {}: {error}", path.display()));
            return removed;
        }
    };
    // Without the folder nothing is known to be gone: its disk may not be mounted.
    if let Err(error) = disk.stored() {
        removed.problem = Some(disk.describe(&error));
        return removed;
    }
    for file in files {
        match disk.erase(&file) {
            Ok(count) => {
                removed.files += count;
                removed.done.push(file);
            }
            Err(error) => {
                removed.problem.get_or_insert_with(|| disk.describe(&error));
            }
        }
    }
    if is_last && let Err(error) = disk.remove_all_unused() {
        removed.problem.get_or_insert_with(|| disk.describe(&error));
    }
    removed
}

/// Splits a path into the names of its folders and the last name.
fn split(path: &str) -> (Vec<&str>, String) {
    let mut folders: Vec<&str> = path.split('/').collect();
    let stem = folders.pop().unwrap_or_default().to_owned();
    (folders, stem)
}

/// Returns true if a stored path is one that a document's files may have: below the root, and not
/// in a folder of our own.
fn is_ours(path: &str) -> bool {
    let mut names = Path::new(path).components();
    names.all(|name| matches!(name, Component::Normal(_))) && !path.starts_with('.')
}

fn stored_name(hash: &str) -> String {
    format!("{hash}{PDF}")
}

/// Opens a file; `None` if there is no such name, or something else has it.
fn open_if_file(folder: &Dir, name: &str) -> io::Result<Option<File>> {
    match folder.open_file(name) {
        Ok(file) => Ok(Some(file)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidInput) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Returns true if the file exists and contains exactly these bytes.
fn has_content(folder: &Dir, name: &str, bytes: &[u8]) -> io::Result<bool> {
    let Some(file) = open_if_file(folder, name)? else {
        return Ok(false);
    };
    if file.metadata()?.len() != bytes.len() as u64 {
        return Ok(false);
    }
    let mut content = Vec::with_capacity(bytes.len());
    file.take(bytes.len() as u64 + 1)
        .read_to_end(&mut content)?;
    Ok(content == bytes)
}

/// Returns the id of the document whose JSON is at a place; `None` if there is no such document.
fn id_of(place: &Place) -> io::Result<Option<String>> {
    let Some(file) = open_if_file(&place.folder, &place.name(JSON))? else {
        return Ok(None);
    };
    let mut json = Vec::new();
    file.take(MAX_JSON_BYTES).read_to_end(&mut json)?;
    // Both queues may be filed in the folder.
    let id = Entry::parse(&json).and_then(|entry| {
        let mut queues = Queue::ALL.iter();
        queues.find_map(|queue| entry.identity(*queue).ok())
    });
    Ok(id.map(|identity| identity.id))
}

/// Returns true if the JSON at a place is of another document than the one that `is_this` knows by its id.
fn has_another(place: &Place, is_this: impl Fn(&str) -> bool) -> io::Result<bool> {
    Ok(id_of(place)?.is_some_and(|id| !is_this(&id)))
}

/// Returns the SHA-256 of a file's content, or `None` if there is no such file.
fn hash_of(folder: &Dir, name: &str) -> io::Result<Option<String>> {
    let Some(mut file) = open_if_file(folder, name)? else {
        return Ok(None);
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
