//! Failures on request.

use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::domain::Queue;

/// A part of the emulator that requests are counted by and faults are aimed at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Endpoint {
    /// The digitized queue.
    Digitized,
    /// The exported queue.
    Exported,
    /// `uploadlocation`
    UploadLocation,
    /// The error report.
    Errors,
    /// Subscribing.
    Subscriptions,
    /// `columns`
    Columns,
    /// Any other path of the API.
    UnknownApi,
    /// The PUT to an upload location.
    Upload,
    /// A document's file link.
    File,
    /// SNS's signing certificate.
    Certificate,
    /// SNS's `ConfirmSubscription`.
    Confirm,
    /// SNS's `Unsubscribe`.
    Unsubscribe,
}

impl Endpoint {
    /// Returns the name in counters and in the control API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Digitized => "digitized",
            Self::Exported => "exported",
            Self::UploadLocation => "upload_location",
            Self::Errors => "errors",
            Self::Subscriptions => "subscriptions",
            Self::Columns => "columns",
            Self::UnknownApi => "unknown_api",
            Self::Upload => "upload",
            Self::File => "file",
            Self::Certificate => "certificate",
            Self::Confirm => "confirm",
            Self::Unsubscribe => "unsubscribe",
        }
    }

    /// Returns true for the vendor's API, which requires a key.
    pub const fn is_api(self) -> bool {
        !matches!(
            self,
            Self::Upload | Self::File | Self::Certificate | Self::Confirm | Self::Unsubscribe
        )
    }
}

/// A kind of failure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum FaultKind {
    /// Another status, with the body that the `error_body` switch says.
    Status {
        /// The status.
        status: u16,
        /// `Retry-After`: seconds, or an HTTP date.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_after: Option<String>,
    },
    /// No answer until the fault is cleared or the client leaves.
    Hang,
    /// The right answer, so many milliseconds later.
    Slow {
        /// The delay.
        slow_ms: u64,
    },
    /// 200 with half of the right body, as a complete HTTP answer.
    TruncatedJson,
    /// 200, half of the right body, then the connection breaks.
    BrokenBody,
    /// The request has its effect, and the connection breaks before the answer.
    LostAnswer,
    /// 200 with a page of HTML.
    HtmlPage,
    /// 200 with a valid page of at least so many bytes.
    HugePage {
        /// Its size, default 50 MB.
        #[serde(default = "fifty_megabytes")]
        bytes: usize,
    },
    /// A redirect.
    Redirect {
        /// The target.
        location: String,
    },
}

const fn fifty_megabytes() -> usize {
    50_000_000
}

/// A fault, the requests that it hits, and their number.
///
/// Without a queue, a company or an endpoint it hits every request to the
/// vendor's API; SNS and S3 are hit only by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// The failure.
    #[serde(flatten)]
    pub kind: FaultKind,
    /// Only this queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<Queue>,
    /// Only exported-queue requests for this company.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub company: Option<String>,
    /// Only requests for the upload location of a file of this name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_name: Option<String>,
    /// Only this endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<Endpoint>,
    /// Number of requests that it hits; if absent, all until it is cleared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
}

impl Fault {
    /// Creates a fault that hits every request to the API until it is cleared.
    pub const fn new(kind: FaultKind) -> Self {
        Self {
            kind,
            queue: None,
            company: None,
            file_name: None,
            endpoint: None,
            times: None,
        }
    }

    /// Creates a fault that answers with another status.
    pub const fn status(status: u16) -> Self {
        Self::new(FaultKind::Status {
            status,
            retry_after: None,
        })
    }

    /// Creates a fault that answers with a status and `Retry-After`.
    pub fn status_retry_after(status: u16, retry_after: impl Into<String>) -> Self {
        Self::new(FaultKind::Status {
            status,
            retry_after: Some(retry_after.into()),
        })
    }

    /// Limits it to this queue.
    #[must_use]
    pub fn queue(mut self, queue: impl Into<Queue>) -> Self {
        self.queue = Some(queue.into());
        self
    }

    /// Limits it to exported-queue requests for this company.
    #[must_use]
    pub fn company(mut self, company: impl Into<String>) -> Self {
        self.company = Some(company.into());
        self
    }

    /// Limits it to this endpoint.
    #[must_use]
    pub const fn endpoint(mut self, endpoint: Endpoint) -> Self {
        self.endpoint = Some(endpoint);
        self
    }

