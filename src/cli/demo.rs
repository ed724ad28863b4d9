//! `demo`

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use bytes::Bytes;
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{Exit, Failure, Globals, documents};
use crate::config::{
    Config, DestinationConfig, DestinationKind, FolderLayout, HistoryMode, LogConfig, Loopback,
    UploadOptions, default_account, fresh_token,
};
use crate::domain::{Clock, Company, DestinationName, Event, Queue};
use crate::emulator::{
    Control, DEFAULT_COMPANIES, DEFAULT_KEY, Emulator, EmulatorSettings, Publication, Tamper,
    sample_pdf,
};
use crate::ivesk::Client;
use crate::service::Service;
use crate::store::{DocumentFilter, SharedStore, SubscriptionState};

/// How long a step may take before the demo says that it did not happen.
const STEP_TIMEOUT: Duration = Duration::from_secs(30);

/// How often a step's end is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Documents exported for each company beside the uploaded one.
const MORE_DOCUMENTS: usize = 3;

/// Arguments of `demo`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Everything happens on this machine's loopback addresses, with an emulated Įvesk.lt that signs with a certificate
of its own; no key and no internet connection are needed. Exit codes: 0 all of it was true, 1 it was not.")]
pub struct Args {
    /// Stop after the loop, with exit code 0 only if all of it was true
    #[arg(long)]
    once: bool,
    /// Keep the database and the filed documents in this folder [default: a temporary one, removed at the end]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Show the service's log as well
    #[arg(long)]
    log: bool,
}

/// Runs `demo`.
pub async fn run(args: Args, _: &Globals) -> Result<Exit, Failure> {
    let level = if args.log { "info" } else { "off" };
    super::start_logging(&LogConfig {
        level: level.to_owned(),
        ..LogConfig::default()
    })?;
    let folder = Folder::open(args.dir)?;
    let stage = Stage::set_up(&folder).await?;
    let played = stage.play().await;
    if let Err(error) = &played {
        println!("\nNot true: {error:#}");
    } else if !args.once {
        stage.linger().await?;
    }
    let stopped = stage.take_down().await;
    Ok(if played.is_ok() && stopped {
        Exit::Done
    } else {
        Exit::No
    })
}

/// Where the demo's database is; a temporary folder goes with it.
struct Folder {
    path: PathBuf,
    temporary: bool,
}

impl Folder {
    fn open(dir: Option<PathBuf>) -> Result<Self, anyhow::Error> {
        let temporary = dir.is_none();
        let path = match dir {
            Some(dir) => dir,
            None => {
                let name = fresh_token().context("the system gives no random bytes")?;
                std::env::temp_dir().join(format!(
                    "ivesk-webhook-demo-{}",
                    &name.expose_secret()[..12]
                ))
            }
        };
        std::fs::create_dir_all(&path)
            .with_context(|| format!("{} can't be made", path.display()))?;
        Ok(Self { path, temporary })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.temporary {
            // Nothing is lost where it stays: the system clears its temporary files.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// The emulated vendor, the service, and what the demo knows of both.
struct Stage {
    emulator: Emulator,
    service: Service,
    config: Config,
    vendor: Client,
    /// Where exported documents are filed.
    archive: PathBuf,
}

/// The files below a folder, but for those of the destination's own, as paths in it.
fn files_below(folder: &Path) -> Result<Vec<String>, anyhow::Error> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(&next)? {
            let entry = entry?;
            let own = entry.file_name().to_string_lossy().starts_with('.');
            if entry.file_type()?.is_dir() && !own {
                folders.push(entry.path());
            } else if !own {
                let path = entry.path();
                let path = path.strip_prefix(folder).unwrap_or(&path);
                files.push(path.display().to_string());
            }
        }
    }
    files.sort();
    Ok(files)
}

impl Stage {
    async fn set_up(folder: &Folder) -> Result<Self, anyhow::Error> {
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let emulator = Emulator::start(EmulatorSettings::default(), loopback).await?;
        let mut config = Config::for_loopback(Loopback {
            listen: loopback,
            store: folder.path.join("ivesk-webhook.db"),
            api_url: emulator.api_url().parse()?,
            api_key: DEFAULT_KEY.into(),
            local_origins: vec![emulator.origin()],
            companies: Vec::new(),
        });
        config.api.subscribe_path = Some("/subscriptions".to_owned());
        let archive = folder.path.join("archive");
        let kind = DestinationKind::Folder {
            path: archive.clone(),
            layout: FolderLayout::Archiver,
            files: true,
            max_file_bytes: 1 << 20,
        };
        let destination = DestinationConfig {
            // Nobody has booked anything of it before.
            history: HistoryMode::Deliver,
            ..DestinationConfig::of(kind)
        };
        config
            .destinations
            .insert(DestinationName::parse("archive")?, destination);
        for event in Event::ALL {
            let token = fresh_token().context("the system gives no random bytes")?;
            for account in config.accounts.values_mut() {
                account.tokens.insert(event, vec![token.clone()]);
            }
        }
        let vendor = Client::new(&config.api, SecretString::from(DEFAULT_KEY))?;
        let service = Service::start(config.clone(), Clock::system()).await?;
        config.public.url = format!("http://{}/", service.public_address()).parse()?;
        println!("Įvesk.lt, SNS and S3 are emulated at {}", emulator.origin());
        println!("ivesk-webhook receives at {}", config.public.url);
        Ok(Self {
            emulator,
            service,
            config,
            vendor,
            archive,
        })
    }

