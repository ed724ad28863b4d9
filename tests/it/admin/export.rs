//! Documents as a table, and the fields that they carry.

use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use ivesk_webhook::export::cells::{Decimal, Encoding};
use ivesk_webhook::export::columns::{self, Per};
use ivesk_webhook::export::stream::{Documents, Export, Matches, Part};
use ivesk_webhook::export::table::{Format, Layout, Separator};
use ivesk_webhook::store::{DocumentRow, DocumentStretch};
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::oneshot;

use crate::support::app::{TestApp, code};
use crate::support::faults::Fault;
use crate::support::skip::skip;

/// Documents as odd as the vendor may make them.
const DOCUMENTS: [&str; 3] = [
    r#"{"id":"a","docnum":"000123","date":"2026-11-20","total":1234567890123456789.10,"vat":"-0.10",
        "sellername":"=HYPERLINK(\"http://x\")","currency":"EUR","url":"https://files.example/a?Signature=planted",
        "line":[{"name":"Lenta; 2\" A","total":0.10,"code":"+1"},{"name":"Varžtas","total":"-5.00"}]}"#,
    r#"{"id":"b","docnum":1.50,"total":null,"buyername":"ООО Ąžuolas","currency":{"link":"planted"},
        "302320404":1,"projectcode":"-P1"}"#,
    r#"{"id":"c","DocNum":"SF\r\n7","total":-5,"line":[]}"#,
];

async fn with_documents() -> TestApp {
    let app = TestApp::spawn().await;
    app.store_bodies(&DOCUMENTS).await;
    app
}

async fn get(app: &TestApp, path: &str) -> Response {
    let request = app.admin_request(Method::GET, path);
    request.send().await.expect("an answer")
}

async fn bytes(app: &TestApp, query: &str) -> Vec<u8> {
    let answer = get(app, &format!("/v1/documents/export?{query}")).await;
    assert_eq!(answer.status(), 200, "{query}");
    answer.bytes().await.expect("a whole table").to_vec()
}

async fn table(app: &TestApp, query: &str) -> String {
    String::from_utf8(bytes(app, query).await).expect("UTF-8")
}

#[tokio::test]
async fn a_row_has_the_texts_of_its_document_and_no_formulas() {
    let app = with_documents().await;
    assert_eq!(
        table(
            &app,
            "columns=sequence,docnum,vat,total,sellername,currency,superseded"
        )
        .await,
        "sequence,docnum,vat,total,sellername,currency,superseded\r\n\
         1,000123,-0.10,1234567890123456789.10,\"'=HYPERLINK(\"\"http://x\"\")\",EUR,false\r\n\
         2,1.50,,,,,false\r\n\
         3,\"SF\r\n7\",,-5,,,false\r\n"
    );
    let everything = table(&app, "columns=all&per=line").await
        + &table(&app, "columns=all&per=line&format=json").await;
    assert!(!everything.contains("planted"), "{everything}");
}

#[tokio::test]
async fn a_document_has_a_row_for_each_line_or_one() {
    let app = with_documents().await;
    let columns = "columns=docnum,line_number,line.code,line.name,line.total,total";
    let lithuanian = "separator=semicolon&decimal=comma&encoding=utf-8-bom";
    assert_eq!(
        table(&app, &format!("per=line&{columns}&{lithuanian}")).await,
        "\u{feff}docnum;line_number;line.code;line.name;line.total;total\r\n\
         000123;1;'+1;\"Lenta; 2\"\" A\";0,10;1234567890123456789,10\r\n\
         000123;2;;Varžtas;-5,00;1234567890123456789,10\r\n\
         1.50;;;;;\r\n\
         \"SF\r\n7\";;;;;-5\r\n"
    );
}

#[tokio::test]
async fn json_lines_have_the_values_as_the_vendor_wrote_them() {
    let app = with_documents().await;
    let columns = "columns=sequence,docnum,total,sellername,currency,field:ProjectCode";
    assert_eq!(
        table(&app, &format!("format=json&decimal=comma&{columns}")).await,
        "{\"sequence\":1,\"docnum\":\"000123\",\"total\":1234567890123456789.10,\
           \"sellername\":\"=HYPERLINK(\\\"http://x\\\")\",\"currency\":\"EUR\"}\n\
         {\"sequence\":2,\"docnum\":1.50,\"total\":null,\"field:ProjectCode\":\"-P1\"}\n\
         {\"sequence\":3,\"docnum\":\"SF\\r\\n7\",\"total\":-5}\n"
    );
}

