//! Problems that need a person, each with a link to its page.
//!
//! They are read from the current state. Alarms are added only where the current state does
//! not show their cause.

use std::time::Duration;

use maud::{Markup, html};

use super::certificates;
use super::labels;
use super::language::Language;
use super::layout::with_code;
use crate::admin::alarms::active_alarms;
use crate::admin::destinations::{Destination, all_destinations};
use crate::admin::problem::AdminError;
use crate::app::App;
use crate::domain::Timestamp;
use crate::pull::blocked_queues;
use crate::store::{
    AlarmKind, FeedCounts, FeedTrouble, SubscriptionRow, SubscriptionState, UploadFilter,
};
use crate::subscriptions::problems::{self, Problem, aws_account};

/// Maximum number of items of one kind.
const MAX_LISTED: usize = 10;

/// Maximum number of rows that are counted.
const MAX_COUNTED: usize = 1_000;

/// Time without being up to date after which a feed is listed.
const STALE_AFTER: Duration = Duration::from_secs(2 * 60 * 60);

/// Returns everything that needs a person.
pub(super) async fn all(
    app: &App,
    language: Language,
    feeds: FeedCounts,
    subscriptions: &[SubscriptionRow],
) -> Result<Vec<Markup>, AdminError> {
    let mut attention = AttentionList {
        language,
        now: app.clock.now(),
        items: Vec::new(),
    };
    let problems = problems::all(&app.config, subscriptions, attention.now);
    // First: who owns an unknown topic must be decided while its token is valid.
    let unknown = |problem: &&Problem<'_>| matches!(problem, Problem::UnknownTopic(_));
    attention.subscriptions(problems.iter().filter(unknown));
    attention.alarms(app).await?;
    attention.blocked(app);
    attention.paused(app, feeds).await?;
    attention.incomplete(app, feeds).await?;
    attention.stale(app).await?;
    attention.subscriptions(problems.iter().filter(|problem| !unknown(problem)));
    attention.uploads(app).await?;
    attention.import_errors(app).await?;
    for destination in all_destinations(app).await? {
        // A destination that the settings no longer name receives nothing.
        if destination.kind.is_some() {
            attention.destination(&destination);
        }
    }
    attention.certificates(app).await?;
    Ok(attention.items)
}

struct AttentionList {
    language: Language,
    now: Timestamp,
    items: Vec<Markup>,
}

impl AttentionList {
    fn add(&mut self, path: &str, text: Markup) {
        let link = self.language.pick("Show", "Rodyti");
        self.items
            .push(html! { (text) " " a href=(path) { (link) } });
    }

    /// Adds a count, unless it is zero.
    fn count(&mut self, path: &str, count: usize, english: [&str; 2], lithuanian: [&str; 3]) {
        if count > 0 {
            let text = self.language.count(count as u64, english, lithuanian);
            self.add(path, html! { (text) "." });
        }
    }

    async fn alarms(&mut self, app: &App) -> Result<(), AdminError> {
        let rows = active_alarms(app, MAX_COUNTED).await?;
        let without_state = rows.iter().filter(|row| {
            matches!(
                row.kind,
                AlarmKind::Silence
                    | AlarmKind::RefusedStorm
                    | AlarmKind::UnexpectedRequests
                    | AlarmKind::Damaged
                    | AlarmKind::Backup
                    | AlarmKind::Disk
            )
        });
        for row in without_state.take(MAX_LISTED) {
            let word = labels::alarm(self.language, row.kind);
            self.add("/alarms", html! { (row.subject) ": " (word) "." });
        }
        Ok(())
    }

    fn blocked(&mut self, app: &App) {
        for one in blocked_queues(&app.config).into_iter().take(MAX_LISTED) {
            let queue = labels::queue(self.language, one.queue);
            let missing = with_code(labels::missing_setting(self.language, one.missing));
            self.add(
                "/feeds",
                html! { (one.account) ", " (queue) ": " (missing) "." },
            );
        }
    }

