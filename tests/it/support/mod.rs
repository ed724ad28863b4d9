//! Set-ups that tests share.

pub(crate) mod app;
pub(crate) mod browser;
pub(crate) mod captured_log;
pub(crate) mod checker;
pub(crate) mod databases;
pub(crate) mod deliveries;
pub(crate) mod destinations;
pub(crate) mod doctor;
pub(crate) mod emulator;
pub(crate) mod fake_sns;
pub(crate) mod faults;
pub(crate) mod ledger;
pub(crate) mod load;
pub(crate) mod plans;
pub(crate) mod process;
pub(crate) mod puller;
pub(crate) mod python;
pub(crate) mod replicas;
pub(crate) mod skip;
#[cfg(target_os = "linux")]
pub(crate) mod small_disk;
pub(crate) mod smtp;
pub(crate) mod sns;
pub(crate) mod stand_in;
pub(crate) mod terminal;
pub(crate) mod wires;