    /// Limits it to the next `times` requests that it hits.
    #[must_use]
    pub const fn times(mut self, times: u32) -> Self {
        self.times = Some(times);
        self
    }

    /// Limits it to requests for the upload location of a file of this name.
    #[must_use]
    pub fn file_name(mut self, file_name: impl Into<String>) -> Self {
        self.file_name = Some(file_name.into());
        self
    }

    fn hits(&self, endpoint: Endpoint, subject: Option<&str>) -> bool {
        let endpoint_hit = match (self.endpoint, self.queue) {
            (Some(expected), _) => expected == endpoint,
            (None, Some(Queue::Exported)) => endpoint == Endpoint::Exported,
            (None, Some(Queue::Digitized)) => endpoint == Endpoint::Digitized,
            (None, None) => endpoint.is_api(),
        };
        let company_hit = match &self.company {
            None => true,
            Some(expected) => endpoint == Endpoint::Exported && subject == Some(expected),
        };
        let name_hit = match &self.file_name {
            None => true,
            Some(expected) => endpoint == Endpoint::UploadLocation && subject == Some(expected),
        };
        endpoint_hit && company_hit && name_hit
    }
}

/// The active faults.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    faults: Mutex<Vec<Fault>>,
    clearings: watch::Sender<u64>,
}

impl Faults {
    /// Returns a receiver that changes when the faults are cleared.
    pub(crate) fn clearings(&self) -> watch::Receiver<u64> {
        self.clearings.subscribe()
    }

    pub(crate) fn add(&self, fault: Fault) {
        self.lock().push(fault);
    }

    pub(crate) fn clear(&self) {
        self.lock().clear();
        self.clearings.send_modify(|clearings| *clearings += 1);
    }

    /// Returns the oldest fault that hits this request, and counts it as used. `subject` is the
    /// company or the file name that is asked for.
    pub(crate) fn take(&self, endpoint: Endpoint, subject: Option<&str>) -> Option<FaultKind> {
        let mut faults = self.lock();
        let index = faults
            .iter()
            .position(|fault| fault.hits(endpoint, subject))?;
        let kind = faults[index].kind.clone();
        if let Some(times) = &mut faults[index].times {
            *times = times.saturating_sub(1);
            if *times == 0 {
                faults.remove(index);
            }
        }
        Some(kind)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Fault>> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_for_two_requests_of_one_company_hits_only_those() {
        let faults = Faults::default();
        faults.add(Fault::status(500).company("1").times(2));
        assert_eq!(faults.take(Endpoint::Exported, Some("2")), None);
        assert_eq!(faults.take(Endpoint::Digitized, None), None);
        assert!(faults.take(Endpoint::Exported, Some("1")).is_some());
        assert!(faults.take(Endpoint::Exported, Some("1")).is_some());
        assert_eq!(faults.take(Endpoint::Exported, Some("1")), None);
    }

    #[test]
    fn a_fault_for_one_file_name_spares_all_others() {
        let faults = Faults::default();
        faults.add(Fault::status(404).file_name("a.pdf"));
        assert_eq!(faults.take(Endpoint::UploadLocation, Some("b.pdf")), None);
        assert_eq!(faults.take(Endpoint::Exported, Some("a.pdf")), None);
        let hit = faults.take(Endpoint::UploadLocation, Some("a.pdf"));
        assert!(hit.is_some());
    }

    #[test]
    fn a_fault_without_a_scope_spares_sns_and_s3() {
        let faults = Faults::default();
        faults.add(Fault::new(FaultKind::Hang));
        assert_eq!(faults.take(Endpoint::Certificate, None), None);
        assert_eq!(faults.take(Endpoint::Upload, None), None);
        assert_eq!(faults.take(Endpoint::Errors, None), Some(FaultKind::Hang));
        faults.clear();
        assert_eq!(faults.take(Endpoint::Errors, None), None);
    }

    #[test]
    fn a_fault_is_written_in_json_as_people_would() {
        let fault: Fault = serde_json::from_str(
            r#"{"kind":"status","status":429,"retry_after":"2","queue":"exported","times":3}"#,
        )
        .expect("a fault");
        assert_eq!(
            fault,
            Fault::status_retry_after(429, "2")
                .queue(Queue::Exported)
                .times(3)
        );
        let huge: Fault = serde_json::from_str(r#"{"kind":"huge_page"}"#).expect("a fault");
        assert_eq!(huge.kind, FaultKind::HugePage { bytes: 50_000_000 });
    }
}
