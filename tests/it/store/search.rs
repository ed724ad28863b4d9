//! Searches over everything that is stored, by the text that a person writes.

use ivesk_webhook::domain::{Account, Company, DocumentVersion, Feed, Queue, SearchText};
use ivesk_webhook::store::{
    NewUpload, PageToCommit, Retention, TextMatches, TextSearch, UploadBegun, UploadEnd,
    UploadReturn,
};
use serde_json::{Value, json};

use super::test_store::{HOUR, START, TestStore, account, company, last_page, retention};
use crate::support::databases::{Database, on_both_stores};

on_both_stores! {
    an_old_document_is_found_by_all_that_is_known_of_it,
    the_text_and_the_document_may_be_written_differently,
    whole_numbers_come_first_then_words_then_beginnings,
    a_number_is_never_taken_for_a_sequence,
    pages_of_results_hold_each_document_once,
    a_document_of_both_queues_is_one_result,
    words_that_seldom_meet_are_searched_in_bounded_steps,
    beginnings_of_too_many_words_are_told,
    odd_texts_find_nothing_and_break_nothing,
    erased_documents_leave_no_term_behind,
    expired_documents_leave_no_term_behind,
    documents_are_found_by_the_upload_they_were_made_of,
}

fn page(documents: &[Value]) -> PageToCommit {
    let documents = documents.iter().map(|document| DocumentVersion {
        id: document["id"].as_str().expect("an id").to_owned(),
        version: document["exportedat"]
            .as_str()
            .unwrap_or("2026-01-01T00:00:00Z")
            .to_owned(),
        body: document.to_string().into(),
    });
    PageToCommit {
        documents: documents.collect(),
        ..last_page(&[], None)
    }
}

impl TestStore {
    async fn find(&self, search: TextSearch) -> TextMatches {
        self.store.find_documents(search).await.expect("readable")
    }

    /// Returns the sequence numbers of what a text finds, to the end.
    async fn found(&self, text: &str) -> Vec<i64> {
        self.found_by(search(text, 500)).await
    }

    async fn found_by(&self, mut search: TextSearch) -> Vec<i64> {
        let mut found = Vec::new();
        loop {
            let part = self.find(search.clone()).await;
            assert!(part.rows.len() <= search.limit);
            found.extend(part.rows.iter().map(|(_, row)| row.sequence));
            match part.next {
                Some(next) => search.after = Some(next),
                None => return found,
            }
        }
    }

    async fn terms(&self, condition: &str) -> i64 {
        let sql = format!("SELECT count(*) FROM search_term WHERE {condition}");
        self.database.count(&sql).await
    }
}

fn search(text: &str, limit: usize) -> TextSearch {
    TextSearch {
        whole: false,
        superseded: false,
        text: SearchText::read(text),
        ..TextSearch::named(text, limit)
    }
}

async fn an_old_document_is_found_by_all_that_is_known_of_it(database: Database) {
    let test = TestStore::new(database).await;
    let feed = company("302320404");
    let wanted = json!({"id": "5e7A-x", "docnum": "SĄSK-000017", "sellername": "UAB „Šarkos lizdas“",
        "sellernameascii": "UAB Sarkos lizdas", "sellercode": "123456789", "sellervat": "LT100001234567",
        "buyername": "Ąžuolų ūkis, IĮ", "buyercode": 302_320_404, "total": 1210.00, "date": "2026-03-28",
        "filename": "scan 0042.pdf", "userdata": "order/9"});
    test.pull(&feed, page(&[wanted])).await;
    for part in 0..4 {
        let more = (0..800).map(|n| part * 800 + n).map(|n| {
            json!({"id": format!("id-{n}"), "docnum": format!("KT-{n}"), "sellername": "UAB Kita", "total": "9.99",
                "buyercode": "302320404", "date": "2026-11-01"})
        });
        test.drain().await;
        test.pull(&feed, page(&more.collect::<Vec<_>>())).await;
    }
    for text in [
        "5e7A-x",
        "SĄSK-000017",
        "sask 000017",
        "000017 sąsk",
        "šarkos",
        "uab šarkos lizdas",
        "ūkis ąžuolų",
        "123456789",
        "LT100001234567",
        "100001234567",
        "1 210,00",
        "1210.00 eur",
        "2026-03-28",
        "28.03.2026",
        "2026-03",
        "302320404 šarkos",
        "scan 0042.pdf",
        "order/9",
        "šark 1210",
    ] {
        assert_eq!(test.found(text).await, [1], "{text}");
    }
    for text in ["arkos", "5e7", "2026-03-29", "šarkos kita", "scan 0042"] {
        assert_eq!(test.found(text).await, [0_i64; 0], "{text}");
    }
    let elsewhere = |change: fn(&mut TextSearch)| {
        let mut search = search("šarkos", 10);
        change(&mut search);
        search
    };
    for wrong in [
        elsewhere(|search| search.queue = Some(Queue::Digitized)),
        elsewhere(|search| search.company = Company::parse("123456789").ok()),
        elsewhere(|search| search.account = Account::parse("nobody").ok()),
    ] {
        assert_eq!(test.found_by(wrong).await, [0_i64; 0]);
    }
    let here = elsewhere(|search| {
        search.queue = Some(Queue::Exported);
        search.company = Company::parse("302320404").ok();
        search.account = Account::parse("default").ok();
    });
    assert_eq!(test.found_by(here).await, [1]);
}

