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
Looks from inside: settings, clock, store, disk, the ways to SNS and to Įvesk.lt, the key. Then from outside,
through `public.url`, where `serve` runs: whether it leads to that very process, unchanged and without redirect
or login, its certificate, a body of 1.6 MB, and what becomes of senders that stall (up to 35 s; not with --quick).
With --company, finds the preset of `api.exported_path`, read-only.
Nothing is changed and nothing is stored. Exit codes: 0 nothing is wrong, 1 something is, 2 the settings can't be
used, 3 something does not answer and nothing else is wrong.")]
pub struct Args {
    /// Find `api.exported_path` with this company's code, one that has exported documents
    #[arg(long, value_name = "CODE")]
    company: Option<String>,
    /// Whose key to find it with; needed where several accounts are configured
    #[arg(long, requires = "company")]
    account: Option<String>,
    /// Leave out what takes long
    #[arg(long)]
    quick: bool,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// Runs `doctor`.
pub async fn run(args: Args, globals: &Globals) -> Result<Exit, Failure> {
    let config = match Config::load(&globals.config, &globals.environment) {
        Ok(config) => config,
        Err(error) => {
            let wrong = error.problems.iter().map(|problem| {
                Finding::wrong("settings", problem.to_string())
                    .because("`serve` does not start with it")
            });
            print(&wrong.collect::<Vec<_>>(), args.json);
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
    findings.extend(standing(&config).await);
    if let Some(code) = &args.company {
        let company = Company::parse(code).map_err(Failure::usage)?;
        let account = chosen_account(args.account.as_deref(), &config)?;
        if let Some(key) = &config.accounts[&account].api_key {
            let probed = probe::exported_path(&config.api, key, &company).await;
            // What was said before, without having asked, is said better.
            let decided = probed
                .iter()
                .any(|finding| finding.check == "exported_path");
            findings.retain(|finding| !decided || finding.check != "exported_path");
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
                .because("nothing is received, and the way in from outside can't be tried")
                .fix("start `ivesk-webhook serve`, then run this again"),
        ),
    }
    print(&findings, args.json);
    Ok(exit(&findings))
}

/// What the server says of itself and of its store.
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
                format!("`serve` runs and takes no messages: {reason}"),
            )
            .because("SNS is answered 503 and gives up after about half an hour")
            .fix("its log says why; docs/operating.md lists the reasons"),
        ]);
    }
    let version = answer["version"].as_str().unwrap_or_default();
    let mut findings = vec![Finding::ok(
        "server",
        format!("`serve` {version} runs and takes messages"),
    )];
    let stored = &answer["sequence"]["last"];
    findings.push(Finding::ok(
        "store",
        format!("it holds {stored} document versions"),
    ));
    if let Some(free) = answer["free_bytes"].as_u64() {
        findings.push(inside::disk(free, config.store.min_free_bytes));
    }
    Ok(findings)
}

/// How the destinations stand; nothing where there is no store yet, or it can't be read.
async fn standing(config: &Config) -> Vec<Finding> {
    if config.destinations.is_empty() {
        return Vec::new();
    }
    let Ok(store) = open_store_for_reading(config).await else {
        return Vec::new();
    };
    let findings = destinations::standing(config, store.as_ref()).await;
    // It was read only; nothing can be lost.
    let _ = store.close().await;
    findings.unwrap_or_default()
}

async fn challenge(server: &RunningServer) -> Result<Challenge, Failure> {
    let (_, answer) = server
        .call(Method::POST, "/v1/challenge", Some(&json!({})))
        .await
        .map_err(Failure::unreachable)?;
    serde_json::from_value(answer).map_err(|_| {
        anyhow::anyhow!("the running server gives no challenge; is it an older version? Restart it")
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
