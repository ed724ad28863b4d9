//! The delivery worker on a real store, against receivers that fail in every way.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ivesk_webhook::config::{Config, DestinationConfig, DestinationKind, default_account};
use ivesk_webhook::delivery::import_errors::{ImportErrorSender, SendOutcome};
use ivesk_webhook::delivery::steps::StepOutcome;
use ivesk_webhook::delivery::worker::DestinationWorker;
use ivesk_webhook::delivery::{Delivery, Destination, DestinationResponse};
use ivesk_webhook::domain::Queue;
use ivesk_webhook::emulator::DEFAULT_KEY;
use ivesk_webhook::metrics::Metrics;
use ivesk_webhook::store::{
    DeliverySelection, DeliveryState, DestinationChange, DestinationPauseReason, DestinationRow,
    DocumentFilter, IMPORT_ERROR_WAIT, ImportErrorDecision, ImportErrorSelection, ImportErrorState,
    NothingDue, SharedStore,
};
use ivesk_webhook::trace::{self, Step};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::support::deliveries::{
    destination_name, drain, step, step_until, with_history, worker, worker_on,
};
use crate::support::faults::{Fault, Faults};
use crate::support::ledger::{Ledger, Reaction};
use crate::support::process::within;
use crate::support::puller::{
    Bench, COMPANY, NEIGHBOR, company, digitized, exported, hours, minutes, seconds,
    set_exported_path,
};

/// Advances the clock by `time`, pulling and delivering whenever something is due.
async fn run_for(bench: &Bench, worker: &DestinationWorker, time: Duration) {
    let end = bench.clock.now().after(time);
    loop {
        bench.settle().await;
        drain(worker).await;
        let destination = match step(worker).await {
            StepOutcome::Nothing(nothing) => nothing.until,
            other => panic!("{other:?} after a drain"),
        };
        let pull = bench.puller().next_due().await.expect("the store works");
        let due = [destination, pull].into_iter().flatten().min();
        let Some(due) = due.filter(|due| *due <= end) else {
            break;
        };
        bench
            .clock
            .advance(due.since(bench.clock.now()).max(Duration::from_millis(1)));
    }
    bench.clock.advance(end.since(bench.clock.now()));
    bench.settle().await;
    drain(worker).await;
}

fn retry_rejected() -> DestinationChange {
    let (state, company) = (DeliveryState::Rejected, None);
    DestinationChange::Retry(DeliverySelection::InState { state, company })
}

async fn row(bench: &Bench, name: &str) -> DestinationRow {
    let rows = bench.store().destinations().await.expect("destinations");
    let row = rows.into_iter().find(|row| row.name.as_str() == name);
    row.expect("the destination is known")
}

/// A bench with one destination, `books`, and the receiver behind it.
struct Scene {
    bench: Bench,
    ledger: Ledger,
    worker: DestinationWorker,
}

impl Scene {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut DestinationConfig)) -> Self {
        let bench = Bench::caught_up("").await;
        let ledger = Ledger::start().await;
        let mut destination = ledger.destination();
        change(&mut destination);
        let worker = worker(&bench, "books", &destination).await;
        Self {
            bench,
            ledger,
            worker,
        }
    }

    /// Exports documents of [`COMPANY`] and pulls them; returns their ids.
    async fn export(&self, count: usize) -> Vec<String> {
        self.bench.export_and_pull(COMPANY, count).await
    }

    /// Exports a document again, with a later version, and pulls it.
    async fn re_export(&self, id: &str) {
        self.bench.re_export_and_pull(COMPANY, id).await;
    }

    async fn run_for(&self, time: Duration) {
        run_for(&self.bench, &self.worker, time).await;
    }

    async fn step(&self) -> StepOutcome {
        step(&self.worker).await
    }

    async fn drain(&self) -> Vec<StepOutcome> {
        drain(&self.worker).await
    }

    async fn row(&self) -> DestinationRow {
        row(&self.bench, "books").await
    }

    async fn change(&self, change: DestinationChange) -> usize {
        self.bench.change_destination("books", change).await
    }

    /// Asserts that the receiver accepted every current version once and in order, and that
    /// the store says the same.
    async fn assert_all_delivered(&self) {
        assert_eq!(self.ledger.versions(), self.bench.current_versions().await);
        self.assert_delivered_in_any_order().await;
    }

    /// [`Scene::assert_all_delivered`] after a failure so long that others were tried beside the
    /// first.
    async fn assert_delivered_in_any_order(&self) {
        let (mut accepted, mut current) =
            (self.ledger.versions(), self.bench.current_versions().await);
        accepted.sort();
        current.sort();
        assert_eq!(accepted, current);
        let row = self.row().await;
        assert_eq!(row.delivered, self.ledger.accepted().len() as u64);
        assert_eq!((row.failures, row.last_error), (0, None));
    }
}

