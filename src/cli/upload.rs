//! `upload`

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::anyhow;
use async_trait::async_trait;
use futures_util::{StreamExt as _, stream};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Map, Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::server::Api;
use super::subscribe::chosen_account;
use super::{Exit, Failure, Globals};
use crate::admin::uploads::{UploadClaim, UploadResult};
use crate::config::Config;
use crate::domain::{Clock, Timestamp};
use crate::ivesk::Client;
use crate::ivesk::document::UPLOAD_MARK;
use crate::ivesk::upload::{CorrelationKey, UploadOptions};
use crate::store::{NewUpload, UploadEnd};
use crate::uploads::journal::{Begun, Journal, JournalError};
use crate::uploads::watch::{self, Watcher};
use crate::uploads::{self, Manner, Outcome, Progress, Report, Told, Uploader, walk};

/// Arguments of `upload`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A content that was sent before is not sent again. What came of it: `uploads list`.
In folders, hidden and unfinished files (.x, ~x, x.tmp, x.part, …) are passed over.
On a terminal a progress bar shows how far each file is; elsewhere, and with --json, standard output has one
JSON object a line for each file.
Exit codes: 0 all of them are there, 1 a file was refused or did not get there, 2 a setting is missing or wrong,
3 Įvesk.lt or its storage could not be reached.")]
pub struct Args {
    /// Files, and folders with all that is in them
    #[arg(required_unless_present = "watch", value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Upload what is put into this folder, until stopped; sent files move to sent/, refused ones to refused/
    #[arg(long, value_name = "DIR", conflicts_with_all = ["paths", "force"])]
    watch: Option<PathBuf>,
    /// Whose key; needed where several accounts are configured
    #[arg(long)]
    account: Option<String>,
    /// Send again what was sent before
    #[arg(long)]
    force: bool,
    /// Files on their way at once
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=16))]
    parallel: u8,
    /// One JSON object a line, also on a terminal
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    wishes: Wishes,
}

/// What goes with each file; what is not given is as `upload.parameters` says.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "What goes with each file")]
struct Wishes {
    /// Data of yours that comes back with the document
    #[arg(long, value_name = "NAME=VALUE", value_parser = datum)]
    data: Vec<(String, String)>,
    /// The parameter that carries it
    #[arg(long, value_enum)]
    correlation_key: Option<CorrelationKey>,
    /// processlines
    #[arg(long, value_name = "true|false")]
    process_lines: Option<bool>,
    /// splitdocuments
    #[arg(long, value_name = "true|false")]
    split_documents: Option<bool>,
    /// checkduplicates
    #[arg(long, value_name = "true|false")]
    check_duplicates: Option<bool>,
    /// rejectnoninvoices
    #[arg(long, value_name = "true|false")]
    reject_non_invoices: Option<bool>,
    /// warehouse, a code of yours
    #[arg(long, value_name = "CODE")]
    warehouse: Option<String>,
    /// allocation, a code of yours
    #[arg(long, value_name = "CODE")]
    allocation: Option<String>,
    /// tags, with commas between them
    #[arg(long, value_name = "TAG,TAG", value_delimiter = ',')]
    tags: Vec<String>,
}

fn datum(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((UPLOAD_MARK, _)) => Err(format!("`{UPLOAD_MARK}` is the program's own")),
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE".to_owned()),
    }
}

impl Wishes {
    fn over(self, mut options: UploadOptions) -> UploadOptions {
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
    super::start_logging(&config.log)?;
    let account = chosen_account(args.account.as_deref(), &config)?;
    let key = config.accounts[&account].api_key.clone().ok_or_else(|| {
        Failure::usage(anyhow!(
            "account `{account}` has no API key: set IVESK_WEBHOOK_API_KEY or `accounts.{account}.api_key_file`"
        ))
    })?;
    let files = walk::files(&args.paths).map_err(|(path, error)| {
        Failure::usage(anyhow!("{} can't be read: {error}", path.display()))
    })?;
    let client = Client::new(&config.api, key).map_err(Failure::usage)?;
    let api = Arc::new(Api::open(&config).await?);
    let stop = CancellationToken::new();
    let manner = Manner {
        account,
        options: args.wishes.over(config.upload.options()),
        force: args.force,
        first_pause: uploads::FIRST_PAUSE,
    };
    let journal = Arc::new(ApiJournal(Arc::clone(&api)));
    let uploader = Uploader::new(client, journal, manner, Clock::system(), stop.clone())?;
    let screen = Screen::new(args.json);
    let outcome = match &args.watch {
        Some(folder) => watch_folder(folder, uploader, stop, &screen).await,
        None => upload_all(files, usize::from(args.parallel), uploader, &stop, &screen).await,
    };
    // The last one to hold it: the uploader ended above.
    if let Some(api) = Arc::into_inner(api) {
        api.close().await?;
    }
    outcome
}

/// Returns when the person or the system wants us to end.
async fn asked_to_stop() -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

async fn watch_folder(
    folder: &Path,
    uploader: Uploader,
    stop: CancellationToken,
    screen: &Screen,
) -> Result<Exit, Failure> {
    let watcher = Watcher::open(folder, uploader).map_err(Failure::usage)?;
    eprintln!(
        "Watching {}; Ctrl-C ends it, and nothing is lost by that.",
        folder.display()
    );
    let tell = |told: Vec<Told>| told.iter().for_each(|one| screen.tell(one));
    let watching = watch::run(watcher, watch::LOOK_EVERY, stop.clone(), tell);
    let (_, asked) = tokio::join!(watching, async {
        let asked = asked_to_stop().await;
        stop.cancel();
        asked
    });
    asked?;
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
        eprintln!("There are no files to upload there.");
        return Ok(Exit::Done);
    }
    let halted = CancellationToken::new();
    let each = |path: PathBuf| {
        let (uploader, halted) = (&uploader, &halted);
        async move {
            // Once the key is refused, asking again for each file helps nobody.
            if halted.is_cancelled() {
                return Ok(None);
            }
            let progress = screen.progress(&path);
            let report = uploader.upload(&path, progress.clone()).await?;
            progress.finish();
            if matches!(report.outcome, Outcome::Stopped { .. }) {
                halted.cancel();
            }
            let told = Told { path, report };
            screen.tell(&told);
            Ok(Some(told))
        }
    };
    let all = stream::iter(files)
        .map(each)
        .buffer_unordered(parallel)
        .collect::<Vec<Result<Option<Told>, JournalError>>>();
    let done = tokio::select! {
        done = all => done,
        asked = asked_to_stop() => {
            asked?;
            stop.cancel();
            uploader.abandon().await?;
            return Err(anyhow!("stopped; run it again, and what was sent is not sent twice").into());
        }
    };
    screen.close();
    let mut told = Vec::new();
    let mut left_out = 0;
    for one in done {
        match one? {
            Some(one) => told.push(one),
            None => left_out += 1,
        }
    }
    if left_out > 0 {
        eprintln!("{left_out} more files were not tried.");
    }
    Ok(exit(&told))
}

