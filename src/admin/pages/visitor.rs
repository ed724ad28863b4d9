//! Who looks at a page.

use super::language::Language;
use super::words::Notice;
use crate::store::Rights;

/// The field of a form that proves it.
pub(super) const PROOF: &str = "proof";

/// Who looks at a page, and how.
#[derive(Clone, Debug)]
pub(super) struct Visitor {
    pub(super) language: Language,
    /// What they may do; none before they have logged in.
    pub(super) rights: Option<Rights>,
    /// Whether they have logged in, and so can log out.
    pub(super) has_session: bool,
    /// What each form of the page holds.
    pub(super) proof: String,
    /// The path that they look at.
    pub(super) path: String,
    /// What was done before, to be told on this page.
    pub(super) notice: Option<Notice>,
}

impl Visitor {
    /// Whether buttons are of any use to them.
    pub(super) fn may_operate(&self) -> bool {
        self.rights >= Some(Rights::Operate)
    }
}