#[tokio::test]
async fn a_week_of_500_is_followed_by_everything_in_order() {
    let scene = Scene::new().await;
    scene.ledger.always(Reaction::status(500));
    let mut first = None;
    for _ in 0..7 {
        let ids = scene.export(3).await;
        let first = first.get_or_insert_with(|| ids[0].clone());
        scene.re_export(first).await;
        scene.run_for(hours(24)).await;
    }
    let requests = scene.ledger.requests();
    // One in five minutes, more or less: the backoff is random.
    assert!((1_600..2_800).contains(&requests), "{requests}");
    let stuck = scene.row().await;
    assert_eq!((stuck.delivered, stuck.rejected), (0, 0));
    assert!(stuck.waits_until.is_some() && stuck.paused.is_none());
    let error = stuck.last_error.expect("it says why");
    assert!(error.contains("500") && error.contains("log"), "{error}");
    let attempts = scene.bench.deliveries().await;
    assert!(attempts.iter().all(|row| matches!(
        row.state,
        DeliveryState::Pending | DeliveryState::Superseded
    )));
    let rows: usize = attempts.iter().map(|row| row.attempts.len()).sum();
    let counted: u64 = attempts
        .iter()
        .flat_map(|row| &row.attempts)
        .map(|one| one.times)
        .sum();
    assert_eq!(counted, requests as u64, "each attempt is counted");
    assert!(rows < 40, "equal attempts share a row: {rows}");

    scene.ledger.always(Reaction::Accepts);
    scene.run_for(minutes(7)).await;
    scene.assert_delivered_in_any_order().await;
    assert_eq!(scene.ledger.accepted().len(), 21);
    assert_eq!(scene.ledger.repeats(), 0);
    assert!(scene.bench.import_errors().await.is_empty());
}

#[tokio::test]
async fn a_reset_before_or_after_acceptance_doubles_nothing() {
    let scene = Scene::new().await;
    scene.export(6).await;
    let mut requests = 0;
    scene.ledger.react(move |_| {
        requests += 1;
        match requests % 3 {
            1 => Reaction::Resets,
            2 => Reaction::AcceptsUnheard,
            _ => Reaction::Accepts,
        }
    });
    scene.run_for(hours(3)).await;
    scene.assert_all_delivered().await;
    // Each was refused once and accepted unheard once before its answer arrived.
    assert_eq!((scene.ledger.requests(), scene.ledger.repeats()), (18, 6));
    let rows = scene.bench.deliveries().await;
    assert_eq!(rows.len(), 6);
    for row in rows {
        assert_eq!(row.state, DeliveryState::Delivered, "{row:?}");
    }
}

#[tokio::test]
async fn a_version_accepted_unheard_then_superseded_is_not_repeated() {
    let scene = Scene::new().await;
    let ids = scene.export(1).await;
    let old = scene.bench.current_versions().await;
    scene.ledger.always(Reaction::AcceptsUnheard);
    assert!(matches!(scene.step().await, StepOutcome::Waiting { .. }));
    scene.re_export(&ids[0]).await;
    scene.ledger.always(Reaction::Accepts);
    scene.run_for(hours(1)).await;
    let both = [old, scene.bench.current_versions().await].concat();
    assert_eq!(
        scene.ledger.versions(),
        both,
        "the old one first, the new one last"
    );
    assert_eq!(scene.ledger.received().len(), 2);
}

#[tokio::test]
async fn a_hanging_destination_times_out_and_others_continue() {
    let scene = Scene::with(|destination| destination.timeout = Duration::from_millis(300)).await;
    let other = Ledger::start().await;
    let beside = worker(&scene.bench, "beside", &other.destination()).await;
    scene.export(40).await;
    scene.ledger.always(Reaction::Hangs);
    let hanging = async {
        let outcome = scene.step().await;
        (outcome, other.accepted().len())
    };
    let ((outcome, meanwhile), _) = tokio::join!(hanging, async {
        scene.ledger.until("a request", |l| l.requests() == 1).await;
        drain(&beside).await
    });
    assert!(
        matches!(outcome, StepOutcome::Waiting { .. }),
        "{outcome:?}"
    );
    assert_eq!(other.versions(), scene.bench.current_versions().await);
    assert!(meanwhile > 0, "the other destination waited");
    assert!(matches!(scene.step().await, StepOutcome::Nothing(_)));
    assert_eq!(scene.ledger.requests(), 1, "it is not asked while it waits");
    let row = scene.row().await;
    assert!(row.last_error.is_some() && row.failing_since.is_some());

    scene.ledger.always(Reaction::Accepts);
    scene.run_for(minutes(1)).await;
    assert_eq!(
        scene.ledger.versions(),
        scene.bench.current_versions().await
    );
}

#[tokio::test]
async fn a_moved_or_forbidden_address_pauses_and_says_what_to_check() {
    for (reaction, words) in [
        (
            Reaction::with_header(302, "location", "http://127.0.0.1:1/"),
            "`url`",
        ),
        (Reaction::status(401), "`secret_file`"),
        (Reaction::status(404), "`url`"),
    ] {
        let scene = Scene::new().await;
        scene.export(3).await;
        scene.ledger.always(reaction.clone());
        scene.run_for(hours(2)).await;
        let stuck = scene.row().await;
        let error = stuck.last_error.expect("it says why");
        assert!(error.contains(words), "{reaction:?}: {error}");
        assert!(stuck.stuck_at.is_some() && stuck.paused.is_none());
        assert!(scene.bench.import_errors().await.is_empty());
        // Once fixed, it resumes automatically.
        scene.ledger.always(Reaction::Accepts);
        scene.run_for(minutes(7)).await;
        scene.assert_delivered_in_any_order().await;
    }
}

#[tokio::test]
async fn a_destination_that_answers_410_is_paused_for_a_person() {
    let scene = Scene::new().await;
    scene.export(3).await;
    scene.ledger.always(Reaction::status(410));
    scene.run_for(hours(1)).await;
    scene.ledger.always(Reaction::Accepts);
    scene.run_for(hours(72)).await;
    assert_eq!(scene.ledger.requests(), 1);
    let closed = scene.row().await;
    assert_eq!(closed.paused, Some(DestinationPauseReason::Closed));
    assert_eq!(closed.waits_until, None);
    assert_eq!(scene.change(DestinationChange::Resume).await, 1);
    scene.drain().await;
    scene.assert_all_delivered().await;
}

