//! From the pulled document to the books: the worker on the real store, against
//! receivers that fail in every way that receivers do.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ivesk_webhook::config::{
    Config, DestinationConfig, DestinationKind, HistoryMode, default_account,
};
use ivesk_webhook::delivery::import_errors::{ImportErrorSender, SendOutcome};
use ivesk_webhook::delivery::open;
use ivesk_webhook::delivery::worker::{DestinationWorker, StepOutcome};
use ivesk_webhook::domain::{DestinationName, Queue};
use ivesk_webhook::emulator::DEFAULT_KEY;
use ivesk_webhook::metrics::Metrics;
use ivesk_webhook::store::{
    DeliveryFilter, DeliveryRow, DeliveryState, DestinationChange, DestinationFilter,
    DestinationPauseReason, DestinationRow, DocumentRow, ImportErrorFilter, ImportErrorRow,
    ImportErrorState,
};
use ivesk_webhook::trace::{self, Step};
use tokio_util::sync::CancellationToken;

use crate::support::ledger::{Ledger, Manner};
use crate::support::process::within;
use crate::support::puller::{
    Bench, COMPANY, NEIGHBOUR, company, digitized, exported, hours, minutes,
};

/// Steps after which a worker that still finds work is said to spin.
const SPIN: usize = 20_000;

/// The document's next version is a moment later.
const MOMENT: Duration = Duration::from_secs(1);

pub(crate) fn destination_name(name: &str) -> DestinationName {
    DestinationName::parse(name).expect("a name")
}

/// A worker for a destination of the bench's settings, which is made known.
pub(crate) async fn worker(
    bench: &Bench,
    name: &str,
    destination: &DestinationConfig,
) -> DestinationWorker {
    let name = destination_name(name);
    let place = open(
        &name,
        destination,
        &bench.config,
        &BTreeMap::new(),
        &bench.clock,
    );
    let known = bench.store().register_destinations(
        vec![(name.clone(), DestinationFilter::all_of(Queue::Exported))],
        bench.clock.now(),
    );
    known.await.expect("the destination is made known");
    DestinationWorker::new(
        name,
        destination.clone(),
        place.expect("the destination opens"),
        bench.config.import_errors.clone(),
        Arc::clone(bench.store()),
        bench.clock.clone(),
    )
}

/// The first step that does more than pass over versions, or let feeds begin.
pub(crate) async fn step(deliver: &DestinationWorker) -> StepOutcome {
    step_until(deliver, &CancellationToken::new()).await
}

async fn step_until(deliver: &DestinationWorker, stop: &CancellationToken) -> StepOutcome {
    loop {
        let step = within("a step", deliver.step(stop)).await;
        match step.expect("the store works") {
            StepOutcome::Passed => {}
            other => return other,
        }
    }
}

/// Steps until nothing may be delivered now; what they did.
pub(crate) async fn drain(deliver: &DestinationWorker) -> Vec<StepOutcome> {
    let mut done = Vec::new();
    loop {
        match step(deliver).await {
            StepOutcome::Nothing { .. } => return done,
            handed => done.push(handed),
        }
        assert!(done.len() < SPIN, "the worker spins: {:?}", done.last());
    }
}

