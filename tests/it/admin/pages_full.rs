//! The pages with a full store: 10,000 documents of 200 companies. In a browser, on a phone and on a
//! desk, in both languages and color schemes; and the work of a bookkeeper with the keyboard alone.

use std::path::PathBuf;

use reqwest::Method;
use serde_json::{Value, json};

use crate::admin::pages::{checks_of, faults, form_token, page_and_cookie, submit};
use crate::support::app::TestApp;
use crate::support::browser::{Browser, Viewport, axe, chromium};
use crate::support::full_store::{BOOKS, COMPANIES, DOCUMENTS, code, full_store, name, number};

/// Height of a page on a phone that nobody scrolls through, in pixels.
const TALLEST: u64 = 12_000;

/// Every page, by the name of its picture.
pub(crate) fn pages() -> Vec<(&'static str, String)> {
    let books = format!("/deliveries?destination={BOOKS}&state=rejected");
    let start = format!(
        "/destinations?start={BOOKS}&since=2026-11-01&company={}",
        code(4)
    );
    let of_company = format!("/documents?company={}&state=rejected&sort=-amount", code(4));
    let found = [
        ("overview", "/"),
        ("documents", "/documents"),
        ("documents-filtered", &of_company),
        ("documents-sorted", "/documents?sort=-amount"),
        ("document", "/documents/48"),
        ("document-rejected", "/documents/50"),
        ("destinations", "/destinations"),
        ("destination-start", &start),
        ("deliveries", &books),
        ("feeds", "/feeds"),
        ("import-errors", "/import-errors"),
        ("uploads", "/uploads"),
        ("alarms", "/alarms"),
        ("subscriptions", "/subscriptions"),
        ("quarantine", "/quarantine"),
        ("quarantine-one", "/quarantine/1"),
        ("certificates", "/certificates"),
        ("audit", "/audit"),
    ];
    found.map(|(name, path)| (name, path.to_owned())).to_vec()
}

fn address(app: &TestApp, path: &str, language: &str) -> String {
    let mark = if path.contains('?') { '&' } else { '?' };
    format!(
        "http://{}{path}{mark}lang={language}",
        app.config().admin.listen
    )
}

async fn log_in(app: &TestApp, browser: &mut Browser) {
    browser.open(&app.login_link().await).await;
    browser.tab_to_and_enter("Log in").await;
}

/// Returns what is broken in the layout: text inside of a number or a time, a page without an end.
async fn broken(browser: &mut Browser, width: u32) -> Vec<String> {
    let mut broken = Vec::new();
    let numbers = browser
        .evaluate(
            "[...document.querySelectorAll('.amount, time, .nowrap, .numbers dd, td.number > div')]
                 .filter(one => {
                     const range = document.createRange();
                     range.selectNodeContents(one);
                     const tops = [...range.getClientRects()].filter(r => r.width > 1).map(r => Math.round(r.top / 8));
                     return new Set(tops).size > 1;
                 }).map(one => one.textContent).slice(0, 3)",
        )
        .await;
    for text in numbers.as_array().expect("a list") {
        broken.push(format!("broken inside of {text}"));
    }
    let words = browser
        .evaluate(
            "[...document.querySelectorAll('th, .badge, button, .action, nav a, dt')]
                 .filter(one => one.scrollWidth > one.clientWidth + 1 && getComputedStyle(one).display !== 'inline')
                 .map(one => one.textContent).slice(0, 3)",
        )
        .await;
    for text in words.as_array().expect("a list") {
        broken.push(format!("cut off: {text}"));
    }
    let height = browser
        .evaluate("document.documentElement.scrollHeight")
        .await;
    if width < 600 && height.as_u64() > Some(TALLEST) {
        broken.push(format!("{height} px tall"));
    }
    broken
}

