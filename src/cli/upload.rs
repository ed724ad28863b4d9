//! `upload`

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::anyhow;
use async_trait::async_trait;
use futures_util::{StreamExt as _, stream};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use secrecy::SecretString;
use serde_json::{Map, Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::account::{chosen_account, no_api_key};
use super::globals::Globals;
use super::logging;
use super::outcome::{Exit, Failure};
use super::server::Api;
use crate::api::uploads::{
    ClaimResult, LocationKept, ResultRecorded, UploadClaim, UploadPlace, UploadResult,
};
use crate::backoff;
use crate::config::{Config, CorrelationKey, UploadOptions};
use crate::domain::{Clock, Timestamp, counted};
use crate::ivesk::Client;
use crate::ivesk::document::UPLOAD_MARK;
use crate::store::{NewUpload, UploadEnd};
use crate::uploads::journal::{Claim, Journal, JournalError};
use crate::uploads::watch::{self, Watcher};
use crate::uploads::{
    FileReport, Progress, UploadOutcome, UploadReport, UploadSettings, Uploader, walk,
};
use crate::visible::visible;

/// Arguments of `upload`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Each content is uploaded only once. `ivesk-webhook uploads list` shows the documents made from each file.
In folders, hidden and unfinished files (.x, ~x, x.tmp, x.part, …) are skipped.
Each file has a line, with --json a JSON object; a terminal shows a progress bar too.

Exit codes: 0 all files are uploaded, 1 a file was refused or failed, 2 a setting is missing or wrong, 3 Įvesk.lt \
or its storage could not be reached")]
pub struct Args {
    /// Files, and folders with everything in them
    #[arg(required_unless_present = "watch", value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Upload files that are put into this folder until stopped, and move them to sent/ or refused/ in it
    #[arg(long, value_name = "DIR", conflicts_with_all = ["paths", "force"])]
    watch: Option<PathBuf>,
    /// Account to upload to; optional if there is only one
    #[arg(long)]
    account: Option<String>,
    /// Upload files again that were uploaded before
    #[arg(long)]
    force: bool,
    /// Number of files to upload at once
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=16))]
    parallel: u8,
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    parameters: Parameters,
}

/// The parameters of each upload; they override `upload.parameters`.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Parameters (default: upload.parameters)")]
struct Parameters {
    /// Your own data, which is returned with the document; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_data)]
    data: Vec<(String, String)>,
    /// Parameter that carries the data
    #[arg(long, value_enum)]
    correlation_key: Option<CorrelationKey>,
    /// Įvesk.lt's `processlines`
    #[arg(long, value_name = "true|false")]
    process_lines: Option<bool>,
    /// Įvesk.lt's `splitdocuments`
    #[arg(long, value_name = "true|false")]
    split_documents: Option<bool>,
    /// Įvesk.lt's `checkduplicates`
    #[arg(long, value_name = "true|false")]
    check_duplicates: Option<bool>,
    /// Įvesk.lt's `rejectnoninvoices`
    #[arg(long, value_name = "true|false")]
    reject_non_invoices: Option<bool>,
    /// Įvesk.lt's `warehouse`, one of your codes
    #[arg(long, value_name = "CODE")]
    warehouse: Option<String>,
    /// Įvesk.lt's `allocation`, one of your codes
    #[arg(long, value_name = "CODE")]
    allocation: Option<String>,
    /// Įvesk.lt's `tags`, separated by commas
    #[arg(long, value_name = "TAG,TAG", value_delimiter = ',')]
    tags: Vec<String>,
}

