//! Emulators for tests.

use ivesk_webhook::emulator::{Emulator, EmulatorSettings, Switches};

/// Starts an emulator with these switches on a free port.
pub(crate) async fn emulator(switches: &str) -> Emulator {
    emulator_with(EmulatorSettings {
        switches: Switches::parse(switches).expect("switches that exist"),
        ..EmulatorSettings::default()
    })
    .await
}

/// Starts an emulator with these settings on a free port.
pub(crate) async fn emulator_with(settings: EmulatorSettings) -> Emulator {
    let started = Emulator::start(settings, ([127, 0, 0, 1], 0).into()).await;
    started.expect("a free port")
}