#[tokio::test]
async fn with_a_full_store_no_page_breaks_on_phone_or_desk() {
    let test = "pages with a full store";
    let (Some(program), Some(axe)) = (chromium(test), axe(test)) else {
        return;
    };
    let app = full_store().await;
    let mut browser = Browser::start(&program).await;
    log_in(&app, &mut browser).await;
    // A quick look needs one color scheme.
    let is_quick = std::env::var_os("IVESK_WEBHOOK_TEST_PICTURES_QUICK").is_some();
    let shades: &[(&str, bool)] = match is_quick {
        true => &[("light", false)],
        false => &[("light", false), ("dark", true)],
    };
    let mut found = Vec::new();
    for (shade, dark) in shades {
        for width in [1280, 390] {
            browser.set_viewport(Viewport { width, dark: *dark }).await;
            for language in ["en", "lt"] {
                for (page, path) in pages() {
                    browser.open(&address(&app, &path, language)).await;
                    let name = format!("{page}-{language}-{width}-{shade}");
                    let mut here = broken(&mut browser, width).await;
                    let checks = checks_of(language, *dark);
                    here.extend(faults(&mut browser, &axe, checks).await);
                    found.extend(here.iter().map(|fault| format!("{name}: {fault}")));
                    browser.picture(&name).await;
                    if width == 1280 && !dark {
                        save_html(&mut browser, &format!("{page}-{language}")).await;
                    }
                }
            }
        }
    }
    readme_pictures(&app, &mut browser).await;
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// Makes the pictures of docs/images.
async fn readme_pictures(app: &TestApp, browser: &mut Browser) {
    for (name, path, language, width, dark) in [
        ("overview", "/", "en", 1280, false),
        ("documents-lt", "/documents", "lt", 1280, false),
        ("document-lt-phone", "/documents/50", "lt", 390, true),
    ] {
        browser.set_viewport(Viewport { width, dark }).await;
        browser.open(&address(app, path, language)).await;
        browser.picture_of_window(&format!("readme-{name}")).await;
    }
}

/// Saves the page beside its picture, so that its style can be tried out.
async fn save_html(browser: &mut Browser, name: &str) {
    if let Some(folder) = std::env::var_os("IVESK_WEBHOOK_TEST_PICTURES") {
        let html = browser.evaluate("document.documentElement.outerHTML").await;
        let file = PathBuf::from(folder).join(format!("{name}.html"));
        let html = format!("<!DOCTYPE html>{}", html.as_str().expect("text"));
        std::fs::write(file, html).expect("the folder is there");
    }
}

async fn read(app: &TestApp, path: &str) -> String {
    let response = app.admin_request(Method::GET, path).send().await;
    let response = response.expect("an answer");
    assert_eq!(response.status(), 200, "{path}");
    response.text().await.expect("text")
}

fn rows(page: &str) -> usize {
    page.matches("<tr role=\"row\">").count().saturating_sub(1)
}

#[tokio::test]
async fn documents_are_found_filtered_and_sorted_by_address() {
    let app = full_store().await;
    let all = read(&app, "/documents").await;
    assert_eq!(rows(&all), 50);
    // One row for a document of both queues.
    let both = read(&app, &format!("/documents?q={}", number(3, 47))).await;
    assert_eq!(rows(&both), 1, "{both}");
    // Only digitized so far.
    let digitized = read(&app, &format!("/documents?q={}", number(5, 51))).await;
    assert_eq!(rows(&digitized), 1, "{digitized}");
    let of_company = read(&app, &format!("/documents?company={}", code(9))).await;
    assert_eq!(rows(&of_company), 50);
    assert!(
        of_company.contains(&name(9).replace('"', "&quot;")),
        "{of_company}"
    );
    let rejected = format!("/documents?state=rejected&destination={BOOKS}");
    let rejected = read(&app, &rejected).await;
    assert_eq!(rows(&rejected), 50);
    assert_eq!(
        rejected.matches(">rejected</span>").count(),
        50,
        "{rejected}"
    );
    let held = read(&app, "/documents?state=held&destination=archyvas").await;
    assert_eq!(rows(&held), 50);
    let day = format!(
        "/documents?company={}&since=2026-11-22&until=2026-11-22",
        code(9)
    );
    let day = read(&app, &day).await;
    assert_eq!(rows(&day), 2, "{day}");
    let amounts = read(
        &app,
        &format!("/documents?company={}&sort=amount&lang=lt", code(9)),
    )
    .await;
    let shown: Vec<f64> = amounts
        .split("<span class=\"amount\">")
        .skip(1)
        .map(|rest| {
            let amount = rest.split("EUR").next().expect("an amount");
            let amount = amount.replace('\u{a0}', "").replace(',', ".");
            amount.parse().expect("a number")
        })
        .collect();
    assert_eq!(shown.len(), 50);
    assert!(shown.is_sorted(), "{shown:?}");
    // The second page continues behind the first.
    let next = all.split("class=\"next\" href=\"").nth(1).expect("a link");
    let next = next
        .split('"')
        .next()
        .expect("a link")
        .replace("&amp;", "&");
    let second = read(&app, &next).await;
    assert_eq!(rows(&second), 50);
    let first_of = |page: &str| {
        page.split("/documents/")
            .nth(2)
            .map(|rest| rest[..6].to_owned())
    };
    assert_ne!(first_of(&all), first_of(&second));
    let count = app.store.sequence().await.expect("readable").last;
    assert_eq!(count as usize, DOCUMENTS + 2);
}

#[tokio::test]
async fn a_sorted_part_says_what_is_in_it_and_goes_on() {
    let app = full_store().await;
    let (mut path, mut sorted, mut parts) = ("/documents?sort=-amount".to_owned(), 0, 0);
    loop {
        let page = read(&app, &path).await;
        assert!(page.contains("received from <time"), "{page}");
        parts += 1;
        // The table for a spreadsheet has the same part, in its order.
        let table = page.split("<a href=\"/documents/export").nth(1);
        let table = table.and_then(|rest| rest.split('"').next());
        let table = table.expect("a link").replace("&amp;", "&");
        let table = read(&app, &format!("/documents/export{table}")).await;
        sorted += table.lines().count() - 1;
        let more = page
            .split("\">Sort older ones")
            .next()
            .filter(|before| before.len() < page.len());
        let Some(before) = more else { break };
        let next = before.rsplit("href=\"").next().expect("a link");
        path = next.replace("&amp;", "&");
    }
    // One document is in both queues.
    assert_eq!((sorted, parts), (DOCUMENTS + 1, 3));
    let name = async |path: &str| {
        let answer = app.admin_request(Method::GET, path).send().await;
        let answer = answer.expect("an answer");
        let header = answer.headers()["content-disposition"].to_str();
        header.expect("text").to_owned()
    };
    let cut = name("/documents/export?type=invoice").await;
    assert!(cut.contains("documents-received-since-2026-"), "{cut}");
    for whole in ["", &format!("?type=invoice&company={}", code(9))] {
        let whole = name(&format!("/documents/export{whole}")).await;
        assert!(whole.contains("\"documents.csv\""), "{whole}");
    }
}

#[tokio::test]
async fn the_overview_tells_when_companies_were_last_pulled() {
    let app = TestApp::spawn().await;
    let last = async |language: &str| {
        let page = read(&app, &format!("/?lang={language}")).await;
        let row = page
            .split("<a href=\"/feeds\">")
            .nth(2)
            .expect("the row of companies");
        let row = row.split("</tr>").next().expect("a row");
        row.rsplit("<td").next().expect("a cell").to_owned()
    };
    assert!(last("en").await.contains('–'), "nothing was pulled yet");
    app.store_documents(&[json!({"id": "d-1"})]).await;
    app.clock.advance(std::time::Duration::from_secs(300));
    assert!(
        last("en").await.contains("5\u{a0}min ago"),
        "{}",
        last("en").await
    );
    assert!(last("lt").await.contains("prieš 5\u{a0}min."));
    // A paused one was pulled all the same.
    app.admin_post("/v1/feeds/pause", &json!({})).await;
    assert!(
        last("en").await.contains("5\u{a0}min ago"),
        "{}",
        last("en").await
    );
}

#[tokio::test]
async fn companies_are_searched_by_name_code_and_state() {
    let app = full_store().await;
    let all = read(&app, "/feeds").await;
    assert_eq!(rows(&all), 50);
    // Those of the documents, and the one that notifications name.
    assert!(
        all.contains(&format!("{}\u{a0}companies", COMPANIES + 1)),
        "{all}"
    );
    for text in ["žvaigždė 3", &code(60)] {
        let encoded: String = url::form_urlencoded::byte_serialize(text.as_bytes()).collect();
        let found = read(&app, &format!("/feeds?q={encoded}")).await;
        assert_eq!(rows(&found), 1, "{found}");
        assert!(found.contains(&code(60)), "{found}");
    }
    let paused = read(&app, "/feeds?state=paused").await;
    assert!(rows(&paused) > 3, "{paused}");
    assert_eq!(
        rows(&paused),
        paused.matches(">paused</span>").count(),
        "{paused}"
    );
}

async fn focused(browser: &mut Browser) -> Value {
    browser
        .evaluate("document.activeElement.ariaLabel || document.activeElement.textContent")
        .await
}

/// Presses Tab until the element of this CSS selector has the focus.
async fn tab_to(browser: &mut Browser, selector: &str) {
    let is_there = format!("document.activeElement.matches({selector:?})");
    for _ in 0..400 {
        if browser.evaluate(&is_there).await == true {
            return;
        }
        browser.press("Tab").await;
    }
    panic!(
        "Tab never reaches `{selector}`, but {}",
        focused(browser).await
    );
}

const WHERE: &str = "location.pathname + location.search";

#[tokio::test]
async fn a_bookkeepers_questions_are_answered_by_keyboard() {
    let Some(program) = chromium("the keyboard answers questions") else {
        return;
    };
    let app = full_store().await;
    let mut browser = Browser::start(&program).await;
    browser
        .call(
            "Emulation.setScriptExecutionDisabled",
            json!({"value": true}),
        )
        .await;
    log_in(&app, &mut browser).await;

    // Where is invoice AB-12347?
    tab_to(&mut browser, "#find").await;
    browser.write("ab-12347").await;
    browser.press_and_load("Enter").await;
    assert_eq!(browser.evaluate(WHERE).await, "/documents?q=ab-12347");
    browser.tab_to_and_enter("AB-12347").await;
    let heading = browser
        .evaluate("document.querySelector('h1').textContent")
        .await;
    assert_eq!(heading, "Document AB-12347");
    let states = browser
        .evaluate("[...document.querySelectorAll('.cards .badge')].map(one => one.textContent)")
        .await;
    assert_eq!(states.as_array().map(Vec::len), Some(2), "{states}");

    // Why was it rejected, and what now?
    browser.tab_to_and_enter("Overview").await;
    tab_to(&mut browser, "a.problem").await;
    browser.press_and_load("Enter").await;
    let path = format!("/deliveries?destination={BOOKS}&state=rejected");
    assert_eq!(browser.evaluate(WHERE).await, path);
    let reason = browser
        .evaluate("document.querySelector('td.reason').textContent")
        .await;
    assert!(!reason.as_str().expect("text").is_empty());
    let before = app.admin("/v1/destinations").await;
    tab_to(&mut browser, "input[name=sequence]").await;
    browser.press(" ").await;
    browser.tab_to_and_enter("Retry chosen").await;
    let notice = browser
        .evaluate("document.querySelector('[role=status]').textContent")
        .await;
    assert_eq!(notice, "1\u{a0}document is delivered now.");
    let rejected = |state: &Value| {
        let rows = state["rows"].as_array().expect("a list").iter();
        rows.map(|row| row["rejected_now"].as_u64().expect("a number"))
            .sum::<u64>()
    };
    let after = app.admin("/v1/destinations").await;
    assert_eq!(rejected(&after), rejected(&before) - 1);

    // Start the new company from the first of this month.
    let company = code(21);
    browser
        .open(&address(&app, &format!("/feeds?q={company}"), "en"))
        .await;
    tab_to(&mut browser, "details.menu > summary").await;
    browser.press(" ").await;
    browser
        .tab_to_and_enter(&format!("Start delivery: {} ({company})", name(21)))
        .await;
    let there = browser.evaluate(WHERE).await;
    let there = there.as_str().expect("text");
    assert!(there.starts_with("/destinations?start="), "{there}");
    assert!(
        there.contains("since=2026-12-01") || there.contains("since=2026-11-01"),
        "{there}"
    );
    tab_to(&mut browser, "input[name=since], .confirm button").await;
    let plan = browser
        .evaluate("document.querySelector('.confirm')?.textContent")
        .await;
    assert!(plan.as_str().expect("text").contains(&company), "{plan}");

    // Approve the unknown topic.
    browser.tab_to_and_enter("Overview").await;
    let first = browser
        .evaluate("document.querySelector('.attention li').textContent")
        .await;
    assert!(
        first.as_str().expect("text").contains("123456789012"),
        "{first}"
    );
    tab_to(&mut browser, ".attention li:first-child a.action").await;
    browser.press_and_load("Enter").await;
    browser
        .tab_to_and_enter("Allow this topic: default/on_exported")
        .await;
    let notice = browser
        .evaluate("document.querySelector('[role=status]').textContent")
        .await;
    assert_eq!(notice, "Subscription confirmed.");

    // What is wrong after this night?
    browser.tab_to_and_enter("Overview").await;
    let sentence = browser
        .evaluate("document.querySelector('p.state').textContent")
        .await;
    assert!(
        sentence
            .as_str()
            .expect("text")
            .contains("need your attention"),
        "{sentence}"
    );
    assert_eq!(browser.errors().await, [""; 0]);
}

#[tokio::test]
async fn the_script_refreshes_in_place_and_finds_the_search() {
    let Some(program) = chromium("the script refreshes") else {
        return;
    };
    let app = full_store().await;
    let mut browser = Browser::start(&program).await;
    log_in(&app, &mut browser).await;
    browser.press("/").await;
    assert_eq!(browser.evaluate("document.activeElement.id").await, "find");
    browser.evaluate("document.activeElement.blur(); 0").await;
    // Something is open, something has the focus, and the page, which is long on a phone, is scrolled.
    // The old heading is marked without changing its size.
    let phone = Viewport {
        width: 390,
        dark: false,
    };
    browser.set_viewport(phone).await;
    browser
        .evaluate(
            "document.querySelector('.attention details').open = true;
             document.querySelector('.parts a').focus();
             document.querySelector('h1').dataset.old = 'yes'; window.scrollTo(0, 100); 0",
        )
        .await;
    browser.evaluate("refresh()").await;
    let place = browser
        .evaluate(
            "[document.querySelector('h1').dataset.old === undefined, document.querySelector('.attention details').open,
              document.activeElement === document.querySelector('.parts a'), window.scrollY]",
        )
        .await;
    assert_eq!(place, json!([true, true, true, 100]));
    assert_eq!(browser.errors().await, [""; 0]);
}

