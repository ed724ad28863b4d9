//! The vendor's REST API, below `/api/pub`.
//!
//! Two of its paths and the place of the company are switches, so requests are
//! routed here by hand.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, header};
use axum::response::{IntoResponse, Response};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use url::form_urlencoded;
use uuid::Uuid;

use crate::domain::{Event, Queue};
use crate::error_report::ErrorReport;
use crate::faults::Endpoint;
use crate::meter::{RequestRecord, redacted};
use crate::switches::{
    CompanyFilter, CompanyIn, ErrorRepeat, HeaderKeys, NextForm, ReportType, Switches,
    UnknownCompany,
};
use crate::vendor::Vendor;
use crate::world::PageRequest;
use crate::{announce, gate, s3, sns};
use sns_messages::time::Timestamp;

/// The API's path, as in production.
pub(crate) const BASE: &str = "/api/pub";
/// The longest body that the POSTs take.
const MAX_BODY_BYTES: usize = 1024 * 1024;

/// A parsed request.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Call {
    Digitized,
    Exported { company: Option<String> },
    UploadLocation { file_name: String },
    Errors,
    Subscriptions,
    Columns { company: String },
    Unknown,
}

impl Call {
    /// Reads method, path below [`BASE`] and query, according to the switches.
    fn read(method: &Method, path: &str, query: &[(String, String)], switches: &Switches) -> Self {
        if method == Method::POST {
            return match path {
                path if path == switches.errors_path.as_str() => Self::Errors,
                path if path == switches.subscriptions_path.as_str() => Self::Subscriptions,
                _ => Self::Unknown,
            };
        }
        let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let segments: Vec<&str> = path.split('/').skip(1).collect();
        match (method, segments.as_slice()) {
            (&Method::GET, ["digitized"]) => Self::Digitized,
            (&Method::GET, ["uploadlocation", name]) if !name.is_empty() => Self::UploadLocation {
                file_name: decode(name),
            },
            (&Method::GET, ["columns", company]) => Self::Columns {
                company: decode(company),
            },
            (&Method::GET, segments) => Self::exported(segments, query, switches.company_in)
                .map_or(Self::Unknown, |company| Self::Exported {
                    company: company.map(|text| decode(&text)),
                }),
            _ => Self::Unknown,
        }
    }

    /// Returns the company of an exported-queue request: `Some(None)` if it names none.
    fn exported(
        segments: &[&str],
        query: &[(String, String)],
        company_in: CompanyIn,
    ) -> Option<Option<String>> {
        match (company_in, segments) {
            (CompanyIn::Path, ["exported", company])
            | (CompanyIn::Prefix, [company, "exported"]) => Some(Some((*company).to_owned())),
            (CompanyIn::Query, ["exported"]) => Some(
                query
                    .iter()
                    .find(|(name, _)| name == "companycode")
                    .map(|(_, value)| value.clone()),
            ),
            (CompanyIn::None, ["exported"]) => Some(None),
            _ => None,
        }
    }

    const fn endpoint(&self) -> Endpoint {
        match self {
            Self::Digitized => Endpoint::Digitized,
            Self::Exported { .. } => Endpoint::Exported,
            Self::UploadLocation { .. } => Endpoint::UploadLocation,
            Self::Errors => Endpoint::Errors,
            Self::Subscriptions => Endpoint::Subscriptions,
            Self::Columns { .. } => Endpoint::Columns,
            Self::Unknown => Endpoint::UnknownApi,
        }
    }
}