/// Lets time pass, pulling and delivering whenever something falls due.
async fn pass(bench: &Bench, deliver: &DestinationWorker, time: Duration) {
    let end = bench.clock.now().after(time);
    loop {
        bench.settle().await;
        drain(deliver).await;
        let destination = match step(deliver).await {
            StepOutcome::Nothing { until } => until,
            other => panic!("just drained, and then {other:?}"),
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
    drain(deliver).await;
}

async fn row(bench: &Bench, name: &str) -> DestinationRow {
    let rows = bench.store().destinations().await.expect("destinations");
    let row = rows.into_iter().find(|row| row.name.as_str() == name);
    row.expect("the destination is known")
}

async fn deliveries(bench: &Bench) -> Vec<DeliveryRow> {
    let all = DeliveryFilter {
        limit: 10_000,
        ..DeliveryFilter::default()
    };
    bench.store().deliveries(all).await.expect("deliveries")
}

async fn import_errors(bench: &Bench) -> Vec<ImportErrorRow> {
    let all = ImportErrorFilter {
        limit: 1_000,
        ..ImportErrorFilter::default()
    };
    bench
        .store()
        .import_errors(all)
        .await
        .expect("import errors")
}

async fn change(bench: &Bench, name: &str, change: DestinationChange) -> usize {
    let changed =
        bench
            .store()
            .change_destination(destination_name(name), change, bench.clock.now());
    let changed = changed.await.expect("the store works");
    changed.expect("the destination is known")
}

/// Ids and versions that are current, in the order of their numbers.
async fn current(bench: &Bench) -> Vec<(String, String)> {
    let rows = bench.documents().await.into_iter();
    rows.filter(|row| !row.superseded)
        .map(|row: DocumentRow| (row.document_id, row.version))
        .collect()
}

/// The accountant exports, and the documents are pulled; their ids.
async fn export(bench: &Bench, code: &str, count: usize) -> Vec<String> {
    let exported = bench.control.export(code, count);
    let exported = exported.expect("the company exists");
    bench.hint(code).await;
    bench.settle().await;
    exported.into_iter().map(|(id, _)| id).collect()
}

/// The accountant fixes a document and exports it again, and it is pulled.
async fn re_export(bench: &Bench, id: &str) {
    bench.clock.advance(MOMENT);
    let version = bench.control.re_export(id).expect("a known document");
    assert!(version.is_some());
    bench.hint(COMPANY).await;
    bench.settle().await;
}

/// A bench with one destination, `books`, and the receiver behind it.
struct Scene {
    bench: Bench,
    ledger: Ledger,
    deliver: DestinationWorker,
}

impl Scene {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut DestinationConfig)) -> Self {
        let bench = Bench::caught_up("").await;
        let ledger = Ledger::open().await;
        let mut destination = ledger.destination();
        change(&mut destination);
        let deliver = worker(&bench, "books", &destination).await;
        Self {
            bench,
            ledger,
            deliver,
        }
    }

    /// The receiver's books hold every current version once and in order, and the store
    /// says the same.
    async fn assert_all_booked(&self) {
        assert_eq!(self.ledger.versions(), current(&self.bench).await);
        let row = row(&self.bench, "books").await;
        assert_eq!(row.delivered, self.ledger.delivered().len() as u64);
        assert_eq!((row.failures, row.last_error), (0, None));
    }
}

#[tokio::test]
async fn a_week_of_500_is_followed_by_everything_in_order() {
    let scene = Scene::new().await;
    let Scene {
        bench,
        ledger,
        deliver,
    } = &scene;
    ledger.always(Manner::status(500));
    let mut first = None;
    for _ in 0..7 {
        let ids = export(bench, COMPANY, 3).await;
        let first = first.get_or_insert_with(|| ids[0].clone());
        re_export(bench, first).await;
        pass(bench, deliver, hours(24)).await;
    }
    let tried = ledger.requests();
    // Every five minutes, give or take what is left to chance.
    assert!((1_600..2_800).contains(&tried), "{tried}");
    let stuck = row(bench, "books").await;
    assert_eq!((stuck.delivered, stuck.rejected), (0, 0));
    assert!(stuck.waits_until.is_some() && stuck.paused.is_none());
    let error = stuck.last_error.expect("it says why");
    assert!(error.contains("500") && error.contains("log"), "{error}");
    let attempts = deliveries(bench).await;
    assert!(
        attempts
            .iter()
            .all(|row| row.state == DeliveryState::Pending)
    );
    let told: usize = attempts.iter().map(|row| row.attempts.len()).sum();
    let counted: u64 = attempts
        .iter()
        .flat_map(|row| &row.attempts)
        .map(|one| one.times)
        .sum();
    assert_eq!(counted, tried as u64, "each attempt is counted");
    assert!(told < 20, "and those that ended alike are one row: {told}");

    ledger.always(Manner::Books);
    pass(bench, deliver, minutes(6)).await;
    scene.assert_all_booked().await;
    assert_eq!(ledger.delivered().len(), 21);
    assert_eq!(ledger.repeats(), 0);
    assert!(import_errors(bench).await.is_empty());
}

