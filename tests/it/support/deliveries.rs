//! Workers that deliver a bench's documents.

use std::collections::BTreeMap;
use std::sync::Arc;

use ivesk_webhook::config::{DestinationConfig, DestinationKind, HistoryMode};
use ivesk_webhook::delivery::open;
use ivesk_webhook::delivery::steps::StepOutcome;
use ivesk_webhook::delivery::worker::{DestinationWorker, lane_plan};
use ivesk_webhook::domain::DestinationName;
use ivesk_webhook::store::{
    DeliveryFilter, DeliveryRow, DestinationChange, ImportErrorFilter, ImportErrorRow, SharedStore,
};
use tokio_util::sync::CancellationToken;

use crate::support::process::within;
use crate::support::puller::{Bench, seconds};

/// Number of steps after which a worker that still finds work is considered to spin.
const SPIN: usize = 20_000;

pub(crate) fn destination_name(name: &str) -> DestinationName {
    DestinationName::parse(name).expect("a name")
}

/// Returns a destination of this kind that gets everything, history included.
pub(crate) fn with_history(kind: DestinationKind) -> DestinationConfig {
    DestinationConfig {
        history: HistoryMode::Deliver,
        ..DestinationConfig::of(kind)
    }
}

/// Registers a destination in the bench's store and returns its worker.
pub(crate) async fn worker(
    bench: &Bench,
    name: &str,
    destination: &DestinationConfig,
) -> DestinationWorker {
    worker_on(bench.store(), bench, name, destination).await
}

/// [`worker`] on another handle of the bench's store.
pub(crate) async fn worker_on(
    store: &SharedStore,
    bench: &Bench,
    name: &str,
    destination: &DestinationConfig,
) -> DestinationWorker {
    let name = destination_name(name);
    let opened = open(
        &name,
        destination,
        &bench.config,
        &BTreeMap::new(),
        &bench.clock,
    );
    let filter = lane_plan(destination, bench.config.pull.lookback).filter;
    let registered = store.register_destinations(vec![(name.clone(), filter)], bench.clock.now());
    registered.await.expect("the destination is registered");
    DestinationWorker::new(
        name,
        destination.clone(),
        opened.expect("the destination opens"),
        &bench.config,
        Arc::clone(store),
        bench.clock.clone(),
    )
}

/// Runs steps until one does more than read history; returns its outcome.
pub(crate) async fn step(worker: &DestinationWorker) -> StepOutcome {
    step_until(worker, &CancellationToken::new()).await
}

/// [`step`] of a worker that stops when `stop` is canceled.
pub(crate) async fn step_until(
    worker: &DestinationWorker,
    stop: &CancellationToken,
) -> StepOutcome {
    loop {
        let step = within("a step", worker.step(stop)).await;
        match step.expect("the store works") {
            StepOutcome::Passed => {}
            outcome => return outcome,
        }
    }
}

/// Runs steps until nothing is due; returns their outcomes.
pub(crate) async fn drain(worker: &DestinationWorker) -> Vec<StepOutcome> {
    let mut outcomes = Vec::new();
    loop {
        match step(worker).await {
            StepOutcome::Nothing(_) => return outcomes,
            outcome => outcomes.push(outcome),
        }
        assert!(outcomes.len() < SPIN, "the worker spins: {outcomes:?}");
    }
}

impl Bench {
    /// Exports documents and pulls them; returns their ids.
    pub(crate) async fn export_and_pull(&self, code: &str, count: usize) -> Vec<String> {
        let exported = self.control.export(code, count);
        let exported = exported.expect("the company exists");
        self.notify(code).await;
        self.settle().await;
        exported.into_iter().map(|(id, _)| id).collect()
    }

    /// Exports a document again, with a later version, and pulls it.
    pub(crate) async fn re_export_and_pull(&self, code: &str, id: &str) {
        self.clock.advance(seconds(1));
        let version = self.control.re_export(id).expect("a known document");
        assert!(version.is_some());
        self.notify(code).await;
        self.settle().await;
    }

    /// Returns id and version of the current versions, in sequence.
    pub(crate) async fn current_versions(&self) -> Vec<(String, String)> {
        let rows = self.documents().await.into_iter();
        rows.filter(|row| !row.superseded)
            .map(|row| (row.document_id, row.version))
            .collect()
    }

    /// Returns all deliveries.
    pub(crate) async fn deliveries(&self) -> Vec<DeliveryRow> {
        let all = DeliveryFilter {
            limit: 10_000,
            ..DeliveryFilter::default()
        };
        self.store().deliveries(all).await.expect("deliveries")
    }

    /// Returns all import errors.
    pub(crate) async fn import_errors(&self) -> Vec<ImportErrorRow> {
        let all = ImportErrorFilter {
            limit: 1_000,
            ..ImportErrorFilter::default()
        };
        let rows = self.store().import_errors(all).await;
        rows.expect("import errors")
    }

    /// Changes a destination as a person does; returns the number of changed rows.
    pub(crate) async fn change_destination(&self, name: &str, change: DestinationChange) -> usize {
        let name = destination_name(name);
        let changed = self
            .store()
            .change_destination(name, change, self.clock.now());
        let changed = changed.await.expect("the store works");
        changed.expect("the destination is known")
    }
}
