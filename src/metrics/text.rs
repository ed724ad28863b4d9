//! The two text formats of metrics.

use std::borrow::Cow;

/// A text format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextFormat {
    /// Prometheus text 0.0.4, which every collector and `promtool check metrics` read.
    Prometheus,
    /// OpenMetrics 1.0.0, for collectors that request it.
    OpenMetrics,
}

impl TextFormat {
    /// Returns the format for a request with this `Accept` header.
    pub fn negotiate(accept: Option<&str>) -> Self {
        let names_it = |accept: &str| {
            let kinds = accept.split(',').filter_map(|kind| kind.split(';').next());
            kinds
                .map(str::trim)
                .any(|kind| kind.eq_ignore_ascii_case("application/openmetrics-text"))
        };
        if accept.is_some_and(names_it) {
            Self::OpenMetrics
        } else {
            Self::Prometheus
        }
    }

    /// Returns the response's `Content-Type`.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// Converts OpenMetrics text to this format.
    pub(super) fn convert(self, text: String) -> String {
        match self {
            Self::OpenMetrics => text,
            Self::Prometheus => to_prometheus(&text),
        }
    }
}

/// Converts OpenMetrics text, which names a counter's family without the `_total` of its
/// samples and ends with `# EOF`, to Prometheus text, which does neither.
fn to_prometheus(text: &str) -> String {
    let mut converted = String::with_capacity(text.len() + 1024);
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let kind = lines.peek().and_then(|next| type_line(next));
        let line = match (line.strip_prefix("# HELP "), kind) {
            (Some(rest), Some((family, "counter"))) => {
                let help = rest.strip_prefix(family).unwrap_or_default();
                Cow::Owned(format!("# HELP {family}_total{help}"))
            }
            _ => match type_line(line) {
                Some((family, "counter")) => Cow::Owned(format!("# TYPE {family}_total counter")),
                _ if line == "# EOF" => continue,
                _ => Cow::Borrowed(line),
            },
        };
        converted.push_str(&line);
        converted.push('\n');
    }
    converted
}

/// Returns the family and the type that a TYPE line names.
fn type_line(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix("# TYPE ")?.split_once(' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openmetrics_is_returned_only_if_requested() {
        for accept in [
            "application/openmetrics-text",
            "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
        ] {
            let format = TextFormat::negotiate(Some(accept));
            assert_eq!(format, TextFormat::OpenMetrics, "{accept}");
        }
        for accept in [None, Some("*/*"), Some("text/plain"), Some("")] {
            let format = TextFormat::negotiate(accept);
            assert_eq!(format, TextFormat::Prometheus, "{accept:?}");
        }
    }

    #[test]
    fn counters_are_named_by_their_samples_in_prometheus_text() {
        let text = "# HELP a_x Things.\n# TYPE a_x counter\na_x_total{b=\"c\"} 1\n\
                    # HELP a_y Others.\n# TYPE a_y gauge\na_y 2\n# EOF\n";
        let expected = "# HELP a_x_total Things.\n# TYPE a_x_total counter\na_x_total{b=\"c\"} 1\n\
                        # HELP a_y Others.\n# TYPE a_y gauge\na_y 2\n";
        assert_eq!(TextFormat::Prometheus.convert(text.to_owned()), expected);
        assert_eq!(TextFormat::OpenMetrics.convert(text.to_owned()), text);
    }
}
