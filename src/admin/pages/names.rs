//! Names of companies: Įvesk.lt's queues know companies by their codes, and documents by name.

use std::collections::BTreeMap;

use maud::{Markup, html};

use crate::admin::problem::AdminError;
use crate::app::App;
use crate::domain::{Company, Feed, Queue};
use crate::ivesk::document::Side;
use crate::ivesk::{Entry, text};
use crate::visible::foreign;

/// Maximum number of companies whose names are read for one page.
const MAX_NAMES: usize = 2_000;

/// The names of companies, from the newest document of each.
#[derive(Debug, Default)]
pub(super) struct Names(BTreeMap<Company, String>);

impl Names {
    /// Reads the names of these companies.
    pub(super) async fn read(
        app: &App,
        companies: impl Iterator<Item = &Company>,
    ) -> Result<Self, AdminError> {
        let mut codes: Vec<String> = companies
            .map(|company| company.as_str().to_owned())
            .filter(|code| !code.is_empty())
            .collect();
        codes.sort_unstable();
        codes.dedup();
        codes.truncate(MAX_NAMES);
        let mut names = BTreeMap::new();
        if codes.is_empty() {
            return Ok(Self(names));
        }
        for newest in app.store.newest_documents(codes).await? {
            let entry = newest.body.as_deref().and_then(Entry::parse);
            if let Some(name) = entry.and_then(|entry| own_name(&entry, &newest.company)) {
                names.insert(newest.company, name);
            }
        }
        Ok(Self(names))
    }

    /// Returns a company's name.
    pub(super) fn get(&self, company: &Company) -> Option<&str> {
        self.0.get(company).map(String::as_str)
    }

    /// Renders a company: its name with the code small, or the code.
    pub(super) fn company(&self, company: &Company) -> Markup {
        html! {
            @match self.get(company) {
                Some(name) => { span.name { (name) } " " span.code { (company) } }
                None => { span.code { (company) } }
            }
        }
    }

    /// Returns a company as text: its name and code, or the code.
    pub(super) fn text(&self, company: &Company) -> String {
        match self.get(company) {
            Some(name) => format!("{name} ({company})"),
            None => company.to_string(),
        }
    }

    /// Returns true if the company's code or name contains `text`, which is in lower case.
    pub(super) fn mentions(&self, feed: &Feed, text: &str) -> bool {
        let is_in = |name: &str| name.to_lowercase().contains(text);
        is_in(feed.company.as_str())
            || is_in(feed.account.as_str())
            || self.get(&feed.company).is_some_and(is_in)
            || (feed.queue == Queue::Digitized && is_in(feed.queue.as_str()))
    }
}

/// Returns the name that a document gives its own company.
fn own_name(entry: &Entry<'_>, company: &Company) -> Option<String> {
    let side = match entry.side(company)? {
        Side::Seller => "seller",
        Side::Buyer => "buyer",
    };
    ["name", "nameascii"]
        .iter()
        .find_map(|leaf| shown_field(entry, &format!("{side}{leaf}")))
}

/// Returns a field's text or number as it is shown: without control characters and links, and none
/// if it is empty.
pub(super) fn shown_field(entry: &Entry<'_>, name: &str) -> Option<String> {
    let value = entry.raw(name).and_then(text)?;
    let shown: String = value.chars().filter(|c| !c.is_control()).collect();
    let shown = shown.trim();
    (!shown.is_empty()).then(|| foreign(shown))
}
