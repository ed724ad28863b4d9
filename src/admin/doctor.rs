//! What `doctor` finds in the process with the store.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;

use super::feeds::{known_account, parse_company};
use super::problem::{AdminError, ApiResult, Input};
use crate::api::doctor::{Checks, DoctorRequest};
use crate::app::App;
use crate::doctor;
use crate::domain::Account;

/// Checks settings, keys, connections and destinations as this process sees them
///
/// Sends requests to SNS and Įvesk.lt, which change nothing there; takes up to a minute if they do
/// not answer.
#[utoipa::path(post, path = "/v1/doctor", tag = "service", request_body = DoctorRequest,
    responses((status = OK, description = "Every check", body = Checks)))]
pub(super) async fn checks(
    State(app): State<Arc<App>>,
    Input(request): Input<DoctorRequest>,
) -> ApiResult<Checks> {
    let company = request.company.as_deref().map(parse_company).transpose()?;
    let account = match &company {
        Some(_) => Some(account(&app, request.account.as_deref())?),
        None => None,
    };
    let company = account.as_ref().zip(company.as_ref());
    let store = Some(app.store.as_ref());
    let checks = doctor::within(&app.config, store, &app.clock, company).await;
    Ok(Json(Checks { checks }))
}

/// Returns the account `name`, or the only one.
fn account(app: &App, name: Option<&str>) -> Result<Account, AdminError> {
    let mut accounts = app.config.accounts.keys();
    match (name, accounts.next(), accounts.next()) {
        (Some(name), _, _) => known_account(app, name),
        (None, Some(only), None) => Ok(only.clone()),
        _ => Err(AdminError::BadRequest(
            "there are several accounts; name one in `account`".to_owned(),
        )),
    }
}
