//! Signing certificates of SNS and their expiry.

use std::time::Duration;

use axum::response::Response;
use maud::html;

use super::context::{PageContext, PageResult};
use super::labels::Severity;
use super::layout::{PageBody, badge, table};
use crate::api::subscriptions::ShownCertificate;
use crate::domain::Timestamp;

/// Remaining validity below which a certificate is marked.
const EXPIRES_SOON: Duration = Duration::from_secs(14 * 24 * 60 * 60);

pub(super) async fn page(context: PageContext) -> Response {
    let result = list(&context).await;
    context.respond(result)
}

async fn list(context: &PageContext) -> PageResult {
    let (app, language) = (&context.admin.app, context.viewer.language);
    let now = context.now();
    let certificates = app.store.certificates().await?;
    let columns = [
        language.pick("Certificate", "Sertifikatas"),
        language.pick("State", "Būsena"),
        language.pick("Valid from", "Galioja nuo"),
        language.pick("Valid until", "Galioja iki"),
        language.pick("Fetched", "Gautas"),
    ];
    let rows = certificates.into_iter().map(ShownCertificate::from).map(|one| {
        let dates = one.certificate.as_ref();
        let state = match dates {
            None => badge(Severity::Problem, language.pick("unreadable", "neperskaitomas")),
            Some(dates) if dates.not_after < now.at => {
                badge(Severity::Problem, language.pick("expired", "pasibaigęs"))
            }
            Some(dates) if dates.not_after.before(EXPIRES_SOON) < now.at => {
                badge(Severity::Pending, language.pick("expires soon", "greitai baigsis"))
            }
            Some(_) => badge(Severity::Ok, language.pick("valid", "galioja")),
        };
        let day = |at: Option<Timestamp>| html! { (at.map(|at| language.day(at, now)).unwrap_or_default()) };
        vec![
            html! {
                @if let Some(dates) = dates { strong { (dates.subject) } " " }
                code { (one.url) }
            },
            state,
            day(dates.map(|dates| dates.not_before)),
            day(dates.map(|dates| dates.not_after)),
            language.moment(one.fetched_at, now),
        ]
    });
    let rows: Vec<_> = rows.collect();
    Ok(PageBody {
        title: language.pick("Certificates", "Sertifikatai").to_owned(),
        content: html! {
            p { (language.pick(
                "Amazon SNS signs every message. These certificates have verified at least one; new ones are fetched automatically.",
                "„Amazon SNS“ pasirašo kiekvieną pranešimą. Šiais sertifikatais patikrintas bent vienas parašas; nauji gaunami automatiškai.",
            )) }
            @if rows.is_empty() {
                p { (language.pick("No certificate of Amazon SNS has verified a message yet.", "„Amazon SNS“ sertifikatu dar nepatikrintas nė vienas pranešimas.")) }
            } @else {
                (table(language.pick("Certificates", "Sertifikatai"), &columns, rows))
            }
            @if !app.config.sns.local_origins.is_empty() {
                p { (language.pick(
                    "Certificates of sns.local_origins, which stand in for Amazon SNS, are not kept.",
                    "Sertifikatai iš „sns.local_origins“, kurie atstoja „Amazon SNS“, nesaugomi.",
                )) }
            }
        },
        refresh: false,
    })
}
