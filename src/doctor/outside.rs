//! Checks the public address, with requests from outside as SNS sends them.
//!
//! Each request carries a question that only one process can answer
//! ([`crate::receiver::challenge`]), so that the answer proves which process was reached.

use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, LOCATION, SERVER};
use reqwest::tls::TlsInfo;
use reqwest::{Response, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

use super::{Check, CheckResult, stall};
use crate::config::{Config, is_loopback};
use crate::domain::Timestamp;
use crate::egress;
use crate::receiver::challenge::{Challenge, Echo, HEADER};
use crate::visible::foreign;

/// Time limit of one request, the same as that of SNS.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Days before a certificate's expiry from which the check reports it.
const CERTIFICATE_DAYS: i64 = 14;

/// Longest body that is read of a response.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// Length of a message of 256 KiB with each character escaped.
const LARGE_BODY_BYTES: usize = 1_600_000;

/// Name of the check of each webhook.
const REACH: &str = "public_address";

/// Runs all checks from outside. With `slow`, also waits for the deadlines of stalled senders,
/// which takes half a minute.
pub async fn checks(
    config: &Config,
    challenge: &Challenge,
    now: Timestamp,
    slow: bool,
) -> Vec<Check> {
    let client = match egress::client_that_sees_certificates(config.egress.proxy.as_ref(), TIMEOUT)
    {
        Ok(client) => client,
        Err(error) => {
            return vec![
                Check::fail(REACH, error.found())
                    .because("the public address can't be checked")
                    .fix(error.fix()),
            ];
        }
    };
    let prober = Prober { client, challenge };
    let mut checks = Vec::new();
    let mut reached: Option<SecretString> = None;
    for (account, event, target) in targets(config) {
        let webhook = format!("{account}/{event}");
        let check = prober.reach(&webhook, &target, &mut checks, now).await;
        if check.result == CheckResult::Pass && reached.is_none() {
            reached = Some(target);
        }
        checks.push(check);
    }
    let Some(target) = reached else {
        let found = "no webhook was reached, so size and deadlines were not checked";
        checks.push(Check::skipped("large_body", found));
        return checks;
    };
    checks.push(prober.large(&target).await);
    if slow {
        checks.extend(stall::checks(&target, challenge).await);
    } else {
        checks.push(Check::skipped("deadlines", "skipped because of --quick"));
    }
    checks
}

fn targets(config: &Config) -> Vec<(String, String, SecretString)> {
    let mut targets = Vec::new();
    for account in config.accounts.keys() {
        for event in crate::domain::Event::ALL {
            let target = config.webhook_target(account, event);
            targets.extend(target.map(|url| (account.to_string(), event.to_string(), url)));
        }
    }
    targets
}

/// A client for the webhooks.
struct Prober<'a> {
    client: reqwest::Client,
    challenge: &'a Challenge,
}