/// An error answer: status and message.
type Refused = (u16, &'static str);

/// Answers every request below [`BASE`].
pub(crate) async fn answer(State(vendor): State<Arc<Vendor>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let query: Vec<(String, String)> =
        form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes())
            .into_owned()
            .collect();
    let path = parts.uri.path().strip_prefix(BASE).unwrap_or_default();
    let call = Call::read(&parts.method, path, &query, &vendor.switches());
    let account = account(&vendor, &parts.headers);
    let in_progress = vendor.meter.begin(RequestRecord {
        endpoint: call.endpoint(),
        method: parts.method.to_string(),
        path: parts.uri.path().to_owned(),
        query: redacted(parts.uri.query().unwrap_or_default()),
        account: account.map(|(_, id)| id),
        status: None,
    });
    let limit = usize::try_from(vendor.switches().max_in_flight).unwrap_or(usize::MAX);
    let answer = if limit > 0 && in_progress.in_flight > limit {
        gate::refuse(&vendor, 429, "Too Many Requests")
    } else {
        respond(&vendor, &call, account, &parts, &query, body).await
    };
    in_progress.answered(answer.status().as_u16());
    answer
}

/// Returns the account whose key the request carries, and its id.
fn account(vendor: &Vendor, headers: &HeaderMap) -> Option<(usize, Uuid)> {
    let key = headers.get("x-api-key")?.to_str().ok()?;
    let world = vendor.world();
    let account = world.account_by_key(key)?;
    Some((account, world.accounts[account].id))
}

async fn respond(
    vendor: &Arc<Vendor>,
    call: &Call,
    account: Option<(usize, Uuid)>,
    parts: &Parts,
    query: &[(String, String)],
    body: Body,
) -> Response {
    let subject = match call {
        Call::Exported { company } => company.as_deref(),
        Call::UploadLocation { file_name } => Some(file_name.as_str()),
        _ => None,
    };
    let damage = match gate::pass(vendor, call.endpoint(), subject).await {
        Ok(damage) => damage,
        Err(answer) => return *answer,
    };
    let answer = match account {
        None => Err((401, "Unauthorized")),
        Some(account) => right_answer(vendor, call, account, parts, query, body).await,
    };
    match answer {
        Ok(answer) => gate::damage(answer, damage).await,
        Err((status, message)) => gate::refuse(vendor, status, message),
    }
}

async fn right_answer(
    vendor: &Arc<Vendor>,
    call: &Call,
    account: (usize, Uuid),
    parts: &Parts,
    query: &[(String, String)],
    body: Body,
) -> Result<Response, Refused> {
    match call {
        Call::Digitized => page(vendor, account.0, Queue::Digitized, None, query),
        Call::Exported { company } => {
            let switches = vendor.switches();
            match company_asked(vendor, &switches, account.0, company.as_deref())? {
                Asked::Nobody => Ok(empty_page(vendor)),
                Asked::Company(company) => page(vendor, account.0, Queue::Exported, company, query),
            }
        }
        Call::UploadLocation { file_name } => Ok(location(vendor, account.1, file_name, query)),
        Call::Errors => report(vendor, account, &parts.headers, body).await,
        Call::Subscriptions => subscribe(vendor, account.1, body).await,
        Call::Columns { company } => columns(vendor, account.0, company, query),
        Call::Unknown => Err((404, "Not Found")),
    }
}

/// The company whose documents an exported-queue request gets.
enum Asked {
    /// One company's, or those of all if the switches say so.
    Company(Option<usize>),
    /// No company's.
    Nobody,
}

fn company_asked(
    vendor: &Vendor,
    switches: &Switches,
    account: usize,
    code: Option<&str>,
) -> Result<Asked, Refused> {
    let mixed =
        switches.company_in == CompanyIn::None || switches.company_filter == CompanyFilter::Ignored;
    let Some(code) = code else {
        return match mixed {
            true => Ok(Asked::Company(None)),
            false => Err((400, "companycode is required")),
        };
    };
    match (
        vendor.world().company_of(account, code),
        switches.unknown_company,
    ) {
        (Some(company), _) => Ok(Asked::Company(Some(company))),
        (None, _) if mixed => Ok(Asked::Company(None)),
        (None, UnknownCompany::NotFound) => Err((404, "Company not found")),
        (None, UnknownCompany::Forbidden) => Err((403, "Forbidden")),
        (None, UnknownCompany::Unauthorized) => Err((401, "Unauthorized")),
        (None, UnknownCompany::ServerError) => Err((500, "Internal Server Error")),
        (None, UnknownCompany::Empty) => Ok(Asked::Nobody),
    }
}

