//! The vendor's two topics.

use crate::domain::Event;

/// The AWS account of the vendor's topics (vendor-api, "Webhook messages").
pub(crate) const TOPIC_OWNER: &str = "007272210889";
/// Their region.
pub(crate) const REGION: &str = "eu-west-1";

/// The topic of an event.
pub(crate) fn topic_arn(event: Event) -> String {
    let name = match event {
        Event::OnExported => "DPWebHook_onexport",
        Event::OnDigitized => "DPWebHook_ondigitize",
    };
    format!("arn:aws:sns:{REGION}:{TOPIC_OWNER}:{name}")
}
