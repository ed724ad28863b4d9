//! Chromium, driven over the pipe that it offers (the Chrome DevTools Protocol), so that
//! nothing else has to be installed and no port is open.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::support::process::within;

/// Messages on the pipe end with this byte.
const END: u8 = 0;

/// A browser with one page.
pub(crate) struct Browser {
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    session: Option<String>,
    sent: u64,
    events: VecDeque<Value>,
    // Killed when it is dropped.
    _process: Child,
    // Last, so that the browser is gone before its folder.
    _profile: tempfile::TempDir,
}

/// How a page is looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Looks {
    pub(crate) width: u32,
    pub(crate) dark: bool,
}

/// Chromium's program; none where this machine has none: then the test is left out, and
/// says so.
pub(crate) fn chromium(test: &str) -> Option<PathBuf> {
    let named = std::env::var_os("IVESK_WEBHOOK_TEST_CHROMIUM").map(PathBuf::from);
    let found = named.or_else(|| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let places = std::env::split_paths(&path).map(|folder| folder.join("chromium"));
        places.into_iter().find(|program| program.is_file())
    });
    if found.is_none() {
        leave_out(test, "there is no `chromium`");
    }
    found
}

/// The source of axe-core, which looks for what keeps people out; as [`chromium`].
pub(crate) fn axe(test: &str) -> Option<String> {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-tools/lib");
    let versions = std::fs::read_dir(tools).into_iter().flatten().flatten();
    let mut sources = versions.filter_map(|version| {
        let packages = version.path().join("site-packages");
        std::fs::read_to_string(packages.join("axe_playwright_python/axe.min.js")).ok()
    });
    let source = sources.next();
    if source.is_none() {
        leave_out(
            test,
            "there is no axe-core in target/test-tools; .ci/run puts it there",
        );
    }
    source
}

fn leave_out(test: &str, why: &str) {
    assert!(
        std::env::var_os("IVESK_WEBHOOK_TEST_REQUIRE_CHROMIUM").is_none(),
        "Chromium and axe-core are required, and {why}"
    );
    // Straight to standard error, so that `cargo test` shows it for tests that pass.
    let line = format!("left out in Chromium: {test}: {why}\n");
    let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
}

