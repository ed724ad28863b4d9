//! Requests that a page of another origin sends through a person's browser.

use ivesk_webhook::domain::Queue;

use super::*;
use crate::support::process::Port;

/// Requests `path` with these headers, and returns the status.
async fn status(bench: &Bench, method: &str, path: &str, headers: &[(&str, &str)]) -> u16 {
    let url = format!("{}{path}", bench.emulator.origin());
    let mut request = bench.http.request(method.parse().expect("a method"), url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    read(request).await.status
}

#[tokio::test]
async fn a_foreign_host_or_page_changes_and_reads_nothing() {
    let bench = Bench::start("").await;
    let origin = bench.emulator.origin();
    let port = origin.rsplit(':').next().expect("a port");
    let export = ("/control/export", format!("{{\"company\":\"{COMPANY}\"}}"));
    let before = bench.control.documents(Queue::Exported, COMPANY).len();
    let rebound = format!("evil.example:{port}");
    let disguised = format!("127.0.0.1.evil.example:{port}");
    for headers in [
        [("host", rebound.as_str())].as_slice(),
        &[("host", &disguised)],
        &[("host", "user@127.0.0.1")],
        &[("host", "192.168.1.2")],
        &[("host", "")],
        &[("origin", "https://evil.example")],
        &[("origin", "null")],
        &[("origin", "http://127.0.0.1:1")],
        &[("sec-fetch-site", "cross-site")],
        &[("sec-fetch-site", "same-site")],
    ] {
        let url = format!("{origin}{}", export.0);
        let mut post = bench.http.post(url).body(export.1.clone());
        for (name, value) in headers {
            post = post.header(*name, *value);
        }
        assert_eq!(read(post).await.status, 403, "{headers:?}");
        let confirm = "/?Action=ConfirmSubscription&Token=x";
        assert_eq!(
            status(&bench, "GET", confirm, headers).await,
            403,
            "{headers:?}"
        );
    }
    assert_eq!(
        bench.control.documents(Queue::Exported, COMPANY).len(),
        before
    );

    let localhost = format!("localhost:{port}");
    for headers in [
        [].as_slice(),
        &[("host", localhost.as_str())],
        &[("host", "[::1]")],
        &[("origin", &origin)],
        &[("sec-fetch-site", "same-origin")],
        &[("sec-fetch-site", "none")],
    ] {
        assert_ne!(
            status(&bench, "GET", "/", headers).await,
            403,
            "{headers:?}"
        );
    }
}

#[tokio::test]
async fn other_machines_reach_it_by_its_own_name_or_address_alone() {
    let settings = EmulatorSettings {
        allow_remote: true,
        origin: Some("http://emulator:4566".to_owned()),
        signer: Some(signer()),
        ..EmulatorSettings::default()
    };
    let port = Port::reserve();
    let listen = ([127, 0, 0, 1], port.number).into();
    let _emulator = Emulator::start(settings, listen).await.expect("it starts");
    let http = ivesk_webhook::egress::client(None, Duration::from_secs(60)).expect("a client");
    for (host, refused) in [
        ("emulator:4566", false),
        ("192.168.1.2:4566", false),
        ("evil.example:4566", true),
    ] {
        let url = format!("http://127.0.0.1:{}/", port.number);
        let answer = read(http.get(url).header("host", host)).await;
        assert_eq!(answer.status == 403, refused, "{host}");
    }
}
