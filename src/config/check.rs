//! What each value must look like. Pure functions: text in, value or advice out.
//!
//! Advice says what is wrong and what to write. It repeats neither secrets nor
//! addresses, which may hold some.

use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ipnet::IpNet;
use secrecy::SecretString;
use tracing_subscriber::EnvFilter;
use url::{Host, Url};

use super::postgres::PostgresAddress;
use super::{
    ConfirmMode, ExportedPath, ImportErrorLanguage, LogFormat, StoreUrl, TopicRule, VARIABLE_PREFIX,
};

/// The fewest characters of a token: 32 of 64 possible ones are 192 random bits.
const MIN_TOKEN_CHARS: usize = 32;
/// The most characters of a token, so that the path stays a path.
const MAX_TOKEN_CHARS: usize = 200;
/// Longer than anyone waits, and far from where sums of times overflow.
const MAX_DURATION: Duration = Duration::from_secs(36_500 * 24 * 60 * 60);
/// Far more than a key needs; a larger file is the wrong file.
const MAX_SECRET_FILE_BYTES: u64 = 16 * 1024;

/// How long a key is that a destination signs with (Standard Webhooks specification).
const WEBHOOK_KEY_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
/// A new one and the old one are two; each makes the header longer.
const MAX_WEBHOOK_SECRETS: usize = 8;

/// Whether a URL's host is this machine: `localhost`, `127.0.0.0/8` or `[::1]`.
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

/// The name in the first `${NAME}` of a text.
pub(super) fn placeholder(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("${")?;
    let (name, _) = rest.split_once('}')?;
    Some(name)
}

/// An `https` address to which paths are added; `http` on loopback only.
fn base_url(text: &str) -> Result<Url, String> {
    let url = web_url(text, "write an address such as https://hooks.example.lt")?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err("holds a ? or a #; write the address without what follows it".to_owned());
    }
    Ok(url)
}