async fn the_text_and_the_document_may_be_written_differently(database: Database) {
    let test = TestStore::new(database).await;
    let writings = [
        "UAB Žąsų „Ūkis“",
        "zasu ukis, uab",
        "ŽĄSŲ ŪKIS",
        "Uždaroji akcinė bendrovė Žąsų ūkis",
    ];
    let documents = (1..).zip(writings).map(|(n, name)| {
        let number = ["AB-1/2", "ab 12", "Ab12", "AB/12"][n - 1];
        json!({"id": n.to_string() + "-id", "docnum": number, "sellername": name})
    });
    test.pull(&company("7"), page(&documents.collect::<Vec<_>>()))
        .await;
    for text in writings {
        assert_eq!(test.found(text).await, [4, 3, 2, 1], "{text}");
    }
    for number in ["AB-12", "ab 12", "ąb/12", "a.b-12"] {
        assert_eq!(test.found(number).await[..4], [4, 3, 2, 1], "{number}");
    }
}

async fn whole_numbers_come_first_then_words_then_beginnings(database: Database) {
    let test = TestStore::new(database).await;
    let number = |n: usize, number: &str| json!({"id": format!("id-{n}"), "docnum": number});
    let documents = [
        number(1, "4711"),
        number(2, "4712"),
        number(3, "SF-47110"),
        number(4, "SF-4711"),
        json!({"id": "id-5", "docnum": "A-9", "total": "4711.00"}),
        number(6, "SF-04711"),
        number(7, "47 11"),
        number(8, "47-1"),
    ];
    test.pull(&company("7"), page(&documents)).await;
    assert_eq!(test.found("4711").await, [7, 1, 6, 5, 4, 3]);
    assert_eq!(test.found("SF 4711").await, [4, 6, 3]);
    let exact = test.found_by(TextSearch::named("4711", 10)).await;
    assert_eq!(exact, [7, 1]);
}

async fn a_number_is_never_taken_for_a_sequence(database: Database) {
    let test = TestStore::new(database).await;
    let documents =
        (1..=9).map(|n| json!({"id": format!("id-{n}"), "docnum": format!("X-{}", n + 100)}));
    test.pull(&company("302320404"), page(&documents.collect::<Vec<_>>()))
        .await;
    for n in 1..=9 {
        assert_eq!(test.found(&n.to_string()).await, [0_i64; 0]);
        assert_eq!(test.found(&(n + 100).to_string()).await, [n]);
        let row = test
            .store
            .document(n)
            .await
            .expect("readable")
            .expect("stored");
        assert_eq!(row.document_id, format!("id-{n}"));
    }
    assert!(test.store.document(10).await.expect("readable").is_none());
}

async fn pages_of_results_hold_each_document_once(database: Database) {
    let test = TestStore::new(database).await;
    let documents = (1..=300).map(|n| {
        let number = ["7000", "A-7000", "B-70001"][n % 3];
        json!({"id": format!("id-{n}"), "docnum": number, "sellername": "UAB Šarka", "buyername": format!("Pirkėjas {}", n % 2)})
    });
    test.pull(&company("302320404"), page(&documents.collect::<Vec<_>>()))
        .await;
    for text in ["7000", "šarka", "šar 700", "šarka pirkėjas", "302320404"] {
        let whole = test.found(text).await;
        assert_eq!(whole.len(), 300, "{text}");
        let mut sorted = whole.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), 300, "{text}");
        for limit in [7, 100] {
            assert_eq!(
                test.found_by(search(text, limit)).await,
                whole,
                "{text} {limit}"
            );
        }
    }
    let whole = test.found("7000").await;
    // Of each rank the newest first.
    for rank in [&whole[..100], &whole[100..200], &whole[200..]] {
        assert!(rank.is_sorted_by(|one, next| one > next), "{rank:?}");
    }
}

