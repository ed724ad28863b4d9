//! The emulated file store: upload locations and documents' file links.
//!
//! Links carry a signature over method, path, query and the two headers, so
//! that a changed one is refused as S3 refuses it.

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_lc_rs::digest;
use axum::body::to_bytes;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use uuid::Uuid;

use crate::faults::Endpoint;
use crate::gate;
use crate::links::{Signed, expiry, hex, path_of, query_of};
use crate::meter::RequestRecord;
use crate::switches::{DigitizeUploads, Disposition, Pdf};
use crate::uploads::{Upload, UploadRecord};
use crate::vendor::Vendor;

/// Characters to percent-encode: those of RFC 5987, and a few more.
const NOT_ATTR_CHAR: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');
/// The largest file that is accepted.
const MAX_FILE_BYTES: usize = 64 * 1024 * 1024;
/// The upload location of a file, and the headers of its PUT.
pub(crate) struct Location {
    pub(crate) url: String,
    pub(crate) content_type: String,
    pub(crate) content_disposition: String,
}

/// Announces a file.
pub(crate) fn locate(
    vendor: &Vendor,
    account: Uuid,
    file_name: &str,
    parameters: BTreeMap<String, String>,
) -> Location {
    let switches = vendor.switches();
    let id = vendor.uuid();
    let content_type = content_type_of(file_name).to_owned();
    let content_disposition = disposition_of(file_name, switches.disposition);
    let path = path_of(switches.upload_host, id);
    let headers = Some((content_type.as_str(), content_disposition.as_str()));
    let (query, parameter) = query_of(
        switches.upload_host,
        vendor.now(),
        switches.upload_expires_ms,
        headers,
    );
    let signature = vendor.uploads.signature(&Signed {
        method: "PUT",
        path: &path,
        query: &query,
        content_type: &content_type,
        disposition: &content_disposition,
    });
    let record = UploadRecord {
        id,
        account,
        file_name: file_name.to_owned(),
        parameters,
        bytes: None,
        sha256: None,
        document_id: None,
    };
    let content = None;
    vendor.uploads.lock().insert(id, Upload { record, content });
    Location {
        url: format!("{}{path}?{query}&{parameter}={signature}", vendor.origin),
        content_type,
        content_disposition,
    }
}

/// Returns the Content-Disposition of a file name.
fn disposition_of(file_name: &str, form: Disposition) -> String {
    // A quote would end the value; headers have no control characters.
    let unsafe_char = |c: char| c == '"' || c.is_control();
    let ascii_only = form == Disposition::Ascii;
    if form == Disposition::Rfc5987 && !file_name.is_ascii() {
        return format!(
            "filename*=UTF-8''{}",
            utf8_percent_encode(file_name, NOT_ATTR_CHAR)
        );
    }
    let safe: String = file_name
        .chars()
        .map(|c| match c {
            c if unsafe_char(c) => '_',
            c if ascii_only && !c.is_ascii() => '_',
            c => c,
        })
        .collect();
    format!("filename=\"{safe}\"")
}

fn content_type_of(file_name: &str) -> &'static str {
    let extension = file_name.rsplit('.').next().unwrap_or_default();
    match extension.to_ascii_lowercase().as_str() {
        "pdf" => "application/pdf",
        "jpg" | "jpeg" => "image/jpeg",
        "png" => "image/png",
        "tif" | "tiff" => "image/tiff",
        "xml" => "application/xml",
        _ => "application/octet-stream",
    }
}

/// One of S3's errors.
struct S3Error {
    status: StatusCode,
    code: &'static str,
    message: &'static str,
}

