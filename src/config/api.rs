//! `[api]`: the vendor's API.

use std::time::Duration;

use serde_json::{Value, json};
use sns_messages::http::{is_loopback, is_named};
use url::Url;

use super::check::{base_url, excerpt, host_name};
use super::egress::EgressConfig;
use super::layers::Layers;
use crate::domain::{Account, Company, Feed};
use crate::egress::Proxy;

/// The vendor's API.
#[derive(Clone, Debug)]
pub struct ApiConfig {
    /// `api.url`, default `https://app.ivesk.lt/api/pub`. Plain `http` on loopback only.
    pub url: Url,
    /// `api.exported_path`: path and query of a company's exported queue. Not published
    /// (vendor-api U1): the queue is not pulled until it is set.
    pub exported_path: Option<ExportedPath>,
    /// `api.subscribe_path` (U2): not published; until it is set, `subscriptions create --print`
    /// shows the request to send by hand.
    pub subscribe_path: Option<String>,
    /// `api.import_error_path` (U2): not published; until it is set, import errors are kept.
    pub import_error_path: Option<String>,
    /// `api.import_error_type` (U7), default `application/json`: the Content-Type of an import
    /// error.
    pub import_error_type: String,
    /// `api.timeout`, default 30 s for one request, body included.
    pub timeout: Duration,
    /// `api.max_page_bytes`, default 32 MiB: a larger page is not read.
    pub max_page_bytes: usize,
    /// `api.file_hosts`: hosts from which documents' files may be fetched and to which files may be
    /// uploaded, with their subdomains. Default the API's own and `amazonaws.com`, where S3 is.
    pub file_hosts: Vec<String>,
    /// From `[egress]`: the proxy of requests to the API and to file hosts.
    pub proxy: Option<Proxy>,
}

/// Why a link of the vendor's is not followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ForbiddenLink {
    /// It is not plain https.
    #[error("is not plain https and was not followed; report it to Įvesk.lt")]
    NotHttps,
    /// The settings do not name its host.
    #[error(
        "points to {0} and was not followed; if Įvesk.lt has moved its files there, add the host to \
         `api.file_hosts`"
    )]
    OtherHost(String),
}

impl ApiConfig {
    /// Returns the defaults, with this address.
    pub fn at(url: Url) -> Self {
        let own_host = url.host_str().map(str::to_owned);
        Self {
            file_hosts: own_host
                .into_iter()
                .chain(["amazonaws.com".to_owned()])
                .collect(),
            url,
            exported_path: None,
            subscribe_path: None,
            import_error_path: None,
            import_error_type: "application/json".to_owned(),
            proxy: None,
            timeout: Duration::from_secs(30),
            max_page_bytes: 32 * 1024 * 1024,
        }
    }
}

impl ApiConfig {
    /// Returns true if each key has one exported feed, since `api.exported_path` names no company.
    pub fn has_one_exported_feed(&self) -> bool {
        let path = self.exported_path.as_ref();
        path.is_some_and(|path| !path.template.contains("{company}"))
    }

    /// Returns the feed of a company's exported documents: its own, or the only one of the key.
    pub fn exported_feed(&self, account: Account, company: Company) -> Feed {
        let company = match self.has_one_exported_feed() {
            true => Company::mixed(),
            false => company,
        };
        Feed::exported(account, company)
    }

    /// Checks a link of the vendor's to a file, or to where one is uploaded: https to a host that
    /// the settings name (invariant 6), or on this machine if the API is.
    ///
    /// # Errors
    ///
    /// The reason for not following it.
    pub fn permit(&self, url: &Url) -> Result<(), ForbiddenLink> {
        let on_this_machine = self.url.scheme() == "http" && is_loopback(&self.url);
        let is_safe = url.scheme() == "https"
            || (url.scheme() == "http" && on_this_machine && is_loopback(url));
        let has_user = !url.username().is_empty() || url.password().is_some();
        match url.host_str() {
            Some(_) if is_safe && !has_user && is_named(url, &self.file_hosts) => Ok(()),
            Some(host) if is_safe && !has_user => Err(ForbiddenLink::OtherHost(host.to_owned())),
            _ => Err(ForbiddenLink::NotHttps),
        }
    }
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self::at(Url::parse("https://app.ivesk.lt/api/pub").expect("a constant URL is valid"))
    }
}

