//! Back in through the public address, as SNS comes.
//!
//! Each request carries a question that only the process asked about can answer
//! ([`crate::receiver::challenge`]), so that an answer proves which process it reached.

use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, LOCATION, SERVER};
use reqwest::tls::TlsInfo;
use reqwest::{Response, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

use super::{Finding, stall};
use crate::config::{Config, is_loopback};
use crate::domain::Timestamp;
use crate::egress;
use crate::receiver::challenge::{Challenge, Echo, HEADER};

/// SNS gives up after 15 s.
const PATIENCE: Duration = Duration::from_secs(15);

/// A certificate that ends sooner is worth a word.
const CERTIFICATE_DAYS: i64 = 14;

/// The most that is read of an answer.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// A legal message of 256 KiB takes so much once each character is escaped.
const LARGE_BODY_BYTES: usize = 1_600_000;

const REACH: &str = "public_address";

/// Everything that can be found out from outside. `slow` also waits for deadlines,
/// which takes half a minute.
pub async fn checks(
    config: &Config,
    challenge: &Challenge,
    now: Timestamp,
    slow: bool,
) -> Vec<Finding> {
    let client = match egress::client_that_sees_certificates(PATIENCE) {
        Ok(client) => client,
        Err(error) => {
            let found = format!("no HTTPS client: {}", egress::describe(error));
            return vec![
                Finding::wrong(REACH, found)
                    .because("the public address can't be tried")
                    .fix("install the system's CA certificates (Debian: `ca-certificates`)"),
            ];
        }
    };
    let visitor = Visitor { client, challenge };
    let mut findings = Vec::new();
    let mut reached: Option<SecretString> = None;
    for (account, event, target) in targets(config) {
        let webhook = format!("{account}/{event}");
        let (well, finding) = visitor.small(&webhook, &target, &mut findings, now).await;
        findings.push(finding);
        if well && reached.is_none() {
            reached = Some(target);
        }
    }
    let Some(target) = reached else {
        let found = "no webhook was reached, so size and deadlines were not tried";
        findings.push(Finding::skipped("large_body", found));
        return findings;
    };
    findings.push(visitor.large(&target).await);
    if slow {
        findings.extend(stall::checks(&target).await);
    } else {
        findings.push(Finding::skipped("deadlines", "left out, as --quick says"));
    }
    findings
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

struct Visitor<'a> {
    client: reqwest::Client,
    challenge: &'a Challenge,
}

impl Visitor<'_> {
    async fn post(&self, target: &SecretString, body: Vec<u8>) -> Result<Response, reqwest::Error> {
        self.client
            .post(target.expose_secret())
            .header(HEADER, &self.challenge.question)
            // What SNS sends.
            .header(CONTENT_TYPE, "text/plain; charset=UTF-8")
            .body(body)
            .send()
            .await
    }

    /// A small request to one webhook: whether it reached this very process.
    async fn small(
        &self,
        webhook: &str,
        target: &SecretString,
        findings: &mut Vec<Finding>,
        now: Timestamp,
    ) -> (bool, Finding) {
        let answer = match self.post(target, b"{}".to_vec()).await {
            Ok(answer) => answer,
            Err(error) => return (false, unreachable(error)),
        };
        if !findings
            .iter()
            .any(|finding| finding.check == "certificate")
        {
            findings.extend(certificate(&answer, target, now));
        }
        match Reply::read(answer).await {
            Reply::Echo(echo) if echo.answer != self.challenge.answer => (false, another()),
            Reply::Echo(echo) if echo.webhook.as_deref() == Some(webhook) => {
                let found = format!("the webhook {webhook} leads to this very process");
                (true, Finding::ok(REACH, found))
            }
            Reply::Echo(_) => (
                false,
                Finding::wrong(
                    REACH,
                    format!("this process is reached, but not under the path of {webhook}"),
                )
                .because("a path that is changed on the way is answered 404, and SNS drops the message")
                .fix("let the proxy pass the path on unchanged, from /webhooks/ on: no slash added or taken away, no letters changed, a prefix of `public.url` taken off"),
            ),
            reply => (false, reply.finding()),
        }
    }

    /// A body as large as a message can be.
    async fn large(&self, target: &SecretString) -> Finding {
        const CHECK: &str = "large_body";
        // What a message full of quotes looks like once it is escaped.
        let body = br#"\""#.repeat(LARGE_BODY_BYTES / 2);
        let sent = Echo::of(self.challenge.answer.clone(), None, &body);
        let why = "a message of 256 KiB can take 1.6 MB, and SNS drops what is answered 413";
        let fix = "let the proxy pass bodies of 2 MiB unchanged (nginx: client_max_body_size 2m; Caddy: max_size 2MiB)";
        let wrong = |found: String| Finding::wrong(CHECK, found).because(why).fix(fix);
        let answer = match self.post(target, body).await {
            Ok(answer) => answer,
            Err(error) => {
                return wrong(format!(
                    "1.6 MB did not get through: {}",
                    egress::describe(error)
                ));
            }
        };
        let status = answer.status();
        match Reply::read(answer).await {
            Reply::Echo(echo)
                if echo.body_bytes == sent.body_bytes && echo.body_sha256 == sent.body_sha256 =>
            {
                Finding::ok(CHECK, "1.6 MB arrive unchanged")
            }
            Reply::Echo(_) => wrong("a body of 1.6 MB arrives changed".to_owned()),
            _ => wrong(format!("a body of 1.6 MB is answered {}", status.as_u16())),
        }
    }
}

