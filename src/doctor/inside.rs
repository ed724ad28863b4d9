//! Settings, clock, store, disk, and the ways out.

use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use reqwest::header::DATE;
use rustix::fs::Access;

use super::Finding;
use crate::config::{Config, StoreUrl, is_loopback};
use crate::domain::{Clock, Company, Queue, Timestamp};
use crate::egress;
use crate::ivesk::{ApiError, Client};
use crate::receiver::listener;
use crate::sns::policy::endpoint;
use crate::store::postgres::{Address, PostgresStore};
use crate::store::sqlite::SqliteStore;
use crate::store::{Store as _, StoreError};

/// How long a host may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// A clock that differs by more lets genuine messages be refused sooner or later.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(2 * 60);

/// What stands in the settings, without asking anybody.
pub fn settings(config: &Config) -> Vec<Finding> {
    let mut findings = vec![Finding::ok("settings", "they can be used")];
    if is_loopback(&config.public.url) {
        findings.push(
            Finding::note(
                "public_url",
                format!("`public.url` is {}, on this machine", config.public.url),
            )
            .because("SNS can't reach this machine under that address")
            .fix("set the https address of your proxy or tunnel, once you have one"),
        );
    }
    for (name, account) in &config.accounts {
        if account.api_key.is_none() {
            findings.push(
                Finding::wrong("api_key", format!("the account `{name}` has no API key"))
                    .because("without one notifications are kept and nothing is pulled or uploaded")
                    .fix(format!(
                        "make one at app.ivesk.lt/settings/general, then set IVESK_WEBHOOK_API_KEY or \
                         `accounts.{name}.api_key_file`"
                    )),
            );
        }
    }
    if config.api.exported_path.is_none() {
        findings.push(
            Finding::wrong("exported_path", "`api.exported_path` is not set")
                .because(
                    "Įvesk.lt does not publish it, and the exported queue is not pulled without it",
                )
                .fix("run `ivesk-webhook doctor --company CODE` with the code of a company of yours that has exported documents"),
        );
    }
    if config.api.subscribe_path.is_none() {
        findings.push(
            Finding::note("subscribe_path", "`api.subscribe_path` is not set")
                .because("`subscriptions create` can't send the request")
                .fix("`ivesk-webhook subscriptions create --print` shows what to send by hand"),
        );
    }
    if !config.sns.local_origins.is_empty() {
        let origins = config.sns.local_origins.join(", ");
        findings.push(
            Finding::note(
                "local_origins",
                format!("`sns.local_origins` lets {origins} stand in for SNS"),
            )
            .because("whoever controls these can forge any message")
            .fix("remove it before Įvesk.lt is subscribed"),
        );
    }
    findings
}

/// The store, where no server answers for it.
pub async fn store(config: &Config) -> Vec<Finding> {
    match &config.store.url {
        StoreUrl::Sqlite(path) => file(config, path).await,
        StoreUrl::Postgres(address) => vec![database(address).await],
    }
}

/// Whether the database can be asked; where it is empty still, the first start fills it.
async fn database(address: &Address) -> Finding {
    match PostgresStore::open_for_reading(address.clone()).await {
        Ok(store) => {
            let last = store.sequence().await.map(|sequence| sequence.last);
            // It was read only; nothing can be lost.
            let _ = store.close().await;
            match last {
                Ok(last) => {
                    Finding::ok("store", format!("{address} holds {last} document versions"))
                }
                Err(error) => unusable(&error),
            }
        }
        Err(error @ StoreError::Unreachable { .. }) => {
            Finding::unreachable("store", error.to_string())
                .because(NOTHING_RECEIVED)
                .fix("start the database, or check `store.url`")
        }
        Err(error) => unusable(&error),
    }
}

