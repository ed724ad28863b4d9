//! Load: events at the vendor, forged messages.

use std::collections::BTreeSet;

use ivesk_webhook::domain::Event;
use ivesk_webhook::emulator::{
    Control, DEFAULT_COMPANIES, DEFAULT_KEY, Endpoint, Publication, Selection, Tamper,
};

use crate::support::process::{Installation, within};

/// Causes one event of each kind: confirmations, exported and digitized documents with their
/// notifications, a duplicate and a forged message.
pub(crate) async fn one_of_each(control: &Control, installation: &Installation) {
    installation
        .subscribe(control, &[Event::OnExported, Event::OnDigitized])
        .await;
    let company = DEFAULT_COMPANIES[0];
    control.export(company, 3_usize).expect("a known company");
    control
        .digitize(DEFAULT_KEY, company, 2)
        .expect("a known company");
    let twice = Publication {
        copies: 2,
        ..Publication::exported(company)
    };
    control.notify(&twice).expect("the account exists");
    let forged = Publication {
        tamper: Tamper::Message,
        ..Publication::exported(company)
    };
    control.notify(&forged).expect("the account exists");
    within("the messages", control.idle()).await;
    within("both queues' pages", async {
        control.requests_reached(Endpoint::Exported, 2).await;
        control.requests_reached(Endpoint::Digitized, 2).await;
    })
    .await;
}

/// A random number generator that its seed fully determines (SplitMix64).
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Returns a number from 0 to `below - 1`.
    pub(crate) fn below(&mut self, below: u64) -> u64 {
        self.next() % below
    }

    /// [`Rng::below`] for counts and indexes.
    pub(crate) fn index(&mut self, below: usize) -> usize {
        usize::try_from(self.below(below as u64)).expect("small")
    }
}

/// Reads a number from the environment.
pub(crate) fn number_from(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable} is no number")),
    )
}

/// Returns `IVESK_WEBHOOK_TEST_SEED`, or a random seed.
pub(crate) fn seed() -> u64 {
    number_from("IVESK_WEBHOOK_TEST_SEED")
        .unwrap_or_else(|| getrandom::u64().expect("random bytes"))
}

/// Returns `IVESK_WEBHOOK_TEST_KILLS`, or `default`.
pub(crate) fn kills(default: usize) -> usize {
    number_from("IVESK_WEBHOOK_TEST_KILLS")
        .map_or(default, |kills| usize::try_from(kills).expect("small"))
}

/// Random events at the vendor: exports, digitized documents, copies, forgeries.
pub(crate) struct Load {
    control: Control,
    pub(crate) forged: BTreeSet<String>,
    exported: Vec<String>,
}

impl Load {
    pub(crate) fn new(control: Control) -> Self {
        Self {
            control,
            forged: BTreeSet::new(),
            exported: Vec::new(),
        }
    }

    /// Causes a burst of random events.
    pub(crate) fn burst(&mut self, rng: &mut Rng) {
        for _ in 0..8 + rng.below(24) {
            self.event(rng);
        }
    }

    fn event(&mut self, rng: &mut Rng) {
        let company = DEFAULT_COMPANIES[rng.index(DEFAULT_COMPANIES.len())];
        match rng.below(12) {
            0..=3 => self.export(company, 1 + rng.index(4)),
            4..=6 => {
                let digitized = self
                    .control
                    .digitize(DEFAULT_KEY, company, 1 + rng.index(3));
                digitized.expect("a known company");
            }
            7 => {
                // An export that no notification announces: reconciliation finds it.
                self.control.lose_next_notifications(1);
                self.export(company, 1);
            }
            8 => self.re_export(rng),
            9 | 10 => {
                let copies = Publication {
                    copies: 2 + rng.index(4),
                    ..Publication::exported(company)
                };
                self.control.notify(&copies).expect("the account exists");
            }
            _ => self.forge(company, rng),
        }
    }

    fn export(&mut self, company: &str, count: usize) {
        let exported = self.control.export(company, Selection::Next(count));
        let exported = exported.expect("a known company");
        self.exported.extend(exported.into_iter().map(|(id, _)| id));
    }

    fn re_export(&mut self, rng: &mut Rng) {
        if self.exported.is_empty() {
            return;
        }
        let id = &self.exported[rng.index(self.exported.len())];
        self.control.re_export(id).expect("a known document");
    }

    fn forge(&mut self, company: &str, rng: &mut Rng) {
        let plain = Publication::exported(company);
        let forged = match rng.below(3) {
            0 => Publication {
                tamper: Tamper::Signature,
                ..plain
            },
            1 => Publication {
                tamper: Tamper::Message,
                ..plain
            },
            _ => Publication {
                topic_arn: Some("arn:aws:sns:eu-west-1:111122223333:DPWebHook_onexport".to_owned()),
                ..plain
            },
        };
        let id = self.control.notify(&forged).expect("the account exists");
        self.forged.insert(id);
    }
}
