//! What a random history may hold.

use std::fmt;

use ivesk_webhook::emulator::{Fault, FaultKind};
use proptest::prelude::*;

/// How the vendor pages and writes in one history.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Positions {
    pub(crate) from: &'static str,
    pub(crate) last_page_next: &'static str,
    pub(crate) page_edge: &'static str,
    pub(crate) next_form: &'static str,
    pub(crate) company_in: &'static str,
    pub(crate) company_code: &'static str,
    pub(crate) null_fields: &'static str,
    pub(crate) re_export: &'static str,
    /// The smallest: the vendor says "~100", so it may change.
    pub(crate) page_size: usize,
}

impl Positions {
    /// The largest group of equal timestamps that this paging can bring across at all.
    pub(crate) fn most_ties(self) -> usize {
        match (self.page_edge, self.from, self.next_form) {
            ("whole", "exclusive", _) => 9,
            // Nothing in the page tells that `next` is the moment of its last documents.
            ("split", "exclusive", "number") => 1,
            ("split", "exclusive", _) => self.page_size,
            _ => self.page_size - 1,
        }
    }

    pub(crate) fn companies(self) -> usize {
        if self.company_in == "none" { 1 } else { 2 }
    }
}

impl fmt::Display for Positions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            from,
            last_page_next,
            page_edge,
            next_form,
            company_in,
            company_code,
            null_fields,
            re_export,
            page_size,
        } = self;
        write!(
            f,
            "from={from},last_page_next={last_page_next},page_edge={page_edge},\
             next_form={next_form},company_in={company_in},company_code={company_code},\
             null_fields={null_fields},re_export={re_export},page_size={page_size}"
        )
    }
}

/// What becomes of a notification.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Heard {
    AtOnce,
    Twice,
    /// With [`Operation::LateHints`], the newest first.
    Late,
    Never,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Trouble {
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

impl Trouble {
    pub(crate) fn fault(self) -> Fault {
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

/// One thing that happens. Numbers beyond what there is are taken modulo.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Operation {
    Export {
        company: usize,
        count: usize,
        ties: usize,
        lag_s: u64,
        heard: Heard,
    },
    ReExport {
        document: usize,
        heard: Heard,
    },
    Digitize {
        company: usize,
        count: usize,
        heard: Heard,
    },
    Hint {
        company: usize,
    },
    LateHints,
    Trouble {
        trouble: Trouble,
        times: u32,
    },
    TroubleEnds,
    /// Pages hold so many more than the history's smallest from now on.
    PageSize {
        more: usize,
    },
    Step,
    StepOfAnother,
    /// A step that is dropped while its request is under way.
    DroppedStep,
    Settle,
    Restart,
    /// The service works on meanwhile.
    Pass {
        minutes: u64,
    },
    /// The service doesn't run meanwhile.
    Down {
        minutes: u64,
    },
}

pub(crate) fn positions() -> impl Strategy<Value = Positions> {
    let either = |a, b| prop_oneof![Just(a), Just(b)];
    (
        either("inclusive", "exclusive"),
        either("present", "absent"),
        either("whole", "split"),
        prop_oneof![2 => Just("time"), 1 => Just("offset"), 1 => Just("number")],
        prop_oneof![Just("path"), Just("query"), Just("prefix"), Just("none")],
        either("text", "number"),
        either("off", "on"),
        prop_oneof![2 => Just("adds"), 1 => Just("moves"), 1 => Just("keeps")],
        3_usize..=8,
    )
        .prop_map(
            |(
                from,
                last_page_next,
                page_edge,
                next_form,
                company_in,
                company_code,
                null_fields,
                re_export,
                page_size,
            )| Positions {
                from,
                last_page_next,
                page_edge,
                next_form,
                company_in,
                company_code,
                null_fields,
                re_export,
                page_size,
            },
        )
}

pub(crate) fn heard() -> impl Strategy<Value = Heard> {
    prop_oneof![
        4 => Just(Heard::AtOnce),
        1 => Just(Heard::Twice),
        1 => Just(Heard::Late),
        2 => Just(Heard::Never),
    ]
}

pub(crate) fn trouble() -> impl Strategy<Value = Trouble> {
    prop_oneof![
        4 => Just(Trouble::ServerError),
        4 => Just(Trouble::TruncatedJson),
        4 => Just(Trouble::HtmlPage),
        4 => Just(Trouble::BrokenBody),
        4 => Just(Trouble::TooManyRequests),
        2 => Just(Trouble::Unauthorized),
        2 => Just(Trouble::Forbidden),
        2 => Just(Trouble::NotFound),
        1 => Just(Trouble::Hang),
    ]
}

pub(crate) fn operation() -> impl Strategy<Value = Operation> {
    let lag_s = prop_oneof![3 => Just(0), 1 => 1_u64..600];
    prop_oneof![
        8 => (0_usize..2, 1_usize..=20, 1_usize..=9, lag_s, heard()).prop_map(
            |(company, count, ties, lag_s, heard)| {
                Operation::Export { company, count, ties, lag_s, heard }
            }
        ),
        2 => (0_usize..50, heard()).prop_map(|(document, heard)| {
            Operation::ReExport { document, heard }
        }),
        2 => (0_usize..2, 1_usize..=12, heard()).prop_map(|(company, count, heard)| {
            Operation::Digitize { company, count, heard }
        }),
        1 => (0_usize..2).prop_map(|company| Operation::Hint { company }),
        1 => Just(Operation::LateHints),
        3 => (trouble(), 1_u32..3).prop_map(|(trouble, times)| {
            Operation::Trouble { trouble, times }
        }),
        1 => Just(Operation::TroubleEnds),
        3 => (0_usize..=6).prop_map(|more| Operation::PageSize { more }),
        6 => Just(Operation::Step),
        2 => Just(Operation::StepOfAnother),
        2 => Just(Operation::DroppedStep),
        3 => Just(Operation::Settle),
        1 => Just(Operation::Restart),
        4 => (0_u64..90).prop_map(|minutes| Operation::Pass { minutes }),
        1 => (0_u64..4_000).prop_map(|minutes| Operation::Down { minutes }),
    ]
}

/// What happened, a line each, and how it ended.
pub(crate) fn tell(positions: Positions, history: &[Operation], error: &str) -> String {
    let lines: Vec<String> = history
        .iter()
        .enumerate()
        .map(|(number, operation)| format!("  {:>2}. {operation:?}", number + 1))
        .collect();
    format!("{error}\n{positions}\n{}", lines.join("\n"))
}
