//! `init`

use std::collections::BTreeMap;
use std::io::{ErrorKind, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use rustix::fs::Mode;
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use toml::Value;

use super::emulator::{self, EMULATED_PUBLIC};
use super::globals::{Globals, SYSTEM_FILE};
use super::outcome::{Exit, Failure};
use super::question::{ask_for_secret, ask_for_text, ask_unless_no};
use super::style::{HEADING, is_json, styled};
use crate::config::{Config, DEFAULT_FILE, FreshSettings, fresh_token};
use crate::domain::{Account, Company, Event, InvalidName};
use crate::emulator::{DEFAULT_COMPANIES, DEFAULT_KEY, Switches};
use crate::private_files::{create_dir_all, create_new_for_group};

/// The database of a service of this system.
const SYSTEM_STORE: &str = "sqlite:///var/lib/ivesk-webhook/ivesk-webhook.db";

/// The server's socket of such a service: it can't write beside its settings, wherever the store is.
const SYSTEM_SOCKET: &str = "/var/lib/ivesk-webhook/admin.sock";

/// Permissions of the folder of a system's settings, 0750.
const SYSTEM_FOLDER_MODE: Mode = Mode::RWXU.union(Mode::RGRP).union(Mode::XGRP);

/// Name of the file beside the settings that the API key is written to.
const KEY_FILE: &str = "api-key";

/// Characters below which a text is probably no API key.
const SHORT_KEY: usize = 16;

/// Arguments of `init`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
On a terminal it asks for what no option answers. Elsewhere it asks nothing: what is not given stays a comment in \
the file, and `serve` says what is missing.

No public address yet? Use http://127.0.0.1:8080 for now: `serve --tunnel auto` uses the address of an ngrok or \
cloudflared tunnel.

With --system the file, and an empty one for the API key beside it, belong to root, and the group of their folder may \
read them: give /etc/ivesk-webhook to the service's group first, as the package does.")]
pub struct Args {
    /// Public https address at which SNS reaches this service
    #[arg(long, value_name = "URL")]
    public_url: Option<String>,
    /// Name of the account; there is one for each API key
    #[arg(long, value_name = "NAME", default_value = "default", value_parser = parse_account)]
    account: Account,
    /// Code of a company whose exported documents are pulled; may be repeated
    #[arg(long, value_name = "CODE", value_parser = parse_company)]
    company: Vec<Company>,
    /// File that holds the API key alone, which the settings then name
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// Write for a service of this system: /etc/ivesk-webhook/ivesk-webhook.toml, data in /var/lib/ivesk-webhook
    #[arg(long)]
    system: bool,
    /// Write settings that work with `ivesk-webhook emulator` as they are
    #[arg(long, conflicts_with_all = ["system", "public_url", "company", "api_key_file"])]
    emulator: bool,
    /// Ask nothing, also on a terminal
    #[arg(long)]
    no_input: bool,
    /// Replace an existing file, and keep it as FILE.old
    #[arg(long)]
    force: bool,
}

fn parse_account(text: &str) -> Result<Account, InvalidName> {
    Account::parse(text)
}

fn parse_company(text: &str) -> Result<Company, InvalidName> {
    Company::parse(text)
}

/// What the settings are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Folder,
    System,
    Emulator,
}

/// The answers of a person, or of the arguments.
struct Answers {
    public_url: Option<String>,
    companies: Vec<Company>,
    key: Key,
}

/// The API key.
enum Key {
    /// It is not known yet.
    Missing,
    /// It is in this file.
    File(PathBuf),
    /// It is to be written to [`KEY_FILE`].
    Given(SecretString),
}

