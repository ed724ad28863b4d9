//! Quarantine: refused messages, newest first, each reason with its fix, and the buttons to retry
//! them.

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Query};
use axum::response::Response;
use maud::{Markup, html};
use serde_json::Value;

use super::context::{PageContext, PageError, PageResult};
use super::feeds::ListQuery;
use super::labels;
use super::language::Now;
use super::layout::{Column, PageBody, arn, button, next_page, table};
use crate::admin::paging::{List, Page};
use crate::admin::problem::AdminError;
use crate::store::QuarantineRow;
use crate::visible::foreign;

/// Fields of a message that are secret, or let anybody confirm or end a subscription.
const SECRET_FIELDS: [&str; 5] = [
    "Signature",
    "SigningCertURL",
    "SubscribeURL",
    "UnsubscribeURL",
    "Token",
];

/// Maximum number of messages on one page: each comes with its fix.
const ROWS: usize = 25;

/// Maximum number of fields of a message that are shown.
const MAX_FIELDS: usize = 30;

pub(super) async fn page(context: PageContext, Query(query): Query<ListQuery>) -> Response {
    let result = list(&context, query).await;
    context.respond(result)
}

async fn list(context: &PageContext, query: ListQuery) -> PageResult {
    let (app, viewer) = (&context.admin.app, &context.viewer);
    let (language, now) = (viewer.language, context.now());
    let before = Some(query.page().row(List::QUARANTINE)?).filter(|row| *row > 0);
    let rows = app.store.newest_quarantined(before, ROWS + 1).await?;
    let page = Page::of(List::QUARANTINE, rows, ROWS, |row| row.id);
    let columns = [
        Column::new(language.pick("No.", "Nr."), "main"),
        Column::new(language.pick("Received", "Gauta"), "date"),
        Column::new(
            language.pick("Reason and fix", "Priežastis ir ką daryti"),
            "reason",
        ),
        Column::new(language.pick("Event", "Įvykis"), ""),
        Column::new(language.pick("Actions", "Veiksmai"), "actions"),
    ];
    let rows: Vec<Vec<Markup>> = page
        .rows
        .iter()
        .map(|row| cells(context, row, now))
        .collect();
    Ok(PageBody {
        title: language.pick("Quarantine", "Karantinas").to_owned(),
        content: html! {
            p { (language.pick(
                "Refused messages, newest first. After you have fixed the cause, retry them: they are verified again as of the time they were received.",
                "Atmesti pranešimai, naujausi viršuje. Pašalinę priežastį tikrinkite juos iš naujo: tikrinama pagal gavimo laiką.",
            )) }
            @if rows.is_empty() {
                p.empty { (language.pick("The quarantine is empty.", "Karantinas tuščias.")) }
            } @else {
                @if viewer.may_operate() {
                    div.buttons {
                        (button(viewer, "/do/retry", &[], language.pick("Retry all", "Tikrinti visus iš naujo"), None))
                    }
                }
                (table(language.pick("Refused messages", "Atmesti pranešimai"), &columns, rows))
            }
            (next_page(language, "/quarantine", page.next.as_deref()))
        },
        refresh: false,
    })
}

fn cells(context: &PageContext, row: &QuarantineRow, now: Now<'_>) -> Vec<Markup> {
    let (viewer, language) = (&context.viewer, context.viewer.language);
    let id = row.id.to_string();
    vec![
        html! { a href={ "/quarantine/" (row.id) } { (row.id) } },
        language.moment(row.received_at, now),
        reason(context, row),
        html! { (labels::event(language, row.event)) " " span.ago { (row.account) } },
        html! {
            @if viewer.may_operate() {
                (button(viewer, "/do/retry", &[("id", &id)], language.pick("Retry", "Tikrinti iš naujo"), Some(&id)))
            }
        },
    ]
}

