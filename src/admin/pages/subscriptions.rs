//! Subscriptions: states, and the buttons to approve and restore.

use axum::response::Response;
use maud::{Markup, html};

use super::context::{PageContext, PageResult};
use super::labels;
use super::layout::{PageBody, badge, button, table, with_code};
use crate::domain::Timestamp;
use crate::store::{SubscriptionRow, SubscriptionState};

pub(super) async fn page(context: PageContext) -> Response {
    let result = list(&context).await;
    context.respond(result)
}

async fn list(context: &PageContext) -> PageResult {
    let (app, language) = (&context.admin.app, context.viewer.language);
    let now = app.clock.now();
    let subscriptions = app.store.subscriptions().await?;
    let rows = subscriptions
        .iter()
        .map(|row| subscription(context, row, now))
        .collect();
    let columns = [
        language.pick("Subscription", "Prenumerata"),
        language.pick("State", "Būsena"),
        language.pick("Since", "Nuo"),
        language.pick("Topic", "Tema"),
        language.pick("Actions", "Veiksmai"),
    ];
    Ok(PageBody {
        title: language.pick("Subscriptions", "Prenumeratos").to_owned(),
        content: html! {
            @if subscriptions.is_empty() {
                p { (with_code(language.pick("No subscriptions yet. `ivesk-webhook subscriptions create` requests one from Įvesk.lt.", "Prenumeratų dar nėra. Komanda „ivesk-webhook subscriptions create“ užsako ją iš Įvesk.lt."))) }
            } @else {
                (table(language.pick("Subscriptions", "Prenumeratos"), &columns, rows))
            }
        },
    })
}

fn subscription(context: &PageContext, row: &SubscriptionRow, now: Timestamp) -> Vec<Markup> {
    let (viewer, language) = (&context.viewer, context.viewer.language);
    let (severity, word) = labels::subscription(language, row.state);
    let id = row.id.to_string();
    let name = format!("{}/{}", row.account, row.event);
    let fields = [("id", id.as_str())];
    vec![
        html! {
            strong { (row.account) } " " (labels::event(language, row.event))
            @if let Some(name) = &row.name { " (" (name) ")" }
        },
        html! {
            (badge(severity, word))
            @if let Some(error) = &row.last_error { p.error lang="en" { (error) } }
            @if let Some(at) = row.next_try_at {
                p { (language.pick("Next attempt: ", "Kitas bandymas: ")) (language.moment(at, now)) }
            }
        },
        language.moment(row.changed_at, now),
        html! { @if let Some(topic) = &row.topic_arn { code { (topic) } } @else { "–" } },
        html! {
            @if viewer.may_operate() {
                @if row.state == SubscriptionState::AwaitingApproval {
                    (button(viewer, "/do/approve", &fields, language.pick("Approve", "Patvirtinti"), Some(&name)))
                } @else if row.state == SubscriptionState::Unsubscribed {
                    (button(viewer, "/do/restore", &fields, language.pick("Restore", "Atkurti"), Some(&name)))
                }
            }
        },
    ]
}
