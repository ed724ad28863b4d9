//! Checks the subscriptions: confirmed for every event, of topics whose owner is known.

use std::collections::BTreeSet;

use super::Check;
use crate::config::{Config, vendor_topics};
use crate::domain::Timestamp;
use crate::store::{Store, SubscriptionRow, SubscriptionState};
use crate::subscriptions::problems::{self, Problem, aws_account};

/// Checks the subscriptions that the store holds.
///
/// Returns `None` if the store can't be read, which another check reports.
pub async fn state(config: &Config, store: &Store, now: Timestamp) -> Option<Vec<Check>> {
    let rows = store.subscriptions().await.ok()?;
    let mut checks: Vec<Check> = problems::all(config, &rows, now)
        .iter()
        .map(of_problem)
        .collect();
    let confirmed = rows
        .iter()
        .filter(|row| row.state == SubscriptionState::Confirmed);
    checks.extend(confirmed.map(|row| Check::pass("subscription", described(row))));
    checks.extend(spare_topic(config, &rows));
    Some(checks)
}

fn of_problem(problem: &Problem<'_>) -> Check {
    let check = match problem {
        Problem::Missing { local: true, .. } => Check::note("subscription", problem.to_string()),
        _ => Check::fail("subscription", problem.to_string()),
    };
    let why = match problem {
        Problem::UnknownTopic(_) => {
            "any AWS customer can have SNS offer a topic to an address; its owner decides what is published"
        }
        Problem::Missing { local: true, .. } => "SNS can't reach this machine at `public.url`",
        Problem::OtherTopic(_) => "documents arrive up to an hour late",
        _ => "documents are found by the hourly reconciliation instead of within seconds",
    };
    check.because(why).fix(problem.fix())
}

fn described(row: &SubscriptionRow) -> String {
    let heard = row.last_heard_at.map_or_else(
        || "not heard yet".to_owned(),
        |at| format!("last heard at {at}"),
    );
    format!(
        "subscription {} of {}/{} is confirmed, {heard}",
        row.id, row.account, row.event
    )
}

/// Returns a note if one of the two default AWS accounts has proven to be Įvesk.lt's: the
/// other one is then a stranger's.
fn spare_topic(config: &Config, rows: &[SubscriptionRow]) -> Option<Check> {
    let defaults: BTreeSet<String> = vendor_topics()
        .into_iter()
        .filter(|topic| config.sns.topics.contains(topic))
        .map(|topic| topic.account)
        .collect();
    let confirmed: BTreeSet<&str> = rows
        .iter()
        .filter(|row| row.state == SubscriptionState::Confirmed)
        .filter_map(|row| aws_account(row.topic_arn.as_deref()?))
        .filter(|account| defaults.contains(*account))
        .collect();
    let mut confirmed = confirmed.into_iter();
    let (Some(ours), None) = (confirmed.next(), confirmed.next()) else {
        return None;
    };
    let spare = defaults.iter().find(|account| *account != ours)?;
    let region = &config.sns.topics.first()?.region;
    Some(
        Check::note(
            "topics",
            format!(
                "SNS has confirmed a subscription to topics of AWS account {ours}; `sns.topics` also allows those of {spare}"
            ),
        )
        .because("which of the two is Įvesk.lt's was not known before; the other one needs no trust")
        .fix(format!(
            "set `sns.topics` to account {ours} alone: [[sns.topics]] with account = \"{ours}\", or \
             IVESK_WEBHOOK_SNS_TOPICS={region}:{ours}:DPWebHook_"
        )),
    )
}