/// Runs `init`.
pub async fn run(args: Args, globals: &Globals) -> Result<Exit, Failure> {
    let purpose = match (args.system, args.emulator) {
        (true, _) => Purpose::System,
        (_, true) => Purpose::Emulator,
        _ => Purpose::Folder,
    };
    let path = match purpose {
        _ if globals.config_is_named => globals.config.clone(),
        Purpose::System => PathBuf::from(SYSTEM_FILE),
        Purpose::Folder | Purpose::Emulator => PathBuf::from(DEFAULT_FILE),
    };
    if !args.force && path.symlink_metadata().is_ok() {
        return Err(exists(&path));
    }
    let answers = answers(&args, purpose)?;
    for doubt in answers.companies.iter().filter_map(Company::doubt) {
        note!(
            "warning: {doubt}{} correct it in `accounts.{}.companies` of {}",
            if doubt.likely.is_some() { "" } else { ";" },
            args.account,
            path.display()
        );
    }
    let settings = fresh_settings(&path, args.account, &answers, purpose)?;
    let text = settings.to_toml();
    check(&path, &text, &settings, &answers)?;

    if purpose == Purpose::System {
        let folder = path.parent().unwrap_or(Path::new("/"));
        create_dir_all(folder, SYSTEM_FOLDER_MODE)
            .with_context(|| format!("failed to create {}", folder.display()))
            .map_err(Failure::usage)?;
    }
    let old = if args.force { keep_old(&path)? } else { None };
    if let Err(failure) = write_all(&path, &text, &answers.key, purpose, args.force) {
        if let Some(old) = &old {
            // Only the first error is reported.
            let _ = std::fs::rename(old, &path);
        }
        return Err(failure);
    }
    let written = Written {
        path: &path,
        old: old.as_deref(),
        settings: &settings,
        key_is_missing: matches!(answers.key, Key::Missing),
        purpose,
        globals,
    };
    if is_json() {
        println!("{}", written.to_json());
    } else {
        print!("{}", written.to_text());
    }
    Ok(Exit::Done)
}

/// Returns the answers of the arguments, and asks for the others if there is somebody to ask.
fn answers(args: &Args, purpose: Purpose) -> Result<Answers, Failure> {
    if purpose == Purpose::Emulator {
        // The other one becomes known by its first notification.
        let company = Company::parse(DEFAULT_COMPANIES[0])?;
        return Ok(Answers {
            public_url: Some(format!("http://{EMULATED_PUBLIC}")),
            companies: vec![company],
            key: Key::Given(DEFAULT_KEY.into()),
        });
    }
    let mut answers = Answers {
        public_url: args.public_url.clone(),
        companies: args.company.clone(),
        key: match &args.api_key_file {
            Some(file) => Key::File(std::path::absolute(file)?),
            None => Key::Missing,
        },
    };
    let is_terminal = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    if args.no_input || !is_terminal {
        return Ok(answers);
    }
    eprintln!("Press Enter to leave an answer for later.\n");
    if answers.public_url.is_none() {
        answers.public_url = ask_for_text(
            "Public https address of this service, such as https://hooks.example.lt: ",
            |text| {
                let config = format!("[public]\nurl = {}\n", Value::from(text));
                let tokens = config_tokens();
                Config::parse(&(config + &tokens), Path::new(""), &BTreeMap::new())
                    .map(|_| text.to_owned())
                    .map_err(|error| {
                        let messages = error.problems.iter().map(|problem| &*problem.message);
                        let messages: Vec<&str> = messages.collect();
                        format!("`{text}` {}", messages.join("; "))
                    })
            },
        )?;
    }
    if answers.companies.is_empty() {
        answers.companies = ask_for_companies()?;
    }
    if let Key::Missing = answers.key {
        let question = "API key, from app.ivesk.lt/settings/general (not shown): ";
        let key = ask_for_secret(question, |text| {
            let shown = bare(text);
            if shown != text {
                eprintln!("The quotes around the key were left out.");
            }
            if !shown.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err("it contains white space or characters beyond ASCII".to_owned());
            }
            if shown.len() < SHORT_KEY {
                eprintln!(
                    "The key is short for one of Įvesk.lt: `ivesk-webhook doctor` tells whether Įvesk.lt accepts it."
                );
            }
            Ok(SecretString::from(shown))
        })?;
        answers.key = key.map_or(Key::Missing, Key::Given);
    }
    eprintln!("");
    Ok(answers)
}