#[tokio::test]
async fn retry_after_of_an_hour_is_obeyed() {
    let scene = Scene::new().await;
    scene.export(3).await;
    scene
        .ledger
        .always(Reaction::with_header(429, "retry-after", "3600"));
    scene.drain().await;
    scene.ledger.always(Reaction::Accepts);
    scene.run_for(minutes(59)).await;
    assert_eq!(scene.ledger.requests(), 1);
    scene.run_for(minutes(2)).await;
    scene.assert_all_delivered().await;
}

/// Returns the sender of the bench's settings; none if they name no path.
pub(super) fn import_error_sender(bench: &Bench) -> Option<ImportErrorSender> {
    let sender = ImportErrorSender::new(
        &bench.config,
        Arc::clone(bench.store()),
        bench.clock.clone(),
        Arc::new(Metrics::new()),
    );
    sender.expect("a sender of import errors")
}

#[tokio::test]
async fn a_rejection_becomes_one_import_error_and_ends_delivered() {
    let Scene {
        mut bench,
        ledger,
        worker: books,
    } = Scene::new().await;
    let ids = bench.export_and_pull(COMPANY, 2).await;
    let rejected = ids[0].clone();
    let wrong = rejected.clone();
    ledger.react(move |entry| {
        let message =
            "Nežinomas PVM kodas PVM99.\n    at Books.Import(Invoice.cs:12)\n    at Main()";
        match entry.document_id == wrong {
            true => Reaction::rejects(message),
            false => Reaction::Accepts,
        }
    });
    bench.clock.advance(seconds(1));
    drain(&books).await;
    assert_eq!(ledger.accepted().len(), 1, "it delays no other");
    assert!(import_error_sender(&bench).is_none(), "the path is not set");
    let waiting = bench.import_errors().await;
    assert_eq!(waiting.len(), 1);
    assert_eq!(waiting[0].state, ImportErrorState::Pending);

    drop(books);
    bench
        .restart_with(|config: &mut Config| {
            config.api.import_error_path = Some("/errors".to_owned());
        })
        .await;
    let sender = import_error_sender(&bench).expect("a sender of import errors");
    bench.clock.advance(IMPORT_ERROR_WAIT);
    assert_eq!(sender.step().await.expect("a step"), SendOutcome::Sent);
    assert_eq!(sender.step().await.expect("a step"), SendOutcome::Nothing);
    let sent = bench.control.reported_errors();
    assert_eq!(sent.len(), 1, "{sent:?}");
    assert_eq!(
        (&*sent[0].documentid, &*sent[0].companycode),
        (&*rejected, COMPANY)
    );
    assert_eq!(
        sent[0].message,
        "Apskaitos sistema dokumento nepriėmė: Nežinomas PVM kodas PVM99. Pataisykite dokumentą ir \
         eksportuokite jį iš naujo."
    );

    // An equal rejection is not sent again.
    let books = worker(&bench, "books", &ledger.destination()).await;
    assert_eq!(bench.change_destination("books", retry_rejected()).await, 1);
    drain(&books).await;
    assert_eq!(ledger.rejected().len(), 2);
    assert_eq!(sender.step().await.expect("a step"), SendOutcome::Nothing);

    ledger.always(Reaction::Accepts);
    bench.re_export_and_pull(COMPANY, &rejected).await;
    bench.clock.advance(seconds(1));
    drain(&books).await;
    let stories = trace::find(bench.store().as_ref(), &rejected).await;
    let stories = stories.expect("a story");
    assert_eq!(stories.len(), 1);
    let steps = [
        Step::Exported,
        Step::Rejected,
        Step::ImportErrorSent,
        Step::ReExported,
        Step::Delivered,
    ];
    assert_eq!(stories[0].story, steps, "{:#?}", stories[0].events);
    assert_eq!(bench.control.reported_errors().len(), 1);
    let cleared = row(&bench, "books").await;
    assert_eq!((cleared.rejected_now, cleared.rejected), (0, 2));
}

#[tokio::test]
async fn a_refused_repeated_import_error_is_logged_and_not_resent() {
    let bench = Bench::with("error_repeat=refused", |config| {
        config.api.import_error_path = Some("/errors".to_owned());
    })
    .await;
    bench.settle().await;
    let ledger = Ledger::start().await;
    let books = worker(&bench, "books", &ledger.destination()).await;
    bench.export_and_pull(COMPANY, 1).await;
    let sender = import_error_sender(&bench).expect("a sender of import errors");
    ledger.always(Reaction::rejects("Nežinomas PVM kodas"));
    drain(&books).await;
    bench.clock.advance(IMPORT_ERROR_WAIT);
    assert_eq!(sender.step().await.expect("a step"), SendOutcome::Sent);

    ledger.always(Reaction::rejects("Nežinomas klientas"));
    bench.change_destination("books", retry_rejected()).await;
    drain(&books).await;
    bench.clock.advance(IMPORT_ERROR_WAIT);
    let refused = sender.step().await.expect("a step");
    assert!(
        matches!(refused, SendOutcome::Refused { .. }),
        "{refused:?}"
    );
    bench.clock.advance(hours(48));
    assert_eq!(sender.step().await.expect("a step"), SendOutcome::Nothing);
    let rows = bench.import_errors().await;
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[1].state, ImportErrorState::Refused);
    let error = rows[1].last_error.clone().expect("it says why");
    assert!(error.contains("409"), "{error}");
    let retried = bench.store().decide_import_errors(
        ImportErrorSelection {
            id: Some(rows[1].id),
            ..ImportErrorSelection::default()
        },
        ImportErrorDecision::Retry,
        bench.clock.now(),
    );
    assert_eq!(retried.await.expect("the store works"), 1);
    let again = sender.step().await.expect("a step");
    assert!(matches!(again, SendOutcome::Refused { .. }), "{again:?}");
    assert_eq!(bench.control.reported_errors().len(), 1);
}

