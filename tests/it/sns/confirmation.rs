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
            code: Some("InvalidParameter".to_owned())
        })
    );
    for (status, body) in [
        (400, "<Error><Code>Throttling</Code></Error>"),
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