    fn store(&self) -> &SharedStore {
        &self.service.app().store
    }

    fn control(&self) -> Control {
        self.emulator.control()
    }

    /// The whole loop; an error names the first thing that was not true.
    async fn play(&self) -> Result<(), anyhow::Error> {
        self.subscribe().await?;
        self.upload().await?;
        self.see_digitized().await?;
        self.export().await?;
        self.deliver().await?;
        self.refuse_a_forgery().await?;
        self.compare().await
    }

    async fn subscribe(&self) -> Result<(), anyhow::Error> {
        heading(
            1,
            "Subscribe both events; SNS asks whether we mean it; SubscribeURL confirms",
        );
        for event in Event::ALL {
            let target = self
                .config
                .webhook_target(&default_account(), event)
                .context("the account has a token")?;
            self.vendor
                .subscribe(&format!("demo-{event}"), event, &target)
                .await?;
        }
        // SNS delivers each confirmation once it is asked; its answer is our visit's.
        self.control().idle().await;
        let rows = self.store().subscriptions().await?;
        ensure!(
            rows.len() == Event::ALL.len(),
            "SNS asked for {} confirmations",
            rows.len()
        );
        for row in rows {
            ensure!(
                row.state == SubscriptionState::Confirmed,
                "{} is {}",
                row.event,
                row.state.as_str()
            );
            println!(
                "   {} confirmed as {}",
                row.event,
                row.subscription_arn.unwrap_or_default()
            );
        }
        Ok(())
    }

    async fn upload(&self) -> Result<(), anyhow::Error> {
        heading(2, "Upload an invoice of each of two companies");
        self.control().set_switches("digitize_uploads=manual")?;
        for company in DEFAULT_COMPANIES {
            let name = format!("sąskaita-{company}.pdf");
            let correlation = json!({ "company": company }).as_object().cloned();
            let options = UploadOptions {
                correlation,
                ..UploadOptions::default()
            };
            let location = self.vendor.upload_location(&name, &options).await?;
            let file = Bytes::from(sample_pdf("Invoice"));
            let size = file.len();
            self.vendor.put_file(&location, file).await?;
            println!("   {name}, {size} bytes");
        }
        Ok(())
    }

    async fn see_digitized(&self) -> Result<(), anyhow::Error> {
        heading(
            3,
            "Įvesk.lt digitizes them; on_digitized comes; its signature is verified; the queue is pulled",
        );
        for (upload, company) in self.control().uploads().into_iter().zip(DEFAULT_COMPANIES) {
            self.control().digitize_upload(upload.id, Some(company))?;
        }
        self.until_stored(Queue::Digitized, "").await
    }

    async fn export(&self) -> Result<(), anyhow::Error> {
        heading(
            4,
            "The accountant exports; on_exported names the company; its queue is pulled page by page",
        );
        for company in DEFAULT_COMPANIES {
            // The uploaded one waits longest, so it is the first to be exported.
            self.control().export(company, 1 + MORE_DOCUMENTS)?;
        }
        for company in DEFAULT_COMPANIES {
            self.until_stored(Queue::Exported, company).await?;
        }
        Ok(())
    }

    /// Waits until every exported document is filed, once, with its PDF.
    async fn deliver(&self) -> Result<(), anyhow::Error> {
        heading(
            5,
            "Every exported document is delivered: here to a folder, as JSON and PDF",
        );
        let exported: usize = DEFAULT_COMPANIES
            .iter()
            .map(|company| self.control().documents(Queue::Exported, company).len())
            .sum();
        let deadline = Instant::now() + STEP_TIMEOUT;
        loop {
            let destinations = self.store().destinations().await?;
            let booked = destinations
                .first()
                .map_or(0, |destination| destination.delivered);
            if booked == exported as u64 {
                break;
            }
            ensure!(
                Instant::now() < deadline,
                "{booked} of {exported} documents were delivered within {STEP_TIMEOUT:?}"
            );
            sleep(LOOK_EVERY).await;
        }
        let filed = files_below(&self.archive)?;
        for ending in ["json", "pdf"] {
            let count = filed.iter().filter(|name| name.ends_with(ending)).count();
            ensure!(count == exported, "{count} .{ending} files are filed");
        }
        let one = filed.iter().find(|name| name.ends_with("json"));
        println!(
            "   {exported} documents are filed with their PDFs, such as\n   {}",
            one.map_or("", String::as_str)
        );
        Ok(())
    }

