//! `status`

use serde_json::{Value, json};
use unicode_width::UnicodeWidthStr as _;

use super::as_sent::AsSent;
use super::globals::Globals;
use super::outcome::{Exit, Failure};
use super::server::{Api, RunningServer, SETTINGS_CHANGED, is_of, no_file};
use super::style::{BAD, GOOD, HEADING, NOTE, Style, is_json, styled};
use super::table::words;
use super::{logging, table};
use crate::api::RunState;
use crate::api::destinations::Destination;
use crate::api::feeds::FeedStatus;
use crate::api::status::{NeedsPerson, Status};
use crate::api::subscriptions::Subscription;
use crate::config::{Config, StoreUrl};
use crate::doctor::inside::DISK_FIX;
use crate::domain::counted;
use crate::refusal::Refusal;
use crate::visible::visible;

/// Rows of each list that are shown.
const SHOWN: usize = 10;

/// Arguments of `status`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Asks the running server. If none runs, shows what the store holds; nothing is changed or created. `ivesk-webhook doctor` \
looks further: it also sends requests, to Įvesk.lt and through the public address.

Exit codes: 0 nothing needs a person, 1 something does, 2 the settings are invalid, 3 the store's server could not be \
reached")]
pub struct Args {}

/// What is shown.
struct Report {
    /// True if a server runs.
    running: bool,
    /// What keeps messages from being accepted; `None` if they are.
    not_ready: Option<String>,
    /// That the server runs with other settings than those of the file.
    settings_changed: Option<NeedsPerson>,
    /// The answer of `GET /v1/status`; `None` if nobody could answer.
    status: Option<AsSent<Status>>,
    subscriptions: Vec<AsSent<Subscription>>,
    feeds: Vec<AsSent<FeedStatus>>,
    destinations: Vec<AsSent<Destination>>,
}

/// Runs `status`.
pub async fn run(_args: Args, globals: &Globals) -> Result<Exit, Failure> {
    let config = Config::load(&globals.config, &globals.environment).map_err(Failure::usage)?;
    logging::start(&config.log)?;
    let report = read(&config).await?;
    if is_json() {
        println!("{}", report.to_json());
    } else {
        print!("{}", report.to_text(&config));
    }
    let is_well = report.not_ready.is_none() && report.needs_person().is_empty();
    Ok(if is_well { Exit::Done } else { Exit::Failed })
}

async fn read(config: &Config) -> Result<Report, Failure> {
    let server = RunningServer::find(config).await?;
    let nobody = "no `serve` runs with these settings. Fix: start `ivesk-webhook serve`";
    let mut report = Report {
        running: server.is_some(),
        not_ready: None,
        settings_changed: None,
        status: None,
        subscriptions: Vec::new(),
        feeds: Vec::new(),
        destinations: Vec::new(),
    };
    let api = match server {
        Some(server) => {
            let answer = server.get("/v1/status").await?;
            if let Some(problem) = answer.problem() {
                report.not_ready = Some(format!(
                    "its store can't be read: {}. Fix: run `ivesk-webhook doctor`",
                    visible(&problem.title)
                ));
                return Ok(report);
            }
            let status: AsSent<Status> = answer.result()?;
            report.not_ready = not_ready(&status);
            report.settings_changed = (!is_of(&status, config)).then(|| NeedsPerson {
                kind: "settings".to_owned(),
                subject: "settings".to_owned(),
                text: format!("{}. Fix: {}", SETTINGS_CHANGED.0, SETTINGS_CHANGED.1),
            });
            report.status = Some(status);
            Api::Running(server)
        }
        None => {
            report.not_ready = Some(nobody.to_owned());
            if matches!(&config.store.url, StoreUrl::Sqlite(path) if no_file(path)) {
                return Ok(report);
            }
            let api = Api::open_for_reading(config).await?;
            report.status = Some(api.get("/v1/status").await?);
            api
        }
    };
    report.subscriptions = api.rows("/v1/subscriptions").await?;
    report.feeds = api.rows("/v1/feeds").await?;
    report.feeds.retain(|feed| feed.removed_at.is_none());
    report.destinations = api.rows("/v1/destinations").await?;
    report
        .destinations
        .retain(|destination| destination.kind.is_some());
    api.close().await?;
    Ok(report)
}

