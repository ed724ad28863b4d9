//! `emulator`: an Įvesk.lt, SNS and S3 on this machine until Ctrl-C.

use std::fmt::Write as _;
use std::net::SocketAddr;

use super::{Exit, Failure, Globals};
use crate::domain::Event;
use crate::emulator::{
    AccountSettings, DEFAULT_COMPANIES, DEFAULT_KEY, Emulator, EmulatorSettings, Switches,
};

/// Arguments of `emulator`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where to listen
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:4566")]
    listen: SocketAddr,
    /// Positions of switches, such as company_in=query,ties=3; docs/emulator.md lists them
    #[arg(long, value_name = "NAME=VALUE,…", default_value = "")]
    switches: String,
    /// An API key that is good; each further one is an account of its own [default: one]
    #[arg(long = "key", value_name = "KEY")]
    keys: Vec<String>,
    /// A company's code, for every key [default: 302320404 and 304567890]
    #[arg(long = "company", value_name = "CODE")]
    companies: Vec<String>,
    /// Also send to other machines, and listen for them; the emulator asks for no password
    #[arg(long)]
    allow_remote: bool,
    /// Under which address others see it, such as http://emulator:4566 [default: where it listens]
    #[arg(long, value_name = "URL")]
    origin: Option<String>,
}

/// Runs `emulator`.
pub async fn run(args: Args, globals: &Globals) -> Result<Exit, Failure> {
    let _ = globals;
    let listen = args.listen;
    let settings = settings(args)?;
    let first = settings.accounts.first().cloned();
    let emulator = Emulator::start(settings, listen)
        .await
        .map_err(Failure::usage)?;
    if let Some(account) = first {
        println!("{}", offer(&emulator, &account));
    }
    tokio::signal::ctrl_c().await?;
    emulator.stop().await;
    Ok(Exit::Done)
}

fn settings(args: Args) -> Result<EmulatorSettings, Failure> {
    let or_default = |given: Vec<String>, default: &[&str]| {
        if given.is_empty() {
            default.iter().map(|text| (*text).to_owned()).collect()
        } else {
            given
        }
    };
    let companies = or_default(args.companies, &DEFAULT_COMPANIES);
    let accounts = or_default(args.keys, &[DEFAULT_KEY])
        .into_iter()
        .map(|key| AccountSettings {
            key,
            companies: companies.clone(),
        })
        .collect();
    Ok(EmulatorSettings {
        accounts,
        switches: Switches::parse(&args.switches).map_err(Failure::usage)?,
        allow_remote: args.allow_remote,
        origin: args.origin,
        ..EmulatorSettings::default()
    })
}

/// What it offers, ready to be pasted.
fn offer(emulator: &Emulator, account: &AccountSettings) -> String {
    let (origin, key) = (emulator.origin(), &account.key);
    let company = account.companies.first().map_or("CODE", String::as_str);
    let switches = emulator.control().switches();
    let mut text = String::new();
    // Writing to a String does not fail.
    let _ = write!(
        text,
        "An emulated Įvesk.lt, SNS and S3 until Ctrl-C; everything is in memory.

API       {api}   x-api-key: {key}
SNS       {origin}   topics {exported}, {digitized}
Companies {companies}

In ivesk-webhook.toml:

  [api]
  url = \"{api}\"
  exported_path = \"{exported_path}\"
  subscribe_path = \"{subscribe_path}\"

  [sns]
  local_origins = [\"{origin}\"]

and IVESK_WEBHOOK_API_KEY={key}

Play the accountant:

  curl {origin}/control/export --json '{{\"company\":\"{company}\",\"documents\":3}}'
  curl {origin}/control/digitize --json '{{\"key\":\"{key}\",\"company\":\"{company}\",\"count\":2}}'
  curl {origin}/control/subscribe --json '{{\"event\":\"{event}\",\"target\":\"http://127.0.0.1:8080/webhooks/…\"}}'
  curl {origin}/control/set_switches --json '{{\"switches\":\"status=503,retry_after=5\"}}'
  curl {origin}/control/deliveries -X POST
",
        api = emulator.api_url(),
        exported = emulator.exported_topic_arn(),
        digitized = emulator.digitized_topic_arn(),
        companies = account.companies.join(", "),
        exported_path = switches.company_in.preset(),
        subscribe_path = switches.subscriptions_path.as_str(),
        event = Event::OnExported,
    );
    text
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::domain::Clock;
    use crate::emulator::signer::Signer;

    fn args() -> Args {
        Args {
            listen: ([127, 0, 0, 1], 0).into(),
            switches: "company_in=query".to_owned(),
            keys: vec!["one".to_owned(), "two".to_owned()],
            companies: Vec::new(),
            allow_remote: false,
            origin: None,
        }
    }

    #[test]
    fn every_key_is_an_account_with_the_companies() {
        let settings = settings(args()).expect("good arguments");
        let keys: Vec<&str> = settings.accounts.iter().map(|a| a.key.as_str()).collect();
        assert_eq!(keys, ["one", "two"]);
        assert!(
            settings
                .accounts
                .iter()
                .all(|a| a.companies == DEFAULT_COMPANIES)
        );
    }

    #[test]
    fn a_misspelled_switch_is_a_usage_error() {
        let wrong = Args {
            switches: "company_inn=query".to_owned(),
            ..args()
        };
        assert!(settings(wrong).is_err());
    }

    #[tokio::test]
    async fn the_printed_settings_are_complete() {
        let clock = Clock::system();
        let day = std::time::Duration::from_secs(86_400);
        let signer = Signer::generate("sns.amazonaws.com", clock.now(), clock.now().after(day))
            .expect("a certificate");
        let mut settings = settings(args()).expect("good arguments");
        settings.signer = Some(Arc::new(signer));
        let account = settings.accounts[0].clone();
        let emulator = Emulator::start(settings, ([127, 0, 0, 1], 0).into())
            .await
            .expect("a free port");
        let text = offer(&emulator, &account);
        for needed in [
            format!("url = \"{}\"", emulator.api_url()),
            format!("local_origins = [\"{}\"]", emulator.origin()),
            "exported_path = \"query\"".to_owned(),
            "IVESK_WEBHOOK_API_KEY=one".to_owned(),
        ] {
            assert!(text.contains(&needed), "{needed} is missing in:\n{text}");
        }
    }
}