impl Browser {
    /// Starts Chromium with a profile of its own and an empty page.
    pub(crate) async fn start(program: &Path) -> Self {
        let profile = tempfile::tempdir().expect("a folder");
        // It reads from its file 3 and writes to its file 4: what it inherits as 0 and 1.
        let mut process = Command::new("sh")
            .arg("-c")
            .arg("exec \"$0\" \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1")
            .arg(program)
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--disable-dev-shm-usage",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--hide-scrollbars",
                "--remote-debugging-pipe",
            ])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .env("HOME", profile.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("Chromium starts");
        let mut browser = Self {
            to: process.stdin.take().expect("a pipe"),
            from: BufReader::new(process.stdout.take().expect("a pipe")),
            session: None,
            sent: 0,
            events: VecDeque::new(),
            _process: process,
            _profile: profile,
        };
        let page = browser
            .call("Target.createTarget", json!({"url": "about:blank"}))
            .await;
        let attach = json!({"targetId": page["targetId"], "flatten": true});
        let attached = browser.call("Target.attachToTarget", attach).await;
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in [
            "Page.enable",
            "Runtime.enable",
            "Log.enable",
            "Network.enable",
        ] {
            browser.call(domain, json!({})).await;
        }
        browser
    }

    /// Calls a method of the protocol and gives its result.
    pub(crate) async fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.sent += 1;
        let id = self.sent;
        let mut message = json!({"id": id, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        let mut line = message.to_string().into_bytes();
        line.push(END);
        self.to.write_all(&line).await.expect("Chromium reads");
        loop {
            let message = within(method, self.read()).await;
            if message["id"] != id {
                self.events.push_back(message);
                continue;
            }
            assert!(
                message.get("error").is_none(),
                "{method}: {}",
                message["error"]
            );
            return message["result"].clone();
        }
    }

    async fn read(&mut self) -> Value {
        let mut line = Vec::new();
        self.from
            .read_until(END, &mut line)
            .await
            .expect("Chromium writes");
        assert_eq!(line.pop(), Some(END), "Chromium ended");
        serde_json::from_slice(&line).expect("JSON")
    }

    /// The next event of this name, among those that came and those to come.
    async fn event(&mut self, name: &str) -> Value {
        let is_it = |event: &Value| event["method"] == name;
        if let Some(at) = self.events.iter().position(is_it) {
            return self.events.remove(at).expect("it is there");
        }
        within(name, async {
            loop {
                let event = self.read().await;
                if is_it(&event) {
                    return event;
                }
                self.events.push_back(event);
            }
        })
        .await
    }

    /// Sets how pages are looked at.
    pub(crate) async fn look(&mut self, looks: Looks) {
        let size = json!({
            "width": looks.width, "height": 900, "deviceScaleFactor": 1,
            "mobile": looks.width < 600,
        });
        self.call("Emulation.setDeviceMetricsOverride", size).await;
        let scheme = if looks.dark { "dark" } else { "light" };
        let media = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.call("Emulation.setEmulatedMedia", media).await;
    }

    /// Goes to a page and waits until it is there.
    pub(crate) async fn go(&mut self, url: &str) {
        self.forget_loads();
        let gone = self.call("Page.navigate", json!({"url": url})).await;
        assert!(gone.get("errorText").is_none(), "{url}: {gone}");
        self.event("Page.loadEventFired").await;
    }

    fn forget_loads(&mut self) {
        self.events
            .retain(|event| event["method"] != "Page.loadEventFired");
    }

    /// What an expression gives in the page, as whoever looks into it from outside; the
    /// pages' own rules about scripts don't hold for that.
    pub(crate) async fn ask(&mut self, expression: &str) -> Value {
        let answer = self
            .call(
                "Runtime.evaluate",
                json!({"expression": expression, "returnByValue": true, "awaitPromise": true}),
            )
            .await;
        assert!(
            answer.get("exceptionDetails").is_none(),
            "{expression}: {answer}"
        );
        answer["result"]["value"].clone()
    }

    /// Presses a key, as a person at the keyboard does.
    pub(crate) async fn press(&mut self, key: &str) {
        let code = match key {
            "Tab" => 9,
            "Enter" => 13,
            other => panic!("no key {other}"),
        };
        let text = if key == "Enter" { "\r" } else { "" };
        for kind in ["keyDown", "keyUp"] {
            let mut event = json!({
                "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code,
            });
            if kind == "keyDown" && !text.is_empty() {
                event["text"] = json!(text);
            }
            self.call("Input.dispatchKeyEvent", event).await;
        }
    }

    /// Writes into the field that has the focus.
    pub(crate) async fn write(&mut self, text: &str) {
        self.call("Input.insertText", json!({"text": text})).await;
    }

    /// Goes on with Tab until what has the focus says `name`, presses Enter there and waits
    /// for the page that follows.
    pub(crate) async fn tab_to_and_enter(&mut self, name: &str) {
        for _ in 0..200 {
            self.press("Tab").await;
            let focused = self
                .ask("document.activeElement.ariaLabel || document.activeElement.textContent")
                .await;
            if focused == name {
                self.forget_loads();
                self.press("Enter").await;
                self.event("Page.loadEventFired").await;
                return;
            }
        }
        panic!("Tab never comes to `{name}`");
    }

    /// What the page's console and the browser complained of since it was last asked.
    pub(crate) async fn complaints(&mut self) -> Vec<String> {
        // Whatever was complained of before has come before this answer.
        self.ask("0").await;
        let events = std::mem::take(&mut self.events);
        let complains = |event: &Value| match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => true,
            Some("Runtime.consoleAPICalled") => event["params"]["type"] == "error",
            Some("Log.entryAdded") => event["params"]["entry"]["level"] == "error",
            Some("Network.loadingFailed") => true,
            _ => false,
        };
        let complaints = events.iter().filter(|event| complains(event));
        complaints.map(Value::to_string).collect()
    }

    /// Keeps a picture of the whole page, where `IVESK_WEBHOOK_TEST_PICTURES` names a folder.
    pub(crate) async fn picture(&mut self, name: &str) {
        let Some(folder) = std::env::var_os("IVESK_WEBHOOK_TEST_PICTURES") else {
            return;
        };
        let whole = json!({"captureBeyondViewport": true});
        let picture = self.call("Page.captureScreenshot", whole).await;
        let picture = STANDARD.decode(picture["data"].as_str().expect("base64"));
        let file = Path::new(&folder).join(format!("{name}.png"));
        std::fs::write(file, picture.expect("base64")).expect("the folder is there");
    }
}