#[tokio::test]
async fn a_version_superseded_while_it_waited_is_not_delivered() {
    let scene = Scene::new().await;
    let ids = scene.export(5).await;
    scene.ledger.always(Reaction::status(503));
    scene.drain().await;
    for id in &ids[..3] {
        scene.re_export(id).await;
        scene.re_export(id).await;
    }
    scene.ledger.always(Reaction::Accepts);
    scene.run_for(hours(1)).await;
    scene.assert_all_delivered().await;
    assert_eq!(scene.ledger.accepted().len(), 5);
}

#[tokio::test]
async fn a_destination_gets_only_its_queue_and_companies() {
    let bench = Bench::with("", |config| {
        let account = config.accounts.get_mut(&default_account());
        let account = account.expect("the account");
        account.digitized = true;
        account.companies = vec![company(COMPANY), company(NEIGHBOR)];
    })
    .await;
    bench.settle().await;
    let ledgers = [
        Ledger::start().await,
        Ledger::start().await,
        Ledger::start().await,
    ];
    let [all, ours, mixed] = &ledgers;
    let mut destinations = Vec::new();
    destinations.push(worker(&bench, "all", &all.destination()).await);
    let one = DestinationConfig {
        companies: vec![company(NEIGHBOR)],
        ..ours.destination()
    };
    destinations.push(worker(&bench, "ours", &one).await);
    let one = DestinationConfig {
        companies: vec![company(NEIGHBOR)],
        queue: Queue::Digitized,
        ..mixed.destination()
    };
    destinations.push(worker(&bench, "mixed", &one).await);
    for (code, count) in [(COMPANY, 3), (NEIGHBOR, 2), (COMPANY, 2), (NEIGHBOR, 4)] {
        bench.export_and_pull(code, count).await;
    }
    let digitized_now = bench.control.digitize(DEFAULT_KEY, NEIGHBOR, 2);
    digitized_now.expect("the company exists");
    bench.clock.advance(hours(2));
    bench.settle().await;
    for destination in &destinations {
        drain(destination).await;
    }

    let count = |ledger: &Ledger, queue: Queue, code: &str| {
        let accepted = ledger.accepted().into_iter();
        accepted
            .filter(|entry| entry.queue == queue.as_str() && entry.company == code)
            .count()
    };
    assert_eq!(count(all, Queue::Exported, COMPANY), 5);
    assert_eq!(count(all, Queue::Exported, NEIGHBOR), 6);
    assert_eq!(all.accepted().len(), 11);
    assert_eq!(count(ours, Queue::Exported, NEIGHBOR), 6);
    assert_eq!(ours.accepted().len(), 6);
    // The feed of the digitized queue names no company, but its documents do.
    assert_eq!(count(mixed, Queue::Digitized, ""), 8);
    assert_eq!(mixed.accepted().len(), 8);
    let rows = bench.deliveries().await;
    let filtered = rows
        .iter()
        .filter(|row| row.state == DeliveryState::Skipped);
    let stored = bench.stored(&digitized()).await.len();
    assert_eq!(filtered.count(), stored - 8);
}

#[tokio::test]
async fn a_digitized_document_tells_by_code_or_name_whose_it_is() {
    let bench = Bench::with("", |config| {
        let account = config.accounts.get_mut(&default_account());
        let account = account.expect("the account");
        account.digitized = true;
        account.companies = vec![company(COMPANY), company(NEIGHBOR)];
    })
    .await;
    bench.settle().await;
    let ledger = Ledger::start().await;
    let settings = DestinationConfig {
        queue: Queue::Digitized,
        companies: vec![company(NEIGHBOR)],
        company_names: vec!["UAB „Žalia Šaka“".to_owned()],
        document_types: vec!["invoice".to_owned()],
        ..ledger.destination()
    };
    let books = worker(&bench, "books", &settings).await;
    let unmarked = json!({ "sellerisfavorite": null, "buyerisfavorite": null });
    let bought = |code: Option<&str>, name: &str| {
        json!({
            "sellerisfavorite": false, "sellercode": null, "buyerisfavorite": true,
            "buyercode": code, "buyernameascii": name,
        })
    };
    let with = |mut fields: Value, more: Value| {
        let more = more.as_object().cloned().expect("an object");
        fields.as_object_mut().expect("an object").extend(more);
        fields
    };
    let cases = [
        (bought(Some(NEIGHBOR), "x"), None),
        (
            bought(None, "Zalia saka, UAB"),
            Some("its name is not in `company_names`"),
        ),
        (bought(None, "UAB \"Zalia Saka\""), None),
        (with(bought(Some(NEIGHBOR), "x"), unmarked.clone()), None),
        (
            with(bought(None, "UAB \"Zalia Saka\""), unmarked),
            Some("its company is not known"),
        ),
        (
            bought(Some(COMPANY), "UAB \"Zalia Saka\""),
            Some("belongs to 302320404"),
        ),
        (
            with(
                bought(Some(NEIGHBOR), "x"),
                json!({ "buyerisfavorite": false }),
            ),
            Some("its company is not known"),
        ),
        (
            with(bought(Some(NEIGHBOR), "x"), json!({ "doctype": "Receipt" })),
            Some("type is `Receipt`, which is not in `document_types`"),
        ),
        (
            with(bought(Some(NEIGHBOR), "x"), json!({ "doctype": null })),
            Some("has no type"),
        ),
        (
            with(bought(Some(NEIGHBOR), "x"), json!({ "doctype": "INVOICE" })),
            None,
        ),
    ];
    let ids = bench.control.digitize(DEFAULT_KEY, COMPANY, cases.len());
    let ids = ids.expect("the company exists");
    for (id, (fields, _)) in ids.iter().zip(&cases) {
        bench.amend(id, fields.clone());
    }
    bench.clock.advance(hours(2));
    bench.settle().await;
    drain(&books).await;

    let rows = bench.deliveries().await;
    assert_eq!(rows.len(), cases.len());
    for (id, (fields, reason)) in ids.iter().zip(&cases) {
        let row = rows.iter().find(|row| row.document_id == *id);
        let row = row.expect("each has a state");
        let Some(reason) = reason else {
            assert_eq!(row.state, DeliveryState::Delivered, "{fields}");
            continue;
        };
        assert_eq!(row.state, DeliveryState::Skipped, "{fields}");
        let detail = row.detail.clone().unwrap_or_default();
        assert!(detail.contains(reason), "{detail}: {fields}");
        assert!(row.attempts.is_empty(), "the destination was not asked");
        let trace = trace::find(bench.store(), id).await.expect("a trace");
        let events = trace[0].events.iter();
        let skipped = events.filter(|event| event.step == Step::Skipped);
        let told: Vec<_> = skipped.map(|event| event.detail.clone()).collect();
        assert_eq!(told, [Some(detail)]);
    }
    let delivered = cases.iter().filter(|(_, reason)| reason.is_none());
    assert_eq!(ledger.accepted().len(), delivered.count());
    let row = row(&bench, "books").await;
    assert_eq!((row.waiting, row.rejected, row.failures), (0, 0, 0));
}

