//! `replay`

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow};
use reqwest::StatusCode;
use serde_json::Value;
use url::Url;

use super::outcome::{Exit, Failure};
use super::resign::{Resigner, SignOptions};
use super::table;
use crate::config::is_loopback;
use crate::egress;

/// How long SNS waits for an answer (AWS, "Make sure your endpoint is ready").
const SNS_TIMEOUT: Duration = Duration::from_secs(15);

/// The most of an answer that is read.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// Arguments of `replay`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Saved messages keep their signature, so a receiver accepts them while `sns.max_age` allows. --re-sign
signs them anew with a key of its own and serves its certificate on this machine; the receiver under
test needs the line that is printed, and nothing but a receiver on this machine is spoken to.

Exit codes: 0 every answer was a success, 1 one was not, 2 wrong use, 3 nobody answered")]
pub struct Args {
    /// Saved bodies, as `notifications export` and `quarantine export` write them
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The webhook, with its token
    #[arg(long, value_name = "URL")]
    to: Url,
    /// Send each file so many times
    #[arg(long, default_value_t = 1, value_name = "N")]
    count: u32,
    /// Sign anew; for a receiver on this machine alone
    #[arg(long)]
    re_sign: bool,
    /// With --re-sign: a new MessageId and Timestamp each time
    #[arg(long, requires = "re_sign")]
    fresh: bool,
    /// With --re-sign: where the certificate is served; 0 takes any free port
    #[arg(
        long,
        default_value_t = 4599,
        requires = "re_sign",
        value_name = "PORT"
    )]
    sign_port: u16,
}

/// How one delivery was answered.
enum Fate {
    Answered(StatusCode, String),
    Unreachable(String),
}

/// Runs `replay`.
pub async fn run(args: Args) -> Result<Exit, Failure> {
    if !matches!(args.to.scheme(), "http" | "https") {
        return Err(Failure::usage(anyhow!("--to takes an http or https URL")));
    }
    let resigner = if args.re_sign {
        if !is_loopback(&args.to) {
            return Err(Failure::usage(anyhow!(
                "--re-sign speaks to receivers on this machine only: a re-signed message is a forged one"
            )));
        }
        let options = SignOptions {
            port: args.sign_port,
            fresh: args.fresh,
        };
        Some(Resigner::start(options).await?)
    } else {
        None
    };
    if let Some(resigner) = &resigner {
        eprintln!(
            "The receiver under test needs this in its [sns] settings:\nlocal_origins = [\"{}\"]\n",
            resigner.origin()
        );
    }
    let messages = args
        .files
        .iter()
        .map(|path| Ok((path.as_path(), read(path)?)))
        .collect::<Result<Vec<_>, Failure>>()?;

    let client = egress::client(SNS_TIMEOUT)?;
    let mut answers = Vec::new();
    for (path, saved) in &messages {
        for _ in 0..args.count {
            let body = match &resigner {
                Some(resigner) => resigner
                    .sign_anew(saved)
                    .with_context(|| path.display().to_string())
                    .map_err(Failure::usage)?,
                None => saved.clone(),
            };
            answers.push((*path, send(&client, &args.to, body).await));
        }
    }
    print_answers(&answers);
    Ok(verdict(&answers))
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path)
        .with_context(|| format!("{} can't be read", path.display()))
        .map_err(Failure::usage)
}

/// Posts one body with the headers that SNS sends (AWS, "HTTP/HTTPS headers").
async fn send(client: &reqwest::Client, to: &Url, body: Vec<u8>) -> Fate {
    let mut request = client
        .post(to.clone())
        .header("content-type", "text/plain; charset=UTF-8");
    let message: Value = serde_json::from_slice(&body).unwrap_or_default();
    for (header, field) in [
        ("x-amz-sns-message-type", "Type"),
        ("x-amz-sns-message-id", "MessageId"),
        ("x-amz-sns-topic-arn", "TopicArn"),
    ] {
        if let Some(value) = message[field].as_str() {
            request = request.header(header, value);
        }
    }
    match request.body(body).send().await {
        Ok(response) => {
            let status = response.status();
            let answer = egress::read_body(response, MAX_ANSWER_BYTES)
                .await
                .unwrap_or_default();
            let problem: Value = serde_json::from_slice(&answer).unwrap_or_default();
            Fate::Answered(status, table::cell(&problem["code"]))
        }
        // A header that can't be sent is of a message that no receiver could get.
        Err(error) => Fate::Unreachable(egress::describe(error)),
    }
}

fn print_answers(answers: &[(&Path, Fate)]) {
    let mut table = table::new(["file", "answer", "code"]);
    for (path, fate) in answers {
        let (answer, code) = match fate {
            Fate::Answered(status, code) => (status.as_u16().to_string(), code.clone()),
            Fate::Unreachable(why) => ("none".to_owned(), why.clone()),
        };
        table.add_row([path.display().to_string(), answer, code]);
    }
    println!("{table}");
}

fn verdict(answers: &[(&Path, Fate)]) -> Exit {
    let unreachable = |(_, fate): &(&Path, Fate)| matches!(fate, Fate::Unreachable(_));
    let refused = |(_, fate): &(&Path, Fate)| matches!(fate, Fate::Answered(status, _) if !status.is_success());
    if answers.iter().any(unreachable) {
        Exit::Unreachable
    } else if answers.iter().any(refused) {
        Exit::Failed
    } else {
        Exit::Done
    }
}