impl Prober<'_> {
    async fn post(&self, target: &SecretString, body: Vec<u8>) -> Result<Response, reqwest::Error> {
        self.client
            .post(target.expose_secret())
            .header(HEADER, &self.challenge.question)
            // As SNS sends it.
            .header(CONTENT_TYPE, "text/plain; charset=UTF-8")
            .body(body)
            .send()
            .await
    }

    /// Checks that a small request to one webhook reaches this process; adds the check of the
    /// certificate to `checks`, once.
    async fn reach(
        &self,
        webhook: &str,
        target: &SecretString,
        checks: &mut Vec<Check>,
        now: Timestamp,
    ) -> Check {
        let response = match self.post(target, b"{}".to_vec()).await {
            Ok(response) => response,
            Err(error) => return unreachable(error),
        };
        if !checks.iter().any(|check| check.check == "certificate") {
            checks.extend(certificate(&response, target, now));
        }
        match Reply::read(response).await {
            Reply::Echo(echo) if echo.answer != self.challenge.answer => another_process(),
            Reply::Echo(echo) if echo.webhook.as_deref() == Some(webhook) => {
                Check::pass(REACH, format!("the webhook {webhook} leads to this process"))
            }
            Reply::Echo(echo) => Check::fail(
                REACH,
                match echo.unexpected {
                    Some(kind) => format!(
                        "this process is reached, but not at the path of {webhook}: {}",
                        kind.explanation().found
                    ),
                    None => format!("this process is reached, but at the path of another webhook than {webhook}"),
                },
            )
            .because("a path that the proxy changes is answered 404, and SNS drops the message")
            .fix(match echo.unexpected {
                Some(kind) => kind.explanation().fix,
                None => "let the proxy pass on the whole path unchanged, without a prefix of `public.url`",
            }),
            reply => reply.check(),
        }
    }

    /// Checks that a body as large as a message can be arrives unchanged.
    async fn large(&self, target: &SecretString) -> Check {
        const CHECK: &str = "large_body";
        // A message full of quotes, escaped.
        let body = br#"\""#.repeat(LARGE_BODY_BYTES / 2);
        let sent = Echo::of(self.challenge.answer.clone(), Ok(String::new()), &body);
        let why = "a message of 256 KiB can take 1.6 MB, and SNS drops what is answered 413";
        let fix = "let the proxy pass bodies of 2 MiB unchanged (nginx: client_max_body_size 2m; Caddy: max_size 2MiB)";
        let fail = |found: String| Check::fail(CHECK, found).because(why).fix(fix);
        let response = match self.post(target, body).await {
            Ok(response) => response,
            Err(error) => {
                return fail(format!(
                    "a body of 1.6 MB could not be sent: {}",
                    egress::describe(error)
                ));
            }
        };
        let status = response.status();
        match Reply::read(response).await {
            Reply::Echo(echo)
                if echo.body_bytes == sent.body_bytes && echo.body_sha256 == sent.body_sha256 =>
            {
                Check::pass(CHECK, "a body of 1.6 MB arrives unchanged")
            }
            Reply::Echo(_) => fail("a body of 1.6 MB arrives changed".to_owned()),
            _ => fail(format!("a body of 1.6 MB is answered {}", status.as_u16())),
        }
    }
}

/// A response to a request.
enum Reply {
    /// The answer of a process of this service.
    Echo(Echo),
    /// Any other response.
    Other {
        status: StatusCode,
        server: Option<String>,
        html: bool,
        /// Code of a problem of this service.
        code: Option<String>,
        /// Scheme and host of a redirect.
        location: Option<String>,
    },
}

impl Reply {
    async fn read(response: Response) -> Self {
        let status = response.status();
        let text = |name| {
            let value = response.headers().get(name)?.to_str().ok()?;
            Some(
                value
                    .chars()
                    .filter(|c| !c.is_control())
                    .take(60)
                    .collect::<String>(),
            )
        };
        let server = text(SERVER);
        let kind = text(CONTENT_TYPE).unwrap_or_default();
        // Only the host: a login's URL may contain ours with the token in it.
        let location = text(LOCATION).map(|location| {
            let url = response.url().join(&location).ok();
            let host = url.as_ref().and_then(Url::host_str).unwrap_or("elsewhere");
            let scheme = url.as_ref().map_or("", Url::scheme);
            format!("{scheme}://{host}")
        });
        let body = egress::read_body(response, MAX_BODY_BYTES).await;
        let body = body.unwrap_or_default();
        if status == StatusCode::OK
            && let Ok(echo) = serde_json::from_slice(&body)
        {
            return Self::Echo(echo);
        }
        let problem: Option<serde_json::Value> = kind
            .starts_with("application/problem+json")
            .then(|| serde_json::from_slice(&body).ok())
            .flatten();
        let code = problem.and_then(|problem| Some(foreign(problem["code"].as_str()?)));
        Self::Other {
            status,
            server,
            html: kind.contains("html"),
            code,
            location,
        }
    }

