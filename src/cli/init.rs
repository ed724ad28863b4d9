//! `init`

use std::collections::BTreeMap;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use secrecy::{ExposeSecret, SecretString};

use super::globals::Globals;
use super::outcome::{Exit, Failure};
use crate::config::{Config, FreshSettings, fresh_token};
use crate::domain::{Account, Company, Event, InvalidName};
use crate::private_files::create_new;

/// Arguments of `init`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
No public address yet? Use http://127.0.0.1:8080 for now: `serve --tunnel auto` uses the address of an ngrok or \
cloudflared tunnel.")]
pub struct Args {
    /// Public https address at which SNS reaches this service
    #[arg(long, value_name = "URL")]
    public_url: String,
    /// Name of the account; there is one for each API key
    #[arg(long, value_name = "NAME", default_value = "default", value_parser = parse_account)]
    account: Account,
    /// Code of a company whose exported documents are pulled; may be repeated
    #[arg(long, value_name = "CODE", value_parser = parse_company)]
    company: Vec<Company>,
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

/// Runs `init`.
pub async fn run(args: Args, globals: &Globals) -> Result<Exit, Failure> {
    let path = &globals.config;
    for doubt in args.company.iter().filter_map(Company::doubt) {
        eprintln!("warning: {doubt}");
    }
    let settings = fresh_settings(args.public_url, args.account, args.company)?;
    let text = settings.to_toml();
    // Mistakes in the arguments are found before anything is written.
    let folder = path.parent().unwrap_or(Path::new(""));
    Config::parse(text.expose_secret(), folder, &BTreeMap::new()).map_err(Failure::usage)?;

    let old = if args.force { keep_old(path)? } else { None };
    if let Err(failure) = write_new(path, &text) {
        if let Some(old) = &old {
            // Only the first error is reported.
            let _ = std::fs::rename(old, path);
        }
        return Err(failure);
    }
    print!("{}", next_steps(path, old.as_deref(), &settings));
    Ok(Exit::Done)
}

fn fresh_settings(
    public_url: String,
    account: Account,
    companies: Vec<Company>,
) -> anyhow::Result<FreshSettings> {
    let tokens = Event::ALL
        .into_iter()
        .map(|event| Ok((event, fresh_token()?)))
        .collect::<Result<_, getrandom::Error>>()
        .context("failed to get random numbers for the tokens")?;
    Ok(FreshSettings {
        public_url,
        account,
        companies,
        tokens,
    })
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

/// Writes a new file that only its owner can read.
fn write_new(path: &Path, text: &SecretString) -> Result<(), Failure> {
    let written = create_new(path).and_then(|mut file| {
        file.write_all(text.expose_secret().as_bytes())?;
        file.sync_all()
    });
    match written {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            Err(Failure::usage(anyhow::anyhow!(
                "{} exists already, and its tokens may be in use; name another file with --config, or \
                 replace it with --force (the old file is kept as {0}.old)",
                path.display()
            )))
        }
        Err(error) => Err(Failure::usage(anyhow::anyhow!(
            "failed to write {}: {error}; run this in a folder that you may write to, or name a file with \
             --config",
            path.display()
        ))),
    }
}

fn next_steps(path: &Path, old: Option<&Path>, settings: &FreshSettings) -> String {
    let file = path.display();
    let old = old.map_or_else(String::new, |old| {
        format!(
            "The old file is now {}; messages with its tokens are refused from now on.\n",
            old.display()
        )
    });
    let companies = if settings.companies.is_empty() {
        ".\n     List the codes of your companies in `companies`"
    } else {
        ""
    };
    format!(
        "Wrote {file}. It contains two secret tokens; keep it private.
{old}
Next steps:
  1. Write your API key (app.ivesk.lt/settings/general) to a file and name that file in
     `api_key_file`, or set IVESK_WEBHOOK_API_KEY{companies}.
  2. Configure your proxy to forward {url} to port 8080 (docs/reverse-proxy.md).
  3. ivesk-webhook --config {file} config check
  4. ivesk-webhook --config {file} serve
  5. ivesk-webhook --config {file} doctor
  6. ivesk-webhook --config {file} subscriptions create --print
",
        url = settings.public_url
    )
}
