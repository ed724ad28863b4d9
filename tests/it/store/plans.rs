//! Plans of the statements that run for every page and every delivery.
//!
//! All other statements are explained at the end of the tests that run them.

use std::time::Duration;

use ivesk_webhook::domain::{DestinationName, Queue};
use ivesk_webhook::store::{
    Attempt, DeliveryLeaseRequest, DeliveryLeased, DeliveryOutcome, DestinationChange,
    DestinationFilter, Hooks as _, LanePlan, LaneSelection, LeaseAction, StartFrom,
};

use super::test_store::{TestStore, company, last_page};
use crate::support::databases::{Database, on_both_stores};

on_both_stores! {
    a_statement_that_reads_a_whole_table_is_found,
}

impl TestStore {
    /// Asserts that the statements with `part` have these steps in their plans.
    fn assert_plan(&self, part: &str, steps: &[&str]) {
        let plans = self.database.plans(part);
        assert!(!plans.is_empty(), "none has {part}");
        for plan in plans {
            for step in steps {
                assert!(plan.contains(step), "{step}: {plan}");
            }
        }
    }
}

#[tokio::test]
async fn queries_for_a_pages_documents_never_scan_their_feed() {
    let test = TestStore::new(Database::sqlite()).await;
    let page = last_page(&[("a", "1")], Some("1"));
    test.pull(&company("1"), page).await;
    test.assert_plan(
        "AND d.feed_id <> ?3",
        &["SEARCH d USING COVERING INDEX document_identity (document_id=? AND version=?"],
    );
    test.assert_plan(
        "AND t.feed_id <> ?3",
        &[
            "tombstone_document (document_digest=? AND version=?)",
            "PRIMARY KEY (feed_id=? AND document_digest=? AND version=?)",
        ],
    );
    test.assert_plan(
        "SELECT document_id, sequence, version, version_ms",
        &["INDEX document_identity (document_id=?)"],
    );
}

#[tokio::test]
async fn leasing_reads_along_the_lane_and_through_indexes() {
    let test = TestStore::new(Database::sqlite()).await;
    let page = last_page(&[("a", "1")], Some("1"));
    test.pull(&company("1"), page).await;
    let name = DestinationName::parse("books").expect("a name");
    let filter = DestinationFilter::all_of(Queue::Exported);
    let (store, now) = (&test.store, test.clock.now());
    let registered = store.register_destinations(vec![(name.clone(), filter.clone())], now);
    registered.await.expect("registered");
    let plan = LanePlan {
        filter,
        deliver_history: false,
        lookback: Duration::from_secs(3600),
    };
    let made = store.make_lanes(name.clone(), plan.clone(), now).await;
    assert_eq!(made.ok(), Some(true));
    let start = DestinationChange::Start {
        lanes: LaneSelection::default(),
        from: StartFrom::All,
    };
    let started = store.change_destination(name.clone(), start, now).await;
    assert_eq!(started.ok(), Some(Some(1)));
    let request = DeliveryLeaseRequest {
        destination: name,
        lanes: plan,
        now,
        lease: Duration::from_secs(60),
        limit: 10,
        limit_bytes: 1 << 20,
        earlier_notes: true,
    };
    let leased = store.lease_deliveries(request.clone()).await;
    let Ok(DeliveryLeased::Batch(lease)) = leased else {
        panic!("{leased:?}");
    };
    let attempt = Attempt {
        sequence: 1,
        began_at: now,
        outcome: DeliveryOutcome::LinkExpired,
    };
    let settled = store.settle_deliveries(lease, vec![attempt], LeaseAction::Release, now);
    settled.await.expect("settled");
    let leased = store.lease_deliveries(request).await;
    assert!(matches!(leased, Ok(DeliveryLeased::Nothing(_))));

    test.assert_plan(
        "coalesce(h.failures, 0), h.failing_since",
        &[
            "SEARCH document USING INDEX document_feed (feed_id=? AND sequence>? AND sequence<?)",
            "SEARCH h USING PRIMARY KEY (destination_id=? AND sequence=?)",
        ],
    );
    test.assert_plan(
        "AND turn = 0 ORDER BY due_at",
        &["SEARCH lane USING INDEX lane_turn (destination_id=? AND turn=?"],
    );
    let ready = "coalesce(w.requested_at <= ?3 OR w.requested_at > ?4, false) AS link_timed_out";
    test.assert_plan(
        ready,
        &[
            "SEARCH d USING INTEGER PRIMARY KEY (rowid=?)",
            "SEARCH e USING COVERING INDEX document_identity (document_id=?)",
            "SEARCH n USING PRIMARY KEY (destination_id=? AND sequence=?)",
        ],
    );
    // The only sort is that of a document's own versions.
    for plan in test.database.plans(ready) {
        assert_eq!(plan.matches("TEMP B-TREE").count(), 1, "{plan}");
    }
}

async fn a_statement_that_reads_a_whole_table_is_found(database: Database) {
    let test = TestStore::new(database).await;
    let found = test.database.explain().await;
    assert!(found.is_empty(), "{found:?}");
    let statements = test.database.statements();
    for planted in [
        "SELECT 1 FROM document AS planted WHERE stored_at = 7",
        "SELECT 1 FROM delivery planted JOIN document d USING (sequence)",
        "UPDATE upload SET attempts = 8 WHERE sent_at IS NULL",
        "DELETE FROM notification WHERE received_at = 9",
    ] {
        statements.statement(planted, &[]);
        assert_eq!(test.database.explain().await.len(), 1, "{planted}");
    }
    statements.statement("SELECT 1 FROM document planted WHERE sequence = 7", &[]);
    assert!(test.database.explain().await.is_empty());
}
