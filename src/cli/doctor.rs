//! `doctor`

use std::io::IsTerminal as _;

use serde_json::json;

use super::account::chosen_account;
use super::globals::Globals;
use super::logging;
use super::outcome::{Exit, Failure};
use super::server::{RunningServer, SETTINGS_CHANGED, is_of};
use super::style::{BAD, GOOD, NOTE, styled};
use crate::api::NoFields;
use crate::api::doctor::{Checks, DoctorRequest};
use crate::api::status::Status;
use crate::config::Config;
use crate::doctor::{self, Check, CheckResult, inside, outside};
use crate::domain::{Account, Clock, Company};
use crate::receiver::challenge::Challenge;
use crate::refusal::Refusal;
use crate::service::open_store_for_reading;
use crate::visible::visible_lines;

/// Arguments of `doctor`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Checks the settings, the clock, the store, the disk, the connections to SNS and Įvesk.lt, the API keys, the drop \
folder, and the subscriptions, feeds and destinations. A running server makes these checks itself, with its own keys and rights. If \
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
                    .fix("follow the message, then run this again")
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
    if !args.json && std::io::stderr().is_terminal() {
        note!(
            "Checking{}…",
            if args.quick {
                ""
            } else {
                ", which takes up to 35 s"
            }
        );
    }
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
    let request = DoctorRequest {
        account: company.map(|(account, _)| account.to_string()),
        company: company.map(|(_, company)| company.to_string()),
    };
    let answer = server.post("/v1/doctor", &request).await?;
    match answer.result() {
        Ok(Checks { checks }) => Ok(checks),
        Err(failure) => {
            let problem = failure.message();
            Ok(vec![
                Check::fail(
                    "server",
                    format!("`serve` runs, but can't check itself: {problem}"),
                )
                .because("its keys, destinations and feeds were not checked")
                .fix("restart it if it is of another version, then run this again"),
            ])
        }
    }
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
    let not_ready = |reason: &str, fault: Option<&str>| {
        let is_nearly_full = fault.is_none() && reason == Refusal::DiskNearlyFull.code();
        let fix = match is_nearly_full {
            true => inside::DISK_FIX,
            false => "follow the message; docs/operating.md explains the reasons",
        };
        let fault = fault.map(|fault| format!(": {fault}")).unwrap_or_default();
        vec![
            Check::fail(
                "server",
                format!("`serve` runs, but accepts no messages ({reason}){fault}"),
            )
            .because("SNS receives 503 and gives up after about half an hour")
            .fix(fix),
        ]
    };
    let answer = server.get("/v1/status").await?;
    // Even the status can't be read.
    if let Some(problem) = answer.problem() {
        return Ok(not_ready(&problem.code, Some(&problem.title)));
    }
    let status: Status = answer.result()?;
    if !status.ready {
        let reason = status.reason.as_deref().unwrap_or("no reason recorded");
        return Ok(not_ready(reason, status.store_fault.as_deref()));
    }
    let mut checks = vec![Check::pass(
        "server",
        format!("`serve` {} runs and accepts messages", status.version),
    )];
    checks.push(match &status.damage {
        None => Check::pass(
            "store",
            format!("the store holds {} document versions", status.sequence.last),
        ),
        Some(damage) => inside::damaged(damage),
    });
    if let Some(free) = status.free_bytes {
        checks.push(inside::disk(free, config.store.min_free_bytes));
    }
    if !is_of(&status, config) {
        let (found, fix) = SETTINGS_CHANGED;
        checks.push(
            Check::fail("settings", found)
                .because("what this report says of the settings may be of the new ones")
                .fix(fix),
        );
    }
    Ok(checks)
}

/// Checks what reached the running server and no webhook.
async fn unexpected_requests(server: &RunningServer) -> Result<Vec<Check>, Failure> {
    let answer = server.get("/v1/status").await?;
    // A server whose store can't be read, or of another version, shows none.
    let counts = answer
        .result()
        .map(|status: Status| status.unexpected_requests);
    Ok(inside::unexpected_requests(&counts.unwrap_or_default()))
}

async fn challenge(server: &RunningServer) -> Result<Challenge, Failure> {
    server.post("/v1/challenge", &NoFields {}).await?.result()
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
