//! What a person should look at, each with the way there.
//!
//! It is read from how things stand at this moment. Of the alarms those are added that
//! can't be told from that.

use std::time::Duration;

use maud::{Markup, html};

use super::certificates;
use super::language::Language;
use super::layout::marked;
use super::words;
use crate::admin::destinations::{Destination, all_destinations};
use crate::admin::problem::AdminError;
use crate::app::App;
use crate::domain::Timestamp;
use crate::pull::blocked_queues;
use crate::store::{
    AlarmFilter, AlarmKind, FeedRow, LATE_AFTER, SubscriptionRow, SubscriptionState, UploadFilter,
};

/// How many of one kind are named at the most.
const NAMED: usize = 10;

/// How many rows are counted at the most.
const COUNTED: usize = 1_000;

/// A feed that was not up to date for so long waits for a person.
const STALE_AFTER: Duration = Duration::from_secs(2 * 60 * 60);

/// Everything that waits for a person.
pub(super) async fn all(
    app: &App,
    language: Language,
    feeds: &[FeedRow],
    subscriptions: &[SubscriptionRow],
) -> Result<Vec<Markup>, AdminError> {
    let mut concerns = Concerns {
        language,
        now: app.clock.now(),
        told: Vec::new(),
    };
    concerns.alarms(app).await?;
    concerns.blocked(app);
    concerns.paused(app, feeds).await?;
    concerns.stale(feeds);
    concerns.subscriptions(subscriptions);
    concerns.uploads(app).await?;
    for destination in all_destinations(app).await? {
        // One that the settings name no more is given nothing.
        if destination.kind.is_some() {
            concerns.destination(&destination);
        }
    }
    concerns.certificates(app).await?;
    Ok(concerns.told)
}

struct Concerns {
    language: Language,
    now: Timestamp,
    told: Vec<Markup>,
}

impl Concerns {
    fn tell(&mut self, path: &str, what: Markup) {
        let look = self.language.say("Look", "Žiūrėti");
        self.told
            .push(html! { (what) " " a href=(path) { (look) } });
    }

    /// Tells how many there are, where there are any.
    fn count(&mut self, path: &str, count: usize, english: [&str; 2], lithuanian: [&str; 3]) {
        if count > 0 {
            let text = self.language.count(count as u64, english, lithuanian);
            self.tell(path, html! { (text) "." });
        }
    }

    async fn alarms(&mut self, app: &App) -> Result<(), AdminError> {
        let on = app.store.alarms(AlarmFilter {
            active: true,
            after: 0,
            limit: COUNTED,
        });
        let on = on.await?;
        let unseen = on.iter().filter(|row| {
            matches!(
                row.kind,
                AlarmKind::Silence | AlarmKind::RefusedStorm | AlarmKind::Disk
            )
        });
        for row in unseen.take(NAMED) {
            let word = words::alarm(self.language, row.kind);
            self.tell("/alarms", html! { (row.subject) ": " (word) "." });
        }
        Ok(())
    }

    fn blocked(&mut self, app: &App) {
        for one in blocked_queues(&app.config).into_iter().take(NAMED) {
            let queue = words::queue(self.language, one.queue);
            let missing = marked(words::missing(self.language, one.missing));
            self.tell(
                "/feeds",
                html! { (one.account) ", " (queue) ": " (missing) "." },
            );
        }
    }

    async fn paused(&mut self, app: &App, feeds: &[FeedRow]) -> Result<(), AdminError> {
        let accounts = app.store.accounts().await?;
        let accounts = accounts
            .iter()
            .filter_map(|row| Some((row.account.to_string(), row.paused?)));
        let feeds = feeds
            .iter()
            .filter_map(|row| Some((row.feed.to_string(), row.paused?)));
        let paused: Vec<_> = accounts.chain(feeds).collect();
        for (name, reason) in paused.iter().take(NAMED) {
            let why = marked(words::feed_paused(self.language, *reason));
            self.tell("/feeds", html! { (name) ": " (why) "." });
        }
        self.count(
            "/feeds",
            paused.len().saturating_sub(NAMED),
            ["more feed is paused", "more feeds are paused"],
            [
                "srautas dar sustabdytas",
                "srautai dar sustabdyti",
                "srautų dar sustabdyta",
            ],
        );
        Ok(())
    }

