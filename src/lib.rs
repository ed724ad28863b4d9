//! `ivesk-webhook` connects a company's own software to Įvesk.lt.
//!
//! Data flows one way: the receiver stores what was proven genuine, the puller
//! stores the documents that it announced, and the `documents` command reads the
//! store. The store is where they meet; none calls another.
//!
//! - [`domain`]: the words of the project as types, and the clock. No I/O.
//! - [`refusal`]: every reason for refusing a message, with its code and status.
//! - [`config`]: every setting: name, unit, default, environment variable.
//! - [`egress`]: the one way out to other hosts.
//! - [`backoff`]: every wait between retries.
//! - [`program`]: runs the programs that the settings name.
//! - [`file_names`]: names of files that stay in their folder.
//! - [`sns`]: verifies SNS messages, confirms subscriptions: a crate of its own, without
//!   HTTP server and SQL.
//! - [`ivesk`]: the vendor's REST API. No SQL.
//! - [`receiver`]: the public listener.
//! - [`subscriptions`]: subscribing, pending confirmations, restore.
//! - [`pull`]: scheduler, page step, reconciliation.
//! - [`delivery`]: destinations, and what comes back from them.
//! - [`uploads`]: giving files to the vendor, a watched folder.
//! - [`trace`]: what became of one document.
//! - [`tunnel`]: the public address of a tunnel on this machine.
//! - [`store`]: all SQL.
//! - [`alarms`]: what a person should know of, told once and once more when it is over.
//! - [`admin`]: the admin listener.
//! - [`emulator`]: Įvesk.lt, SNS and S3 for demos and tests: a crate of its own.
//! - [`metrics`]: what is counted.
//! - [`otlp`]: traces, sent to a collector.
//! - [`doctor`]: what keeps an installation from working, and how to fix it.
//! - [`service`]: everything that `serve` runs, put together.
//! - [`cli`]: one file for each subcommand: wiring and printing only.
//!
//! Comments that cite "vendor-api" mean `docs/vendor-api.md`: what is known of the
//! vendor, and the register of unknowns U1 to U26.

pub mod admin;
pub mod alarms;
pub mod backoff;
#[expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "results go to stdout, progress and errors to stderr"
)]
pub mod cli;
pub mod config;
pub mod delivery;
pub mod doctor;
pub mod domain;
pub mod egress;
pub mod file_names;
pub mod ivesk;
pub mod metrics;
pub mod otlp;
pub mod program;
pub mod pull;
pub mod receiver;
pub mod refusal;
pub mod service;
#[expect(clippy::disallowed_types, reason = "the one place with SQL")]
pub mod store;
pub mod subscriptions;
pub mod trace;
pub mod tunnel;
pub mod uploads;

pub use ivesk_emulator as emulator;
pub use sns_messages as sns;