fn parse_data(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((UPLOAD_MARK, _)) => Err(format!("the name `{UPLOAD_MARK}` is reserved")),
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

impl Parameters {
    /// Returns `options` with the parameters of the command line in place of its own.
    fn override_in(self, mut options: UploadOptions) -> UploadOptions {
        if !self.data.is_empty() {
            let data = self.data.into_iter();
            let data: Map<String, Value> = data.map(|(name, value)| (name, value.into())).collect();
            options.correlation = Some(data);
        }
        options.correlation_key = self.correlation_key.unwrap_or(options.correlation_key);
        options.process_lines = self.process_lines.or(options.process_lines);
        options.split_documents = self.split_documents.or(options.split_documents);
        options.check_duplicates = self.check_duplicates.or(options.check_duplicates);
        options.reject_non_invoices = self.reject_non_invoices.or(options.reject_non_invoices);
        options.warehouse = self.warehouse.or(options.warehouse);
        options.allocation = self.allocation.or(options.allocation);
        if !self.tags.is_empty() {
            options.tags = self.tags;
        }
        options
    }
}

/// Runs `upload`.
pub async fn run(args: Args, globals: &Globals) -> Result<Exit, Failure> {
    let config = Config::load(&globals.config, &globals.environment).map_err(Failure::usage)?;
    logging::start(&config.log)?;
    let account = chosen_account(args.account.as_deref(), &config)?;
    let key = config.accounts[&account].api_key.clone();
    let key = key.ok_or_else(|| no_api_key(&account))?;
    let files = walk::files(&args.paths).map_err(|(path, error)| {
        Failure::usage(anyhow!("failed to read {}: {error}", path.display()))
    })?;
    let client = Client::new(&config.api, key).map_err(Failure::usage)?;
    let api = Arc::new(Api::open_or_create(&config).await?);
    let stop = CancellationToken::new();
    let settings = UploadSettings {
        account,
        options: args.parameters.override_in(config.upload.options()),
        force: args.force,
        backoff: backoff::UPLOAD,
    };
    let journal = Arc::new(ApiJournal(Arc::clone(&api)));
    let uploader = Uploader::new(client, journal, settings, Clock::system(), stop.clone())?;
    let screen = Screen::new(args.json);
    let outcome = match &args.watch {
        Some(folder) => {
            watch_folder(folder, config.upload.quiet_time, uploader, stop, &screen).await
        }
        None => upload_all(files, usize::from(args.parallel), uploader, &stop, &screen).await,
    };
    // The uploader is gone, so this is the last reference.
    if let Some(api) = Arc::into_inner(api) {
        api.close().await?;
    }
    outcome
}

/// Waits for SIGTERM, SIGINT or the end of the terminal.
async fn stop_signal() -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::select! {
        _ = hangup.recv() => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

async fn watch_folder(
    folder: &Path,
    quiet: Duration,
    uploader: Uploader,
    stop: CancellationToken,
    screen: &Screen,
) -> Result<Exit, Failure> {
    let watcher = Watcher::open(folder, quiet, uploader).map_err(Failure::usage)?;
    eprintln!(
        "Watching {}. Stop with Ctrl-C at any time: no file is lost or sent twice.",
        folder.display()
    );
    let print = |files: Vec<FileReport>| files.iter().for_each(|file| screen.print(file));
    let watching = watch::run(watcher, watch::SCAN_INTERVAL, stop.clone(), print);
    let (_, stopped) = tokio::join!(watching, async {
        let stopped = stop_signal().await;
        stop.cancel();
        stopped
    });
    stopped?;
    Ok(Exit::Done)
}

async fn upload_all(
    files: Vec<PathBuf>,
    parallel: usize,
    uploader: Uploader,
    stop: &CancellationToken,
    screen: &Screen,
) -> Result<Exit, Failure> {
    if files.is_empty() {
        eprintln!("No files to upload.");
        return Ok(Exit::Done);
    }
    let halted = CancellationToken::new();
    let each = |path: PathBuf| {
        let (uploader, halted) = (&uploader, &halted);
        async move {
            // For example, the key was refused: no other file can succeed.
            if halted.is_cancelled() {
                return Ok(None);
            }
            let progress = screen.progress(&path);
            let report = uploader.upload(&path, progress.clone()).await?;
            progress.finish();
            if matches!(report.outcome, UploadOutcome::Stopped { .. }) {
                halted.cancel();
            }
            let file = FileReport { path, report };
            screen.print(&file);
            Ok(Some(file))
        }
    };
    let all = stream::iter(files)
        .map(each)
        .buffer_unordered(parallel)
        .collect::<Vec<Result<Option<FileReport>, JournalError>>>();
    let done = tokio::select! {
        done = all => done,
        stopped = stop_signal() => {
            stopped?;
            stop.cancel();
            uploader.abandon().await?;
            return Err(anyhow!("stopped; run the command again to upload the rest").into());
        }
    };
    screen.close();
    let mut files = Vec::new();
    let mut skipped = 0;
    for file in done {
        match file? {
            Some(file) => files.push(file),
            None => skipped += 1,
        }
    }
    if skipped > 0 {
        eprintln!("{} not tried.", counted(skipped, "more file"));
    }
    Ok(exit(&files))
}

/// Returns the exit code: a wrong setting goes before an unreachable service, and that before
/// a refused file.
fn exit(files: &[FileReport]) -> Exit {
    let any = |is: fn(&UploadOutcome) -> bool| files.iter().any(|file| is(&file.report.outcome));
    if any(|outcome| matches!(outcome, UploadOutcome::Stopped { .. })) {
        Exit::Usage
    } else if any(
        |outcome| matches!(outcome, UploadOutcome::Failed { unreachable, .. } if *unreachable),
    ) {
        Exit::Unreachable
    } else if any(|outcome| {
        !matches!(
            outcome,
            UploadOutcome::Sent { .. } | UploadOutcome::AlreadySent { .. }
        )
    }) {
        Exit::Failed
    } else {
        Exit::Done
    }
}

/// The output: a line for each file, as text or JSON, and progress bars on a terminal.
struct Screen {
    json: bool,
    bars: MultiProgress,
}

impl Screen {
    fn new(json: bool) -> Self {
        let target = if json || !std::io::stdout().is_terminal() {
            ProgressDrawTarget::hidden()
        } else {
            ProgressDrawTarget::stderr()
        };
        Self {
            json,
            bars: MultiProgress::with_draw_target(target),
        }
    }

    fn progress(&self, path: &Path) -> Arc<Bar> {
        Arc::new(Bar {
            name: visible(&path.file_name().unwrap_or_default().to_string_lossy()).into_owned(),
            bars: self.bars.clone(),
            bar: Mutex::new(None),
        })
    }

    fn print(&self, file: &FileReport) {
        let line = if self.json {
            json_line(file)
        } else {
            line(file)
        };
        self.bars.suspend(|| {
            let mut stdout = std::io::stdout().lock();
            // A closed standard output does not stop the uploads.
            let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
        });
    }

    fn close(&self) {
        let _ = self.bars.clear();
    }
}

/// The progress bar of one file, drawn from its first attempt on.
struct Bar {
    name: String,
    bars: MultiProgress,
    bar: Mutex<Option<ProgressBar>>,
}

impl Bar {
    fn finish(&self) {
        if let Some(bar) = self
            .bar
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
        {
            bar.finish_and_clear();
        }
    }
}

impl Progress for Bar {
    fn began(&self, size_bytes: u64) {
        let mut bar = self.bar.lock().unwrap_or_else(PoisonError::into_inner);
        match &*bar {
            Some(bar) => bar.set_position(0),
            None => {
                let new = self.bars.add(ProgressBar::new(size_bytes));
                let form = "{msg:30!} {bar:30} {bytes:>10} of {total_bytes:<10} {bytes_per_sec}";
                if let Ok(style) = ProgressStyle::with_template(form) {
                    new.set_style(style);
                }
                new.set_message(self.name.clone());
                *bar = Some(new);
            }
        }
    }

    fn sent(&self, bytes: u64) {
        let bar = self.bar.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bar) = &*bar {
            bar.inc(bytes);
        }
    }
}

fn line(file: &FileReport) -> String {
    let path = file.path.to_string_lossy();
    let path = visible(&path);
    match &file.report.outcome {
        UploadOutcome::Sent { id } => format!("{path}: sent as upload {id}"),
        UploadOutcome::AlreadySent { id } => {
            format!("{path}: sent before as upload {id}; --force sends it again")
        }
        UploadOutcome::Busy { until } => format!(
            "{path}: another process is sending it, or was interrupted; retry after {until}"
        ),
        UploadOutcome::Refused { error } => format!("{path}: refused: {error}"),
        UploadOutcome::Failed { error, .. } | UploadOutcome::NoLocation { error } => {
            format!("{path}: failed: {error}")
        }
        UploadOutcome::Stopped { error, .. } => format!("{path}: not sent: {error}"),
    }
}

fn json_line(file: &FileReport) -> String {
    let UploadReport {
        outcome,
        size_bytes,
        sha256,
    } = &file.report;
    let (word, id, error) = match outcome {
        UploadOutcome::Sent { id } => ("sent", Some(id), None),
        UploadOutcome::AlreadySent { id } => ("already_sent", Some(id), None),
        UploadOutcome::Busy { until } => ("busy", None, Some(format!("until {until}"))),
        UploadOutcome::Refused { error } => ("refused", None, Some(error.clone())),
        UploadOutcome::Failed { error, .. } | UploadOutcome::NoLocation { error } => {
            ("failed", None, Some(error.clone()))
        }
        UploadOutcome::Stopped { error, .. } => ("stopped", None, Some(error.clone())),
    };
    json!({
        "file": file.path.to_string_lossy(),
        "outcome": word,
        "id": id,
        "size_bytes": size_bytes,
        "sha256": sha256,
        "error": error,
    })
    .to_string()
}

/// The journal of uploads, kept through the admin API.
struct ApiJournal(Arc<Api>);

fn journal_error(failure: Failure) -> JournalError {
    JournalError(failure.message())
}

#[async_trait]
impl Journal for ApiJournal {
    async fn begin(&self, upload: NewUpload) -> Result<Claim, JournalError> {
        let claim = UploadClaim {
            account: upload.account.to_string(),
            sha256: upload.sha256,
            size_bytes: upload.size_bytes,
            file_name: upload.file_name,
            correlation: upload.correlation,
            force: upload.force,
            owner: upload.owner,
            claim_seconds: upload.claim.as_secs(),
        };
        let answer = self.0.post("/v1/uploads", &claim).await;
        Ok(match answer.map_err(journal_error)? {
            ClaimResult::Send {
                id,
                correlation,
                location,
            } => Claim::Send {
                id,
                correlation,
                location,
            },
            ClaimResult::Already { id } => Claim::AlreadySent { id },
            ClaimResult::Busy { until } => Claim::Busy { until },
        })
    }

    async fn keep_location(
        &self,
        id: i64,
        owner: String,
        location: Option<SecretString>,
    ) -> Result<(), JournalError> {
        let place = UploadPlace { owner, location };
        let path = format!("/v1/uploads/{id}/location");
        let kept: Result<LocationKept, Failure> = self.0.post(&path, &place).await;
        kept.map(|LocationKept {}| ()).map_err(journal_error)
    }

    async fn end(
        &self,
        id: i64,
        owner: String,
        end: UploadEnd,
        _: Timestamp,
    ) -> Result<(), JournalError> {
        let (error, refused) = match end {
            UploadEnd::Sent => (None, false),
            UploadEnd::Refused(error) => (Some(error), true),
            UploadEnd::Failed(error) => (Some(error), false),
        };
        let result = UploadResult {
            owner,
            error,
            refused,
        };
        let path = format!("/v1/uploads/{id}/end");
        let recorded: Result<ResultRecorded, Failure> = self.0.post(&path, &result).await;
        recorded.map(|_| ()).map_err(journal_error)
    }
}
