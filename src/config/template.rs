//! The settings file that `init` writes.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret, SecretString};
use toml::Value;

use crate::domain::{Account, Company, Event};

/// Returns 32 bytes from the system's random number generator, as 43 characters that are valid in
/// a URL's path.
///
/// # Errors
///
/// If the system's generator fails.
pub fn fresh_token() -> Result<SecretString, getrandom::Error> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes).into())
}

/// The values of a new settings file.
#[derive(Debug)]
pub struct FreshSettings {
    /// `public.url`; a comment if it is not known yet.
    pub public_url: Option<String>,
    /// The account's name.
    pub account: Account,
    /// Its companies.
    pub companies: Vec<Company>,
    /// One token for each event.
    pub tokens: Vec<(Event, SecretString)>,
    /// Other settings that are not at their default: names with values.
    pub others: Vec<(String, Value)>,
}

impl FreshSettings {
    /// Returns the whole file: the required settings, and every other setting as a comment with its
    /// default (`#name = value`) or, if it has none, an example (`#name = value  # example`).
    pub fn to_toml(&self) -> SecretString {
        let url = match &self.public_url {
            Some(url) => format!("url = {}", quoted(url)),
            None => "#url = \"https://hooks.example.lt\"  # example".to_owned(),
        };
        let mut text = HEAD.replace("{url}", &url);
        // Writing to a String can't fail.
        let _ = write!(text, "\n[accounts.{}]\n{ACCOUNT}", self.account);
        let companies: Vec<String> = self.companies.iter().map(|c| quoted(c.as_str())).collect();
        let _ = writeln!(text, "companies = [{}]", companies.join(", "));
        let _ = write!(text, "\n[accounts.{}.tokens]\n{TOKENS}", self.account);
        for (event, token) in &self.tokens {
            let _ = writeln!(text, "{event} = [{}]", quoted(token.expose_secret()));
        }
        with_values(&text, &self.others).into()
    }
}

/// Returns the text with `values` in place of their first comments.
fn with_values(text: &str, values: &[(String, Value)]) -> String {
    let mut missing: Vec<&(String, Value)> = values.iter().collect();
    let mut section = "";
    let mut lines = Vec::new();
    for line in text.lines() {
        section = match line
            .strip_prefix('[')
            .and_then(|line| line.strip_suffix(']'))
        {
            Some(name) => name,
            None => section,
        };
        let leaf = line
            .strip_prefix('#')
            .and_then(|line| line.split_once(" = "));
        let place = leaf.and_then(|(leaf, _)| {
            let name = format!("{section}.{leaf}");
            missing.iter().position(|(other, _)| *other == name)
        });
        match (place, leaf) {
            (Some(place), Some((leaf, _))) => {
                let (_, value) = missing.remove(place);
                lines.push(format!("{leaf} = {value}"));
            }
            _ => lines.push(line.to_owned()),
        }
    }
    debug_assert!(missing.is_empty(), "the file has no line for {missing:?}");
    lines.join("\n") + "\n"
}

/// Formats a TOML string, escaped.
fn quoted(text: &str) -> String {
    Value::String(text.to_owned()).to_string()
}

const HEAD: &str = r##"# Settings of ivesk-webhook. This file contains tokens: only the service may read it.
#
# A commented setting shows its default, or an example if it has none.
# Every setting has an environment variable that takes precedence over this file:
# `public.url` is IVESK_WEBHOOK_PUBLIC_URL. After a change, run `ivesk-webhook config check`.

[public]
# The https address at which SNS reaches this service, through your proxy or tunnel.
{url}
# The address and port to which the proxy forwards.
#listen = "0.0.0.0:8080"
# Time for open requests to finish after SIGTERM.
#drain_timeout = "20s"
# Addresses or networks of proxies whose X-Request-Id, X-Forwarded-For and Forwarded headers are
# trusted. [] trusts none.
#trusted_proxies = ["127.0.0.0/8", "::1"]

[admin]
# The pages, metrics, status and API. `ivesk-webhook open` lets your browser in, and
# `ivesk-webhook tokens create` creates a token for a program.
#listen = "127.0.0.1:8081"
# A token with the right `admin`, for programs that are set up before the service runs: from a
# file, or from IVESK_WEBHOOK_ADMIN_TOKEN.
#token_file = "admin-token.txt"  # example
# The Unix socket through which subcommands reach the server, for its owner and group. By default
# beside the SQLite file.
#socket = "/run/ivesk-webhook/admin.sock"  # example

