//! Chromium, controlled through a pipe (the Chrome DevTools Protocol): nothing else has to be
//! installed, and no port is open.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::support::process::within;
use crate::support::skip::skip;

/// Last byte of each message on the pipe.
const END: u8 = 0;

/// Variable under which no test of pages may be skipped.
const REQUIRED: &str = "IVESK_WEBHOOK_TEST_REQUIRE_CHROMIUM";

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

/// A window's width and color scheme.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Viewport {
    pub(crate) width: u32,
    pub(crate) dark: bool,
}

/// Returns Chromium's program, or skips the test and returns `None`.
pub(crate) fn chromium(test: &str) -> Option<PathBuf> {
    let named = std::env::var_os("IVESK_WEBHOOK_TEST_CHROMIUM").map(PathBuf::from);
    let found = named.or_else(|| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let places = std::env::split_paths(&path).map(|folder| folder.join("chromium"));
        places.into_iter().find(|program| program.is_file())
    });
    if found.is_none() {
        skip(test, REQUIRED, "there is no `chromium`");
    }
    found
}

/// Returns the source of axe-core, which checks accessibility; skips as [`chromium`] does.
pub(crate) fn axe(test: &str) -> Option<String> {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-tools/lib");
    let versions = std::fs::read_dir(tools).into_iter().flatten().flatten();
    let mut sources = versions.filter_map(|version| {
        let packages = version.path().join("site-packages");
        std::fs::read_to_string(packages.join("axe_playwright_python/axe.min.js")).ok()
    });
    let source = sources.next();
    if source.is_none() {
        let why = "there is no axe-core in target/test-tools; .ci/run puts it there";
        skip(test, REQUIRED, why);
    }
    source
}

impl Browser {
    /// Starts Chromium with a profile of its own and an empty page.
    pub(crate) async fn start(program: &Path) -> Self {
        let profile = tempfile::tempdir().expect("a folder");
        // Chromium reads file descriptor 3 and writes 4; the shell connects them to 0 and 1.
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

    /// Calls a method of the protocol and returns its result.
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

    /// Returns the next event of this name, from those already read or still to be read.
    async fn event(&mut self, name: &str) -> Value {
        let matches = |event: &Value| event["method"] == name;
        if let Some(at) = self.events.iter().position(matches) {
            return self.events.remove(at).expect("it is there");
        }
        within(name, async {
            loop {
                let event = self.read().await;
                if matches(&event) {
                    return event;
                }
                self.events.push_back(event);
            }
        })
        .await
    }

    /// Sets the window's width and color scheme.
    pub(crate) async fn set_viewport(&mut self, viewport: Viewport) {
        let size = json!({
            "width": viewport.width, "height": 900, "deviceScaleFactor": 1,
            "mobile": viewport.width < 600,
        });
        self.call("Emulation.setDeviceMetricsOverride", size).await;
        let scheme = if viewport.dark { "dark" } else { "light" };
        let media = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.call("Emulation.setEmulatedMedia", media).await;
    }

    /// Opens a page and waits until it is loaded.
    pub(crate) async fn open(&mut self, url: &str) {
        self.forget_loads();
        let opened = self.call("Page.navigate", json!({"url": url})).await;
        assert!(opened.get("errorText").is_none(), "{url}: {opened}");
        self.event("Page.loadEventFired").await;
    }

    fn forget_loads(&mut self) {
        self.events
            .retain(|event| event["method"] != "Page.loadEventFired");
    }

    /// Evaluates a JavaScript expression in the page, outside of its content security policy.
    pub(crate) async fn evaluate(&mut self, expression: &str) -> Value {
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

    /// Presses a key.
    pub(crate) async fn press(&mut self, key: &str) {
        let code = match key {
            "Tab" => 9,
            "Enter" => 13,
            " " => 32,
            "/" => 191,
            other => panic!("no key {other}"),
        };
        let text = match key {
            "Enter" => "\r",
            "Tab" => "",
            other => other,
        };
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

    /// Presses a key, and waits for the page that follows.
    pub(crate) async fn press_and_load(&mut self, key: &str) {
        self.forget_loads();
        self.press(key).await;
        self.event("Page.loadEventFired").await;
    }

    /// Writes into the focused field.
    pub(crate) async fn write(&mut self, text: &str) {
        self.call("Input.insertText", json!({"text": text})).await;
    }

    /// Presses Tab until the focused element is called `name`, then Enter; waits for the page
    /// that follows.
    pub(crate) async fn tab_to_and_enter(&mut self, name: &str) {
        for _ in 0..400 {
            self.press("Tab").await;
            let focused = self
                .evaluate("document.activeElement.ariaLabel || document.activeElement.textContent")
                .await;
            if focused == name {
                self.press_and_load("Enter").await;
                return;
            }
        }
        panic!("Tab never reaches `{name}`");
    }

    /// Returns the errors of console and browser since the last call.
    pub(crate) async fn errors(&mut self) -> Vec<String> {
        // Every earlier event precedes this answer.
        self.evaluate("0").await;
        let events = std::mem::take(&mut self.events);
        let is_error = |event: &Value| match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => true,
            Some("Runtime.consoleAPICalled") => event["params"]["type"] == "error",
            Some("Log.entryAdded") => event["params"]["entry"]["level"] == "error",
            Some("Network.loadingFailed") => true,
            _ => false,
        };
        let errors = events.iter().filter(|event| is_error(event));
        errors.map(Value::to_string).collect()
    }

    /// Saves a picture of the whole page if `IVESK_WEBHOOK_TEST_PICTURES` names a folder.
    pub(crate) async fn picture(&mut self, name: &str) {
        self.capture(name, true).await;
    }

    /// Saves a picture of what the window shows, as [`Browser::picture`] does.
    pub(crate) async fn picture_of_window(&mut self, name: &str) {
        self.capture(name, false).await;
    }

    async fn capture(&mut self, name: &str, whole: bool) {
        let Some(folder) = std::env::var_os("IVESK_WEBHOOK_TEST_PICTURES") else {
            return;
        };
        let options = json!({"captureBeyondViewport": whole});
        let picture = self.call("Page.captureScreenshot", options).await;
        let picture = STANDARD.decode(picture["data"].as_str().expect("base64"));
        let file = Path::new(&folder).join(format!("{name}.png"));
        std::fs::write(file, picture.expect("base64")).expect("the folder is there");
    }
}
