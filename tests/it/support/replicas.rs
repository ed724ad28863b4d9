//! Replicas that share a PostgreSQL database.

use std::net::SocketAddr;
use std::time::Duration;

use ivesk_webhook::domain::Event;
use ivesk_webhook::emulator::Control;
use ivesk_webhook::store::Store;

use crate::support::databases::Database;
use crate::support::process::{Installation, Server, subscribe};

/// Shorter than the default, so that another replica soon takes over from a dead one.
pub(crate) const LEASE: Duration = Duration::from_secs(3);

/// Returns settings that replicas share.
pub(crate) fn sections(url: &str) -> String {
    format!(
        "[store]\nurl = \"{url}\"\n[pull]\nlease = \"{}s\"\nreconcile_every = \"2s\"\n",
        LEASE.as_secs()
    )
}

/// Starts a replica with a short timeout for the vendor's API.
pub(crate) fn spawn_replica(replica: &Installation) -> Server {
    let mut command = replica.command(&["serve"]);
    command.env("IVESK_WEBHOOK_API_TIMEOUT", "2s");
    Server::spawn(command)
}

/// Subscribes both webhooks at `balancer`, and waits until a replica has confirmed them.
pub(crate) async fn subscribe_at(control: &Control, balancer: SocketAddr) {
    let targets = [Event::OnExported, Event::OnDigitized]
        .map(|event| (event, format!("http://{balancer}/webhooks/default/{event}")));
    subscribe(control, targets).await;
}

/// Opens the store for reading.
pub(crate) async fn open_reader(database: &Database) -> Store {
    let store = Store::open_for_reading(&database.url()).await;
    store.expect("the store is readable")
}
