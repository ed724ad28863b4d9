//! `demo`

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use bytes::Bytes;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, json};
use tokio::time::{Instant, sleep};

use super::outcome::{Exit, Failure, refuse_json};
use super::{documents, logging};
use crate::config::{
    Config, DestinationConfig, DestinationKind, FileMode, FolderLayout, HistoryMode, LogConfig,
    Loopback, UploadOptions, default_account, fresh_token,
};
use crate::domain::{Clock, Company, DestinationName, Event, Queue, version_key};
use crate::emulator::{
    Control, DEFAULT_COMPANIES, DEFAULT_KEY, Emulator, EmulatorSettings, Publication, Tamper,
    sample_pdf,
};
use crate::ivesk::Client;
use crate::private_files::{FOLDER_MODE, create_dir_all};
use crate::service::Service;
use crate::store::{DocumentFilter, SharedStore, SubscriptionState};

/// Time limit of each step.
const STEP_TIMEOUT: Duration = Duration::from_secs(30);

/// Time between two checks of a step's end.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Documents exported for each company besides the uploaded one.
const MORE_DOCUMENTS: usize = 3;

/// Arguments of `demo`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Runs on loopback addresses of this machine, with an emulated Įvesk.lt that signs with its own certificate. Needs \
no API key and no internet connection.

Exit codes: 0 every step passed, 1 a step failed")]
pub struct Args {
    /// Stop after the last step
    #[arg(long)]
    once: bool,
    /// Folder to keep the database and the delivered files in [default: a temporary one, removed at the end]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Show the service's log
    #[arg(long)]
    log: bool,
}

/// Runs `demo`.
pub async fn run(args: Args) -> Result<Exit, Failure> {
    refuse_json("demo")?;
    let level = if args.log { "info" } else { "off" };
    logging::start(&LogConfig {
        level: level.to_owned(),
        ..LogConfig::default()
    })?;
    if let Some(dir) = &args.dir
        && dir.join(DATABASE).exists()
    {
        return Err(Failure::usage(anyhow!(
            "{} holds the database of an earlier demo; name an empty folder",
            dir.display()
        )));
    }
    let folder = Folder::open(args.dir)?;
    let demo = Demo::start(&folder).await?;
    let result = demo.run_steps().await;
    if let Err(error) = &result {
        println!("\nFailed: {error:#}");
    } else if !args.once {
        demo.wait_for_ctrl_c().await?;
    }
    let stopped = demo.stop().await;
    Ok(if result.is_ok() && stopped {
        Exit::Done
    } else {
        Exit::Failed
    })
}

/// The name of the database in the folder of a demo.
const DATABASE: &str = "ivesk-webhook.db";