const SIGNATURE: S3Error = S3Error {
    status: StatusCode::FORBIDDEN,
    code: "SignatureDoesNotMatch",
    message: "The request signature we calculated does not match the signature you provided. Check your key and signing method.",
};
const EXPIRED: S3Error = S3Error {
    status: StatusCode::FORBIDDEN,
    code: "AccessDenied",
    message: "Request has expired",
};
const CHUNKED: S3Error = S3Error {
    status: StatusCode::NOT_IMPLEMENTED,
    code: "NotImplemented",
    message: "A header you provided implies functionality that is not implemented",
};
const NO_LENGTH: S3Error = S3Error {
    status: StatusCode::LENGTH_REQUIRED,
    code: "MissingContentLength",
    message: "You must provide the Content-Length HTTP header.",
};
const INCOMPLETE: S3Error = S3Error {
    status: StatusCode::BAD_REQUEST,
    code: "IncompleteBody",
    message: "You did not provide the number of bytes specified by the Content-Length HTTP header",
};
const TOO_LARGE: S3Error = S3Error {
    status: StatusCode::BAD_REQUEST,
    code: "EntityTooLarge",
    message: "Your proposed upload exceeds the maximum allowed size",
};
const NO_KEY: S3Error = S3Error {
    status: StatusCode::NOT_FOUND,
    code: "NoSuchKey",
    message: "The specified key does not exist.",
};

impl IntoResponse for S3Error {
    fn into_response(self) -> Response {
        let body = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{}</Code><Message>{}</Message><RequestId>EMULATOR00000000</RequestId><HostId>emulator</HostId></Error>",
            self.code, self.message
        );
        let xml = [(header::CONTENT_TYPE, "application/xml")];
        (self.status, xml, body).into_response()
    }
}

/// Checks that a link was made here and has not expired.
fn check_link(
    vendor: &Vendor,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<(), S3Error> {
    let whole = uri.query().unwrap_or_default();
    let (query, signature) = whole
        .rsplit_once("&Signature=")
        .or_else(|| whole.rsplit_once("&X-Amz-Signature="))
        .ok_or(SIGNATURE)?;
    let expires = expiry(query).ok_or(SIGNATURE)?;
    if vendor.now() > expires {
        return Err(EXPIRED);
    }
    let putting = method == Method::PUT;
    let header = |name: header::HeaderName| -> Result<&str, S3Error> {
        let mut values = headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (_, _) if !putting => Ok(""),
            (Some(value), None) => std::str::from_utf8(value.as_bytes()).map_err(|_| SIGNATURE),
            _ => Err(SIGNATURE),
        }
    };
    // Headers that S3 makes part of what is signed whenever they are sent.
    let unsigned = |name: &header::HeaderName| {
        name.as_str().starts_with("x-amz-")
            || ["content-md5", "content-encoding", "content-language"].contains(&name.as_str())
    };
    if putting && headers.keys().any(unsigned) {
        return Err(SIGNATURE);
    }
    let right = vendor.uploads.signature(&Signed {
        method: method.as_str(),
        path: uri.path(),
        query,
        content_type: header(header::CONTENT_TYPE)?,
        disposition: header(header::CONTENT_DISPOSITION)?,
    });
    if right == signature {
        Ok(())
    } else {
        Err(SIGNATURE)
    }
}

/// Answers `PUT` to an upload location.
pub(crate) async fn put(
    State(vendor): State<Arc<Vendor>>,
    Path(id): Path<Uuid>,
    request: Request,
) -> Response {
    let in_progress = vendor.meter.begin(record(Endpoint::Upload, &request));
    let answer = match gate::pass(&vendor, Endpoint::Upload, None).await {
        Err(answer) => *answer,
        Ok(damage) => {
            let answer = match receive(&vendor, id, request).await {
                Ok(()) => [(header::ETAG, "\"emulator\"")].into_response(),
                Err(error) => error.into_response(),
            };
            gate::damage(answer, damage).await
        }
    };
    in_progress.answered(answer.status().as_u16());
    answer
}

