//! The settings file that `init` writes.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret, SecretString};

use crate::domain::{Account, Company, Event};

/// 32 bytes from the system's generator of random numbers, as 43 characters that may
/// stand in a path.
///
/// # Errors
///
/// Where the system gives no random numbers.
pub fn fresh_token() -> Result<SecretString, getrandom::Error> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes).into())
}

/// What a new settings file starts with.
#[derive(Debug)]
pub struct FreshSettings {
    /// `public.url`
    pub public_url: String,
    /// The account's name.
    pub account: Account,
    /// Its companies.
    pub companies: Vec<Company>,
    /// One token for each event.
    pub tokens: Vec<(Event, SecretString)>,
}

impl FreshSettings {
    /// The whole file: what must be set, and every other setting as a comment with its
    /// default (`#name = value`) or, where there is none, an example (`#name = value  # example`).
    pub fn to_toml(&self) -> SecretString {
        let mut text = HEAD.replace("{url}", &quoted(&self.public_url));
        // Writing to a String can't fail.
        let _ = write!(text, "\n[accounts.{}]\n{ACCOUNT}", self.account);
        let companies: Vec<String> = self.companies.iter().map(|c| quoted(c.as_str())).collect();
        let _ = writeln!(text, "companies = [{}]", companies.join(", "));
        let _ = write!(text, "\n[accounts.{}.tokens]\n{TOKENS}", self.account);
        for (event, token) in &self.tokens {
            let _ = writeln!(text, "{event} = [{}]", quoted(token.expose_secret()));
        }
        text.into()
    }
}

/// A TOML string, escaped.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

const HEAD: &str = r##"# Settings of ivesk-webhook. It holds tokens: keep it readable for the service alone.
#
# A line that begins with # and a name shows a default, or an example where there is none.
# Every setting has an environment variable that decides over this file:
# `public.url` is IVESK_WEBHOOK_PUBLIC_URL. After a change: `ivesk-webhook config check`.

[public]
# The https address under which SNS reaches this service, through your proxy or tunnel.
url = {url}
# Where the proxy finds it.
#listen = "0.0.0.0:8080"
# The next connection waits.
#max_connections = 2048
#header_timeout = "10s"
# SNS gives up after 15 s.
#body_timeout = "10s"
# How long open requests may finish after SIGTERM.
#drain_timeout = "20s"
# Proxies, addresses or networks, that are believed what X-Request-Id, X-Forwarded-For and
# Forwarded say. [] believes none.
#trusted_proxies = ["127.0.0.0/8", "::1"]

[admin]
# Status, metrics and the API for people and programs of the house. An address other than
# loopback needs a token: from this file, or from IVESK_WEBHOOK_ADMIN_TOKEN.
#listen = "127.0.0.1:8081"
#token_file = "private-token.txt"  # example
# What one token, or this machine without one, may ask for; ten seconds' worth may come at once.
#requests_per_second = 100

[store]
# Relative to this file.
#url = "sqlite://ivesk-webhook.db"
# Or a PostgreSQL database, which several replicas may share (docs/postgres.md). Its password
# from this file, or from IVESK_WEBHOOK_STORE_PASSWORD.
#url = "postgres://ivesk@db.example.lt/ivesk"  # example
#password_file = "store-password.txt"  # example
# With less room on the disk, messages are answered 503 and SNS sends them again. 256 MiB.
#min_free_bytes = 268435456
# Messages that may wait for the next commit.
#queue = 4096

[sns]
# "ask" lets a subscription wait for `ivesk-webhook subscriptions approve`.
#confirm = "auto"
# Older messages are refused. Not less than 1h: retries carry the time of the first attempt.
#max_age = "8h"
# For tests alone: origins such as "http://127.0.0.1:4566" that may stand in for SNS.
#local_origins = []
# Over the built-in names of signing certificates, by region.
#certificate_names = { eu-west-1 = "sns.amazonaws.com" }  # example
# Whose topics may speak to us. All parts must match; the name only has to begin so.
#[[sns.topics]]
#account = "007272210889"
#region = "eu-west-1"
#name_prefix = "DPWebHook_"

[api]
#url = "https://app.ivesk.lt/api/pub"
# Where the company stands in the exported queue's address. Not published: pulling that queue
# waits until this is set. "path" is /exported/{company}, "query" is
# /exported?companycode={company}, "prefix" is /{company}/exported, "none" is /exported;
# or write such a template yourself. `from` is added by itself.
#exported_path = "path"  # example
# Where subscriptions are made. Not published either; `subscriptions create --print` helps meanwhile.
#subscribe_path = "/webhooks"  # example
# Where import errors are reported, for the accountant to see. Not published either: until it is
# set they are kept and wait. And the Content-Type that they go with.
#import_error_path = "/errors"  # example
#import_error_type = "application/json"
# For one request, answer included.
#timeout = "30s"
# 32 MiB.
#max_page_bytes = 33554432
# From where documents' files may be fetched: these hosts, and those below them.
#file_hosts = ["app.ivesk.lt", "amazonaws.com"]

