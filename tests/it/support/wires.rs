//! Connections between processes: a load balancer, and a wire to PostgreSQL that breaks.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::task::JoinHandle;

/// Forwards each connection to the next replica that accepts one.
pub(crate) struct Balancer {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Balancer {
    pub(crate) async fn before(ports: Vec<u16>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await;
        let listener = listener.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let turn = Arc::new(AtomicUsize::new(0));
        let task = tokio::spawn(async move {
            while let Ok((mut outside, _)) = listener.accept().await {
                let (ports, turn) = (ports.clone(), Arc::clone(&turn));
                tokio::spawn(async move {
                    for _ in 0..ports.len() {
                        let next = turn.fetch_add(1, Ordering::Relaxed) % ports.len();
                        if let Ok(mut inside) = TcpStream::connect(("127.0.0.1", ports[next])).await
                        {
                            let _ = copy_bidirectional(&mut outside, &mut inside).await;
                            return;
                        }
                    }
                });
            }
        });
        Self { address, task }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Forwards PostgreSQL's protocol, and cuts connections between a COMMIT and its answer.
pub(crate) struct BreakingWire {
    address: SocketAddr,
    cuts: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl BreakingWire {
    /// Cuts at every `every`th COMMIT sent to the server's socket.
    pub(crate) async fn to(socket: PathBuf, every: usize) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await;
        let listener = listener.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let (commits, cuts) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&cuts);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (commits, cuts) = (Arc::clone(&commits), Arc::clone(&counted));
                let socket = socket.clone();
                tokio::spawn(async move {
                    if let Ok(server) = UnixStream::connect(socket).await {
                        forward(client, server, &commits, &cuts, every).await;
                    }
                });
            }
        });
        Self {
            address,
            cuts,
            task,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the number of connections that were cut.
    pub(crate) fn cuts(&self) -> usize {
        self.cuts.load(Ordering::Relaxed)
    }
}

impl Drop for BreakingWire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Forwards bytes both ways until either side ends, or until the answer to a chosen COMMIT.
async fn forward(
    mut client: TcpStream,
    mut server: UnixStream,
    commits: &AtomicUsize,
    cuts: &AtomicUsize,
    every: usize,
) {
    const COMMIT: &[u8] = b"COMMIT\0";
    let mut from_client = vec![0; 64 * 1024];
    let mut from_server = vec![0; 64 * 1024];
    let mut doomed = false;
    loop {
        tokio::select! {
            read = client.read(&mut from_client) => {
                let Ok(length @ 1..) = read else { return };
                let sent = &from_client[..length];
                if sent.windows(COMMIT.len()).any(|window| window == COMMIT) {
                    doomed = (commits.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(every);
                }
                if server.write_all(sent).await.is_err() {
                    return;
                }
            }
            read = server.read(&mut from_server) => {
                let Ok(length @ 1..) = read else { return };
                // The answer to a COMMIT begins with its tag; that to a statement sent with
                // it precedes it.
                let answer = &from_server[..length];
                if doomed && answer.windows(COMMIT.len()).any(|window| window == COMMIT) {
                    cuts.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                if client.write_all(answer).await.is_err() {
                    return;
                }
            }
        }
    }
}