#[tokio::test]
async fn a_reset_before_or_after_acceptance_doubles_nothing() {
    let scene = Scene::new().await;
    let Scene {
        bench,
        ledger,
        deliver,
    } = &scene;
    export(bench, COMPANY, 6).await;
    let mut requests = 0;
    ledger.takes(move |_| {
        requests += 1;
        match requests % 3 {
            1 => Manner::Resets,
            2 => Manner::BooksUnheard,
            _ => Manner::Books,
        }
    });
    pass(bench, deliver, hours(3)).await;
    scene.assert_all_booked().await;
    // Each was refused once and booked unheard once before the answer came through.
    assert_eq!((ledger.requests(), ledger.repeats()), (18, 6));
    let rows = deliveries(bench).await;
    assert_eq!(rows.len(), 6);
    for row in rows {
        assert_eq!(row.state, DeliveryState::Delivered, "{row:?}");
    }
}

#[tokio::test]
async fn a_version_accepted_unheard_then_superseded_is_not_repeated() {
    let scene = Scene::new().await;
    let Scene {
        bench,
        ledger,
        deliver,
    } = &scene;
    let ids = export(bench, COMPANY, 1).await;
    let old = current(bench).await;
    ledger.always(Manner::BooksUnheard);
    assert!(matches!(step(deliver).await, StepOutcome::Waiting { .. }));
    re_export(bench, &ids[0]).await;
    ledger.always(Manner::Books);
    pass(bench, deliver, hours(1)).await;
    let both = [old, current(bench).await].concat();
    assert_eq!(
        ledger.versions(),
        both,
        "the old one first, the new one last"
    );
    assert_eq!(ledger.given().len(), 2);
}

#[tokio::test]
async fn a_hanging_destination_times_out_and_others_continue() {
    let Scene {
        bench,
        ledger,
        deliver,
    } = Scene::with(|destination| destination.timeout = Duration::from_millis(300)).await;
    let other = Ledger::open().await;
    let beside = worker(&bench, "beside", &other.destination()).await;
    export(&bench, COMPANY, 40).await;
    ledger.always(Manner::Hangs);
    let hanging = async {
        let handed = step(&deliver).await;
        (handed, other.delivered().len())
    };
    let ((handed, meanwhile), _) = tokio::join!(hanging, async {
        ledger.until("a request", |l| l.requests() == 1).await;
        drain(&beside).await
    });
    assert!(matches!(handed, StepOutcome::Waiting { .. }), "{handed:?}");
    assert_eq!(other.versions(), current(&bench).await);
    assert!(meanwhile > 0, "nothing was delivered beside it");
    assert!(matches!(step(&deliver).await, StepOutcome::Nothing { .. }));
    assert_eq!(ledger.requests(), 1, "nobody else is asked while it waits");
    let row = row(&bench, "books").await;
    assert!(row.last_error.is_some() && row.waits_until.is_some());

    ledger.always(Manner::Books);
    pass(&bench, &deliver, minutes(1)).await;
    assert_eq!(ledger.versions(), current(&bench).await);
}

#[tokio::test]
async fn a_moved_or_forbidden_address_pauses_and_says_what_to_check() {
    for (manner, words) in [
        (
            Manner::with_header(302, "location", "http://127.0.0.1:1/"),
            "`url`",
        ),
        (Manner::status(401), "`secret_file`"),
        (Manner::status(404), "`url`"),
    ] {
        let scene = Scene::new().await;
        let Scene {
            bench,
            ledger,
            deliver,
        } = &scene;
        export(bench, COMPANY, 3).await;
        ledger.always(manner.clone());
        pass(bench, deliver, hours(2)).await;
        let stuck = row(bench, "books").await;
        let error = stuck.last_error.expect("it says why");
        assert!(error.contains(words), "{manner:?}: {error}");
        assert!(stuck.stuck_at == Some(1) && stuck.paused.is_none());
        assert!(import_errors(bench).await.is_empty());
        // Fixed, it goes on by itself.
        ledger.always(Manner::Books);
        pass(bench, deliver, minutes(6)).await;
        scene.assert_all_booked().await;
    }
}

#[tokio::test]
async fn a_destination_that_answers_410_is_paused_for_a_person() {
    let scene = Scene::new().await;
    let Scene {
        bench,
        ledger,
        deliver,
    } = &scene;
    export(bench, COMPANY, 3).await;
    ledger.always(Manner::status(410));
    pass(bench, deliver, hours(1)).await;
    ledger.always(Manner::Books);
    pass(bench, deliver, hours(72)).await;
    assert_eq!(ledger.requests(), 1);
    let closed = row(bench, "books").await;
    assert_eq!(closed.paused, Some(DestinationPauseReason::Closed));
    assert_eq!(closed.waits_until, None);
    assert_eq!(change(bench, "books", DestinationChange::Resume).await, 1);
    drain(deliver).await;
    scene.assert_all_booked().await;
}

