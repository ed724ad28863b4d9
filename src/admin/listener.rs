//! The accept loops of the admin listener and its socket: limits on connections, addresses and time.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use tracing::{debug, warn};

use super::socket::AdminSocket;
use crate::receiver::stalled::WriteDeadline;

/// Most connections at once; the next one waits to be accepted.
const MAX_CONNECTIONS: usize = 128;

/// Most connections of one address at once; further ones are closed, so that nobody takes all
/// of [`MAX_CONNECTIONS`] alone.
const MAX_CONNECTIONS_OF_ADDRESS: usize = 48;

/// Longest request head, in bytes.
const MAX_HEAD_BYTES: usize = 32 * 1024;

/// Pause when the system has no more sockets.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Longest time for requests in progress once the listener stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// The other end of a connection to the admin API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdminPeer {
    /// A user of this machine who may connect to the socket.
    Local {
        /// The user's number.
        uid: u32,
    },
    /// Another host, or a program of this one that used the port.
    Network(IpAddr),
}

impl AdminPeer {
    /// Returns this process as the sender of its own requests.
    pub fn this_process() -> Self {
        Self::Local {
            uid: rustix::process::geteuid().as_raw(),
        }
    }

    /// Returns the address of a peer on the network.
    pub(super) fn address(self) -> Option<IpAddr> {
        match self {
            Self::Local { .. } => None,
            Self::Network(address) => Some(address),
        }
    }
}

/// Answers requests on `listener` with `routes` until `stop` is canceled. Each request has its
/// [`AdminPeer`] among its extensions.
///
/// `header_timeout` is the longest time for a request's head, for an idle connection between
/// two requests, and for a response that the client does not read.
pub async fn serve(
    listener: TcpListener,
    header_timeout: Duration,
    routes: Router,
    stop: CancellationToken,
) {
    let mut connections = Connections::new(header_timeout, routes);
    let addresses = Arc::new(Addresses::default());
    while let Some(slot) = stop.run_until_cancelled(connections.slot()).await {
        let accepted = accept(|| listener.accept());
        let Some((stream, peer)) = stop.run_until_cancelled(accepted).await else {
            break;
        };
        let address = peer.ip().to_canonical();
        let Some(place) = addresses.enter(address) else {
            debug!("closed a connection: its address has {MAX_CONNECTIONS_OF_ADDRESS} already");
            continue;
        };
        // Without it a response may wait 40 ms for the client's next packet. This fails only
        // if the socket is closed already.
        let _ = stream.set_nodelay(true);
        connections.spawn(stream, AdminPeer::Network(address), (slot, place));
    }
    drop(listener);
    connections.finish().await;
}

/// Answers requests on `socket`, as [`serve`] does.
pub async fn serve_local(
    socket: AdminSocket,
    header_timeout: Duration,
    routes: Router,
    stop: CancellationToken,
) {
    let mut connections = Connections::new(header_timeout, routes);
    while let Some(slot) = stop.run_until_cancelled(connections.slot()).await {
        let accepted = accept(|| socket.listener.accept());
        let Some((stream, _)) = stop.run_until_cancelled(accepted).await else {
            break;
        };
        // The system reports the user as of the connect.
        match stream.peer_cred() {
            Ok(user) => connections.spawn(stream, AdminPeer::Local { uid: user.uid() }, slot),
            Err(error) => warn!(%error, "closed a connection to the socket: its user is unknown"),
        }
    }
    drop(socket);
    connections.finish().await;
}

/// The open connections of one listener.
struct Connections {
    header_timeout: Duration,
    routes: Router,
    slots: Arc<Semaphore>,
    open: GracefulShutdown,
    cut_off: CancellationToken,
}

impl Connections {
    fn new(header_timeout: Duration, routes: Router) -> Self {
        Self {
            header_timeout,
            routes,
            slots: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            open: GracefulShutdown::new(),
            cut_off: CancellationToken::new(),
        }
    }

    /// Waits until there is room for another connection.
    async fn slot(&self) -> Option<OwnedSemaphorePermit> {
        // The semaphore is never closed.
        Arc::clone(&self.slots).acquire_owned().await.ok()
    }

    /// Answers the requests of a connection; `held` is dropped when it ends.
    fn spawn<S>(&mut self, stream: S, peer: AdminPeer, held: impl Send + 'static)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let routes = self.routes.clone();
        let service = service_fn(move |mut request: hyper::Request<Incoming>| {
            request.extensions_mut().insert(peer);
            routes.clone().oneshot(request.map(Body::new))
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.header_timeout)
            .max_buf_size(MAX_HEAD_BYTES)
            .serve_connection(
                TokioIo::new(WriteDeadline::new(stream, self.header_timeout)),
                service,
            );
        let connection = self.open.watch(connection);
        let cut_off = self.cut_off.clone();
        tokio::spawn(async move {
            let _held = held;
            // Clients that disconnect or are too slow are no fault of the service.
            if let Some(Err(error)) = cut_off.run_until_cancelled(connection).await {
                debug!(%error, "a connection to the admin listener ended early");
            }
        });
    }

    /// Lets requests in progress finish, for a while.
    async fn finish(self) {
        let _ = tokio::time::timeout(DRAIN_TIMEOUT, self.open.shutdown()).await;
        self.cut_off.cancel();
    }
}

/// Returns the next connection; errors of the system are logged and retried.
async fn accept<T, F>(mut next: impl FnMut() -> F) -> T
where
    F: Future<Output = std::io::Result<T>>,
{
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    loop {
        match next().await {
            Ok(connection) => return connection,
            // The error of one connection.
            Err(error)
                if matches!(
                    error.kind(),
                    ConnectionRefused | ConnectionAborted | ConnectionReset
                ) => {}
            Err(error) => {
                warn!(
                    %error,
                    "failed to accept a connection, perhaps for too many open files; retrying in {ACCEPT_PAUSE:?}"
                );
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The number of connections of each address.
#[derive(Default)]
struct Addresses(Mutex<BTreeMap<IpAddr, usize>>);

impl Addresses {
    /// Adds a connection of `address`; `None` if it has [`MAX_CONNECTIONS_OF_ADDRESS`].
    fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let address = network_of(address);
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(address).or_default();
        if *count >= MAX_CONNECTIONS_OF_ADDRESS {
            return None;
        }
        *count += 1;
        Some(Place {
            addresses: Arc::clone(self),
            address,
        })
    }
}

/// The place of one connection, free again when it is dropped.
struct Place {
    addresses: Arc<Addresses>,
    address: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self
            .addresses
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.address);
            }
        }
    }
}

/// Returns the address by which a client is counted: for IPv6 its network of 64 bits, within
/// which one host may choose any address.
pub(super) fn network_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_can_not_take_every_place() {
        let addresses = Arc::new(Addresses::default());
        let stranger: IpAddr = "2001:db8::1".parse().expect("an address");
        let neighbor: IpAddr = "2001:db8::2".parse().expect("an address");
        let other: IpAddr = "192.0.2.1".parse().expect("an address");
        let mut places: Vec<Place> = (0..MAX_CONNECTIONS_OF_ADDRESS)
            .map(|_| addresses.enter(stranger).expect("there is room"))
            .collect();
        assert!(addresses.enter(stranger).is_none());
        assert!(addresses.enter(neighbor).is_none(), "the same network");
        assert!(addresses.enter(other).is_some());

        places.pop();
        assert!(addresses.enter(stranger).is_some());
        places.clear();
        let open = addresses.0.lock().expect("never poisoned");
        assert!(open.is_empty(), "{open:?}");
    }
}