/// Returns the value of a parameter that may occur once.
fn single<'q>(query: &'q [(String, String)], parameter: &str) -> Result<Option<&'q str>, Refused> {
    let mut values = query.iter().filter(|(name, _)| name == parameter);
    match (values.next(), values.next()) {
        (Some(_), Some(_)) => Err((400, "a query parameter occurs twice")),
        (value, _) => Ok(value.map(|(_, value)| value.as_str())),
    }
}

fn page(
    vendor: &Vendor,
    account: usize,
    queue: Queue,
    company: Option<usize>,
    query: &[(String, String)],
) -> Result<Response, Refused> {
    let from = match single(query, "from")? {
        None => None,
        Some(text) => Some(cursor_from(text).ok_or((400, "from is not a date"))?),
    };
    let switches = vendor.switches();
    let request = PageRequest {
        account,
        queue,
        company,
        from,
        doctype: single(query, "doctype")?,
        now: vendor.now().as_millis(),
    };
    let found = vendor.world().page(&request, &switches);
    let mut body = page_start(vendor);
    for (index, (document, version, code)) in found.documents.iter().enumerate() {
        if index > 0 {
            body.push(',');
        }
        body.push_str(&announce::to_json(
            vendor, &switches, queue, document, *version, code,
        ));
    }
    body.push(']');
    if let Some(next) = found.next {
        body.push_str(",\"next\":");
        body.push_str(&cursor_to(next, switches.next_form));
    }
    body.push('}');
    Ok(json_text(body))
}

/// Parses `from` in any form that `next` can have.
fn cursor_from(text: &str) -> Option<i64> {
    let time = Timestamp::parse(text).map(Timestamp::as_millis);
    time.or_else(|| text.parse().ok())
}

/// Writes `next`, as JSON.
fn cursor_to(millis: i64, form: NextForm) -> String {
    const WINTER_TIME: Duration = Duration::from_secs(2 * 3600);
    let moment = Timestamp::from_millis(millis);
    match form {
        NextForm::Time => format!("\"{moment}\""),
        NextForm::Offset => {
            let local = moment.after(WINTER_TIME).to_string();
            format!("\"{}+02:00\"", local.trim_end_matches('Z'))
        }
        NextForm::Number => millis.to_string(),
    }
}

fn page_start(vendor: &Vendor) -> String {
    let schema = json!(format!("{}/api/schema/documents.json", vendor.origin));
    format!("{{\"$schema\":{schema},\"documents\":[")
}

fn empty_page(vendor: &Vendor) -> Response {
    json_text(page_start(vendor) + "]}")
}

fn json_text(body: String) -> Response {
    let json = [(header::CONTENT_TYPE, "application/json; charset=utf-8")];
    (json, body).into_response()
}

fn location(
    vendor: &Vendor,
    account: Uuid,
    file_name: &str,
    query: &[(String, String)],
) -> Response {
    let parameters: BTreeMap<String, String> = query.iter().cloned().collect();
    let location = s3::locate(vendor, account, file_name, parameters);
    let (type_key, disposition_key) = match vendor.switches().header_keys {
        HeaderKeys::Dashed => ("Content-Type", "Content-Disposition"),
        HeaderKeys::Camel => ("ContentType", "ContentDisposition"),
    };
    axum::Json(json!({
        "url": location.url,
        type_key: location.content_type,
        disposition_key: location.content_disposition,
    }))
    .into_response()
}

async fn json_body(body: Body) -> Result<Value, Refused> {
    let bytes = to_bytes(body, MAX_BODY_BYTES)
        .await
        .map_err(|_| (413, "Payload Too Large"))?;
    serde_json::from_slice(&bytes).map_err(|_| (400, "The body is not JSON"))
}

/// Returns a field that must be text, and not empty.
fn text<'b>(body: &'b Value, name: &str, missing: &'static str) -> Result<&'b str, Refused> {
    body[name]
        .as_str()
        .filter(|text| !text.trim().is_empty())
        .ok_or((400, missing))
}