/// An `https` address without a user; `http` on loopback only.
fn web_url(text: &str, example: &str) -> Result<Url, String> {
    let url =
        Url::parse(text).map_err(|error| format!("is not an address ({error}); {example}"))?;
    if !matches!(url.scheme(), "https" | "http") || url.host().is_none() {
        return Err(format!("is not a web address; {example}"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("holds a user name or a password; remove it, and the @".to_owned());
    }
    if url.scheme() == "http" && !is_loopback(&url) {
        return Err(
            "begins with http://; only a loopback address (127.0.0.1, [::1], localhost) may: \
             write https://"
                .to_owned(),
        );
    }
    Ok(url)
}

/// `public.url`
pub(super) fn public_url(text: &str) -> Result<Url, String> {
    let url = base_url(text)?;
    // SNS delivers to no such host (AWS re:Post, "HTTPS endpoints").
    if url.domain().is_some_and(|name| name.contains('_')) {
        return Err(
            "has an underscore in its host name, and SNS does not deliver to such a host; use \
             another name"
                .to_owned(),
        );
    }
    Ok(url)
}

/// `api.url`
pub(super) fn api_url(text: &str) -> Result<Url, String> {
    base_url(text)
}

/// `destinations.NAME.url`
pub(super) fn destination_url(text: &str) -> Result<Url, String> {
    let url = web_url(
        text,
        "write an address such as https://books.example.lt/ivesk",
    )?;
    if url.fragment().is_some() {
        return Err("holds a #, which no server is sent; remove it and what follows".to_owned());
    }
    Ok(url)
}

/// One of `api.file_hosts`: a host, which stands for those below it too.
pub(super) fn file_host(text: &str) -> Result<String, String> {
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

/// The secrets that a destination signs with, white space between them (Standard Webhooks
/// specification, "Signature scheme"). Never repeated in advice.
pub(super) fn webhook_secrets(text: &str) -> Result<SecretString, String> {
    let is_secret = |word: &str| {
        let key = word.strip_prefix("whsec_").map(|key| STANDARD.decode(key));
        matches!(key, Some(Ok(key)) if WEBHOOK_KEY_BYTES.contains(&key.len()))
    };
    let count = text.split_whitespace().count();
    if !(1..=MAX_WEBHOOK_SECRETS).contains(&count) || !text.split_whitespace().all(is_secret) {
        return Err(format!(
            "a secret is not whsec_ with the base64 of {} to {} bytes behind it, or there are more \
             than {MAX_WEBHOOK_SECRETS}; write whsec_ and the output of `openssl rand -base64 32` \
             behind it, each secret on a line of its own",
            WEBHOOK_KEY_BYTES.start(),
            WEBHOOK_KEY_BYTES.end()
        ));
    }
    Ok(text.into())
}

/// The name of a variable that a program is to be given.
pub(super) fn passed_variable(text: &str) -> Result<String, String> {
    let in_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if text.is_empty()
        || !text.chars().all(in_name)
        || text.starts_with(|c: char| c.is_ascii_digit())
    {
        return Err(format!(
            "`{}` is not the name of a variable (A-Z, a-z, 0-9 and _); write the name alone",
            shortened(text)
        ));
    }
    if text.starts_with(VARIABLE_PREFIX) {
        return Err(format!(
            "names {text}, and {VARIABLE_PREFIX}… variables hold this service's own secrets; give \
             the program a variable of its own"
        ));
    }
    Ok(text.to_owned())
}

/// An address and port to listen on.
pub(super) fn listen(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        format!(
            "`{}` is not an IP address and port; write one such as 127.0.0.1:8080 or [::]:8080",
            shortened(text)
        )
    })
}

/// An address, or a network of them.
pub(super) fn network(text: &str) -> Result<IpNet, String> {
    let alone = text.parse::<IpAddr>().map(IpNet::from);
    let network = alone.or_else(|_| text.parse::<IpNet>()).map_err(|_| {
        format!(
            "`{}` is neither an IP address nor a network; write one such as 10.0.0.5 or 10.0.0.0/24",
            shortened(text)
        )
    })?;
    if network.prefix_len() == 0 {
        return Err(format!(
            "`{network}` is everybody, so anybody could write what is believed; name your proxies"
        ));
    }
    if network.trunc() != network {
        return Err(format!(
            "`{network}` names an address within a network; write `{}` for that one, or `{}` for \
             the whole network",
            network.addr(),
            network.trunc()
        ));
    }
    Ok(network)
}

/// A network as [`network`] reads it: one address without its length.
pub(super) fn show_network(network: IpNet) -> String {
    if network.prefix_len() == network.max_prefix_len() {
        network.addr().to_string()
    } else {
        network.to_string()
    }
}

/// A time span with its unit.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|_| {
        format!(
            "`{}` is not a time span; write a number with its unit, such as \"10s\", \"5m\", \
             \"24h\" or \"30d\"",
            shortened(text)
        )
    })?;
    if duration.is_zero() {
        return Err("is zero; write a time span that is longer".to_owned());
    }
    if duration > MAX_DURATION {
        return Err("is more than a hundred years; write a shorter time span".to_owned());
    }
    Ok(duration)
}

/// A time span in the largest unit that divides it: `24h`, not `1day`.
pub(super) fn show_duration(duration: Duration) -> String {
    const UNITS: [(u128, &str); 4] = [
        (86_400_000, "d"),
        (3_600_000, "h"),
        (60_000, "m"),
        (1_000, "s"),
    ];
    let millis = duration.as_millis();
    let whole = |(length, _): &&(u128, &str)| millis >= *length && millis.is_multiple_of(*length);
    match UNITS.iter().find(whole) {
        // One day of retries or of overlap is thought of in hours.
        Some((length, "d")) if millis == *length => "24h".to_owned(),
        Some((length, unit)) => format!("{}{unit}", millis / length),
        None => format!("{millis}ms"),
    }
}