    async fn paused(&mut self, app: &App, feeds: FeedCounts) -> Result<(), AdminError> {
        let accounts = app.store.accounts().await?;
        let accounts = accounts
            .iter()
            .filter_map(|row| Some((row.account.to_string(), row.paused?)));
        let accounts: Vec<_> = accounts.collect();
        let count = accounts.len() + usize::try_from(feeds.paused).unwrap_or(usize::MAX);
        let first = app.store.feeds_in_trouble(FeedTrouble::Paused, MAX_LISTED);
        let first = first.await?;
        let first = first
            .iter()
            .filter_map(|row| Some((row.feed.to_string(), row.paused?)));
        let paused: Vec<_> = accounts.into_iter().chain(first).collect();
        for (name, reason) in paused.iter().take(MAX_LISTED) {
            let reason = with_code(labels::feed_pause_reason(self.language, *reason));
            self.add("/feeds", html! { (name) ": " (reason) "." });
        }
        self.count(
            "/feeds",
            count.saturating_sub(MAX_LISTED),
            ["more feed is paused", "more feeds are paused"],
            [
                "kitas srautas sustabdytas",
                "kiti srautai sustabdyti",
                "kitų srautų sustabdyta",
            ],
        );
        Ok(())
    }

    async fn incomplete(&mut self, app: &App, feeds: FeedCounts) -> Result<(), AdminError> {
        let first = app
            .store
            .feeds_in_trouble(FeedTrouble::Incomplete, MAX_LISTED);
        let first = first.await?;
        let incomplete = first
            .iter()
            .filter_map(|row| Some((&row.feed, row.incomplete?)));
        let count = usize::try_from(feeds.incomplete).unwrap_or(usize::MAX);
        let label = self
            .language
            .pick("documents may be missing", "gali trūkti dokumentų");
        for (feed, reason) in incomplete {
            let reason = with_code(labels::incomplete_reason(self.language, reason));
            self.add("/feeds", html! { (feed) ": " (label) " (" (reason) ")." });
        }
        self.count(
            "/feeds",
            count.saturating_sub(MAX_LISTED),
            ["more feed is incomplete", "more feeds are incomplete"],
            [
                "kitas srautas neišsamus",
                "kiti srautai neišsamūs",
                "kitų srautų neišsamių",
            ],
        );
        Ok(())
    }

    async fn stale(&mut self, app: &App) -> Result<(), AdminError> {
        let stale = app.store.stale_feeds(self.now.before(STALE_AFTER)).await?;
        let stale = usize::try_from(stale).unwrap_or(usize::MAX);
        self.count(
            "/feeds",
            stale,
            [
                "feed has not been pulled for two hours",
                "feeds have not been pulled for two hours",
            ],
            [
                "srautas neskaitytas ilgiau nei dvi valandas",
                "srautai neskaityti ilgiau nei dvi valandas",
                "srautų neskaityta ilgiau nei dvi valandas",
            ],
        );
        Ok(())
    }

    fn subscriptions<'c>(&mut self, problems: impl Iterator<Item = &'c Problem<'c>>) {
        for problem in problems.take(MAX_LISTED) {
            let text = problem_text(self.language, problem, self.now);
            self.add("/subscriptions", text);
        }
    }

    async fn uploads(&mut self, app: &App) -> Result<(), AdminError> {
        let late = app.store.uploads(UploadFilter {
            after: 0,
            missing_since: Some(app.config.upload.late_before(self.now)),
            limit: MAX_COUNTED,
        });
        let late = late.await?.len();
        self.count(
            "/uploads",
            late,
            [
                "upload is late: it has no document",
                "uploads are late: they have no documents",
            ],
            [
                "įkeltas failas vėluoja: iš jo negauta dokumento",
                "įkelti failai vėluoja: iš jų negauta dokumentų",
                "įkeltų failų vėluoja: iš jų negauta dokumentų",
            ],
        );
        Ok(())
    }

    async fn import_errors(&mut self, app: &App) -> Result<(), AdminError> {
        for row in app.store.paused_import_error_paths().await? {
            let word = labels::alarm(self.language, AlarmKind::ImportErrors);
            self.add("/import-errors", html! { (row.account) ": " (word) "." });
        }
        Ok(())
    }

    fn destination(&mut self, destination: &Destination) {
        let (language, row) = (self.language, &destination.row);
        if let Some(reason) = row.paused {
            let reason = labels::destination_pause_reason(language, reason);
            self.add("/destinations", html! { (row.name) ": " (reason) "." });
        } else if let Some(since) = row.failing_since {
            let state = language.pick("accepts nothing since ", "nieko nepriima nuo ");
            let since = language.moment(since, self.now);
            self.add(
                "/destinations",
                html! { (row.name) ": " (state) (since) "." },
            );
        }
        if row.paused.is_none() && row.paused_lanes > 0 {
            let feeds = language.count(
                row.paused_lanes,
                [
                    "feed is paused: it is rejected again and again",
                    "feeds are paused: they are rejected again and again",
                ],
                [
                    "srautas sustabdytas: gavėjas jo vis nepriima",
                    "srautai sustabdyti: gavėjas jų vis nepriima",
                    "srautų sustabdyta: gavėjas jų vis nepriima",
                ],
            );
            self.add("/destinations", html! { (row.name) ": " (feeds) "." });
        }
        if row.rejected_now > 0 {
            let documents = language.count(
                row.rejected_now,
                ["document is rejected", "documents are rejected"],
                [
                    "dokumentas nepriimtas",
                    "dokumentai nepriimti",
                    "dokumentų nepriimta",
                ],
            );
            self.add("/destinations", html! { (row.name) ": " (documents) "." });
        }
    }

    async fn certificates(&mut self, app: &App) -> Result<(), AdminError> {
        let rows = app.store.certificates().await?;
        if let Some(last) = certificates::expiring(&rows, self.now) {
            let language = self.language;
            let label = language.pick(
                "The signing certificate in use expires on ",
                "Naudojamo parašo sertifikato galiojimas baigiasi ",
            );
            let text = html! { (label) (language.day(last)) "." };
            self.add("/certificates", text);
        }
        Ok(())
    }
}

