//! Reports of `doctor`.

use serde_json::Value;

use crate::support::process::Installation;

/// A report of `doctor --json`: exit code and findings.
pub(crate) struct Report {
    pub(crate) code: Option<i32>,
    findings: Vec<Value>,
}

impl Report {
    /// Runs `doctor --json` with these arguments.
    pub(crate) async fn of(installation: &Installation, arguments: &[&str]) -> Self {
        Self::with(installation, arguments, &[]).await
    }

    /// Runs it with these variables too.
    pub(crate) async fn with(
        installation: &Installation,
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> Self {
        let arguments = [&["doctor", "--json"], arguments].concat();
        let (code, out, errors) = installation.run_with(&arguments, variables).await;
        let report: Value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}{errors}"));
        Self {
            code,
            findings: report["checks"].as_array().expect("a list").clone(),
        }
    }

    /// Reads what `doctor --json` has printed.
    pub(crate) fn read(output: &std::process::Output) -> Self {
        let out = String::from_utf8_lossy(&output.stdout);
        let report: Value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}"));
        Self {
            code: output.status.code(),
            findings: report["checks"].as_array().expect("a list").clone(),
        }
    }

    /// Returns the results of one check, in order.
    pub(crate) fn results<'a>(&'a self, check: &'a str) -> Vec<&'a str> {
        self.of_check(check)
            .map(|finding| finding["result"].as_str().expect("a word"))
            .collect()
    }

    /// Returns the findings of one check as text.
    pub(crate) fn words(&self, check: &str) -> String {
        self.of_check(check).map(Value::to_string).collect()
    }

    fn of_check<'a>(&'a self, check: &'a str) -> impl Iterator<Item = &'a Value> {
        self.findings
            .iter()
            .filter(move |finding| finding["check"] == check)
    }

    /// Asserts that every failed finding says why it matters.
    pub(crate) fn assert_explained(&self) {
        for finding in &self.findings {
            let result = finding["result"].as_str();
            if matches!(result, Some("fail" | "unreachable")) {
                assert!(finding["why"].is_string(), "{finding}");
            }
        }
    }
}
