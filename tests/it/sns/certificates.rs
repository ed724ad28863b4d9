//! Certificates: fetched within bounds, cached and stored.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;
use ivesk_webhook::config::SnsConfig;
use ivesk_webhook::domain::Clock;
use ivesk_webhook::emulator::signer::{SNS_NAME, Signer, Unsigned};
use ivesk_webhook::sns::certificate_cache::{
    CERTIFICATE_TIMEOUT, FAILURE_MEMORY, FETCH_PERIOD, MAX_CERTIFICATE_BYTES, MAX_FETCHES,
    UNKNOWN_TOPIC_FETCHES,
};
use ivesk_webhook::sns::{MessageType, SavedMessages, SnsHeaders, Verifier, VerifyError};

use crate::support::sns::*;

fn local_verifier(server: &Server, clock: &Clock) -> Verifier {
    verifier_without_certificates(&server.config(), clock.clone())
}

#[tokio::test]
async fn a_burst_on_a_cold_cache_makes_one_request() {
    let server = Server::start().await;
    let body = SIGNER.sign(&notification(), 1, &server.serve("/cert.pem", &SIGNER));
    let verifier = local_verifier(&server, &clock());

    let codes = join_all((0..200).map(|_| code(&verifier, &body))).await;

    assert!(codes.iter().all(|code| *code == "valid"));
    assert_eq!(server.requests(), 1);
    assert_eq!(code(&verifier, &body).await, "valid");
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn a_burst_for_a_missing_certificate_makes_one_request() {
    let server = Server::start().await;
    let body = SIGNER.sign(&notification(), 1, &format!("{}/none.pem", server.origin));
    let clock = clock();
    let verifier = local_verifier(&server, &clock);

    let codes = join_all((0..200).map(|_| code(&verifier, &body))).await;

    assert!(codes.iter().all(|code| *code == "certificate_unavailable"));
    assert_eq!(server.requests(), 1);
    clock.advance(FAILURE_MEMORY - Duration::from_millis(1));
    assert_eq!(code(&verifier, &body).await, "certificate_unavailable");
    assert_eq!(server.requests(), 1, "a failure is remembered");
}

#[tokio::test]
async fn a_failure_is_forgotten_before_sns_retries() {
    let server = Server::start().await;
    let body = SIGNER.sign(&notification(), 1, &format!("{}/cert.pem", server.origin));
    let clock = clock();
    let verifier = local_verifier(&server, &clock);
    assert_eq!(code(&verifier, &body).await, "certificate_unavailable");

    server.serve("/cert.pem", &SIGNER);
    // The vendor's topic retries after 20 s.
    clock.advance(Duration::from_secs(20));

    assert_eq!(code(&verifier, &body).await, "valid");
}

#[tokio::test]
async fn a_fetch_survives_the_caller_that_started_it() {
    let server = Server::start().await;
    let body = SIGNER.sign(&notification(), 1, &server.serve("/cert.pem", &SIGNER));
    let verifier = local_verifier(&server, &clock());

    let mut first = Box::pin(code(&verifier, &body));
    let mut second = Box::pin(code(&verifier, &body));
    assert!(futures_util::poll!(&mut first).is_pending());
    assert!(futures_util::poll!(&mut second).is_pending());
    drop(first);

    assert_eq!(second.await, "valid");
    assert_eq!(server.requests(), 1);
}

/// Made-up URLs cost at most ten requests a minute, and the known certificate stays in use.
#[tokio::test]
async fn ten_thousand_urls_make_few_requests_and_block_no_good_one() {
    let server = Server::start().await;
    let good = SIGNER.sign(&notification(), 1, &server.serve("/cert.pem", &SIGNER));
    let clock = clock();
    let verifier = local_verifier(&server, &clock);
    assert_eq!(code(&verifier, &good).await, "valid");

    // Signed once: the URL is not part of what is signed.
    let template = SIGNER.sign(&notification(), 1, &format!("{}/@.pem", server.origin));
    for minute in 0..10 {
        for number in 0..1000 {
            let body = template.replace('@', &format!("{minute}-{number}"));
            assert_eq!(code(&verifier, &body).await, "certificate_unavailable");
        }
        assert!(server.requests() <= (minute + 1) * MAX_FETCHES);
        clock.advance(FETCH_PERIOD);
    }

    let before = server.requests();
    assert_eq!(code(&verifier, &good).await, "valid");
    assert_eq!(server.requests(), before);
}

/// Strangers don't know the ARN of a subscription, which only SNS's messages name.
#[tokio::test]
async fn names_made_up_by_strangers_leave_a_reserve() {
    let server = Server::start().await;
    let settings = server.config().settings();
    let arn = format!("{TOPIC}:6b0e71bd-7e97-4d97-80ce-4a0994e55286");
    settings.known.add_subscription(&arn);
    let store = std::sync::Arc::new(ivesk_webhook::sns::NoCertificateStore);
    let verifier = Verifier::new(&settings, store, clock()).unwrap();
    let template = SIGNER.sign(&notification(), 1, &format!("{}/@.pem", server.origin));
    let naming = |arn: &str| SnsHeaders {
        subscription_arn: Some(arn.to_owned()),
        ..SnsHeaders::default()
    };
    let guess = naming(&format!("{TOPIC}:0f0e"));
    for number in 0..1000 {
        let body = template.replace('@', &number.to_string());
        let refused = verifier.verify(parse_with(&body, &guess).unwrap()).await;
        assert_eq!(refused.unwrap_err().code(), "certificate_unavailable");
    }
    assert_eq!(server.requests(), MAX_FETCHES);

    // SNS presents a new certificate.
    let genuine = SIGNER.sign(&notification(), 1, &server.serve("/new.pem", &SIGNER));
    let unnamed = parse(&genuine).unwrap();
    let refused = verifier.verify(unnamed).await.unwrap_err();
    assert_eq!(refused.code(), "certificate_unavailable");
    let named = parse_with(&genuine, &naming(&arn)).unwrap();
    assert!(verifier.verify(named).await.is_ok());
    assert_eq!(server.requests(), MAX_FETCHES + 1);
    // Cached now for all, also without the header.
    assert_eq!(code(&verifier, &genuine).await, "valid");
}

#[tokio::test]
async fn unknown_topics_use_up_no_fetches_of_allowed_ones() {
    let server = Server::start().await;
    let verifier = local_verifier(&server, &clock());
    let confirmation = unsigned(MessageType::SubscriptionConfirmation);
    let strangers = Unsigned {
        topic_arn: STRANGERS_TOPIC.to_owned(),
        subscribe_url: Some(subscribe_url(&server.origin).replace(TOPIC, STRANGERS_TOPIC)),
        ..confirmation
    };
    let template = SIGNER.sign(&strangers, 1, &format!("{}/@.pem", server.origin));
    for number in 0..1000 {
        let body = template.replace('@', &number.to_string());
        let refused = verifier.classify_at(parse(&body).unwrap(), time(NOW)).await;
        assert_eq!(refused.unwrap_err().code(), "certificate_unavailable");
    }
    assert_eq!(server.requests(), UNKNOWN_TOPIC_FETCHES);

    let ours = SIGNER.sign(&notification(), 1, &server.serve("/cert.pem", &SIGNER));
    assert_eq!(code(&verifier, &ours).await, "valid");
}

/// SNS gives a new certificate a new name; one that keeps its name is found all the same.
#[tokio::test]
async fn an_expired_certificate_is_fetched_again_once_a_minute() {
    let server = Server::start().await;
    let expired = Signer::generate(
        SNS_NAME,
        time("2026-01-01T00:00:00Z"),
        time("2026-11-23T07:59:00Z"),
    )
    .unwrap();
    let url = server.serve("/cert.pem", &expired);
    let clock = clock();
    let verifier = local_verifier(&server, &clock);
    let body = SIGNER.sign(&notification(), 1, &url);
    for _ in 0..20 {
        assert_eq!(code(&verifier, &body).await, "certificate_dates");
    }
    assert_eq!(server.requests(), 2, "the first fetch and one more");

    server.serve("/cert.pem", &SIGNER);
    assert_eq!(code(&verifier, &body).await, "certificate_dates");
    clock.advance(FETCH_PERIOD);
    assert_eq!(code(&verifier, &body).await, "valid");
    assert_eq!(server.requests(), 3);
}

/// The clock is behind: the certificate fits by itself once the clock is right.
#[tokio::test]
async fn a_certificate_whose_time_has_not_come_is_fetched_once() {
    let server = Server::start().await;
    let url = server.serve("/cert.pem", &SIGNER);
    let clock = Clock::manual(time("2025-12-31T23:59:00Z"));
    let verifier = local_verifier(&server, &clock);
    let body = SIGNER.sign(
        &Unsigned {
            timestamp: "2026-01-01T00:00:00.000Z".to_owned(),
            ..notification()
        },
        1,
        &url,
    );
    for _ in 0..20 {
        assert_eq!(code(&verifier, &body).await, "certificate_dates");
    }
    clock.advance(Duration::from_secs(60));
    assert_eq!(code(&verifier, &body).await, "valid");
    assert_eq!(server.requests(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_silent_host_is_abandoned_after_four_seconds() {
    let server = Server::start().await;
    server.answer("/cert.pem", Answer::Never);
    let body = SIGNER.sign(&notification(), 1, &format!("{}/cert.pem", server.origin));
    let verifier = local_verifier(&server, &clock());
    let start = tokio::time::Instant::now();

    let refusal = verify(&verifier, &body).await.unwrap_err();

    assert_eq!(
        refusal,
        VerifyError::CertificateUnavailable("timed out".to_owned())
    );
    assert!(start.elapsed() <= CERTIFICATE_TIMEOUT + Duration::from_millis(10));
}

/// SNS must retry after a failure on our side.
#[tokio::test]
async fn an_unavailable_certificate_is_no_forgery() {
    let server = Server::start().await;
    let canary = Server::start().await;
    let canary_url = canary.serve("/cert.pem", &SIGNER);
    server.answer("/500.pem", Answer::Status(500, "sorry"));
    server.answer("/403.pem", Answer::Status(403, "no"));
    server.answer("/302.pem", Answer::RedirectTo(canary_url));
    server.answer(
        "/huge.pem",
        Answer::Body(vec![b'-'; MAX_CERTIFICATE_BYTES + 1]),
    );
    let verifier = local_verifier(&server, &clock());
    for path in ["/500.pem", "/403.pem", "/302.pem", "/huge.pem", "/404.pem"] {
        let body = SIGNER.sign(&notification(), 1, &format!("{}{path}", server.origin));
        let refusal = verify(&verifier, &body).await.unwrap_err();
        assert_eq!(refusal.code(), "certificate_unavailable", "{path}");
        assert!(!refusal.to_string().contains(&server.origin), "{refusal}");
    }
    assert_eq!(canary.requests(), 0, "redirects are not followed");

    let (closed, config) = closed_origin().await;
    let verifier = verifier_without_certificates(&config, clock());
    let body = SIGNER.sign(&notification(), 1, &format!("{closed}/cert.pem"));
    assert_eq!(code(&verifier, &body).await, "certificate_unavailable");
}

#[tokio::test]
async fn a_body_that_is_no_certificate_is_refused_as_such() {
    let server = Server::start().await;
    let key = SIGNER.to_pem();
    let pem = SIGNER.certificate_pem();
    let broken = pem.replacen("MII", "MIJ", 1);
    for (path, text) in [
        ("/empty", ""),
        ("/html", "<html>hello</html>"),
        ("/key", key.as_str()),
        ("/broken", broken.as_str()),
        ("/half", &pem[..pem.len() / 2]),
    ] {
        server.answer(path, Answer::Body(text.into()));
        let verifier = local_verifier(&server, &clock());
        let body = SIGNER.sign(&notification(), 1, &format!("{}{path}", server.origin));
        assert_eq!(
            code(&verifier, &body).await,
            "malformed_certificate",
            "{path}"
        );
    }
}

/// Only the leaf is checked, whether an intermediate comes with it or not.
#[tokio::test]
async fn a_leaf_is_accepted_with_no_intermediate_and_with_one() {
    let server = Server::start().await;
    let chain = format!(
        "{}{}",
        SIGNER.certificate_pem(),
        OTHER_SIGNER.certificate_pem()
    );
    server.answer("/chain.pem", Answer::Body(chain.into()));
    let verifier = local_verifier(&server, &clock());
    for url in [
        server.serve("/leaf.pem", &SIGNER),
        format!("{}/chain.pem", server.origin),
    ] {
        let body = SIGNER.sign(&notification(), 1, &url);
        assert_eq!(code(&verifier, &body).await, "valid", "{url}");
    }
}

#[tokio::test]
async fn a_local_origin_skips_only_the_certificates_name() {
    let server = Server::start().await;
    let signer = signer_named("localhost");
    let url = server.serve("/cert.pem", &signer);
    let verifier = local_verifier(&server, &clock());

    let good = signer.sign(&notification(), 1, &url);
    assert_eq!(code(&verifier, &good).await, "valid");
    let forged = good.replace("302320404", "302320405");
    assert_eq!(code(&verifier, &forged).await, "signature_mismatch");
    let stranger = Unsigned {
        topic_arn: STRANGERS_TOPIC.to_owned(),
        ..notification()
    };
    let stranger = signer.sign(&stranger, 1, &url);
    assert_eq!(code(&verifier, &stranger).await, "topic_not_allowed");
    let next_year = local_verifier(&server, &Clock::manual(time("2027-06-01T00:00:00Z")));
    assert_eq!(code(&next_year, &good).await, "certificate_dates");
}

#[tokio::test]
async fn a_mismatch_at_a_local_origin_refetches_the_certificate() {
    let server = Server::start().await;
    let url = server.serve("/cert.pem", &SIGNER);
    let verifier = local_verifier(&server, &clock());
    let old = SIGNER.sign(&notification(), 1, &url);
    assert_eq!(code(&verifier, &old).await, "valid");

    // The emulator was restarted, with another key at the same address.
    server.serve("/cert.pem", &OTHER_SIGNER);
    let new = OTHER_SIGNER.sign(&notification(), 1, &url);
    let codes = join_all((0..50).map(|_| code(&verifier, &new))).await;
    assert!(codes.iter().all(|code| *code == "valid"));
    assert_eq!(server.requests(), 2);

    // A forgery costs one request, not two, and never more than ten a minute.
    let forged = new.replace("302320404", "302320405");
    assert_eq!(code(&verifier, &forged).await, "signature_mismatch");
    assert_eq!(server.requests(), 3);
    for _ in 0..50 {
        assert_eq!(code(&verifier, &forged).await, "signature_mismatch");
    }
    assert!(server.requests() <= MAX_FETCHES);
    assert_eq!(code(&verifier, &new).await, "valid");
}

#[tokio::test]
async fn a_fetch_that_fails_leaves_the_good_certificate_in_use() {
    let server = Server::start().await;
    let url = server.serve("/cert.pem", &SIGNER);
    let verifier = local_verifier(&server, &clock());
    let good = SIGNER.sign(&notification(), 1, &url);
    assert_eq!(code(&verifier, &good).await, "valid");

    server.answer("/cert.pem", Answer::Status(500, ""));
    let forged = good.replace("302320404", "302320405");
    assert_eq!(code(&verifier, &forged).await, "signature_mismatch");

    assert_eq!(server.requests(), 2);
    assert_eq!(code(&verifier, &good).await, "valid");
}

#[tokio::test]
async fn certificates_loaded_at_the_start_are_not_loaded_again() {
    let certificates = MemoryCertificates::with(&[&SIGNER]);
    let verifier = verifier_with(&SnsConfig::default(), certificates.clone(), clock());

    verifier.load_certificates().await;
    assert_eq!(certificates.loads.load(Ordering::SeqCst), 1);
    assert!(verifier.known_certificate(&sns_url(&SIGNER)).is_some());
    assert_eq!(code(&verifier, &signed(&notification())).await, "valid");

    assert_eq!(certificates.loads.load(Ordering::SeqCst), 1);
}

/// SNS is unreachable from here, and not from the other replica.
#[tokio::test]
async fn a_certificate_that_another_replica_stored_is_used() {
    let certificates = MemoryCertificates::with(&[]);
    let verifier = verifier_with(&SnsConfig::default(), certificates.clone(), clock());
    verifier.load_certificates().await;
    let body = signed(&notification());

    let stored = (sns_url(&SIGNER), SIGNER.certificate_pem().into());
    certificates.saved.lock().unwrap().push(stored);

    assert_eq!(code(&verifier, &body).await, "valid");
}

#[tokio::test]
async fn the_store_is_read_once_when_a_certificate_is_missing() {
    let certificates = MemoryCertificates::with(&[&SIGNER]);
    let verifier = verifier_with(&SnsConfig::default(), certificates.clone(), clock());
    assert_eq!(certificates.loads.load(Ordering::SeqCst), 0);

    let body = signed(&notification());
    let codes = join_all((0..20).map(|_| code(&verifier, &body))).await;

    assert!(codes.iter().all(|code| *code == "valid"));
    assert_eq!(certificates.loads.load(Ordering::SeqCst), 1);
    assert_eq!(
        certificates.saved.lock().unwrap().len(),
        1,
        "not saved a second time"
    );
}

#[tokio::test]
async fn a_stored_certificate_is_checked_by_the_current_policy() {
    let elsewhere = signer_named("sns-signing.me-south-1.amazonaws.com");
    let url = sns_url(&elsewhere);
    let certificates = MemoryCertificates::with(&[&elsewhere]);
    certificates.saved.lock().unwrap().extend([
        (
            "https://evil.example/a.pem".to_owned(),
            elsewhere.certificate_pem().into(),
        ),
        (
            "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-0.pem".to_owned(),
            b"nonsense".to_vec(),
        ),
    ]);
    let body = elsewhere.sign(&notification(), 1, &url);

    let renamed = SnsConfig {
        certificate_names: BTreeMap::from([(
            "eu-west-1".to_owned(),
            "sns-signing.me-south-1.amazonaws.com".to_owned(),
        )]),
        ..SnsConfig::default()
    };
    let verifier = verifier_with(&renamed, certificates, clock());
    assert_eq!(code(&verifier, &body).await, "valid");
    assert!(verifier.known_certificate(&url).is_some());
    assert!(
        verifier
            .known_certificate("https://evil.example/a.pem")
            .is_none()
    );
}

#[tokio::test]
async fn a_local_certificate_is_never_stored() {
    let server = Server::start().await;
    let certificates = MemoryCertificates::with(&[]);
    let verifier = verifier_with(&server.config(), certificates.clone(), clock());
    let body = SIGNER.sign(&notification(), 1, &server.serve("/cert.pem", &SIGNER));

    assert_eq!(code(&verifier, &body).await, "valid");

    assert!(certificates.saved.lock().unwrap().is_empty());
}

/// Only the name in the certificate differs.
#[tokio::test]
async fn a_certificate_from_sns_must_have_the_name_of_sns() {
    for (name, expected) in [
        ("sns.amazonaws.com", "valid"),
        ("evil.example", "certificate_name"),
        ("sns-signing.me-south-1.amazonaws.com", "certificate_name"),
    ] {
        let signer = signer_named(name);
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(
            folder.path().join(&signer.certificate_path()[1..]),
            signer.certificate_pem(),
        )
        .unwrap();
        let saved = SavedMessages {
            certificates: Some(folder.path().to_owned()),
            any_topic: false,
        };
        let verifier =
            Verifier::for_saved(&SnsConfig::default().settings(), saved, clock()).unwrap();
        let body = signer.sign(&notification(), 2, &sns_url(&signer));
        assert_eq!(code(&verifier, &body).await, expected, "{name}");
    }
}
