//! Subscriptions: lists, records, approves and restores them, and revokes approvals.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};

use super::feeds::known_account;
use super::identity::Identity;
use super::paging::{List, Page, PageQuery};
use super::problem::{AdminError, ApiResult, Input, NoFields, Params, RowId};
use crate::api::Changed;
use crate::api::subscriptions::{
    ConfirmResult, RequestedSubscription, RevokeRequest, RevokeResult, Subscription,
    SubscriptionId, SubscriptionNotes,
};
use crate::app::App;
use crate::sns::known_arns::MAX_KNOWN;
use crate::store::SubscriptionRow;
use crate::subscriptions::ConfirmOutcome;
use crate::subscriptions::problems::{self, Problem, aws_account};

/// Returns all subscriptions, oldest first, and what is to be said about each.
pub(super) async fn all_subscriptions(
    app: &App,
) -> Result<Vec<(SubscriptionRow, SubscriptionNotes)>, AdminError> {
    let rows = app.store.subscriptions().await?;
    let problems = problems::all(&app.config, &rows, app.clock.now());
    let problem = |row: &SubscriptionRow| {
        let of_row = |problem: &&Problem<'_>| problem.row().is_some_and(|one| one.id == row.id);
        let found = problems.iter().find(of_row)?;
        Some((found.to_string(), found.fix()))
    };
    let found: Vec<Option<(String, String)>> = rows.iter().map(problem).collect();
    let approved: HashMap<String, String> = app
        .store
        .allowed_topics(MAX_KNOWN)
        .await?
        .into_iter()
        .map(|topic| (topic.topic_arn, topic.allowed_by))
        .collect();
    let approved_by = |row: &SubscriptionRow| {
        let topic_arn = row.topic_arn.as_ref()?;
        let needed = app.verifier.needs_approval(topic_arn);
        approved.get(topic_arn).filter(|_| needed).cloned()
    };
    let owner = |row: &SubscriptionRow| {
        let topic_arn = row.topic_arn.as_deref()?;
        aws_account(topic_arn).map(str::to_owned)
    };
    let rows = rows.into_iter().zip(found);
    Ok(rows
        .map(|(row, found)| {
            let (problem, fix) = found.unzip();
            let notes = SubscriptionNotes {
                aws_account: owner(&row),
                topic_approved_by: approved_by(&row),
                problem,
                fix,
            };
            (row, notes)
        })
        .collect())
}

/// Lists subscriptions with their state
#[utoipa::path(get, path = "/v1/subscriptions", tag = "subscriptions", params(PageQuery),
    responses((status = OK, description = "Subscriptions", body = Page<Subscription>)))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    Params(page): Params<PageQuery>,
) -> ApiResult<Page<Subscription>> {
    let (limit, after) = (page.limit()?, page.row(List::SUBSCRIPTIONS)?);
    let mut rows = all_subscriptions(&app).await?;
    rows.retain(|(row, _)| row.id > after);
    let page = Page::of(List::SUBSCRIPTIONS, rows, limit, |(row, _)| row.id);
    Ok(Json(page.map(Subscription::from)))
}

/// Records that a subscription was requested from Įvesk.lt
#[utoipa::path(post, path = "/v1/subscriptions/requested", tag = "subscriptions", request_body = RequestedSubscription,
    responses((status = OK, description = "It is recorded", body = SubscriptionId)))]
pub(super) async fn requested(
    State(app): State<Arc<App>>,
    Input(request): Input<RequestedSubscription>,
) -> ApiResult<SubscriptionId> {
    let account = known_account(&app, &request.account)?;
    let now = app.clock.now();
    let id = app
        .store
        .subscription_requested(account, request.event, request.name, now)
        .await?;
    Ok(Json(SubscriptionId { id }))
}

/// Withdraws a recorded request that Įvesk.lt refused
///
/// A subscription of which SNS has sent something meanwhile stays.
#[utoipa::path(post, path = "/v1/subscriptions/{id}/withdraw", tag = "subscriptions", request_body = NoFields,
    params(("id" = i64, Path, description = "The subscription's row")),
    responses((status = OK, description = "1 if it was waiting for SNS", body = Changed)))]
pub(super) async fn withdraw(
    State(app): State<Arc<App>>,
    RowId(id): RowId,
    Input(NoFields {}): Input<NoFields>,
) -> ApiResult<Changed> {
    let withdrawn = app.store.withdraw_subscription(id).await?;
    Ok(Json(Changed {
        changed: usize::from(withdrawn),
    }))
}

/// Approves a subscription, and confirms it
///
/// If its topic is not known, exactly that topic is allowed from then on: find out first who
/// owns its AWS account. If SNS's token has expired meanwhile, the topic is allowed, and the
/// subscription must be requested again.
#[utoipa::path(post, path = "/v1/subscriptions/{id}/approve", tag = "subscriptions", request_body = NoFields,
    params(("id" = i64, Path, description = "The subscription's row")),
    responses(
        (status = OK, description = "The result", body = ConfirmResult),
        (status = CONFLICT, description = "`conflict`: it does not await approval",
            body = inline(super::problem::ProblemBody), content_type = "application/problem+json"),
    ))]