#[tokio::test]
async fn retry_after_of_an_hour_is_obeyed() {
    let scene = Scene::new().await;
    let Scene {
        bench,
        ledger,
        deliver,
    } = &scene;
    export(bench, COMPANY, 3).await;
    ledger.always(Manner::with_header(429, "retry-after", "3600"));
    drain(deliver).await;
    ledger.always(Manner::Books);
    pass(bench, deliver, minutes(59)).await;
    assert_eq!(ledger.requests(), 1);
    pass(bench, deliver, minutes(2)).await;
    scene.assert_all_booked().await;
}

/// Returns the sender of the bench's settings; none where those name no path.
fn import_error_sender(bench: &Bench) -> Option<ImportErrorSender> {
    let made = ImportErrorSender::new(
        &bench.config,
        Arc::clone(bench.store()),
        bench.clock.clone(),
        Arc::new(Metrics::new()),
    );
    made.expect("a sender of import errors")
}

#[tokio::test]
async fn a_rejection_becomes_one_import_error_and_ends_delivered() {
    let Scene {
        mut bench,
        ledger,
        deliver,
    } = Scene::new().await;
    let ids = export(&bench, COMPANY, 2).await;
    let unwanted = ids[0].clone();
    let wrong = unwanted.clone();
    ledger.takes(move |entry| {
        let words = "Nežinomas PVM kodas PVM99.\n    at Books.Import(Invoice.cs:12)\n    at Main()";
        match entry.document_id == wrong {
            true => Manner::rejects(words),
            false => Manner::Books,
        }
    });
    bench.clock.advance(MOMENT);
    drain(&deliver).await;
    assert_eq!(ledger.delivered().len(), 1, "the others are not held up");
    assert!(
        import_error_sender(&bench).is_none(),
        "nothing says where to"
    );
    let waiting = import_errors(&bench).await;
    assert_eq!(waiting.len(), 1);
    assert_eq!(waiting[0].state, ImportErrorState::Pending);

    drop(deliver);
    bench
        .restart_with(|config: &mut Config| {
            config.api.import_error_path = Some("/errors".to_owned());
        })
        .await;
    let sending = import_error_sender(&bench).expect("a sender of import errors");
    bench.clock.advance(MOMENT);
    assert_eq!(sending.step().await.expect("a step"), SendOutcome::Sent);
    assert_eq!(sending.step().await.expect("a step"), SendOutcome::Nothing);
    let seen = bench.control.reported_errors();
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert_eq!(
        (&*seen[0].documentid, &*seen[0].companycode),
        (&*unwanted, COMPANY)
    );
    assert_eq!(
        seen[0].message,
        "Apskaitos sistema dokumento nepriėmė: Nežinomas PVM kodas PVM99. Pataisykite dokumentą ir \
         eksportuokite jį iš naujo."
    );

    // The same rejection again, for whatever reason, is not told again.
    let deliver = worker(&bench, "books", &ledger.destination()).await;
    assert_eq!(
        change(&bench, "books", DestinationChange::Retry { sequence: None }).await,
        1
    );
    drain(&deliver).await;
    assert_eq!(ledger.rejected().len(), 2);
    assert_eq!(sending.step().await.expect("a step"), SendOutcome::Nothing);

    ledger.always(Manner::Books);
    re_export(&bench, &unwanted).await;
    bench.clock.advance(MOMENT);
    drain(&deliver).await;
    let stories = trace::find(bench.store().as_ref(), &unwanted).await;
    let stories = stories.expect("a story");
    assert_eq!(stories.len(), 1);
    let turns = [
        Step::Exported,
        Step::Rejected,
        Step::ImportErrorSent,
        Step::ReExported,
        Step::Delivered,
    ];
    assert_eq!(stories[0].story, turns, "{:#?}", stories[0].events);
    assert_eq!(bench.control.reported_errors().len(), 1);
    assert_eq!(row(&bench, "books").await.rejected_now, 1);
}

