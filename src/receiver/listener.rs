//! The accept loop of both listeners: how many connections, how long each may
//! take, and how they end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::caller::Peer;
use super::stalled::WriteDeadline;

/// The longest request head, in bytes; SNS's are under 2 KiB.
const MAX_HEAD_BYTES: usize = 32 * 1024;

/// How long to wait when the system has no more sockets to give.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a listener allows its clients.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once; the next one waits to be accepted.
    pub max_connections: usize,
    /// How long a request's head may take, how long a connection may be idle
    /// between two requests, and how long an answer may wait to be taken.
    pub header_timeout: Duration,
    /// How long requests under way may take once the listener stops.
    pub drain_timeout: Duration,
}

/// An address that can't be listened on.
#[derive(Debug, thiserror::Error)]
#[error("{}; {}", self.found(), self.fix())]
pub struct ListenError {
    setting: &'static str,
    address: SocketAddr,
    // Part of the message, so not a source that would be told again.
    reason: io::Error,
}

impl ListenError {
    /// What can't be had and why, in the system's words.
    pub fn found(&self) -> String {
        let Self {
            setting,
            address,
            reason,
        } = self;
        format!("`{setting}` = {address} can't be listened on: {reason}")
    }

    /// What to do about it.
    pub fn fix(&self) -> &'static str {
        match self.reason.kind() {
            io::ErrorKind::AddrInUse => {
                "another program has that port (`ss -ltnp` names it): stop that one, or set another port"
            }
            io::ErrorKind::PermissionDenied => {
                "this user may not have that port: set one above 1023, and let the proxy pass on to it"
            }
            io::ErrorKind::AddrNotAvailable => {
                "no interface of this machine has that address (`ip address` lists them): set one of \
                 those, or 0.0.0.0 for all"
            }
            _ => "set another address",
        }
    }
}

/// Listens on the address that `setting` names.
///
/// # Errors
///
/// [`ListenError`], which says what to do.
pub async fn bind(setting: &'static str, address: SocketAddr) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address)
        .await
        .map_err(|reason| ListenError {
            setting,
            address,
            reason,
        })
}

/// The address that is really listened on, also where the setting leaves the port to
/// the system.
///
/// # Errors
///
/// [`ListenError`], where the system does not say.
pub fn local_address(
    setting: &'static str,
    listener: &TcpListener,
    address: SocketAddr,
) -> Result<SocketAddr, ListenError> {
    listener.local_addr().map_err(|reason| ListenError {
        setting,
        address,
        reason,
    })
}

/// How a listener's last requests ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// All of them were answered.
    Whole,
    /// Some were cut off after [`Limits::drain_timeout`].
    CutOff,
}

/// Answers requests with `service` until `stop` is canceled, then lets those
/// under way finish. Each request has its [`Peer`] among its extensions.
pub async fn serve<S, B>(
    listener: TcpListener,
    limits: Limits,
    service: S,
    stop: CancellationToken,
) -> Drained
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let slots = Arc::new(Semaphore::new(limits.max_connections));
    let connections = GracefulShutdown::new();
    let cut_off = CancellationToken::new();
    while let Some(slot) = stop
        .run_until_cancelled(Arc::clone(&slots).acquire_owned())
        .await
    {
        let Some((stream, peer)) = stop.run_until_cancelled(accept(&listener)).await else {
            break;
        };
        let io = TokioIo::new(WriteDeadline::new(stream, limits.header_timeout));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.header_timeout)
            .max_buf_size(MAX_HEAD_BYTES)
            .serve_connection(
                io,
                FromPeer {
                    service: service.clone(),
                    peer: Peer(peer),
                },
            );
        let connection = connections.watch(connection);
        let cut_off = cut_off.clone();
        tokio::spawn(async move {
            let _slot = slot;
            // A client that breaks off or is too slow is its own business.
            if let Some(Err(error)) = cut_off.run_until_cancelled(connection).await {
                debug!(%error, "a connection ended early");
            }
        });
    }
    drop(listener);
    let finished = tokio::time::timeout(limits.drain_timeout, connections.shutdown()).await;
    cut_off.cancel();
    match finished {
        Ok(()) => Drained::Whole,
        Err(_) => Drained::CutOff,
    }
}

/// Tells a service who is at the other end of the connection.
struct FromPeer<S> {
    service: S,
    peer: Peer,
}

impl<S: Service<Request<Incoming>>> Service<Request<Incoming>> for FromPeer<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(self.peer);
        self.service.call(request)
    }
}

/// The next connection, however often the system says that it can't give one.
async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Without it an answer may wait 40 ms for the client's next packet.
                // A socket that refuses is closed already.
                let _ = stream.set_nodelay(true);
                return (stream, peer);
            }
            Err(error) if is_of_the_connection(&error) => {}
            Err(error) => {
                warn!(
                    %error,
                    "no connection can be accepted; too many open files? next try in {ACCEPT_PAUSE:?}"
                );
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Whether the failure is of the one connection that was to be accepted.
fn is_of_the_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
    )
}
