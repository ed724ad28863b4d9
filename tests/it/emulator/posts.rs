//! The two POST requests of the API: import errors and subscriptions.

use serde_json::json;

use super::*;

fn import_error(id: &str) -> Value {
    json!({ "documentid": id, "companycode": COMPANY, "message": "Nėra tiekėjo „Ąžuolas“" })
}

async fn exported_id(bench: &Bench) -> String {
    bench.export(1).remove(0).0
}

#[tokio::test]
async fn an_import_error_is_kept_as_it_was_sent() {
    let bench = Bench::start("").await;
    let id = exported_id(&bench).await;
    assert_eq!(bench.post("/errors", &import_error(&id)).await.status, 200);
    let kept = bench.control.reported_errors();
    assert_eq!(kept.len(), 1);
    assert_eq!(kept[0].documentid, id);
    assert_eq!(kept[0].message, "Nėra tiekėjo „Ąžuolas“");
    assert_eq!(kept[0].content_type.as_deref(), Some("application/json"));
}

#[tokio::test]
async fn an_import_error_without_a_field_or_document_is_refused() {
    let bench = Bench::start("").await;
    let id = exported_id(&bench).await;
    for field in ["documentid", "companycode", "message"] {
        let mut body = import_error(&id);
        body.as_object_mut().expect("an object").remove(field);
        let answer = bench.post("/errors", &body).await;
        assert_eq!(answer.status, 400);
        assert_eq!(answer.message(), format!("{field} is required"));
    }
    let theirs = bench
        .control
        .digitize(STRANGER_KEY, STRANGER, 1)
        .expect("made")
        .remove(0);
    assert_eq!(
        bench.post("/errors", &import_error(&theirs)).await.status,
        404
    );
    assert!(bench.control.reported_errors().is_empty());
}

#[tokio::test]
async fn a_repeated_import_error_is_accepted_or_refused() {
    for (position, status, kept) in [("accepted", 200, 2), ("refused", 409, 1)] {
        let bench = Bench::start(&format!("error_repeat={position}")).await;
        let id = exported_id(&bench).await;
        bench.post("/errors", &import_error(&id)).await;
        assert_eq!(
            bench.post("/errors", &import_error(&id)).await.status,
            status
        );
        assert_eq!(bench.control.reported_errors().len(), kept);
    }
}

#[tokio::test]
async fn error_content_type_decides_the_required_label() {
    const JSON: &str = "application/json";
    const FORM: &str = "application/x-www-form-urlencoded";
    for (position, json_status, form_status) in
        [("any", 200, 200), ("json", 200, 415), ("form", 415, 200)]
    {
        let bench = Bench::start(&format!("error_content_type={position}")).await;
        let id = exported_id(&bench).await;
        for (label, status) in [(JSON, json_status), (FORM, form_status)] {
            let request = bench
                .http
                .post(format!("{}/errors", bench.emulator.api_url()))
                .header("x-api-key", DEFAULT_KEY)
                .header("content-type", label)
                .body(import_error(&id).to_string());
            assert_eq!(read(request).await.status, status, "{position}: {label}");
        }
    }
}

#[tokio::test]
async fn both_posts_move_to_the_paths_of_their_switches() {
    let bench = Bench::start("errors_path=/documents/error,subscriptions_path=/webhook").await;
    let webhook = Webhook::start().await;
    let id = exported_id(&bench).await;
    let subscription = json!({ "name": "ours", "eventType": "on_exported", "target": webhook.url });
    assert_eq!(bench.post("/errors", &import_error(&id)).await.status, 404);
    assert_eq!(
        bench
            .post("/documents/error", &import_error(&id))
            .await
            .status,
        200
    );
    assert_eq!(
        bench.post("/subscriptions", &subscription).await.status,
        404
    );
    assert_eq!(bench.post("/webhook", &subscription).await.status, 200);
    bench.control.idle().await;
    assert_eq!(webhook.take().len(), 1);
}

#[tokio::test]
async fn a_subscription_needs_a_name_an_event_and_a_local_target() {
    let bench = Bench::start("").await;
    let good = json!({ "name": "x", "eventType": "on_exported", "target": "http://127.0.0.1:9/x" });
    for (field, value) in [
        ("name", json!("")),
        ("eventType", json!("on_imported")),
        ("target", json!("not a url")),
        ("target", json!("https://example.com/hook")),
        ("target", json!("http://127.0.0.1.example.com/hook")),
        ("target", json!("http://10.0.0.1/hook")),
    ] {
        let mut body = good.clone();
        body[field] = value;
        let answer = bench.post("/subscriptions", &body).await;
        assert_eq!(answer.status, 400, "{body}");
        assert!(!answer.message().is_empty());
    }
    assert!(bench.control.subscriptions().is_empty());
}

#[tokio::test]
async fn listening_on_a_public_address_is_refused() {
    let settings = EmulatorSettings {
        signer: Some(signer()),
        ..EmulatorSettings::default()
    };
    let refused = Emulator::start(settings, ([0, 0, 0, 0], 0).into()).await;
    let error = refused.expect_err("other machines would reach it");
    assert!(error.to_string().contains("--allow-remote"), "{error}");
}