async fn report(
    vendor: &Vendor,
    account: (usize, Uuid),
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Refused> {
    let switches = vendor.switches();
    let content_type = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let begins = |prefix: &str| content_type.is_some_and(|sent| sent.starts_with(prefix));
    let accepted = match switches.error_content_type {
        ReportType::Any => true,
        ReportType::Json => begins("application/json"),
        ReportType::Form => begins("application/x-www-form-urlencoded"),
    };
    if !accepted {
        return Err((415, "Unsupported Media Type"));
    }
    let body = json_body(body).await?;
    let report = ErrorReport {
        account: account.1,
        documentid: text(&body, "documentid", "documentid is required")?.to_owned(),
        companycode: text(&body, "companycode", "companycode is required")?.to_owned(),
        message: text(&body, "message", "message is required")?.to_owned(),
        content_type: content_type.map(str::to_owned),
    };
    let known = {
        let world = vendor.world();
        world.document(&report.documentid).is_some_and(|document| {
            document.account == account.0
                && *world.company_code(document.company) == *report.companycode
        })
    };
    if !known {
        return Err((404, "Document not found"));
    }
    let mut reports = vendor.reports();
    let repeated = reports
        .iter()
        .any(|old| old.documentid == report.documentid && old.account == report.account);
    if repeated && switches.error_repeat == ErrorRepeat::Refused {
        return Err((409, "An error is reported already"));
    }
    reports.push(report);
    Ok(axum::Json(json!({})).into_response())
}

async fn subscribe(vendor: &Arc<Vendor>, account: Uuid, body: Body) -> Result<Response, Refused> {
    let body = json_body(body).await?;
    let name = text(&body, "name", "name is required")?;
    let target = text(&body, "target", "target is required")?;
    let event = text(&body, "eventType", "eventType is required")?;
    let event = Event::parse(event).ok_or((400, "eventType is unknown"))?;
    sns::subscribe(vendor, account, name, event, target).map_err(|error| match error {
        sns::TargetError::NotAUrl => (400, "target is not an http or https URL"),
        sns::TargetError::Remote => (
            400,
            "target is not on this machine; start the emulator with --allow-remote",
        ),
    })?;
    // What the vendor answers is not known (vendor-api U3).
    Ok(
        axum::Json(json!({ "name": name, "eventType": event.as_str(), "target": target }))
            .into_response(),
    )
}

/// Answers with custom columns (vendor-api, "The queues"): a few values, paged with `next`.
fn columns(
    vendor: &Vendor,
    account: usize,
    company: &str,
    query: &[(String, String)],
) -> Result<Response, Refused> {
    const VALUES: [(&str, &str); 5] = [
        ("VLN", "Vilnius"),
        ("KNS", "Kaunas"),
        ("KLP", "Klaipėda"),
        ("SIA", "Šiauliai"),
        ("PNV", "Panevėžys"),
    ];
    const PAGE: usize = 2;
    const MODIFIED_AT: &str = "2026-04-01T00:00:00.000Z";

    if vendor.world().company_of(account, company).is_none() {
        return Err((404, "Company not found"));
    }
    single(query, "column")?.ok_or((400, "column is required"))?;
    let start = match single(query, "next")? {
        None => 0,
        Some(next) => next.parse().map_err(|_| (400, "next is not valid"))?,
    };
    let unchanged = single(query, "modifiedsince")?
        .and_then(Timestamp::parse)
        .is_some_and(|since| Some(since) > Timestamp::parse(MODIFIED_AT));
    let values: &[(&str, &str)] = if unchanged { &[] } else { &VALUES };
    let items: Vec<Value> = values
        .iter()
        .skip(start)
        .take(PAGE)
        .map(|(code, description)| {
            json!({ "code": code, "description": description, "modifiedat": MODIFIED_AT })
        })
        .collect();
    let mut answer = json!({ "items": items });
    if values.len() > start + PAGE {
        answer["next"] = (start + PAGE).to_string().into();
    }
    Ok(axum::Json(answer).into_response())
}