/// The store's file, and the disk that it is on or will be.
async fn file(config: &Config, path: &Path) -> Vec<Finding> {
    let folder = folder_of(path);
    let store = if path.is_dir() {
        Finding::wrong("store", format!("{} is a folder", path.display()))
            .because(NOTHING_RECEIVED)
            .fix("set `store.url` to a file in it")
    } else if let Err((what, error)) = may_write(path, &folder) {
        Finding::wrong(
            "store",
            format!("this user can't write {}: {error}", what.display()),
        )
        .because(NOTHING_RECEIVED)
        .fix(format!(
            "make the folder {} and give it, with the store's files in it, to the user that runs \
             `serve`; run `doctor` as that user; or set `store.url`",
            folder.display()
        ))
    } else if path.exists() {
        content(path).await
    } else {
        let found = format!("{} will be made at the first start", path.display());
        Finding::ok("store", found)
    };
    let free = rustix::fs::statvfs(&folder).ok();
    let free = free.map(|numbers| numbers.f_bavail.saturating_mul(numbers.f_frsize));
    let room = free.map(|free| disk(free, config.store.min_free_bytes));
    std::iter::once(store).chain(room).collect()
}

/// What the store's file holds.
async fn content(path: &Path) -> Finding {
    let store = match SqliteStore::open_for_reading(path) {
        Ok(store) => store,
        Err(error) => return unusable(&error),
    };
    let finding = match store.sequence().await {
        Ok(sequence) => Finding::ok(
            "store",
            format!(
                "{} holds {} document versions",
                path.display(),
                sequence.last
            ),
        ),
        Err(error) => unusable(&error),
    };
    // It was read only; nothing can be lost.
    let _ = store.close().await;
    finding
}

/// Why a store matters.
const NOTHING_RECEIVED: &str = "without a store nothing can be received";

fn unusable(error: &StoreError) -> Finding {
    Finding::wrong("store", error.to_string())
        .because(NOTHING_RECEIVED)
        .fix("what to do stands in the message; docs/operating.md has more on backups")
}

/// The folder that the store's files are in, as it can be found from anywhere.
fn folder_of(path: &Path) -> PathBuf {
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    whole.parent().map(Path::to_owned).unwrap_or(whole)
}

/// Whether this user may write the store and the files that stand beside it; what it
/// may not write where it may not.
fn may_write(path: &Path, folder: &Path) -> Result<(), (PathBuf, rustix::io::Errno)> {
    let access = Access::WRITE_OK | Access::EXEC_OK;
    rustix::fs::access(folder, access).map_err(|error| (folder.to_owned(), error))?;
    for end in ["", "-wal", "-shm", ".lock"] {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        let file = PathBuf::from(name);
        match rustix::fs::access(&file, Access::WRITE_OK) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => {}
            Err(error) => return Err((file, error)),
        }
    }
    Ok(())
}

/// Whether `serve` could listen where the settings say, while none runs.
pub async fn listeners(config: &Config) -> Vec<Finding> {
    let addresses = [
        ("public.listen", config.public.listen),
        ("admin.listen", config.admin.listen),
    ];
    let mut findings = Vec::new();
    for (setting, address) in addresses {
        findings.push(match listener::bind(setting, address).await {
            Ok(_) => Finding::ok("listen", format!("`{setting}` = {address} is free")),
            Err(error) => Finding::wrong("listen", error.found())
                .because("`serve` does not start without it")
                .fix(error.fix()),
        });
    }
    findings
}

/// Whether the disk has the room that the settings ask for.
pub fn disk(free: u64, minimum: u64) -> Finding {
    const MIB: u64 = 1024 * 1024;
    let found = format!("{} MiB are free on the store's disk", free / MIB);
    if free >= minimum {
        return Finding::ok("disk", found);
    }
    Finding::wrong(
        "disk",
        format!(
            "{found}, less than the {} MiB of `store.min_free_bytes`",
            minimum / MIB
        ),
    )
    .because("messages are answered 503, and SNS gives up after about half an hour")
    .fix("free some space, or move the store to a larger disk")
}

/// The way to SNS, and what its clock says.
pub async fn way_to_sns(config: &Config, clock: &Clock) -> Vec<Finding> {
    let client = match egress::client(PATIENCE) {
        Ok(client) => client,
        Err(error) => {
            let found = format!("no HTTPS client: {}", egress::describe(error));
            return vec![
                Finding::wrong("sns", found)
                    .because("certificates and confirmations are fetched over HTTPS")
                    .fix("install the system's CA certificates (Debian: `ca-certificates`)"),
            ];
        }
    };
    let mut origins: Vec<String> = match config.sns.local_origins.as_slice() {
        [] => config
            .sns
            .topics
            .iter()
            .map(|topic| endpoint(&topic.region))
            .collect(),
        local => local.to_vec(),
    };
    origins.sort();
    origins.dedup();
    let mut findings = Vec::new();
    for origin in origins {
        match client.get(&origin).send().await {
            // Any answer will do: there is nothing at its root.
            Ok(answer) => {
                findings.push(Finding::ok("sns", format!("{origin} answers")));
                let date = answer.headers().get(DATE);
                let date = date.and_then(|value| value.to_str().ok());
                findings.extend(date.and_then(|date| clock_against(date, clock.now(), &origin)));
            }
            Err(error) => findings.push(
                Finding::unreachable(
                    "sns",
                    format!("{origin} can't be reached: {}", egress::describe(error)),
                )
                .because("signing certificates come from there, and subscriptions are confirmed there: without it every message is answered 503")
                .fix("let this machine reach that host on port 443, directly: proxy variables are not used"),
            ),
        }
    }
    findings
}

