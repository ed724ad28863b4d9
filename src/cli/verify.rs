//! `verify`

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bytes::Bytes;
use serde::Serialize;

use super::globals::{Globals, SYSTEM_FILE};
use super::outcome::{Exit, Failure};
use super::table;
use crate::config::{Config, SnsConfig};
use crate::domain::{Clock, Timestamp};
use crate::sns::{
    CertificateSummary, Envelope, MAX_BODY_BYTES, SavedMessages, SnsHeaders, Verifier, VerifyError,
};

/// Arguments of `verify`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit codes: 0 all messages are valid, 1 one is invalid, 2 wrong use, or a file can't be read")]
pub struct Args {
    /// Print one JSON object per line for each file
    #[arg(long)]
    json: bool,
    /// Read certificates from this folder, by the last segment of their URL, and fetch none
    #[arg(long, value_name = "DIR")]
    certs: Option<PathBuf>,
    /// Verify as of this moment [default: now]
    #[arg(long, value_name = "RFC3339", value_parser = moment)]
    at: Option<Timestamp>,
    /// Accept messages of any topic, not only of those in `sns.topics`
    #[arg(long)]
    any_topic: bool,
    /// Saved messages: the bodies as received; `-` for standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

fn moment(text: &str) -> Result<Timestamp, String> {
    Timestamp::parse(text)
        .ok_or_else(|| "expected a date and time such as 2022-07-29T00:00:00Z".to_owned())
}

/// Runs `verify`.
///
/// # Errors
///
/// If the folder of certificates does not exist, or the result can't be written. A file
/// that can't be read is reported on standard error, and the others are verified.
pub async fn run(args: Args, globals: &Globals) -> Result<Exit, Failure> {
    if let Some(folder) = &args.certs
        && !folder.is_dir()
    {
        return Err(Failure::usage(anyhow::anyhow!(
            "--certs {}: no such folder",
            folder.display()
        )));
    }
    let clock = args.at.map_or_else(Clock::system, Clock::manual);
    let saved = SavedMessages {
        certificates: args.certs,
        any_topic: args.any_topic,
    };
    let verifier = Verifier::for_saved(&sns_settings(globals)?.settings(), saved, clock)?;

    let mut verdicts = Vec::with_capacity(args.files.len());
    let mut all_read = true;
    for file in &args.files {
        match read(file) {
            Ok(body) => {
                let verdict = verify(&verifier, file, body).await;
                if args.json {
                    print_line(&verdict)?;
                }
                verdicts.push(verdict);
            }
            Err(error) => {
                Failure::usage(error).print(args.json);
                all_read = false;
            }
        }
    }
    if !args.json && !verdicts.is_empty() {
        print_table(&verdicts);
    }
    Ok(if !all_read {
        Exit::Usage
    } else if verdicts.iter().all(FileVerdict::is_valid) {
        Exit::Done
    } else {
        Exit::Failed
    })
}

/// Returns the trusted topics of the settings file, or the defaults if there is no file.
fn sns_settings(globals: &Globals) -> Result<SnsConfig, Failure> {
    // A service's settings that this user may not read are none of theirs.
    let is_readable = match &globals.config {
        system if system == Path::new(SYSTEM_FILE) => std::fs::File::open(system).is_ok(),
        other => other.exists(),
    };
    if !globals.config_is_named && !is_readable {
        return Ok(SnsConfig::default());
    }
    let config = Config::load(&globals.config, &globals.environment).map_err(Failure::usage)?;
    Ok(config.sns)
}

/// The result for one file. The JSON names are part of the command's contract.
#[derive(Debug, Serialize)]
struct FileVerdict {
    file: String,
    verdict: &'static str,
    reason: Option<&'static str>,
    #[serde(rename = "type")]
    message_type: Option<&'static str>,
    message_id: Option<String>,
    topic_arn: Option<String>,
    certificate: Option<CertificateSummary>,
    /// The text for people.
    #[serde(skip)]
    explanation: Option<VerifyError>,
}

impl FileVerdict {
    fn is_valid(&self) -> bool {
        self.reason.is_none()
    }

    fn verdict_cell(&self) -> String {
        match &self.explanation {
            None => self.verdict.to_owned(),
            Some(error) => format!("{}: {}: {error}", self.verdict, error.code()),
        }
    }

    fn message_cell(&self) -> String {
        let parts = [
            self.message_type,
            self.message_id.as_deref(),
            self.topic_arn.as_deref(),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }

    fn refused_by(mut self, error: VerifyError) -> Self {
        self.verdict = "invalid";
        self.reason = Some(error.code());
        self.explanation = Some(error);
        self
    }
}

async fn verify(verifier: &Verifier, file: &Path, body: Bytes) -> FileVerdict {
    let mut verdict = FileVerdict {
        file: file.display().to_string(),
        verdict: "valid",
        reason: None,
        message_type: None,
        message_id: None,
        topic_arn: None,
        certificate: None,
        explanation: None,
    };
    let envelope = match Envelope::parse(body, &SnsHeaders::default()) {
        Ok(envelope) => envelope,
        Err(error) => return verdict.refused_by(error),
    };
    verdict.message_type = Some(envelope.message_type().as_str());
    verdict.message_id = Some(envelope.message_id().to_owned());
    verdict.topic_arn = Some(envelope.topic_arn().to_owned());
    let certificate_url = envelope.certificate_url().to_owned();
    match verifier.verify(envelope).await {
        Ok(message) => {
            verdict.certificate = Some(message.certificate().clone());
            verdict
        }
        Err(error) => {
            verdict.certificate = verifier.known_certificate(&certificate_url);
            verdict.refused_by(error)
        }
    }
}

/// Reads a message, but at most one byte more than is allowed.
fn read(file: &Path) -> anyhow::Result<Bytes> {
    if file == Path::new("-") {
        return read_bounded(io::stdin().lock()).context("failed to read standard input");
    }
    let context = || format!("failed to read {}", file.display());
    let open = std::fs::File::open(file).with_context(context)?;
    read_bounded(open).with_context(context)
}

fn read_bounded(source: impl Read) -> io::Result<Bytes> {
    let mut body = Vec::new();
    source
        .take(MAX_BODY_BYTES as u64 + 1)
        .read_to_end(&mut body)?;
    Ok(body.into())
}

fn print_line(verdict: &FileVerdict) -> anyhow::Result<()> {
    let line = serde_json::to_string(verdict).context("failed to write a result as JSON")?;
    println!("{line}");
    Ok(())
}

fn print_table(verdicts: &[FileVerdict]) {
    let mut table = table::new(["file", "verdict", "message", "certificate"]);
    for verdict in verdicts {
        table.add_row([
            verdict.file.clone(),
            verdict.verdict_cell(),
            verdict.message_cell(),
            verdict
                .certificate
                .as_ref()
                .map_or_else(String::new, certificate_cell),
        ]);
    }
    println!("{table}");
}

fn certificate_cell(certificate: &CertificateSummary) -> String {
    format!(
        "{}, {} to {}",
        certificate.subject, certificate.not_before, certificate.not_after
    )
}