#[tokio::test]
async fn a_refused_repeated_import_error_is_logged_and_not_resent() {
    let bench = Bench::with("error_repeat=refused", |config| {
        config.api.import_error_path = Some("/errors".to_owned());
    })
    .await;
    bench.settle().await;
    let ledger = Ledger::open().await;
    let deliver = worker(&bench, "books", &ledger.destination()).await;
    export(&bench, COMPANY, 1).await;
    let sending = import_error_sender(&bench).expect("a sender of import errors");
    ledger.always(Manner::rejects("Nežinomas PVM kodas"));
    drain(&deliver).await;
    assert_eq!(sending.step().await.expect("a step"), SendOutcome::Sent);

    ledger.always(Manner::rejects("Nežinomas klientas"));
    change(&bench, "books", DestinationChange::Retry { sequence: None }).await;
    drain(&deliver).await;
    let refused = sending.step().await.expect("a step");
    assert!(
        matches!(refused, SendOutcome::Refused { .. }),
        "{refused:?}"
    );
    bench.clock.advance(hours(48));
    assert_eq!(sending.step().await.expect("a step"), SendOutcome::Nothing);
    let rows = import_errors(&bench).await;
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[1].state, ImportErrorState::Refused);
    let error = rows[1].last_error.clone().expect("it says why");
    assert!(error.contains("409"), "{error}");
    let asked = bench
        .store()
        .retry_import_error(rows[1].id, bench.clock.now());
    assert!(asked.await.expect("the store works"));
    let again = sending.step().await.expect("a step");
    assert!(matches!(again, SendOutcome::Refused { .. }), "{again:?}");
    assert_eq!(bench.control.reported_errors().len(), 1);
}

#[tokio::test]
async fn a_version_superseded_while_it_waited_is_not_delivered() {
    let scene = Scene::new().await;
    let Scene {
        bench,
        ledger,
        deliver,
    } = &scene;
    let ids = export(bench, COMPANY, 5).await;
    ledger.always(Manner::status(503));
    drain(deliver).await;
    for id in &ids[..3] {
        re_export(bench, id).await;
        re_export(bench, id).await;
    }
    ledger.always(Manner::Books);
    pass(bench, deliver, hours(1)).await;
    scene.assert_all_booked().await;
    assert_eq!(ledger.delivered().len(), 5);
}

#[tokio::test]
async fn a_destination_gets_only_its_queue_and_companies() {
    let bench = Bench::with("", |config| {
        let account = config.accounts.get_mut(&default_account());
        let account = account.expect("the account");
        account.digitized = true;
        account.companies = vec![company(COMPANY), company(NEIGHBOUR)];
    })
    .await;
    bench.settle().await;
    let ledgers = [
        Ledger::open().await,
        Ledger::open().await,
        Ledger::open().await,
    ];
    let [all, ours, mixed] = &ledgers;
    let mut destinations = Vec::new();
    destinations.push(worker(&bench, "all", &all.destination()).await);
    let one = DestinationConfig {
        companies: vec![company(NEIGHBOUR)],
        ..ours.destination()
    };
    destinations.push(worker(&bench, "ours", &one).await);
    let one = DestinationConfig {
        companies: vec![company(NEIGHBOUR)],
        queue: Queue::Digitized,
        ..mixed.destination()
    };
    destinations.push(worker(&bench, "mixed", &one).await);
    for (code, count) in [(COMPANY, 3), (NEIGHBOUR, 2), (COMPANY, 2), (NEIGHBOUR, 4)] {
        export(&bench, code, count).await;
    }
    let made = bench.control.digitize(DEFAULT_KEY, NEIGHBOUR, 2);
    made.expect("the company exists");
    bench.clock.advance(hours(2));
    bench.settle().await;
    for destination in &destinations {
        drain(destination).await;
    }

    let count = |ledger: &Ledger, queue: Queue, code: &str| {
        let booked = ledger.delivered();
        let of_it = booked
            .iter()
            .filter(|entry| entry.queue == queue.as_str() && entry.company == code);
        of_it.count()
    };
    assert_eq!(count(all, Queue::Exported, COMPANY), 5);
    assert_eq!(count(all, Queue::Exported, NEIGHBOUR), 6);
    assert_eq!(all.delivered().len(), 11);
    assert_eq!(count(ours, Queue::Exported, NEIGHBOUR), 6);
    assert_eq!(ours.delivered().len(), 6);
    // The mixed queue names no company; the documents themselves do.
    assert_eq!(count(mixed, Queue::Digitized, ""), 8);
    assert_eq!(mixed.delivered().len(), 8);
    let rows = deliveries(&bench).await;
    let left_out = rows
        .iter()
        .filter(|row| row.state == DeliveryState::Filtered);
    let stored = bench.stored(&digitized()).await.len();
    assert_eq!(left_out.count(), stored - 8);
}

