//! Tells the service manager that `serve` is ready, alive, or stopping, as `sd_notify(3)` describes.
//!
//! One datagram for each of three words needs no library.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tracing::warn;

/// The service manager that started this process, or none.
#[derive(Clone, Debug, Default)]
pub(super) struct Supervisor {
    socket: Option<String>,
    watchdog: Option<Duration>,
}

impl Supervisor {
    /// Reads the variables that systemd sets for a unit with `Type=notify` and `WatchdogSec=`.
    pub(super) fn of(environment: &BTreeMap<String, String>) -> Self {
        let microseconds = environment
            .get("WATCHDOG_USEC")
            .and_then(|text| text.parse().ok())
            .filter(|&microseconds| microseconds > 0);
        Self {
            socket: environment.get("NOTIFY_SOCKET").cloned(),
            watchdog: microseconds.map(Duration::from_micros),
        }
    }

    /// Reports that the service is ready, and from then on that it is alive: twice in the time after which the manager
    /// would restart it. A runtime that hangs does not report.
    pub(super) fn ready(&self) {
        self.tell("READY=1");
        let (Some(_), Some(watchdog)) = (&self.socket, self.watchdog) else {
            return;
        };
        let supervisor = self.clone();
        tokio::spawn(async move {
            let mut beat = interval(watchdog / 2);
            beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                beat.tick().await;
                supervisor.tell("WATCHDOG=1");
            }
        });
    }

    /// Reports that the service has begun to stop.
    pub(super) fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    fn tell(&self, word: &str) {
        if let Some(socket) = &self.socket
            && let Err(error) = send(socket, word)
        {
            warn!("failed to tell the service manager {word}: {error}");
        }
    }
}

/// Sends a word, without waiting for a manager that does not read.
fn send(socket: &str, word: &str) -> io::Result<()> {
    let datagram = UnixDatagram::unbound()?;
    datagram.set_nonblocking(true)?;
    // `@` stands for the zero byte of a name that is in no folder.
    #[cfg(target_os = "linux")]
    if let Some(name) = socket.strip_prefix('@') {
        use std::os::linux::net::SocketAddrExt as _;
        use std::os::unix::net::SocketAddr;

        let address = SocketAddr::from_abstract_name(name)?;
        return datagram.send_to_addr(word.as_bytes(), &address).map(drop);
    }
    datagram.send_to(word.as_bytes(), socket).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn supervisor(variables: &[(&str, &str)]) -> Supervisor {
        let pairs = variables.iter();
        Supervisor::of(
            &pairs
                .map(|&(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
        )
    }

    /// Returns the next word that a manager with this socket has got.
    fn heard(manager: &UnixDatagram) -> String {
        let mut word = [0; 64];
        let length = manager.recv(&mut word).expect("a word");
        String::from_utf8_lossy(&word[..length]).into_owned()
    }

    #[tokio::test(start_paused = true)]
    async fn a_manager_hears_ready_then_alive_then_stopping() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).expect("free");
        let path = path.to_str().expect("UTF-8");
        let supervisor = supervisor(&[("NOTIFY_SOCKET", path), ("WATCHDOG_USEC", "30000000")]);

        supervisor.ready();
        assert_eq!(heard(&manager), "READY=1");
        tokio::task::yield_now().await;
        assert_eq!(heard(&manager), "WATCHDOG=1");
        tokio::time::advance(Duration::from_secs(15)).await;
        tokio::task::yield_now().await;
        assert_eq!(heard(&manager), "WATCHDOG=1", "twice in 30 seconds");
        supervisor.stopping();
        assert_eq!(heard(&manager), "STOPPING=1");
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_managers_socket_may_be_in_no_folder() {
        use std::os::linux::net::SocketAddrExt as _;
        use std::os::unix::net::SocketAddr;

        let name = format!("ivesk-webhook-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        let manager = UnixDatagram::bind_addr(&address).expect("free");

        supervisor(&[("NOTIFY_SOCKET", &format!("@{name}"))]).ready();

        assert_eq!(heard(&manager), "READY=1");
    }
}
