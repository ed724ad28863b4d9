//! The accept loop of both listeners: limits on connections and time, and the orderly stop.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::caller::Peer;
use super::challenge;
use super::stalled::WriteDeadline;
use super::unreadable;
use crate::unexpected::UnexpectedRequest;

/// Longest request head, in bytes. SNS's are under 2 KiB, but a proxy may add cookies and headers.
const MAX_HEAD_BYTES: usize = 128 * 1024;

/// Longest time for the request that follows the PROXY protocol, and most bytes of it.
const PROXIED_TIMEOUT: Duration = Duration::from_secs(1);
const MAX_PROXIED_BYTES: usize = 16 * 1024;

/// Pause when the system has no more sockets.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The limits of a listener.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most connections at once; the next one waits to be accepted.
    pub max_connections: usize,
    /// Longest time for a request's head, for an idle connection between two requests,
    /// and for a response that the client does not read.
    pub header_timeout: Duration,
    /// Longest time for requests in progress once the listener stops.
    pub drain_timeout: Duration,
}

/// The error of an address that can't be listened on.
#[derive(Debug, thiserror::Error)]
#[error("{}; {}", self.found(), self.fix())]
pub struct ListenError {
    setting: &'static str,
    address: SocketAddr,
    // Part of the message, so it is not a source as well.
    reason: io::Error,
}

impl ListenError {
    /// Returns the setting, the address and the system's error.
    pub fn found(&self) -> String {
        let Self {
            setting,
            address,
            reason,
        } = self;
        format!("failed to listen on `{setting}` = {address}: {reason}")
    }

    /// Returns what to do about it.
    pub fn fix(&self) -> &'static str {
        match self.reason.kind() {
            io::ErrorKind::AddrInUse => {
                "another program uses this port (`ss -ltnp` names it): stop that program, or set another port"
            }
            io::ErrorKind::PermissionDenied => {
                "this user may not use this port: set one above 1023, and let the proxy forward to it"
            }
            // On all addresses the admin listener would be open to the network.
            io::ErrorKind::AddrNotAvailable if self.setting == "admin.listen" => {
                "no interface of this machine has this address (`ip address` lists them): set \
                 127.0.0.1, or one of those if others must reach it"
            }
            io::ErrorKind::AddrNotAvailable => {
                "no interface of this machine has this address (`ip address` lists them): set one of \
                 those, or 0.0.0.0 for all"
            }
            _ => "set another address",
        }
    }
}

/// Listens on `address`, the value of `setting`.
///
/// # Errors
///
/// If the system refuses the address.
pub async fn bind(setting: &'static str, address: SocketAddr) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address)
        .await
        .map_err(|reason| ListenError {
            setting,
            address,
            reason,
        })
}

/// Returns the address of `listener`, which differs from the setting's if its port is 0.
///
/// # Errors
///
/// If the system does not report the address.
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

/// The end of a listener's last requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// All of them were answered.
    Whole,
    /// Some were cut off after [`Limits::drain_timeout`].
    CutOff,
}

/// What a connection brought in place of a request.
#[derive(Clone, Debug)]
pub struct Unreadable {
    /// Its kind.
    pub kind: UnexpectedRequest,
    /// True if it shows that SNS sent it.
    pub from_sns: bool,
    /// The question that it shows, if `doctor` may have sent it.
    pub question: Option<Vec<u8>>,
}

/// Answers requests with `service` until `stop` is canceled, then lets those in progress
/// finish. Each request has its [`Peer`] among its extensions. `on_unreadable` is told what can't
/// be read as a request.
pub async fn serve<S, B>(
    listener: TcpListener,
    limits: Limits,
    service: S,
    on_unreadable: impl Fn(Unreadable) + Clone + Send + 'static,
    stop: CancellationToken,
) -> Drained
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + Unpin + 'static,
    S::Future: Send,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let slots = Arc::new(Semaphore::new(limits.max_connections));
    let connections = TaskTracker::new();
    let cut_off = CancellationToken::new();
    while let Some(slot) = stop
        .run_until_cancelled(Arc::clone(&slots).acquire_owned())
        .await
    {
        let Some((stream, peer)) = stop.run_until_cancelled(accept(&listener)).await else {
            break;
        };
        let service = FromPeer {
            service: service.clone(),
            peer: Peer(peer),
            called: AtomicBool::new(false),
        };
        let (stop, cut_off) = (stop.clone(), cut_off.clone());
        let on_unreadable = on_unreadable.clone();
        connections.spawn(async move {
            let _slot = slot;
            let ended = cut_off.run_until_cancelled(answer(stream, limits, service, stop));
            if let Some(Some(unreadable)) = ended.await {
                on_unreadable(unreadable);
            }
        });
    }
    drop(listener);
    connections.close();
    let finished = tokio::time::timeout(limits.drain_timeout, connections.wait()).await;
    cut_off.cancel();
    match finished {
        Ok(()) => Drained::Whole,
        Err(_) => Drained::CutOff,
    }
}

