//! What `doctor` finds in the process with the store.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::doctor::Check;

/// The company whose exported queue's address is looked for.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DoctorRequest {
    /// The company's code; absent to look for no address.
    #[schema(max_length = 64)]
    pub company: Option<String>,
    /// Its account; optional if there is only one.
    pub account: Option<String>,
}

/// What `doctor` found.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Checks {
    /// Every line of the report.
    pub checks: Vec<Check>,
}
