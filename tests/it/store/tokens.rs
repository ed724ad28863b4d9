//! API tokens: found by their hash, few, with different names.

use ivesk_webhook::store::{ApiTokenMade, MAX_API_TOKENS, NewApiToken, Rights};

use super::test_store::{START, TestStore};
use crate::support::databases::{Database, on_both_stores};

on_both_stores! {
    a_token_is_found_by_its_hash_until_it_is_revoked,
    tokens_are_few_and_their_names_differ,
}

async fn make(test: &TestStore, name: &str, hash: u8) -> ApiTokenMade {
    let made = test.store.make_api_token(NewApiToken {
        name: name.to_owned(),
        rights: Rights::Read,
        hash: [hash; 32],
        expires_at: None,
        now: START,
    });
    made.await.expect("answered")
}

async fn a_token_is_found_by_its_hash_until_it_is_revoked(database: Database) {
    let test = TestStore::new(database).await;
    let find = async |hash: u8| {
        let found = test.store.api_token([hash; 32]).await;
        found.expect("readable")
    };
    let revoke = async |id: i64| {
        let revoked = test.store.revoke_api_token(id).await;
        revoked.expect("answered")
    };
    let ApiTokenMade::Row(id) = make(&test, "one", 1).await else {
        panic!("it is the first");
    };
    let found = find(1).await.expect("the token");
    assert_eq!((found.id, found.name.as_str()), (id, "one"));
    assert_eq!((found.rights, found.created_at), (Rights::Read, START));
    assert!(find(2).await.is_none());

    assert!(revoke(id).await);
    assert!(!revoke(id).await);
    assert!(find(1).await.is_none());
    let again = make(&test, "one", 1).await;
    assert!(
        matches!(again, ApiTokenMade::Row(new) if new > id),
        "{again:?}"
    );
}

async fn tokens_are_few_and_their_names_differ(database: Database) {
    let test = TestStore::new(database).await;
    for number in 0..MAX_API_TOKENS {
        let hash = u8::try_from(number).expect("a few");
        let made = make(&test, &number.to_string(), hash).await;
        assert!(matches!(made, ApiTokenMade::Row(_)), "{made:?}");
    }
    assert_eq!(make(&test, "7", 200).await, ApiTokenMade::NameTaken);
    assert_eq!(make(&test, "more", 201).await, ApiTokenMade::TooMany);
    let rows = test.store.api_tokens().await.expect("readable");
    assert_eq!(rows.len() as i64, MAX_API_TOKENS);
    assert!(rows.windows(2).all(|pair| pair[0].id < pair[1].id));
}