/// One feed for a key lists the documents of all its companies.
#[tokio::test]
async fn where_the_path_names_no_company_the_document_does() {
    let bench = Bench::with("company_in=none", |config| {
        set_exported_path(config, "none");
        config.api.import_error_path = Some("/errors".to_owned());
    })
    .await;
    bench.settle().await;
    let ledger = Ledger::start().await;
    let settings = DestinationConfig {
        companies: vec![company(NEIGHBOR)],
        ..ledger.destination()
    };
    let books = worker(&bench, "books", &settings).await;
    let of = |code: &str| {
        json!({
            "sellerisfavorite": true, "sellercode": code, "buyerisfavorite": false, "buyercode": "111111111",
        })
    };
    bench.clock.advance(seconds(1));
    let mut ids = Vec::new();
    for (code, count) in [(COMPANY, 1), (NEIGHBOR, 2)] {
        let exported = bench.control.export(code, count).expect("it exists");
        ids.extend(exported.into_iter().map(|(id, _)| id));
    }
    for (id, code) in ids.iter().zip([COMPANY, NEIGHBOR, NEIGHBOR]) {
        bench.amend(id, of(code));
    }
    let refused = ids[2].clone();
    ledger.react(move |entry| match entry.document_id == refused {
        true => Reaction::rejects("Nežinomas PVM kodas."),
        false => Reaction::Accepts,
    });
    bench.clock.advance(hours(2));
    bench.settle().await;
    drain(&books).await;
    let states = bench.deliveries().await;
    let state = |id: &String| {
        let row = states.iter().find(|row| row.document_id == *id);
        row.expect("each has a state").state
    };
    assert_eq!(
        ids.iter().map(state).collect::<Vec<_>>(),
        [
            DeliveryState::Skipped,
            DeliveryState::Delivered,
            DeliveryState::Rejected
        ]
    );
    bench.clock.advance(IMPORT_ERROR_WAIT);
    let sender = import_error_sender(&bench).expect("a sender of import errors");
    assert_eq!(sender.step().await.expect("a step"), SendOutcome::Sent);
    let sent = bench.control.reported_errors();
    assert_eq!(sent.len(), 1, "{sent:?}");
    assert_eq!(
        (&*sent[0].documentid, &*sent[0].companycode),
        (&*ids[2], NEIGHBOR)
    );
}

#[tokio::test]
async fn a_type_that_a_destination_does_not_take_is_skipped() {
    let scene = Scene::with(|config| config.document_types = vec!["invoice".to_owned()]).await;
    let exported = scene.bench.control.export(COMPANY, 3);
    let ids: Vec<String> = exported
        .expect("the company exists")
        .into_iter()
        .map(|(id, _)| id)
        .collect();
    scene.bench.amend(&ids[1], json!({ "doctype": "receipt" }));
    scene.bench.notify(COMPANY).await;
    scene.bench.settle().await;
    scene.drain().await;
    assert_eq!(scene.ledger.accepted().len(), 2);
    let states = scene.bench.deliveries().await;
    let skipped = states
        .iter()
        .find(|row| row.state == DeliveryState::Skipped);
    assert_eq!(skipped.expect("one").document_id, ids[1]);
    assert_eq!(scene.row().await.waiting, 0);
}