#[tokio::test]
async fn a_pause_takes_effect_between_two_documents_of_a_batch() {
    let scene = Scene::new().await;
    let Scene {
        bench,
        ledger,
        deliver,
    } = &scene;
    export(bench, COMPANY, 30).await;
    // Longer than outcomes are gathered for before they are noted.
    ledger.always(Manner::BooksAfter(Duration::from_millis(50)));
    let pausing = async {
        ledger.until("a request", |l| l.requests() == 3).await;
        change(bench, "books", DestinationChange::Pause).await
    };
    let (handed, paused) = tokio::join!(step(deliver), pausing);
    assert_eq!(paused, 1);
    let StepOutcome::Settled(settled) = handed else {
        panic!("{handed:?}");
    };
    assert!((3..6).contains(&settled), "{settled}");
    assert_eq!(ledger.requests(), settled, "none is cut off");
    assert_eq!(step(deliver).await, StepOutcome::Nothing { until: None });
    assert_eq!(
        row(bench, "books").await.paused,
        Some(DestinationPauseReason::ByHand)
    );

    ledger.always(Manner::Books);
    change(bench, "books", DestinationChange::Resume).await;
    drain(deliver).await;
    scene.assert_all_booked().await;
    assert_eq!(ledger.repeats(), 0);
}

#[tokio::test]
async fn a_stopping_worker_finishes_the_document_in_flight_only() {
    let scene = Scene::new().await;
    let Scene {
        bench,
        ledger,
        deliver,
    } = &scene;
    export(bench, COMPANY, 10).await;
    ledger.always(Manner::BooksAfter(Duration::from_millis(50)));
    let stop = CancellationToken::new();
    let stopping = async {
        ledger.until("a request", |l| l.requests() == 2).await;
        stop.cancel();
    };
    let (handed, ()) = tokio::join!(step_until(deliver, &stop), stopping);
    assert_eq!(handed, StepOutcome::Settled(2));
    ledger.always(Manner::Books);
    drain(deliver).await;
    scene.assert_all_booked().await;
    assert_eq!(ledger.repeats(), 0, "what was finished was noted");
}

