//! Import errors: lists, retries and discards them.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;

use super::paging::{List, Page, PageQuery};
use super::problem::{AdminError, ApiResult, Input, NoFields, Params, RowId};
use crate::api::Changed;
use crate::api::import_errors::{
    ImportError, ImportErrorPath, ImportErrorQuery, PausedPaths, SelectedImportErrors,
};
use crate::app::App;
use crate::domain::{Account, Company};
use crate::store::{
    ImportErrorDecision, ImportErrorFilter, ImportErrorSelection, ImportErrorState,
};

/// Lists import errors, oldest first
#[utoipa::path(get, path = "/v1/import-errors", tag = "delivery", params(ImportErrorQuery),
    responses((status = OK, description = "Import errors", body = Page<ImportError>)))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    Params(query): Params<ImportErrorQuery>,
) -> ApiResult<Page<ImportError>> {
    let page = PageQuery {
        after: query.after,
        limit: query.limit,
    };
    let limit = page.limit()?;
    let filter = ImportErrorFilter {
        after: page.row(List::IMPORT_ERRORS)?,
        sequence: None,
        state: query.state,
        limit: limit + 1,
    };
    let rows = app.store.import_errors(filter).await?;
    let page = Page::of(List::IMPORT_ERRORS, rows, limit, |row| row.id);
    Ok(Json(page.map(ImportError::from)))
}

/// Lists the accounts whose import errors are not sent
///
/// Įvesk.lt answered 404 to `api.import_error_path`. Retrying resumes them.
#[utoipa::path(get, path = "/v1/import-errors/paused", tag = "delivery",
    responses((status = OK, description = "Paused paths", body = PausedPaths)))]
pub(super) async fn paused(State(app): State<Arc<App>>) -> ApiResult<PausedPaths> {
    let rows = app.store.paused_import_error_paths().await?.into_iter();
    Ok(Json(PausedPaths {
        rows: rows.map(ImportErrorPath::from).collect(),
    }))
}

/// Sends an import error now
///
/// Also one that was discarded or withdrawn. Resumes sending if it is paused.
#[utoipa::path(post, path = "/v1/import-errors/{id}/retry", tag = "delivery", request_body = NoFields,
    params(("id" = i64, Path, description = "The import error's row")),
    responses(
        (status = OK, description = "The import error is due", body = Changed),
        (status = CONFLICT, description = "`conflict`: the import error can't be sent",
            body = inline(super::problem::ProblemBody), content_type = "application/problem+json"),
    ))]
pub(super) async fn retry(
    State(app): State<Arc<App>>,
    RowId(id): RowId,
    Input(NoFields {}): Input<NoFields>,
) -> ApiResult<Changed> {
    decide_one(&app, id, ImportErrorDecision::Retry)
        .await
        .map(Json)
}

/// Never sends an import error, unless it is retried
#[utoipa::path(post, path = "/v1/import-errors/{id}/discard", tag = "delivery", request_body = NoFields,
    params(("id" = i64, Path, description = "The import error's row")),
    responses(
        (status = OK, description = "The import error is discarded", body = Changed),
        (status = CONFLICT, description = "`conflict`: the import error was sent, or there is none",
            body = inline(super::problem::ProblemBody), content_type = "application/problem+json"),
    ))]
pub(super) async fn discard(
    State(app): State<Arc<App>>,
    RowId(id): RowId,
    Input(NoFields {}): Input<NoFields>,
) -> ApiResult<Changed> {
    decide_one(&app, id, ImportErrorDecision::Discard)
        .await
        .map(Json)
}

/// Decides about one import error.
///
/// # Errors
///
/// If it does not exist or can't be sent any more.
pub(super) async fn decide_one(
    app: &App,
    id: i64,
    decision: ImportErrorDecision,
) -> Result<Changed, AdminError> {
    let selection = ImportErrorSelection {
        id: Some(id),
        ..ImportErrorSelection::default()
    };
    match decide(app, selection, decision).await? {
        Changed { changed: 0 } => Err(AdminError::Conflict(
            match decision {
                ImportErrorDecision::Retry => {
                    "this import error can't be sent: it does not exist, was sent already, or has no company; \
                     `ivesk-webhook import-errors list` shows its state"
                }
                ImportErrorDecision::Discard => {
                    "this import error can't be discarded: it does not exist, or was sent already; `ivesk-webhook import-errors list` \
                     shows its state"
                }
            }
            .into(),
        )),
        changed => Ok(changed),
    }
}

async fn decide(
    app: &App,
    selection: ImportErrorSelection,
    decision: ImportErrorDecision,
) -> Result<Changed, AdminError> {
    let now = app.clock.now();
    let changed = app.store.decide_import_errors(selection, decision, now);
    Ok(Changed {
        changed: changed.await?,
    })
}

/// Sends an account's import errors now, and resumes sending.
///
/// # Errors
///
/// If the store fails, or `account` is not an account's name.
pub(super) async fn resume(app: &App, account: &str) -> Result<(), AdminError> {
    let selected = SelectedImportErrors {
        account: Some(account.to_owned()),
        company: None,
        state: Some(ImportErrorState::Pending),
        all: false,
    };
    let selection = selected.selection()?;
    decide(app, selection, ImportErrorDecision::Retry).await?;
    Ok(())
}

impl SelectedImportErrors {
    fn selection(self) -> Result<ImportErrorSelection, AdminError> {
        let Self {
            account,
            company,
            state,
            all,
        } = self;
        let named = account.is_some() || company.is_some() || state.is_some();
        if named == all {
            return Err(AdminError::BadRequest(
                "name `account`, `company` or `state`, or else send `\"all\": true`".to_owned(),
            ));
        }
        let account = account.map(|name| {
            Account::parse(&name).map_err(|_| {
                AdminError::BadRequest("`account` is not an account's name".to_owned())
            })
        });
        let company = company.map(|code| {
            Company::parse(&code)
                .map_err(|_| AdminError::BadRequest("`company` is not a company's code".to_owned()))
        });
        Ok(ImportErrorSelection {
            id: None,
            account: account.transpose()?,
            company: company.transpose()?,
            state,
        })
    }
}

/// Sends several import errors now
///
/// Those that are pending or refused are sent if their document is still rejected. Resumes sending for
/// their accounts if it is paused.
#[utoipa::path(post, path = "/v1/import-errors/retry", tag = "delivery", request_body = SelectedImportErrors,
    responses((status = OK, description = "The number of import errors that are due", body = Changed)))]
pub(super) async fn retry_some(
    State(app): State<Arc<App>>,
    Input(selected): Input<SelectedImportErrors>,
) -> ApiResult<Changed> {
    let selection = selected.selection()?;
    decide(&app, selection, ImportErrorDecision::Retry)
        .await
        .map(Json)
}

/// Never sends several import errors, unless they are retried
#[utoipa::path(post, path = "/v1/import-errors/discard", tag = "delivery", request_body = SelectedImportErrors,
    responses((status = OK, description = "The number of discarded import errors", body = Changed)))]
pub(super) async fn discard_some(
    State(app): State<Arc<App>>,
    Input(selected): Input<SelectedImportErrors>,
) -> ApiResult<Changed> {
    let selection = selected.selection()?;
    decide(&app, selection, ImportErrorDecision::Discard)
        .await
        .map(Json)
}
