//! Checks whether feeds are pulled, and whether documents of them may be missing.

use super::Check;
use crate::config::{AccountConfig, Config};
use crate::domain::{Account, Feed, Timestamp, counted};
use crate::store::{
    FeedPauseReason, FeedRow, FeedTrouble, IncompleteReason, PAGE_SIZE_NOTICE, Store,
};

/// Largest number of feeds of one problem that are named.
const MAX_NAMED: usize = 20;

/// Checks every account and feed; one check for each problem.
///
/// Returns `None` if the store can't be read, which another check reports.
pub async fn state(config: &Config, store: &Store, now: Timestamp) -> Option<Vec<Check>> {
    let in_trouble = |trouble| store.feeds_in_trouble(trouble, MAX_NAMED);
    let paused_feeds = in_trouble(FeedTrouble::Paused).await.ok()?;
    let failing_feeds = in_trouble(FeedTrouble::Failing).await.ok()?;
    let incomplete_feeds = in_trouble(FeedTrouble::Incomplete).await.ok()?;
    let mut named = store.these_feeds(named_feeds(config)).await.ok()?;
    named.retain(|row| row.is_known());
    let accounts = store.accounts().await.ok()?;
    let of_accounts = accounts
        .iter()
        .filter_map(|row| Some(paused(&row.account, None, row.paused?)));
    let of_feeds = paused_feeds
        .iter()
        .filter_map(|row| Some(paused(&row.feed.account, Some(&row.feed), row.paused?)));
    let mut checks: Vec<Check> = of_accounts.chain(of_feeds).take(MAX_NAMED).collect();
    checks.extend(
        failing_feeds
            .iter()
            .filter_map(|row| failing(config, row, now)),
    );
    checks.extend(
        incomplete_feeds
            .iter()
            .filter_map(|row| incomplete(row, now)),
    );
    checks.extend(named.iter().filter_map(never_listed).take(MAX_NAMED));
    Some(checks)
}

fn paused(account: &Account, feed: Option<&Feed>, reason: FeedPauseReason) -> Check {
    const CHECK: &str = "paused";
    let name = match feed {
        Some(feed) => format!("feed {feed}"),
        None => format!("account {account}"),
    };
    let check = match reason.cause() {
        None => Check::note(CHECK, format!("{name} was paused by a person")),
        Some(cause) => Check::fail(CHECK, format!("{name} is paused: {cause}")),
    };
    let because = match reason {
        FeedPauseReason::ByHand | FeedPauseReason::CompanyFilterIgnored => {
            "nothing of it is pulled until a person resumes it"
        }
        FeedPauseReason::Unauthorized
        | FeedPauseReason::Forbidden
        | FeedPauseReason::NotFound
        | FeedPauseReason::CursorRefused => "nothing of it is pulled, but for one attempt an hour",
    };
    check.because(because).fix(reason.fix(account, feed))
}

/// Returns a check of a feed whose last pulls failed: a note, until it is behind.
fn failing(config: &Config, row: &FeedRow, now: Timestamp) -> Option<Check> {
    const CHECK: &str = "failing";
    if row.failures == 0 || row.paused.is_some() {
        return None;
    }
    let (feed, failures) = (&row.feed, row.failures);
    let error = row.last_error.as_deref().unwrap_or("no error was recorded");
    let found = match failures {
        1 => format!("the last pull of `{feed}` failed: {error}"),
        _ => format!("the last {failures} pulls of `{feed}` failed: {error}"),
    };
    let since = row.quiet_since();
    let check = match now.since(since) > config.behind_after() {
        true => Check::fail(CHECK, format!("{found}; none has ended since {since}")),
        false => Check::note(CHECK, found),
    };
    Some(
        check
            .because("it is retried by itself, and its documents arrive later")
            .fix("correct the error; if it is one of Įvesk.lt, wait"),
    )
}

/// Returns the exported feeds of the companies that the settings name.
fn named_feeds(config: &Config) -> Vec<Feed> {
    let of_account = |(account, settings): (&Account, &AccountConfig)| {
        let companies = settings.companies.iter().cloned();
        let feeds = companies.map(|company| Feed::exported(account.clone(), company));
        feeds.collect::<Vec<_>>()
    };
    config.accounts.iter().flat_map(of_account).collect()
}

/// Returns a note about a company of which Įvesk.lt has never listed a document.
fn never_listed(row: &FeedRow) -> Option<Check> {
    let is_empty = row.first_complete_at.is_some() && row.documents == 0 && row.paused.is_none();
    let (account, company) = (&row.feed.account, &row.feed.company);
    is_empty.then(|| {
        Check::note(
            "never_listed",
            format!("Įvesk.lt has listed no exported document of company {company} yet"),
        )
        .because("a company whose code is wrong looks the same")
        .fix(format!(
            "if it has exported documents at Įvesk.lt, correct its code in `accounts.{account}.companies`, then remove \
             the feed of the wrong one with `ivesk-webhook feeds remove`"
        ))
    })
}

fn incomplete(row: &FeedRow, now: Timestamp) -> Option<Check> {
    const CHECK: &str = "incomplete";
    let (reason, since) = (row.incomplete?, row.incomplete_since?);
    let (cause, fix) = reason.cause_and_fix();
    let gaps = counted(row.gaps, "gap");
    let found = format!(
        "documents of `{}` may be missing ({gaps} since {since}): {cause}",
        row.feed
    );
    let is_notice =
        reason == IncompleteReason::PageSizeUnknown && now.since(since) < PAGE_SIZE_NOTICE;
    let check = match is_notice {
        true => Check::note(CHECK, found),
        false => Check::fail(CHECK, found),
    };
    let check = check.because("Įvesk.lt's pages do not prove that every document was listed");
    Some(check.fix(format!(
        "list the gaps with `ivesk-webhook feeds gaps`; {fix}"
    )))
}
