//! The two queues, with every position of their switches.

use ivesk_webhook::domain::Queue;
use serde_json::{Value, json};

use super::*;

fn ids(documents: &[(String, String)]) -> Vec<&str> {
    documents.iter().map(|(id, _)| id.as_str()).collect()
}

#[tokio::test]
async fn the_company_is_read_where_company_in_says_only() {
    let bench = Bench::start("").await;
    let exported = bench.export(2);
    let shapes = [
        ("path", format!("/exported/{COMPANY}")),
        ("query", format!("/exported?companycode={COMPANY}")),
        ("prefix", format!("/{COMPANY}/exported")),
        ("none", "/exported".to_owned()),
    ];
    for (position, _) in &shapes {
        let switch = format!("company_in={position}");
        bench.switch(&switch);
        for (shape, path) in &shapes {
            let answer = bench.get(path).await;
            // Without a company in the path, the query is ignored.
            let right = shape == position || (*position == "none" && *shape == "query");
            assert_eq!(answer.status == 200, right, "{position}: {path}");
            if right {
                assert_eq!(listed(&answer.json(), "exportedat"), exported);
            } else {
                assert!(!answer.message().is_empty());
            }
        }
    }
}

#[tokio::test]
async fn from_is_exclusive_or_inclusive() {
    let bench = Bench::start("page_size=2").await;
    let exported = bench.export(3);
    let path = format!("/exported/{COMPANY}?from={}", exported[0].1);

    let exclusive = listed(&bench.get(&path).await.json(), "exportedat");
    bench.switch("from=inclusive");
    let inclusive = listed(&bench.get(&path).await.json(), "exportedat");

    assert_eq!(exclusive, exported[1..]);
    assert_eq!(inclusive, exported[..2]);
}

#[tokio::test]
async fn the_last_page_has_a_next_or_none_and_an_empty_one_never() {
    for (position, expected) in [("present", true), ("absent", false)] {
        let bench = Bench::start(&format!("last_page_next={position},page_size=2")).await;
        let exported = bench.export(3);
        let path = format!("/exported/{COMPANY}");

        let first = bench.get(&path).await.json();
        assert_eq!(first["next"], exported[1].1.as_str());
        let last = bench.get(&format!("{path}?from={}", exported[1].1)).await;
        assert_eq!(last.json()["next"].is_string(), expected, "{position}");
        let empty = bench.get(&format!("{path}?from={}", exported[2].1)).await;
        assert_eq!(empty.json()["documents"], json!([]));
        assert_eq!(empty.json().get("next"), None);
    }
}

#[tokio::test]
async fn a_stuck_next_is_always_the_from_that_was_sent() {
    let bench = Bench::start("stuck_next=on,page_size=2").await;
    let exported = bench.export(5);
    let path = format!("/exported/{COMPANY}");
    assert_eq!(
        bench.get(&path).await.json()["next"],
        exported[1].1.as_str()
    );
    for from in [&exported[1].1, &exported[4].1] {
        let page = bench.get(&format!("{path}?from={from}")).await.json();
        assert_eq!(page["next"], from.as_str());
    }
}

#[tokio::test]
async fn a_page_holds_page_size_documents() {
    let bench = Bench::start("").await;
    let exported = bench.export(250);
    let path = format!("/exported/{COMPANY}");
    for size in [100, 7] {
        let switch = format!("page_size={size}");
        bench.switch(&switch);
        let page = listed(&bench.get(&path).await.json(), "exportedat");
        assert_eq!(page, exported[..size]);
    }
    assert_eq!(bench.exported().await, exported);
}

