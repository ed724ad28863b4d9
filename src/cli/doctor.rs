//! `doctor`

use axum::http::{Method, StatusCode};
use serde_json::json;

use super::account::chosen_account;
use super::globals::Globals;
use super::logging;
use super::outcome::{Exit, Failure};
use super::server::RunningServer;
use super::style::{BAD, GOOD, NOTE, styled};
use crate::api::doctor::Checks;
use crate::config::Config;
use crate::doctor::{self, Check, CheckResult, inside, outside};
use crate::domain::{Account, Clock, Company};
use crate::receiver::challenge::Challenge;
use crate::service::open_store_for_reading;
use crate::visible::visible_lines;

/// Arguments of `doctor`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Checks the settings, the clock, the store, the disk, the connections to SNS and Įvesk.lt, the API keys, and the \
subscriptions, feeds and destinations. A running server makes these checks itself, with its own keys and rights. If \
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
    let company = match &args.company {
        Some(code) => Some((
            chosen_account(args.account.as_deref(), &config)?,
            Company::parse(code).map_err(Failure::usage)?,
        )),
        None => None,
    };
    let mut checks = Vec::new();
    let mut found = None;
    match RunningServer::find(&config).await {
        Ok(server) => found = server,
        Err(failure) => {
            checks.push(Check::fail("server", failure.message()).because(
                "subcommands can't reach the server, and the public address can't be checked",
            ));
        }
    }
    // The running server has the keys, the rights and the network that count.
    match &found {
        Some(server) => {
            checks.extend(in_server(server, company.as_ref()).await?);
            checks.extend(running(server, &config).await?);
        }
        None => {
            checks.extend(in_this_process(&config, &clock, company.as_ref()).await);
            checks.extend(inside::store(&config, !args.quick).await);
            checks.extend(inside::listeners(&config).await);
        }
    }
    match &found {
        Some(server) => {
            match inside::https(&config) {
                Ok(_) => {
                    let challenge = challenge(server).await?;
                    let now = clock.now();
                    checks.extend(outside::checks(&config, &challenge, now, !args.quick).await);
                }
                // The server may have certificates that this process lacks.
                Err(failed) => checks.push(failed),
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

/// Returns what the running server finds in itself.
async fn in_server(
    server: &RunningServer,
    company: Option<&(Account, Company)>,
) -> Result<Vec<Check>, Failure> {
    let request = json!({
        "account": company.map(|(account, _)| account),
        "company": company.map(|(_, company)| company),
    });
    let (status, answer) = server
        .call(Method::POST, "/v1/doctor", Some(&request))
        .await
        .map_err(Failure::unreachable)?;
    if status != StatusCode::OK {
        let title = answer["title"].as_str().unwrap_or("no reason");
        return Ok(vec![
            Check::fail(
                "server",
                format!("`serve` runs, but can't check itself: {title}"),
            )
            .because("its keys, destinations and feeds were not checked")
            .fix("restart it if it is of another version, then run this again"),
        ]);
    }
    let checks: Checks = serde_json::from_value(answer).map_err(|_| another_version())?;
    Ok(checks.checks)
}

/// Returns what this process finds, with the store if there is one.
async fn in_this_process(
    config: &Config,
    clock: &Clock,
    company: Option<&(Account, Company)>,
) -> Vec<Check> {
    // Whatever keeps it from being opened has a check of its own.
    let store = open_store_for_reading(config).await.ok();
    let company = company.map(|(account, company)| (account, company));
    let checks = doctor::within(config, store.as_deref(), clock, company).await;
    if let Some(store) = store {
        // Opened read-only, so closing can't lose anything.
        let _ = store.close().await;
    }
    checks
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

async fn challenge(server: &RunningServer) -> Result<Challenge, Failure> {
    let (_, answer) = server
        .call(Method::POST, "/v1/challenge", Some(&json!({})))
        .await
        .map_err(Failure::unreachable)?;
    serde_json::from_value(answer).map_err(|_| another_version())
}

fn another_version() -> Failure {
    anyhow::anyhow!("the running server has another version; restart it, then run this again")
        .into()
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
        let (style, result) = match check.result {
            CheckResult::Pass => (GOOD, "pass"),
            CheckResult::Note => (NOTE, "note"),
            CheckResult::Skipped => (NOTE, "skipped"),
            CheckResult::Unreachable => (BAD, "NO ANSWER"),
            CheckResult::Fail => (BAD, "FAIL"),
        };
        println!(
            "{} {}: {}",
            styled(style, &format!("{result:<9}")),
            check.check,
            visible_lines(&check.found)
        );
        if let Some(why) = &check.why {
            println!("{:<9}   why: {}", "", visible_lines(why));
        }
        if let Some(fix) = &check.fix {
            println!("{:<9}   fix: {}", "", visible_lines(fix));
        }
    }
}
