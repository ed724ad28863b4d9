//! `ivesk-webhook` connects a company's own software to Įvesk.lt.
//!
//! Data flows one way. The receiver, the puller and the delivery workers meet in the
//! store; none calls another:
//!
//! ```text
//! SNS -> receiver -> store <- pull <- Įvesk.lt
//!                    store -> delivery -> destinations
//! ```
//!
//! # Rooms
//!
//! Rooms that run:
//!
//! - [`cli`]: one file for each command: wiring and printing only.
//! - [`service`]: everything that `serve` runs: listeners, workers, housekeeping.
//! - [`app`]: the handles that `service`, `admin` and `cli` share.
//! - [`admin`]: the admin listener: API and status page.
//! - [`api`]: requests and responses of the admin API: the contract of server, commands and pages.
//! - [`receiver`]: the public listener, which accepts SNS messages.
//! - [`subscriptions`]: confirms, approves and restores SNS subscriptions.
//! - [`pull`]: pulls feeds: triggers, pages, reconciliation.
//! - [`delivery`]: delivers documents to destinations, and sends import errors.
//! - [`uploads`]: uploads files to Įvesk.lt, by hand or from a watched folder.
//! - [`alarms`]: notifies people when a problem begins, and again when it ends.
//! - [`doctor`]: finds what keeps an installation from working, and names the fix.
//! - [`erasure`]: erases documents, with their files in the folders of destinations.
//! - [`export`]: writes documents as a table for spreadsheets, and tells which fields they carry.
//! - [`trace`]: traces one document from its upload or first pull to its deliveries.
//! - [`tunnel`]: finds the public address of a tunnel on this machine.
//! - [`otlp`]: exports traces to a collector.
//! - [`emulator`]: Įvesk.lt, SNS and S3 for demos and tests. A crate of its own.
//!
//! Rooms that every other may import:
//!
//! - [`metrics`]: counters and their text form.
//! - [`store`]: all SQL.
//! - [`ivesk`]: Įvesk.lt's REST API. No SQL.
//! - [`config`]: every setting: name, unit, default, environment variable.
//! - [`refusal`]: every reason for refusing a message, with its code and status.
//! - [`unexpected`]: every kind of request that reaches no webhook, with its fix.
//! - [`program`]: runs the programs that the settings name.
//! - [`egress`]: creates the HTTP client of every request to another host.
//! - [`backoff`]: the waits between retries.
//! - [`working_hours`]: working time in Lithuania.
//! - [`domain`]: the words of the project as types, and the clock. No I/O.
//! - [`sns`]: verifies SNS messages and confirms subscriptions. A crate of its own, without
//!   HTTP server and SQL.
//! - [`file_names`]: file names that stay in their folder.
//! - [`private_files`]: files that only this user may read, reached without following links.
//! - [`visible`]: makes the words of others safe to read.
//! - [`hex`]: writes bytes as hexadecimal digits.
//! - [`heaps`]: how many heaps the C library has, and what they keep.
//!
//! # Who imports whom
//!
//! Imports follow these arrows, and no file takes part in a cycle; `.ci/cycles` checks both:
//!
//! ```text
//! cli           -> every room
//! service       -> admin, app, receiver, subscriptions, pull, delivery, uploads, alarms, erasure
//! admin         -> api, app, alarms, doctor, receiver, subscriptions, pull, delivery, erasure, export,
//!                  trace
//! api           -> doctor, subscriptions, pull, erasure, export
//! app           -> receiver, subscriptions
//! doctor        -> receiver, subscriptions, delivery
//! receiver      -> subscriptions
//! alarms        -> subscriptions, receiver, pull, delivery
//! erasure       -> delivery
//! every room    -> metrics, store, ivesk, config, refusal, unexpected, program, egress,
//!                  backoff, working_hours, domain, sns, file_names, private_files, visible, hex, heaps
//! ```
//!
//! Of the rooms that every other may import, each imports only those to its right. The
//! emulator imports [`sns`] alone.
//!
//! Comments that cite "vendor-api" mean `docs/vendor-api.md`: what is known of the
//! vendor, and the register of unknowns U1 to U26.

pub mod admin;
pub mod alarms;
pub mod api;
pub mod app;
pub mod backoff;
pub mod cli;
pub mod config;
pub mod delivery;
pub mod doctor;
pub mod domain;
pub mod egress;
pub mod erasure;
pub mod export;
pub mod file_names;
pub mod heaps;
pub mod hex;
pub mod ivesk;
pub mod metrics;
pub mod otlp;
pub mod private_files;
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
pub mod unexpected;
pub mod uploads;
pub mod visible;
pub mod working_hours;

pub use ivesk_emulator as emulator;
pub use sns_messages as sns;