/// The exit code: what needs a setting before what needs patience, before what is refused.
fn exit(told: &[Told]) -> Exit {
    let any = |is: fn(&Outcome) -> bool| told.iter().any(|one| is(&one.report.outcome));
    if any(|outcome| matches!(outcome, Outcome::Stopped { .. })) {
        Exit::Usage
    } else if any(|outcome| matches!(outcome, Outcome::Failed { unreachable, .. } if *unreachable))
    {
        Exit::Unreachable
    } else if any(|outcome| !matches!(outcome, Outcome::Sent { .. } | Outcome::AlreadySent { .. }))
    {
        Exit::No
    } else {
        Exit::Done
    }
}

/// What the person sees: bars on a terminal, lines elsewhere.
struct Screen {
    json: bool,
    bars: MultiProgress,
}

impl Screen {
    fn new(json: bool) -> Self {
        let json = json || !std::io::stdout().is_terminal();
        let target = if json {
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
            name: path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            bars: self.bars.clone(),
            bar: Mutex::new(None),
        })
    }

    fn tell(&self, told: &Told) {
        let line = if self.json {
            json_line(told)
        } else {
            line(told)
        };
        self.bars.suspend(|| {
            let mut stdout = std::io::stdout().lock();
            // Nobody reads any more: the files are sent all the same.
            let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
        });
    }

    fn close(&self) {
        let _ = self.bars.clear();
    }
}

/// One file's progress bar, drawn from its first attempt on.
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

fn line(told: &Told) -> String {
    let path = told.path.display();
    match &told.report.outcome {
        Outcome::Sent { id } => format!("{path}: sent, upload {id}"),
        Outcome::AlreadySent { id } => {
            format!("{path}: sent before, upload {id}; --force sends it again")
        }
        Outcome::Busy { until } => {
            format!("{path}: another process sends it, or was cut off; try again after {until}")
        }
        Outcome::Refused { why } => format!("{path}: refused: {why}"),
        Outcome::Failed { why, .. } => format!("{path}: did not get there: {why}"),
        Outcome::Stopped { why } => format!("{path}: not sent: {why}"),
    }
}

fn json_line(told: &Told) -> String {
    let Report {
        outcome,
        size_bytes,
        sha256,
    } = &told.report;
    let (word, id, error) = match outcome {
        Outcome::Sent { id } => ("sent", Some(id), None),
        Outcome::AlreadySent { id } => ("already_sent", Some(id), None),
        Outcome::Busy { until } => ("busy", None, Some(format!("until {until}"))),
        Outcome::Refused { why } => ("refused", None, Some(why.clone())),
        Outcome::Failed { why, .. } => ("failed", None, Some(why.clone())),
        Outcome::Stopped { why } => ("stopped", None, Some(why.clone())),
    };
    json!({
        "file": told.path.to_string_lossy(),
        "outcome": word,
        "id": id,
        "size_bytes": size_bytes,
        "sha256": sha256,
        "error": error,
    })
    .to_string()
}

/// Rows kept through the admin API: by the server that runs, or here.
struct ApiJournal(Arc<Api>);

fn told(failure: Failure) -> JournalError {
    JournalError(failure.words())
}

#[async_trait]
impl Journal for ApiJournal {
    async fn begin(&self, upload: NewUpload) -> Result<Begun, JournalError> {
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
        let answer = self.0.post("/v1/uploads", &json!(claim)).await;
        let answer = answer.map_err(told)?;
        read_begun(&answer).ok_or_else(|| {
            JournalError(
                "the running server answered something else than expected; is it the same version?"
                    .to_owned(),
            )
        })
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
        self.0.post(&path, &json!(result)).await.map_err(told)?;
        Ok(())
    }
}

fn read_begun(answer: &Value) -> Option<Begun> {
    let id = answer["id"].as_i64();
    Some(match answer["outcome"].as_str()? {
        "send" => Begun::Send {
            id: id?,
            correlation: answer["correlation"].as_str()?.to_owned(),
        },
        "already" => Begun::Already { id: id? },
        "busy" => Begun::Busy {
            until: Timestamp::parse(answer["until"].as_str()?)?,
        },
        _ => return None,
    })
}
