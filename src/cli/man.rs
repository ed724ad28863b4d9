//! `man`

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Command;

use super::outcome::{Exit, Failure};

/// Arguments of `man`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder for the pages, such as /usr/local/share/man/man1; created if missing
    dir: PathBuf,
}

/// Runs `man` for `program`.
pub async fn run(args: Args, program: Command) -> Result<Exit, Failure> {
    let dir = args.dir;
    #[expect(
        clippy::disallowed_methods,
        reason = "man pages are for everybody to read"
    )]
    std::fs::create_dir_all(&dir).with_context(|| format!("failed to create {}", dir.display()))?;
    clap_mangen::generate_to(program, &dir)
        .with_context(|| format!("failed to write to {}", dir.display()))?;
    println!("Wrote the man pages to {}.", dir.display());
    Ok(Exit::Done)
}