    fn check(self) -> Check {
        let Self::Other {
            status,
            server,
            html,
            code,
            location,
        } = self
        else {
            return another_process();
        };
        let by = server
            .map(|server| format!(" by {server}"))
            .unwrap_or_default();
        let number = status.as_u16();
        if status.is_redirection() {
            let to = location.map(|to| format!(" to {to}")).unwrap_or_default();
            return Check::fail(REACH, format!("a redirect ({number}){to} is answered{by}"))
                .because("SNS follows no redirects and counts them as delivered: the message is lost")
                .fix("set `public.url` to the final https address, and remove redirects for /webhooks/ (http to https, www, slashes, logins)");
        }
        if let Some(code) = code {
            return Check::fail(REACH, format!("another ivesk-webhook answers: {number} {code}"))
                .because("notifications would go to that process")
                .fix("point the proxy at this process, or run `doctor` with the settings of the process that it points to; restart `serve` after a change of tokens");
        }
        if matches!(number, 401 | 403 | 407) || (html && status.is_success()) {
            return Check::fail(REACH, format!("a login or a warning page ({number}) is answered{by}"))
                .because("SNS can't log in, and drops messages that are answered below 500")
                .fix("exempt /webhooks/ from the login (Cloudflare Access, ngrok's warning, basic authentication): its path contains a secret of its own");
        }
        match number {
            502..=504 => Check::fail(REACH, format!("the proxy does not reach this process: {number}{by}"))
                .because("SNS retries for about half an hour, then drops the message")
                .fix("point the proxy at `public.listen` on this machine, and run `serve`"),
            404 => Check::fail(REACH, format!("nothing is there: 404{by}"))
                .because("SNS counts a 404 as delivered: the message is lost")
                .fix("let the proxy pass /webhooks/ to this process (docs/reverse-proxy.md)"),
            _ => Check::fail(REACH, format!("something else answers: {number}{by}"))
                .because("messages would not reach this process")
                .fix("let the proxy pass /webhooks/ to this process unchanged (docs/reverse-proxy.md)"),
        }
    }
}

fn another_process() -> Check {
    Check::fail(REACH, "another process answers")
        .because("notifications would go to that process")
        .fix("point the proxy at this process")
}

fn unreachable(error: reqwest::Error) -> Check {
    let error = egress::describe(error);
    let check = Check::unreachable(REACH, format!("`public.url` can't be reached: {error}"))
        .because("SNS would not reach it either");
    if error.contains("certificate") {
        check.fix("use a certificate of a public authority for that name, with its whole chain (fullchain.pem, not cert.pem)")
    } else {
        check.fix("check the DNS name, the firewall and port 443; if the network does not route its own public address from inside, run `doctor` from outside")
    }
}

/// Checks the certificate of an https response.
fn certificate(response: &Response, target: &SecretString, now: Timestamp) -> Option<Check> {
    const CHECK: &str = "certificate";
    let url = Url::parse(target.expose_secret()).ok()?;
    if url.scheme() != "https" {
        return (!is_loopback(&url)).then(|| {
            Check::fail(CHECK, "`public.url` is not https")
                .because("SNS would send the token unencrypted")
        });
    }
    let info = response.extensions().get::<TlsInfo>()?;
    let (_, parsed) = x509_parser::parse_x509_certificate(info.peer_certificate()?).ok()?;
    let left = parsed.validity().not_after.timestamp() - now.as_millis() / 1000;
    let days = left / (24 * 60 * 60);
    let found = format!("trusted by this system, valid for {days} more days");
    Some(if days >= CERTIFICATE_DAYS {
        Check::pass(CHECK, found)
    } else {
        Check::note(CHECK, found)
            .because("SNS does not deliver to a host whose certificate has expired")
            .fix("check that the certificate is renewed")
    })
}
