//! The ceiling of a machine: a receiver that only parses, verifies, stores and answers.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::ensure;
use tokio::net::TcpStream;

use super::{Process, TIMEOUT, free_address};

/// Where it takes messages.
pub(crate) const PATH: &str = "/sns";

/// The program to compare with.
///
/// It is started with `MODE`, `PORT`, `DB`, `CKPT` and `IDS` in its environment.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Ceiling {
    /// A receiver that only parses, verifies, stores and answers, to compare with
    #[arg(long = "ceiling", env = "SNSBENCH_SKETCH")]
    program: Option<PathBuf>,
}

/// How far the ceiling goes with a message: its `MODE`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mode {
    /// It answers at once.
    Answer,
    /// It parses and verifies.
    Verify,
    /// It verifies and stores in SQLite.
    Sqlite,
    /// It verifies and stores in PostgreSQL.
    Postgres,
}

impl Mode {
    /// Returns the one that stores where the service does.
    pub(crate) fn of(postgres: Option<&str>) -> Self {
        match postgres {
            Some(_) => Self::Postgres,
            None => Self::Sqlite,
        }
    }
}

impl Ceiling {
    /// Returns true if a program is named.
    pub(crate) fn is_named(&self) -> bool {
        self.program.is_some()
    }

    /// Starts it in this folder, and returns it and its address; `None` if no program is named. It may
    /// not listen yet.
    pub(crate) fn start(
        &self,
        mode: Mode,
        folder: &Path,
    ) -> anyhow::Result<Option<(Process, SocketAddr)>> {
        let Some(program) = &self.program else {
            return Ok(None);
        };
        let address = free_address()?;
        let mode = match mode {
            Mode::Answer => "bare",
            Mode::Verify => "verify",
            Mode::Sqlite => "sqlite",
            Mode::Postgres => "pg",
        };
        let settings = [
            ("MODE", mode.to_owned()),
            ("PORT", address.port().to_string()),
            ("DB", folder.join("ceiling.db").display().to_string()),
            ("CKPT", "10000".to_owned()),
            ("IDS", "blob".to_owned()),
        ];
        let server = Process::start_program(program, folder, &settings)?;
        Ok(Some((server, address)))
    }
}

/// Waits until a receiver listens.
pub(crate) async fn wait_for(address: SocketAddr) -> anyhow::Result<()> {
    let started = Instant::now();
    while TcpStream::connect(address).await.is_err() {
        ensure!(started.elapsed() < TIMEOUT, "the receiver does not listen");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}