#[tokio::test]
async fn a_worker_that_lost_its_lease_records_and_starts_nothing() {
    let scene = Scene::new().await;
    let Scene {
        bench,
        ledger,
        deliver,
    } = &scene;
    let replica = worker(bench, "books", &ledger.destination()).await;
    export(bench, COMPANY, 5).await;
    let mut requests = 0;
    ledger.takes(move |_| {
        requests += 1;
        match requests {
            1 => Manner::BooksAfter(Duration::from_millis(500)),
            _ => Manner::Books,
        }
    });
    let taking_over = async {
        ledger.until("a request", |l| l.requests() == 1).await;
        assert!(matches!(step(&replica).await, StepOutcome::Nothing { .. }));
        // As when the other one's machine was asleep.
        bench.clock.advance(hours(1));
        drain(&replica).await
    };
    let (handed, _) = tokio::join!(step(deliver), taking_over);
    assert_eq!(handed, StepOutcome::Stale);
    assert_eq!((ledger.requests(), ledger.repeats()), (6, 1));
    assert_eq!(row(bench, "books").await.delivered, 5);
    assert!(matches!(step(deliver).await, StepOutcome::Nothing { .. }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_versions_of_one_document_are_never_in_flight_together() {
    let scene = Scene::with(|destination| destination.max_concurrency = 8).await;
    let Scene {
        bench,
        ledger,
        deliver,
    } = &scene;
    let ids = export(bench, COMPANY, 12).await;
    let mut requests = 0_u64;
    ledger.takes(move |_| {
        requests += 1;
        match requests % 7 {
            0 => Manner::BooksUnheard,
            3 => Manner::status(503),
            more => Manner::BooksAfter(Duration::from_millis(3 * more)),
        }
    });
    let exporting = async {
        for round in 0..6 {
            for id in ids.iter().skip(round % 3).step_by(3) {
                re_export(bench, id).await;
            }
        }
    };
    let workers = async {
        for _ in 0..40 {
            drain(deliver).await;
            // Whatever it waits for is over.
            change(bench, "books", DestinationChange::Resume).await;
        }
    };
    tokio::join!(exporting, workers);
    ledger.always(Manner::Books);
    change(bench, "books", DestinationChange::Resume).await;
    drain(deliver).await;

    let (most, overlaps) = ledger.side_by_side();
    assert!(most > 1, "nothing was side by side");
    assert!(most <= 8, "{most}");
    assert!(overlaps.is_empty(), "{overlaps:?}");
    let mut last: BTreeMap<String, String> = BTreeMap::new();
    for entry in ledger.given() {
        let before = last.insert(entry.document_id.clone(), entry.version.clone());
        assert!(
            before.is_none_or(|before| before <= entry.version),
            "{entry:?}"
        );
    }
    let current: BTreeMap<_, _> = current(bench).await.into_iter().collect();
    assert_eq!(last, current);
}

#[tokio::test]
async fn a_version_that_blocks_a_destination_can_be_skipped() {
    let scene = Scene::new().await;
    let Scene {
        bench,
        ledger,
        deliver,
    } = &scene;
    let ids = export(bench, COMPANY, 4).await;
    let odd = ids[1].clone();
    ledger.takes(move |entry| match entry.document_id == odd {
        true => Manner::status(500),
        false => Manner::Books,
    });
    pass(bench, deliver, hours(1)).await;
    let stuck = row(bench, "books").await.stuck_at.expect("it is stuck");
    assert_eq!((stuck, ledger.delivered().len()), (2, 1));
    let skip = DestinationChange::Skip { sequence: stuck };
    assert_eq!(change(bench, "books", skip).await, 1);
    drain(deliver).await;
    assert_eq!(ledger.delivered().len(), 3);
    let rows = deliveries(bench).await;
    assert_eq!(rows[1].state, DeliveryState::Skipped);
    // Its next version is another one.
    ledger.always(Manner::Books);
    re_export(bench, &ids[1]).await;
    drain(deliver).await;
    assert_eq!(ledger.delivered().len(), 4);
}

#[tokio::test]
async fn an_older_version_is_never_delivered_after_a_newer_one() {
    let bench = Bench::caught_up("visibility_lag_ms=0").await;
    let ledger = Ledger::open().await;
    let deliver = worker(&bench, "books", &ledger.destination()).await;
    // A minute passes before what is exported now is listed.
    bench.switch("visibility_lag_ms=60000");
    let ids = bench.control.export(COMPANY, 1).expect("exported");
    bench.switch("visibility_lag_ms=0");
    bench.clock.advance(MOMENT);
    let id = ids[0].0.clone();
    bench.control.re_export(&id).expect("a known document");
    bench.hint(COMPANY).await;
    bench.settle().await;
    drain(&deliver).await;
    let newest = ledger.versions();
    assert_eq!(newest.len(), 1);
    bench.pass(hours(3)).await;
    drain(&deliver).await;
    let rows = bench.documents().await;
    assert_eq!(rows.len(), 2, "the older one came: {rows:?}");
    assert_eq!(ledger.versions(), newest);
    assert_eq!(bench.stored(&exported(COMPANY)).await.len(), 2);
}

#[tokio::test]
async fn command_list_and_http_destinations_get_the_same_documents() {
    let scene = Scene::new().await;
    let Scene {
        bench,
        ledger,
        deliver,
    } = &scene;
    let list = worker(bench, "list", &all_of(DestinationKind::List)).await;
    let program = DestinationKind::Command {
        program: "/bin/true".into(),
        arguments: Vec::new(),
        environment: Vec::new(),
        folder: "/".into(),
    };
    let program = worker(bench, "program", &all_of(program)).await;
    let ids = export(bench, COMPANY, 5).await;
    re_export(bench, &ids[4]).await;
    for one in [deliver, &list, &program] {
        drain(one).await;
    }
    let offered = bench
        .store()
        .listed(destination_name("list"), 0, 100, 1 << 20);
    let offered: Vec<(String, String)> = offered
        .await
        .expect("a list")
        .into_iter()
        .map(|one| (one.delivery.document_id, one.delivery.version))
        .collect();
    assert_eq!(offered, ledger.versions());
    assert_eq!(row(bench, "program").await.delivered, 5);
}

/// A destination of this kind that is given everything.
pub(crate) fn all_of(kind: DestinationKind) -> DestinationConfig {
    DestinationConfig {
        history: HistoryMode::Deliver,
        ..DestinationConfig::of(kind)
    }
}
