//! The OpenAPI document, made of the same lines that register the routes.

use axum::extract::State;
use axum::http::Method;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use bytes::Bytes;
use utoipa::OpenApi as _;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Components, ContentBuilder, OpenApi, Ref, ResponseBuilder};

use super::problem::ProblemBody;
use super::rules::{Needs, rule};
use super::state::Admin;

/// The name of the security scheme.
const BEARER: &str = "bearer";

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "ivesk-webhook, admin API",
        description = "Shows the state of the service, and operates it.\n\n\
            Each operation names the right that its token needs: `metrics` < `read` < `operate` < `admin`, \
            or `destination:NAME` for the program behind a destination of the kind `list`. \
            Lists are paged: send the value of `next` as `after`. Fields may be added to responses.",
        license(name = "MIT OR Apache-2.0"),
    ),
    tags(
        (name = "service", description = "The service as a whole"),
        (name = "feeds", description = "Feeds: lists of Įvesk.lt, each pulled with one cursor"),
        (name = "subscriptions", description = "Subscriptions at Amazon SNS"),
        (name = "documents", description = "Pulled documents"),
        (name = "delivery", description = "Destinations, deliveries and import errors"),
        (name = "alarms", description = "Alarms"),
        (name = "messages", description = "Accepted and refused messages"),
        (name = "uploads", description = "Files uploaded to Įvesk.lt"),
        (name = "tokens", description = "Tokens of this API"),
    ),
    components(schemas(ProblemBody)),
)]
struct Outline;

/// Returns the document without paths.
pub(super) fn outline() -> OpenApi {
    Outline::openapi()
}

/// Adds what applies to every guarded route: the token, and the problems that may be
/// returned before its handler runs.
pub(super) fn complete(api: &mut OpenApi) {
    let scheme = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some(
            "A token of `ivesk-webhook tokens create`, or that of `admin.token_file`, which has the right `admin`",
        ))
        .build();
    api.components
        .get_or_insert_with(Components::new)
        .add_security_scheme(BEARER, SecurityScheme::Http(scheme));
    for (path, item) in &mut api.paths.paths {
        let has_row = path.contains('{');
        for (operation, posts) in operations(item) {
            let method = if posts { Method::POST } else { Method::GET };
            // Without a rule the guard lets only `admin` pass.
            let needs = rule(&method, path).map_or(Needs::Admin, |rule| rule.needs);
            complete_operation(operation, has_row, posts, needs);
        }
    }
}

/// Returns the operations of a path, each with true if it is a POST. The API has GET and
/// POST only.
fn operations(item: &mut PathItem) -> impl Iterator<Item = (&mut Operation, bool)> {
    let get = item.get.as_mut().map(|operation| (operation, false));
    let post = item.post.as_mut().map(|operation| (operation, true));
    get.into_iter().chain(post)
}

fn complete_operation(operation: &mut Operation, has_row: bool, posts: bool, needs: Needs) {
    operation.security = Some(vec![SecurityRequirement::new(BEARER, [needs.as_str()])]);
    let has_input = operation.parameters.is_some() || operation.request_body.is_some();
    let problems = [
        (
            has_input,
            "400",
            "`bad_request`: a parameter or the body is not valid",
        ),
        (
            true,
            "401",
            "`unauthorized`: the token is missing or wrong; or `token_expired`",
        ),
        (
            true,
            "403",
            "`missing_right`: the token needs another right; or `foreign_host`: only requests to this machine's \
             own names are answered",
        ),
        (
            posts,
            "408",
            "`body_incomplete`: the body did not arrive in time",
        ),
        (has_row, "404", "`unknown_row`: no such row"),
        (posts, "413", "`too_large`: the body is too large"),
        (
            posts,
            "415",
            "`not_json`: the body is not JSON, or the request was sent by a web page",
        ),
        (
            true,
            "429",
            "`too_many_attempts`: too many wrong tokens from this address; a right one is always accepted",
        ),
        (
            true,
            "503",
            "`store_unavailable`: the database can't be read or written; or `took_too_long`",
        ),
    ];
    for (_, status, description) in problems.into_iter().filter(|(may, ..)| *may) {
        operation
            .responses
            .responses
            .entry(status.to_owned())
            .or_insert_with(|| problem(description).into());
    }
}

fn problem(description: &str) -> utoipa::openapi::Response {
    ResponseBuilder::new()
        .description(description)
        .content(
            "application/problem+json",
            ContentBuilder::new()
                .schema(Some(Ref::from_schema_name("Problem")))
                .build(),
        )
        .build()
}

/// Returns the document as JSON.
pub(super) fn to_json(api: &OpenApi) -> Bytes {
    // Made of constants, so every test that starts the listener tries this.
    Bytes::from(serde_json::to_vec(api).expect("an OpenAPI document becomes JSON"))
}

/// Returns this document
#[utoipa::path(get, path = "/v1/openapi.json", tag = "service",
    responses((status = OK, description = "An OpenAPI 3.1 document", body = serde_json::Value)))]
pub(super) async fn document(State(admin): State<Admin>) -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], admin.document)
}