/// `store.url`: a file, or a database that replicas share.
pub(super) fn store_url(text: &str) -> Result<StoreUrl, String> {
    let Some((scheme, path)) = text.split_once("://") else {
        return Err(
            "is not a database address; write sqlite:// and a path, such as \
                    sqlite://ivesk-webhook.db"
                .to_owned(),
        );
    };
    match scheme {
        "sqlite" => {}
        "postgres" | "postgresql" => return PostgresAddress::parse(text).map(StoreUrl::Postgres),
        _ => {
            return Err(
                "names a database that is not known; write sqlite:// and a path, or \
                        postgres://USER@HOST/DATABASE"
                    .to_owned(),
            );
        }
    }
    if path.is_empty() || path.ends_with('/') {
        return Err("names no file; write a path, such as sqlite://ivesk-webhook.db".to_owned());
    }
    if path == ":memory:" {
        return Err(
            "would keep nothing: acknowledged notifications must be on a disk; write a path"
                .to_owned(),
        );
    }
    if path.contains(['?', '#']) {
        return Err("holds a ? or a #; write the path alone, it takes no options".to_owned());
    }
    Ok(StoreUrl::Sqlite(PathBuf::from(path)))
}

/// One topic rule from its three parts.
pub(super) fn topic(account: &str, region: &str, name_prefix: &str) -> Result<TopicRule, String> {
    if account.len() != 12 || !account.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!(
            "the topic's account `{}` is not 12 digits; copy it from the topic's ARN",
            shortened(account)
        ));
    }
    let in_region = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if !region.contains('-') || !region.chars().all(in_region) {
        return Err(format!(
            "the topic's region `{}` is not an AWS region; write one such as eu-west-1",
            shortened(region)
        ));
    }
    let in_name = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_' || c == '.';
    if name_prefix.len() > 256 || !name_prefix.chars().all(in_name) {
        return Err(
            "the beginning of the topic's name holds other characters than A-Z, a-z, 0-9, - _ and \
             . (write it without *)"
                .to_owned(),
        );
    }
    Ok(TopicRule {
        account: account.to_owned(),
        region: region.to_owned(),
        name_prefix: name_prefix.to_owned(),
    })
}

/// One topic rule as a variable holds it, like the end of an ARN: `REGION:ACCOUNT:PREFIX`.
pub(super) fn topic_text(text: &str) -> Result<TopicRule, String> {
    let mut parts = text.splitn(3, ':');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(region), Some(account), Some(prefix)) => topic(account, region, prefix),
        _ => Err(
            "write each topic as REGION:ACCOUNT:BEGINNING-OF-NAME, such as \
                  eu-west-1:007272210889:DPWebHook_"
                .to_owned(),
        ),
    }
}

/// A region and the name that its certificates carry.
pub(super) fn certificate_name(region: &str, name: &str) -> Result<(String, String), String> {
    let in_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    let in_region = |c: char| in_name(c) && c != '.';
    if region.is_empty() || !region.chars().all(in_region) {
        return Err(format!(
            "`{}` is not an AWS region; write one such as eu-west-1",
            shortened(region)
        ));
    }
    if !name.contains('.') || !name.chars().all(in_name) || name.starts_with(['.', '-']) {
        return Err(format!(
            "the name for {region} is not a host name in small letters, such as sns.amazonaws.com"
        ));
    }
    Ok((region.to_owned(), name.to_owned()))
}

/// `sns.confirm`
pub(super) fn confirm(text: &str) -> Result<ConfirmMode, String> {
    match text {
        "auto" => Ok(ConfirmMode::Auto),
        "ask" => Ok(ConfirmMode::Ask),
        _ => Err(format!(
            "`{}` is neither \"auto\" nor \"ask\"; write one of them",
            shortened(text)
        )),
    }
}

/// One exact origin: scheme, host and port, nothing after it.
pub(super) fn origin(text: &str) -> Result<String, String> {
    let example = "write scheme, host and port alone, such as http://127.0.0.1:4566";
    let url = Url::parse(text).map_err(|error| format!("holds no address ({error}); {example}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!(
            "holds an address that is not http or https; {example}"
        ));
    }
    let exact = url.origin().ascii_serialization();
    if exact == text {
        Ok(exact)
    } else {
        Err(format!(
            "holds more than an origin, or writes one another way; write `{exact}`"
        ))
    }
}

