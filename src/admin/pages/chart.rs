//! Small bar charts of the last hours.

use std::time::Duration;

use maud::{Markup, html};

use super::language::{Language, grouped};
use crate::domain::Timestamp;

/// Hours that a chart shows, the present one among them.
pub(super) const HOURS: usize = 24;

const HOUR: Duration = Duration::from_secs(60 * 60);

/// A bar's width with the gap beside it, and the height of the highest, in the chart's units.
const BAR: usize = 10;
const HIGHEST: u64 = 60;

/// The beginnings of the hours that charts show, oldest first.
pub(super) fn hours(now: Timestamp) -> Vec<Timestamp> {
    let mut hours: Vec<_> = std::iter::successors(Some(now.hour()), |hour| Some(hour.before(HOUR)))
        .take(HOURS)
        .collect();
    hours.reverse();
    hours
}

/// A chart of one count for each of `hours`, and the same as a table.
pub(super) fn bars(
    language: Language,
    title: &str,
    class: &str,
    hours: &[Timestamp],
    count: impl Fn(Timestamp) -> u64,
) -> Markup {
    let counts: Vec<u64> = hours.iter().map(|hour| count(*hour)).collect();
    let total: u64 = counts.iter().sum();
    let most = counts.iter().copied().max().unwrap_or(0);
    let spoken = format!(
        "{title}: {}, {}",
        language.count(
            total,
            ["in all", "in all"],
            ["iš viso", "iš viso", "iš viso"]
        ),
        language.count(
            most,
            ["at most in an hour", "at most in an hour"],
            [
                "daugiausia per valandą",
                "daugiausia per valandą",
                "daugiausia per valandą"
            ]
        ),
    );
    let clock = |hour: Timestamp| hour.to_string().get(11..16).unwrap_or_default().to_owned();
    html! {
        figure {
            figcaption { (title) " " strong { (grouped(total)) } }
            svg class={ "chart " (class) } viewBox={ "0 0 " (HOURS * BAR) " " (HIGHEST + 1) }
                role="img" aria-label=(spoken) preserveAspectRatio="none" {
                line.axis x1="0" x2=(HOURS * BAR) y1={ (HIGHEST) ".5" } y2={ (HIGHEST) ".5" } {}
                @for (at, count) in counts.iter().enumerate() {
                    @let height = height(*count, most);
                    @if height > 0 {
                        rect x=(at * BAR + 1) y=(HIGHEST - height) width=(BAR - 2) height=(height) {
                            title { (clock(hours[at])) " UTC: " (count) }
                        }
                    }
                }
            }
            p.scale {
                span { (hours.first().copied().map(clock).unwrap_or_default()) " UTC" }
                span { (language.say("now", "dabar")) }
            }
            details {
                summary { (language.say("By the hour", "Pagal valandas")) }
                ol.hours {
                    @for (hour, count) in hours.iter().zip(&counts).rev() {
                        li { span { (clock(*hour)) } " " span { (grouped(*count)) } }
                    }
                }
            }
        }
    }
}

/// The height of a bar: what there is at all can be seen.
fn height(count: u64, most: u64) -> u64 {
    match (count, most) {
        (0, _) | (_, 0) => 0,
        (count, most) => (count.saturating_mul(HIGHEST) / most).clamp(2, HIGHEST),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_ends_with_the_current_hour_and_shows_small_counts() {
        let now = Timestamp::parse("2026-11-23T08:40:00Z").expect("a moment");
        let hours = hours(now);
        assert_eq!(hours.len(), HOURS);
        assert_eq!(hours[HOURS - 1].to_string(), "2026-11-23T08:00:00.000Z");
        assert_eq!(hours[0].to_string(), "2026-11-22T09:00:00.000Z");
        assert_eq!(height(0, 10), 0);
        assert_eq!(height(1, 1_000_000), 2);
        assert_eq!(height(7, 7), HIGHEST);
    }
}