/// Answers the requests of one connection; returns what ended it, if that could not be read.
async fn answer<S, B>(
    stream: TcpStream,
    limits: Limits,
    service: FromPeer<S>,
    stop: CancellationToken,
) -> Option<Unreadable>
where
    S: Service<Request<Incoming>, Response = Response<B>> + Unpin,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: Body<Data = Bytes> + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    // hyper would answer 400, which is final for SNS; it retries where a connection just ends.
    let other = tokio::select! {
        first = tokio::time::timeout(limits.header_timeout, first_bytes(&stream)) => first.ok()?,
        () = stop.cancelled() => return None,
    };
    if let Some(kind) = other {
        let from_sns =
            kind == UnexpectedRequest::ProxyProtocol && is_proxied_from_sns(stream).await;
        return Some(Unreadable {
            kind,
            from_sns,
            question: None,
        });
    }
    let io = TokioIo::new(WriteDeadline::new(stream, limits.header_timeout));
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(MAX_HEAD_BYTES)
        .max_header_size(MAX_HEAD_BYTES)
        // A client that has sent its request may end its side of the connection.
        .half_close(true)
        .serve_connection(io, service);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = stop.cancelled() => {
            std::pin::Pin::new(&mut connection).graceful_shutdown();
            (&mut connection).await
        }
    };
    let error = ended.err()?;
    debug!(%error, "a connection ended early");
    let parts = connection.into_parts();
    let unread = parts.read_buf;
    let in_first_head = !parts.service.called.into_inner();
    unreadable::of_error(&error, &unread, in_first_head).map(|kind| Unreadable {
        kind,
        from_sns: unreadable::bytes_are_from_sns(&unread),
        question: challenge::question_in(&unread),
    })
}

/// Returns the protocol other than HTTP/1 that a connection begins with.
async fn first_bytes(stream: &TcpStream) -> Option<UnexpectedRequest> {
    let mut first = [0; unreadable::FIRST_BYTES];
    let length = stream.peek(&mut first).await.ok()?;
    unreadable::of_first_bytes(&first[..length])
}

/// Returns true if the request after the PROXY protocol is SNS's.
async fn is_proxied_from_sns(mut stream: TcpStream) -> bool {
    let mut request = Vec::new();
    let read = async {
        while request.len() < MAX_PROXIED_BYTES && !unreadable::bytes_are_from_sns(&request) {
            if !matches!(stream.read_buf(&mut request).await, Ok(1..)) {
                break;
            }
        }
    };
    // Too late is as good as never: nothing is lost but a mark.
    let _ = tokio::time::timeout(PROXIED_TIMEOUT, read).await;
    unreadable::bytes_are_from_sns(&request)
}

/// Adds the connection's [`Peer`] to each request.
struct FromPeer<S> {
    service: S,
    peer: Peer,
    /// True once a request has arrived.
    called: AtomicBool,
}

impl<S: Service<Request<Incoming>>> Service<Request<Incoming>> for FromPeer<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        self.called.store(true, Ordering::Relaxed);
        request.extensions_mut().insert(self.peer);
        self.service.call(request)
    }
}

/// Returns the next connection; errors of the system are logged and retried.
async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Without it a response may wait 40 ms for the client's next packet. This
                // fails only if the socket is closed already.
                let _ = stream.set_nodelay(true);
                return (stream, peer);
            }
            Err(error) if is_connection_error(&error) => {}
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

/// Returns true if the error is that of one connection, not of the listener.
fn is_connection_error(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
    )
}