async fn a_document_of_both_queues_is_one_result(database: Database) {
    let test = TestStore::new(database).await;
    let digitized = Feed::digitized(account());
    let version = |number: &str, at: &str| json!({"id": "a", "docnum": number, "exportedat": at, "sellername": "Šarka"});
    test.pull(&digitized, page(&[version("SF-1", "2026-01-01T00:00:00Z")]))
        .await;
    test.drain().await;
    let exported = company("302320404");
    test.pull(&exported, page(&[version("SF-2", "2026-01-02T00:00:00Z")]))
        .await;
    assert_eq!(test.found("šarka").await, [2], "in its newest version");
    assert_eq!(test.found("SF-2").await, [2]);
    assert_eq!(
        test.found("SF-1").await,
        [1],
        "in the version that has the number"
    );
    let of_queue = TextSearch {
        queue: Some(Queue::Digitized),
        ..search("šarka", 10)
    };
    assert_eq!(test.found_by(of_queue).await, [1]);
    // The accountant corrects the number.
    test.drain().await;
    test.pull(&exported, page(&[version("SF-3", "2026-01-03T00:00:00Z")]))
        .await;
    assert_eq!(test.found("šarka").await, [3]);
    assert_eq!(test.found("a").await, [3], "by its id");
    assert_eq!(
        test.found("SF-2").await,
        [0_i64; 0],
        "a newer version has taken its place"
    );
    let any = test.found_by(TextSearch::named("SF-2", 10)).await;
    assert_eq!(any, [2], "but its trace is found");
}

async fn words_that_seldom_meet_are_searched_in_bounded_steps(database: Database) {
    let test = TestStore::new(database).await;
    let name = |n: usize| match n {
        1 => "Šarka Varna",
        _ if n.is_multiple_of(2) => "Šarka",
        _ => "Varna",
    };
    for part in 0..9 {
        let documents = (1..=1_000).map(|n| {
            let n = part * 1_000 + n;
            json!({"id": format!("id-{n}"), "docnum": format!("K-{n}"), "sellername": name(n)})
        });
        test.pull(&company("302320404"), page(&documents.collect::<Vec<_>>()))
            .await;
        test.drain().await;
    }
    // No call reads all, but all of them together do.
    let first = test.find(search("šarka varna", 10)).await;
    assert!(first.rows.is_empty() && first.next.is_some());
    assert_eq!(test.found("šarka varna").await, [1]);
    // The rarest word leads at once.
    let rare = test.find(search("varna k 1", 10)).await;
    assert_eq!((rare.rows.len(), rare.next), (1, None));
}

async fn beginnings_of_too_many_words_are_told(database: Database) {
    let test = TestStore::new(database).await;
    let documents = (0..500).map(|n| {
        let name = format!("Šarka{}", char::from_u32(0x430 + n / 25).expect("a letter")) + &"x".repeat(n as usize % 25);
        json!({"id": format!("id-{n}"), "docnum": format!("K-{n}"), "sellername": name, "buyername": format!("Vienas {}", n % 2)})
    });
    test.pull(&company("302320404"), page(&documents.collect::<Vec<_>>()))
        .await;
    let many = test.find(search("šark", 500)).await;
    assert!(many.incomplete && !many.rows.is_empty() && many.rows.len() < 500);
    let few = test.find(search("šarkaа", 500)).await;
    assert_eq!((few.rows.len(), few.incomplete), (25, false));
    // Another word that is whole finds all.
    assert_eq!(test.found("šark vienas").await.len(), 500);
    let all = test.find(search("šark vienas", 500)).await;
    assert!(!all.incomplete);
}

async fn odd_texts_find_nothing_and_break_nothing(database: Database) {
    let test = TestStore::new(database).await;
    let document = json!({"id": "a", "docnum": "SF-1", "sellername": "UAB Šarka"});
    test.pull(&company("302320404"), page(&[document])).await;
    let words = (0..10_000).map(|n| format!("word{n} ")).collect::<String>();
    for text in [
        "",
        " ",
        "%",
        "_",
        "S%",
        "' OR 1=1 --",
        "\"",
        "„“",
        "$",
        "{elements}",
        "...",
        "a\0b",
        "\u{ffff}",
        "\u{10ffff}",
        "-",
        "@",
        "#sf1",
        "=",
        "x' UNION SELECT 1 --",
        &words,
        &"9".repeat(10_000),
        &"š".repeat(10_000),
    ] {
        let found = test.find(search(text, 10)).await;
        let is_number = text == "#sf1";
        assert_eq!(
            (found.rows.len(), found.next),
            (usize::from(is_number), None),
            "{text:.40}"
        );
    }
    // What is no JSON object is stored without terms, and found by its id.
    let bodies = [
        "[]",
        "1",
        "{\"docnum\":[1],\"sellername\":{},\"total\":null,\"date\":7}",
        "\u{0}",
    ];
    let documents = (1..).zip(bodies).map(|(n, body)| DocumentVersion {
        id: format!("odd-{n}"),
        version: String::new(),
        body: body.into(),
    });
    let odd = PageToCommit {
        documents: documents.collect(),
        ..last_page(&[], None)
    };
    test.drain().await;
    test.pull(&company("302320404"), odd).await;
    assert_eq!(test.found("odd-2").await, [3]);
}