    fn stale(&mut self, feeds: &[FeedRow]) {
        let stale = feeds.iter().filter(|row| {
            let old = |at| self.now.since(at) > STALE_AFTER;
            row.paused.is_none() && row.up_to_date_at.is_some_and(old)
        });
        let stale = stale.count();
        self.count(
            "/feeds",
            stale,
            [
                "feed has not been up to date for two hours",
                "feeds have not been up to date for two hours",
            ],
            [
                "srautas neatnaujintas ilgiau nei dvi valandas",
                "srautai neatnaujinti ilgiau nei dvi valandas",
                "srautų neatnaujinta ilgiau nei dvi valandas",
            ],
        );
    }

    fn subscriptions(&mut self, rows: &[SubscriptionRow]) {
        let waiting = rows.iter().filter(|row| {
            matches!(
                row.state,
                SubscriptionState::AwaitingApproval | SubscriptionState::Unsubscribed
            )
        });
        for row in waiting.take(NAMED) {
            let (_, word) = words::subscription(self.language, row.state);
            let what = self.language.say("Subscription", "Prenumerata");
            let text = html! { (what) " " (row.account) "/" (row.event) ": " (word) "." };
            self.tell("/subscriptions", text);
        }
    }

    async fn uploads(&mut self, app: &App) -> Result<(), AdminError> {
        let late = app.store.uploads(UploadFilter {
            after: 0,
            missing_since: Some(self.now.before(LATE_AFTER)),
            limit: COUNTED,
        });
        let late = late.await?.len();
        self.count(
            "/uploads",
            late,
            [
                "upload has brought no document for 12 hours",
                "uploads have brought no document for 12 hours",
            ],
            [
                "įkeltas failas per 12 valandų netapo dokumentu",
                "įkelti failai per 12 valandų netapo dokumentais",
                "įkeltų failų per 12 valandų netapo dokumentais",
            ],
        );
        Ok(())
    }

    fn destination(&mut self, destination: &Destination) {
        let (language, row) = (self.language, &destination.row);
        if let Some(reason) = row.paused {
            let why = words::destination_paused(language, reason);
            self.tell("/destinations", html! { (row.name) ": " (why) "." });
        } else if let Some(since) = row.failing_since {
            let what = language.say("takes nothing since ", "nieko nepriima nuo ");
            let since = language.moment(since, self.now);
            self.tell(
                "/destinations",
                html! { (row.name) ": " (what) (since) "." },
            );
        }
        if !destination.held.is_empty() {
            let feeds = language.count(
                destination.held.len() as u64,
                [
                    "feed waits until you say where the delivery begins",
                    "feeds wait until you say where the delivery begins",
                ],
                [
                    "srautas laukia, kol nurodysite, nuo kur perduoti",
                    "srautai laukia, kol nurodysite, nuo kur perduoti",
                    "srautų laukia, kol nurodysite, nuo kur perduoti",
                ],
            );
            self.tell("/destinations", html! { (row.name) ": " (feeds) "." });
        }
        if row.rejected_now > 0 {
            let documents = language.count(
                row.rejected_now,
                ["document stands rejected", "documents stand rejected"],
                [
                    "dokumentas nepriimtas",
                    "dokumentai nepriimti",
                    "dokumentų nepriimta",
                ],
            );
            self.tell("/destinations", html! { (row.name) ": " (documents) "." });
        }
    }

    async fn certificates(&mut self, app: &App) -> Result<(), AdminError> {
        let rows = app.store.certificates().await?;
        if let Some(last) = certificates::ending(&rows, self.now) {
            let language = self.language;
            let what = language.say(
                "The certificate in use ends on ",
                "Naudojamas sertifikatas baigiasi ",
            );
            let text = html! { (what) (language.day(last)) "." };
            self.tell("/certificates", text);
        }
        Ok(())
    }
}
