//! Checks the configured destinations.

use super::Check;
use crate::config::{Config, DestinationKind};
use crate::delivery;
use crate::domain::{Clock, counted};
use crate::store::{DestinationRow, Store};

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
                    .fix("correct the error, as the user that runs `serve`; see docs/destinations.md"),
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
pub async fn state(config: &Config, store: &Store) -> Option<Vec<Check>> {
    let mut checks = Vec::new();
    for row in store.destinations().await.ok()? {
        if !config.destinations.contains_key(&row.name) {
            continue;
        }
        checks.extend(delivery_state(&row));
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

fn delivery_state(row: &DestinationRow) -> Option<Check> {
    let name = &row.name;
    let error = row.last_error.as_deref().unwrap_or_default();
    if let Some(reason) = row.paused {
        let found = format!("`{name}` is paused ({}) {error}", reason.as_str());
        return Some(
            Check::note("delivery", found.trim_end())
                .because("nothing is delivered to it")
                .fix(format!(
                    "run `ivesk-webhook destinations resume {name}` once it accepts documents again"
                )),
        );
    }
    let since = row.failing_since?;
    let found = format!("`{name}` has been unavailable since {since}: {error}");
    Some(
        Check::fail("delivery", found)
            .because("its documents wait; none is lost")
            .fix(format!(
                "correct the error, then run `ivesk-webhook destinations resume {name}`; `ivesk-webhook deliveries skip` \
                 leaves one document out"
            )),
    )
}
