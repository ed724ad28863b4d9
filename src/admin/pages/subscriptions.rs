//! Subscriptions: states, when they were last heard, and the buttons to approve and restore.

use axum::response::Response;
use maud::{Markup, html};

use super::context::{PageContext, PageResult};
use super::labels;
use super::language::{Language, Now};
use super::layout::{PageBody, arn, badge, button, table, with_code};
use crate::admin::subscriptions::all_subscriptions;
use crate::api::subscriptions::SubscriptionNotes;
use crate::store::{SubscriptionRow, SubscriptionState};

pub(super) async fn page(context: PageContext) -> Response {
    let result = list(&context).await;
    context.respond(result)
}

async fn list(context: &PageContext) -> PageResult {
    let (app, language) = (&context.admin.app, context.viewer.language);
    let now = context.now();
    let mut subscriptions = all_subscriptions(app).await?;
    // Who owns an unknown topic is the most urgent question.
    subscriptions.sort_by_key(|(row, _)| row.state != SubscriptionState::UnknownTopic);
    let rows = subscriptions
        .iter()
        .map(|(row, notes)| subscription(context, row, notes, now))
        .collect();
    let columns = [
        language.pick("Subscription", "Prenumerata"),
        language.pick("State", "Būsena"),
        language.pick("Since", "Nuo"),
        language.pick("Last heard", "Paskutinis pranešimas"),
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
        refresh: false,
    })
}

fn subscription(
    context: &PageContext,
    row: &SubscriptionRow,
    notes: &SubscriptionNotes,
    now: Now<'_>,
) -> Vec<Markup> {
    let (viewer, language) = (&context.viewer, context.viewer.language);
    let owner = notes.aws_account.as_deref().unwrap_or_default();
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
            @if row.other_topic().is_some() && notes.fix.is_some() {
                p.error { (language.pick("This is the other event's topic: the targets of the two subscriptions are swapped.", "Tai kito įvykio tema: dviejų prenumeratų gavimo adresai sukeisti.")) }
            }
            @if let Some(error) = &row.last_error { p.error lang="en" { (error) } }
            @if let Some(at) = row.next_try_at {
                p { (language.pick("Next attempt: ", "Kitas bandymas: ")) (language.moment(at, now)) }
            }
        },
        language.moment(row.changed_at, now),
        language.optional_moment(row.last_heard_at, now),
        html! {
            @match (&row.subscription_arn, &row.topic_arn) {
                (Some(name), _) | (None, Some(name)) => { (arn(name)) }
                (None, None) => { "–" }
            }
            @if !owner.is_empty() {
                p { (language.pick("AWS account ", "AWS paskyra ")) (owner) }
            }
            @if let Some(by) = &notes.topic_approved_by {
                p { (language.pick("Allowed by ", "Leido ")) (by) }
            }
        },
        html! {
            @if viewer.may_operate() {
                @if row.state == SubscriptionState::UnknownTopic {
                    p { (unknown_topic_warning(language, owner)) }
                    (button(viewer, "/do/approve", &fields, language.pick("Allow this topic", "Leisti šią temą"), Some(&name)))
                } @else if row.state == SubscriptionState::AwaitingApproval {
                    (button(viewer, "/do/approve", &fields, language.pick("Approve", "Patvirtinti"), Some(&name)))
                } @else if may_restore(row) {
                    (button(viewer, "/do/restore", &fields, language.pick("Restore", "Atkurti"), Some(&name)))
                }
                @if notes.topic_approved_by.is_some() && let Some(topic_arn) = &row.topic_arn {
                    (button(viewer, "/do/revoke", &[("topic_arn", topic_arn)], language.pick("Refuse this topic again", "Temos nebeleisti"), Some(&name)))
                }
            }
        },
    ]
}

/// Returns true if SNS sent a token that could restore or confirm the subscription.
fn may_restore(row: &SubscriptionRow) -> bool {
    row.subscribe_url.is_some()
        && matches!(
            row.state,
            SubscriptionState::Unsubscribed | SubscriptionState::Failed
        )
}

fn unknown_topic_warning(language: Language, owner: &str) -> String {
    match language {
        Language::English => format!(
            "Any AWS customer can offer a topic to this address. Allow it only if Įvesk.lt says that AWS account {owner} is theirs."
        ),
        Language::Lithuanian => format!(
            "Temą šiam adresui gali pasiūlyti bet kuris AWS klientas. Leiskite ją tik tada, jei Įvesk.lt patvirtina, kad AWS paskyra {owner} yra jų."
        ),
    }
}