/// The template of the exported queue's URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportedPath {
    /// Path and query after `api.url`, with `{company}` at most once, such as
    /// `/exported/{company}`. `from` is added as a query parameter.
    ///
    /// The setting also accepts the presets `path` (`/exported/{company}`), `query`
    /// (`/exported?companycode={company}`), `prefix` (`/{company}/exported`) and
    /// `none` (`/exported`).
    pub template: String,
}

/// Reads `[api]`.
pub(super) fn read(layers: &mut Layers<'_>, egress: &EgressConfig) -> ApiConfig {
    let url = layers.text("api.url", ApiConfig::default().url, base_url, |url| {
        url.as_str().into()
    });
    let default = ApiConfig::at(url);
    ApiConfig {
        url: default.url,
        proxy: egress.proxy.clone(),
        file_hosts: layers.list("api.file_hosts", default.file_hosts, host_name, |host| {
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

/// Parses `api.exported_path`: a preset's name or a template.
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
             check one with `ivesk-webhook pull --dry-run`",
            excerpt(text)
        ));
    }
    if template.matches("{company}").count() > 1 {
        return Err("contains {company} more than once; write it once".to_owned());
    }
    api_path(&template.replacen("{company}", "0", 1))?;
    Ok(ExportedPath {
        template: template.to_owned(),
    })
}

/// Parses a path below `api.url`, optionally with a query.
fn api_path(text: &str) -> Result<String, String> {
    if !text.starts_with('/') || text.starts_with("//") {
        return Err(
            "does not begin with a single /; write the path that follows `api.url`".to_owned(),
        );
    }
    if text.contains(['{', '}']) {
        return Err(
            "contains braces other than those of {company}; remove them (`from` is added \
             automatically)"
                .to_owned(),
        );
    }
    if text.contains(['#', '\\']) || text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err("contains #, \\ or white space; write the path alone".to_owned());
    }
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    // URL parsers resolve these segments, also when percent-encoded.
    let is_dot = |segment: &str| {
        let segment = segment.to_ascii_lowercase().replace("%2e", ".");
        segment == "." || segment == ".."
    };
    if path.split('/').any(is_dot) {
        return Err("contains the path segment . or ..; write the path without it".to_owned());
    }
    let mut names = query.split('&').filter_map(|pair| pair.split('=').next());
    if names.any(|name| name.eq_ignore_ascii_case("from")) {
        return Err("sets `from`, which is added automatically; remove it".to_owned());
    }
    Ok(text.to_owned())
}

/// Parses the Content-Type of a request.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn permits(api: &str, hosts: &[&str], link: &str) -> bool {
        let mut api = ApiConfig::at(api.parse().expect("an address"));
        api.file_hosts
            .extend(hosts.iter().map(|host| (*host).to_owned()));
        api.permit(&link.parse().expect("an address")).is_ok()
    }

    #[test]
    fn files_come_from_and_go_to_named_hosts_only() {
        const API: &str = "https://app.ivesk.lt/api/pub";
        for (link, hosts, permitted) in [
            ("https://app.ivesk.lt/public/1?Signature=x", &[][..], true),
            ("https://b.s3.eu-west-1.amazonaws.com/1", &[], true),
            ("https://files.ivesk.lt/1", &[], false),
            ("https://files.ivesk.lt/1", &["ivesk.lt"], true),
            ("https://evilamazonaws.com/1", &[], false),
            ("https://amazonaws.com.evil.example/1", &[], false),
            ("https://amazonaws.com@evil.example/1", &[], false),
            ("https://user:word@app.ivesk.lt/1", &[], false),
            ("http://app.ivesk.lt/1", &[], false),
            ("http://127.0.0.1/1", &["127.0.0.1"], false),
            ("https://169.254.169.254/1", &[], false),
            ("https://169.254.169.254/1", &["169.254"], false),
            ("https://10.0.0.1/1", &["0.0.1"], false),
            ("ftp://app.ivesk.lt/1", &[], false),
            ("file:///etc/passwd", &[], false),
        ] {
            assert_eq!(permits(API, hosts, link), permitted, "{link} {hosts:?}");
        }
        let local = "http://127.0.0.1:4566/api/pub";
        assert!(permits(local, &[], "http://127.0.0.1:4566/public/1"));
        assert!(!permits(local, &[], "http://localhost:4566/public/1"));
        assert!(!permits(local, &["example.lt"], "http://example.lt/1"));
    }
}