/// `api.exported_path`: a preset's name or a template.
pub(super) fn exported_path(text: &str) -> Result<ExportedPath, String> {
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
pub(super) fn api_path(text: &str) -> Result<String, String> {
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

/// A secret segment of the webhook's path. Never repeated in advice.
pub(super) fn token(text: &str) -> Result<SecretString, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !(MIN_TOKEN_CHARS..=MAX_TOKEN_CHARS).contains(&text.len()) || !text.chars().all(allowed) {
        return Err(format!(
            "a token is not {MIN_TOKEN_CHARS} to {MAX_TOKEN_CHARS} characters of A-Z, a-z, 0-9, - \
             and _; make one with `openssl rand -hex 32`"
        ));
    }
    Ok(text.into())
}

/// The admin listener's token. Never repeated in advice.
pub(super) fn admin_token(text: &str) -> Result<SecretString, String> {
    if text.len() < MIN_TOKEN_CHARS || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!(
            "the token is not {MIN_TOKEN_CHARS} or more characters without spaces; make one with \
             `openssl rand -hex 32`"
        ));
    }
    Ok(text.into())
}

/// An API key: anything that stands in a header. Never repeated in advice.
pub(super) fn api_key(text: &str) -> Result<SecretString, String> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(
            "the API key holds white space or letters that no header can hold; copy it again from \
             app.ivesk.lt/settings/general, alone on one line"
                .to_owned(),
        );
    }
    Ok(text.into())
}

/// What a secret's file holds, without white space around it.
pub(super) fn secret_file(path: &Path) -> Result<String, String> {
    let shown = path.display();
    let file = File::open(path).map_err(|error| {
        format!(
            "{shown} can't be opened: {error}; write the secret into that file, let this user read \
             it, or name another file"
        )
    })?;
    let mut text = String::new();
    file.take(MAX_SECRET_FILE_BYTES + 1)
        .read_to_string(&mut text)
        .map_err(|error| format!("{shown} can't be read as text: {error}"))?;
    if text.len() as u64 > MAX_SECRET_FILE_BYTES {
        return Err(format!(
            "{shown} is too large for a secret; name another file"
        ));
    }
    let secret = text.trim_start_matches('\u{feff}').trim();
    if secret.is_empty() {
        return Err(format!("{shown} is empty; write the secret into it"));
    }
    if let Some(unfilled) = placeholder(secret) {
        return Err(format!(
            "{shown} still holds `${{{unfilled}}}`; write the secret itself into it"
        ));
    }
    Ok(secret.to_owned())
}

/// The Content-Type of a request.
pub(super) fn media_type(text: &str) -> Result<String, String> {
    let visible = text
        .bytes()
        .all(|byte| byte == b' ' || byte.is_ascii_graphic());
    if text.contains('/') && visible && text.len() <= 100 {
        Ok(text.to_owned())
    } else {
        Err("is not a media type; write one such as application/json".to_owned())
    }
}

/// `import_errors.language`
pub(super) fn report_language(text: &str) -> Result<ImportErrorLanguage, String> {
    match text {
        "lt" => Ok(ImportErrorLanguage::Lithuanian),
        "en" => Ok(ImportErrorLanguage::English),
        _ => Err(format!(
            "`{}` is neither \"lt\" nor \"en\"; write one of them",
            shortened(text)
        )),
    }
}

/// `import_errors.template`
pub(super) fn report_template(text: &str) -> Result<String, String> {
    if text.matches("{message}").count() != 1 {
        return Err(
            "does not hold {message} once, which stands for what the destination said; write it"
                .to_owned(),
        );
    }
    if text.len() > 500 || text.chars().any(char::is_control) {
        return Err("is longer than 500 bytes or more than one line; shorten it".to_owned());
    }
    Ok(text.to_owned())
}

