//! Alarms and their notices.

use std::time::Duration;

use futures_util::future::join_all;
use ivesk_webhook::domain::Timestamp;
use ivesk_webhook::store::{
    AlarmFilter, AlarmKind, AlarmNotice, AlarmObservation, AlarmRow, Finding, NoticeEnd, Retention,
};

use super::test_store::{HOUR, START, TestStore, retention};
use crate::support::databases::{Database, on_both_stores};

const MINUTE: Duration = Duration::from_secs(60);

on_both_stores! {
    an_alarm_begins_once_and_ends_once_whoever_checks,
    an_alarm_seen_by_one_process_lingers_for_a_while,
    an_alarm_seen_in_the_future_ends_all_the_same,
    alarms_are_notified_in_order_by_one_process_at_a_time,
    a_notice_that_waits_for_the_future_is_sent,
    alarms_without_a_target_are_not_notified_later,
    ended_alarms_are_forgotten_and_active_ones_are_not,
}

/// Returns a check that found these kinds of alarms.
fn observation(now: Timestamp, kinds: &[AlarmKind]) -> AlarmObservation {
    let finding = |kind: &AlarmKind| Finding {
        kind: *kind,
        subject: "s".to_owned(),
        text: "it is wrong; fix it".to_owned(),
    };
    AlarmObservation {
        now,
        found: kinds.iter().map(finding).collect(),
        notify: true,
    }
}

impl TestStore {
    /// Records a check; returns the numbers of alarms that it raised and ended.
    async fn observe(&self, kinds: &[AlarmKind]) -> (usize, usize) {
        let observation = observation(self.clock.now(), kinds);
        let changes = self.store.update_alarms(observation).await;
        let changes = changes.expect("recorded");
        (changes.raised.len(), changes.ended.len())
    }

    async fn alarms(&self, active: bool) -> Vec<AlarmRow> {
        let filter = AlarmFilter {
            active,
            after: 0,
            limit: 100,
        };
        self.store.alarms(filter).await.expect("readable")
    }

    async fn lease_notice(&self) -> Option<AlarmNotice> {
        let leased = self.store.lease_notice(self.clock.now(), MINUTE).await;
        leased.expect("leasing works")
    }

    async fn end_notice(&self, notice: AlarmNotice, end: NoticeEnd) -> bool {
        let ended = self.store.end_notice(notice, end, self.clock.now()).await;
        ended.expect("answered")
    }
}

async fn an_alarm_begins_once_and_ends_once_whoever_checks(database: Database) {
    let test = TestStore::new(database).await;
    let found = [AlarmKind::Paused, AlarmKind::Silence];
    let checks = join_all((0..4).map(|_| test.observe(&found))).await;
    assert_eq!(checks.iter().map(|(raised, _)| raised).sum::<usize>(), 2);

    let test = test.reopen().await;
    assert_eq!(test.observe(&found).await, (0, 0), "a restart raises none");
    let checks = join_all((0..4).map(|_| test.observe(&[AlarmKind::Silence]))).await;
    assert_eq!(checks.iter().map(|(_, ended)| ended).sum::<usize>(), 1);

    test.clock.advance(HOUR);
    assert_eq!(test.observe(&found).await, (1, 0), "raised again");
    let rows = test.alarms(false).await;
    let kinds: Vec<_> = rows.iter().map(|row| row.kind).collect();
    assert_eq!(kinds, [found[0], found[1], found[0]]);
    assert_eq!(rows[0].ended_at, Some(START));
    assert_eq!(
        (rows[2].raised_at, rows[2].ended_at),
        (START.after(HOUR), None)
    );
    assert_eq!(rows[1].seen_at, START.after(HOUR));
    assert_eq!(test.alarms(true).await.len(), 2);
}

async fn an_alarm_seen_by_one_process_lingers_for_a_while(database: Database) {
    let test = TestStore::new(database).await;
    let storm = [AlarmKind::RefusedStorm];
    assert_eq!(test.observe(&storm).await, (1, 0));
    test.clock.advance(9 * MINUTE);
    assert_eq!(test.observe(&[]).await, (0, 0), "by another replica");
    assert_eq!(test.observe(&storm).await, (0, 0));
    test.clock.advance(9 * MINUTE);
    assert_eq!(test.observe(&[]).await, (0, 0));
    test.clock.advance(MINUTE);
    assert_eq!(test.observe(&[]).await, (0, 1));
}