/// Renders why a message was refused, and what to do.
fn reason(context: &PageContext, row: &QuarantineRow) -> Markup {
    let (title, fix) = labels::refusal(context.viewer.language, &row.reason);
    html! {
        strong { (title) } " " code { (row.reason) }
        p { (fix) }
        @if let Some(topic_arn) = &row.topic_arn { p { (arn(&foreign(topic_arn))) } }
    }
}

pub(super) async fn message(
    context: PageContext,
    path: Result<Path<i64>, PathRejection>,
) -> Response {
    let result = match path {
        Ok(Path(id)) => one(&context, id).await,
        Err(_) => Err(PageError(AdminError::UnknownRow)),
    };
    context.respond(result)
}

async fn one(context: &PageContext, id: i64) -> PageResult {
    let (app, viewer, language) = (&context.admin.app, &context.viewer, context.viewer.language);
    let message = app.store.quarantined(id).await?;
    let message = message.ok_or(AdminError::UnknownRow)?;
    let id = id.to_string();
    let fields = shown_fields(&message.body);
    let columns = [
        Column::new(language.pick("Field", "Laukas"), "main"),
        Column::new(language.pick("Value", "Reikšmė"), ""),
    ];
    let rows = fields.into_iter().map(|(name, value)| {
        vec![
            html! { code { (name) } },
            html! { span.code lang="" { (value) } },
        ]
    });
    let rows: Vec<_> = rows.collect();
    Ok(PageBody {
        title: format!(
            "{} {id}",
            language.pick("Refused message", "Atmestas pranešimas")
        ),
        content: html! {
            p { (language.pick("Received ", "Gauta ")) (language.moment(message.row.received_at, context.now())) ", "
                (language.count(message.row.size_bytes, ["byte", "bytes"], ["baitas", "baitai", "baitų"])) }
            div.notice.bad { (reason(context, &message.row)) }
            @if viewer.may_operate() {
                div.buttons {
                    (button(viewer, "/do/retry", &[("id", &id)], language.pick("Retry", "Tikrinti iš naujo"), Some(&id)))
                }
            }
            h2 { (language.pick("The message", "Pranešimas")) }
            @if rows.is_empty() {
                p { (language.pick("It is not a message of SNS.", "Tai ne SNS pranešimas.")) }
            } @else {
                (table(language.pick("The message", "Pranešimas"), &columns, rows))
            }
            p { a href="/quarantine" { (language.pick("Back to the quarantine", "Atgal į karantiną")) } }
        },
        refresh: false,
    })
}

/// Returns the fields of a message with their values, secret ones cut.
fn shown_fields(body: &[u8]) -> Vec<(String, String)> {
    let Ok(Value::Object(fields)) = serde_json::from_slice::<Value>(body) else {
        return Vec::new();
    };
    let shown = fields.into_iter().take(MAX_FIELDS).map(|(name, value)| {
        let is_secret = SECRET_FIELDS
            .iter()
            .any(|secret| secret.eq_ignore_ascii_case(&name));
        let value = match value {
            _ if is_secret => "[…]".to_owned(),
            Value::String(text) => foreign(&text),
            other => foreign(&other.to_string()),
        };
        (foreign(&name), value)
    });
    shown.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::refusal::Refusal;

    use super::super::language::Language;

    #[test]
    fn a_message_is_shown_without_what_confirms_it() {
        let body =
            br#"{"Type":"Notification","Message":"see https://x/?Signature=abc","Token":"secret-1",
            "subscribeurl":"https://sns/secret-2","Signature":"secret-3"}"#;
        let shown = format!("{:?}", shown_fields(body));
        assert!(
            !shown.contains("secret") && !shown.contains("abc"),
            "{shown}"
        );
        assert!(shown.contains("Notification"), "{shown}");
        assert!(shown_fields(b"not json").is_empty());
    }

    #[test]
    fn each_reason_that_is_kept_has_words_and_a_fix() {
        let other = labels::refusal(Language::English, "no such reason");
        for reason in Refusal::REASONS.iter().filter(|reason| reason.kept) {
            let known = labels::refusal(Language::English, reason.code);
            assert_ne!(known, other, "{}", reason.code);
        }
    }
}
