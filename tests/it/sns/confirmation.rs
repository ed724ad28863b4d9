//! Confirming a subscription.

use ivesk_webhook::config::SnsConfig;
use ivesk_webhook::sns::confirmation::{CONFIRMATION_TIMEOUT, MAX_ANSWER_BYTES};
use ivesk_webhook::sns::{ConfirmError, Confirmer};
use secrecy::SecretString;
use std::time::Duration;

use crate::support::sns::*;

const ARN: &str =
    "arn:aws:sns:eu-west-1:007272210889:DPWebHook_onexport:6b0e71bd-7e97-4d97-80ce-4a0994e55286";

fn confirmed() -> String {
    format!(
        "<ConfirmSubscriptionResponse xmlns=\"http://sns.amazonaws.com/doc/2010-03-31/\">\
         <ConfirmSubscriptionResult><SubscriptionArn>{ARN}</SubscriptionArn>\
         </ConfirmSubscriptionResult></ConfirmSubscriptionResponse>"
    )
}

async fn confirm(config: &SnsConfig, url: &str) -> Result<String, ConfirmError> {
    let confirmer = Confirmer::new(&config.settings()).unwrap();
    confirmer
        .confirm(
            TOPIC,
            &SecretString::from(url.to_owned()),
            &SecretString::from(TOKEN.to_owned()),
        )
        .await
}