/// Renders what a person should know of or decide about subscriptions.
fn problem_text(language: Language, problem: &Problem<'_>, now: Timestamp) -> Markup {
    let (account, event) = problem.webhook();
    let subscription = |state| {
        let (_, word) = labels::subscription(language, state);
        let label = language.pick("Subscription", "Prenumerata");
        html! { (label) " " (account) "/" (event) ": " (word) "." }
    };
    match problem {
        Problem::UnknownTopic(row) => {
            let topic_arn = row.topic_arn.as_deref().unwrap_or_default();
            html! {
                (account) "/" (event) ": "
                (labels::unknown_topic(language, aws_account(topic_arn).unwrap_or_default()))
                " " code { (topic_arn) } "."
            }
        }
        Problem::AwaitsApproval(row) | Problem::Failed(row) | Problem::Ended(row) => {
            subscription(row.state)
        }
        Problem::OtherTopic(row) => html! {
            (account) "/" (event) ": "
            (language.pick(
                "subscribed to the other event's topic, so the targets are swapped:",
                "užsakyta kito įvykio tema, taigi gavimo adresai sukeisti:",
            ))
            " " code { (row.topic_arn.as_deref().unwrap_or_default()) } "."
        },
        Problem::Missing {
            waiting: Some(row), ..
        } if row.state == SubscriptionState::Pending => subscription(row.state),
        Problem::Missing {
            waiting: Some(row), ..
        } => {
            let (before, after) = (
                language.pick("requested", "užsakyta"),
                with_code(language.pick(
                    "and SNS has not asked to confirm it. `ivesk-webhook doctor` finds the cause.",
                    "bet SNS neprašė jos patvirtinti. Priežastį randa komanda „ivesk-webhook doctor“.",
                )),
            );
            let label = language.pick("Subscription", "Prenumerata");
            html! {
                (label) " " (account) "/" (event) ": " (before) " " (language.moment(row.changed_at, now)) ", " (after)
            }
        }
        Problem::Missing { local, .. } => {
            let text = if *local {
                language.pick(
                    "no subscription. `public.url` is on this machine, where SNS can't reach it.",
                    "prenumeratos nėra. `public.url` yra šio kompiuterio adresas, kurio SNS nepasiekia.",
                )
            } else {
                language.pick(
                    "no subscription, so no notifications arrive. `ivesk-webhook subscriptions create` requests one from Įvesk.lt.",
                    "prenumeratos nėra, todėl pranešimai negaunami. Komanda „ivesk-webhook subscriptions create“ užsako ją iš Įvesk.lt.",
                )
            };
            html! { (account) "/" (event) ": " (with_code(text)) }
        }
    }
}
