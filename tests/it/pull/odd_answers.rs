//! Pages that are not quite what the API documents, from the answer's bytes to the stored rows.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use ivesk_webhook::pull::PullOutcome;
use serde_json::{Value, json};

use crate::support::process::{Installation, within};
use crate::support::puller::{Bench, COMPANY, exported, stored, tally};
use crate::support::stand_in::{Answer, StandIn};

/// Pulls the answer as a feed's first page.
async fn pulled(answer: Answer) -> (Bench, Vec<PullOutcome>) {
    let server = StandIn::start([answer]).await;
    let url = server.url("/api/pub").parse().expect("a URL");
    let bench = Bench::with("", |config| {
        config.api.url = url;
        config.api.max_page_bytes = 4096;
    })
    .await;
    let steps = bench.settle().await;
    (bench, steps)
}

/// Returns the error that an answer leads to, after which nothing is stored.
async fn failure(answer: Answer) -> String {
    let (bench, steps) = pulled(answer).await;
    assert_eq!(tally(&steps), (0, 1));
    let row = bench.feed(&exported(COMPANY)).await;
    assert_eq!(bench.documents().await.len(), 0);
    row.last_error.expect("an error")
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text).expect("written");
    encoder.finish().expect("written")
}

const PAGE: &str = r#"{"documents":[{"id":"b1","exportedat":"a"}]}"#;

#[tokio::test]
async fn one_bad_byte_costs_neither_its_page_nor_its_document() {
    let body = b"{\"documents\":[{\"id\":\"b1\",\"exportedat\":\"a\"},\
                 {\"id\":\"b2\",\"docnum\":\"s\xff\",\"exportedat\":\"b\"},\
                 {\"id\":\"b3\",\"docnum\":\"1\x01\n\",\"exportedat\":\"c\"}]}";
    let (bench, steps) = pulled(Answer::ok(body.to_vec())).await;
    assert_eq!(tally(&steps), (3, 0));
    let rows = bench.documents().await;
    let numbers: Vec<Value> = rows
        .iter()
        .map(|row| serde_json::from_slice(row.body.as_deref().expect("a body")).expect("JSON"))
        .map(|document: Value| document["docnum"].clone())
        .collect();
    assert_eq!(
        numbers,
        [Value::Null, json!("s\u{fffd}"), json!("1\u{1}\n")]
    );
    let row = bench.feed(&exported(COMPANY)).await;
    assert_eq!((row.unreadable, row.last_error), (0, None));
}

#[tokio::test]
async fn an_id_that_is_not_utf_8_is_kept_as_unreadable() {
    let body = b"{\"documents\":[{\"id\":\"b\xff\",\"exportedat\":\"a\"},\
                 {\"id\":\"b\xfe\",\"exportedat\":\"a\"},{\"id\":\"b1\",\"exportedat\":\"c\"}]}";
    let (bench, _) = pulled(Answer::ok(body.to_vec())).await;
    let rows = bench.documents().await;
    let expected = [("b1".to_owned(), "c".to_owned())];
    assert_eq!(stored(&rows, &exported(COMPANY)), expected);
    // Both are the same once the bad bytes are replaced.
    assert_eq!(bench.feed(&exported(COMPANY)).await.unreadable, 1);
}

#[tokio::test]
async fn gzip_is_read_whether_or_not_a_header_names_it() {
    for named in [true, false] {
        let mut answer = Answer::ok(gzip(PAGE.as_bytes()));
        if named {
            answer = answer.with("content-encoding", "gzip");
        }
        let (_, steps) = pulled(answer).await;
        assert_eq!(tally(&steps), (1, 0), "{named}");
    }
}

#[tokio::test]
async fn gzip_that_grows_past_the_bound_is_not_read() {
    let large = format!("{{\"documents\":[\"{}\"]}}", "x".repeat(5000));
    let error = failure(Answer::ok(gzip(large.as_bytes()))).await;
    assert!(error.contains("`api.max_page_bytes`"), "{error}");
}

#[tokio::test]
async fn another_encoding_is_named_in_the_feeds_error() {
    let wide: Vec<u8> = PAGE.encode_utf16().flat_map(u16::to_be_bytes).collect();
    let error = failure(Answer::ok(wide)).await;
    assert!(error.contains("UTF-16"), "{error}");
    let compressed = Answer::ok("?").with("content-encoding", "br");
    let error = failure(compressed).await;
    assert!(error.contains("compressed as `br`"), "{error}");
    let baltic = Answer::ok(b"{\"documents\":[{\"id\":\"\xd0\"}]}".to_vec())
        .with("content-type", "application/json; charset=windows-1257");
    let error = failure(baltic).await;
    assert!(error.contains("windows-1257"), "{error}");
}

#[tokio::test]
async fn null_and_nothing_are_an_empty_page() {
    for answer in [
        Answer::ok(r#"{"documents":null}"#),
        Answer::ok(r#"{"$schema":"x"}"#),
        Answer::status(204, ""),
    ] {
        let (bench, steps) = pulled(answer).await;
        assert_eq!(tally(&steps), (0, 0));
        assert!(matches!(steps[..], [PullOutcome::Page { .. }]), "{steps:?}");
        let row = bench.feed(&exported(COMPANY)).await;
        assert_eq!((row.failures, row.last_error), (0, None));
    }
}

/// Returns the most memory, in bytes, that `serve` has used once it has stored a page of
/// `documents` with `bytes` each, and the size of the page.
async fn peak_memory(documents: usize, bytes: usize) -> (usize, usize) {
    let text = "ąčęėįšųūž ".repeat(bytes / 19);
    let list: Vec<String> = (0..documents)
        .map(|number| format!(r#"{{"id":"d{number}","exportedat":"a","comment":"{text}"}}"#))
        .collect();
    let page = format!("{{\"documents\":[{}]}}", list.join(","));
    let size = page.len();
    let server = StandIn::start([Answer::ok(page)]).await;
    let installation = Installation::with_key(&format!(
        "[api]\nurl = \"{}\"\nexported_path = \"path\"\n\
         [accounts.default]\ndigitized = false\ncompanies = [\"{COMPANY}\"]\n",
        server.url("/api/pub")
    ));
    let mut service = installation.start().await;
    service.ready().await;
    let stored = format!("stored {documents} new document versions");
    within("the page", async {
        while !service.log().contains(&stored) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let status = format!("/proc/{}/status", service.pid().as_raw_nonzero());
    let status = std::fs::read_to_string(status).expect("readable");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib: String = peak
        .expect("a line")
        .chars()
        .filter(char::is_ascii_digit)
        .collect();
    let peak = kib.parse::<usize>().expect("a number") * 1024;
    eprintln!("{documents} documents of {bytes} bytes: peak {peak} bytes, page {size} bytes");
    (peak, size)
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn a_page_of_30_megabytes_needs_three_times_its_size() {
    let (idle, _) = peak_memory(1, 1000).await;
    // SQLite copies a single value twice while it is inserted.
    for (documents, bytes, times) in [(100, 300_000, 3), (15_000, 2_000, 3), (1, 30_000_000, 4)] {
        let (peak, size) = peak_memory(documents, bytes).await;
        let needed = peak.saturating_sub(idle);
        assert!(
            needed <= times * size,
            "{documents}: {needed} bytes for {size}"
        );
    }
}
