//! Subscriptions: how each stands, approving and restoring.

use axum::response::Response;
use maud::{Markup, html};

use super::layout::{Middle, badge, button, marked, table};
use super::page::{Shown, Visit};
use super::words;
use crate::domain::Timestamp;
use crate::store::{SubscriptionRow, SubscriptionState};

pub(super) async fn page(visit: Visit) -> Response {
    let shown = list(&visit).await;
    visit.show(shown)
}

async fn list(visit: &Visit) -> Shown {
    let (app, language) = (&visit.admin.app, visit.visitor.language);
    let now = app.clock.now();
    let subscriptions = app.store.subscriptions().await?;
    let rows = subscriptions
        .iter()
        .map(|row| subscription(visit, row, now))
        .collect();
    let columns = [
        language.say("Subscription", "Prenumerata"),
        language.say("State", "Būsena"),
        language.say("Since", "Nuo"),
        language.say("Topic", "Tema"),
        language.say("Actions", "Veiksmai"),
    ];
    Ok(Middle {
        title: language.say("Subscriptions", "Prenumeratos").to_owned(),
        body: html! {
            @if subscriptions.is_empty() {
                p { (marked(language.say("There are none yet. `ivesk-webhook subscriptions create` asks Įvesk.lt for one.", "Dar nėra nė vienos. Komanda „ivesk-webhook subscriptions create“ užsako ją iš Įvesk.lt."))) }
            } @else {
                (table(language.say("Subscriptions", "Prenumeratos"), &columns, rows))
            }
        },
    })
}

fn subscription(visit: &Visit, row: &SubscriptionRow, now: Timestamp) -> Vec<Markup> {
    let (visitor, language) = (&visit.visitor, visit.visitor.language);
    let (mood, word) = words::subscription(language, row.state);
    let id = row.id.to_string();
    let name = format!("{}/{}", row.account, row.event);
    let fields = [("id", id.as_str())];
    vec![
        html! {
            strong { (row.account) } " " (words::event(language, row.event))
            @if let Some(name) = &row.name { " (" (name) ")" }
        },
        html! {
            (badge(mood, word))
            @if let Some(error) = &row.last_error { p.error lang="en" { (error) } }
            @if let Some(at) = row.next_try_at {
                p { (language.say("Next try: ", "Kitas bandymas: ")) (language.moment(at, now)) }
            }
        },
        language.moment(row.changed_at, now),
        html! { @if let Some(topic) = &row.topic_arn { code { (topic) } } @else { "–" } },
        html! {
            @if visitor.may_operate() {
                @if row.state == SubscriptionState::AwaitingApproval {
                    (button(visitor, "/do/approve", &fields, language.say("Approve", "Patvirtinti"), Some(&name)))
                } @else if row.state == SubscriptionState::Unsubscribed {
                    (button(visitor, "/do/restore", &fields, language.say("Restore", "Atkurti"), Some(&name)))
                }
            }
        },
    ]
}