#[tokio::test]
async fn ties_share_a_timestamp_and_otherwise_each_is_later() {
    let bench = Bench::start("").await;
    let apart = bench.export(5);
    assert!(apart.windows(2).all(|pair| pair[0].1 < pair[1].1));
    let now = bench.control.now().to_string();
    assert_eq!(apart[4].1, now, "an export is not in the future");

    bench.switch("ties=3");
    bench.control.advance(Duration::from_secs(1));
    let tied = bench.export(7);
    let versions: Vec<&str> = tied.iter().map(|(_, version)| version.as_str()).collect();
    assert!(versions[0] > apart[4].1.as_str());
    assert_eq!(versions[0], versions[2]);
    assert!(versions[2] < versions[3]);
    assert_eq!(versions[3], versions[5]);
    assert!(versions[5] < versions[6]);
}

#[tokio::test]
async fn a_whole_page_edge_keeps_ties_and_a_split_one_loses_them() {
    let bench = Bench::start("ties=250").await;
    let exported = bench.export(250);
    let path = format!("/exported/{COMPANY}");

    let whole = listed(&bench.get(&path).await.json(), "exportedat");
    assert_eq!(whole, exported);

    bench.switch("page_edge=split");
    let split = listed(&bench.get(&path).await.json(), "exportedat");
    assert_eq!(split, exported[..100]);
    assert_eq!(
        bench.exported().await.len(),
        100,
        "an exclusive from skips the rest"
    );
}

#[tokio::test]
async fn a_document_with_a_lag_is_listed_late_with_its_old_timestamp() {
    let bench = Bench::start("visibility_lag_ms=60000").await;
    let late = bench.export(1);
    bench.switch("visibility_lag_ms=0");
    bench.control.advance(Duration::from_secs(1));
    let prompt = bench.export(1);

    assert_eq!(bench.exported().await, prompt);
    bench.control.advance(Duration::from_secs(59));
    assert_eq!(bench.exported().await, [late.clone(), prompt].concat());
    assert!(late[0].1 < bench.control.documents(Queue::Exported, COMPANY)[1].1);
}

#[tokio::test]
async fn an_ignored_company_filter_answers_every_company() {
    let bench = Bench::start("").await;
    let own = bench.export(1);
    let other = bench.control.export(NEIGHBOR, 1).expect("exported");
    assert_eq!(bench.exported().await, own);

    bench.switch("company_filter=ignored");
    let both = [own, other].concat();
    assert_eq!(bench.exported().await, both);
    let nonsense = bench.read_queue("/exported/nonsense", "exportedat").await;
    assert_eq!(nonsense, both);
}

#[tokio::test]
async fn a_foreign_company_answers_as_unknown_company_says() {
    let bench = Bench::start("").await;
    bench.control.export(STRANGER, 1).expect("exported");
    let answers = [
        ("404", 404),
        ("403", 403),
        ("401", 401),
        ("500", 500),
        ("empty", 200),
    ];
    for (position, status) in answers {
        let switch = format!("unknown_company={position}");
        bench.switch(&switch);
        for company in [STRANGER, "nonsense"] {
            let answer = bench.get(&format!("/exported/{company}")).await;
            assert_eq!(answer.status, status, "{position} {company}");
            if status == 200 {
                assert_eq!(answer.json()["documents"], json!([]));
            }
        }
    }
}

#[tokio::test]
async fn a_second_export_adds_a_version_moves_it_or_keeps_the_first() {
    for position in ["adds", "moves", "keeps"] {
        let bench = Bench::start(&format!("re_export={position}")).await;
        let first = bench.export(2);
        bench.control.advance(Duration::from_secs(1));
        let again = bench.control.re_export(&first[0].0).expect("exported");
        let expected = match (position, again) {
            ("adds", Some(version)) => {
                [first.clone(), vec![(first[0].0.clone(), version)]].concat()
            }
            ("moves", Some(version)) => vec![first[1].clone(), (first[0].0.clone(), version)],
            ("keeps", None) => first.clone(),
            (position, version) => panic!("{position}: {version:?}"),
        };
        assert_eq!(bench.exported().await, expected, "{position}");
        assert_eq!(bench.control.documents(Queue::Exported, COMPANY), expected);
    }
}

async fn first_document(bench: &Bench) -> Value {
    bench.get("/digitized").await.json()["documents"][0].clone()
}

