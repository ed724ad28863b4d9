//! The vendor's two topics.

use crate::domain::Event;

/// The AWS account of the vendor's topics in its published sample (vendor-api U10).
pub(crate) const SAMPLE_OWNER: &str = "007272210889";
/// Their region.
const REGION: &str = "eu-west-1";

/// Returns the ARN of an event's topic, which AWS account `owner` owns.
pub(crate) fn topic_arn(owner: &str, event: Event) -> String {
    let name = match event {
        Event::OnExported => "DPWebHook_onexport",
        Event::OnDigitized => "DPWebHook_ondigitize",
    };
    format!("arn:aws:sns:{REGION}:{owner}:{name}")
}
