//! Bar charts of the last 24 hours.

use std::time::Duration;

use maud::{Markup, html};

use super::language::{Language, Now};
use crate::domain::Timestamp;

/// Hours that a chart shows, including the current one.
pub(super) const HOURS: usize = 24;

const HOUR: Duration = Duration::from_secs(60 * 60);

/// Width of a bar with its gap, in the chart's units.
const BAR_WIDTH: usize = 10;

/// Height of the highest bar, in the chart's units.
const MAX_HEIGHT: u64 = 60;

/// Returns the start of each hour that charts show, oldest first.
pub(super) fn hours(now: Timestamp) -> Vec<Timestamp> {
    let mut hours: Vec<_> = std::iter::successors(Some(now.hour()), |hour| Some(hour.before(HOUR)))
        .take(HOURS)
        .collect();
    hours.reverse();
    hours
}

/// Renders a chart with one count for each of `hours`, and the counts as a list.
pub(super) fn bars(
    language: Language,
    title: &str,
    class: &str,
    hours: &[Timestamp],
    count: impl Fn(Timestamp) -> u64,
    now: Now<'_>,
) -> Markup {
    let counts: Vec<u64> = hours.iter().map(|hour| count(*hour)).collect();
    let total: u64 = counts.iter().sum();
    let max = counts.iter().copied().max().unwrap_or(0);
    let aria_label = format!(
        "{title}: {}, {}",
        language.count(
            total,
            ["in total", "in total"],
            ["iš viso", "iš viso", "iš viso"]
        ),
        language.count(
            max,
            ["at most in an hour", "at most in an hour"],
            [
                "daugiausia per valandą",
                "daugiausia per valandą",
                "daugiausia per valandą"
            ]
        ),
    );
    let clock = |hour: Timestamp| now.local(hour).get(11..16).unwrap_or_default().to_owned();
    let middle = hours.get(HOURS / 2).copied().map(clock).unwrap_or_default();
    html! {
        figure.chart-box {
            figcaption { (title) " " strong { (language.number(total)) } }
            div.plot {
                div.values aria-hidden="true" { span { (language.number(max)) } span { "0" } }
                svg class={ "chart " (class) } viewBox={ "0 0 " (HOURS * BAR_WIDTH) " " (MAX_HEIGHT + 1) }
                    role="img" aria-label=(aria_label) preserveAspectRatio="none" {
                    line.axis x1="0" x2=(HOURS * BAR_WIDTH) y1="0.5" y2="0.5" {}
                    line.axis x1="0" x2=(HOURS * BAR_WIDTH) y1={ (MAX_HEIGHT) ".5" } y2={ (MAX_HEIGHT) ".5" } {}
                    @for (at, count) in counts.iter().enumerate() {
                        @let height = height(*count, max);
                        g {
                            title { (clock(hours[at])) ": " (language.number(*count)) }
                            rect.hit x=(at * BAR_WIDTH) y="0" width=(BAR_WIDTH) height=(MAX_HEIGHT) {}
                            @if height > 0 {
                                rect.bar x=(at * BAR_WIDTH + 1) y=(MAX_HEIGHT - height) width=(BAR_WIDTH - 2) height=(height) {}
                            }
                        }
                    }
                }
            }
            p.scale aria-hidden="true" {
                span { (hours.first().copied().map(clock).unwrap_or_default()) }
                span { (middle) }
                span { (language.pick("now", "dabar")) }
            }
            details {
                summary { (language.pick("By hour", "Pagal valandas")) }
                table.small {
                    caption { (title) }
                    thead { tr { th scope="col" { (language.pick("Hour", "Valanda")) } th.number scope="col" { (language.pick("Count", "Kiek")) } } }
                    tbody {
                        @for (hour, count) in hours.iter().zip(&counts).rev().filter(|(_, count)| **count > 0) {
                            tr { td { (clock(*hour)) } td.number { (language.number(*count)) } }
                        }
                    }
                }
            }
        }
    }
}

/// Returns the height of a bar; a count above zero is always visible.
fn height(count: u64, max: u64) -> u64 {
    match (count, max) {
        (0, _) | (_, 0) => 0,
        (count, max) => (count.saturating_mul(MAX_HEIGHT) / max).clamp(2, MAX_HEIGHT),
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
        assert_eq!(height(7, 7), MAX_HEIGHT);
    }
}
