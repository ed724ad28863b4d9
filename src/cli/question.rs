//! Questions to the person at the terminal.

use std::io::IsTerminal as _;

use anyhow::{Context as _, anyhow};

use super::outcome::Failure;

/// Asks a person a question; returns true if the answer is yes.
///
/// # Errors
///
/// If nobody can answer, since standard input is no terminal.
pub(super) fn ask(question: &str) -> Result<bool, Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage(anyhow!(
            "nobody can be asked here: run this in a terminal, or add --yes"
        )));
    }
    eprint!("{question} [y/N] ");
    let mut answer = String::new();
    std::io::stdin()
        .read_line(&mut answer)
        .context("failed to read the answer")?;
    let answer = answer.trim().to_lowercase();
    Ok(matches!(answer.as_str(), "y" | "yes" | "t" | "taip"))
}
