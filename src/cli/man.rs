//! `man`

use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};
use serde_json::json;

use super::outcome::{EXIT_CODES, Exit, Failure};
use crate::config::{DEFAULT_FILE, SYSTEM_FILE};

/// Arguments of `man`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder for the pages, such as /usr/local/share/man/man1; created if missing
    dir: PathBuf,
}

/// Left of the foot of each page.
const SOURCE: &str = concat!("ivesk-webhook ", env!("CARGO_PKG_VERSION"));

/// Variables that are no settings.
const VARIABLES: [(&str, &str); 3] = [
    (
        "IVESK_WEBHOOK_CONFIG",
        "The settings file. Every setting has a variable too, which goes before the file: docs/settings.md lists them.",
    ),
    ("NO_COLOR", "If set, nothing is colored."),
    (
        "TZ",
        "The time zone of the times in tables, such as Europe/Vilnius; otherwise that of the machine.",
    ),
];

/// Runs `man` for `program`.
pub async fn run(args: Args, program: Command) -> Result<Exit, Failure> {
    let dir = args.dir;
    #[expect(
        clippy::disallowed_methods,
        reason = "man pages are for everybody to read"
    )]
    std::fs::create_dir_all(&dir).with_context(|| format!("failed to create {}", dir.display()))?;
    let mut program = program.disable_help_subcommand(true);
    program.build();
    write_pages(&program, &dir).with_context(|| format!("failed to write to {}", dir.display()))?;
    result!(
        json!({ "dir": dir }),
        "Wrote the man pages to {}.",
        dir.display()
    );
    Ok(Exit::Done)
}

/// Writes the page of a command, and those of the commands below it.
fn write_pages(command: &Command, dir: &Path) -> io::Result<()> {
    let below = || command.get_subcommands().filter(|one| !one.is_hide_set());
    for one in below() {
        write_pages(one, dir)?;
    }
    let after = command
        .get_after_long_help()
        .or_else(|| command.get_after_help());
    let after = after.map(ToString::to_string).unwrap_or_default();
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ").to_owned();
    let page = Man::new(command.clone().override_usage(usage))
        .source(SOURCE)
        .manual("ivesk-webhook");
    let mut text = Vec::new();
    page.render_title(&mut text)?;
    page.render_name_section(&mut text)?;
    page.render_synopsis_section(&mut text)?;
    page.render_description_section(&mut text)?;
    page.render_options_section(&mut text)?;
    if below().next().is_some() {
        page.render_subcommands_section(&mut text)?;
    }
    let mut rest = Roff::default();
    explain(&mut rest, &after);
    refer(&mut rest, command);
    rest.to_writer(&mut text)?;
    #[expect(
        clippy::disallowed_methods,
        reason = "man pages are for everybody to read"
    )]
    std::fs::write(dir.join(page.get_filename()), text)
}

/// Writes what the help says after the options: explanations, examples, exit codes.
fn explain(page: &mut Roff, after: &str) {
    let (mut notes, mut examples, mut exit) = (Vec::new(), Vec::new(), None);
    for line in after.lines() {
        if let Some(codes) = line.strip_prefix("Exit codes: ") {
            exit = Some(codes);
        } else if line.starts_with("  ") {
            examples.push(line.trim_end());
        } else if !line.is_empty() && line != "Examples:" {
            notes.push(line);
        }
    }
    if !notes.is_empty() {
        page.control("SH", ["NOTES"]);
        for note in notes {
            page.text([roman(note)]);
            page.control("PP", []);
        }
    }
    if !examples.is_empty() {
        page.control("SH", ["EXAMPLES"]);
        // Unfilled: each line is a command.
        page.control("nf", []);
        for example in examples {
            page.text([roman(example)]);
        }
        page.control("fi", []);
    }
    page.control("SH", ["EXIT STATUS"]);
    page.text([roman(exit.unwrap_or(EXIT_CODES))]);
}

/// Writes the files and variables of every command, and where to read more.
fn refer(page: &mut Roff, command: &Command) {
    page.control("SH", ["FILES"]);
    page.control("TP", []);
    page.text([roman(format!("{DEFAULT_FILE}, {SYSTEM_FILE}"))]);
    page.text([roman(
        "The settings: the first one is used if the working folder has it.",
    )]);
    page.control("SH", ["ENVIRONMENT"]);
    for (name, effect) in VARIABLES {
        page.control("TP", []);
        page.text([roman(name)]);
        page.text([roman(effect)]);
    }
    page.control("SH", ["SEE ALSO"]);
    let own = command.get_display_name().unwrap_or_default();
    let mut others: Vec<String> = Vec::new();
    let mut above = own;
    while let Some((name, _)) = above.rsplit_once('-')
        && name.starts_with("ivesk-webhook")
    {
        // `import-errors` has a dash of its own, and no page of its first half.
        if !name.ends_with("-import") {
            others.push(format!("{name}(1)"));
        }
        above = name;
    }
    let others = match others.is_empty() {
        true => String::new(),
        false => format!("{}, ", others.join(", ")),
    };
    page.text([roman(format!(
        "{others}and the documentation: /usr/share/doc/ivesk-webhook of the package, docs/ of the archive and the source"
    ))]);
}