async fn erased_documents_leave_no_term_behind(database: Database) {
    let test = TestStore::new(database).await;
    let document = |id: &str, at: &str| {
        json!({"id": id, "docnum": "SF-1", "sellername": "Jonas Jonaitis", "exportedat": at, "total": "5.00",
            "userdata": "private"})
    };
    let stored = [
        document("a", "2026-01-01T00:00:00Z"),
        document("a", "2026-01-02T00:00:00Z"),
        document("b", "2026-01-02T00:00:00Z"),
    ];
    test.pull(&company("302320404"), page(&stored)).await;
    let each = test.terms("sequence = 1").await;
    assert_eq!(each, 8);
    assert_eq!(test.terms("sequence = 2").await, each);
    assert_eq!(test.found("jonaitis").await, [3, 2]);
    let erased = test.store.erase_versions(vec![1, 2], START).await;
    assert_eq!(erased.ok(), Some(2));
    assert_eq!(test.terms("sequence <> 3").await, 0);
    assert_eq!(test.terms("sequence = 3").await, each, "others keep theirs");
    assert_eq!(test.found("jonaitis").await, [3]);
    let erased = test.store.erase_versions(vec![3], START).await;
    assert_eq!(erased.ok(), Some(1));
    assert_eq!(test.terms("1 = 1").await, 0);
    // A later pull brings none back.
    test.drain().await;
    test.pull(&company("302320404"), page(&stored)).await;
    assert_eq!(test.terms("1 = 1").await, 0);
}

async fn expired_documents_leave_no_term_behind(database: Database) {
    let test = TestStore::new(database).await;
    let documents =
        ["a", "b"].map(|id| json!({"id": id, "docnum": format!("SF-{id}"), "sellername": "Šarka"}));
    test.pull(&company("302320404"), page(&documents)).await;
    let name = ivesk_webhook::domain::DestinationName::parse("books").expect("a name");
    let filter = ivesk_webhook::store::DestinationFilter::all_of(Queue::Exported);
    let registered = test
        .store
        .register_destinations(vec![(name, filter)], START);
    registered.await.expect("registered");
    // As if a destination had accepted the first long ago.
    let delivered = "INSERT INTO delivery (destination_id, sequence, state, began_at, changed_at) VALUES (1, 1, 'delivered', 5, 5)";
    test.database.run(delivered).await;
    let retained = test.retain(Retention {
        documents_before: START.before(HOUR),
        ..retention()
    });
    assert_eq!(retained.await.document_bodies, 1);
    assert_eq!(test.terms("sequence = 1").await, 0);
    assert_eq!(test.found("šarka").await, [2]);
    assert_eq!(test.found("a").await, [1], "its id is still known");
}

async fn documents_are_found_by_the_upload_they_were_made_of(database: Database) {
    let test = TestStore::new(database).await;
    let upload = NewUpload {
        account: account(),
        sha256: "00".repeat(32),
        size_bytes: 7,
        file_name: "Kvitas 7.pdf".to_owned(),
        correlation: "u-1".to_owned(),
        force: false,
        owner: "test".to_owned(),
        now: START,
        claim: HOUR,
    };
    let begun = test.store.begin_upload(upload).await.expect("begun");
    let UploadBegun::Send { row, .. } = begun else {
        panic!("{begun:?}");
    };
    let ended = test
        .store
        .end_upload(row.id, "test".to_owned(), UploadEnd::Sent, START);
    assert_eq!(ended.await.ok(), Some(true));
    let returned = PageToCommit {
        uploads: vec![UploadReturn {
            correlation: "u-1".to_owned(),
            document_id: "a".to_owned(),
        }],
        ..page(&[
            json!({"id": "a", "docnum": "SF-1"}),
            json!({"id": "b", "docnum": "SF-2"}),
        ])
    };
    test.pull(&company("302320404"), returned).await;
    for text in ["u-1", "Kvitas 7.pdf", " u-1 "] {
        assert_eq!(test.found(text).await, [1], "{text}");
        assert_eq!(
            test.found_by(TextSearch::named(text, 10)).await,
            [1],
            "{text}"
        );
    }
    for text in ["u-", "Kvitas", "7.pdf"] {
        assert_eq!(test.found(text).await, [0_i64; 0], "{text}");
    }
}
