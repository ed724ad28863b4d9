//! The handle with which tests play the accountant and make things fail.

use std::sync::Arc;
use std::sync::PoisonError;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::announce;
use crate::delivery_record::{AttemptTotals, DeliveryRecord};
use crate::domain::{Event, Queue};
use crate::error_report::ErrorReport;
use crate::faults::{Endpoint, Fault};
use crate::meter::RequestCounters;
use crate::publication::Publication;
use crate::s3;
use crate::signer::Signer;
use crate::sns::{self, TargetError};
use crate::subscription::Subscription;
use crate::switches::{SwitchError, Switches};
use crate::uploads::UploadRecord;
use crate::vendor::Vendor;
use sns_messages::time::Timestamp;

/// Why the control API refused an operation.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// No account has this key.
    #[error("no account has this key; add it with add_account")]
    UnknownKey,
    /// No account has this company, or the named account hasn't.
    #[error("no such account has the company `{0}`; add it with add_account")]
    UnknownCompany(String),
    /// No document has this id.
    #[error("there is no document `{0}`")]
    UnknownDocument(String),
    /// No file was received under this id, or it has become a document.
    #[error("there is no received file `{0}` that waits to be digitized")]
    UnknownUpload(Uuid),
    /// A switch or its position does not exist.
    #[error(transparent)]
    Switch(#[from] SwitchError),
    /// The target can't be sent to.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// Making a certificate failed.
    #[error("failed to make the certificate: {0:#}")]
    Certificate(anyhow::Error),
}

/// The documents of an export.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Selection {
    /// The oldest so many that wait; missing ones are digitized first.
    Next(usize),
    /// These, in this order.
    Ids(Vec<String>),
}

impl From<usize> for Selection {
    fn from(count: usize) -> Self {
        Self::Next(count)
    }
}

impl From<Vec<String>> for Selection {
    fn from(ids: Vec<String>) -> Self {
        Self::Ids(ids)
    }
}

impl From<&[String]> for Selection {
    fn from(ids: &[String]) -> Self {
        Self::Ids(ids.to_vec())
    }
}

/// A cheap handle to a running emulator.
#[derive(Clone)]
pub struct Control(pub(crate) Arc<Vendor>);

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Control").field(&self.0.origin).finish()
    }
}

impl Control {
    /// Adds an account, or companies to the account that has this key; returns its id.
    pub fn add_account(&self, key: &str, companies: &[&str]) -> Uuid {
        let companies: Vec<String> = companies.iter().map(|code| (*code).to_owned()).collect();
        let mut world = self.0.world();
        let account = world.add_account(key, &companies);
        world.accounts[account].id
    }

    /// Returns the id of the account that has this key: the UUID in `MessageAttributes.account`.
    pub fn account_id(&self, key: &str) -> Result<Uuid, ControlError> {
        let world = self.0.world();
        let account = world.account_by_key(key).ok_or(ControlError::UnknownKey)?;
        Ok(world.accounts[account].id)
    }

    /// Digitizes `count` documents of `company` in the account with this key, each
    /// with a notification of its own. Returns their ids.
    pub fn digitize(
        &self,
        key: &str,
        company: &str,
        count: usize,
    ) -> Result<Vec<String>, ControlError> {
        let switches = self.0.switches();
        let now = self.0.now();
        let (made, ids) = {
            let mut world = self.0.world();
            let account = world.account_by_key(key).ok_or(ControlError::UnknownKey)?;
            let company_number = world
                .company_of(account, company)
                .ok_or_else(|| ControlError::UnknownCompany(company.to_owned()))?;
            let made = world.digitize(account, company_number, count, now, &switches);
            let ids = made
                .iter()
                .map(|index| world.at_index(*index).id.to_string())
                .collect();
            (made, ids)
        };
        announce::digitized(&self.0, &made);
        Ok(ids)
    }

    /// Exports documents of `company`, as the accountant does with one click: one
    /// notification, or what the `export_events` switch says.
    ///
    /// Returns id and version of each document as the queue lists it. Where several
    /// accounts have the company, counted documents come from the first of them.
    pub fn export(
        &self,
        company: &str,
        documents: impl Into<Selection>,
    ) -> Result<Vec<(String, String)>, ControlError> {
        let (created, chosen) = self.choose(company, documents.into())?;
        announce::digitized(&self.0, &created);
        Ok(self.click(&chosen))
    }

    /// Exports a document that was exported before; what that does, the `re_export`
    /// switch decides. Returns its new version, if it has one.
    pub fn re_export(&self, id: &str) -> Result<Option<String>, ControlError> {
        let index = self
            .0
            .world()
            .index_of(id)
            .ok_or_else(|| ControlError::UnknownDocument(id.to_owned()))?;
        Ok(self.click(&[index]).pop().map(|(_, version)| version))
    }