#[tokio::test]
async fn a_document_has_the_fields_that_the_vendors_clients_read() {
    let bench = Bench::start("").await;
    bench.digitize(1);
    let document = first_document(&bench).await;
    for field in [
        "id",
        "url",
        "doctype",
        "docnum",
        "date",
        "sellernameascii",
        "buyernameascii",
    ] {
        assert!(document[field].is_string(), "{field}");
    }
    assert!(
        document["sellernameascii"]
            .as_str()
            .expect("text")
            .is_ascii()
    );
    assert!(!document["sellername"].as_str().expect("text").is_ascii());
    let favorite = |side: &str| document[side].as_bool().expect("a boolean");
    assert!(favorite("sellerisfavorite") != favorite("buyerisfavorite"));
    assert_eq!(document.get("exportedat"), None);
    let date = document["date"].as_str().expect("text");
    assert_eq!(date.len(), "YYYY-MM-DD".len());
}

#[tokio::test]
async fn null_fields_leaves_only_the_required_fields() {
    let bench = Bench::start("null_fields=on").await;
    bench.digitize(1);
    let document = first_document(&bench).await;
    for (field, value) in document.as_object().expect("an object") {
        let needed = ["id", "url", "digitizedat"].contains(&field.as_str());
        assert_eq!(value.is_null(), !needed, "{field}");
    }
}

#[tokio::test]
async fn amounts_are_numbers_or_text() {
    let bench = Bench::start("").await;
    bench.digitize(1);
    let number = first_document(&bench).await["total"].clone();
    bench.switch("money=text");
    let text = first_document(&bench).await["total"].clone();
    let text: f64 = text.as_str().expect("text").parse().expect("decimal");
    assert_eq!(number.as_f64(), Some(text));
}

#[tokio::test]
async fn mixed_doctypes_can_be_filtered() {
    let bench = Bench::start("").await;
    bench.digitize(3);
    bench.switch("doctypes=mixed");
    bench.digitize(3);
    let all = bench.read_queue("/digitized", "digitizedat").await;
    let invoices = bench
        .read_queue("/digitized?doctype=invoice", "digitizedat")
        .await;
    let others = bench
        .read_queue("/digitized?doctype=other", "digitizedat")
        .await;
    assert_eq!((all.len(), invoices.len(), others.len()), (6, 5, 1));
}

#[tokio::test]
async fn a_missing_or_wrong_key_is_refused_with_a_message() {
    let bench = Bench::start("").await;
    let wrong = bench.api_as("wrong", "GET", "/digitized", None).await;
    let missing = read(
        bench
            .http
            .get(format!("{}/digitized", bench.emulator.api_url())),
    )
    .await;
    for answer in [wrong, missing] {
        assert_eq!(answer.status, 401);
        assert_eq!(answer.message(), "Unauthorized");
    }
}

#[tokio::test]
async fn an_account_sees_its_own_documents_only() {
    let bench = Bench::start("").await;
    let own = bench.digitize(2);
    let theirs = bench
        .control
        .digitize(STRANGER_KEY, STRANGER, 1)
        .expect("made");
    let read = bench.read_queue("/digitized", "digitizedat").await;
    assert_eq!(ids(&read), own);
    let answer = bench.api_as(STRANGER_KEY, "GET", "/digitized", None).await;
    assert_eq!(ids(&listed(&answer.json(), "digitizedat")), theirs);
}

#[tokio::test]
async fn an_export_takes_waiting_documents_first_then_in_order() {
    let bench = Bench::start("").await;
    let waiting = bench.digitize(2);
    let exported = bench.export(3);
    assert_eq!(ids(&exported)[..2], waiting);
    assert_eq!(bench.control.documents(Queue::Digitized, "").len(), 3);

    let more = bench.digitize(2);
    let chosen = vec![more[1].clone(), more[0].clone()];
    let exported = bench
        .control
        .export(COMPANY, chosen.clone())
        .expect("exported");
    assert_eq!(ids(&exported), chosen);
    assert!(
        bench.control.export(NEIGHBOR, chosen).is_err(),
        "another company's"
    );
    assert!(bench.control.export("nonsense", 1).is_err());
}