/// Returns lines with tokens, so that a public address alone can be checked.
fn config_tokens() -> String {
    let token = |letter: &str| letter.repeat(43);
    format!(
        "[accounts.default.tokens]\non_exported = [\"{}\"]\non_digitized = [\"{}\"]\n",
        token("a"),
        token("b")
    )
}

/// Returns a key without quotes around it.
fn bare(text: &str) -> &str {
    let quotes = ['"', '\'', '`', '„', '“', '”'];
    text.trim_matches(|c: char| quotes.contains(&c))
}

/// Asks for the codes of companies, and for a better one where a code is probably mistyped.
fn ask_for_companies() -> Result<Vec<Company>, Failure> {
    let question = "Codes of your companies, separated by spaces: ";
    let companies = ask_for_text(question, |text| {
        let codes = text.split([' ', ',', ';']).filter(|code| !code.is_empty());
        codes
            .map(|code| Company::parse(code).map_err(|error| error.to_string()))
            .collect::<Result<Vec<_>, _>>()
    })?;
    let mut chosen = Vec::new();
    for company in companies.unwrap_or_default() {
        let likely = company.doubt().and_then(|doubt| {
            let likely = doubt.likely.clone();
            likely.map(|likely| (doubt, likely))
        });
        let company = match likely {
            Some((doubt, likely)) => {
                eprintln!("{doubt}");
                match ask_unless_no(&format!("Use {likely}?"))? {
                    true => likely,
                    false => company,
                }
            }
            None if company.doubt().is_some() => {
                let doubt = company.doubt().map(|doubt| doubt.to_string());
                eprintln!("{}", doubt.unwrap_or_default());
                if !ask_unless_no("Use it all the same?")? {
                    continue;
                }
                company
            }
            None => company,
        };
        if !chosen.contains(&company) {
            chosen.push(company);
        }
    }
    Ok(chosen)
}

fn fresh_settings(
    path: &Path,
    account: Account,
    answers: &Answers,
    purpose: Purpose,
) -> Result<FreshSettings, Failure> {
    let tokens = Event::ALL
        .into_iter()
        .map(|event| Ok((event, fresh_token()?)))
        .collect::<Result<_, getrandom::Error>>()
        .context("failed to get random numbers for the tokens")?;
    let key_file = match &answers.key {
        // A service's key has a place from the start, with the right owner and permissions.
        Key::Missing => (purpose == Purpose::System).then(|| KEY_FILE.to_owned()),
        Key::Given(_) => Some(KEY_FILE.to_owned()),
        Key::File(file) => Some(relative(file, path)?),
    };
    let mut others: Vec<(String, Value)> = Vec::new();
    if let Some(file) = key_file {
        others.push((format!("accounts.{account}.api_key_file"), file.into()));
    }
    let mut set = |name: &str, value: Value| others.push((name.to_owned(), value));
    match purpose {
        Purpose::Folder => {}
        Purpose::System => {
            set("store.url", SYSTEM_STORE.into());
            set("admin.socket", SYSTEM_SOCKET.into());
        }
        Purpose::Emulator => {
            let switches = Switches::default();
            let origin = format!("http://{}", emulator::LISTEN);
            set("public.listen", EMULATED_PUBLIC.into());
            set("api.url", format!("{origin}/api/pub").into());
            set("api.exported_path", switches.company_in.preset().into());
            set(
                "api.subscribe_path",
                switches.subscriptions_path.as_str().into(),
            );
            set(
                "api.import_error_path",
                switches.errors_path.as_str().into(),
            );
            set("sns.local_origins", vec![origin].into());
        }
    }
    Ok(FreshSettings {
        public_url: answers.public_url.clone(),
        account,
        companies: answers.companies.clone(),
        tokens,
        others,
    })
}

/// Returns the path of a file as the settings name it: relative to them if it is beside them.
fn relative(file: &Path, settings: &Path) -> Result<String, Failure> {
    let settings = std::path::absolute(settings)?;
    let beside = settings
        .parent()
        .and_then(|folder| file.strip_prefix(folder).ok());
    let shown = beside.unwrap_or(file).to_str();
    let shown = shown.ok_or_else(|| {
        Failure::usage(anyhow!("the name of {} is not valid UTF-8", file.display()))
    })?;
    Ok(shown.to_owned())
}