    /// Fills both queues with `count` documents of `company`, without notifications.
    pub fn load(&self, key: &str, company: &str, count: usize) -> Result<(), ControlError> {
        let switches = self.0.switches();
        let now = self.0.now();
        let mut world = self.0.world();
        let account = world.account_by_key(key).ok_or(ControlError::UnknownKey)?;
        let company_number = world
            .company_of(account, company)
            .ok_or_else(|| ControlError::UnknownCompany(company.to_owned()))?;
        let made = world.digitize(account, company_number, count, now, &switches);
        world.export(&made, now, &switches);
        Ok(())
    }

    /// Finds the documents of an export; returns separately those that must be digitized first.
    fn choose(
        &self,
        company: &str,
        selection: Selection,
    ) -> Result<(Vec<usize>, Vec<usize>), ControlError> {
        let unknown = || ControlError::UnknownCompany(company.to_owned());
        let switches = self.0.switches();
        let now = self.0.now();
        let mut world = self.0.world();
        let (holders, number) = world.holders(company).ok_or_else(unknown)?;
        match selection {
            Selection::Next(count) => {
                let account = *holders.first().ok_or_else(unknown)?;
                let mut chosen = world.waiting(account, number, count);
                let missing = count - chosen.len();
                let created = world.digitize(account, number, missing, now, &switches);
                chosen.extend(&created);
                Ok((created, chosen))
            }
            Selection::Ids(ids) => {
                let mut chosen = Vec::with_capacity(ids.len());
                for id in ids {
                    let index = world
                        .index_of(&id)
                        .filter(|index| world.at_index(*index).company == number)
                        .ok_or(ControlError::UnknownDocument(id))?;
                    chosen.push(index);
                }
                Ok((Vec::new(), chosen))
            }
        }
    }

    fn click(&self, chosen: &[usize]) -> Vec<(String, String)> {
        let switches = self.0.switches();
        let now = self.0.now();
        let (exported, versions) = {
            let mut world = self.0.world();
            let exported = world.export(chosen, now, &switches);
            let versions = exported
                .iter()
                .map(|(index, at)| {
                    let version = Timestamp::from_millis(*at).to_string();
                    (world.at_index(*index).id.to_string(), version)
                })
                .collect();
            (exported, versions)
        };
        announce::exported(&self.0, &exported);
        versions
    }

    /// Sets fields of a document over the generated ones, such as a hostile
    /// `sellernameascii`.
    pub fn amend(&self, id: &str, fields: Map<String, Value>) -> Result<(), ControlError> {
        if self.0.world().amend(id, fields) {
            Ok(())
        } else {
            Err(ControlError::UnknownDocument(id.to_owned()))
        }
    }

    /// Sets switches from `name=value,…`: all of them, or none.
    pub fn set_switches(&self, text: &str) -> Result<(), ControlError> {
        {
            let mut positions = self
                .0
                .positions
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            let mut changed = (**positions).clone();
            changed.set(text)?;
            *positions = Arc::new(changed);
        }
        self.0.world().switches_changed();
        self.0.changed();
        Ok(())
    }

    /// Returns the present switches.
    pub fn switches(&self) -> Arc<Switches> {
        self.0.switches()
    }

    /// Adds a fault; the oldest that fits a request hits it.
    pub fn fault(&self, fault: Fault) {
        self.0.faults.add(fault);
    }

    /// Removes all faults; requests that hang are answered.
    pub fn clear_faults(&self) {
        self.0.faults.clear();
    }

    /// Subscribes a webhook for the first account, as the vendor's API does: SNS asks
    /// it to confirm. Returns the ARN that the subscription will have.
    pub fn subscribe(&self, event: impl Into<Event>, target: &str) -> Result<String, ControlError> {
        let account = self.first_account()?;
        let subscription = sns::subscribe(&self.0, account, "emulator", event.into(), target)?;
        Ok(subscription.subscription_arn)
    }

    /// Does what [`Control::subscribe`] does, for the account with this key.
    pub fn subscribe_as(
        &self,
        key: &str,
        event: impl Into<Event>,
        target: &str,
    ) -> Result<String, ControlError> {
        let account = self.account_id(key)?;
        let subscription = sns::subscribe(&self.0, account, "emulator", event.into(), target)?;
        Ok(subscription.subscription_arn)
    }

    /// Ends a subscription and notifies the subscriber; returns false if there was none.
    pub fn unsubscribe(&self, subscription_arn: &str) -> bool {
        sns::unsubscribe(&self.0, subscription_arn)
    }

    /// Returns all subscriptions, oldest first.
    pub fn subscriptions(&self) -> Vec<Subscription> {
        self.0.ledger.subscriptions()
    }

