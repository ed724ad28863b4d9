//! Settings, clock, store, disk, and the ways out.

use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use reqwest::header::DATE;

use super::Finding;
use crate::config::{Config, StoreUrl, is_loopback};
use crate::domain::{Clock, Company, Queue, Timestamp};
use crate::egress;
use crate::ivesk::{ApiError, Client};
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
            .mend("set the https address of your proxy or tunnel, once you have one"),
        );
    }
    for (name, account) in &config.accounts {
        if account.api_key.is_none() {
            findings.push(
                Finding::wrong("api_key", format!("the account `{name}` has no API key"))
                    .because("without one notifications are kept and nothing is pulled or uploaded")
                    .mend(format!(
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
                .mend("run `ivesk-webhook doctor --company CODE` with the code of a company of yours that has exported documents"),
        );
    }
    if config.api.subscribe_path.is_none() {
        findings.push(
            Finding::note("subscribe_path", "`api.subscribe_path` is not set")
                .because("`subscribe` can't ask Įvesk.lt by itself")
                .mend("`ivesk-webhook subscribe --print` shows what to send by hand"),
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
            .mend("remove it before Įvesk.lt is subscribed"),
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
                .because("without it nothing can be received")
                .mend("start the database, or check `store.url`")
        }
        Err(error) => unusable(&error),
    }
}

/// The store's file.
async fn file(config: &Config, path: &Path) -> Vec<Finding> {
    let shown = path.display();
    if !path.exists() {
        return vec![folder(path)];
    }
    let store = match SqliteStore::open_for_reading(path) {
        Ok(store) => store,
        Err(error) => return vec![unusable(&error)],
    };
    let mut findings = Vec::new();
    match store.sequence().await {
        Ok(sequence) => findings.push(Finding::ok(
            "store",
            format!("{shown} holds {} document versions", sequence.last),
        )),
        Err(error) => findings.push(unusable(&error)),
    }
    if let Ok(Some(free)) = store.free_bytes().await {
        findings.push(disk(free, config.store.min_free_bytes));
    }
    // It was read only; nothing can be lost.
    let _ = store.close().await;
    findings
}

fn unusable(error: &StoreError) -> Finding {
    Finding::wrong("store", error.to_string())
        .because("without it nothing can be received")
        .mend("what to do stands in the message; docs/operating.md has more on backups")
}

/// Whether a store can be made where there is none.
fn folder(path: &Path) -> Finding {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let access = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
    match rustix::fs::access(folder, access) {
        Ok(()) => Finding::ok(
            "store",
            format!("{} will be made at the first start", path.display()),
        ),
        Err(error) => Finding::wrong(
            "store",
            format!("{} can't be made: {error}", path.display()),
        )
        .because("without a store nothing can be received")
        .mend(format!(
            "make the folder {} and give it to the user that runs `serve`, or set `store.url`",
            folder.display()
        )),
    }
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
    .because("deliveries are answered 503, and SNS gives up after about half an hour")
    .mend("free some space, or move the store to a larger disk")
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
                    .mend("install the system's CA certificates (Debian: `ca-certificates`)"),
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
                .because("signing certificates come from there, and subscriptions are confirmed there: without it every delivery is answered 503")
                .mend("let this machine reach that host on port 443, directly: proxy variables are not used"),
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
    let apart = now.since(theirs).max(theirs.since(now));
    let seconds = apart.as_secs();
    Some(if apart <= CLOCK_TOLERANCE {
        Finding::ok("clock", format!("within {} s of {whose}", seconds + 1))
    } else {
        Finding::wrong(
            "clock",
            format!("it is {seconds} s away from that of {whose}"),
        )
        .because("messages are judged by their age, certificates by their dates")
        .mend("let the system keep the time (`timedatectl set-ntp true`)")
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
            .mend("let this machine reach `api.url` on port 443, directly: proxy variables are not used"),
        ApiError::Status {
            status: 401 | 403, ..
        } => Finding::wrong("api", found)
            .because("nothing is pulled with a key that is not taken")
            .mend("make a new key at app.ivesk.lt/settings/general, copy it whole, and put it where the settings name it"),
        _ => Finding::wrong("api", found)
            .because("documents are pulled from there")
            .mend("check `api.url`; where that is right, wait a while: Įvesk.lt may be in trouble"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn a_clock_that_is_minutes_off_is_wrong_in_either_direction() {
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
    fn a_disk_with_less_room_than_asked_for_is_wrong() {
        assert_eq!(disk(10, 10).verdict, Verdict::Ok);
        assert_eq!(disk(9, 10).verdict, Verdict::Wrong);
    }
}