/// Returns why a running server accepts no messages; `None` if it does.
fn not_ready(status: &Status) -> Option<String> {
    if status.ready {
        return None;
    }
    let code = visible(status.reason.as_deref().unwrap_or_default());
    let is_full = status.reason.as_deref() == Some(Refusal::DiskNearlyFull.code());
    Some(match &status.store_fault {
        Some(fault) => format!("{code}: {}", visible(fault)),
        None if is_full => format!("{code}. Fix: {DISK_FIX}"),
        None => format!("{code}. Fix: see docs/operating.md"),
    })
}

impl Report {
    fn needs_person(&self) -> Vec<&NeedsPerson> {
        let of_server = self.status.iter().flat_map(|status| &status.needs_person);
        self.settings_changed.iter().chain(of_server).collect()
    }

    fn to_json(&self) -> Value {
        json!({
            "running": self.running,
            "ready": self.not_ready.is_none(),
            "not_ready": self.not_ready,
            "needs_person": self.needs_person(),
            "status": self.status,
            "subscriptions": self.subscriptions,
            "feeds": self.feeds,
            "destinations": self.destinations,
        })
    }

    fn to_text(&self, config: &Config) -> String {
        let mut text = String::new();
        let mut line = |line: String| {
            text.push_str(&line);
            text.push('\n');
        };
        let status = self.status.as_ref();
        let version = status.map_or(env!("CARGO_PKG_VERSION"), |status| &status.version);
        let version = visible(version);
        line(match &self.not_ready {
            None => format!(
                "{} ivesk-webhook {version} accepts messages at {}",
                styled(GOOD, "READY"),
                match status.and_then(|status| status.public_url.as_deref()) {
                    Some(url) => visible(url).into_owned(),
                    None => config.public.url.to_string(),
                }
            ),
            Some(why) => format!(
                "{} ivesk-webhook {version} accepts no messages: {why}",
                styled(BAD, "NOT READY")
            ),
        });
        line(self.store(config));
        if self.status.is_none() {
            return text;
        }
        line(section("Subscriptions", self.subscriptions.len()));
        let rows = self.subscriptions.iter().take(SHOWN).map(|row| {
            let heard = match row.last_heard_at {
                None => "not heard yet".to_owned(),
                Some(at) => format!("last heard {}", table::moment(at)),
            };
            let state = colored(&words(row.state.as_str()));
            let name = format!("{}/{}", row.account, row.event);
            (name, format!("{state}, {heard}"), None)
        });
        lines_of(&mut line, rows.collect());
        line_for_more(
            &mut line,
            &self.subscriptions,
            "`ivesk-webhook subscriptions list`",
        );
        line(section("Feeds", self.feeds.len()));
        let is_well = |row: &FeedStatus| row.state == RunState::Active && row.incomplete.is_none();
        let rows = by_trouble(&self.feeds, is_well).take(SHOWN).map(|row| {
            let state = colored(&table::state(&row.state));
            let documents = counted(row.documents, "document");
            let up_to_date = match (self.is_blocked(row), row.incomplete, row.up_to_date_at) {
                (true, ..) => "not pulled: a setting is missing".to_owned(),
                (_, Some(reason), _) => format!("incomplete ({})", words(reason.as_str())),
                (_, None, None) => "not pulled to its end yet".to_owned(),
                (_, None, Some(at)) => format!("up to date {}", table::moment(at)),
            };
            let error = last_error(&row.state, row.last_error.as_deref());
            let text = format!("{state}, {documents}, {up_to_date}");
            (row.feed.to_string(), text, error)
        });
        lines_of(&mut line, rows.collect());
        line_for_more(&mut line, &self.feeds, "`ivesk-webhook feeds list`");
        line(section("Destinations", self.destinations.len()));
        let is_well = |row: &Destination| row.state == RunState::Active;
        let rows = by_trouble(&self.destinations, is_well)
            .take(SHOWN)
            .map(|row| {
                let state = colored(&table::state(&row.state));
                let text = format!(
                    "{state}, {} delivered, {} waiting, {} rejected",
                    row.delivered, row.waiting, row.rejected_now
                );
                let error = last_error(&row.state, row.last_error.as_deref());
                (row.name.to_string(), text, error)
            });
        lines_of(&mut line, rows.collect());
        line_for_more(
            &mut line,
            &self.destinations,
            "`ivesk-webhook destinations list`",
        );
        let items = self.needs_person();
        match (items.len(), &self.not_ready) {
            (0, None) => line(styled(GOOD, "Nothing needs a person.")),
            // The first line says what does.
            (0, Some(_)) => {}
            (count, _) => line(styled(BAD, &format!("Needs a person: {count}"))),
        }
        for item in items.iter().take(SHOWN) {
            let (subject, text) = (visible(&item.subject), visible(&item.text));
            // A code is of no use beside the words.
            line(match text.contains(&*subject) || subject.contains('_') {
                true => format!("  {text}"),
                false => format!("  {subject}: {text}"),
            });
        }
        if items.len() > SHOWN {
            line(format!(
                "  … and {} more: `status --json` lists all",
                items.len() - SHOWN
            ));
        }
        text
    }

