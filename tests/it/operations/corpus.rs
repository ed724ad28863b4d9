//! Inputs that receivers of SNS messages, and earlier builds of this one, once took wrong.
//!
//! Each file of `fixtures/corpus` is one input, in a folder that says how it must end. Pages are
//! tested where they are read (`src/ivesk/page.rs`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ivesk_webhook::config::{Config, SnsConfig};
use ivesk_webhook::domain::Clock;
use ivesk_webhook::sns::{Envelope, NoCertificateStore, SnsHeaders, Verifier};
use serde_json::{Value, json};

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/corpus");

/// Checks that `accepts` agrees with the folder of every file of this kind.
fn assert_each(kind: &str, accepts: impl Fn(&[u8]) -> bool) {
    for (folder, expected) in [("accepted", true), ("refused", false)] {
        let folder = Path::new(CORPUS).join(kind).join(folder);
        let files = std::fs::read_dir(&folder).expect("a folder");
        let files: Vec<PathBuf> = files.map(|file| file.expect("a file").path()).collect();
        assert!(!files.is_empty());
        for file in files {
            let content = std::fs::read(&file).expect("readable");
            assert_eq!(accepts(&content), expected, "{}", file.display());
        }
    }
}

#[test]
fn messages_that_were_once_taken_wrong_are_taken_right() {
    assert_each("envelopes", |body| {
        Envelope::parse(body.to_vec().into(), &SnsHeaders::default()).is_ok()
    });
}

#[test]
fn settings_that_were_once_taken_wrong_are_taken_right() {
    assert_each("settings", |text| {
        let text = std::str::from_utf8(text).expect("text");
        Config::parse(text, Path::new("/etc/ivesk"), &BTreeMap::new()).is_ok()
    });
}

#[tokio::test]
async fn no_certificate_url_that_was_once_trusted_is_requested() {
    let urls = std::fs::read_to_string(Path::new(CORPUS).join("certificate-urls.txt"));
    let urls = urls.expect("readable");
    let message = Path::new(CORPUS).join("envelopes/accepted/unknown-fields.json");
    let message = std::fs::read(message).expect("readable");
    let mut message: Value = serde_json::from_slice(&message).expect("JSON");
    let settings = SnsConfig::default().settings();
    let store = std::sync::Arc::new(NoCertificateStore);
    let verifier = Verifier::new(&settings, store, Clock::system()).expect("TLS");
    for url in urls.lines().filter(|line| !line.starts_with('#')) {
        message["SigningCertURL"] = json!(url);
        let envelope = Envelope::parse(message.to_string().into(), &SnsHeaders::default());
        let code = match envelope {
            Ok(envelope) => verifier.verify(envelope).await.expect_err(url).code(),
            Err(error) => error.code(),
        };
        assert_eq!(code, "untrusted_certificate_url", "{url}");
    }
}
