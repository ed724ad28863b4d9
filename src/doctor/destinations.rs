//! Checks the configured destinations.

use super::Check;
use crate::config::{Config, DestinationConfig, DestinationKind};
use crate::delivery;
use crate::domain::{Clock, Feed, Timestamp, counted};
use crate::store::{DestinationPauseReason, DestinationRow, FeedRow, Store};

/// Checks that each configured destination can be opened, as `serve` does at its start.
///
/// Access to folders and programs is checked for the user that runs this.
pub fn settings(config: &Config, clock: &Clock) -> Vec<Check> {
    let mut checks = Vec::new();
    for (name, destination) in &config.destinations {
        if let DestinationKind::Folder { path, .. } = &destination.kind
            && !path.exists()
        {
            // Created here, it would belong to the user that runs this.
            checks.push(Check::note(
                "destination",
                format!(
                    "the folder of `{name}`, {}, does not exist yet; `serve` creates it",
                    path.display()
                ),
            ));
            continue;
        }
        let environment = config.environment.variables();
        checks.push(
            match delivery::open(name, destination, config, environment, clock) {
                Ok(_) => Check::pass("destination", format!("`{name}` can be used")),
                Err(error) => Check::fail("destination", error.to_string())
                    .because("`serve` does not start with a destination that can't be used")
                    .fix("follow the message, as the user that runs `serve`, then restart it; see docs/destinations.md"),
            },
        );
    }
    if !config.destinations.is_empty() && config.api.import_error_path.is_none() {
        checks.push(
            Check::note("import_error_path", "`api.import_error_path` is not set")
                .because("rejections are stored, but not sent to the accountant")
                .fix(
                    "set it to the address on the API page of your account (app.ivesk.lt/api/docs)",
                ),
        );
    }
    checks
}

/// Checks the state of the configured destinations; those without a problem are left out.
///
/// Returns `None` if the store can't be read, which another check reports.
pub async fn state(config: &Config, store: &Store, now: Timestamp) -> Option<Vec<Check>> {
    let mut checks = Vec::new();
    let feeds = store.feeds().await.ok()?;
    for row in store.paused_import_error_paths().await.ok()? {
        checks.push(
            Check::fail("import_errors", row.found())
                .because("rejections are stored, but not sent to the accountant")
                .fix(row.fix()),
        );
    }
    for row in store.destinations().await.ok()? {
        let Some(destination) = config.destinations.get(&row.name) else {
            continue;
        };
        checks.extend(delivery_state(config, &row, now));
        checks.extend(never_accepted(&row, destination, &feeds));
        if row.held > 0 {
            let name = &row.name;
            checks.push(
                Check::note(
                    "held",
                    format!("{} held as history at `{name}`", counted(row.held, "document")),
                )
                .because("history is not delivered automatically, so that nothing is booked twice")
                .fix(format!(
                    "run `ivesk-webhook destinations start {name}` with --all or --from MOMENT, if it is to be delivered"
                )),
            );
        }
        if row.unknown_lanes > 0 {
            let name = &row.name;
            checks.push(
                Check::note(
                    "lanes",
                    format!("{} held at `{name}`", counted(row.unknown_lanes, "feed")),
                )
                .because(
                    "no answer of Įvesk.lt has shown its clock yet, so nobody knows what is new",
                )
                .fix("run `ivesk-webhook pull`, which asks Įvesk.lt"),
            );
        }
    }
    Some(checks)
}

/// Returns a check of a destination that has accepted nothing of what is there for it.
fn never_accepted(
    row: &DestinationRow,
    destination: &DestinationConfig,
    feeds: &[FeedRow],
) -> Option<Check> {
    let takes = |feed: &Feed| {
        let DestinationConfig {
            queue,
            accounts,
            companies,
            ..
        } = destination;
        feed.queue == *queue
            && (accounts.is_empty() || accounts.contains(&feed.account))
            && (companies.is_empty() || feed.mixes_companies() || companies.contains(&feed.company))
    };
    let taken = feeds.iter().filter(|row| takes(&row.feed));
    let documents: u64 = taken.map(|row| row.documents).sum();
    let name = &row.name;
    if row.delivered > 0 || row.rejected > 0 {
        return None;
    }
    let fix = match destination.kind {
        DestinationKind::List => format!(
            "let its program request GET /v1/documents?after= with a token of `ivesk-webhook tokens create --rights \
             destination:{name}`, and report each outcome"
        ),
        _ => format!(
            "run `ivesk-webhook deliveries list --destination {name}` and `ivesk-webhook destinations list`: they show what \
             it waits for"
        ),
    };
    (documents > 0).then(|| {
        Check::note(
            "never_accepted",
            format!(
                "`{name}` has never accepted a document, and {} stored for it",
                match documents {
                    1 => "1 document version is".to_owned(),
                    _ => format!("{documents} document versions are"),
                }
            ),
        )
        .because("documents are not in the books until a destination accepts them")
        .fix(fix)
    })
}