async fn receive(vendor: &Arc<Vendor>, id: Uuid, request: Request) -> Result<(), S3Error> {
    let (parts, body) = request.into_parts();
    if parts.headers.contains_key(header::TRANSFER_ENCODING) {
        return Err(CHUNKED);
    }
    let length = parts.headers.get(header::CONTENT_LENGTH);
    let length = length.and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    let length = length.ok_or(NO_LENGTH)?;
    if length > MAX_FILE_BYTES {
        return Err(TOO_LARGE);
    }
    check_link(vendor, &parts.method, &parts.uri, &parts.headers)?;
    let content = to_bytes(body, MAX_FILE_BYTES)
        .await
        .map_err(|_| INCOMPLETE)?;
    let first = {
        let mut uploads = vendor.uploads.lock();
        let upload = uploads.get_mut(&id).ok_or(NO_KEY)?;
        let first = upload.content.is_none();
        upload.record.bytes = Some(content.len());
        upload.record.sha256 = Some(hex(digest::digest(&digest::SHA256, &content).as_ref()));
        upload.content = Some(content);
        first
    };
    if first && vendor.switches().digitize_uploads == DigitizeUploads::Auto {
        digitize(vendor, id, None);
    }
    Ok(())
}

/// Makes a document of a received file and publishes it; returns the document's id.
///
/// The document belongs to `company`, or to the account's first company. Returns `None`
/// if there is no such file or company, or if it has become a document already.
pub(crate) fn digitize(vendor: &Arc<Vendor>, id: Uuid, company: Option<&str>) -> Option<String> {
    let (upload, content) = {
        let uploads = vendor.uploads.lock();
        let upload = uploads.get(&id)?;
        (upload.record.clone(), upload.content.clone()?)
    };
    if upload.document_id.is_some() {
        return None;
    }
    let correlation = ["sourcedata", "userdata"]
        .iter()
        .find_map(|name| upload.parameters.get(*name).cloned());
    let switches = vendor.switches();
    let (index, document_id) = {
        let now = vendor.now();
        let mut world = vendor.world();
        let account = world.account_by_id(upload.account)?;
        let company = match company {
            Some(code) => world.company_of(account, code)?,
            None => *world.accounts[account].companies.first()?,
        };
        let file = (upload.file_name, correlation, content);
        let index = world.digitize_upload(account, company, file, now, &switches);
        (index, world.at_index(index).id.to_string())
    };
    if let Some(upload) = vendor.uploads.lock().get_mut(&id) {
        upload.record.document_id = Some(document_id.clone());
    }
    crate::announce::digitized(vendor, &[index]);
    Some(document_id)
}

/// Answers `GET` of a document's file link.
pub(crate) async fn get(
    State(vendor): State<Arc<Vendor>>,
    Path(id): Path<Uuid>,
    request: Request,
) -> Response {
    let in_progress = vendor.meter.begin(record(Endpoint::File, &request));
    let answer = match gate::pass(&vendor, Endpoint::File, None).await {
        Err(answer) => *answer,
        Ok(damage) => {
            let answer = file(&vendor, id, &request).unwrap_or_else(S3Error::into_response);
            gate::damage(answer, damage).await
        }
    };
    in_progress.answered(answer.status().as_u16());
    answer
}

fn file(vendor: &Vendor, id: Uuid, request: &Request) -> Result<Response, S3Error> {
    check_link(vendor, request.method(), request.uri(), request.headers())?;
    let position = vendor.switches().pdf;
    if position == Pdf::XmlError {
        return Err(EXPIRED);
    }
    let content = {
        let world = vendor.world();
        world.document(&id.to_string()).ok_or(NO_KEY)?.file()
    };
    let pdf = [(header::CONTENT_TYPE, "application/pdf")];
    if position == Pdf::Truncated {
        let half = content.slice(..content.len() / 2);
        let (parts, _) = pdf.into_response().into_parts();
        return Ok(gate::broken(parts, half, content.len()));
    }
    Ok((pdf, content).into_response())
}

/// Returns the record of a request whose link is a secret.
fn record(endpoint: Endpoint, request: &Request) -> RequestRecord {
    let beginning = request.uri().path().rsplit_once('/');
    RequestRecord {
        endpoint,
        method: request.method().to_string(),
        path: beginning.map_or_else(String::new, |(start, _)| format!("{start}/…")),
        query: String::new(),
        account: None,
        status: None,
    }
}