pub(super) async fn approve(
    State(app): State<Arc<App>>,
    Extension(identity): Extension<Identity>,
    RowId(id): RowId,
    Input(NoFields {}): Input<NoFields>,
) -> ApiResult<ConfirmResult> {
    change(&app, id, Decision::Approve(identity.owner))
        .await
        .map(Json)
}

/// Revokes the approval of a topic
///
/// Its messages are refused from then on, at every replica, and its subscriptions leave the list.
/// Whoever owns the topic can offer it again, which needs another approval.
#[utoipa::path(post, path = "/v1/subscriptions/revoke", tag = "subscriptions", request_body = RevokeRequest,
    responses(
        (status = OK, description = "It is revoked", body = RevokeResult),
        (status = NOT_FOUND, description = "`unknown_row`: nobody has approved the topic",
            body = inline(super::problem::ProblemBody), content_type = "application/problem+json"),
        (status = CONFLICT, description = "`conflict`: the settings allow the topic",
            body = inline(super::problem::ProblemBody), content_type = "application/problem+json"),
    ))]
pub(super) async fn revoke(
    State(app): State<Arc<App>>,
    Input(request): Input<RevokeRequest>,
) -> ApiResult<RevokeResult> {
    let subscriptions = revoke_topic(&app, &request.topic_arn).await?;
    Ok(Json(RevokeResult { subscriptions }))
}

/// Revokes the approval of a topic; returns the number of its subscriptions.
pub(super) async fn revoke_topic(app: &App, topic_arn: &str) -> Result<usize, AdminError> {
    if app.verifier.allows_topic(topic_arn) && !app.verifier.needs_approval(topic_arn) {
        return Err(AdminError::Conflict(
            "`sns.topics` allows this topic: change that setting, and restart".into(),
        ));
    }
    let revoked = app.topics.revoke(topic_arn).await?;
    revoked.ok_or_else(|| {
        AdminError::Unknown(format!(
            "nobody has approved the topic {topic_arn}; `ivesk-webhook subscriptions list --json` shows who approved which"
        ))
    })
}

/// Restores a subscription that has ended, or could not be confirmed
#[utoipa::path(post, path = "/v1/subscriptions/{id}/restore", tag = "subscriptions", request_body = NoFields,
    params(("id" = i64, Path, description = "The subscription's row")),
    responses(
        (status = OK, description = "The result", body = ConfirmResult),
        (status = CONFLICT, description = "`conflict`: it has not ended or failed, or has no token",
            body = inline(super::problem::ProblemBody), content_type = "application/problem+json"),
    ))]
pub(super) async fn restore(
    State(app): State<Arc<App>>,
    RowId(id): RowId,
    Input(NoFields {}): Input<NoFields>,
) -> ApiResult<ConfirmResult> {
    change(&app, id, Decision::Restore).await.map(Json)
}

/// A person's decision about a subscription.
#[derive(Clone, Debug)]
pub(super) enum Decision {
    /// Approve it; says who does.
    Approve(String),
    /// Restore it.
    Restore,
}

/// Approves or restores a subscription, and returns the result of visiting SubscribeURL.
pub(super) async fn change(
    app: &App,
    id: i64,
    decision: Decision,
) -> Result<ConfirmResult, AdminError> {
    let conflict = match decision {
        Decision::Approve(_) => {
            "the subscription does not await approval; `subscriptions list` shows the state of each"
        }
        Decision::Restore => {
            "the subscription has not ended or failed, or SNS sent no token for it; `subscriptions list` shows the state of \
             each"
        }
    };
    let rows = app.store.subscriptions().await?;
    if !rows.iter().any(|row| row.id == id) {
        return Err(AdminError::no_row(
            "subscription",
            id,
            "`ivesk-webhook subscriptions list`",
        ));
    }
    let outcome = match decision {
        Decision::Approve(by) => app.confirmations.approve(id, by).await?,
        Decision::Restore => app.confirmations.restore(id).await?,
    };
    let outcome = outcome.ok_or(AdminError::Conflict(conflict.into()))?;
    Ok(match outcome {
        ConfirmOutcome::Confirmed { .. } | ConfirmOutcome::Idle => ConfirmResult {
            confirmed: true,
            error: None,
            next_try_at: None,
        },
        ConfirmOutcome::Failed {
            error, next_try_at, ..
        } => ConfirmResult {
            confirmed: false,
            error: Some(error.to_string()),
            next_try_at,
        },
        ConfirmOutcome::Expired { error, .. } => ConfirmResult {
            confirmed: false,
            error: Some(error),
            next_try_at: None,
        },
    })
}
