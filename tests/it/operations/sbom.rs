//! The software bill of materials that a release has.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

use crate::support::skip::skip;

#[test]
fn the_sbom_lists_what_is_shipped_with_its_checksums() {
    const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/sbom");
    let run = || Command::new("python3").arg(SCRIPT).output();
    let output = match run() {
        Ok(output) => output,
        Err(error) => {
            let why = format!("python3: {error}");
            return skip("the SBOM", "IVESK_WEBHOOK_TEST_REQUIRE_PYTHON", &why);
        }
    };
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    assert_eq!(
        output.stdout,
        run().expect("it ran").stdout,
        "the same each time"
    );
    let sbom: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(
        (&sbom["bomFormat"], &sbom["specVersion"]),
        (&"CycloneDX".into(), &"1.5".into())
    );
    assert_eq!(sbom["metadata"]["component"]["name"], "ivesk-webhook");

    let lock = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.lock");
    let lock = std::fs::read_to_string(lock).expect("readable");
    let lock: toml::Table = toml::from_str(&lock).expect("TOML");
    let mut names = BTreeSet::new();
    let mut references =
        BTreeSet::from(["pkg:cargo/ivesk-webhook@".to_owned() + env!("CARGO_PKG_VERSION")]);
    for component in sbom["components"].as_array().expect("a list") {
        let text = |field: &str| component[field].as_str().expect("text");
        let locked = lock["package"]
            .as_array()
            .expect("a list")
            .iter()
            .find(|package| {
                package["name"].as_str() == Some(text("name"))
                    && package["version"].as_str() == Some(text("version"))
            });
        let locked = locked.unwrap_or_else(|| panic!("{component}"));
        let checksum = locked.get("checksum").and_then(toml::Value::as_str);
        assert_eq!(component["hashes"][0]["content"].as_str(), checksum);
        assert!(
            component["licenses"][0]["expression"].is_string(),
            "{component}"
        );
        references.insert(text("bom-ref").to_owned());
        names.insert(text("name"));
    }
    for shipped in [
        "rusqlite",
        "libsqlite3-sys",
        "rustls",
        "aws-lc-sys",
        "reqwest",
        "sns-messages",
    ] {
        assert!(names.contains(shipped), "{shipped}");
    }
    for of_tests in ["proptest", "tempfile"] {
        assert!(!names.contains(of_tests), "{of_tests}");
    }
    for node in sbom["dependencies"].as_array().expect("a list") {
        let others = node["dependsOn"].as_array().expect("a list");
        for reference in others.iter().chain([&node["ref"]]) {
            assert!(
                references.contains(reference.as_str().expect("text")),
                "{reference}"
            );
        }
    }
}