    /// Publishes any message; returns its MessageId.
    pub fn notify(&self, publication: &Publication) -> Result<String, ControlError> {
        let account = match &publication.account {
            Some(key) => self.account_id(key)?,
            None => self.first_account()?,
        };
        Ok(sns::publish(&self.0, account, publication))
    }

    fn first_account(&self) -> Result<Uuid, ControlError> {
        let world = self.0.world();
        let account = world.accounts.first().ok_or(ControlError::UnknownKey)?;
        Ok(account.id)
    }

    /// Loses the next `count` published messages: no subscriber gets them.
    pub fn lose_next_notifications(&self, count: usize) {
        self.0.ledger.lose_next(count);
    }

    /// Returns every delivery with its outcome, oldest first.
    pub fn deliveries(&self) -> Vec<DeliveryRecord> {
        self.0.ledger.records()
    }

    /// Forgets the deliveries so far; those in progress go on unrecorded.
    pub fn forget_deliveries(&self) {
        self.0.ledger.forget_records();
    }

    /// Waits until every delivery has settled: acknowledged, refused or given up.
    pub async fn idle(&self) {
        self.0.ledger.idle().await;
    }

    /// Returns the totals of attempts so far, the forgotten ones included.
    pub fn attempts(&self) -> AttemptTotals {
        *self.0.ledger.totals.borrow()
    }

    /// Waits until the totals of attempts satisfy `condition`, and returns them.
    pub async fn attempts_reached(
        &self,
        mut condition: impl FnMut(&AttemptTotals) -> bool,
    ) -> AttemptTotals {
        let mut totals = self.0.ledger.totals.subscribe();
        match totals.wait_for(|totals| condition(totals)).await {
            Ok(totals) => *totals,
            // The sender is gone only with the emulator, and this handle holds it.
            Err(_) => self.attempts(),
        }
    }

    /// Retries every delivery that waits for its next attempt at once.
    pub fn retry_now(&self) {
        self.0.ledger.retry_now.send_modify(|calls| *calls += 1);
    }

    /// Returns id and version of everything that the queue lists, or will list
    /// once it is visible, oldest first. An empty company means all of them.
    pub fn documents(&self, queue: impl Into<Queue>, company: &str) -> Vec<(String, String)> {
        self.0.world().truth(queue.into(), company)
    }

    /// Returns the number of documents.
    pub fn document_count(&self) -> usize {
        self.0.world().document_count()
    }

    /// Returns the counters of requests.
    pub fn requests(&self) -> RequestCounters {
        self.0.meter.counters()
    }

    /// Resets the counters of requests.
    pub fn reset_requests(&self) {
        self.0.meter.reset();
    }

    /// Waits until `endpoint` was asked at least `count` times since the last reset.
    pub async fn requests_reached(&self, endpoint: Endpoint, count: u64) {
        self.0.meter.reached(endpoint, count).await;
    }

    /// Signs with a new certificate from now on; the old one is still served.
    ///
    /// Makes an RSA key, which takes a moment.
    pub fn rotate_certificate(&self) -> Result<(), ControlError> {
        let signer = Signer::like_aws(self.0.now()).map_err(ControlError::Certificate)?;
        self.0.ledger.rotate(Arc::new(signer));
        Ok(())
    }

    /// Returns the URL of the present signing certificate.
    pub fn certificate_url(&self) -> String {
        format!("{}{}", self.0.origin, self.0.ledger.certificate_path())
    }

    /// Returns the files that were announced or received.
    pub fn uploads(&self) -> Vec<UploadRecord> {
        self.0.uploads.records()
    }

    /// Digitizes a received file as a document of `company`, or of its account's first
    /// company; returns the document's id. For `digitize_uploads=manual`.
    pub fn digitize_upload(
        &self,
        upload: Uuid,
        company: Option<&str>,
    ) -> Result<String, ControlError> {
        s3::digitize(&self.0, upload, company).ok_or(ControlError::UnknownUpload(upload))
    }

    /// Returns the import errors that clients reported, oldest first.
    pub fn reported_errors(&self) -> Vec<ErrorReport> {
        self.0.reports().clone()
    }

    /// Returns the emulator's time.
    pub fn now(&self) -> Timestamp {
        self.0.now()
    }

    /// Moves the emulator's time forward, and not
    /// [`EmulatorSettings::clock`](crate::EmulatorSettings::clock).
    pub fn advance(&self, by: Duration) {
        self.0.advance(by);
    }

    /// Sets the emulator's time, which continues from there, and not
    /// [`EmulatorSettings::clock`](crate::EmulatorSettings::clock).
    pub fn set_clock(&self, to: Timestamp) {
        self.0.set_clock(to);
    }
}
