//! The person who requested a page.

use super::labels::Notice;
use super::language::Language;
use crate::admin::listener::AdminPeer;
use crate::store::Rights;

/// Form field with the token that ties a form to its viewer.
pub(super) const FORM_TOKEN_FIELD: &str = "form_token";

/// The person who requested a page: language, rights and form token.
#[derive(Clone, Debug)]
pub(super) struct Viewer {
    pub(super) language: Language,
    /// Rights; none before login.
    pub(super) rights: Option<Rights>,
    /// Who it is, as the audit list shows it; none before login.
    pub(super) owner: Option<String>,
    /// True after a login with a token.
    pub(super) has_session: bool,
    /// Token that each form of the page holds.
    pub(super) form_token: String,
    /// Path of the request.
    pub(super) path: String,
    /// Result of the action before, shown on this page.
    pub(super) notice: Option<Notice>,
    /// The other end of the connection.
    pub(super) peer: Option<AdminPeer>,
}

impl Viewer {
    /// Returns true if the viewer may use the buttons.
    pub(super) fn may_operate(&self) -> bool {
        let rights = self.rights.as_ref();
        rights.is_some_and(|rights| rights.include(&Rights::Operate))
    }

    /// Returns who approves a topic by a button.
    pub(super) fn approver(&self) -> String {
        let owner = self.owner.as_deref().unwrap_or_default();
        match self.has_session {
            true => format!("session of {owner}"),
            false => owner.to_owned(),
        }
    }
}
