//! Import errors at a vendor whose answers are lost, late or missing.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use ivesk_webhook::alarms::Alarms;
use ivesk_webhook::config::Config;
use ivesk_webhook::delivery::import_errors::{ImportErrorSender, SendOutcome};
use ivesk_webhook::doctor;
use ivesk_webhook::emulator::{Endpoint, Fault, FaultKind};
use ivesk_webhook::metrics::Metrics;
use ivesk_webhook::service::store_options;
use ivesk_webhook::store::{
    AlarmKind, Hooks, IMPORT_ERROR_WAIT, ImportErrorDecision, ImportErrorSelection,
    ImportErrorState, Step, Store, StoreError, StoreOptions,
};

use super::worker::import_error_sender;
use crate::support::deliveries::{drain, worker};
use crate::support::ledger::{Ledger, Reaction};
use crate::support::puller::{Bench, COMPANY, hours, minutes, seconds};

/// A vendor, and documents that a destination has rejected a minute ago.
struct Scene {
    bench: Bench,
    sender: ImportErrorSender,
}

impl Scene {
    async fn new(switches: &str, documents: usize) -> Self {
        let bench = Bench::with(switches, |config: &mut Config| {
            config.api.import_error_path = Some("/errors".to_owned());
        })
        .await;
        bench.settle().await;
        let ledger = Ledger::start().await;
        ledger.always(Reaction::rejects("Nežinomas PVM kodas"));
        let books = worker(&bench, "books", &ledger.destination()).await;
        bench.export_and_pull(COMPANY, documents).await;
        drain(&books).await;
        bench.clock.advance(IMPORT_ERROR_WAIT);
        let sender = import_error_sender(&bench).expect("a sender of import errors");
        Self { bench, sender }
    }

    fn fault(&self, kind: FaultKind) {
        let fault = Fault::new(kind).endpoint(Endpoint::Errors).times(1);
        self.bench.fault(fault);
    }

    async fn step(&self) -> SendOutcome {
        self.sender.step().await.expect("the store works")
    }

    fn told(&self) -> usize {
        self.bench.control.reported_errors().len()
    }

    async fn states(&self) -> Vec<ImportErrorState> {
        let rows = self.bench.import_errors().await;
        rows.iter().map(|row| row.state).collect()
    }
}

#[tokio::test]
async fn a_lost_answer_is_repeated_and_a_seen_one_is_not() {
    let scene = Scene::new("", 1).await;
    scene.fault(FaultKind::LostAnswer);
    assert!(matches!(scene.step().await, SendOutcome::Failed { .. }));
    assert_eq!(scene.told(), 1, "the vendor has it");
    assert_eq!(scene.step().await, SendOutcome::Nothing);
    scene.bench.clock.advance(minutes(1));
    assert_eq!(scene.step().await, SendOutcome::Sent);
    assert_eq!(scene.told(), 2);
    scene.bench.clock.advance(hours(48));
    assert_eq!(scene.step().await, SendOutcome::Nothing);
}

#[tokio::test]
async fn too_many_requests_delay_by_what_the_vendor_asks() {
    let scene = Scene::new("", 2).await;
    scene.fault(FaultKind::Status {
        status: 429,
        retry_after: Some("7200".to_owned()),
    });
    assert!(matches!(scene.step().await, SendOutcome::Failed { .. }));
    scene.bench.clock.advance(minutes(119));
    assert_eq!(scene.step().await, SendOutcome::Nothing);
    scene.bench.clock.advance(minutes(2));
    for _ in 0..2 {
        assert_eq!(scene.step().await, SendOutcome::Sent);
    }
    assert_eq!(scene.told(), 2);
}

