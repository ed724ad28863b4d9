//! `replay`

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow};
use reqwest::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use super::outcome::{Exit, Failure};
use super::resign::{Resigner, SignOptions};
use super::{style, table};
use crate::config::is_loopback;
use crate::egress;
use crate::visible::visible;

/// Time that SNS waits for a response (AWS, "Make sure your endpoint is ready").
const SNS_TIMEOUT: Duration = Duration::from_secs(15);

/// Bytes of a response that are read at most.
const MAX_RESPONSE_BYTES: usize = 64 * 1024;

/// Arguments of `replay`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Saved messages keep their signature, so a receiver accepts them only within `sns.max_age`. --re-sign signs \
them with a temporary key and serves its certificate on this machine. It prints the setting that the \
receiver needs, and sends only to a receiver on this machine.

Exit codes: 0 all messages were accepted, 1 one was refused, 2 wrong use, 3 the receiver could not be reached")]
pub struct Args {
    /// Saved messages, from `notifications export` or `quarantine export`
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// URL of the webhook, with its token
    #[arg(long, value_name = "URL", value_parser = parse_url)]
    to: Url,
    /// Number of times to send each file
    #[arg(long, default_value_t = 1, value_name = "N")]
    count: u32,
    /// Sign again; only for a receiver on this machine
    #[arg(long)]
    re_sign: bool,
    /// With --re-sign: use a new MessageId and Timestamp each time
    #[arg(long, requires = "re_sign")]
    fresh: bool,
    /// With --re-sign: port to serve the certificate on; 0 for any free port
    #[arg(
        long,
        default_value_t = 4599,
        requires = "re_sign",
        value_name = "PORT"
    )]
    sign_port: u16,
}

/// The receiver's response to one message.
enum Response {
    /// The status, and the code of the problem if there is one.
    Status(StatusCode, String),
    /// There was none; the text says why.
    Unreachable(String),
}

fn parse_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).ok().filter(|url| url.host().is_some());
    url.ok_or_else(|| "write it in full, from http:// or https:// on".to_owned())
}

/// Runs `replay`.
pub async fn run(args: Args) -> Result<Exit, Failure> {
    if !matches!(args.to.scheme(), "http" | "https") {
        return Err(Failure::usage(anyhow!("--to must be an http or https URL")));
    }
    let resigner = if args.re_sign {
        if !is_loopback(&args.to) {
            return Err(Failure::usage(anyhow!(
                "--re-sign sends only to a receiver on this machine: a re-signed message is a forgery"
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
            "Add this to the [sns] settings of the receiver:\nlocal_origins = [\"{}\"]\n",
            resigner.origin()
        );
    }
    let messages = args
        .files
        .iter()
        .map(|path| Ok((path.as_path(), read(path)?)))
        .collect::<Result<Vec<_>, Failure>>()?;

    let client = egress::client(None, SNS_TIMEOUT)?;
    let mut responses = Vec::new();
    for (path, saved) in &messages {
        for _ in 0..args.count {
            let body = match &resigner {
                Some(resigner) => resigner
                    .sign(saved)
                    .with_context(|| path.display().to_string())
                    .map_err(Failure::usage)?,
                None => saved.clone(),
            };
            responses.push((*path, send(&client, &args.to, body).await));
        }
    }
    print_responses(&responses);
    Ok(exit(&responses))
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path)
        .with_context(|| format!("failed to read {}", path.display()))
        .map_err(Failure::usage)
}

/// What SNS repeats in headers of a message.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Named {
    #[serde(rename = "Type")]
    message_type: Option<String>,
    message_id: Option<String>,
    topic_arn: Option<String>,
}

/// The problem with which a receiver refuses a message.
#[derive(Default, Deserialize)]
struct Problem {
    #[serde(default)]
    code: String,
}

/// Posts one body with the headers that SNS sends (AWS, "HTTP/HTTPS headers").
async fn send(client: &reqwest::Client, to: &Url, body: Vec<u8>) -> Response {
    let mut request = client
        .post(to.clone())
        .header("content-type", "text/plain; charset=UTF-8");
    let named: Named = serde_json::from_slice(&body).unwrap_or_default();
    for (header, value) in [
        ("x-amz-sns-message-type", named.message_type),
        ("x-amz-sns-message-id", named.message_id),
        ("x-amz-sns-topic-arn", named.topic_arn),
    ] {
        if let Some(value) = value {
            request = request.header(header, value);
        }
    }
    match request.body(body).send().await {
        Ok(response) => {
            let status = response.status();
            let body = egress::read_body(response, MAX_RESPONSE_BYTES)
                .await
                .unwrap_or_default();
            let problem: Problem = serde_json::from_slice(&body).unwrap_or_default();
            Response::Status(status, visible(&problem.code).into_owned())
        }
        // Also for a message whose fields are no valid header: SNS could not send it either.
        Err(error) => Response::Unreachable(egress::describe(error)),
    }
}

fn print_responses(responses: &[(&Path, Response)]) {
    if style::is_json() {
        let rows = responses.iter().map(|(path, response)| match response {
            Response::Status(status, code) => {
                json!({"file": path, "status": status.as_u16(), "code": code})
            }
            Response::Unreachable(error) => json!({"file": path, "error": error}),
        });
        println!("{}", rows.collect::<Value>());
        return;
    }
    let mut table = table::new(["file", "status", "code"]);
    for (path, response) in responses {
        let (status, code) = match response {
            Response::Status(status, code) => (status.as_u16().to_string(), code.clone()),
            Response::Unreachable(error) => ("none".to_owned(), error.clone()),
        };
        table.add_row([path.display().to_string(), status, code]);
    }
    println!("{table}");
}

fn exit(responses: &[(&Path, Response)]) -> Exit {
    let mut exit = Exit::Done;
    for (_, response) in responses {
        match response {
            Response::Unreachable(_) => return Exit::Unreachable,
            Response::Status(status, _) if !status.is_success() => exit = Exit::Failed,
            Response::Status(..) => {}
        }
    }
    exit
}
