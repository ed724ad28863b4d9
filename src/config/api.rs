//! `[api]`: the vendor's API.

use std::time::Duration;

use serde_json::{Value, json};
use url::{Host, Url};

use super::check::{base_url, shortened};
use super::layers::Layers;

/// The vendor's API.
#[derive(Clone, Debug)]
pub struct ApiConfig {
    /// `api.url`, default `https://app.ivesk.lt/api/pub`. Plain `http` on loopback only.
    pub url: Url,
    /// `api.exported_path`: how a company's exported queue is asked for. Not known
    /// (vendor-api U1): `None` until set, and pulling that queue is blocked.
    pub exported_path: Option<ExportedPath>,
    /// `api.subscribe_path` (U2): `None` until set; `subscribe --print` helps meanwhile.
    pub subscribe_path: Option<String>,
    /// `api.import_error_path` (U2): `None` until set; import errors are kept meanwhile.
    pub import_error_path: Option<String>,
    /// `api.import_error_type` (U7), default `application/json`: the Content-Type of an
    /// error report.
    pub import_error_type: String,
    /// `api.timeout`, default 30 s for one request, body included.
    pub timeout: Duration,
    /// `api.max_page_bytes`, default 32 MiB.
    pub max_page_bytes: usize,
    /// `api.file_hosts`: from where documents' files may be fetched, these hosts and
    /// those below them. Default the API's own and `amazonaws.com`, where S3 is.
    pub file_hosts: Vec<String>,
}

impl ApiConfig {
    /// The defaults, at another address.
    pub fn at(url: Url) -> Self {
        let own = url.host_str().map(str::to_owned);
        Self {
            file_hosts: own
                .into_iter()
                .chain(["amazonaws.com".to_owned()])
                .collect(),
            url,
            exported_path: None,
            subscribe_path: None,
            import_error_path: None,
            import_error_type: "application/json".to_owned(),
            timeout: Duration::from_secs(30),
            max_page_bytes: 32 * 1024 * 1024,
        }
    }
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self::at(Url::parse("https://app.ivesk.lt/api/pub").expect("a constant URL is valid"))
    }
}

/// Where the company stands in the exported queue's URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportedPath {
    /// Path and query after `api.url`, holding `{company}` at most once, such as
    /// `/exported/{company}`. `from` is added as a query parameter.
    ///
    /// The settings also take the presets `path` (`/exported/{company}`), `query`
    /// (`/exported?companycode={company}`), `prefix` (`/{company}/exported`) and
    /// `none` (`/exported`).
    pub template: String,
}

/// `[api]`
pub(super) fn read(layers: &mut Layers<'_>) -> ApiConfig {
    let url = layers.text("api.url", ApiConfig::default().url, api_url, |url| {
        url.as_str().into()
    });
    let default = ApiConfig::at(url);
    ApiConfig {
        url: default.url,
        file_hosts: layers.list("api.file_hosts", default.file_hosts, file_host, |host| {
            host.as_str().into()
        }),
        exported_path: layers.text(
            "api.exported_path",
            None,
            |text| exported_path(text).map(Some),
            |path| {
                path.as_ref()
                    .map_or(Value::Null, |path| path.template.as_str().into())
            },
        ),
        subscribe_path: layers.text(
            "api.subscribe_path",
            None,
            |text| api_path(text).map(Some),
            |path| json!(path),
        ),
        import_error_path: layers.text(
            "api.import_error_path",
            None,
            |text| api_path(text).map(Some),
            |path| json!(path),
        ),
        import_error_type: layers.text(
            "api.import_error_type",
            default.import_error_type,
            media_type,
            |kind| kind.as_str().into(),
        ),
        timeout: layers.duration("api.timeout", default.timeout),
        max_page_bytes: layers.number(
            "api.max_page_bytes",
            default.max_page_bytes,
            64 * 1024..=1 << 30,
        ),
    }
}

/// `api.url`
fn api_url(text: &str) -> Result<Url, String> {
    base_url(text)
}

/// One of `api.file_hosts`: a host, which stands for those below it too.
fn file_host(text: &str) -> Result<String, String> {
    let is_address = Host::parse(text).is_ok_and(|host| !matches!(host, Host::Domain(_)));
    let in_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    let is_name = text.chars().all(in_name)
        && !text.starts_with(['.', '-'])
        && !text.ends_with(['.', '-'])
        // The name of a whole country would be everybody's.
        && (text.contains('.') || text == "localhost");
    if is_address || is_name {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "`{}` is not a host; write its name alone in small letters, such as files.example.lt, \
             which stands for a.files.example.lt too",
            shortened(text)
        ))
    }
}

/// `api.exported_path`: a preset's name or a template.
fn exported_path(text: &str) -> Result<ExportedPath, String> {
    let template = match text {
        "path" => "/exported/{company}",
        "query" => "/exported?companycode={company}",
        "prefix" => "/{company}/exported",
        "none" => "/exported",
        other => other,
    };
    if !template.starts_with('/') {
        return Err(format!(
            "`{}` is neither a preset (path, query, prefix, none) nor a path that begins with /; \
             `pull --dry-run` tells whether one is right",
            shortened(text)
        ));
    }
    if template.matches("{company}").count() > 1 {
        return Err("holds {company} more than once; write it once".to_owned());
    }
    api_path(&template.replacen("{company}", "0", 1))?;
    Ok(ExportedPath {
        template: template.to_owned(),
    })
}

/// A path below `api.url`, perhaps with a query.
fn api_path(text: &str) -> Result<String, String> {
    if !text.starts_with('/') || text.starts_with("//") {
        return Err(
            "does not begin with a single /; write the path that follows `api.url`".to_owned(),
        );
    }
    if text.contains(['{', '}']) {
        return Err(
            "holds other braces than those of {company} (and `from` is added by itself)".to_owned(),
        );
    }
    if text.contains(['#', '\\']) || text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err("holds #, \\ or white space; write the path alone".to_owned());
    }
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    // What a URL parser takes for a step up or a step nowhere, also when percent-encoded.
    let is_step = |segment: &str| {
        let segment = segment.to_ascii_lowercase().replace("%2e", ".");
        segment == "." || segment == ".."
    };
    if path.split('/').any(is_step) {
        return Err("holds . or .. as a step of the path; write the path without it".to_owned());
    }
    let mut names = query.split('&').filter_map(|pair| pair.split('=').next());
    if names.any(|name| name.eq_ignore_ascii_case("from")) {
        return Err("sets `from`, which is added by itself; remove it".to_owned());
    }
    Ok(text.to_owned())
}

/// The Content-Type of a request.
fn media_type(text: &str) -> Result<String, String> {
    let visible = text
        .bytes()
        .all(|byte| byte == b' ' || byte.is_ascii_graphic());
    if text.contains('/') && visible && text.len() <= 100 {
        Ok(text.to_owned())
    } else {
        Err("is not a media type; write one such as application/json".to_owned())
    }
}