[pull]
# How far follow-ups and reconciliation read back.
#lookback = "24h"
# When a feed is looked at again after a hint was served.
#follow_ups = ["30s", "5m"]
#reconcile_every = "1h"
# Requests in flight at once, at most 16.
#requests_per_account = 1
# Longer than `api.timeout`.
#lease = "2m"

[upload]
# A folder whose files `serve` uploads; sent ones move to `sent/` in it, refused ones to `refused/`.
#watch = "outbox"  # example
# Whose key they go with; needed where there are several accounts.
#account = "default"  # example
# Under which name correlation data goes: sourcedata, userdata or both.
#correlation_key = "sourcedata"
# What goes with every upload: processlines, splitdocuments, checkduplicates, rejectnoninvoices,
# warehouse, allocation, tags; such as ["checkduplicates=true", "tags=scanned"].
#parameters = []

[import_errors]
# What the accountant at Įvesk.lt reads of a document that was rejected: in "lt" or "en", or in
# words of your own, where {message} stands for what your system said.
#language = "lt"
#template = "Nepriimta: {message}"  # example

# Where documents are delivered (docs/destinations.md): as many destinations as you like, each with a name of
# its own. Remove the # before the lines of one.
#
# Every document is posted, signed after the Standard Webhooks specification.
#[destinations.erp]  # example
#kind = "http"  # example
#url = "https://books.example.lt/ivesk"  # example
# A file with whsec_ and the output of `openssl rand -base64 32` behind it, relative to this
# one; or that itself in IVESK_WEBHOOK_DESTINATIONS_ERP_SECRET.
#secret_file = "erp-secret.txt"  # example
# Or "digitized": documents as soon as they are read, before an accountant exported them.
#queue = "exported"  # example
# Only these accounts' and these companies' documents; all where a list is empty.
#accounts = []  # example
#companies = []  # example
# "hold": what a company's first pull brings waits for `ivesk-webhook destinations start`, or years
# of booked invoices would be booked again. "deliver": all of it is delivered.
#history = "hold"  # example
# Documents given side by side, at most 16. With 1 they come in order.
#max_concurrency = 1  # example
# How long the destination may take for one document.
#timeout = "30s"  # example
#
# Every document is written to a program's standard input. Paths are relative to this file.
#[destinations.import]  # example
#kind = "command"  # example
#program = "/usr/local/bin/import-invoice"  # example
#arguments = ["--quiet"]  # example
# Variables that it is given beside the few that every program is.
#environment = ["TMPDIR"]  # example
#
# Every document becomes a JSON file, with its PDF beside it.
#[destinations.archive]  # example
#kind = "folder"  # example
#path = "archive"  # example
# "archiver" files by month, purchases and sales apart, as Įvesk.lt's own archiver does.
#layout = "company"  # example
#files = true  # example
# A larger PDF is left out. 64 MiB.
#max_file_bytes = 67108864  # example
#
# A program asks for documents itself: GET /v1/documents?after=
#[destinations.reports]  # example
#kind = "api"  # example

[retention]
# How long bodies are kept; that something was seen is kept for ever.
#notifications = "30d"
# Documents count from when a destination booked them; those that none has are kept for ever.
#documents = "400d"
#quarantine = "7d"
# 64 MiB.
#quarantine_bytes = 67108864

[alarms]
# Alarms are in the log and at GET /v1/alarms. They can be told elsewhere too (docs/alarms.md):
# as a POST to an https address, such as a chat's incoming webhook; or, in its place, by a program that
# is given JSON: command = ["bin/tell-somebody", "--urgent"]
#url = "https://chat.example.lt/hooks/ivesk"  # example
# Documents are found without a notification for so long.
#silence_after = "15m"
# A feed has not been up to date for so much longer than `pull.reconcile_every`.
#behind_after = "2h"
# A destination has failed for so long.
#destination_after = "30m"
# Messages of one event refused within ten minutes.
#refusals = 20
# A signing certificate ends sooner.
#certificate_left = "7d"
# The store's disk has less room. 1 GiB.
#free_bytes = 1073741824

[log]
# "json" writes one object a line.
#format = "text"
# error, warn, info, debug or trace, or a list such as "info,ivesk_webhook::pull=debug".
#level = "info"
# Whether the line of a refused message names the address that it came from.
#client_addresses = false
# Traces go to this OTLP collector, as protobuf over HTTP: messages, pages, deliveries.
#otlp_url = "http://127.0.0.1:4318"  # example
"##;

const ACCOUNT: &str = r##"# The API key, from app.ivesk.lt/settings/general: alone in a file whose path is relative to
# this one, or in IVESK_WEBHOOK_API_KEY. Without it hints are kept and nothing is pulled.
#api_key_file = "api-key.txt"  # example
# Whether the digitized queue is read without hints too.
#digitized = true
# Codes of the companies whose exported documents are read from the start, such as "302320404".
"##;

const TOKENS: &str = r##"# The secret ends of the webhooks' paths. Several may live at once; the first is used for new
# subscriptions. To change one, put a new one in front, subscribe again, then remove the old one.
"##;