[pages]
# The time zone in which the pages show times.
#time_zone = "Europe/Vilnius"

[store]
# Relative to this file.
#url = "sqlite://ivesk-webhook.db"
# Or a PostgreSQL database, which several replicas may share (docs/postgres.md). Its password comes
# from a file, or from IVESK_WEBHOOK_STORE_PASSWORD.
#url = "postgres://ivesk@db.example.lt/ivesk"  # example
#password_file = "store-password.txt"  # example
# The folder that `ivesk-webhook store backup` writes to, beside a SQLite file by default.
#backup_dir = "backups"
# Write a backup of a SQLite file there this often, and keep the newest ones (docs/backup.md).
#backup_every = "24h"  # example
#backup_keep = 7
# With less free disk space messages are answered 503, SNS sends them again, and nothing is pulled.
# The alarm `disk` is on below twice this. 256 MiB.
#min_free_bytes = 268435456

[sns]
# "auto" confirms subscriptions of trusted topics; "ask" waits for `subscriptions approve`.
#confirm = "auto"
# Older messages are refused. At least 1h: retries carry the time of the first attempt.
#max_age = "8h"
# For tests only: origins such as "http://127.0.0.1:4566" that replace SNS.
#local_origins = []
# Trusted topics. All parts must match; the topic's name begins with name_prefix. By default these two:
# which AWS account Įvesk.lt uses is not certain. A topic of another account waits for
# `subscriptions approve`.
#[[sns.topics]]
#account = "007272210889"
#region = "eu-west-1"
#name_prefix = "DPWebHook_"
#[[sns.topics]]
#account = "007268210879"
#region = "eu-west-1"
#name_prefix = "DPWebHook_"

[api]
#url = "https://app.ivesk.lt/api/pub"
# The address of a company's exported queue. Įvesk.lt does not publish it, and the queue is not
# pulled until it is set. "path" is /exported/{company}, "query" is
# /exported?companycode={company}, "prefix" is /{company}/exported, "none" is /exported;
# or write such a template. `from` is added automatically.
#exported_path = "path"  # example
# The address where subscriptions are created, not published either. Until it is set,
# `subscriptions create --print` shows the request to send by hand.
#subscribe_path = "/webhooks"  # example
# The address for import errors, which the accountant sees, not published either: until it is set
# they are kept. And their Content-Type.
#import_error_path = "/errors"  # example
#import_error_type = "application/json"
# For one request, answer included.
#timeout = "30s"
# A larger page is not read. 32 MiB.
#max_page_bytes = 33554432
# Hosts from which documents' files may be fetched and to which files may be uploaded, with their
# subdomains.
#file_hosts = ["app.ivesk.lt", "amazonaws.com"]

[egress]
# The proxy for requests to other hosts. Variables such as HTTPS_PROXY are not used.
#proxy = "http://proxy.example.lt:3128"  # example
# Hosts that are reached without it, with their subdomains, such as ["books.example.lt"].
#direct_hosts = []

[pull]
# How far follow-ups and reconciliation read back.
#lookback = "24h"
# How often every feed is read without a notification.
#reconcile_every = "1h"
# Shortest time from the beginning of a feed's pull to that of its next one.
#min_interval = "1s"
# Requests in flight at once, at most 16.
#requests_per_account = 1
# How long the work of a replica that died waits for another one; longer than `api.timeout`.
#lease = "2m"

[upload]
# A folder whose files `serve` uploads; sent files move to its folder `sent/`, refused ones to
# `refused/`.
#watch = "outbox"  # example
# The account that uploads them; required if there are several.
#account = "default"  # example
# How long a file of the folder must not change before it is sent.
#quiet_time = "10s"
# Working time (Monday to Friday, 8:00 to 17:00 in Lithuania, except public holidays) after which a
# sent file without a document is late.
#late_after = "12h"
# The parameter that carries correlation data: sourcedata, userdata or both.
#correlation_key = "sourcedata"
# Parameters of every upload: processlines, splitdocuments, checkduplicates, rejectnoninvoices,
# warehouse, allocation, tags; such as ["checkduplicates=true", "tags=scanned"].
#parameters = []

[import_errors]
# What the accountant at Įvesk.lt reads about a rejected document: in "lt" or "en", or in your own
# words, in which {message} is the destination's message.
#language = "lt"
#template = "Nepriimta: {message}"  # example