/// `alarms.url`
pub(super) fn alarm_url(text: &str) -> Result<Url, String> {
    // What is wrong is told without the address, which may be a secret.
    let url = Url::parse(text.trim()).map_err(|_| {
        "is not a URL; write one such as https://chat.example.lt/hooks/…".to_owned()
    })?;
    match url.scheme() {
        "https" if url.host().is_some() => Ok(url),
        "http" if is_loopback(&url) => Ok(url),
        _ => Err(
            "does not begin with https://; only a loopback address may begin with http://"
                .to_owned(),
        ),
    }
}

/// `log.otlp_url`. A collector stands beside the service, so it need not have TLS.
pub(super) fn otlp_url(text: &str) -> Result<Url, String> {
    const HOW: &str = "write a collector's address such as http://127.0.0.1:4318";
    let mut url = Url::parse(text.trim()).map_err(|_| format!("is not a URL; {HOW}"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err(format!("does not begin with http:// or https://; {HOW}"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(
            "holds a user or a password; remove it and set OTEL_EXPORTER_OTLP_HEADERS".to_owned(),
        );
    }
    if url.path() == "/" {
        url.set_path("/v1/traces");
    }
    Ok(url)
}

/// A program and its arguments.
pub(super) fn command(words: &[String]) -> Result<(&str, &[String]), String> {
    match words {
        [program, arguments @ ..] if program.contains('/') => Ok((program, arguments)),
        [] => Err("is empty; write a program and its arguments, or remove it".to_owned()),
        [program, ..] => Err(format!(
            "names the program `{}` without its folder, and no shell looks for it; write its \
             whole path, or one relative to the settings file with a /",
            shortened(program)
        )),
    }
}

/// `log.format`
pub(super) fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err(format!(
            "`{}` is neither \"text\" nor \"json\"; write one of them",
            shortened(text)
        )),
    }
}

/// `log.level`
pub(super) fn log_level(text: &str) -> Result<String, String> {
    match EnvFilter::try_new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!(
            "is not a log filter ({error}); write error, warn, info, debug or trace, or a list \
             such as info,ivesk_webhook::pull=debug"
        )),
    }
}

/// Advice for a setting that is kept elsewhere on purpose.
pub(super) fn kept_elsewhere(name: &str) -> Option<String> {
    if name == "admin.token" {
        return Some(
            "a secret does not stand in this file; remove it, and set `admin.token_file` or \
             IVESK_WEBHOOK_ADMIN_TOKEN"
                .to_owned(),
        );
    }
    if name.starts_with("destinations.") && name.ends_with(".secret") {
        return Some(
            "a secret does not stand in this file; remove it, and set `secret_file` or \
             IVESK_WEBHOOK_DESTINATIONS_<NAME>_SECRET"
                .to_owned(),
        );
    }
    (name.starts_with("accounts.") && name.ends_with(".api_key")).then(|| {
        "a key does not stand in this file; remove it, and set `api_key_file` or \
         IVESK_WEBHOOK_API_KEY"
            .to_owned()
    })
}

/// The name most like `name`, where one is like it.
pub(super) fn nearest<'a>(
    name: &str,
    names: impl Iterator<Item = &'a String>,
) -> Option<&'a String> {
    let leaf = |name: &str| name.rsplit('.').next().map(str::to_owned);
    let dedup_key = |other: &str| {
        // The right name in the wrong section is a likely slip as well.
        let same_leaf = name.contains('.') && leaf(name) == leaf(other);
        let dedup_key = strsim::normalized_damerau_levenshtein(name, other);
        if same_leaf {
            dedup_key.max(0.8)
        } else {
            dedup_key
        }
    };
    names
        .map(|other| (dedup_key(other), other))
        .filter(|(dedup_key, _)| *dedup_key >= 0.7)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, other)| other)
}

/// Whether two addresses can't both be listened on.
pub(super) fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    let everywhere = |ip: IpAddr| ip.is_unspecified();
    a.port() == b.port()
        && a.port() != 0
        && (a.ip() == b.ip() || everywhere(a.ip()) || everywhere(b.ip()))
}

/// What may be repeated of a value that is no secret.
fn shortened(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(60).collect()
}