async fn an_alarm_seen_in_the_future_ends_all_the_same(database: Database) {
    let test = TestStore::new(database).await;
    let ahead = observation(
        START.after(24 * HOUR),
        &[AlarmKind::Paused, AlarmKind::Silence],
    );
    test.store.update_alarms(ahead).await.expect("recorded");
    // The clock is right again.
    assert_eq!(test.observe(&[AlarmKind::Silence]).await, (0, 1));
    let active = test.alarms(true).await;
    assert_eq!((active.len(), active[0].seen_at), (1, START));
}

async fn alarms_are_notified_in_order_by_one_process_at_a_time(database: Database) {
    let test = TestStore::new(database).await;
    test.observe(&[AlarmKind::Paused]).await;
    test.clock.advance(MINUTE);
    test.observe(&[]).await;

    let first = test.lease_notice().await.expect("a notice");
    assert!(!first.over, "the alarm's beginning is first");
    assert!(test.lease_notice().await.is_none(), "it is leased");

    // The lease of the first process expires, so what it reports afterwards is ignored.
    test.clock.advance(MINUTE);
    let second = test.lease_notice().await.expect("the lease has expired");
    assert!(!test.end_notice(first, NoticeEnd::Sent).await);
    let failed = NoticeEnd::TryAgain {
        at: test.clock.now().after(MINUTE),
        error: "answered 500".to_owned(),
    };
    assert!(test.end_notice(second, failed).await);

    assert!(test.lease_notice().await.is_none(), "not yet due");
    let test = test.reopen().await;
    test.clock.advance(MINUTE);
    let third = test.lease_notice().await.expect("a restart keeps it");
    assert!(!third.over);
    assert_eq!(third.alarm.attempts, 1);
    assert_eq!(third.alarm.last_error.as_deref(), Some("answered 500"));
    assert!(test.end_notice(third, NoticeEnd::Sent).await);

    let end = test.lease_notice().await.expect("the alarm's end is next");
    assert!(end.over);
    assert_eq!(end.alarm.attempts, 0);
    assert_eq!(end.alarm.last_error, None);
    let error = "answered 410".to_owned();
    test.end_notice(end, NoticeEnd::GivenUp { error }).await;
    test.clock.advance(HOUR);
    assert!(test.lease_notice().await.is_none(), "no notice is left");
    let row = test.alarms(false).await.remove(0);
    assert_eq!(row.last_error.as_deref(), Some("answered 410"));
}

/// A clock that was ahead wrote when to try again.
async fn a_notice_that_waits_for_the_future_is_sent(database: Database) {
    let test = TestStore::new(database).await;
    test.observe(&[AlarmKind::Paused]).await;
    let notice = test.lease_notice().await.expect("a notice");
    let failed = NoticeEnd::TryAgain {
        at: test.clock.now().after(48 * HOUR),
        error: "answered 500".to_owned(),
    };
    assert!(test.end_notice(notice, failed).await);
    assert!(test.lease_notice().await.is_some());
}

async fn alarms_without_a_target_are_not_notified_later(database: Database) {
    let test = TestStore::new(database).await;
    let without_target = AlarmObservation {
        notify: false,
        ..observation(START, &[AlarmKind::Paused])
    };
    let recorded = test.store.update_alarms(without_target).await;
    recorded.expect("recorded");
    assert_eq!(test.observe(&[]).await, (0, 1));
    test.clock.advance(HOUR);
    assert!(test.lease_notice().await.is_none());
}

async fn ended_alarms_are_forgotten_and_active_ones_are_not(database: Database) {
    let test = TestStore::new(database).await;
    test.observe(&[AlarmKind::Paused, AlarmKind::Silence]).await;
    test.observe(&[AlarmKind::Silence]).await;
    assert_eq!(test.retain(retention()).await.alarms, 0);
    let later = Retention {
        alarms_before: START.after(HOUR),
        tallies_before: START,
        ..retention()
    };
    assert_eq!(test.retain(later).await.alarms, 1);
    let alarms = test.alarms(false).await;
    let kinds: Vec<_> = alarms.iter().map(|row| row.kind).collect();
    assert_eq!(kinds, [AlarmKind::Silence]);
}