# Destinations, where documents are delivered (docs/destinations.md): any number, each with its own
# name. Remove the # before the lines of one.
#
# Posts every document, signed according to the Standard Webhooks specification.
#[destinations.erp]  # example
#kind = "http"  # example
#url = "https://books.example.lt/ivesk"  # example
# A file, relative to this one, with whsec_ followed by the output of `openssl rand -base64 32`; or
# set IVESK_WEBHOOK_DESTINATIONS_ERP_SECRET.
#secret_file = "erp-secret.txt"  # example
# Or "digitized": documents as soon as they are read, before an accountant exports them.
#queue = "exported"  # example
# Only the documents of these accounts and companies; all if a list is empty.
#accounts = []  # example
#companies = []  # example
# "hold": documents from before the destination, or their company, was known wait for
# `ivesk-webhook destinations start`, so that years of booked invoices are not booked again.
# "deliver" delivers all.
#history = "hold"  # example
# Deliveries at once, 1 to 16. With 1 they are made in order. For a folder without files
# (`files = false`) it is 1 to 64, and 64 by default.
#max_concurrency = 1  # example
# How long the destination may take for one document.
#timeout = "30s"  # example
#
# Runs a program with every document on its standard input. Paths are relative to this file.
#[destinations.import]  # example
#kind = "command"  # example
#program = "/usr/local/bin/import-invoice"  # example
#arguments = ["--quiet"]  # example
# Variables of the service that it receives, beside the few of every program.
#environment = ["TMPDIR"]  # example
#
# Writes every document as a JSON file, with its PDF beside it.
#[destinations.archive]  # example
#kind = "folder"  # example
#path = "archive"  # example
# "archiver" files by month, purchases and sales apart, as Įvesk.lt's own archiver does; "archiver-names" with exactly its names.
#layout = "company"  # example
#files = true  # example
# A larger PDF is left out. 64 MiB.
#max_file_bytes = 67108864  # example
# Who may read the files: "0640" lets the service's group, "0644" everybody on this machine.
#file_mode = "0600"  # example
#
# Lists documents for a program that requests them: GET /v1/documents?after=
#[destinations.reports]  # example
#kind = "list"  # example

[retention]
# How long bodies are kept; identities are kept forever.
#notifications = "30d"
# Counted from a document's delivery; documents that no destination accepted are kept forever.
#documents = "400d"
#quarantine = "7d"

[alarms]
# Alarms are in the log and at GET /v1/alarms. They can be sent as well (docs/alarms.md): as a POST
# to an https address, such as a chat's incoming webhook; or to the standard input of a program:
# command = ["bin/notify", "--urgent"]
#url = "https://chat.example.lt/hooks/ivesk"  # example
# How much longer than `pull.reconcile_every` ago the last pull of a feed may have ended.
#behind_after = "2h"
# How long a destination may fail.
#destination_after = "30m"

# Or by e-mail: in place of `url` and `command`. The password comes from a file, or from
# IVESK_WEBHOOK_ALARMS_EMAIL_PASSWORD. "starttls" is port 587, "tls" 465, "none" for a server on
# this machine only.
[alarms.email]
#server = "smtp.example.lt"  # example
#tls = "starttls"
#from = "ivesk-webhook@example.lt"  # example
#to = []  # such as ["ops@example.lt"]
#username = "ivesk-webhook@example.lt"  # example
#password_file = "smtp-password.txt"  # example

[log]
# "json" writes one object a line.
#format = "text"
# error, warn, info, debug or trace, or such a level with exceptions: "info,ivesk_webhook::pull=debug".
#level = "info"
# true logs the address from which a refused message was received.
#client_addresses = false
# The OTLP collector for traces, as protobuf over HTTP: messages, pages, deliveries.
#otlp_url = "http://127.0.0.1:4318"  # example
"##;

const ACCOUNT: &str = r##"# The API key, from app.ivesk.lt/settings/general: alone in a file, relative to this one, or in
# IVESK_WEBHOOK_API_KEY. Without it notifications are kept, and nothing is pulled.
#api_key_file = "api-key"  # example
# true reads the digitized queue without notifications too.
#digitized = true
# Codes of the companies whose exported documents are read from the start, such as "302320404".
"##;

const TOKENS: &str = r##"# Secret ends of the webhooks' paths. All are accepted; the first is used for new subscriptions. To
# change one, write a new one in front, subscribe again, then remove the old one.
"##;
