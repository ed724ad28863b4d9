//! Checks the settings, the clock, the store, the disk and outgoing connections.

use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use reqwest::header::DATE;
use rustix::fs::Access;

use super::{Check, exposed};
use crate::config::{Config, StoreUrl, is_loopback};
use crate::domain::{Clock, Company, Queue, Timestamp};
use crate::egress;
use crate::ivesk::{ApiError, Client};
use crate::metrics::UnexpectedCount;
use crate::receiver::listener;
use crate::sns::region;
use crate::store::{AutomaticBackups, Store, StoreError};

/// Time limit of one request.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Largest difference of clocks that passes; a larger one may get genuine messages refused.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(2 * 60);

/// Instruction for a disk with less free space than `store.min_free_bytes`.
pub const DISK_FIX: &str = "free some space on the store's disk, move the store to a larger one, or lower \
                            `store.min_free_bytes` and restart `serve`";

/// Checks the settings, without any request.
pub fn settings(config: &Config) -> Vec<Check> {
    let mut checks = vec![Check::pass("settings", "the settings are valid")];
    if is_loopback(&config.public.url) {
        checks.push(
            Check::note(
                "public_url",
                format!("`public.url` is {}, on this machine", config.public.url),
            )
            .because("SNS can't reach this machine at that address")
            .fix("set it to the https address of your proxy or tunnel, once you have one"),
        );
    }
    for (name, account) in &config.accounts {
        if account.api_key.is_none() {
            checks.push(
                Check::fail("api_key", format!("the account `{name}` has no API key"))
                    .because("notifications are kept, but nothing is pulled or uploaded")
                    .fix(format!(
                        "create one at app.ivesk.lt/settings/general, then set IVESK_WEBHOOK_API_KEY or \
                         `accounts.{name}.api_key_file`"
                    )),
            );
        }
    }
    for doubt in config.doubted_companies() {
        checks.push(
            Check::note("company_code", doubt)
                .because("Įvesk.lt has no documents of a company that it does not know")
                .fix("correct the code in the settings, then remove the feed of the wrong one with `ivesk-webhook feeds remove`"),
        );
    }
    if config.api.exported_path.is_none() {
        checks.push(
            Check::fail("exported_path", "`api.exported_path` is not set")
                .because(
                    "the exported queue is not pulled without it, and Įvesk.lt does not publish it",
                )
                .fix("run `ivesk-webhook doctor --company CODE` with the code of a company that has exported documents"),
        );
    }
    if config.api.subscribe_path.is_none() {
        checks.push(
            Check::note("subscribe_path", "`api.subscribe_path` is not set")
                .because("`subscriptions create` can't send the request")
                .fix("`ivesk-webhook subscriptions create --print` shows what to send by hand"),
        );
    }
    for file in exposed::files(config) {
        checks.push(
            Check::note("secrets", file.found())
                .because("who reads it can send messages as SNS does, act as this service, or see all documents")
                .fix(file.fix()),
        );
    }
    if !config.sns.local_origins.is_empty() {
        let origins = config.sns.local_origins.join(", ");
        checks.push(
            Check::note(
                "local_origins",
                format!("`sns.local_origins` lets {origins} stand in for SNS"),
            )
            .because("whoever controls these origins can forge any message")
            .fix("remove it before Įvesk.lt is subscribed"),
        );
    }
    checks
}

/// Checks what reached the public listener and no webhook within a day.
pub fn unexpected_requests(counts: &[UnexpectedCount]) -> Vec<Check> {
    const CHECK: &str = "unexpected_requests";
    let checks: Vec<Check> = counts
        .iter()
        // A scanner sends the rest.
        .filter(|count| count.loses_messages || count.kind.is_misconfiguration())
        .map(|count| {
            let row = count.kind.explanation();
            let found = format!(
                "{} ({} since the start of `serve`, {} of them from SNS, the last one at {})",
                row.found, count.total, count.from_sns, count.last_at
            );
            let check = if count.loses_messages {
                Check::fail(CHECK, found)
            } else {
                Check::note(CHECK, found)
            };
            check
                .because("what reaches no webhook is lost: SNS drops a message that is answered below 500")
                .fix(row.fix)
        })
        .collect();
    if checks.is_empty() {
        let found = "no request of SNS missed its webhook within a day";
        return vec![Check::pass(CHECK, found)];
    }
    checks
}

/// Checks the store directly; used while no server runs.
///
/// With `slow`, the whole file is read and checked for damage.
pub async fn store(config: &Config, slow: bool) -> Vec<Check> {
    match &config.store.url {
        StoreUrl::Sqlite(path) => file(config, path, slow).await,
        StoreUrl::Postgres(address) => vec![content(config, address.to_string(), slow).await],
    }
}