#[tokio::test]
async fn a_pause_takes_effect_between_two_documents_of_a_batch() {
    let scene = Scene::new().await;
    scene.export(30).await;
    let pause = Arc::new(Notify::new());
    let (third, mut requests) = (Arc::clone(&pause), 0);
    scene.ledger.react(move |_| {
        requests += 1;
        match requests {
            1 | 2 => Reaction::Accepts,
            3 => Reaction::AcceptsOnce(Arc::clone(&third)),
            // Longer than it takes to store an outcome, which tells of the pause.
            _ => Reaction::AcceptsAfter(Duration::from_secs(2)),
        }
    });
    let pausing = async {
        scene.ledger.until("a request", |l| l.requests() == 3).await;
        let paused = scene.change(DestinationChange::Pause).await;
        pause.notify_one();
        paused
    };
    let (outcome, paused) = tokio::join!(scene.step(), pausing);
    assert_eq!(paused, 1);
    let StepOutcome::Settled(settled) = outcome else {
        panic!("{outcome:?}");
    };
    assert!((3..5).contains(&settled), "{settled}");
    assert_eq!(scene.ledger.requests(), settled, "none is canceled");
    assert_eq!(
        scene.step().await,
        StepOutcome::Nothing(NothingDue {
            until: None,
            held: false
        })
    );
    assert_eq!(
        scene.row().await.paused,
        Some(DestinationPauseReason::ByHand)
    );

    scene.ledger.always(Reaction::Accepts);
    scene.change(DestinationChange::Resume).await;
    scene.drain().await;
    scene.assert_all_delivered().await;
    assert_eq!(scene.ledger.repeats(), 0);
}

#[tokio::test]
async fn what_is_skipped_during_a_long_delivery_is_not_started() {
    let scene = Scene::new().await;
    scene.export(3).await;
    let mut requests = 0;
    scene.ledger.react(move |_| {
        requests += 1;
        match requests {
            // Longer than versions that were chosen may wait.
            1 => Reaction::AcceptsAfter(Duration::from_secs(1)),
            _ => Reaction::Accepts,
        }
    });
    let skipping = async {
        scene.ledger.until("a request", |l| l.requests() == 1).await;
        let documents = scene.bench.store().documents(DocumentFilter {
            limit: 10,
            ..DocumentFilter::default()
        });
        let documents = documents.await.expect("readable");
        let newest = documents.iter().map(|row| row.sequence).max();
        let skipped = DeliverySelection::One(newest.expect("a document") - 1);
        scene.change(DestinationChange::Skip(skipped)).await
    };
    let (_, skipped) = tokio::join!(scene.drain(), skipping);
    assert_eq!(skipped, 1);
    assert_eq!(scene.ledger.requests(), 2);
    assert_eq!(scene.row().await.delivered, 2);
}

#[tokio::test]
async fn a_stopping_worker_finishes_the_document_in_flight_only() {
    let scene = Scene::new().await;
    scene.export(10).await;
    scene
        .ledger
        .always(Reaction::AcceptsAfter(Duration::from_millis(50)));
    let stop = CancellationToken::new();
    let stopping = async {
        scene.ledger.until("a request", |l| l.requests() == 2).await;
        stop.cancel();
    };
    let (outcome, ()) = tokio::join!(step_until(&scene.worker, &stop), stopping);
    assert_eq!(outcome, StepOutcome::Settled(2));
    scene.ledger.always(Reaction::Accepts);
    scene.drain().await;
    scene.assert_all_delivered().await;
    assert_eq!(scene.ledger.repeats(), 0, "finished deliveries are stored");
}

#[tokio::test]
async fn a_document_alone_takes_two_writes_of_its_worker() {
    let bench = Bench::caught_up("").await;
    let ledger = Ledger::start().await;
    let destination = ledger.destination();
    // Registers the destination.
    drain(&worker(&bench, "books", &destination).await).await;
    bench.export_and_pull(COMPANY, 1).await;
    let (faults, store, _) = bench.reopen_with_faults().await;
    let worker = worker_on(&store, &bench, "books", &destination).await;
    let before = faults.writes();
    assert_eq!(step(&worker).await, StepOutcome::Settled(1));
    assert_eq!(
        faults.writes() - before,
        2,
        "to lease it, and to record its outcome"
    );
    assert!(matches!(step(&worker).await, StepOutcome::Nothing(_)));
    store.close().await.expect("the store closes");
}

