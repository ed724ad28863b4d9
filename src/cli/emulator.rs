//! `emulator`

use std::fmt::Write as _;
use std::net::SocketAddr;

use super::outcome::{Exit, Failure, refuse_json};
use crate::domain::Event;
use crate::emulator::{
    AccountSettings, DEFAULT_COMPANIES, DEFAULT_KEY, Emulator, EmulatorSettings, Switches,
};

/// The address that `init --emulator` writes settings for.
pub(super) const LISTEN: &str = "127.0.0.1:4566";

/// The address at which the service receives in those settings.
pub(super) const EMULATED_PUBLIC: &str = "127.0.0.1:8080";

/// Arguments of `emulator`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Address to listen on
    #[arg(long, value_name = "ADDRESS", default_value = LISTEN)]
    listen: SocketAddr,
    /// Switches, such as company_in=query,ties=3; docs/emulator.md lists them
    #[arg(long, value_name = "NAME=VALUE,…", default_value = "")]
    switches: String,
    /// API key to accept; may be repeated, with one account for each [default: a fixed one, which is printed]
    #[arg(long = "key", value_name = "KEY", value_parser = parse_key)]
    keys: Vec<String>,
    /// Company code, for every key; may be repeated [default: 302320404 and 304567894]
    #[arg(long = "company", value_name = "CODE")]
    companies: Vec<String>,
    /// Allow connections from and to other machines; the emulator requires no password
    #[arg(long)]
    allow_remote: bool,
    /// Address in links, such as http://emulator:4566 [default: the address it listens on]
    #[arg(long, value_name = "URL")]
    origin: Option<String>,
}

/// Checks an API key: requests carry it in a header.
fn parse_key(text: &str) -> Result<String, &'static str> {
    match !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(text.to_owned()),
        false => Err("a key is one or more visible ASCII characters, without spaces"),
    }
}

/// Runs `emulator`.
pub async fn run(args: Args) -> Result<Exit, Failure> {
    refuse_json("emulator")?;
    let listen = args.listen;
    let settings = settings(args)?;
    let first = settings.accounts.first().cloned();
    let emulator = Emulator::start(settings, listen)
        .await
        .map_err(Failure::usage)?;
    if let Some(account) = first {
        println!("{}", instructions(&emulator, &account));
    }
    tokio::signal::ctrl_c().await?;
    emulator.stop().await;
    Ok(Exit::Done)
}

fn settings(args: Args) -> Result<EmulatorSettings, Failure> {
    let or_default = |values: Vec<String>, default: &[&str]| {
        if values.is_empty() {
            default.iter().map(|text| (*text).to_owned()).collect()
        } else {
            values
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

/// Returns the settings to paste, and commands to try.
fn instructions(emulator: &Emulator, account: &AccountSettings) -> String {
    let (origin, key) = (emulator.origin(), &account.key);
    let company = account.companies.first().map_or("CODE", String::as_str);
    let switches = emulator.control().switches();
    let mut text = String::new();
    // Writing to a String can't fail.
    let _ = write!(
        text,
        "Emulating Įvesk.lt, SNS and S3 until Ctrl-C. Everything is kept in memory.

API       {api}   x-api-key: {key}
SNS       {origin}   topics {exported}, {digitized}
Companies {companies}

Settings in ivesk-webhook.toml, which `ivesk-webhook init --emulator` writes, with the companies, for {LISTEN} and no switches:

  [public]
  url = \"http://{EMULATED_PUBLIC}\"
  listen = \"{EMULATED_PUBLIC}\"

  [api]
  url = \"{api}\"
  exported_path = \"{exported_path}\"
  subscribe_path = \"{subscribe_path}\"
  import_error_path = \"{import_error_path}\"

  [sns]
  local_origins = [\"{origin}\"]

and in the environment: IVESK_WEBHOOK_API_KEY={key}

Commands to act as the accountant:

  curl {origin}/control/export -d '{{\"company\":\"{company}\",\"documents\":3}}'
  curl {origin}/control/digitize -d '{{\"key\":\"{key}\",\"company\":\"{company}\",\"count\":2}}'
  curl {origin}/control/subscribe -d '{{\"event\":\"{event}\",\"target\":\"http://{EMULATED_PUBLIC}/webhooks/…\"}}'
  curl {origin}/control/set_switches -d '{{\"switches\":\"status=503,retry_after=5\"}}'
  curl {origin}/control/deliveries -X POST
",
        api = emulator.api_url(),
        exported = emulator.exported_topic_arn(),
        digitized = emulator.digitized_topic_arn(),
        companies = account.companies.join(", "),
        exported_path = switches.company_in.preset(),
        subscribe_path = switches.subscriptions_path.as_str(),
        import_error_path = switches.errors_path.as_str(),
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
    fn a_misspelled_switch_is_wrong_use() {
        let wrong = Args {
            switches: "company_inn=query".to_owned(),
            ..args()
        };
        assert!(settings(wrong).is_err());
    }

    #[tokio::test]
    async fn the_instructions_hold_the_settings_to_paste() {
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
        let text = instructions(&emulator, &account);
        for needed in [
            format!("url = \"{}\"", emulator.api_url()),
            format!("local_origins = [\"{}\"]", emulator.origin()),
            "[public]\n  url = \"http://127.0.0.1:8080\"\n  listen = \"127.0.0.1:8080\"".to_owned(),
            "exported_path = \"query\"".to_owned(),
            "import_error_path = \"/errors\"".to_owned(),
            "IVESK_WEBHOOK_API_KEY=one".to_owned(),
        ] {
            assert!(text.contains(&needed), "{needed} is missing in:\n{text}");
        }
        emulator
            .control()
            .set_switches("company_in=path")
            .expect("a switch");
        let text = instructions(&emulator, &account);
        let text = text.replace(&emulator.origin(), &format!("http://{LISTEN}"));
        let (_, settings) = text.split_once("\nSettings").expect("the settings");
        let (settings, _) = settings.split_once("\nand in").expect("their end");
        let guide = include_str!("../../docs/first-hour.md");
        assert!(guide.contains(settings), "{settings}");
    }
}