/// Checks the store's file and its disk.
async fn file(config: &Config, path: &Path, slow: bool) -> Vec<Check> {
    let folder = folder_of(path);
    let store = if path.is_dir() {
        Check::fail("store", format!("{} is a folder", path.display()))
            .because(NOTHING_RECEIVED)
            .fix("set `store.url` to a file in that folder")
    } else if let Err((file, error)) = check_writable(path, &folder) {
        Check::fail(
            "store",
            format!("this user can't write {}: {error}", file.display()),
        )
        .because(NOTHING_RECEIVED)
        .fix(format!(
            "create the folder {} and make the user that runs `serve` its owner, with the store's \
             files in it; run `doctor` as that user; or set `store.url`",
            folder.display()
        ))
    } else if path.exists() {
        content(config, path.display().to_string(), slow).await
    } else if let Some(lock) = left_lock(path) {
        Check::fail(
            "store",
            format!(
                "{} is missing, but {} beside it shows that it was there",
                path.display(),
                lock.display()
            ),
        )
        .because("`serve` would begin with an empty store, and deliver what is in the books already")
        .fix(format!(
            "put the file back, or restore the newest backup (docs/backup.md); to start over, remove {}",
            lock.display()
        ))
    } else {
        let found = format!("{} will be created at the first start", path.display());
        Check::pass("store", found)
    };
    let stats = rustix::fs::statvfs(&folder).ok();
    let free = stats.map(|stats| stats.f_bavail.saturating_mul(stats.f_frsize));
    let disk = free.map(|free| disk(free, config.store.min_free_bytes));
    std::iter::once(store)
        .chain(disk)
        .chain(backup(config))
        .collect()
}

/// Checks that automatic backups are written; `None` if the settings ask for none.
fn backup(config: &Config) -> Option<Check> {
    let every = config.store.backup_every?;
    let folder = &config.store.backup_dir;
    let problem = |found: String| {
        Check::fail("backup", found)
            .because("without a backup, what Įvesk.lt no longer lists is lost with the disk")
            .fix("read the log lines of `serve` about backups; its user must be able to write there, and the disk needs room")
    };
    let now = Clock::system().now();
    let newest = match AutomaticBackups::of(&config.store).newest(now) {
        Ok(newest) => newest,
        Err(error) => {
            return Some(problem(format!(
                "{} can't be read: {error}",
                folder.display()
            )));
        }
    };
    Some(match newest {
        Some((at, path)) if now.since(at) <= every.saturating_mul(2) => {
            Check::pass("backup", format!("the newest backup is {}", path.display()))
        }
        Some((_, path)) => problem(format!(
            "the newest backup, {}, is older than twice `store.backup_every`",
            path.display()
        )),
        None if is_younger_than(&config.store.url, every, now) => Check::note(
            "backup",
            format!(
                "there is no backup in {} yet; `serve` writes the first one",
                folder.display()
            ),
        ),
        None => problem(format!("there is no backup in {} yet", folder.display())),
    })
}

/// Returns true if a database is missing, or was created less than `time` ago: `serve` has not run for
/// longer.
fn is_younger_than(url: &StoreUrl, time: Duration, now: Timestamp) -> bool {
    let StoreUrl::Sqlite(path) = url else {
        return false;
    };
    let file = match path.metadata() {
        Ok(file) => file,
        Err(error) => return error.kind() == std::io::ErrorKind::NotFound,
    };
    // Some file systems do not tell.
    let created = file.created().ok();
    let created = created.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    created.is_some_and(|since_epoch| {
        let millis = i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX);
        now.since(Timestamp::from_millis(millis)) < time
    })
}

/// Returns the lock file of a database that is missing.
fn left_lock(path: &Path) -> Option<PathBuf> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let lock = PathBuf::from(name);
    lock.exists().then_some(lock)
}

/// Checks that the store can be read; with `slow`, also that no part of it is damaged.
async fn content(config: &Config, place: String, slow: bool) -> Check {
    let store = match Store::open_for_reading(&config.store.url).await {
        Ok(store) => store,
        Err(error @ StoreError::Unreachable { .. }) => {
            return Check::unreachable("store", error.to_string())
                .because(NOTHING_RECEIVED)
                .fix("start the database, or check `store.url`");
        }
        Err(error) => return unusable(&error),
    };
    let checked = if slow {
        store.check_integrity().await
    } else {
        Ok(())
    };
    let check = match (store.sequence().await, checked) {
        (_, Err(damage @ StoreError::Corrupt { .. })) => damaged(&damage.to_string()),
        (Ok(sequence), _) => Check::pass(
            "store",
            format!("{place} holds {} document versions", sequence.last),
        ),
        (Err(error), _) => unusable(&error),
    };
    // Opened read-only, so closing can't lose anything.
    let _ = store.close().await;
    check
}

