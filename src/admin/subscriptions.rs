//! Subscriptions: lists, records, approves and restores them, and revokes approvals.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::feeds::known_account;
use super::identity::Identity;
use super::paging::{List, Page, PageQuery};
use super::problem::{AdminError, ApiResult, Input, NoFields, Params, RowId};
use crate::app::App;
use crate::domain::{Event, Timestamp};
use crate::sns::known_arns::MAX_KNOWN;
use crate::store::SubscriptionRow;
use crate::subscriptions::ConfirmOutcome;
use crate::subscriptions::problems::{self, Problem, aws_account};

/// A subscription, and what a person should do about it.
#[derive(Serialize, ToSchema)]
pub(super) struct Subscription {
    /// The subscription.
    #[serde(flatten)]
    pub(super) row: SubscriptionRow,
    /// The AWS account that owns the topic, once a message of SNS has arrived.
    pub(super) aws_account: Option<String>,
    /// Who approved the topic; null if the settings allow it, or nobody does.
    pub(super) topic_approved_by: Option<String>,
    /// What a person should know or decide; null if there is nothing.
    pub(super) problem: Option<String>,
    /// What a person should do; null if nothing is to be done.
    pub(super) fix: Option<String>,
}

/// Returns all subscriptions, oldest first.
pub(super) async fn all_subscriptions(app: &App) -> Result<Vec<Subscription>, AdminError> {
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
            Subscription {
                aws_account: owner(&row),
                topic_approved_by: approved_by(&row),
                problem,
                fix,
                row,
            }
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
    rows.retain(|subscription| subscription.row.id > after);
    Ok(Json(Page::of(
        List::SUBSCRIPTIONS,
        rows,
        limit,
        |subscription| subscription.row.id,
    )))
}

/// A subscription that was requested from Įvesk.lt.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RequestedSubscription {
    /// The webhook's account.
    #[schema(pattern = "^[a-z0-9_-]{1,40}$", examples("default"))]
    account: String,
    /// The webhook's event.
    event: Event,
    /// The name that was sent to Įvesk.lt.
    name: String,
}

/// The subscription's row.
#[derive(Serialize, ToSchema)]
pub(super) struct SubscriptionId {
    /// Its id.
    id: i64,
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

/// The result of visiting SubscribeURL.
#[derive(Serialize, ToSchema)]
pub(super) struct ConfirmResult {
    /// True if the subscription is confirmed.
    pub(super) confirmed: bool,
    /// The error if it is not.
    pub(super) error: Option<String>,
    /// The time of the next attempt; null if there is none.
    pub(super) next_try_at: Option<Timestamp>,
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

/// The topic that is no longer approved.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RevokeRequest {
    /// Its whole ARN.
    #[schema(max_length = 2000)]
    topic_arn: String,
}

/// The result of revoking an approval.
#[derive(Serialize, ToSchema)]
pub(super) struct RevokeResult {
    /// Subscriptions to the topic, which were removed from the list.
    subscriptions: usize,
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
    revoked.ok_or(AdminError::UnknownRow)
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
        return Err(AdminError::UnknownRow);
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