/// Finds mistakes in the answers before anything is written.
fn check(
    path: &Path,
    text: &SecretString,
    settings: &FreshSettings,
    answers: &Answers,
) -> Result<(), Failure> {
    let mut environment = BTreeMap::new();
    if settings.public_url.is_none() {
        let example = "https://hooks.example.lt".to_owned();
        environment.insert("IVESK_WEBHOOK_PUBLIC_URL".to_owned(), example);
    }
    let mut text = text.expose_secret().to_owned();
    if !matches!(answers.key, Key::File(_)) {
        // The key's file is not there yet.
        text = text.replace(&format!("api_key_file = \"{KEY_FILE}\"\n"), "\n");
    }
    let folder = path.parent().unwrap_or(Path::new(""));
    Config::parse(&text, folder, &environment).map_err(|mut error| {
        // The file is not written yet, so it has no lines to name.
        for problem in &mut error.problems {
            problem.place.clear();
        }
        Failure::usage(error)
    })?;
    Ok(())
}

/// Renames an existing file, since its tokens may be in use. Returns the new name.
fn keep_old(path: &Path) -> anyhow::Result<Option<PathBuf>> {
    let mut name = path.as_os_str().to_owned();
    name.push(".old");
    let old = PathBuf::from(name);
    match std::fs::rename(path, &old) {
        Ok(()) => Ok(Some(old)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error)
            .with_context(|| format!("failed to rename {} to {}", path.display(), old.display())),
    }
}

/// Writes the settings, and the key to a file of its own. That of a service is empty if the key is not
/// known yet; one that is there already is left alone.
fn write_all(
    path: &Path,
    text: &SecretString,
    key: &Key,
    purpose: Purpose,
    force: bool,
) -> Result<(), Failure> {
    let file = path.with_file_name(KEY_FILE);
    match key {
        Key::Given(key) => {
            if force {
                keep_old(&file)?;
            }
            write_new(&file, &format!("{}\n", key.expose_secret()).into())?;
        }
        Key::Missing if purpose == Purpose::System && file.symlink_metadata().is_err() => {
            write_new(&file, &String::new().into())?;
        }
        Key::Missing | Key::File(_) => {}
    }
    write_new(path, text)
}

/// Writes a new file that only its owner, and the group of a system's settings, can read.
fn write_new(path: &Path, text: &SecretString) -> Result<(), Failure> {
    let written = create_new_for_group(path).and_then(|mut file| {
        file.write_all(text.expose_secret().as_bytes())?;
        file.sync_all()
    });
    match written {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(exists(path)),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(Failure::usage(anyhow!(
            "failed to write {}: its folder does not exist; create it first",
            path.display()
        ))),
        Err(error) => Err(Failure::usage(anyhow!(
            "failed to write {}: {error}; run this in a folder that you may write to, or name a file with \
             --config",
            path.display()
        ))),
    }
}

fn exists(path: &Path) -> Failure {
    Failure::usage(anyhow!(
        "{} exists already, and its secrets may be in use; name another file with --config, or \
         replace it with --force (the old file is kept as {0}.old)",
        path.display()
    ))
}

/// What was written, and what comes next.
struct Written<'a> {
    path: &'a Path,
    old: Option<&'a Path>,
    settings: &'a FreshSettings,
    key_is_missing: bool,
    purpose: Purpose,
    globals: &'a Globals,
}