/// Answers every request with this response, and returns the address.
async fn file_host(response: Vec<u8>) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
    let listener = listener.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let mut head = [0; 4_096];
            let _ = connection.read(&mut head).await;
            let _ = connection.write_all(&response).await;
        }
    });
    format!("http://{address}/public/1.pdf?Signature=planted")
}

fn http(status: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

#[tokio::test]
async fn a_documents_file_is_streamed_with_its_checks() {
    let app = TestApp::spawn().await;
    let pdf = [b"%PDF-1.7\n", vec![b'x'; 200_000].as_slice(), b"\n%%EOF\n"].concat();
    let addresses = [
        file_host(http("200 OK", &pdf)).await,
        file_host(http("200 OK", b"<html>an error</html>")).await,
        file_host(http("404 Not Found", b"")).await,
        "https://elsewhere.example/1.pdf".to_owned(),
    ];
    let documents: Vec<Value> = addresses
        .iter()
        .enumerate()
        .map(|(at, url)| json!({"id": format!("d-{at}"), "docnum": format!("AB/{at}"), "url": url}))
        .collect();
    app.store_documents(&documents).await;
    let get = async |sequence: usize| {
        let path = format!("/documents/{sequence}/file");
        app.admin_request(Method::GET, &path)
            .send()
            .await
            .expect("an answer")
    };
    let whole = get(1).await;
    assert_eq!(whole.status(), 200);
    assert_eq!(whole.headers()["content-type"], "application/pdf");
    assert_eq!(
        whole.headers()["content-disposition"],
        "inline; filename=\"AB_0.pdf\""
    );
    assert_eq!(whole.bytes().await.expect("whole"), pdf);
    let wrong = get(2).await;
    assert_eq!(wrong.status(), 502);
    assert!(wrong.text().await.expect("text").contains("not a PDF"));
    // An old link: another one is requested by pulling the feed.
    let expired = get(3).await.text().await.expect("text");
    assert!(expired.contains("Another one was requested"), "{expired}");
    let elsewhere = get(4).await;
    assert_eq!(elsewhere.status(), 502);
    let elsewhere = elsewhere.text().await.expect("text");
    assert!(
        !elsewhere.contains("elsewhere.example/1.pdf"),
        "{elsewhere}"
    );
    let missing = get(99).await;
    assert_eq!(missing.status(), 404);
}

#[tokio::test]
async fn buttons_of_a_document_deliver_skip_and_report_it() {
    let app = full_store().await;
    let held = |state: &Value| {
        let rows = state["rows"].as_array().expect("a list").iter();
        let books = rows.clone().find(|row| row["name"] == BOOKS);
        books.expect("it is there")["held"]
            .as_u64()
            .expect("a number")
    };
    let before = held(&app.admin("/v1/destinations").await);
    let (page, cookie) = page_and_cookie(&app, "/documents/4").await;
    assert!(page.contains(">held</span>"), "{page}");
    let token = form_token(&page);
    let press = async |path: &str, fields: &[(&str, &str)]| {
        let fields = [fields, &[("form_token", &*token)]].concat();
        let answer = submit(&app, path, &cookie, &fields).await;
        let status = answer.status().as_u16();
        (status, answer.text().await.expect("text"))
    };
    let deliver = [
        ("destination", BOOKS),
        ("action", "deliver"),
        ("sequence", "4"),
        ("back", "/documents/4"),
    ];
    let (status, page) = press("/do/delivery", &deliver).await;
    assert_eq!(status, 200);
    assert!(page.contains("1\u{a0}document is delivered now."), "{page}");
    // It is counted as held no longer, however often the button is pressed.
    press("/do/delivery", &deliver).await;
    assert_eq!(held(&app.admin("/v1/destinations").await), before - 1);
    let skip = [
        ("destination", BOOKS),
        ("action", "skip"),
        ("sequence", "50"),
        ("sequence", "53"),
        ("back", "https://evil.example/"),
    ];
    let (_, page) = press("/do/delivery", &skip).await;
    assert!(page.contains("skipped."), "{page}");
    assert_eq!(
        press("/do/delivery", &skip[..2]).await.0,
        400,
        "none chosen"
    );
    let report = [("sequence", "4"), ("message", "Trūksta PVM kodo")];
    let (_, page) = press("/do/report", &report).await;
    assert!(
        page.contains("The accountant will see your words"),
        "{page}"
    );
    let errors = app.admin("/v1/import-errors").await.to_string();
    assert!(errors.contains("Trūksta PVM kodo"), "{errors}");
    let gap = app.admin("/v1/feeds/gaps").await["rows"][0]["id"].to_string();
    let (status, page) = press("/do/gap", &[("id", &gap)]).await;
    assert_eq!(status, 200);
    assert!(page.contains("Closed: nothing is missing there."), "{page}");
    assert_eq!(press("/do/gap", &[("id", &gap)]).await.0, 409);
    let company = code(30);
    let feed = [
        ("account", "default"),
        ("queue", "exported"),
        ("company", company.as_str()),
    ];
    let (_, page) = press("/do/remove-feed", &feed).await;
    assert!(page.contains("Removed: its documents stay"), "{page}");
    let audit = app.admin("/v1/audit?limit=20").await.to_string();
    for action in [
        "deliveries skip",
        "deliveries retry",
        "import-errors report",
        "feeds remove",
        "feeds gaps --dismiss",
    ] {
        assert!(audit.contains(action), "{action}: {audit}");
    }
    // The table for a spreadsheet has what the list shows.
    let table = read(
        &app,
        &format!("/documents/export?company={}&state=rejected", code(4)),
    )
    .await;
    let listed = read(
        &app,
        &format!("/documents?company={}&state=rejected", code(4)),
    )
    .await;
    assert_eq!(table.lines().count() - 1, rows(&listed), "{table}");
}