    async fn refuse_a_forgery(&self) -> Result<(), anyhow::Error> {
        heading(
            6,
            "A stranger changes a signed message; it is refused and nothing is stored of it",
        );
        let before = self.notifications().await?;
        let message_id = self.control().notify(&Publication {
            tamper: Tamper::Message,
            ..Publication::new(Event::OnExported, r#"{"companyCode":"302320404"}"#)
        })?;
        self.control().idle().await;
        let deliveries = self.control().deliveries();
        let forged = deliveries
            .iter()
            .find(|delivery| delivery.message_id == message_id);
        let status = forged.and_then(|delivery| delivery.last_status);
        ensure!(
            status == Some(403),
            "the forged message was answered {status:?}, not 403"
        );
        ensure!(
            self.notifications().await? == before,
            "something of the forged message was stored"
        );
        println!("   answered 403 signature_mismatch; {before} genuine messages are stored");
        Ok(())
    }

    /// Compares everything with what the emulator knows to be true.
    async fn compare(&self) -> Result<(), anyhow::Error> {
        heading(
            7,
            "What Įvesk.lt has and what is stored here, each version once",
        );
        // The digitized documents that the accountant's export made come with their own hints.
        self.until_stored(Queue::Digitized, "").await?;
        self.control().idle().await;
        for delivery in self.control().deliveries() {
            let accepted = delivery.last_status == Some(200);
            let forged = delivery.last_status == Some(403);
            ensure!(
                accepted || forged,
                "a delivery was answered {:?}",
                delivery.last_status
            );
        }
        let rows = self
            .store()
            .documents(DocumentFilter {
                limit: 1000,
                ..DocumentFilter::default()
            })
            .await?;
        let gap_free = rows
            .iter()
            .zip(1..)
            .all(|(row, number)| row.sequence == number);
        ensure!(gap_free, "the sequence has gaps");
        println!("{}", documents::table(rows.iter()));
        println!(
            "All of it was true: {} document versions, nothing lost, nothing twice.",
            rows.len()
        );
        Ok(())
    }

    async fn notifications(&self) -> Result<usize, anyhow::Error> {
        Ok(self.store().notifications(0, 1000).await?.len())
    }

    /// Waits until the stored versions of a queue are the vendor's, each once.
    async fn until_stored(&self, queue: Queue, company: &str) -> Result<(), anyhow::Error> {
        let truth = || {
            let mut truth = self.control().documents(queue, company);
            truth.sort();
            truth
        };
        let deadline = Instant::now() + STEP_TIMEOUT;
        let what = if company.is_empty() {
            format!("{queue} queue")
        } else {
            format!("{queue} queue of {company}")
        };
        loop {
            let stored = self.stored(queue, company).await?;
            let truth = truth();
            if stored == truth {
                println!("   {what}: {} documents are stored", stored.len());
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(anyhow!(
                    "{what}: Įvesk.lt has {} documents, {} are stored",
                    truth.len(),
                    stored.len()
                ));
            }
            sleep(LOOK_EVERY).await;
        }
    }

    async fn stored(
        &self,
        queue: Queue,
        company: &str,
    ) -> Result<Vec<(String, String)>, anyhow::Error> {
        let filter = DocumentFilter {
            queue: Some(queue),
            company: (!company.is_empty())
                .then(|| Company::parse(company))
                .transpose()?,
            limit: 1000,
            ..DocumentFilter::default()
        };
        let rows = self.store().documents(filter).await?;
        let mut stored: Vec<_> = rows
            .into_iter()
            .map(|row| (row.document_id, row.version))
            .collect();
        stored.sort();
        Ok(stored)
    }

    /// Goes on until Ctrl-C, with something to try.
    async fn linger(&self) -> Result<(), anyhow::Error> {
        let origin = self.emulator.origin();
        println!(
            "
It goes on until Ctrl-C. Its status page: http://{}/
Play the accountant in another terminal, then look at what came:

  curl {origin}/control/export --json '{{\"company\":\"{}\",\"documents\":3}}'
  curl http://{}/v1/feeds
  curl http://{}/metrics",
            self.service.admin_address(),
            DEFAULT_COMPANIES[0],
            self.service.admin_address(),
            self.service.admin_address(),
        );
        tokio::signal::ctrl_c()
            .await
            .context("Ctrl-C can't be waited for")
    }

    async fn take_down(self) -> bool {
        let stopped = self.service.stop().await;
        self.emulator.stop().await;
        stopped
    }
}

fn heading(number: u32, text: &str) {
    println!("\n{number}. {text}");
}
