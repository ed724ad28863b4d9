//! Gaps: stretches in which documents may be missing, and the button that closes one.

use maud::{Markup, html};

use super::context::{PageContext, PageError};
use super::labels;
use super::language::{Language, Now};
use super::layout::{button, folded, with_code};
use super::names::Names;
use crate::admin::problem::AdminError;
use crate::domain::{Company, Cursor, Moment};
use crate::store::{GapFilter, GapRow};

/// Maximum number of gaps that are shown.
const MAX_SHOWN: usize = 20;

/// Returns the open gaps.
pub(super) async fn open(context: &PageContext) -> Result<Vec<GapRow>, AdminError> {
    let filter = GapFilter {
        closed: false,
        after: 0,
        limit: MAX_SHOWN,
    };
    Ok(context.admin.app.store.gaps(filter).await?)
}

/// Renders the open gaps, each with its cause and what to do.
pub(super) async fn section(
    context: &PageContext,
    gaps: &[GapRow],
    now: Now<'_>,
) -> Result<Markup, PageError> {
    let language = context.viewer.language;
    if gaps.is_empty() {
        return Ok(html! {});
    }
    let app = &context.admin.app;
    let names = Names::read(app, gaps.iter().map(|gap| &gap.feed.company)).await?;
    Ok(html! {
        section.gaps aria-labelledby="gaps" {
            h2 id="gaps" { (language.pick("Documents may be missing", "Gali trūkti dokumentų")) }
            p { (language.pick(
                "Compare this time with Įvesk.lt. If something is missing here, export it again there. Then close the gap.",
                "Palyginkite šį laiką su Įvesk.lt. Jei čia ko nors trūksta, eksportuokite ten dar kartą. Tada uždarykite spragą.",
            )) }
            ul.cards {
                @for gap in gaps { li { (card(context, gap, &names, now)) } }
            }
        }
    })
}

fn card(context: &PageContext, gap: &GapRow, names: &Names, now: Now<'_>) -> Markup {
    let (viewer, language) = (&context.viewer, context.viewer.language);
    let id = gap.id.to_string();
    let is_mixed = gap.feed.company == Company::mixed();
    let name = match is_mixed {
        true => gap.feed.to_string(),
        false => names.text(&gap.feed.company),
    };
    html! {
        p {
            @if is_mixed { (labels::queue(language, gap.feed.queue)) } @else { (names.company(&gap.feed.company)) }
        }
        p { (language.pick("From ", "Nuo ")) (place(language, gap.from.as_ref(), now))
            (language.pick(" to ", " iki ")) (place(language, gap.to.as_ref(), now)) }
        p { (with_code(labels::incomplete_reason(language, gap.reason))) ". "
            span.ago { (language.pick("Found ", "Rasta ")) (language.age(gap.found_at, now)) } }
        @if viewer.may_operate() {
            (folded("ask", language.pick("Close…", "Uždaryti…"), &html! {
                p { (language.pick("You vouch that no document of this time is missing.", "Patvirtinate, kad šio laiko dokumentų netrūksta.")) }
                (button(viewer, "/do/gap", &[("id", &id)], language.pick("Nothing is missing", "Nieko netrūksta"), Some(&name)))
            }))
        }
    }
}

/// Renders a cursor as the time that it is, if it is one.
fn place(language: Language, cursor: Option<&Cursor>, now: Now<'_>) -> Markup {
    let moment = cursor
        .and_then(|cursor| Moment::read(&cursor.to_string()))
        .and_then(|moment| moment.timestamp());
    html! {
        @match (moment, cursor) {
            (Some(at), _) => { (language.time(at, now)) }
            (None, Some(cursor)) => { span.code { (cursor) } }
            (None, None) => { (language.pick("the beginning or the end", "pradžios arba pabaigos")) }
        }
    }
}