/// The consequence of a store that can't be used.
const NOTHING_RECEIVED: &str = "without a store no message can be received";

/// Returns the failed check of a store that the running server found damaged.
pub fn damaged(damage: &str) -> Check {
    Check::fail("store", damage)
        .because("messages are stored as long as their pages are sound; other rows may be lost")
        .fix("restore the newest backup with `ivesk-webhook store restore` (docs/backup.md); documents since then are pulled again")
}

fn unusable(error: &StoreError) -> Check {
    Check::fail("store", error.to_string())
        .because(NOTHING_RECEIVED)
        .fix("follow the message; see docs/backup.md for backups")
}

/// Returns the absolute path of the folder that the store's files are in.
fn folder_of(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    absolute.parent().map(Path::to_owned).unwrap_or(absolute)
}

/// Checks that this user may write the store's files and their folder.
///
/// # Errors
///
/// Returns the first path that can't be written.
fn check_writable(path: &Path, folder: &Path) -> Result<(), (PathBuf, rustix::io::Errno)> {
    let access = Access::WRITE_OK | Access::EXEC_OK;
    rustix::fs::access(folder, access).map_err(|error| (folder.to_owned(), error))?;
    for ending in ["", "-wal", "-shm", ".lock"] {
        let mut name = path.as_os_str().to_owned();
        name.push(ending);
        let file = PathBuf::from(name);
        match rustix::fs::access(&file, Access::WRITE_OK) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => {}
            Err(error) => return Err((file, error)),
        }
    }
    Ok(())
}

/// Checks that `serve` could listen on the configured addresses; used while no server runs.
pub async fn listeners(config: &Config) -> Vec<Check> {
    let addresses = [
        ("public.listen", config.public.listen),
        ("admin.listen", config.admin.listen),
    ];
    let mut checks = Vec::new();
    for (setting, address) in addresses {
        checks.push(match listener::bind(setting, address).await {
            Ok(_) => Check::pass("listen", format!("`{setting}` = {address} is free")),
            Err(error) => Check::fail("listen", error.found())
                .because("`serve` does not start without it")
                .fix(error.fix()),
        });
    }
    checks
}

/// Checks that the disk has the free space that the settings require.
pub fn disk(free: u64, minimum: u64) -> Check {
    const MIB: u64 = 1024 * 1024;
    let found = format!("{} MiB are free on the store's disk", free / MIB);
    if free >= minimum {
        return Check::pass("disk", found);
    }
    Check::fail(
        "disk",
        format!(
            "{found}, less than the {} MiB of `store.min_free_bytes`",
            minimum / MIB
        ),
    )
    .because("messages are answered 503, and SNS gives up after about half an hour")
    .fix(DISK_FIX)
}

/// Returns a client for the checks that follow.
///
/// # Errors
///
/// The failed check if HTTPS can't be set up.
pub fn https(config: &Config) -> Result<reqwest::Client, Check> {
    egress::client(config.egress.proxy.as_ref(), TIMEOUT).map_err(|error| {
        Check::fail("https", error.found())
            .because("`serve` does not start without HTTPS; SNS, Įvesk.lt and the public address can't be checked")
            .fix(error.fix())
    })
}

/// Checks the connection to SNS, and this machine's clock against that of SNS.
pub async fn sns(client: &reqwest::Client, config: &Config, clock: &Clock) -> Vec<Check> {
    let mut origins: Vec<String> = match config.sns.local_origins.as_slice() {
        [] => config
            .sns
            .topics
            .iter()
            .filter_map(|topic| region::endpoint(&topic.region))
            .collect(),
        local => local.to_vec(),
    };
    origins.sort();
    origins.dedup();
    let mut checks = Vec::new();
    for origin in origins {
        match client.get(&origin).send().await {
            // Any status will do: there is nothing at the root.
            Ok(response) => {
                checks.push(Check::pass("sns", format!("{origin} answers")));
                let date = response.headers().get(DATE);
                let date = date.and_then(|value| value.to_str().ok());
                checks.extend(date.and_then(|date| clock_against(date, clock.now(), &origin)));
            }
            Err(error) => checks.push(
                Check::unreachable(
                    "sns",
                    format!("{origin} can't be reached: {}", egress::describe(error)),
                )
                .because("signing certificates are fetched and subscriptions confirmed there; without it every message is answered 503")
                .fix(match config.sns.local_origins.is_empty() {
                    true => "allow connections from this machine to that host on port 443, or set `egress.proxy`; variables such as HTTPS_PROXY are not used",
                    false => "start `ivesk-webhook emulator`, or set `sns.local_origins`, which is on this machine",
                }),
            ),
        }
    }
    checks
}