#[tokio::test]
async fn a_worker_that_lost_its_lease_records_and_starts_nothing() {
    let scene = Scene::new().await;
    let replica = worker(&scene.bench, "books", &scene.ledger.destination()).await;
    scene.export(5).await;
    let taken_over = Arc::new(Notify::new());
    let (first, mut requests) = (Arc::clone(&taken_over), 0);
    scene.ledger.react(move |_| {
        requests += 1;
        match requests {
            1 => Reaction::AcceptsOnce(Arc::clone(&first)),
            _ => Reaction::Accepts,
        }
    });
    let taking_over = async {
        scene.ledger.until("a request", |l| l.requests() == 1).await;
        assert!(matches!(step(&replica).await, StepOutcome::Nothing(_)));
        // As if the other worker's machine had been suspended.
        scene.bench.clock.advance(hours(1));
        drain(&replica).await;
        taken_over.notify_one();
    };
    let (outcome, ()) = tokio::join!(scene.step(), taking_over);
    assert_eq!(outcome, StepOutcome::Stale);
    assert_eq!((scene.ledger.requests(), scene.ledger.repeats()), (6, 1));
    assert_eq!(scene.row().await.delivered, 5);
    assert!(matches!(scene.step().await, StepOutcome::Nothing(_)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_versions_of_one_document_are_never_in_flight_together() {
    let scene = Scene::with(|destination| destination.max_concurrency = 8).await;
    let ids = scene.export(12).await;
    let mut requests = 0_u64;
    scene.ledger.react(move |_| {
        requests += 1;
        match requests % 7 {
            0 => Reaction::AcceptsUnheard,
            3 => Reaction::status(503),
            more => Reaction::AcceptsAfter(Duration::from_millis(3 * more)),
        }
    });
    let exporting = async {
        for round in 0..6 {
            for id in ids.iter().skip(round % 3).step_by(3) {
                scene.re_export(id).await;
            }
        }
    };
    let workers = async {
        for _ in 0..40 {
            scene.drain().await;
            // Resuming ends any wait.
            scene.change(DestinationChange::Resume).await;
        }
    };
    tokio::join!(exporting, workers);
    scene.ledger.always(Reaction::Accepts);
    scene.change(DestinationChange::Resume).await;
    scene.drain().await;

    let (most, overlaps) = scene.ledger.concurrency();
    assert!(most > 1, "nothing was delivered in parallel");
    assert!(most <= 8, "{most}");
    assert!(overlaps.is_empty(), "{overlaps:?}");
    let mut last: BTreeMap<String, String> = BTreeMap::new();
    for entry in scene.ledger.received() {
        let before = last.insert(entry.document_id.clone(), entry.version.clone());
        assert!(
            before.is_none_or(|before| before <= entry.version),
            "{entry:?}"
        );
    }
    let current: BTreeMap<_, _> = scene.bench.current_versions().await.into_iter().collect();
    assert_eq!(last, current);
}

/// Accepts versions; the first of all once another is delivered.
#[derive(Default)]
struct Notes {
    began: Notify,
    other: Notify,
    deliveries: AtomicUsize,
    earlier: Mutex<Vec<Option<String>>>,
}

struct Noting(Arc<Notes>);

#[async_trait::async_trait]
impl Destination for Noting {
    async fn deliver(&self, delivery: &Delivery) -> DestinationResponse {
        let notes = &self.0;
        match notes.deliveries.fetch_add(1, Ordering::SeqCst) {
            0 => {
                notes.began.notify_one();
                notes.other.notified().await;
            }
            1 => notes.other.notify_one(),
            _ => {}
        }
        let mut earlier = notes.earlier.lock().expect("never poisoned");
        earlier.push(delivery.earlier_note.clone());
        DestinationResponse::Accepted {
            note: Some(delivery.version.clone()),
        }
    }

    fn leaves_notes(&self) -> bool {
        true
    }
}

#[tokio::test]
async fn a_version_gets_the_note_of_one_that_was_in_flight() {
    let bench = Bench::caught_up("").await;
    let mut config = with_history(DestinationKind::List);
    config.max_concurrency = 2;
    let _registered = worker(&bench, "notes", &config).await;
    let notes = Arc::new(Notes::default());
    let worker = DestinationWorker::new(
        destination_name("notes"),
        config,
        Some(Box::new(Noting(Arc::clone(&notes)))),
        &bench.config,
        Arc::clone(bench.store()),
        bench.clock.clone(),
    );
    let ids = bench.export_and_pull(COMPANY, 1).await;
    let version = bench.current_versions().await.remove(0).1;
    let exporting = async {
        notes.began.notified().await;
        bench.clock.advance(seconds(1));
        bench.control.re_export(&ids[0]).expect("a known document");
        bench.control.export(COMPANY, 1).expect("exported");
        bench.notify(COMPANY).await;
        bench.settle().await;
    };
    tokio::join!(step(&worker), exporting);
    drain(&worker).await;
    let earlier = notes.earlier.lock().expect("never poisoned");
    assert_eq!(*earlier, [None, None, Some(version)]);
}

/// Accepts or rejects versions, and plants a fault in the store at the first.
struct Breaking {
    fault: Fault,
    rejects: bool,
    faults: Arc<Faults>,
    broken: Notify,
    sequences: Mutex<Vec<i64>>,
}

impl Breaking {
    fn sequences(&self) -> Vec<i64> {
        self.sequences.lock().expect("never poisoned").clone()
    }
}

struct Breaks(Arc<Breaking>);

#[async_trait::async_trait]
impl Destination for Breaks {
    async fn deliver(&self, delivery: &Delivery) -> DestinationResponse {
        let Breaking { fault, faults, .. } = &*self.0;
        let mut sequences = self.0.sequences.lock().expect("never poisoned");
        if sequences.is_empty() {
            faults.set(Some(*fault));
            self.0.broken.notify_one();
        }
        sequences.push(delivery.sequence);
        match self.0.rejects {
            true => DestinationResponse::Rejected {
                message: "no such account".to_owned(),
            },
            false => DestinationResponse::Accepted { note: None },
        }
    }

    fn leaves_notes(&self) -> bool {
        false
    }
}

/// A destination that breaks its store, with five documents for it.
struct BrokenScene {
    breaking: Arc<Breaking>,
    store: SharedStore,
    worker: DestinationWorker,
    _bench: Bench,
}

impl BrokenScene {
    async fn new(fault: Fault, rejects: bool) -> Self {
        let bench = Bench::caught_up("").await;
        let config = with_history(DestinationKind::List);
        let _registered = worker(&bench, "books", &config).await;
        bench.export_and_pull(COMPANY, 5).await;
        let (faults, store, _) = bench.reopen_with_faults().await;
        let breaking = Arc::new(Breaking {
            fault,
            rejects,
            faults,
            broken: Notify::new(),
            sequences: Mutex::default(),
        });
        let worker = DestinationWorker::new(
            destination_name("books"),
            config,
            Some(Box::new(Breaks(Arc::clone(&breaking)))),
            &bench.config,
            Arc::clone(&store),
            bench.clock.clone(),
        );
        Self {
            breaking,
            store,
            worker,
            _bench: bench,
        }
    }

    /// Ends the fault once the store has failed a few times.
    async fn repair_later(&self) {
        self.breaking.broken.notified().await;
        let faults = &self.breaking.faults;
        let before = faults.writes();
        while faults.writes() < before + 3 {
            tokio::task::yield_now().await;
        }
        faults.set(None);
    }
}

#[tokio::test]
async fn answers_are_kept_while_the_store_fails() {
    for (fault, rejects) in [
        (Fault::Down, false),
        (Fault::AnswerLost, false),
        // A rejection that counts twice would pause the lane before the fifth.
        (Fault::AnswerLost, true),
    ] {
        let scene = BrokenScene::new(fault, rejects).await;
        let (outcome, ()) = tokio::join!(step(&scene.worker), scene.repair_later());
        assert_eq!(outcome, StepOutcome::Settled(5), "{fault:?}");
        assert_eq!(scene.breaking.sequences(), [1, 2, 3, 4, 5], "{fault:?}");
        let rows = scene.store.destinations().await.expect("destinations");
        let expected = if rejects { (0, 5) } else { (5, 0) };
        assert_eq!((rows[0].delivered, rows[0].rejected), expected);
        let again = step(&scene.worker).await;
        assert!(matches!(again, StepOutcome::Nothing(_)), "{again:?}");
        scene.store.close().await.expect("closed");
    }
}

#[tokio::test]
async fn a_lane_ends_with_the_rejection_that_pauses_it() {
    let scene = Scene::new().await;
    scene.ledger.always(Reaction::rejects("no such account"));
    scene.export(30).await;
    scene.drain().await;
    assert_eq!(scene.ledger.requests(), 5, "the very first answers");
    assert_eq!(
        (scene.row().await.paused_lanes, scene.row().await.waiting),
        (1, 25)
    );
}

#[tokio::test]
async fn a_worker_stops_although_the_store_fails() {
    let scene = BrokenScene::new(Fault::Down, false).await;
    let stop = CancellationToken::new();
    let stopping = async {
        scene.breaking.broken.notified().await;
        stop.cancel();
    };
    let step = within("a step", scene.worker.step(&stop));
    let (stopped, ()) = tokio::join!(step, stopping);
    stopped.expect_err("the outcomes could not be stored");
    scene.breaking.faults.set(None);
    scene.store.close().await.expect("closed");
}

#[tokio::test]
async fn a_version_that_blocks_a_destination_can_be_skipped() {
    let scene = Scene::new().await;
    let ids = scene.export(4).await;
    let failing = ids[1].clone();
    scene
        .ledger
        .react(move |entry| match entry.document_id == failing {
            true => Reaction::status(500),
            false => Reaction::Accepts,
        });
    scene.run_for(minutes(10)).await;
    let stuck = scene.row().await.stuck_at.expect("it is stuck");
    assert_eq!((stuck, scene.ledger.accepted().len()), (2, 1));
    let skip = DestinationChange::Skip(DeliverySelection::One(stuck));
    assert_eq!(scene.change(skip).await, 1);
    scene.drain().await;
    assert_eq!(scene.ledger.accepted().len(), 3);
    let rows = scene.bench.deliveries().await;
    assert_eq!(rows[1].state, DeliveryState::Skipped);
    // Its next version is delivered.
    scene.ledger.always(Reaction::Accepts);
    scene.re_export(&ids[1]).await;
    scene.drain().await;
    assert_eq!(scene.ledger.accepted().len(), 4);
}

#[tokio::test]
async fn an_older_version_is_never_delivered_after_a_newer_one() {
    let bench = Bench::caught_up("visibility_lag_ms=0").await;
    let ledger = Ledger::start().await;
    let books = worker(&bench, "books", &ledger.destination()).await;
    // The vendor lists this export a minute late.
    bench.switch("visibility_lag_ms=60000");
    let ids = bench.control.export(COMPANY, 1).expect("exported");
    bench.switch("visibility_lag_ms=0");
    bench.clock.advance(seconds(1));
    let id = ids[0].0.clone();
    bench.control.re_export(&id).expect("a known document");
    bench.notify(COMPANY).await;
    bench.settle().await;
    drain(&books).await;
    let newest = ledger.versions();
    assert_eq!(newest.len(), 1);
    bench.run_for(hours(3)).await;
    drain(&books).await;
    let rows = bench.documents().await;
    assert_eq!(rows.len(), 2, "the older one arrives: {rows:?}");
    assert_eq!(ledger.versions(), newest);
    assert_eq!(bench.stored(&exported(COMPANY)).await.len(), 2);
}

#[tokio::test]
async fn command_list_and_http_destinations_get_the_same_documents() {
    let scene = Scene::new().await;
    let list = worker(&scene.bench, "list", &with_history(DestinationKind::List)).await;
    let program = DestinationKind::Command {
        program: "/bin/true".into(),
        arguments: Vec::new(),
        environment: Vec::new(),
        folder: "/".into(),
    };
    let program = worker(&scene.bench, "program", &with_history(program)).await;
    let ids = scene.export(5).await;
    scene.re_export(&ids[4]).await;
    for one in [&scene.worker, &list, &program] {
        drain(one).await;
    }
    let offered = scene
        .bench
        .store()
        .listed(destination_name("list"), 0, 100, 1 << 20);
    let offered: Vec<(String, String)> = offered
        .await
        .expect("a list")
        .into_iter()
        .map(|one| (one.delivery.document_id, one.delivery.version))
        .collect();
    assert_eq!(offered, scene.ledger.versions());
    assert_eq!(row(&scene.bench, "program").await.delivered, 5);
}