/// Returns what is wrong with the deliveries of a destination. It fails if an alarm is about it: what
/// fails is retried, and a note until `alarms.destination_after`.
fn delivery_state(config: &Config, row: &DestinationRow, now: Timestamp) -> Option<Check> {
    const CHECK: &str = "delivery";
    let name = &row.name;
    let error = row.last_error.as_deref().unwrap_or("no error was recorded");
    if let Some(reason) = row.paused {
        let resume = format!("run `ivesk-webhook destinations resume {name}`");
        let check = match reason {
            DestinationPauseReason::ByHand => {
                Check::note(CHECK, format!("`{name}` was paused by a person"))
                    .fix(format!("{resume} once it is to receive documents again"))
            }
            DestinationPauseReason::Closed => {
                Check::fail(CHECK, format!("`{name}` is closed: {error}"))
                    .fix(format!("{resume} once it accepts documents again"))
            }
            DestinationPauseReason::Rejections => Check::fail(
                CHECK,
                format!("`{name}` is paused: it gives the same rejection again and again: {error}"),
            )
            .fix(format!("correct the cause, then {resume}")),
        };
        return Some(check.because("nothing is delivered to it"));
    }
    let check = |since: Timestamp, found: String| match now.since(since)
        > config.alarms.destination_after
    {
        true => Check::fail(CHECK, found),
        false => Check::note(CHECK, found),
    };
    let Some(since) = row.failing_since else {
        if row.paused_lanes > 0 {
            return Some(paused_lanes(row));
        }
        let lanes = row.failing_lanes_since;
        return lanes
            .map(|since| failing_lanes(row, since, check))
            .or_else(|| deferred(row));
    };
    let found = format!("`{name}` has been failing since {since}: {error}");
    Some(
        check(since, found)
            .because("its documents wait; none is lost, and delivery is retried")
            .fix(format!(
                "correct the error, then run `ivesk-webhook destinations resume {name}`; `ivesk-webhook deliveries skip` \
                 leaves one document out"
            )),
    )
}

/// Returns that feeds are paused at a destination, since it gives the same rejection again and again.
fn paused_lanes(row: &DestinationRow) -> Check {
    let (name, feeds) = (&row.name, counted(row.paused_lanes, "feed"));
    let found = format!("`{name}` gives the same rejection again and again; paused there: {feeds}");
    Check::fail("delivery", found)
        .because("their documents are not delivered until a person resumes the destination")
        .fix(format!(
            "`ivesk-webhook deliveries list --destination {name} --state rejected` shows its words; correct the cause, then \
             run `ivesk-webhook destinations resume {name}`"
        ))
}

/// Returns that a destination accepts documents, and those of some feeds not.
fn failing_lanes(
    row: &DestinationRow,
    since: Timestamp,
    check: impl Fn(Timestamp, String) -> Check,
) -> Check {
    let (name, feeds) = (&row.name, row.failing_lanes);
    let found =
        format!("`{name}` accepts documents, but of {feeds} of its feeds none since {since}");
    check(since, found)
        .because("their documents wait; none is lost")
        .fix(format!(
            "`ivesk-webhook destinations list {name}` shows which feeds, and the error; correct it, and delivery \
             resumes automatically"
        ))
}

/// Returns that documents can't be delivered to a destination that accepts others.
fn deferred(row: &DestinationRow) -> Option<Check> {
    let (name, count) = (&row.name, row.deferred);
    (count > 0).then(|| {
        let found = format!("documents that can't be delivered to `{name}`, which accepts others: {count}");
        Check::fail("delivery", found)
            .because("they are not in the books; they are tried again daily")
            .fix(format!(
                "`ivesk-webhook deliveries list --destination {name} --state deferred` shows why; correct the cause, \
                 then run `ivesk-webhook deliveries retry {name} --state deferred`, or `deliveries skip`"
            ))
    })
}