#[tokio::test]
async fn a_from_that_is_repeated_or_no_date_is_refused() {
    let bench = Bench::start("").await;
    let date = "2026-11-23T08:00:00.000Z";
    for query in [
        format!("from={date}&from={date}"),
        "from=undefined".to_owned(),
        "from=".to_owned(),
    ] {
        assert_eq!(
            bench.get(&format!("/digitized?{query}")).await.status,
            400,
            "{query}"
        );
    }
}

#[tokio::test]
async fn two_hundred_thousand_documents_are_paged_from_anywhere() {
    let bench = Bench::start("").await;
    bench
        .control
        .load(DEFAULT_KEY, COMPANY, 200_000)
        .expect("loaded");
    let truth = bench.control.documents(Queue::Exported, COMPANY);
    assert_eq!(truth.len(), 200_000);
    assert!(truth.windows(2).all(|pair| pair[0].1 < pair[1].1));
    assert_eq!(truth[199_999].1, bench.control.now().to_string());
    for place in [0, 77, 100_000, 199_899, 199_950] {
        let from = &truth[place].1;
        let page = bench.get(&format!("/exported/{COMPANY}?from={from}")).await;
        let end = truth.len().min(place + 101);
        let page = listed(&page.json(), "exportedat");
        assert_eq!(page, truth[place + 1..end]);
    }
    assert!(bench.control.deliveries().is_empty());
}

#[tokio::test]
async fn amended_fields_override_the_generated_ones() {
    let bench = Bench::start("").await;
    let id = bench.digitize(1).remove(0);
    let fields = json!({ "sellernameascii": "../../x", "brandnew": [1] });
    let fields = fields.as_object().expect("an object").clone();
    bench.control.amend(&id, fields).expect("known");
    let document = first_document(&bench).await;
    assert_eq!(document["sellernameascii"], "../../x");
    assert_eq!(document["brandnew"], json!([1]));
    assert_eq!(document["id"], id.as_str());
}

#[tokio::test]
async fn columns_are_paged_as_the_vendors_example_reads_them() {
    let bench = Bench::start("").await;
    let mut codes = Vec::new();
    let mut next = String::new();
    loop {
        let path = format!("/columns/{COMPANY}?column=allocation{next}");
        let page = bench.get(&path).await.json();
        for item in page["items"].as_array().expect("items") {
            codes.push(item["code"].as_str().expect("a code").to_owned());
        }
        match page["next"].as_str() {
            Some(value) => next = format!("&next={value}"),
            None => break,
        }
    }
    assert_eq!(codes, ["VLN", "KNS", "KLP", "SIA", "PNV"]);
    let later = "modifiedsince=2026-05-01T00:00:00.000Z";
    let unchanged = bench
        .get(&format!("/columns/{COMPANY}?column=x&{later}"))
        .await;
    assert_eq!(unchanged.json(), json!({ "items": [] }));
}

#[tokio::test]
async fn a_huge_number_is_refused_and_ends_nothing() {
    let bench = Bench::start("").await;
    let huge = 1_000_000_000_000_u64;
    let of_key = json!({"key": DEFAULT_KEY, "company": COMPANY, "count": huge});
    for (operation, body) in [
        ("export", json!({"company": COMPANY, "documents": huge})),
        ("digitize", of_key.clone()),
        ("load", of_key),
        (
            "notify",
            json!({"event": "on_exported", "message": "", "copies": huge}),
        ),
    ] {
        let url = format!("{}/control/{operation}", bench.emulator.origin());
        let answer = read(bench.http.post(url).body(body.to_string())).await;
        assert_eq!(answer.status, 400, "{operation}: {}", answer.text());
        let message = answer.message();
        assert!(message.contains("up to 200000"), "{operation}: {message}");
    }
    assert_eq!(bench.export(1).len(), 1);
}
