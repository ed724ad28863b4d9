//! Numbers of rows, as lists show them.

/// Returns a parser of a number that `command` shows.
pub(super) fn row_id(
    command: &'static str,
) -> impl Fn(&str) -> Result<i64, String> + Clone + Send + Sync + 'static {
    move |text| {
        let number = text.parse::<i64>().ok();
        let number = number.filter(|number| *number > 0);
        number.ok_or_else(|| format!("give a number of {command}"))
    }
}