/// Compares this machine's clock with the `Date` of a response from `origin`.
fn clock_against(date: &str, now: Timestamp, origin: &str) -> Option<Check> {
    let theirs = httpdate::parse_http_date(date).ok()?;
    let millis = theirs.duration_since(UNIX_EPOCH).ok()?.as_millis();
    let theirs = Timestamp::from_millis(i64::try_from(millis).ok()?);
    let (ahead, behind) = (now.since(theirs), theirs.since(now));
    let difference = ahead.max(behind);
    let seconds = difference.as_secs();
    Some(if difference <= CLOCK_TOLERANCE {
        Check::pass("clock", format!("within {} s of {origin}", seconds + 1))
    } else {
        let span = humantime::format_duration(Duration::from_secs(seconds)).to_string();
        let span = span.replace("day", " day");
        let side = if ahead > behind { "ahead of" } else { "behind" };
        Check::fail(
            "clock",
            format!("this machine's clock is {span} {side} that of {origin}"),
        )
        .because("the age of messages and the dates of certificates are checked against it")
        .fix("let the system set its clock (`timedatectl set-ntp true`)")
    })
}

/// Checks that Įvesk.lt accepts each API key, by requesting one page of the digitized queue.
pub async fn api_keys(config: &Config) -> Vec<Check> {
    let mut checks = Vec::new();
    for (name, account) in &config.accounts {
        let Some(key) = account.api_key.clone() else {
            continue;
        };
        let documents = match Client::new(&config.api, key) {
            Ok(client) => {
                let mixed = Company::mixed();
                let page = client.page(Queue::Digitized, &mixed, None);
                page.await.map(|page| page.documents.len())
            }
            Err(error) => Err(error),
        };
        checks.push(match documents {
            Ok(count) => Check::pass(
                "api",
                format!(
                    "Įvesk.lt accepts the key of `{name}` ({count} documents in the first page)"
                ),
            ),
            Err(error) => key_failed(config, name.as_str(), &error),
        });
    }
    checks
}

fn key_failed(config: &Config, name: &str, error: &ApiError) -> Check {
    let found = format!("the key of `{name}`: {error}");
    match error {
        ApiError::Unreachable(_) if is_loopback(&config.api.url) => Check::unreachable("api", found)
            .because("documents are pulled from there")
            .fix("start `ivesk-webhook emulator`, or set `api.url`, which is on this machine"),
        ApiError::Unreachable(_) => Check::unreachable("api", found)
            .because("documents are pulled from there")
            .fix("allow connections from this machine to `api.url` on port 443, or set `egress.proxy`; variables such as HTTPS_PROXY are not used"),
        ApiError::Status {
            status: 401 | 403, ..
        } => Check::fail("api", found)
            .because("nothing is pulled with a key that Įvesk.lt refuses")
            .fix("create a new key at app.ivesk.lt/settings/general, copy all of it, store it where the settings name it, and restart `serve`"),
        // Pulling retries by itself, and an alarm tells if that lasts.
        ApiError::Status {
            status: 429 | 500..=599,
            ..
        } => Check::note("api", found)
            .because("documents are pulled from there, which is retried by itself")
            .fix("wait; if it lasts, ask Įvesk.lt"),
        _ => Check::fail("api", found)
            .because("documents are pulled from there")
            .fix("check `api.url`; if it is right, try again later: Įvesk.lt may be down"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::CheckResult;

    #[test]
    fn a_clock_minutes_off_in_either_direction_fails() {
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        let exact = Timestamp::parse("1994-11-06T08:49:37Z").expect("a time");
        let result = |now| clock_against(date, now, "x").map(|check| check.result);
        assert_eq!(result(exact), Some(CheckResult::Pass));
        assert_eq!(
            result(exact.after(CLOCK_TOLERANCE)),
            Some(CheckResult::Pass)
        );
        let off = CLOCK_TOLERANCE + Duration::from_millis(1);
        assert_eq!(result(exact.after(off)), Some(CheckResult::Fail));
        assert_eq!(result(exact.before(off)), Some(CheckResult::Fail));
        assert_eq!(clock_against("yesterday", exact, "x"), None);
    }

    #[test]
    fn a_disk_with_less_than_the_required_room_fails() {
        assert_eq!(disk(10, 10).result, CheckResult::Pass);
        assert_eq!(disk(9, 10).result, CheckResult::Fail);
    }
}