#[tokio::test]
async fn confirming_returns_the_subscription_arn() {
    let server = Server::start().await;
    server.answer("/", Answer::Body(confirmed().into()));

    let arn = confirm(&server.config(), &subscribe_url(&server.origin)).await;

    assert_eq!(arn.as_deref(), Ok(ARN));
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn a_subscription_has_ended_only_if_sns_says_so() {
    let server = Server::start().await;
    let confirmer = Confirmer::new(&server.config().settings()).unwrap();
    server.answer("/", Answer::Body("<UnsubscribeResponse/>".into()));
    assert_eq!(confirmer.unsubscribe(TOPIC, ARN).await, Ok(()));
    assert_eq!(server.requests(), 1);

    let refusal = "<ErrorResponse><Error><Code>AuthorizationError</Code></Error></ErrorResponse>";
    server.answer("/", Answer::Status(403, refusal));
    let refused = ConfirmError::Rejected {
        status: 403,
        code: "AuthorizationError".to_owned(),
    };
    assert_eq!(confirmer.unsubscribe(TOPIC, ARN).await, Err(refused));
    server.answer("/", Answer::Status(503, ""));
    let error = confirmer.unsubscribe(TOPIC, ARN).await.unwrap_err();
    assert!(matches!(error, ConfirmError::Unavailable(_)), "{error}");
}

/// Only URLs that the policy trusts are requested.
#[tokio::test]
async fn a_canary_at_subscribe_url_is_never_called() {
    let canary = Server::start().await;
    canary.answer("/", Answer::Body(confirmed().into()));

    let untrusted = confirm(&SnsConfig::default(), &subscribe_url(&canary.origin)).await;
    assert_eq!(untrusted, Err(ConfirmError::Untrusted));
    let other_token = subscribe_url(&canary.origin).replace(TOKEN, "other");
    assert_eq!(
        confirm(&canary.config(), &other_token).await,
        Err(ConfirmError::Untrusted)
    );

    assert_eq!(canary.requests(), 0);
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let server = Server::start().await;
    let canary = Server::start().await;
    server.answer("/", Answer::RedirectTo(format!("{}/", canary.origin)));

    let error = confirm(&server.config(), &subscribe_url(&server.origin))
        .await
        .unwrap_err();

    assert!(matches!(error, ConfirmError::Unavailable(_)), "{error}");
    assert_eq!(canary.requests(), 0);
}

#[tokio::test]
async fn an_expired_token_is_distinguished_from_an_sns_outage() {
    let server = Server::start().await;
    let url = subscribe_url(&server.origin);
    let config = server.config();

    server.answer(
        "/",
        Answer::Status(
            400,
            "<ErrorResponse><Error><Type>Sender</Type><Code>InvalidParameter</Code>\
             <Message>Invalid token</Message></Error></ErrorResponse>",
        ),
    );
    assert_eq!(
        confirm(&config, &url).await,
        Err(ConfirmError::Rejected {
            status: 400,
            code: "InvalidParameter".to_owned()
        })
    );
    let throttling = "<ErrorResponse><Error><Code>Throttling</Code></Error></ErrorResponse>";
    for (status, body) in [
        (400, throttling),
        (429, ""),
        (500, ""),
        (503, "<Error><Code>ServiceUnavailable</Code></Error>"),
        (200, "<html>not SNS</html>"),
        (204, ""),
    ] {
        server.answer("/", Answer::Status(status, body));
        let error = confirm(&config, &url).await.unwrap_err();
        assert!(matches!(error, ConfirmError::Unavailable(_)), "{status}");
    }
}

/// A web filter, a proxy or a captive portal answers in place of SNS.
#[tokio::test]
async fn only_snss_own_error_document_is_final() {
    let server = Server::start().await;
    let page = "<html><head><title>Access denied</title></head><body>web filter</body></html>\n";
    let s3 = "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>";
    for status in [400, 401, 403, 404, 407, 451] {
        for body in [page, s3, "{\"Code\":\"NotFound\"}", ""] {
            server.answer("/", Answer::Status(status, body));
            let error = confirm(&server.config(), &subscribe_url(&server.origin)).await;
            let error = error.unwrap_err();
            assert!(matches!(error, ConfirmError::Unavailable(_)), "{status}");
            assert!(error.to_string().contains("web filter"), "{error}");
        }
    }
}

#[tokio::test]
async fn a_topic_that_is_not_allowed_is_never_confirmed() {
    let server = Server::start().await;
    let arn = format!("{STRANGERS_TOPIC}:6b0e71bd");
    let answer = confirmed().replace(ARN, &arn);
    server.answer("/", Answer::Body(answer.into()));
    let settings = server.config().settings();
    let confirmer = Confirmer::new(&settings).unwrap();
    let url = subscribe_url(&server.origin).replace(TOPIC, STRANGERS_TOPIC);
    let (url, token) = (SecretString::from(url), SecretString::from(TOKEN));

    let refused = confirmer.confirm(STRANGERS_TOPIC, &url, &token).await;
    let topic = STRANGERS_TOPIC.to_owned();
    assert_eq!(refused, Err(ConfirmError::TopicNotAllowed(topic)));
    assert_eq!(server.requests(), 0);

    settings.known.approve_topic(STRANGERS_TOPIC);
    let confirmed = confirmer.confirm(STRANGERS_TOPIC, &url, &token).await;
    assert_eq!(confirmed, Ok(arn));
}

#[tokio::test]
async fn an_endless_answer_is_not_read_to_its_end() {
    let server = Server::start().await;
    let mut body = vec![b' '; MAX_ANSWER_BYTES];
    body.extend_from_slice(confirmed().as_bytes());
    server.answer("/", Answer::Body(body));

    let error = confirm(&server.config(), &subscribe_url(&server.origin))
        .await
        .unwrap_err();

    assert!(error.to_string().contains("larger than"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_silent_sns_is_abandoned_after_four_seconds() {
    let server = Server::start().await;
    server.answer("/", Answer::Never);
    let start = tokio::time::Instant::now();

    let error = confirm(&server.config(), &subscribe_url(&server.origin)).await;

    assert_eq!(
        error,
        Err(ConfirmError::Unavailable("timed out".to_owned()))
    );
    assert!(start.elapsed() <= CONFIRMATION_TIMEOUT + Duration::from_millis(10));
}

#[tokio::test]
async fn no_error_holds_the_token() {
    let (closed, config) = closed_origin().await;
    for url in [
        subscribe_url(&closed),
        subscribe_url("https://evil.example"),
    ] {
        let error = confirm(&config, &url).await.unwrap_err();
        let printed = format!("{error} {error:?}");
        assert!(!printed.contains(TOKEN), "{printed}");
        assert!(!printed.contains("Action"), "{printed}");
    }
}
