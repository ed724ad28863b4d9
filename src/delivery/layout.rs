//! The names of a destination's files.

use super::disk::NO_PDF;
use crate::config::FolderLayout;
use crate::domain::{Company, Moment, Queue};
use crate::file_names::{self, component, identity};
use crate::ivesk::Entry;
use crate::ivesk::document::Side;
use crate::ivesk::view::View;
use crate::store::Delivery;

/// Longest date in a file name, in bytes.
const MAX_DATE_BYTES: usize = 20;
/// Longest document number or party name in a file name, in bytes.
const MAX_PART_BYTES: usize = 55;

/// The layout of the folder.
pub(super) struct Plan {
    pub(super) layout: FolderLayout,
    /// True if several accounts file here; each gets a folder of its own.
    pub(super) by_account: bool,
}

impl Plan {
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
            FolderLayout::Archiver => {
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
