//! Random operations and switches of the vendor.

use std::fmt;

use ivesk_webhook::emulator::{Fault, FaultKind};
use proptest::prelude::*;

/// Switches of the vendor, with their positions; a repeated one is more likely.
const SWITCHES: [(&str, &[&str]); 8] = [
    ("from", &["inclusive", "exclusive"]),
    ("last_page_next", &["present", "absent"]),
    ("page_edge", &["whole", "split"]),
    ("next_form", &["time", "time", "offset", "number"]),
    ("company_in", &["path", "query", "prefix", "none"]),
    ("company_code", &["text", "number"]),
    ("null_fields", &["off", "on"]),
    ("re_export", &["adds", "adds", "moves", "keeps"]),
];

/// Positions of [`SWITCHES`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Positions {
    chosen: [usize; SWITCHES.len()],
    /// The smallest page: the vendor says "~100", so it may vary.
    pub(crate) page_size: usize,
}

impl Positions {
    /// Returns the position of a switch.
    pub(crate) fn of(self, switch: &str) -> &'static str {
        let switches = self.switches();
        let found = switches.into_iter().find(|(name, _)| *name == switch);
        found.expect("a switch of the table").1
    }

    fn switches(self) -> Vec<(&'static str, &'static str)> {
        let chosen = SWITCHES.iter().zip(self.chosen);
        chosen
            .map(|((name, positions), index)| (*name, positions[index % positions.len()]))
            .collect()
    }

    /// Returns the largest group of equal timestamps that this paging can pass at all.
    pub(crate) fn most_ties(self) -> usize {
        match (self.of("page_edge"), self.of("from"), self.of("next_form")) {
            ("whole", "exclusive", _) => 9,
            // Nothing in the page shows that `next` is the moment of its last documents.
            ("split", "exclusive", "number") => 1,
            ("split", "exclusive", _) => self.page_size,
            _ => self.page_size - 1,
        }
    }

    pub(crate) fn companies(self) -> usize {
        if self.of("company_in") == "none" {
            1
        } else {
            2
        }
    }
}

impl fmt::Display for Positions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (switch, position) in self.switches() {
            write!(f, "{switch}={position},")?;
        }
        write!(f, "page_size={}", self.page_size)
    }
}

/// The fate of a notification.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Notified {
    AtOnce,
    Twice,
    /// With [`Operation::LateNotifications`], the newest first.
    Late,
    Never,
}

/// A fault of the vendor.
#[derive(Clone, Copy, Debug)]
pub(crate) enum VendorFault {
    ServerError,
    TruncatedJson,
    HtmlPage,
    BrokenBody,
    TooManyRequests,
    Unauthorized,
    Forbidden,
    NotFound,
    Hang,
}

impl VendorFault {
    pub(crate) fn to_fault(self) -> Fault {
        match self {
            Self::ServerError => Fault::status(500),
            Self::TruncatedJson => Fault::new(FaultKind::TruncatedJson),
            Self::HtmlPage => Fault::new(FaultKind::HtmlPage),
            Self::BrokenBody => Fault::new(FaultKind::BrokenBody),
            Self::TooManyRequests => Fault::status_retry_after(429, "120"),
            Self::Unauthorized => Fault::status(401),
            Self::Forbidden => Fault::status(403),
            Self::NotFound => Fault::status(404),
            Self::Hang => Fault::new(FaultKind::Hang),
        }
    }
}

/// One operation. Numbers beyond the existing ones are taken modulo.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Operation {
    Export {
        company: usize,
        count: usize,
        ties: usize,
        lag_s: u64,
        notified: Notified,
    },
    ReExport {
        document: usize,
        notified: Notified,
    },
    Digitize {
        company: usize,
        count: usize,
        notified: Notified,
    },
    Notification {
        company: usize,
    },
    LateNotifications,
    Fault {
        fault: VendorFault,
        times: u32,
    },
    FaultsEnd,
    /// Enlarges later pages beyond the smallest.
    PageSize {
        more: usize,
    },
    Step,
    StepOfOther,
    /// A step that is dropped while its request is in flight.
    DroppedStep,
    Settle,
    Restart,
    /// Time passes while the service runs.
    Pass {
        minutes: u64,
    },
    /// Time passes while the service is down.
    Down {
        minutes: u64,
    },
}

pub(crate) fn positions() -> impl Strategy<Value = Positions> {
    (prop::array::uniform8(0_usize..4), 3_usize..=8)
        .prop_map(|(chosen, page_size)| Positions { chosen, page_size })
}

fn notified() -> impl Strategy<Value = Notified> {
    prop_oneof![
        4 => Just(Notified::AtOnce),
        1 => Just(Notified::Twice),
        1 => Just(Notified::Late),
        2 => Just(Notified::Never),
    ]
}

fn fault() -> impl Strategy<Value = VendorFault> {
    prop_oneof![
        4 => Just(VendorFault::ServerError),
        4 => Just(VendorFault::TruncatedJson),
        4 => Just(VendorFault::HtmlPage),
        4 => Just(VendorFault::BrokenBody),
        4 => Just(VendorFault::TooManyRequests),
        2 => Just(VendorFault::Unauthorized),
        2 => Just(VendorFault::Forbidden),
        2 => Just(VendorFault::NotFound),
        1 => Just(VendorFault::Hang),
    ]
}

pub(crate) fn operation() -> impl Strategy<Value = Operation> {
    let lag_s = prop_oneof![3 => Just(0), 1 => 1_u64..600];
    prop_oneof![
        8 => (0_usize..2, 1_usize..=20, 1_usize..=9, lag_s, notified()).prop_map(
            |(company, count, ties, lag_s, notified)| {
                Operation::Export { company, count, ties, lag_s, notified }
            }
        ),
        2 => (0_usize..50, notified()).prop_map(|(document, notified)| {
            Operation::ReExport { document, notified }
        }),
        2 => (0_usize..2, 1_usize..=12, notified()).prop_map(|(company, count, notified)| {
            Operation::Digitize { company, count, notified }
        }),
        1 => (0_usize..2).prop_map(|company| Operation::Notification { company }),
        1 => Just(Operation::LateNotifications),
        3 => (fault(), 1_u32..3).prop_map(|(fault, times)| {
            Operation::Fault { fault, times }
        }),
        1 => Just(Operation::FaultsEnd),
        3 => (0_usize..=6).prop_map(|more| Operation::PageSize { more }),
        6 => Just(Operation::Step),
        2 => Just(Operation::StepOfOther),
        2 => Just(Operation::DroppedStep),
        3 => Just(Operation::Settle),
        1 => Just(Operation::Restart),
        4 => (0_u64..90).prop_map(|minutes| Operation::Pass { minutes }),
        1 => (0_u64..4_000).prop_map(|minutes| Operation::Down { minutes }),
    ]
}

/// Returns the error, the positions and the operations, one a line.
pub(crate) fn describe(positions: Positions, operations: &[Operation], error: &str) -> String {
    let lines: Vec<String> = operations
        .iter()
        .enumerate()
        .map(|(number, operation)| format!("  {:>2}. {operation:?}", number + 1))
        .collect();
    format!("{error}\n{positions}\n{}", lines.join("\n"))
}
