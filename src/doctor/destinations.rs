//! Where documents are delivered.

use super::Finding;
use crate::config::{Config, DestinationKind};
use crate::delivery;
use crate::delivery::worker::filter;
use crate::domain::{Clock, counted};
use crate::store::{DestinationRow, Store};

/// Whether each destination of the settings can be used, as `serve` looks at its start.
///
/// What other users may do with a folder or a program differs, so it counts for the user
/// that runs this.
pub fn openings(config: &Config, clock: &Clock) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (name, destination) in &config.destinations {
        if let DestinationKind::Folder { path, .. } = &destination.kind
            && !path.exists()
        {
            // Made here it would belong to whoever runs this.
            findings.push(Finding::note(
                "destination",
                format!(
                    "the folder of `{name}`, {}, is not there yet; `serve` makes it",
                    path.display()
                ),
            ));
            continue;
        }
        let environment = config.environment.variables();
        findings.push(match delivery::open(name, destination, config, environment, clock) {
            Ok(_) => Finding::ok("destination", format!("`{name}` can be used")),
            Err(error) => Finding::wrong("destination", error.to_string())
                .because("`serve` does not start with a destination that can't be used")
                .fix("fix what it says, as the user that runs `serve`; docs/destinations.md has the contracts"),
        });
    }
    if !config.destinations.is_empty() && config.api.import_error_path.is_none() {
        findings.push(
            Finding::note("import_error_path", "`api.import_error_path` is not set")
                .because("what a destination rejects is kept, and the accountant is not told")
                .fix(
                    "look at the API page of your account (app.ivesk.lt/api/docs) for the address",
                ),
        );
    }
    findings
}

/// How the destinations of the settings stand, as far as a person should know.
///
/// `None` where the store can't be read, which others say.
pub async fn standing(config: &Config, store: &dyn Store) -> Option<Vec<Finding>> {
    let mut findings = Vec::new();
    for row in store.destinations().await.ok()? {
        let Some(destination) = config.destinations.get(&row.name) else {
            continue;
        };
        findings.extend(trouble(&row));
        let held = store
            .held_feeds(row.name.clone(), filter(destination))
            .await
            .ok()?;
        let documents: u64 = held.iter().map(|feed| feed.documents).sum();
        if documents > 0 {
            let name = &row.name;
            findings.push(
                Finding::note(
                    "held",
                    format!(
                        "{} of {} held at `{name}`",
                        counted(documents, "document"),
                        counted(held.len() as u64, "feed")
                    ),
                )
                .because(
                    "years of booked invoices would be booked again if they went by themselves",
                )
                .fix(format!(
                    "`ivesk-webhook destinations start {name}` with --all, --from-now or --since MOMENT"
                )),
            );
        }
    }
    Some(findings)
}

fn trouble(row: &DestinationRow) -> Option<Finding> {
    let name = &row.name;
    let error = row.last_error.as_deref().unwrap_or_default();
    if let Some(reason) = row.paused {
        let found = format!("`{name}` is paused ({}) {error}", reason.as_str());
        return Some(
            Finding::note("delivery", found.trim_end())
                .because("nothing is delivered to it")
                .fix(format!(
                    "`ivesk-webhook destinations resume {name}` goes on"
                )),
        );
    }
    let since = row.failing_since?;
    let found = format!("`{name}` has taken nothing since {since}: {error}");
    Some(
        Finding::wrong("delivery", found)
            .because("documents wait, in order, and none is lost")
            .fix(format!(
                "fix what it says, then `ivesk-webhook destinations resume {name}`; `deliveries skip` leaves one document out"
            )),
    )
}