impl Written<'_> {
    /// Returns what is left to write: settings, and the key of a service.
    fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        let account = &self.settings.account;
        if self.settings.public_url.is_none() {
            missing.push(
                "`public.url`: the https address at which SNS reaches this service; http://127.0.0.1:8080 for a first try \
                 with `serve --tunnel auto`"
                    .to_owned(),
            );
        }
        let key_file = self.path.with_file_name(KEY_FILE);
        match self.purpose {
            _ if !self.key_is_missing => {}
            Purpose::System => {
                // One from before is used again.
                let about = key_file.metadata();
                if about.is_ok_and(|about| about.len() == 0) {
                    missing.push(format!(
                        "{}: your API key (app.ivesk.lt/settings/general), alone in this file",
                        key_file.display()
                    ));
                }
            }
            Purpose::Folder | Purpose::Emulator => missing.push(format!(
                "`accounts.{account}.api_key_file`: the name of a file with your API key (app.ivesk.lt/settings/general); \
                 or set IVESK_WEBHOOK_API_KEY"
            )),
        }
        if self.settings.companies.is_empty() {
            missing.push(format!(
                "`accounts.{account}.companies`: the codes of your companies"
            ));
        }
        missing
    }

    /// Returns the next commands, each with what it does.
    fn next(&self) -> Vec<(String, &'static str)> {
        let mut next = self.commands().to_vec();
        // `serve` refuses to start without it.
        if self.settings.public_url.is_none() {
            let file = self.path.display();
            let check = self.command("config check");
            next.insert(0, (check, "tells what is still missing or wrong"));
            next.insert(
                0,
                (
                    format!("edit {file}"),
                    "with an editor: write what is missing",
                ),
            );
        }
        next
    }

    /// Returns a command with these settings.
    fn command(&self, rest: &str) -> String {
        let config = match self.purpose {
            Purpose::System if !self.globals.config_is_named => String::new(),
            _ if self.path == Path::new(DEFAULT_FILE) => String::new(),
            _ => format!(" --config {}", self.path.display()),
        };
        format!("ivesk-webhook{config} {rest}")
    }

    /// Returns the three commands by which the service runs, each with what it does.
    fn commands(&self) -> [(String, &'static str); 3] {
        let command = |rest: &str| self.command(rest);
        match self.purpose {
            Purpose::Folder => [
                (command("serve"), "receives and pulls until stopped"),
                (
                    command("doctor"),
                    "finds what does not work yet, in another terminal",
                ),
                (
                    command("subscriptions create --print"),
                    "prints what to send to Įvesk.lt",
                ),
            ],
            Purpose::System => [
                (
                    "systemctl enable --now ivesk-webhook".to_owned(),
                    "starts the service",
                ),
                (command("doctor"), "finds what does not work yet"),
                (
                    command("subscriptions create --print"),
                    "prints what to send to Įvesk.lt",
                ),
            ],
            Purpose::Emulator => [
                (
                    "ivesk-webhook emulator".to_owned(),
                    "runs an emulated Įvesk.lt until stopped",
                ),
                (
                    command("serve"),
                    "receives and pulls until stopped, in another terminal",
                ),
                (
                    command("subscriptions create"),
                    "subscribes, in a third one",
                ),
            ],
        }
    }

    fn to_json(&self) -> serde_json::Value {
        json!({
            "file": self.path,
            "old": self.old,
            "missing": self.missing(),
            "next": self.next().into_iter().map(|(command, _)| command).collect::<Vec<_>>(),
        })
    }

    fn to_text(&self) -> String {
        let file = self.path.display();
        let mut text = format!("Wrote {file}. It contains two secret tokens; keep it private.\n");
        if let Some(old) = self.old {
            text.push_str(&format!(
                "The old file is now {}; messages with its tokens are refused from now on.\n",
                old.display()
            ));
        }
        let missing = self.missing();
        if !missing.is_empty() {
            text.push_str(&format!("\n{}\n", styled(HEADING, "Still to write:")));
        }
        for line in missing {
            text.push_str(&format!("  {line}\n"));
        }
        if let (Some(url), Purpose::Folder | Purpose::System) =
            (&self.settings.public_url, self.purpose)
        {
            text.push_str(&format!(
                "\nYour proxy must forward {}/webhooks/ to port 8080 (docs/reverse-proxy.md).\n",
                url.trim_end_matches('/')
            ));
        }
        text.push_str(&format!("\n{}\n", styled(HEADING, "Next:")));
        let next = self.next();
        let width = next.iter().map(|(command, _)| command.len()).max();
        for (command, purpose) in &next {
            text.push_str(&format!(
                "  {command:<width$}   {purpose}\n",
                width = width.unwrap_or(0)
            ));
        }
        text
    }
}