    /// Returns true if the feed's queue is not pulled until a setting is made.
    fn is_blocked(&self, row: &FeedStatus) -> bool {
        let blocked = self.status.iter().flat_map(|status| &status.blocked);
        let mut blocked = blocked;
        blocked
            .any(|blocked| blocked.account == row.feed.account && blocked.queue == row.feed.queue)
    }

    fn store(&self, config: &Config) -> String {
        let place = match &config.store.url {
            StoreUrl::Sqlite(path) => path.display().to_string(),
            StoreUrl::Postgres(address) => address.to_string(),
        };
        let mut store = format!("{} {place}: ", styled(HEADING, "Store"));
        let status = self.status.as_ref();
        match status.map(|status| status.sequence.last.unsigned_abs()) {
            Some(versions) => store.push_str(&counted(versions, "document version")),
            None if self.running => store.push_str("it can't be read"),
            None => store.push_str("not created yet"),
        }
        if let Some(free) = status.and_then(|status| status.free_bytes) {
            const MIB: u64 = 1024 * 1024;
            store.push_str(&format!(", {} MiB free on its disk", free / MIB));
        }
        store
    }
}

/// Writes rows of a name, its state and its last error, with the names at the same width.
fn lines_of(line: &mut impl FnMut(String), rows: Vec<(String, String, Option<String>)>) {
    let rows = rows
        .into_iter()
        .map(|(name, text, error)| (visible(&name).into_owned(), text, error));
    let rows: Vec<_> = rows.collect();
    let width = rows.iter().map(|(name, ..)| name.width()).max();
    for (name, text, error) in rows {
        let padding = " ".repeat(width.unwrap_or_default().saturating_sub(name.width()));
        line(format!("  {name}{padding}  {text}"));
        if let Some(error) = error {
            line(format!("    last error: {}", visible(&error)));
        }
    }
}

/// Returns the last error of what does not run.
fn last_error(state: &RunState, error: Option<&str>) -> Option<String> {
    match state {
        RunState::Active | RunState::Removed { .. } => None,
        RunState::Waiting { .. } | RunState::Failing { .. } | RunState::Paused { .. } => {
            error.map(str::to_owned)
        }
    }
}

fn section(name: &str, rows: usize) -> String {
    match rows {
        0 => format!("{}: none", styled(HEADING, name)),
        _ => styled(HEADING, name),
    }
}

fn line_for_more<T>(line: &mut impl FnMut(String), rows: &[T], command: &str) {
    if rows.len() > SHOWN {
        let more = rows.len() - SHOWN;
        line(format!("  … and {more} more: {command}"));
    }
}

/// Returns the rows, those that do not run first.
fn by_trouble<T>(rows: &[AsSent<T>], is_well: impl Fn(&T) -> bool) -> impl Iterator<Item = &T> {
    let mut rows: Vec<&T> = rows.iter().map(|row| &**row).collect();
    rows.sort_by_key(|row| is_well(row));
    rows.into_iter()
}

/// Returns a state in its color.
fn colored(state: &str) -> String {
    let style: Style = match state {
        "active" | "confirmed" => GOOD,
        "requested" | "pending" => NOTE,
        _ if state.starts_with("waiting") => NOTE,
        _ => BAD,
    };
    styled(style, state)
}
