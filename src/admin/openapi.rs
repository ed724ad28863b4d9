//! The API's description for programs: made of the lines that register the routes.

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use bytes::Bytes;
use utoipa::OpenApi as _;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Components, ContentBuilder, OpenApi, Ref, ResponseBuilder};

use super::problem::ProblemBody;
use super::state::Admin;

/// The name of the way to show a token.
const BEARER: &str = "bearer";

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "ivesk-webhook, admin API",
        description = "How the service stands, and what a person or a program of the house may do with it.\n\n\
            A GET needs a token with the right `read`, a POST one with `operate`; where no token is \
            configured and the listener is on loopback, none is needed. Lists come in pages: what \
            `next` holds is sent as `after`. Fields may be added to answers.",
        license(name = "MIT OR Apache-2.0"),
    ),
    tags(
        (name = "service", description = "The service as a whole"),
        (name = "feeds", description = "Feeds: one list of the vendor's, read with one cursor"),
        (name = "subscriptions", description = "Subscriptions at Amazon SNS"),
        (name = "documents", description = "Documents that were pulled"),
        (name = "delivery", description = "Delivering documents, and what comes back"),
        (name = "alarms", description = "What a person should know of"),
        (name = "messages", description = "Messages that came, accepted or refused"),
        (name = "uploads", description = "Files given to the vendor"),
        (name = "tokens", description = "Who may use this API"),
    ),
    components(schemas(ProblemBody)),
)]
struct Outline;

/// The document without paths.
pub(super) fn outline() -> OpenApi {
    Outline::openapi()
}

/// Adds what holds for every guarded route: the token, and the problems that its way to
/// the handler may end in.
pub(super) fn complete(api: &mut OpenApi) {
    let scheme = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some(
            "The token of `admin.token_file`, or one of `ivesk-webhook tokens create`",
        ))
        .build();
    api.components
        .get_or_insert_with(Components::new)
        .add_security_scheme(BEARER, SecurityScheme::Http(scheme));
    for (path, item) in &mut api.paths.paths {
        let has_row = path.contains('{');
        for (operation, posts) in operations(item) {
            complete_operation(operation, has_row, posts);
        }
    }
}

/// The operations of a path, and whether each is a POST. The API knows GET and POST.
fn operations(item: &mut PathItem) -> impl Iterator<Item = (&mut Operation, bool)> {
    let get = item.get.as_mut().map(|operation| (operation, false));
    let post = item.post.as_mut().map(|operation| (operation, true));
    get.into_iter().chain(post)
}

fn complete_operation(operation: &mut Operation, has_row: bool, posts: bool) {
    let none: [&str; 0] = [];
    operation.security = Some(vec![SecurityRequirement::new(BEARER, none)]);
    let takes_something = operation.parameters.is_some() || operation.request_body.is_some();
    let problems = [
        (
            takes_something,
            "400",
            "`bad_request`: it can't be understood",
        ),
        (true, "401", "`unauthorized`: the token is missing or wrong"),
        (
            true,
            "403",
            "`foreign_host`: without a token, only this machine's names are answered; or \
             `read_only_token`: the token may only read",
        ),
        (has_row, "404", "`unknown_row`: there is no such row"),
        (
            posts,
            "413",
            "`too_large`: the body is larger than is taken",
        ),
        (
            posts,
            "415",
            "`not_json`: it is not JSON, or comes from a web page",
        ),
        (
            true,
            "503",
            "`store_unavailable`: the database does not do what it should",
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

/// The document as it is served.
pub(super) fn to_json(api: &OpenApi) -> Bytes {
    // It is made of constants, so this is tried by every test that starts the listener.
    Bytes::from(serde_json::to_vec(api).expect("a description becomes JSON"))
}

/// This document
#[utoipa::path(get, path = "/v1/openapi.json", tag = "service",
    responses((status = OK, description = "An OpenAPI 3.1 document", body = serde_json::Value)))]
pub(super) async fn document(State(admin): State<Admin>) -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], admin.document)
}
