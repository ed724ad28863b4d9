//! When documents were stored or delivered.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use ivesk_webhook::config::StoreUrl;
use ivesk_webhook::emulator::{Control, Selection};
use ivesk_webhook::store::{DocumentFilter, Store};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::TIMEOUT;

/// Moments by document.
pub(crate) type Moments = BTreeMap<String, Instant>;

/// Moments that a task adds to.
#[derive(Clone, Default)]
pub(crate) struct Arrivals(Arc<Mutex<Moments>>);

impl Arrivals {
    /// Adds a document that arrived at `now`, unless it had arrived before.
    pub(crate) fn add(&self, document: String, now: Instant) {
        self.lock().entry(document).or_insert(now);
    }

    /// Waits until all of `began` arrived; returns in how many milliseconds each did, ascending.
    pub(crate) async fn times_since(&self, began: &Moments) -> anyhow::Result<Vec<f64>> {
        let started = Instant::now();
        while !began.keys().all(|id| self.lock().contains_key(id)) {
            ensure!(started.elapsed() < TIMEOUT, "documents are missing");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let arrived = self.lock();
        let mut times = Vec::with_capacity(began.len());
        for (id, began) in began {
            let at = arrived.get(id).context("every document is there")?;
            times.push(at.duration_since(*began).as_secs_f64() * 1e3);
        }
        times.sort_by(f64::total_cmp);
        Ok(times)
    }

    fn lock(&self) -> MutexGuard<'_, Moments> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Exports a document of `company`; returns when, by document.
pub(crate) fn export(control: &Control, company: &str) -> anyhow::Result<Moments> {
    let began = Instant::now();
    let documents = control.export(company, Selection::Next(1))?;
    Ok(documents.into_iter().map(|(id, _)| (id, began)).collect())
}

/// A task that looks every millisecond which documents are stored.
pub(crate) struct Watch {
    stored: Arrivals,
    /// Ends the task when it is dropped.
    stop: DropGuard,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Watch {
    /// Begins to look.
    pub(crate) async fn start(store: &StoreUrl) -> anyhow::Result<Self> {
        let store = Store::open_for_reading(store).await?;
        let (stored, stop) = (Arrivals::default(), CancellationToken::new());
        let task = tokio::spawn(watch(store, stored.clone(), stop.clone()));
        let stop = stop.drop_guard();
        Ok(Self { stored, stop, task })
    }

    /// Waits until all of `began` are stored, and ends; returns what [`Arrivals::times_since`] does.
    pub(crate) async fn finish(mut self, began: &Moments) -> anyhow::Result<Vec<f64>> {
        let times = tokio::select! {
            times = self.stored.times_since(began) => times?,
            failed = &mut self.task => {
                failed??;
                anyhow::bail!("the watch of stored documents ended early");
            }
        };
        drop(self.stop);
        self.task.await??;
        Ok(times)
    }
}

async fn watch(store: Store, stored: Arrivals, stop: CancellationToken) -> anyhow::Result<()> {
    let mut after = 0;
    while !stop.is_cancelled() {
        let filter = DocumentFilter {
            after: Some(after),
            limit: 500,
            ..DocumentFilter::default()
        };
        let rows = store.documents(filter).await?;
        let now = Instant::now();
        for row in rows {
            after = after.max(row.sequence);
            stored.add(row.document_id, now);
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    store.close().await?;
    Ok(())
}
