//! Login links, sessions and the audit list: one use, one end, bounded numbers.

use std::time::Duration;

use ivesk_webhook::store::{
    ApiTokenMade, AuditEntry, LINK_LIFETIME, MAX_SESSIONS, NewApiToken, NewLoginLink, NewSession,
    Rights, SESSION_LIFETIME, UseLoginLink, token_owner,
};

use super::test_store::{START, TestStore};
use crate::support::databases::{Database, on_both_stores};

on_both_stores! {
    a_login_link_opens_one_session_however_many_ask,
    revoking_a_token_ends_its_sessions_and_links,
    sessions_are_few_and_the_oldest_makes_room,
    actions_are_listed_newest_first,
}

fn hash(number: usize) -> [u8; 32] {
    let mut hash = [0; 32];
    hash[..8].copy_from_slice(&number.to_be_bytes());
    hash
}

fn link(number: usize, created_by: &str) -> NewLoginLink {
    NewLoginLink {
        hash: hash(number),
        rights: Rights::Admin,
        created_by: created_by.to_owned(),
        token: None,
        now: START,
    }
}

fn session(number: usize, token: Option<i64>) -> NewSession {
    NewSession {
        hash: hash(number),
        rights: Rights::Read,
        created_by: token.map_or("user:1".to_owned(), |id| token_owner(id, "till")),
        token,
        now: START.after(Duration::from_millis(number as u64)),
    }
}

fn link_of_token(number: usize, token: i64) -> NewLoginLink {
    NewLoginLink {
        token: Some(token),
        ..link(number, &token_owner(token, "till"))
    }
}

async fn a_login_link_opens_one_session_however_many_ask(database: Database) {
    let test = TestStore::new(database).await;
    let made = test.store.make_login_link(link(1, "user:1")).await;
    made.expect("stored");
    let use_ = |session| UseLoginLink {
        link: hash(1),
        session: hash(session),
        now: START,
    };
    let both = tokio::join!(
        test.store.use_login_link(use_(10)),
        test.store.use_login_link(use_(11)),
    );
    let opened = [both.0.expect("answered"), both.1.expect("answered")];
    let opened: Vec<_> = opened.into_iter().flatten().collect();
    assert_eq!(opened.len(), 1);
    assert_eq!(opened[0].rights, Rights::Admin);
    assert_eq!(opened[0].created_by, "user:1");
    let mut known = 0;
    for number in [10, 11] {
        let found = test.store.session(hash(number), START).await;
        known += usize::from(found.expect("readable").is_some());
    }
    assert_eq!(known, 1);
    assert!(LINK_LIFETIME < SESSION_LIFETIME);
}

async fn revoking_a_token_ends_its_sessions_and_links(database: Database) {
    let test = TestStore::new(database).await;
    let mut ids = Vec::new();
    for number in 1..=11 {
        let made = test.store.make_api_token(NewApiToken {
            name: number.to_string(),
            rights: Rights::Admin,
            hash: hash(number),
            expires_at: None,
            now: START,
        });
        let ApiTokenMade::Row(id) = made.await.expect("answered") else {
            panic!("there is room");
        };
        ids.push(id);
    }
    // The first's number is a prefix of another's.
    let (one, other) = (ids[0], ids[9]);
    for (number, id) in [(1, one), (2, other)] {
        let opened = test.store.open_session(session(number, Some(id))).await;
        assert!(opened.expect("answered"));
        let link = link_of_token(number, id);
        let made = test.store.make_login_link(link).await;
        assert!(made.expect("stored").is_some());
    }
    assert!(test.store.revoke_api_token(one).await.expect("answered"));
    let find = async |number| {
        let found = test.store.session(hash(number), START).await;
        found.expect("readable").is_some()
    };
    assert_eq!((find(1).await, find(2).await), (false, true));
    for (number, expected) in [(1, false), (2, true)] {
        let used = test.store.use_login_link(UseLoginLink {
            link: hash(number),
            session: hash(100 + number),
            now: START,
        });
        assert_eq!(used.await.expect("answered").is_some(), expected);
    }
    // A login that was under way when the token was revoked.
    let late = test.store.open_session(session(3, Some(one))).await;
    assert!(!late.expect("answered"));
    let late = test.store.make_login_link(link_of_token(3, one)).await;
    assert_eq!(late.expect("answered"), None);
    test.store.end_session(hash(2)).await.expect("answered");
    assert!(!find(2).await);
}

async fn sessions_are_few_and_the_oldest_makes_room(database: Database) {
    let test = TestStore::new(database).await;
    for number in 0..=MAX_SESSIONS {
        let opened = test.store.open_session(session(number, None)).await;
        assert!(opened.expect("answered"));
    }
    let mut known = Vec::new();
    for number in 0..=MAX_SESSIONS {
        let found = test.store.session(hash(number), START).await;
        known.push(found.expect("readable").is_some());
    }
    assert_eq!(known.iter().filter(|known| **known).count(), MAX_SESSIONS);
}

async fn actions_are_listed_newest_first(database: Database) {
    let test = TestStore::new(database).await;
    for number in 1..=5 {
        let recorded = test.store.record_action(AuditEntry {
            at: START,
            actor: "user:1".to_owned(),
            action: "feeds pause".to_owned(),
            subject: format!("account={number}"),
            detail: None,
        });
        recorded.await.expect("stored");
    }
    let first = test.store.audit(None, 2).await.expect("readable");
    let subjects: Vec<_> = first.iter().map(|row| row.subject.as_str()).collect();
    assert_eq!(subjects, ["account=5", "account=4"]);
    let rest = test.store.audit(Some(first[1].id), 10).await;
    assert_eq!(rest.expect("readable").len(), 3);
}