#[tokio::test]
async fn characters_that_windows_1257_lacks_are_counted() {
    let app = with_documents().await;
    let table = bytes(&app, "columns=buyername,replaced&encoding=windows-1257").await;
    assert_eq!(
        table,
        b"buyername,replaced\r\n,0\r\n??? \xc0\xfeuolas,3\r\n,0\r\n"
    );
    let answer = get(&app, "/v1/documents/export?encoding=windows-1257").await;
    let kind = answer.headers()["content-type"].to_str().expect("text");
    assert_eq!(kind, "text/csv; charset=windows-1257; header=present");
}

#[tokio::test]
async fn the_same_documents_are_exported_as_are_found() {
    let app = TestApp::spawn().await;
    let of = |id: &str, number: &str, exported: &str| {
        format!(r#"{{"id":"{id}","docnum":"{number}","exportedat":"{exported}"}}"#)
    };
    app.store_bodies(&[
        of("a", "SF-1", "2026-10-31T23:59:59Z"),
        of("b", "SF-2", "2026-11-01T00:00:00Z"),
        of("a", "SF-1a", "2026-11-02T00:00:00Z"),
        of("c", "X-3", "2026-11-03T00:00:00Z"),
    ])
    .await;
    for (query, rows) in [
        ("", "2 3 4"),
        ("superseded=true", "1 2 3 4"),
        (
            "since=2026-11-01&until=2026-11-02T00:00:00Z&superseded=true",
            "2",
        ),
        ("until=2026-11-01&superseded=true", "1"),
        ("until=2026-11-01", ""),
        ("after=3", "4"),
        ("q=sf", "2 3"),
        ("q=a&superseded=true", "1 3"),
        ("q=a", "3"),
        ("q=2", "2"),
        ("q=a&since=2026-11-02&superseded=true", "3"),
        ("q=a&until=2026-11-02&superseded=true", "1"),
        ("q=a&after=1&superseded=true", "3"),
        ("q=3&until=2026-11-02", ""),
        ("q=2&after=2", ""),
        ("q=none", ""),
        ("company=1", "2 3 4"),
        ("company=2", ""),
        ("queue=digitized", ""),
        ("account=default&queue=exported", "2 3 4"),
    ] {
        let table = table(&app, &format!("columns=sequence&{query}")).await;
        let found: Vec<&str> = table.lines().skip(1).collect();
        assert_eq!(found.join(" "), rows, "{query}");
    }
    for wrong in [
        "columns=sequence,none",
        "columns=url",
        "columns=line.name",
        "since=yesterday",
        "per=page",
        "format=xlsx",
        "encoding=utf-16",
        "account=nobody",
        "page=1",
        "after=-1",
    ] {
        let answer = get(&app, &format!("/v1/documents/export?{wrong}")).await;
        assert_eq!(code(answer).await.0, 400, "{wrong}");
    }
}

#[tokio::test]
async fn the_page_gives_the_table_of_what_it_lists() {
    let app = with_documents().await;
    let page = get(&app, "/documents?q=ąžuol&lang=lt").await;
    let page = page.text().await.expect("text");
    let (_, link) = page.split_once("/documents/export?").expect("a link");
    let (query, _) = link.split_once('"').expect("its end");
    let path = format!("/documents/export?{}&lang=lt", query.replace("&amp;", "&"));
    let answer = get(&app, &path).await;
    assert_eq!(answer.status(), 200, "{path}");
    assert_eq!(
        answer.headers()["content-disposition"],
        "attachment; filename=\"documents.csv\""
    );
    let lithuanian = answer.text().await.expect("text");
    let options = "separator=semicolon&decimal=comma&encoding=utf-8-bom";
    assert_eq!(
        lithuanian,
        table(&app, &format!("{options}&q=%C4%84%C5%BDUOL")).await
    );
    assert_eq!(lithuanian.lines().count(), 2, "{lithuanian}");

    let wrong = get(&app, "/documents/export?company=%00").await;
    assert_eq!(wrong.status(), 400);
    let kind = wrong.headers()["content-type"].to_str().expect("text");
    assert!(kind.starts_with("text/html"), "{kind}");
    let stranger = app.without_redirects();
    let url = format!("http://{}/documents/export", app.config().admin.listen);
    let answer = stranger.get(url).send().await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn fields_that_may_hold_a_link_need_more_rights() {
    let app = with_documents().await;
    let token = async |rights: &str| {
        let request = json!({"name": rights, "rights": rights});
        let (_, created) = app.admin_post("/v1/tokens", &request).await;
        created["token"].as_str().expect("a token").to_owned()
    };
    let (read, operate, metrics) = (
        token("read").await,
        token("operate").await,
        token("metrics").await,
    );
    for (token, query, status) in [
        (&read, "columns=docnum", 200),
        (&read, "columns=field:projectcode", 403),
        (&operate, "columns=field:projectcode", 200),
        (&metrics, "columns=docnum", 403),
    ] {
        let path = format!("/v1/documents/export?{query}");
        let request = app.anonymous_request(Method::GET, &path).bearer_auth(token);
        let answer = request.send().await.expect("an answer");
        assert_eq!(answer.status(), status, "{query}");
    }
}

#[tokio::test]
async fn an_export_that_breaks_off_is_not_taken_for_whole() {
    let app = TestApp::spawn().await;
    let large = "x".repeat(20_000);
    let documents: Vec<String> = (0..2_000)
        .map(|number| format!(r#"{{"id":"{number}","docnum":"{large}"}}"#))
        .collect();
    app.store_bodies(&documents).await;
    let path = "/v1/documents/export?columns=docnum";

    // The client has read little yet, so the server waits with the rest.
    let answer = get(&app, path).await;
    assert_eq!(answer.status(), 200);
    app.faults.set(Some(Fault::Down));
    let read = answer.bytes().await;
    assert!(read.is_err(), "{:?}", read.map(|bytes| bytes.len()));

    app.faults.set(None);
    let mut open = Vec::new();
    for _ in 0..4 {
        let answer = get(&app, path).await;
        assert_eq!(answer.status(), 200);
        open.push(answer);
    }
    assert_eq!(
        code(get(&app, path).await).await,
        (409, "conflict".to_owned())
    );
    let whole = open.pop().expect("one").bytes().await.expect("whole");
    assert_eq!(whole.len(), "docnum\r\n".len() + 2_000 * 20_002);
    assert_eq!(get(&app, path).await.status(), 200);
}

/// Returns an export of the documents that `matches`.
fn export_of(format: Format, matches: Matches) -> Export {
    Export {
        documents: Documents::Stretch(DocumentStretch::default(), matches),
        per: Per::Document,
        layout: Layout {
            format,
            columns: columns::parse(Some("docnum"), Per::Document).expect("columns"),
            separator: Separator::Comma,
            decimal: Decimal::Point,
            encoding: Encoding::Utf8,
        },
    }
}

async fn with_many_documents() -> TestApp {
    let app = TestApp::spawn().await;
    let documents: Vec<String> = (0..2_000)
        .map(|number| format!(r#"{{"id":"{number}"}}"#))
        .collect();
    app.store_bodies(&documents).await;
    app
}

#[tokio::test]
async fn an_export_that_nobody_takes_ends_and_gives_its_place_back() {
    let app = with_many_documents().await;
    let taken = Arc::new(Mutex::new(None));
    let looked_at = Arc::new(AtomicUsize::new(0));
    let matches: Matches = {
        let (taken, looked_at) = (Arc::clone(&taken), Arc::clone(&looked_at));
        Box::new(move |_| {
            // Whoever takes the parts leaves while a document is looked at that does not match.
            drop(taken.lock().expect("unpoisoned").take());
            looked_at.fetch_add(1, Ordering::Relaxed);
            false
        })
    };
    let (place, given_back) = oneshot::channel::<()>();
    let parts = export_of(Format::Csv, matches).start(app.store.clone(), place);
    *taken.lock().expect("unpoisoned") = Some(parts);
    assert!(given_back.await.is_err(), "dropped");
    assert_eq!(looked_at.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn an_export_begins_before_a_document_matches() {
    let app = with_many_documents().await;
    for (format, first) in [(Format::Csv, "docnum\r\n"), (Format::Json, "")] {
        let looked_at = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&looked_at);
        let matches = move |_: &DocumentRow| {
            counted.fetch_add(1, Ordering::Relaxed);
            false
        };
        let export = export_of(format, Box::new(matches));
        let mut parts = export.start(app.store.clone(), ());
        let part = parts.recv().await.expect("a part").expect("readable");
        assert!(matches!(part, Part::Bytes(bytes) if bytes == first));
        assert!(looked_at.load(Ordering::Relaxed) < 2_000);
        let part = parts.recv().await.expect("a part").expect("readable");
        assert!(matches!(part, Part::End(_)), "{part:?}");
        assert_eq!(looked_at.load(Ordering::Relaxed), 2_000);
    }
    assert_eq!(table(&app, "format=json&q=nothing").await, "");
}

#[tokio::test]
async fn fields_are_counted_with_their_types_and_no_values() {
    let app = with_documents().await;
    let report = app.admin("/v1/documents/fields").await;
    let queue = &report["queues"][0];
    assert_eq!(
        (&queue["queue"], &queue["versions"]),
        (&json!("exported"), &json!(3))
    );
    let field = |name: &str| {
        let fields = queue["fields"].as_array().expect("a list").iter();
        let mut found = fields.filter(|field| field["name"] == name);
        found.next().cloned().unwrap_or_default()
    };
    assert_eq!(
        field("total"),
        json!({"name": "total", "evidence": "expected", "of": 3, "present": 3, "filled": 2,
               "types": {"number": 2, "null": 1}})
    );
    assert_eq!(
        field("DocNum"),
        json!({"name": "DocNum", "evidence": "proven", "of": 3, "present": 1, "filled": 1,
               "types": {"text": 1}})
    );
    assert_eq!(
        field("line.total"),
        json!({"name": "line.total", "evidence": "expected", "of": 2, "present": 2, "filled": 2,
               "types": {"number": 1, "text": 1}})
    );
    assert_eq!(field("line")["filled"], 1);
    assert_eq!(field("projectcode")["evidence"], Value::Null);
    assert_eq!(field("currency.link")["of"], 1);
    assert_eq!(queue["other_names"], 1, "a company's code is no name");
    let never: Vec<&str> = queue["never"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|field| field["name"].as_str())
        .collect();
    assert!(
        never.contains(&"duedate") && never.contains(&"line.price"),
        "{never:?}"
    );
    assert!(
        never.contains(&"exportedat") && !never.contains(&"digitizedat"),
        "{never:?}"
    );
    assert!(!never.contains(&"docnum"), "{never:?}");
    let text = report.to_string();
    for value in [
        "000123",
        "planted",
        "HYPERLINK",
        "302320404",
        "Lenta",
        "EUR",
    ] {
        assert!(!text.contains(value), "{value}: {text}");
    }

    let newest = app.admin("/v1/documents/fields?newest=1").await;
    assert_eq!(newest["queues"][0]["versions"], 1);
    assert_eq!(newest["more"], true);
    let newest = app.admin("/v1/documents/fields?newest=3&company=1").await;
    assert_eq!(newest["queues"][0]["versions"], 3);
    for wrong in ["newest=0", "newest=100001", "company=%00", "limit=1"] {
        let answer = get(&app, &format!("/v1/documents/fields?{wrong}")).await;
        assert_eq!(code(answer).await.0, 400, "{wrong}");
    }
}

#[tokio::test]
async fn another_reader_of_csv_reads_the_same_cells() {
    const READER: &str = "import csv, io, json, sys\n\
        text = sys.stdin.buffer.read().decode('utf-8-sig')\n\
        print(json.dumps(list(csv.reader(io.StringIO(text, newline=''), delimiter=';', strict=True))))";
    let app = with_documents().await;
    let options = "separator=semicolon&encoding=utf-8-bom&per=line";
    let table = bytes(
        &app,
        &format!("{options}&columns=docnum,sellername,line.name,total"),
    )
    .await;
    let reader = tokio::process::Command::new("python3")
        .args(["-c", READER])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let Ok(mut reader) = reader else {
        return skip(
            "CSV by Python",
            "IVESK_WEBHOOK_TEST_REQUIRE_PYTHON",
            "there is no python3",
        );
    };
    let mut input = reader.stdin.take().expect("a pipe");
    input.write_all(&table).await.expect("written");
    drop(input);
    let output = reader.wait_with_output().await.expect("it ends");
    let rows: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(
        rows,
        json!([
            ["docnum", "sellername", "line.name", "total"],
            [
                "000123",
                "'=HYPERLINK(\"http://x\")",
                "Lenta; 2\" A",
                "1234567890123456789.10"
            ],
            [
                "000123",
                "'=HYPERLINK(\"http://x\")",
                "Varžtas",
                "1234567890123456789.10"
            ],
            ["1.50", "", "", ""],
            ["SF\r\n7", "", "", "-5"],
        ])
    );
}
