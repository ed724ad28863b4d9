//! The names of a destination's files.

use crate::config::FolderLayout;
use crate::domain::{Company, Moment, Queue};
use crate::file_names::{self, component, identity, truncate};
use crate::ivesk::document::Side;
use crate::ivesk::view::View;
use crate::ivesk::{self, Entry};
use crate::store::Delivery;

/// The longest ending of a file name: the reason for a missing file.
pub(super) const NO_PDF: &str = ".nopdf.txt";
/// Longest date in a file name, in bytes.
const MAX_DATE_BYTES: usize = 20;
/// Longest name of the vendor's archiver that is taken, in bytes: with the longest ending it is a name.
const MAX_ARCHIVER_BYTES: usize = file_names::MAX_BYTES - NO_PDF.len();
/// Longest document number or party name in a file name, in bytes.
const MAX_PART_BYTES: usize = 55;

/// The layout of the folder.
pub(super) struct Plan {
    pub(super) layout: FolderLayout,
    /// True if several accounts file here; each gets a folder of its own.
    pub(super) by_account: bool,
}

/// The path of a document, relative to the folder and without an ending.
pub(super) struct FilePath {
    /// The one to take unless files of another document have it.
    pub(super) preferred: String,
    /// One that no other document has.
    pub(super) own: String,
}

impl Plan {
    /// Returns the paths of a document: one for each of our companies that it names.
    pub(super) fn file_paths(&self, delivery: &Delivery) -> Vec<FilePath> {
        if let Some(paths) = self.paths_of_the_archiver(delivery) {
            return paths;
        }
        let paths = self.paths(delivery).into_iter();
        paths
            .map(|own| FilePath {
                preferred: own.clone(),
                own,
            })
            .collect()
    }

    /// Returns the names that the vendor's archiver gives: one for each party that is a favorite
    /// (`archiver.js`, `fetchFile`). `None` if another layout is set, or a part of the name is missing or
    /// can't be in a file's name.
    fn paths_of_the_archiver(&self, delivery: &Delivery) -> Option<Vec<FilePath>> {
        if self.layout != FolderLayout::ArchiverNames {
            return None;
        }
        let entry = Entry::parse(&delivery.body)?;
        let sides = match delivery.feed.queue {
            Queue::Exported => Vec::from_iter(entry.side(&delivery.feed.company)),
            Queue::Digitized => entry.favorites(),
        };
        let id = identity(&delivery.document_id);
        let account = if self.by_account {
            format!("{}/", identity(delivery.feed.account.as_str()))
        } else {
            String::new()
        };
        let paths = sides.into_iter().map(|side| {
            let (folders, name) = archiver_name(&entry, side)?;
            let own = truncate(&name, MAX_ARCHIVER_BYTES - id.len() - 1);
            Some(FilePath {
                preferred: format!("{account}{folders}/{name}"),
                own: format!("{account}{folders}/{own} {id}"),
            })
        });
        let paths: Vec<FilePath> = paths.collect::<Option<_>>()?;
        (!paths.is_empty()).then_some(paths)
    }

    /// Returns the paths of a document, relative to the folder and without an ending: one for
    /// each of our companies that it names.
    pub(super) fn paths(&self, delivery: &Delivery) -> Vec<String> {
        let entry = Entry::parse(&delivery.body);
        let entry = entry.as_ref();
        let companies = match delivery.feed.queue {
            Queue::Exported => vec![delivery.feed.company.clone()],
            Queue::Digitized => entry.map(Entry::companies).unwrap_or_default(),
        };
        let view = entry.map(Entry::view).unwrap_or_default();
        let path = |company: &Company| {
            let side = entry.and_then(|entry| entry.side(company));
            self.path(delivery, &view, side, company)
        };
        if companies.is_empty() {
            return vec![path(&Company::mixed())];
        }
        companies.iter().map(path).collect()
    }

    fn path(
        &self,
        delivery: &Delivery,
        view: &View,
        side: Option<Side>,
        company: &Company,
    ) -> String {
        let id = identity(&delivery.document_id);
        let part = |text: &Option<String>, max_bytes| {
            let text = text.as_deref().filter(|text| !text.trim().is_empty());
            text.map(|text| component(text, max_bytes))
        };
        let number = part(&view.number, MAX_PART_BYTES);
        let mut folders = Vec::new();
        if self.by_account {
            folders.push(identity(delivery.feed.account.as_str()));
        }
        folders.push(match company.as_str() {
            "" => delivery.feed.queue.as_str().to_owned(),
            code => identity(code),
        });
        let (parts, separator) = match self.layout {
            FolderLayout::Company => (vec![number], "-"),
            FolderLayout::Archiver | FolderLayout::ArchiverNames => {
                folders.push(month(delivery, view));
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
        let name = parts.join(separator);
        debug_assert!(name.len() + NO_PDF.len() <= file_names::MAX_BYTES);
        folders.push(name);
        folders.join("/")
    }
}

/// Returns the folders and the name that the vendor's archiver gives to a document of this party.
fn archiver_name(entry: &Entry<'_>, side: Side) -> Option<(String, String)> {
    /// Characters of a document's number that it replaces.
    const REPLACED: [char; 10] = ['<', '>', ':', '"', '?', '/', '\\', '|', '*', '\0'];
    let text = |name: &str| entry.raw(name).and_then(ivesk::text);
    let (seller, buyer) = (text("sellernameascii")?, text("buyernameascii")?);
    let (own, folder, other) = match side {
        Side::Seller => (seller, "Pardavimai", buyer),
        Side::Buyer => (buyer, "Pirkimai", seller),
    };
    let date = text("date")?;
    let month: String = date.chars().take(7).collect();
    let number = text("docnum")?.replace(REPLACED, "_");
    let name = format!("{date} {number} {other}");
    // It joins them as they are, so that a `/` would lead to another folder.
    let is_name = |text: &str| {
        !text.is_empty()
            && text.len() <= MAX_ARCHIVER_BYTES
            && !text.starts_with('.')
            && !text.chars().any(|c| c == '/' || c.is_control())
    };
    let is_named = [own.as_str(), &month, &name].into_iter().all(is_name);
    is_named.then(|| (format!("{own}/{month}/{folder}"), name))
}

/// Returns `YYYY-MM` of the document's own date, else of its version, else of the time when it
/// was stored.
fn month(delivery: &Delivery, view: &View) -> String {
    let is_month = |text: &&str| {
        text.bytes().enumerate().all(|(at, byte)| match at {
            4 => byte == b'-',
            _ => byte.is_ascii_digit(),
        })
    };
    let of = |text: &str| text.get(..7).filter(is_month).map(str::to_owned);
    let own = view.date.as_deref().and_then(of);
    let version = || of(Moment::read(&delivery.version)?.as_str());
    let stored = || of(&delivery.stored_at.to_string());
    own.or_else(version)
        .or_else(stored)
        .unwrap_or_else(|| "0000-00".to_owned())
}
