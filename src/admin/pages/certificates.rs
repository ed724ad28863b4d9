//! SNS's signing certificates and their last days.

use std::time::Duration;

use axum::response::Response;
use maud::html;

use super::layout::{Middle, badge, table};
use super::page::{Shown, Visit};
use super::words::Mood;
use crate::admin::certificates::ShownCertificate;
use crate::domain::Timestamp;
use crate::store::CertificateRow;

/// With less than this left, a certificate that none replaces is told of.
const NEAR_ITS_END: Duration = Duration::from_secs(14 * 24 * 60 * 60);

pub(super) async fn page(visit: Visit) -> Response {
    let shown = list(&visit).await;
    visit.show(shown)
}

/// The last day of the newest certificate, where it is near: SNS brings the next one by
/// itself, in messages that are signed with it.
pub(super) fn ending(rows: &[CertificateRow], now: Timestamp) -> Option<Timestamp> {
    let last = rows
        .iter()
        .filter_map(|row| ShownCertificate::from(row.clone()).certificate)
        .map(|certificate| certificate.not_after)
        .max()?;
    (last.before(NEAR_ITS_END) < now).then_some(last)
}

async fn list(visit: &Visit) -> Shown {
    let (app, language) = (&visit.admin.app, visit.visitor.language);
    let now = app.clock.now();
    let certificates = app.store.certificates().await?;
    let columns = [
        language.say("Certificate", "Sertifikatas"),
        language.say("State", "Būsena"),
        language.say("First day", "Pirma diena"),
        language.say("Last day", "Paskutinė diena"),
        language.say("Fetched", "Gautas"),
    ];
    let rows = certificates.into_iter().map(ShownCertificate::from).map(|one| {
        let dates = one.certificate.as_ref();
        let state = match dates {
            None => badge(Mood::Bad, language.say("unreadable", "neperskaitomas")),
            Some(dates) if dates.not_after < now => {
                badge(Mood::Bad, language.say("expired", "pasibaigęs"))
            }
            Some(dates) if dates.not_after.before(NEAR_ITS_END) < now => {
                badge(Mood::Busy, language.say("ends soon", "greitai baigsis"))
            }
            Some(_) => badge(Mood::Good, language.say("valid", "galioja")),
        };
        let day = |at: Option<Timestamp>| html! { (at.map(|at| language.day(at)).unwrap_or_default()) };
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
    Ok(Middle {
        title: language.say("Certificates", "Sertifikatai").to_owned(),
        body: html! {
            p { (language.say(
                "Amazon SNS signs every message. These certificates have verified one; new ones are fetched by themselves.",
                "„Amazon SNS“ pasirašo kiekvieną pranešimą. Šiais sertifikatais parašas jau patikrintas; nauji gaunami savaime.",
            )) }
            @if rows.is_empty() {
                p { (language.say("No message was verified yet.", "Dar nepatikrintas nė vienas pranešimas.")) }
            } @else {
                (table(language.say("Certificates", "Sertifikatai"), &columns, rows))
            }
        },
    })
}
