//! `doctor`

use axum::http::{Method, StatusCode};
use serde_json::json;

use super::account::chosen_account;
use super::globals::Globals;
use super::logging;
use super::outcome::{Exit, Failure};
use super::server::RunningServer;
use crate::config::Config;
use crate::doctor::{
    Check, CheckResult, destinations, feeds, inside, notifications, outside, probe, subscriptions,
};
use crate::domain::{Clock, Company};
use crate::receiver::challenge::Challenge;
use crate::service::open_store_for_reading;
use crate::visible::visible_lines;

/// Arguments of `doctor`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Checks the settings, the clock, the store, the disk, the connections to SNS and Įvesk.lt, the API keys, and the \
subscriptions. If \
`serve` runs, also checks `public.url`: that requests reach this process unchanged, without a redirect or a login; \
the certificate; a body of 1.6 MB; and the time limits for senders that stall (up to 35 s).
Nothing is changed or stored.

Exit codes: 0 all checks passed, 1 a check failed, 2 the settings are invalid, 3 a service could not be reached and \
no check failed")]
pub struct Args {
    /// Find `api.exported_path` (read-only), with the code of a company that has exported documents
    #[arg(long, value_name = "CODE")]
    company: Option<String>,
    /// Account of the company; optional if there is only one
    #[arg(long, requires = "company")]
    account: Option<String>,
    /// Skip the slow checks
    #[arg(long)]
    quick: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs `doctor`.
pub async fn run(args: Args, globals: &Globals) -> Result<Exit, Failure> {
    let config = match Config::load(&globals.config, &globals.environment) {
        Ok(config) => config,
        Err(error) => {
            let wrong = error.problems.iter().map(|problem| {
                Check::fail("settings", problem.to_string())
                    .because("`serve` does not start with it")
            });
            print(&wrong.collect::<Vec<_>>(), args.json);
            return Ok(Exit::Usage);
        }
    };
    logging::start(&config.log)?;
    let clock = Clock::system();
    let mut checks = inside::settings(&config);
    let server = match RunningServer::find(&config).await {
        Ok(server) => server,
        Err(failure) => {
            checks.push(Check::fail("server", failure.message()).because(
                "subcommands can't reach the server, and the public address can't be checked",
            ));
            None
        }
    };
    match &server {
        Some(server) => checks.extend(running(server, &config).await?),
        None => {
            checks.extend(inside::store(&config).await);
            checks.extend(inside::listeners(&config).await);
        }
    }
    let https = inside::https(&config);
    match &https {
        Ok(client) => {
            checks.extend(inside::sns(client, &config, &clock).await);
            checks.extend(inside::api_keys(&config).await);
        }
        Err(failed) => checks.push(failed.clone()),
    }
    checks.extend(destinations::settings(&config, &clock));
    checks.extend(stored_state(&config, &clock).await);
    if let Some(code) = &args.company
        && https.is_ok()
    {
        find_exported_path(code, &args, &config, &mut checks).await?;
    }
    match &server {
        Some(server) => {
            if https.is_ok() {
                let challenge = challenge(server).await?;
                let now = clock.now();
                checks.extend(outside::checks(&config, &challenge, now, !args.quick).await);
            }
            // Last, so that it explains what the requests from outside met.
            checks.extend(unexpected_requests(server).await?);
        }
        None if checks.iter().any(|check| check.check == "server") => {}
        None => checks.push(
            Check::fail("server", "no `serve` runs with these settings")
                .because("no message is received, and the public address can't be checked")
                .fix("start `ivesk-webhook serve`, then run this again"),
        ),
    }
    print(&checks, args.json);
    Ok(exit(&checks))
}

/// Finds the exported queue's path for the company `code`.
async fn find_exported_path(
    code: &str,
    args: &Args,
    config: &Config,
    checks: &mut Vec<Check>,
) -> Result<(), Failure> {
    let company = Company::parse(code).map_err(Failure::usage)?;
    if let Some(doubt) = company.doubt() {
        checks.push(
            Check::note("company_code", doubt.to_string())
                .because("Įvesk.lt has no documents of a company that it does not know")
                .fix("run this again with the right code"),
        );
    }
    let account = chosen_account(args.account.as_deref(), config)?;
    if let Some(key) = &config.accounts[&account].api_key {
        let probed = probe::exported_path(&config.api, key, &company).await;
        // Replaces the check of the settings alone.
        let decided = probed.iter().any(|check| check.check == "exported_path");
        checks.retain(|check| !decided || check.check != "exported_path");
        checks.extend(probed);
    }
    Ok(())
}

/// Checks the running server and its store.
async fn running(server: &RunningServer, config: &Config) -> Result<Vec<Check>, Failure> {
    let (status, answer) = server
        .call(Method::GET, "/v1/status", None)
        .await
        .map_err(Failure::unreachable)?;
    if status != StatusCode::OK || answer["ready"] != true {
        let reason = answer["reason"].as_str().or(answer["code"].as_str());
        let reason = reason.unwrap_or("no reason recorded");
        // The title is that of a problem, if even the status can't be read.
        let fault = answer["store_fault"].as_str().or(answer["title"].as_str());
        let fault = fault.map(|fault| format!(": {fault}")).unwrap_or_default();
        return Ok(vec![
            Check::fail(
                "server",
                format!("`serve` runs, but accepts no messages ({reason}){fault}"),
            )
            .because("SNS receives 503 and gives up after about half an hour")
            .fix("follow the message; docs/operating.md explains the reasons"),
        ]);
    }
    let version = answer["version"].as_str().unwrap_or_default();
    let mut checks = vec![Check::pass(
        "server",
        format!("`serve` {version} runs and accepts messages"),
    )];
    let stored = &answer["sequence"]["last"];
    checks.push(match answer["damage"].as_str() {
        None => Check::pass(
            "store",
            format!("the store holds {stored} document versions"),
        ),
        Some(damage) => inside::damaged(damage),
    });
    if let Some(free) = answer["free_bytes"].as_u64() {
        checks.push(inside::disk(free, config.store.min_free_bytes));
    }
    Ok(checks)
}

/// Checks what reached the running server and no webhook.
async fn unexpected_requests(server: &RunningServer) -> Result<Vec<Check>, Failure> {
    let (_, mut answer) = server
        .call(Method::GET, "/v1/status", None)
        .await
        .map_err(Failure::unreachable)?;
    // A server that accepts no messages, or of another version, shows none.
    let counts = serde_json::from_value::<Vec<_>>(answer["unexpected_requests"].take());
    Ok(inside::unexpected_requests(&counts.unwrap_or_default()))
}

/// Checks the state of subscriptions and destinations; returns nothing if the store can't be
/// read.
async fn stored_state(config: &Config, clock: &Clock) -> Vec<Check> {
    let Ok(store) = open_store_for_reading(config).await else {
        return Vec::new();
    };
    let of_subscriptions = subscriptions::state(config, store.as_ref(), clock.now()).await;
    let of_notifications = notifications::state(store.as_ref(), clock.now()).await;
    let of_destinations = destinations::state(config, store.as_ref()).await;
    let of_feeds = feeds::state(store.as_ref(), clock.now()).await;
    // Opened read-only, so closing can't lose anything.
    let _ = store.close().await;
    let mut checks = of_subscriptions.unwrap_or_default();
    checks.extend(of_notifications.unwrap_or_default());
    checks.extend(of_feeds.unwrap_or_default());
    checks.extend(of_destinations.unwrap_or_default());
    checks
}

async fn challenge(server: &RunningServer) -> Result<Challenge, Failure> {
    let (_, answer) = server
        .call(Method::POST, "/v1/challenge", Some(&json!({})))
        .await
        .map_err(Failure::unreachable)?;
    serde_json::from_value(answer).map_err(|_| {
        anyhow::anyhow!("the running server has another version; restart it, then run this again")
            .into()
    })
}

fn exit(checks: &[Check]) -> Exit {
    let any = |result| checks.iter().any(|check| check.result == result);
    if any(CheckResult::Fail) {
        Exit::Failed
    } else if any(CheckResult::Unreachable) {
        Exit::Unreachable
    } else {
        Exit::Done
    }
}

fn print(checks: &[Check], as_json: bool) {
    if as_json {
        println!("{}", json!({ "checks": checks }));
        return;
    }
    for check in checks {
        let result = match check.result {
            CheckResult::Pass => "pass",
            CheckResult::Note => "note",
            CheckResult::Skipped => "skipped",
            CheckResult::Unreachable => "NO ANSWER",
            CheckResult::Fail => "FAIL",
        };
        println!(
            "{result:<9} {}: {}",
            check.check,
            visible_lines(&check.found)
        );
        if let Some(why) = check.why {
            println!("{:<9}   why: {why}", "");
        }
        if let Some(fix) = &check.fix {
            println!("{:<9}   fix: {}", "", visible_lines(fix));
        }
    }
}