/// What came back.
enum Reply {
    Echo(Echo),
    /// A status, the first word of the server, whether it is a page of HTML, the code
    /// of a problem of ours, and where a redirect leads.
    Other {
        status: StatusCode,
        server: Option<String>,
        html: bool,
        code: Option<String>,
        location: Option<String>,
    },
}

impl Reply {
    async fn read(answer: Response) -> Self {
        let status = answer.status();
        let text = |name| {
            let value = answer.headers().get(name)?.to_str().ok()?;
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
        // Its host alone: a login's address may hold ours with the token in it.
        let location = text(LOCATION).map(|location| {
            let whole = answer.url().join(&location).ok();
            let host = whole
                .as_ref()
                .and_then(Url::host_str)
                .unwrap_or("elsewhere");
            let scheme = whole.as_ref().map_or("", Url::scheme);
            format!("{scheme}://{host}")
        });
        let body = egress::read_body(answer, MAX_ANSWER_BYTES).await;
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
        let code = problem.and_then(|problem| Some(problem["code"].as_str()?.to_owned()));
        Self::Other {
            status,
            server,
            html: kind.contains("html"),
            code,
            location,
        }
    }

    fn finding(self) -> Finding {
        let Self::Other {
            status,
            server,
            html,
            code,
            location,
        } = self
        else {
            return another();
        };
        let by = server
            .map(|server| format!(" by {server}"))
            .unwrap_or_default();
        let number = status.as_u16();
        if status.is_redirection() {
            let to = location.map(|to| format!(" to {to}")).unwrap_or_default();
            return Finding::wrong(REACH, format!("a redirect ({number}){to} is answered{by}"))
                .because("SNS follows no redirects and counts them as delivered: the message is gone")
                .fix("set `public.url` to the final https address, and take away redirects for /webhooks/ (http to https, www, slashes, logins)");
        }
        if let Some(code) = code {
            return Finding::wrong(REACH, format!("another ivesk-webhook answers: {number} {code}"))
                .because("notifications would go to that one")
                .fix("point the proxy at this process, or run `doctor` with the settings of the one that it points at; after a change of tokens restart `serve`");
        }
        if matches!(number, 401 | 403 | 407) || (html && status.is_success()) {
            return Finding::wrong(REACH, format!("a login or a warning page ({number}) is answered{by}"))
                .because("SNS can't log in, and what is answered below 500 is gone")
                .fix("exempt /webhooks/ from the login (Cloudflare Access, ngrok's warning, basic authentication): its path holds a secret of its own");
        }
        match number {
            502..=504 => Finding::wrong(REACH, format!("the proxy does not reach this process: {number}{by}"))
                .because("SNS tries for about half an hour, then drops the message")
                .fix("let it pass on to `public.listen` of this machine; `serve` must run"),
            404 => Finding::wrong(REACH, format!("nothing is there: 404{by}"))
                .because("SNS counts that as delivered: the message is gone")
                .fix("let the proxy pass /webhooks/ on to this process (docs/reverse-proxy.md)"),
            _ => Finding::wrong(REACH, format!("something else answers: {number}{by}"))
                .because("a message would not get here")
                .fix("let the proxy pass /webhooks/ on to this process unchanged (docs/reverse-proxy.md)"),
        }
    }
}

fn another() -> Finding {
    Finding::wrong(REACH, "another process answers")
        .because("notifications would go to that one")
        .fix("point the proxy at this process")
}

fn unreachable(error: reqwest::Error) -> Finding {
    let words = egress::describe(error);
    let finding = Finding::unreachable(REACH, format!("`public.url` can't be reached: {words}"))
        .because("SNS would not reach it either");
    if words.contains("certificate") {
        finding.fix("serve a certificate of a public authority for that name, with its whole chain (fullchain.pem, not cert.pem)")
    } else {
        finding.fix("check the name in the DNS, the firewall and port 443; some networks let nobody reach their own public address from inside: then run `doctor` from elsewhere")
    }
}

/// When the certificate of an https answer ends.
fn certificate(answer: &Response, target: &SecretString, now: Timestamp) -> Option<Finding> {
    const CHECK: &str = "certificate";
    let url = Url::parse(target.expose_secret()).ok()?;
    if url.scheme() != "https" {
        return (!is_loopback(&url)).then(|| {
            Finding::wrong(CHECK, "`public.url` is not https")
                .because("SNS would send the token in the clear")
        });
    }
    let info = answer.extensions().get::<TlsInfo>()?;
    let (_, parsed) = x509_parser::parse_x509_certificate(info.peer_certificate()?).ok()?;
    let left = parsed.validity().not_after.timestamp() - now.as_millis() / 1000;
    let days = left / (24 * 60 * 60);
    let found = format!("trusted by this system, good for {days} more days");
    Some(if days >= CERTIFICATE_DAYS {
        Finding::ok(CHECK, found)
    } else {
        Finding::note(CHECK, found)
            .because("SNS does not deliver to a host whose certificate has ended")
            .fix("see that its renewal works")
    })
}