#[tokio::test]
async fn a_missing_path_pauses_sending_with_alarm_and_fix() {
    let scene = Scene::new("errors_path=/documents/errors", 3).await;
    let (bench, clock) = (&scene.bench, &scene.bench.clock);
    assert!(matches!(scene.step().await, SendOutcome::Paused { .. }));
    assert_eq!(scene.step().await, SendOutcome::Nothing);
    let alarms = Alarms::new(
        &bench.config,
        Arc::clone(bench.store()),
        Arc::new(Metrics::new()),
        Arc::default(),
        clock.clone(),
    )
    .expect("alarms");
    let kinds = |rows: &[ivesk_webhook::store::AlarmRow]| -> Vec<AlarmKind> {
        let kinds = rows.iter().map(|alarm| alarm.kind);
        kinds
            .filter(|kind| *kind == AlarmKind::ImportErrors)
            .collect()
    };
    let changes = alarms.check().await.expect("the store works");
    assert_eq!(kinds(&changes.raised), [AlarmKind::ImportErrors]);
    let checks = doctor::destinations::state(&bench.config, bench.store(), bench.clock.now()).await;
    let checks = serde_json::to_string(&checks.expect("readable")).expect("JSON");
    assert!(
        checks.contains("/errors") && checks.contains("import-errors retry --all"),
        "{checks}"
    );

    // An hour later one is tried, and the others wait.
    clock.advance(hours(1));
    assert!(matches!(scene.step().await, SendOutcome::Paused { .. }));
    assert_eq!(scene.step().await, SendOutcome::Nothing);
    assert_eq!(scene.states().await, [ImportErrorState::Pending; 3]);

    bench.switch("errors_path=/errors");
    let retried = bench.store().decide_import_errors(
        ImportErrorSelection::default(),
        ImportErrorDecision::Retry,
        clock.now(),
    );
    assert_eq!(retried.await.expect("the store works"), 3);
    for _ in 0..3 {
        assert_eq!(scene.step().await, SendOutcome::Sent);
    }
    let changes = alarms.check().await.expect("the store works");
    assert_eq!(kinds(&changes.ended), [AlarmKind::ImportErrors]);
    assert_eq!(scene.told(), 3);
}

#[tokio::test]
async fn a_path_that_is_back_resumes_by_itself() {
    let scene = Scene::new("errors_path=/documents/errors", 2).await;
    assert!(matches!(scene.step().await, SendOutcome::Paused { .. }));
    scene.bench.switch("errors_path=/errors");
    scene.bench.clock.advance(minutes(59));
    assert_eq!(scene.step().await, SendOutcome::Nothing);
    scene.bench.clock.advance(minutes(1));
    for _ in 0..2 {
        assert_eq!(scene.step().await, SendOutcome::Sent);
    }
}

#[tokio::test]
async fn one_unknown_document_does_not_pause_a_path_that_works() {
    let scene = Scene::new("", 3).await;
    assert_eq!(scene.step().await, SendOutcome::Sent);
    scene.fault(FaultKind::Status {
        status: 404,
        retry_after: None,
    });
    assert!(matches!(scene.step().await, SendOutcome::Refused { .. }));
    assert_eq!(scene.step().await, SendOutcome::Sent);
    use ImportErrorState::{Refused, Sent};
    assert_eq!(scene.states().await, [Sent, Refused, Sent]);
    assert_eq!(scene.told(), 2);
}

/// Lets the writes after the first fail while it is on.
#[derive(Default)]
struct SecondWriteFails {
    on: AtomicBool,
    writes: AtomicUsize,
}

impl Hooks for SecondWriteFails {
    fn before(
        &self,
        step: Step,
    ) -> Pin<Box<dyn Future<Output = Result<(), StoreError>> + Send + '_>> {
        let fails = step == Step::Write
            && self.on.load(Ordering::SeqCst)
            && self.writes.fetch_add(1, Ordering::SeqCst) > 0;
        Box::pin(std::future::ready(match fails {
            true => Err(StoreError::Database("planted".to_owned())),
            false => Ok(()),
        }))
    }
}

#[tokio::test]
async fn an_answer_that_was_seen_is_recorded_and_not_sent_again() {
    for crashes in [false, true] {
        let Scene { bench, sender } = Scene::new("", 1).await;
        drop(sender);
        bench.store().close().await.expect("the store closes");
        let hooks = Arc::new(SecondWriteFails::default());
        let options = StoreOptions {
            hooks: Some(hooks.clone()),
            ..store_options(&bench.config, &bench.clock)
        };
        let store = Arc::new(Store::open(options).await.expect("the store opens"));
        let sender = || {
            let sender = ImportErrorSender::new(
                &bench.config,
                Arc::clone(&store),
                bench.clock.clone(),
                Arc::new(Metrics::new()),
            );
            sender.expect("a sender").expect("the path is set")
        };
        let first = sender();
        hooks.on.store(true, Ordering::SeqCst);
        for _ in 0..2 {
            assert!(first.step().await.is_err(), "the result can't be stored");
        }
        hooks.on.store(false, Ordering::SeqCst);
        assert_eq!(bench.control.reported_errors().len(), 1);
        bench.clock.advance(hours(1) + seconds(1));
        if crashes {
            // The answer is lost with the process: the vendor is told twice.
            drop(first);
            let second = sender();
            assert_eq!(second.step().await.expect("a step"), SendOutcome::Sent);
            assert_eq!(bench.control.reported_errors().len(), 2);
        } else {
            assert_eq!(first.step().await.expect("a step"), SendOutcome::Sent);
            assert_eq!(first.step().await.expect("a step"), SendOutcome::Nothing);
            assert_eq!(bench.control.reported_errors().len(), 1);
        }
        store.close().await.expect("the store closes");
    }
}
