//! Any history of pages, answers, crashes and waits, judged by the destination's own record.

use std::collections::BTreeMap;

use super::*;

on_both_stores! {
    after_any_history_the_newest_version_came_last,
}

/// Random numbers that a seed determines (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }

    fn choose<T: Copy>(&mut self, of: &[T]) -> T {
        let index = self.below(of.len() as u64);
        of[usize::try_from(index).expect("an index")]
    }
}

/// A worker: its lease, when that ends, and what it may start next.
#[derive(Default)]
struct Worker {
    lease: Option<DeliveryLease>,
    ends_at: Option<Timestamp>,
    ready: Vec<Delivery>,
}

impl Worker {
    fn may_start(&self, now: Timestamp) -> bool {
        self.ends_at.is_some_and(|end| now < end)
    }
}

/// What the destination received of each document: the versions, in order.
type Received = BTreeMap<(String, String), Vec<String>>;

struct History<'s> {
    scene: &'s Scene,
    random: Random,
    workers: [Worker; 2],
    received: Received,
    exported: u32,
    steps: Vec<String>,
}

impl History<'_> {
    async fn step(&mut self) {
        let worker = usize::from(self.random.below(2) == 1);
        match self.random.below(10) {
            0 | 1 => self.page().await,
            2 | 3 => self.lease(worker).await,
            4..=7 => self.deliver(worker).await,
            8 => {
                // A lane that is paused by equal rejections goes on.
                self.scene.change(DestinationChange::Resume).await;
                let seconds = self.random.choose(&[1, 5, 40, 70, 400, 4_000, 90_000]);
                self.steps.push(format!("{seconds} s pass"));
                self.scene.clock.advance(Duration::from_secs(seconds));
            }
            _ => {
                self.steps.push(format!("worker {worker} crashes"));
                self.workers[worker] = Worker::default();
            }
        }
    }

    async fn page(&mut self) {
        let feed = company(self.random.choose(&["1", "2", "3"]));
        let mut documents = Vec::new();
        for _ in 0..=self.random.below(3) {
            self.exported += 1;
            let id = self.random.choose(&["a", "b", "c", "d"]);
            // Now and then one that arrives late.
            let late = u32::from(self.random.below(5) == 0) * 7;
            let second = (self.exported + 10).saturating_sub(late);
            let version = format!("2026-10-01T{:02}:{:02}:00", second / 60 % 24, second % 60);
            documents.push((id, version));
        }
        self.steps.push(format!("a page of {feed}: {documents:?}"));
        let documents: Vec<(&str, &str)> = documents.iter().map(|(id, v)| (*id, &**v)).collect();
        self.scene.pull(&feed, &documents).await;
    }

    async fn lease(&mut self, worker: usize) {
        let limit = self.random.choose(&[1, 3, 100]);
        let now = self.scene.clock.now();
        if let Some(mut lease) = self.scene.lease_with(|one| one.limit = limit).await {
            let ready = std::mem::take(&mut lease.deliveries);
            self.steps
                .push(format!("worker {worker} leases {:?}", names(&ready)));
            self.workers[worker] = Worker {
                lease: Some(lease),
                ends_at: Some(now.after(LEASE)),
                ready,
            };
        }
    }

    /// Delivers one version, and tells the store, or not.
    async fn deliver(&mut self, worker: usize) {
        let now = self.scene.clock.now();
        let one = &mut self.workers[worker];
        let (Some(lease), true) = (one.lease.clone(), one.may_start(now)) else {
            return;
        };
        let mut attempts = Vec::new();
        if !one.ready.is_empty() {
            let delivery = one.ready.remove(0);
            let name = names(std::slice::from_ref(&delivery)).remove(0);
            let outcome = match self.random.below(8) {
                0 => DeliveryOutcome::Unavailable {
                    error: "HTTP 500".to_owned(),
                    retry_after: None,
                },
                1 => rejected(&format!("no {}", self.exported)),
                2 => DeliveryOutcome::LinkExpired,
                _ => DELIVERED,
            };
            self.steps.push(format!("{name}: {outcome:?}"));
            if matches!(
                outcome,
                DeliveryOutcome::Delivered { .. } | DeliveryOutcome::Rejected { .. }
            ) {
                let key = (delivery.feed.to_string(), delivery.document_id.clone());
                let versions = self.received.entry(key).or_default();
                versions.push(delivery.version.clone());
            }
            attempts.push(self.scene.attempt(&delivery, outcome));
        }
        if self.random.below(10) == 0 {
            self.steps.push("its answer is lost".to_owned());
            self.workers[worker] = Worker::default();
            return;
        }
        let mut request = self.scene.request();
        request.limit = self.random.choose(&[1, 3, 100]);
        let store = &self.scene.store;
        let continued = store.continue_deliveries(lease, attempts, Vec::new(), request);
        let one = &mut self.workers[worker];
        match continued.await {
            Ok(continued) => {
                one.ends_at = Some(now.after(LEASE));
                one.ready = continued.deliveries;
            }
            Err(StoreError::StaleLease) => *one = Worker::default(),
            Err(error) => panic!("{error}"),
        }
    }

    /// Lets everything be accepted, and asserts what the destination has received.
    async fn assert_received(&mut self, seed: u64) {
        self.workers = Default::default();
        for _ in 0..40 {
            self.scene.clock.advance(25 * HOUR);
            self.scene.change(DestinationChange::Resume).await;
            while let Some(lease) = self.scene.lease().await {
                let attempts = lease.deliveries.iter().map(|delivery| {
                    let key = (delivery.feed.to_string(), delivery.document_id.clone());
                    let versions = self.received.entry(key).or_default();
                    versions.push(delivery.version.clone());
                    self.scene.attempt(delivery, DELIVERED)
                });
                let attempts = attempts.collect();
                self.scene.end(lease, attempts).await;
            }
        }
        let steps = self.steps.join("\n");
        let all = DocumentFilter {
            limit: 10_000,
            ..DocumentFilter::default()
        };
        let rows = self.scene.store.documents(all).await.expect("readable");
        for row in rows.iter().filter(|row| !row.superseded) {
            let key = (row.feed.to_string(), row.document_id.clone());
            let versions = self.received.get(&key).cloned().unwrap_or_default();
            assert!(
                versions.is_sorted(),
                "seed {seed}: {key:?}: {versions:?}\n{steps}"
            );
            assert_eq!(
                versions.last(),
                Some(&row.version),
                "seed {seed}: {key:?}\n{steps}"
            );
        }
        let row = self.scene.destination().await;
        assert_eq!(
            (row.waiting, row.deferred, row.waiting_file),
            (0, 0, 0),
            "{seed}"
        );
    }
}

async fn after_any_history_the_newest_version_came_last(database: Database) {
    let scene = Scene::new(database).await;
    let mut history = History {
        scene: &scene,
        random: Random(1),
        workers: Default::default(),
        received: Received::new(),
        exported: 0,
        steps: Vec::new(),
    };
    for seed in 1..=8_u64 {
        history.random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        history.steps.clear();
        for _ in 0..150 {
            history.step().await;
        }
        history.assert_received(seed).await;
    }
}