/// The folder of the database and the delivered files; removed on drop if temporary.
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
                let name = fresh_token().context("failed to get random bytes")?;
                std::env::temp_dir().join(format!(
                    "ivesk-webhook-demo-{}",
                    &name.expose_secret()[..12]
                ))
            }
        };
        create_dir_all(&path, FOLDER_MODE)
            .with_context(|| format!("failed to create {}", path.display()))?;
        Ok(Self { path, temporary })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.temporary {
            // The system clears temporary files that stay.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// The emulated vendor and the service.
struct Demo {
    emulator: Emulator,
    service: Service,
    config: Config,
    vendor: Client,
    /// The folder that documents are delivered to.
    archive: PathBuf,
}

/// Returns the paths of all files below a folder, relative to it, without the destination's own.
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

impl Demo {
    async fn start(folder: &Folder) -> Result<Self, anyhow::Error> {
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let emulator = Emulator::start(EmulatorSettings::default(), loopback).await?;
        let mut config = Config::for_loopback(Loopback {
            listen: loopback,
            store: folder.path.join(DATABASE),
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
            file_mode: FileMode::default(),
        };
        let destination = DestinationConfig {
            // No earlier document is in any books.
            history: HistoryMode::Deliver,
            ..DestinationConfig::of(kind)
        };
        config
            .destinations
            .insert(DestinationName::parse("archive")?, destination);
        for event in Event::ALL {
            let token = fresh_token().context("failed to get random bytes")?;
            for account in config.accounts.values_mut() {
                account.tokens.insert(event, vec![token.clone()]);
            }
        }
        let vendor = Client::new(&config.api, SecretString::from(DEFAULT_KEY))?;
        let service = Service::start(config.clone(), Clock::system()).await?;
        config.public.url = format!("http://{}/", service.public_address()).parse()?;
        println!("Emulating Įvesk.lt, SNS and S3 at {}", emulator.origin());
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

    /// Runs every step.
    ///
    /// # Errors
    ///
    /// The first check that failed.
    async fn run_steps(&self) -> Result<(), anyhow::Error> {
        self.subscribe().await?;
        self.upload().await?;
        self.digitize().await?;
        self.export().await?;
        self.deliver().await?;
        self.refuse_a_forgery().await?;
        self.compare_with_vendor().await
    }

    async fn subscribe(&self) -> Result<(), anyhow::Error> {
        heading(1, "Subscribe to both events, and confirm the subscriptions");
        for event in Event::ALL {
            let target = self
                .config
                .webhook_target(&default_account(), event)
                .context("the account has a token")?;
            self.vendor
                .subscribe(&format!("demo-{event}"), event, &target)
                .await?;
        }
        // SNS has sent a confirmation for each, and the service has visited its SubscribeURL.
        self.control().idle().await;
        let rows = self.store().subscriptions().await?;
        ensure!(
            rows.len() == Event::ALL.len(),
            "SNS requested {} confirmations",
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
        heading(2, "Upload an invoice for each of two companies");
        self.control().set_switches("digitize_uploads=manual")?;
        for company in DEFAULT_COMPANIES {
            let name = format!("sąskaita-{company}.pdf");
            let correlation = Some(Map::from_iter([("company".to_owned(), json!(company))]));
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

    async fn digitize(&self) -> Result<(), anyhow::Error> {
        heading(
            3,
            "Įvesk.lt digitizes them and sends on_digitized; verify it, and pull the queue",
        );
        for (upload, company) in self.control().uploads().into_iter().zip(DEFAULT_COMPANIES) {
            self.control().digitize_upload(upload.id, Some(company))?;
        }
        self.until_stored(Queue::Digitized, "").await
    }

    async fn export(&self) -> Result<(), anyhow::Error> {
        heading(
            4,
            "The accountant exports documents, Įvesk.lt sends on_exported; pull the queue of each company",
        );
        for company in DEFAULT_COMPANIES {
            // The uploaded document is the oldest, so it is exported first.
            self.control().export(company, 1 + MORE_DOCUMENTS)?;
        }
        for company in DEFAULT_COMPANIES {
            self.until_stored(Queue::Exported, company).await?;
        }
        Ok(())
    }

    /// Waits until every exported document is delivered, once, with its PDF.
    async fn deliver(&self) -> Result<(), anyhow::Error> {
        heading(
            5,
            "Deliver every exported document, here to a folder as JSON and PDF",
        );
        let exported: usize = DEFAULT_COMPANIES
            .iter()
            .map(|company| self.control().documents(Queue::Exported, company).len())
            .sum();
        let deadline = Instant::now() + STEP_TIMEOUT;
        loop {
            let destinations = self.store().destinations().await?;
            let delivered = destinations
                .first()
                .map_or(0, |destination| destination.delivered);
            if delivered == exported as u64 {
                break;
            }
            ensure!(
                Instant::now() < deadline,
                "{delivered} of {exported} documents were delivered within {STEP_TIMEOUT:?}"
            );
            sleep(POLL_INTERVAL).await;
        }
        let files = files_below(&self.archive)?;
        for ending in ["json", "pdf"] {
            let count = files.iter().filter(|name| name.ends_with(ending)).count();
            ensure!(count == exported, "the folder has {count} .{ending} files");
        }
        let example = files.iter().find(|name| name.ends_with("json"));
        println!(
            "   {exported} documents delivered with their PDFs, such as\n   {}",
            example.map_or("", String::as_str)
        );
        Ok(())
    }

    async fn refuse_a_forgery(&self) -> Result<(), anyhow::Error> {
        heading(6, "Refuse a signed message that was changed");
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
            "the forged message was answered with {status:?}, not 403"
        );
        ensure!(
            self.notifications().await? == before,
            "the forged message was stored"
        );
        println!("   refused with 403 signature_mismatch; {before} genuine messages are stored");
        Ok(())
    }

    /// Compares the stored versions with those of the emulator.
    async fn compare_with_vendor(&self) -> Result<(), anyhow::Error> {
        heading(7, "Compare the stored documents with those at Įvesk.lt");
        // The accountant's export created digitized documents too, with their own notifications.
        self.until_stored(Queue::Digitized, "").await?;
        self.control().idle().await;
        for delivery in self.control().deliveries() {
            let accepted = delivery.last_status == Some(200);
            let forged = delivery.last_status == Some(403);
            ensure!(
                accepted || forged,
                "a message was answered with {:?}",
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
        println!("{}", documents::document_table(rows.iter()));
        println!(
            "Every step passed: {} document versions, none lost, none twice.",
            rows.len()
        );
        Ok(())
    }

    async fn notifications(&self) -> Result<usize, anyhow::Error> {
        Ok(self.store().notifications(0, 1000).await?.len())
    }

    /// Waits until the stored versions of a queue are the vendor's, each once.
    async fn until_stored(&self, queue: Queue, company: &str) -> Result<(), anyhow::Error> {
        let deadline = Instant::now() + STEP_TIMEOUT;
        let name = if company.is_empty() {
            format!("{queue} queue")
        } else {
            format!("{queue} queue of {company}")
        };
        loop {
            let stored = self.stored(queue, company).await?;
            let expected = self.control().documents(queue, company).into_iter();
            let key = |(id, version): (String, String)| (id, version_key(&version));
            let mut expected: Vec<_> = expected.map(key).collect();
            expected.sort();
            if stored == expected {
                println!("   {name}: {} documents stored", stored.len());
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(anyhow!(
                    "{name}: Įvesk.lt has {} documents, but {} are stored",
                    expected.len(),
                    stored.len()
                ));
            }
            sleep(POLL_INTERVAL).await;
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

    /// Prints commands to try, and waits for Ctrl-C.
    async fn wait_for_ctrl_c(&self) -> Result<(), anyhow::Error> {
        let origin = self.emulator.origin();
        println!(
            "
Running until Ctrl-C. This prints a link to the status page:

  ivesk-webhook open --socket {socket} --url http://{admin}/

Act as the accountant in another terminal, then see the result:

  curl {origin}/control/export -d '{{\"company\":\"{company}\",\"documents\":3}}'
  curl --unix-socket {socket} http://localhost/v1/feeds
  curl --unix-socket {socket} http://localhost/metrics",
            socket = self.config.admin.socket.display(),
            admin = self.service.admin_address(),
            company = DEFAULT_COMPANIES[0],
        );
        tokio::signal::ctrl_c()
            .await
            .context("failed to wait for Ctrl-C")
    }

    async fn stop(self) -> bool {
        let stopped = self.service.stop().await;
        self.emulator.stop().await;
        stopped
    }
}

fn heading(number: u32, text: &str) {
    println!("\n{number}. {text}");
}