/// Compares our clock with the `Date` of an answer.
fn clock_against(date: &str, now: Timestamp, whose: &str) -> Option<Finding> {
    let theirs = httpdate::parse_http_date(date).ok()?;
    let millis = theirs.duration_since(UNIX_EPOCH).ok()?.as_millis();
    let theirs = Timestamp::from_millis(i64::try_from(millis).ok()?);
    let (ahead, behind) = (now.since(theirs), theirs.since(now));
    let apart = ahead.max(behind);
    let seconds = apart.as_secs();
    Some(if apart <= CLOCK_TOLERANCE {
        Finding::ok("clock", format!("within {} s of {whose}", seconds + 1))
    } else {
        let span = humantime::format_duration(Duration::from_secs(seconds));
        let side = if ahead > behind { "ahead of" } else { "behind" };
        Finding::wrong(
            "clock",
            format!("this machine's clock is {span} {side} that of {whose}"),
        )
        .because("messages are judged by their age, certificates by their dates")
        .fix("let the system keep the time (`timedatectl set-ntp true`)")
    })
}

/// Whether each key is taken, asking for one page of the digitized queue.
pub async fn keys(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (name, account) in &config.accounts {
        let Some(key) = account.api_key.clone() else {
            continue;
        };
        let asked = match Client::new(&config.api, key) {
            Ok(client) => {
                let mixed = Company::mixed();
                let page = client.page(Queue::Digitized, &mixed, None);
                page.await.map(|page| page.documents.len())
            }
            Err(error) => Err(error),
        };
        findings.push(match asked {
            Ok(count) => Finding::ok(
                "api",
                format!("Įvesk.lt takes the key of `{name}` ({count} documents in the first page)"),
            ),
            Err(error) => refused(name.as_str(), &error),
        });
    }
    findings
}

fn refused(name: &str, error: &ApiError) -> Finding {
    let found = format!("the key of `{name}`: {error}");
    match error {
        ApiError::Unreachable(_) => Finding::unreachable("api", found)
            .because("documents are pulled from there")
            .fix("let this machine reach `api.url` on port 443, directly: proxy variables are not used"),
        ApiError::Status {
            status: 401 | 403, ..
        } => Finding::wrong("api", found)
            .because("nothing is pulled with a key that is not taken")
            .fix("make a new key at app.ivesk.lt/settings/general, copy it whole, and put it where the settings name it"),
        _ => Finding::wrong("api", found)
            .because("documents are pulled from there")
            .fix("check `api.url`; where that is right, wait a while: Įvesk.lt may be in trouble"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn a_clock_minutes_off_in_either_direction_fails() {
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        let there = Timestamp::parse("1994-11-06T08:49:37Z").expect("a time");
        let judge = |now| clock_against(date, now, "x").map(|finding| finding.verdict);
        assert_eq!(judge(there), Some(Verdict::Ok));
        assert_eq!(judge(there.after(CLOCK_TOLERANCE)), Some(Verdict::Ok));
        let off = CLOCK_TOLERANCE + Duration::from_millis(1);
        assert_eq!(judge(there.after(off)), Some(Verdict::Wrong));
        assert_eq!(judge(there.before(off)), Some(Verdict::Wrong));
        assert_eq!(clock_against("yesterday", there, "x"), None);
    }

    #[test]
    fn a_disk_with_less_than_the_required_room_fails() {
        assert_eq!(disk(10, 10).verdict, Verdict::Ok);
        assert_eq!(disk(9, 10).verdict, Verdict::Wrong);
    }
}
