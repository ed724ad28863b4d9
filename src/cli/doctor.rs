//! `doctor`

use axum::http::{Method, StatusCode};
use serde_json::json;

use super::account::chosen_account;
use super::globals::Globals;
use super::logging;
use super::outcome::{Exit, Failure};
use super::server::RunningServer;
use crate::config::Config;
use crate::doctor::{Finding, Verdict, destinations, inside, outside, probe};
use crate::domain::{Clock, Company};
use crate::receiver::challenge::Challenge;
use crate::service::open_store_for_reading;

/// Arguments of `doctor`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Checks the settings, the clock, the store, the disk, the connections to SNS and Įvesk.lt, and the API keys. If
`serve` runs, also checks that requests to `public.url` reach this process unchanged, without a redirect or a
login, the certificate, a body of 1.6 MB, and the time limits for senders that stall (up to 35 s).
Nothing is changed or stored.

Exit codes: 0 all checks passed, 1 a check failed, 2 the settings are wrong, 3 a service could not be reached and
no check failed")]
pub struct Args {
    /// Find `api.exported_path` (read-only), with the code of a company that has exported documents
    #[arg(long, value_name = "CODE")]
    company: Option<String>,
    /// Account to find it with; optional if there is only one
    #[arg(long, requires = "company")]
    account: Option<String>,
    /// Skip the checks that take long
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
            let findings = error.problems.iter().map(|problem| {
                Finding::wrong("settings", problem.to_string())
                    .because("`serve` does not start with it")
            });
            print(&findings.collect::<Vec<_>>(), args.json);
            return Ok(Exit::Usage);
        }
    };
    logging::start(&config.log)?;
    let clock = Clock::system();
    let mut findings = inside::settings(&config);
    let server = RunningServer::find(&config).await?;
    match &server {
        Some(server) => findings.extend(running(server, &config).await?),
        None => {
            findings.extend(inside::store(&config).await);
            findings.extend(inside::listeners(&config).await);
        }
    }
    findings.extend(inside::way_to_sns(&config, &clock).await);
    findings.extend(inside::keys(&config).await);
    findings.extend(destinations::openings(&config, &clock));
    findings.extend(destination_states(&config).await);
    if let Some(code) = &args.company {
        let company = Company::parse(code).map_err(Failure::usage)?;
        let account = chosen_account(args.account.as_deref(), &config)?;
        if let Some(key) = &config.accounts[&account].api_key {
            let probed = probe::exported_path(&config.api, key, &company).await;
            // The probe's finding replaces the one that is made without a request.
            let probed_path = probed
                .iter()
                .any(|finding| finding.check == "exported_path");
            findings.retain(|finding| !probed_path || finding.check != "exported_path");
            findings.extend(probed);
        }
    }
    match &server {
        Some(server) => {
            let challenge = challenge(server).await?;
            let now = clock.now();
            findings.extend(outside::checks(&config, &challenge, now, !args.quick).await);
        }
        None => findings.push(
            Finding::wrong("server", "no `serve` runs with these settings")
                .because("no message is received, and `public.url` can't be checked")
                .fix("start `ivesk-webhook serve`, then run `ivesk-webhook doctor` again"),
        ),
    }
    print(&findings, args.json);
    Ok(exit(&findings))
}

/// Returns findings from the running server's own status.
async fn running(server: &RunningServer, config: &Config) -> Result<Vec<Finding>, Failure> {
    let (status, answer) = server
        .call(Method::GET, "/v1/status", None)
        .await
        .map_err(Failure::unreachable)?;
    if status != StatusCode::OK || answer["ready"] != true {
        let reason = answer["reason"].as_str().or(answer["code"].as_str());
        let reason = reason.unwrap_or("no reason given");
        return Ok(vec![
            Finding::wrong(
                "server",
                format!("`serve` runs but refuses messages: {reason}"),
            )
            .because("SNS receives 503 and gives up after about half an hour")
            .fix("see its log; docs/operating.md explains the reasons"),
        ]);
    }
    let version = answer["version"].as_str().unwrap_or_default();
    let mut findings = vec![Finding::ok(
        "server",
        format!("`serve` {version} runs and accepts messages"),
    )];
    let stored = &answer["sequence"]["last"];
    findings.push(Finding::ok(
        "store",
        format!("contains {stored} document versions"),
    ));
    if let Some(free) = answer["free_bytes"].as_u64() {
        findings.push(inside::disk(free, config.store.min_free_bytes));
    }
    Ok(findings)
}

/// Returns findings about destinations; none if the store is missing or can't be read.
async fn destination_states(config: &Config) -> Vec<Finding> {
    if config.destinations.is_empty() {
        return Vec::new();
    }
    let Ok(store) = open_store_for_reading(config).await else {
        return Vec::new();
    };
    let findings = destinations::standing(config, store.as_ref()).await;
    // The store was only read, so a failed close loses nothing.
    let _ = store.close().await;
    findings.unwrap_or_default()
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

fn exit(findings: &[Finding]) -> Exit {
    let any = |verdict| findings.iter().any(|finding| finding.verdict == verdict);
    if any(Verdict::Wrong) {
        Exit::Failed
    } else if any(Verdict::Unreachable) {
        Exit::Unreachable
    } else {
        Exit::Done
    }
}

fn print(findings: &[Finding], as_json: bool) {
    if as_json {
        println!("{}", json!({ "findings": findings }));
        return;
    }
    for finding in findings {
        let word = match finding.verdict {
            Verdict::Ok => "ok",
            Verdict::Note => "note",
            Verdict::Skipped => "skipped",
            Verdict::Unreachable => "NO ANSWER",
            Verdict::Wrong => "WRONG",
        };
        println!("{word:<9} {}: {}", finding.check, finding.found);
        if let Some(why) = finding.why {
            println!("{:<9}   why: {why}", "");
        }
        if let Some(fix) = &finding.fix {
            println!("{:<9}   fix: {fix}", "");
        }
    }
}
