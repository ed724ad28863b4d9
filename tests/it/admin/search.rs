//! Searches by commands, API and pages find the same.

use ivesk_webhook::domain::{Queue, SearchText};
use ivesk_webhook::store::TextSearch;
use serde_json::{Value, json};
use url::form_urlencoded::byte_serialize;

use crate::support::app::TestApp;
use crate::support::process::{program, within};

/// A service with an old invoice among 3,000 newer ones.
async fn service() -> TestApp {
    let app = TestApp::spawn().await;
    let mut documents = vec![
        json!({"id": "old", "docnum": "SĄSK-4711", "sellername": "UAB „Šarkos lizdas“",
        "buyername": "Ąžuolas, IĮ", "sellercode": "302320404", "total": "1210.00", "date": "2019-03-28"}),
    ];
    documents.extend((2..=3_001).map(|n| {
        json!({"id": format!("id-{n}"), "docnum": format!("SF-{n:06}"), "sellername": "UAB Kita",
            "buyername": format!("Pirkėjas {}", n % 7), "total": format!("{n}.50"), "date": "2026-11-01"})
    }));
    app.store_documents(&documents).await;
    app
}

/// Runs a command on the store of a service.
async fn run(app: &TestApp, arguments: &[&str]) -> (Option<i32>, String, String) {
    let settings = app.dir().join("search.toml");
    let text = format!(
        "[public]\nurl = \"https://hooks.example.lt\"\n[store]\nurl = \"{}\"\n",
        app.store_url()
    );
    std::fs::write(&settings, text).expect("written");
    let mut command = program();
    for event in ["EXPORTED", "DIGITIZED"] {
        let tokens = format!("IVESK_WEBHOOK_ACCOUNTS_DEFAULT_TOKENS_ON_{event}");
        command.env(tokens, format!("a-long-token-that-nobody-guesses-{event}"));
    }
    command
        .current_dir(app.dir())
        .arg("--config")
        .arg(&settings);
    let output = within("the command's exit", command.args(arguments).output()).await;
    let output = output.expect("the program runs");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

fn sequences(rows: &Value) -> Vec<i64> {
    let rows = rows.as_array().expect("rows");
    rows.iter()
        .map(|row| row["sequence"].as_i64().expect("a number"))
        .collect()
}

#[tokio::test]
async fn commands_api_and_pages_find_the_same() {
    let app = service().await;
    for (text, first) in [
        ("SĄSK-4711", 1),
        ("sask 4711", 1),
        ("4711", 1),
        ("šarkos lizdas", 1),
        ("1 210,00", 1),
        ("2019.03.28 ąžuol", 1),
        ("302320404", 1),
        ("old", 1),
        ("pirkėjas 3", 2_999),
        ("sf 300", 300),
    ] {
        let q: String = byte_serialize(text.as_bytes()).collect();
        let api = app
            .admin(&format!("/v1/documents/search?limit=20&q={q}"))
            .await;
        let by_api = sequences(&api["rows"]);
        assert_eq!(by_api.first(), Some(&first), "{text}");
        let (code, out, errors) = run(
            &app,
            &["documents", "search", "--json", "--limit", "20", text],
        )
        .await;
        assert_eq!((code, errors.as_str()), (Some(0), ""), "{text}");
        let by_command: Value = serde_json::from_str(&out).expect("JSON");
        assert_eq!(by_command, api["rows"], "{text}");
        let page = app.admin_request(reqwest::Method::GET, &format!("/documents?q={q}"));
        let page = page
            .send()
            .await
            .expect("answered")
            .text()
            .await
            .expect("text");
        let links = page.split("href=\"/documents/").skip(1);
        let numbers = links.filter_map(|link| link.split('"').next()?.parse().ok());
        let by_page: Vec<i64> = numbers.take(by_api.len()).collect();
        assert_eq!(by_page, by_api, "{text}");
    }
}

#[tokio::test]
async fn show_and_trace_take_the_number_of_a_document() {
    let app = service().await;
    for name in ["SĄSK-4711", "sask4711", "old"] {
        let (code, out, errors) = run(&app, &["documents", "show", name]).await;
        assert_eq!((code, errors.as_str()), (Some(0), ""), "{name}");
        assert!(out.contains("\"id\":\"old\""), "{out}");
        let (code, out, _) = run(&app, &["documents", "trace", name]).await;
        assert_eq!(code, Some(0), "{name}");
        assert!(out.contains("document old of account default"), "{out}");
    }
    // There is a version 5, and no document 5.
    for arguments in [["documents", "show", "5"], ["documents", "trace", "5"]] {
        let (code, out, errors) = run(&app, &arguments).await;
        assert_eq!((code, out.as_str()), (Some(1), ""));
        assert!(errors.contains("document `5` was not found"), "{errors}");
    }
    let (code, out, _) = run(&app, &["documents", "show", "--sequence", "5"]).await;
    assert_eq!(code, Some(0));
    assert!(out.contains("\"id\":\"id-5\""), "{out}");
    let (_, _, errors) = run(&app, &["documents", "show", "--sequence", "999999"]).await;
    let sentence = "the version with the sequence number 999999 was not found; ";
    assert!(errors.contains(sentence), "{errors}");
    let traced = app.admin("/v1/documents/trace?sequence=5").await;
    assert_eq!(traced[0]["document_id"], "id-5");
    assert_eq!(app.admin("/v1/documents/trace?q=5").await, json!([]));
    let both = app.admin_request(reqwest::Method::GET, "/v1/documents/trace?q=5&sequence=5");
    assert_eq!(both.send().await.expect("answered").status(), 400);
}

#[tokio::test]
async fn a_number_of_several_documents_names_their_ids() {
    let app = TestApp::spawn().await;
    let same =
        ["x", "y"].map(|id| json!({"id": id, "docnum": "7", "sellername": format!("UAB {id}")}));
    app.store_documents(&same).await;
    let (code, out, errors) = run(&app, &["documents", "show", "7"]).await;
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(errors.contains("x, y"), "{errors}");
    let traced = app.admin("/v1/documents/trace?q=7").await;
    assert_eq!(traced.as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn a_page_of_a_search_continues_where_it_ended() {
    let app = service().await;
    let mut path = "/documents?q=kita&since=2026-11-01".to_owned();
    let mut seen: Vec<i64> = Vec::new();
    for _ in 0..3 {
        let page = app
            .admin_request(reqwest::Method::GET, &path)
            .send()
            .await
            .expect("answered");
        let page = page.text().await.expect("text");
        let links = page.split("href=\"/documents/").skip(1);
        seen.extend(links.filter_map(|link| link.split('"').next()?.parse::<i64>().ok()));
        let next = page
            .split("class=\"next\" href=\"")
            .nth(1)
            .expect("another page");
        path = next
            .split('"')
            .next()
            .expect("an address")
            .replace("&amp;", "&");
    }
    assert_eq!(seen, (2_852..=3_001).rev().collect::<Vec<_>>());
}

#[tokio::test]
async fn hostile_texts_are_answered() {
    let app = service().await;
    for text in [
        "%",
        "_",
        "\"'",
        "\\",
        "...",
        "<script>",
        "a".repeat(100).as_str(),
        "1 2 3 4 5 6 7 8 9 10 11 12 13",
    ] {
        let q: String = byte_serialize(text.as_bytes()).collect();
        for path in ["/v1/documents/search", "/v1/documents/trace", "/documents"] {
            let request = app.admin_request(reqwest::Method::GET, &format!("{path}?q={q}"));
            assert_eq!(
                request.send().await.expect("answered").status(),
                200,
                "{path} {text}"
            );
        }
        let (code, ..) = run(&app, &["documents", "search", "--", text]).await;
        assert_eq!(code, Some(0), "{text}");
    }
    let words = "word ".repeat(10_000);
    let (code, out, _) = run(&app, &["documents", "search", &words]).await;
    assert_eq!((code, out.as_str()), (Some(0), "No documents found.\n"));
    let (code, ..) = run(&app, &["documents", "search"]).await;
    assert_eq!(code, Some(2));
    let empty = TextSearch {
        queue: Some(Queue::Exported),
        text: SearchText::read(""),
        ..TextSearch::named("", 5)
    };
    assert!(
        app.store
            .find_documents(empty)
            .await
            .expect("readable")
            .rows
            .is_empty()
    );
}
