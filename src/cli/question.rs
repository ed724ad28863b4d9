//! Questions to the person at the terminal.

use std::io::IsTerminal as _;

use anyhow::{Context as _, anyhow};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use super::outcome::Failure;
use super::style;

/// Asks a person a question; returns true if the answer is yes.
///
/// # Errors
///
/// If nobody can answer, since standard input is no terminal, or a program reads the answer.
pub(super) fn ask(question: &str) -> Result<bool, Failure> {
    if style::is_json() {
        return Err(Failure::usage(anyhow!("`--json` asks nothing; add --yes")));
    }
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage(anyhow!(
            "nobody can be asked here: run this in a terminal, or add --yes"
        )));
    }
    eprint!("{question} [y/N] ");
    let answer = read_line()?.to_lowercase();
    Ok(matches!(answer.as_str(), "y" | "yes" | "t" | "taip"))
}

/// Asks a person a question; returns false if the answer is no.
pub(super) fn ask_unless_no(question: &str) -> Result<bool, Failure> {
    eprint!("{question} [Y/n] ");
    let answer = read_line()?.to_lowercase();
    Ok(!matches!(answer.as_str(), "n" | "no" | "ne"))
}

/// Asks until `parse` accepts the answer; returns `None` for an empty one.
pub(super) fn ask_for_text<T>(
    question: &str,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Option<T>, Failure> {
    loop {
        eprint!("{question}");
        let answer = read_line()?;
        if answer.is_empty() {
            return Ok(None);
        }
        match parse(&answer) {
            Ok(parsed) => return Ok(Some(parsed)),
            Err(error) => eprintln!("{error}"),
        }
    }
}

/// [`ask_for_text`] without showing what is typed.
pub(super) fn ask_for_secret<T>(
    question: &str,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Option<T>, Failure> {
    let hidden = Hidden::begin();
    let answer = ask_for_text(question, |text| {
        // The terminal has not shown the line's end either.
        eprintln!("");
        parse(text)
    });
    if let Ok(None) = answer {
        eprintln!("");
    }
    drop(hidden);
    answer
}

/// A terminal that does not show what is typed, until this is dropped.
struct Hidden(Option<Termios>);

impl Hidden {
    fn begin() -> Self {
        let stdin = std::io::stdin();
        let shown = tcgetattr(&stdin).ok();
        if let Some(shown) = &shown {
            let mut hidden = shown.clone();
            hidden.local_modes.remove(LocalModes::ECHO);
            // A terminal that can't hide it shows it.
            let _ = tcsetattr(&stdin, OptionalActions::Now, &hidden);
        }
        Self(shown)
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        if let Some(shown) = &self.0 {
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, shown);
        }
    }
}

fn read_line() -> Result<String, Failure> {
    let mut answer = String::new();
    let length = std::io::stdin()
        .read_line(&mut answer)
        .context("failed to read the answer")?;
    if length == 0 {
        return Err(Failure::usage(anyhow!(
            "the terminal was closed before the answer; nothing was written"
        )));
    }
    Ok(answer.trim().to_owned())
}
