//! Random histories of one feed, in memory: whatever way the vendor pages, each version is stored,
//! or an open gap covers it, and later versions arrive.
//!
//! The vendor is written here; the steps of pulls, the cursors and the gaps are the program's own.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;

use super::paging::next_step;
use crate::domain::{
    Account, Company, Cursor, DocumentVersion, Feed as FeedName, Moment, Timestamp,
};
use crate::store::{
    FoundGap, IncompleteReason, PageEnd, PageLease, PageToCommit, Position, PullStart, RecordPlan,
    SavedCursor, StoredGap, TriggerKind, advance, earlier, earliest_provable, is_proven,
    overlap_start, plan_cursor_save, plan_record, position_kind,
};

/// Number of histories, unless `PAGING_HISTORIES` sets another one.
const HISTORIES: u64 = 2_000;

/// A lookback within which a whole history happens, and one that is barely longer than documents are
/// listed late.
const LONG_LOOKBACK: Duration = Duration::from_secs(24 * 3600);
const SHORT_LOOKBACK: Duration = Duration::from_secs(15 * 60);

const MINUTE: i64 = 60_000;

/// Longest time after which a version may be listed.
const MAX_LAG: i64 = 10 * MINUTE;

/// Most pages of one pull.
const MAX_PAGES: usize = 6_000;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % limit
    }

    fn size(&mut self, least: usize, most: usize) -> usize {
        let span = u64::try_from(most - least + 1).expect("small");
        least + usize::try_from(self.below(span)).expect("small")
    }

    fn time(&mut self, most: i64) -> i64 {
        i64::try_from(self.below(u64::try_from(most).expect("positive"))).expect("small")
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.size(0, choices.len() - 1)]
    }
}

/// Where the vendor ends a page that a group of equal moments does not fit in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Edge {
    /// In the group.
    Split,
    /// After it.
    Grown,
    /// Before it, unless the page would be empty.
    Cut,
}

/// What a cursor or a version of the vendor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// A date and time, with milliseconds.
    Text,
    /// A date and time, without a fraction.
    TextOfSecond,
    Millis,
    Seconds,
    Offset,
    Opaque,
}

impl Form {
    /// Returns the milliseconds from one moment to the next that has another text.
    fn unit(self) -> i64 {
        match self {
            Self::TextOfSecond | Self::Seconds => 1_000,
            Self::Text | Self::Millis | Self::Offset | Self::Opaque => 1,
        }
    }

    /// Returns the earliest moment with the same text.
    fn cut(self, at: i64) -> i64 {
        at - at % self.unit()
    }

    /// Returns the text of a moment.
    fn text(self, at: i64) -> String {
        let text = Timestamp::from_millis(at).to_string();
        match self {
            Self::Seconds => (at / 1_000).to_string(),
            Self::Millis => at.to_string(),
            Self::TextOfSecond => format!("{}Z", text.split('.').next().expect("a date")),
            Self::Text | Self::Offset | Self::Opaque => text,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Stuck,
    Back,
    Cycle,
}

/// One entry of the vendor's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Listed {
    at: i64,
    id: usize,
    visible_at: i64,
}

/// A place in the vendor's list: after the entry with this moment and number.
type Place = (i64, usize);

const BEGINNING: Place = (i64::MIN, 0);

#[derive(Clone, Debug)]
struct Vendor {
    list: Vec<Listed>,
    /// The first and the last place that each cursor has had, if cursors are no moments.
    places: RefCell<BTreeMap<String, (Place, Place)>>,
    page_size: usize,
    inclusive: bool,
    edge: Edge,
    next_at_end: bool,
    next_of_empty: bool,
    empty_first: bool,
    form: Form,
    /// True if moments are compared as cursors are written.
    compares_cursors: bool,
    versions: Form,
    fault: Option<Fault>,
}

impl Vendor {
    fn random(random: &mut Random) -> Self {
        let most = random.of(&[4, 12, 40, 250]);
        Self {
            list: Vec::new(),
            places: RefCell::default(),
            page_size: random.size(1, most),
            inclusive: random.one_in(2),
            edge: random.of(&[Edge::Split, Edge::Split, Edge::Grown, Edge::Cut]),
            next_at_end: random.one_in(2),
            next_of_empty: random.one_in(2),
            empty_first: random.one_in(4),
            form: random.of(&[
                Form::Text,
                Form::Text,
                Form::TextOfSecond,
                Form::Millis,
                Form::Seconds,
                Form::Offset,
                Form::Opaque,
            ]),
            compares_cursors: random.one_in(2),
            versions: random.of(&[
                Form::Text,
                Form::Text,
                Form::TextOfSecond,
                Form::Millis,
                Form::Seconds,
            ]),
            fault: None,
        }
    }

    /// Returns true if its cursors are moments.
    fn has_moments(&self) -> bool {
        !matches!(self.form, Form::Offset | Form::Opaque)
    }

    /// Returns the form that compares moments.
    fn compared(&self) -> Form {
        match self.compares_cursors {
            true => self.form,
            false => Form::Millis,
        }
    }

    /// Keeps the place that a cursor has at present.
    fn keep_place(&self, cursor: &str, visible: &[Listed]) {
        if self.has_moments() {
            return;
        }
        let before = self.start(visible, cursor).checked_sub(1);
        let place = before.map_or(BEGINNING, |index| (visible[index].at, visible[index].id));
        let mut places = self.places.borrow_mut();
        let (first, last) = places.entry(cursor.to_owned()).or_insert((place, place));
        (*first, *last) = ((*first).min(place), (*last).max(place));
    }

    /// Returns true if the stretch from one cursor to another may hold the entry.
    fn is_between(&self, from: Option<&Cursor>, to: Option<&Cursor>, one: &Listed) -> bool {
        if self.has_moments() {
            let read = |cursor: &Cursor| Moment::read(cursor.as_str())?.timestamp();
            let read = |cursor: &Cursor| read(cursor).expect("a moment").as_millis();
            // A moment that is written coarsely stands for all that it may be.
            let from = from.map(|from| self.form.cut(read(from)));
            let to = to.map(|to| self.form.cut(read(to)) + self.form.unit() - 1);
            return from.is_none_or(|from| from <= one.at) && to.is_none_or(|to| one.at <= to);
        }
        let places = self.places.borrow();
        let place = |cursor: &Cursor| places.get(cursor.as_str()).copied();
        let at = (one.at, one.id);
        let is_after = |from: &Cursor| place(from).is_none_or(|(first, _)| first < at);
        let is_before = |to: &Cursor| place(to).is_none_or(|(_, last)| at <= last);
        from.is_none_or(is_after) && to.is_none_or(is_before)
    }

    fn cursor(&self, index: usize, last: &Listed) -> String {
        match self.form {
            Form::Offset => (index + 1).to_string(),
            Form::Opaque => format!("after:{}:{}", last.at, last.id),
            form => form.text(last.at),
        }
    }

    /// Returns the place of the first entry of a page; panics if the cursor is none of its own.
    fn start(&self, visible: &[Listed], from: &str) -> usize {
        match self.form {
            Form::Offset => from.parse::<usize>().expect("an offset").min(visible.len()),
            Form::Opaque => {
                let mut parts = from.split(':').skip(1).map(|part| part.parse::<i64>());
                let mut part = || parts.next().expect("a token").expect("a token");
                let (at, id) = (part(), usize::try_from(part()).expect("an id"));
                visible.partition_point(|one| (one.at, one.id) <= (at, id))
            }
            _ => {
                let at = Moment::read(from).and_then(|moment| moment.timestamp());
                let at = self.compared().cut(at.expect("a moment").as_millis());
                visible.partition_point(|one| {
                    let one = self.compared().cut(one.at);
                    one < at || (!self.inclusive && one == at)
                })
            }
        }
    }

    fn page(&self, from: Option<&str>, now: i64) -> (Vec<Listed>, Option<String>) {
        let visible: Vec<Listed> = self
            .list
            .iter()
            .filter(|one| one.visible_at <= now)
            .copied()
            .collect();
        let start = from.map_or(0, |from| self.start(&visible, from));
        if from.is_none()
            && self.empty_first
            && self.has_moments()
            && let Some(first) = visible.first()
        {
            return (Vec::new(), Some(self.form.text(first.at - 1_000)));
        }
        let mut end = (start + self.page_size).min(visible.len());
        let is_tied = |end: usize| {
            // Who ends pages at groups means those of its cursors.
            let at = |index: usize| self.form.cut(visible[index].at);
            end > start && end < visible.len() && at(end) == at(end - 1)
        };
        match self.edge {
            Edge::Split => {}
            Edge::Grown => {
                while is_tied(end) {
                    end += 1;
                }
            }
            Edge::Cut => {
                let whole = end;
                while is_tied(end) {
                    end -= 1;
                }
                if end == start {
                    end = whole;
                }
            }
        }
        let page = visible[start..end].to_vec();
        let more = end < visible.len();
        let mut next = match page.last() {
            Some(last) => (more || self.next_at_end).then(|| self.cursor(end - 1, last)),
            None => from.filter(|_| self.next_of_empty).map(str::to_owned),
        };
        if let (Some(fault), Some(from)) = (self.fault, from) {
            next = Some(self.wrong_next(fault, from, &visible));
        }
        for cursor in from.into_iter().chain(next.as_deref()) {
            self.keep_place(cursor, &visible);
        }
        (page, next)
    }

    fn wrong_next(&self, fault: Fault, from: &str, visible: &[Listed]) -> String {
        let (Some(first), false) = (visible.first(), fault == Fault::Stuck) else {
            return from.to_owned();
        };
        match self.form {
            Form::Offset if fault == Fault::Back => {
                let from: usize = from.parse().expect("an offset");
                from.saturating_sub(self.page_size).to_string()
            }
            Form::Opaque if fault == Fault::Back => self.cursor(0, first),
            Form::Offset | Form::Opaque => {
                let second = self.page_size.min(visible.len() - 1);
                let [a, b] = [0, second].map(|index| self.cursor(index, &visible[index]));
                if from == a { b } else { a }
            }
            form => {
                let at = Moment::read(from).and_then(|moment| moment.timestamp());
                form.text(at.expect("a moment").as_millis() - 3_000)
            }
        }
    }
}

/// What the store keeps of the pulls of one kind.
#[derive(Default)]
struct Pull {
    started_at: Option<i64>,
    in_progress: bool,
    position: Position,
}

/// What the store keeps of a feed.
#[derive(Default)]
struct Feed {
    lookback: Duration,
    pulls: BTreeMap<TriggerKind, Pull>,
    cursor: Option<Cursor>,
    saved: Vec<SavedCursor>,
    stored: BTreeSet<(usize, String)>,
    gaps: Vec<StoredGap>,
    last_gap: i64,
    fence: i64,
    largest_page: usize,
    was_read: bool,
    failing: bool,
}

impl Feed {
    /// Begins a pull, or goes on with the one in progress, for this many pages at most.
    fn pull(&mut self, vendor: &Vendor, clock: &mut i64, kind: TriggerKind, most: usize) {
        for _ in 0..most {
            *clock += 50;
            if self.pull_page(vendor, *clock, kind) != PageEnd::More {
                return;
            }
        }
        assert!(most < MAX_PAGES, "the pull does not end");
    }

    fn pull_page(&mut self, vendor: &Vendor, now: i64, kind: TriggerKind) -> PageEnd {
        self.fence += 1;
        let first_read = !self.was_read;
        let position = self.begin_or_resume(kind, now);
        let lease = self.lease(kind, position, first_read);
        let page = self.request(vendor, now, &lease);
        let moved = advance(&lease, &page);
        if let Some(cursor) = moved.cursor {
            self.save(cursor, Timestamp::from_millis(now));
        }
        self.pulls.entry(moved.kind).or_default().position = moved.position;
        if page.end != PageEnd::More {
            self.end(kind, &page);
        }
        page.end
    }

    fn begin_or_resume(&mut self, kind: TriggerKind, now: i64) -> Position {
        let key = position_kind(kind, !self.was_read);
        let stored = self.pulls.entry(key).or_default().position.clone();
        let pull = self.pulls.entry(kind).or_default();
        if pull.in_progress {
            return stored;
        }
        let from = match kind.overlaps() && self.was_read {
            false => self.cursor.clone(),
            true => {
                let saved = self.saved.iter().map(copy).collect();
                let start = overlap_start(saved, self.old_enough(now));
                match earliest_provable(&self.gaps, self.largest_page) {
                    Some(gap) => earlier(start.as_ref(), gap.as_ref()).cloned(),
                    None => start,
                }
            }
        };
        let pull = self.pulls.entry(kind).or_default();
        pull.started_at = Some(now);
        pull.in_progress = true;
        if !self.was_read && stored.from.is_some() {
            return stored;
        }
        let position = Position {
            from,
            ..Position::default()
        };
        self.pulls.entry(key).or_default().position = position.clone();
        position
    }

    fn end(&mut self, kind: TriggerKind, page: &PageToCommit) {
        let began = page.progress.began.as_ref().expect("it began");
        if page.end == PageEnd::EndOfQueue {
            let start = began.from.as_ref();
            self.gaps.retain(|gap| !is_proven(gap, start, began.fence));
        }
        self.failing = page.end == (PageEnd::Stopped { failing: true });
        for key in [kind, position_kind(kind, !self.was_read)] {
            let pull = self.pulls.entry(key).or_default();
            pull.position = Position::default();
        }
        self.pulls.entry(kind).or_default().in_progress = false;
        if self.was_read {
            return;
        }
        // The first read counts as a reconciliation; pulls of other kinds start over.
        self.was_read = true;
        let began_at = self.pulls.values().filter_map(|pull| pull.started_at).min();
        self.pulls.entry(TriggerKind::Reconciliation).or_default();
        for pull in self.pulls.values_mut() {
            *pull = Pull {
                started_at: began_at,
                ..Pull::default()
            };
        }
    }

    /// Returns the moment before which overlap reads begin: `lookback` before the last one did.
    fn old_enough(&self, now: i64) -> Timestamp {
        let overlaps = self.pulls.iter().filter(|(kind, _)| kind.overlaps());
        let done = overlaps.filter(|(_, pull)| !pull.in_progress);
        let last = done.filter_map(|(_, pull)| pull.started_at).max();
        let any = || self.pulls.values().filter_map(|pull| pull.started_at).min();
        let last = last.or_else(any).unwrap_or(now).min(now);
        Timestamp::from_millis(last).before(self.lookback)
    }

    /// Returns the kinds of the pulls in progress.
    fn in_progress(&self) -> Vec<TriggerKind> {
        let pulls = self.pulls.iter().filter(|(_, pull)| pull.in_progress);
        pulls.map(|(kind, _)| *kind).collect()
    }

    fn lease(&self, kind: TriggerKind, position: Position, first_read: bool) -> PageLease {
        PageLease {
            feed_id: 1,
            account_id: 1,
            feed: FeedName::exported(
                Account::parse("default").expect("a name"),
                Company::parse("1").expect("a code"),
            ),
            kind,
            fence: self.fence,
            position,
            first_pull: false,
            first_read,
            largest_page: Some(self.largest_page),
            feed_failures: 0,
            account_failures: 0,
            key_at_fault: false,
            others_due: false,
        }
    }

    /// Requests a page, and does with it what the store does.
    fn request(&mut self, vendor: &Vendor, now: i64, lease: &PageLease) -> PageToCommit {
        let from = lease.position.from.as_ref().map(Cursor::as_str);
        let (listed, next) = vendor.page(from, now);
        let documents: Vec<_> = listed
            .iter()
            .map(|one| DocumentVersion {
                id: one.id.to_string(),
                version: vendor.versions.text(one.at),
                body: Bytes::new(),
            })
            .collect();
        let entries = documents.len();
        let next = next.map(Cursor::new);
        let step = next_step(
            &lease.position,
            self.largest_page,
            entries,
            &documents,
            next,
        );
        let mut progress = step.progress;
        progress.began.get_or_insert_with(|| PullStart {
            from: lease.position.from.clone(),
            fence: lease.fence,
        });
        for document in &documents {
            let id = document.id.parse().expect("a number");
            self.stored.insert((id, document.version_key()));
        }
        self.largest_page = self.largest_page.max(entries);
        for gap in &step.gaps {
            match plan_record(&self.gaps, &[], gap) {
                RecordPlan::Insert => {
                    self.last_gap += 1;
                    self.gaps.push(StoredGap {
                        id: self.last_gap,
                        gap: gap.clone(),
                        seen_fence: self.fence,
                        tried_page: self.largest_page,
                    });
                }
                RecordPlan::Extend { id, gap, merged } => {
                    self.gaps.retain(|stored| !merged.contains(&stored.id));
                    let stored = self.gaps.iter_mut().find(|stored| stored.id == id);
                    let stored = stored.expect("it is open");
                    stored.gap = gap;
                    stored.seen_fence = self.fence;
                    stored.tried_page = self.largest_page;
                }
                RecordPlan::Dismissed => unreachable!("nobody dismisses one"),
            }
        }
        PageToCommit {
            documents,
            cursor: step.cursor,
            next_from: step.next_from,
            progress,
            end: step.end,
            ..PageToCommit::default()
        }
    }

    fn save(&mut self, cursor: Cursor, now: Timestamp) {
        let old_enough = self.old_enough(now.as_millis());
        let change = plan_cursor_save(&self.saved, old_enough, now);
        self.saved
            .retain(|saved| !change.unneeded.contains(&saved.saved_at));
        self.saved.insert(
            0,
            SavedCursor {
                saved_at: change.saved_at,
                cursor: cursor.clone(),
            },
        );
        self.cursor = Some(cursor);
    }

    /// Returns true if an open gap covers an entry of the vendor's list.
    fn has_gap_over(&self, vendor: &Vendor, one: &Listed) -> bool {
        self.gaps.iter().any(|stored| {
            let FoundGap { from, to, .. } = &stored.gap;
            vendor.is_between(from.as_ref(), to.as_ref(), one)
        })
    }
}

fn copy(saved: &SavedCursor) -> SavedCursor {
    SavedCursor {
        saved_at: saved.saved_at,
        cursor: saved.cursor.clone(),
    }
}

/// One history.
struct History {
    random: Random,
    vendor: Vendor,
    feed: Feed,
    clock: i64,
    /// True if nothing was wrong with the vendor, and no group was as large as a page.
    benign: bool,
    /// The size of the first page.
    first_size: usize,
    /// True if pages never changed in size, and have room for ten entries or more.
    is_steady: bool,
    log: Vec<String>,
}

impl History {
    fn run(seed: u64) {
        let mut random = Random(seed);
        let vendor = Vendor::random(&mut random);
        // A cut of smaller pages is seen only once a larger one was.
        let lookback = match vendor.page_size >= 10 && random.one_in(2) {
            true => SHORT_LOOKBACK,
            false => LONG_LOOKBACK,
        };
        let mut history = Self {
            benign: vendor.edge != Edge::Cut && vendor.page_size > 1,
            first_size: vendor.page_size,
            is_steady: vendor.page_size >= 10,
            log: vec![format!("{vendor:?}, lookback {lookback:?}")],
            random,
            vendor,
            feed: Feed {
                lookback,
                ..Feed::default()
            },
            clock: 1_790_000_000_000,
        };
        for _ in 0..history.random.size(2, 14) {
            history.operation();
        }
        history.read_all();
        let mut checked = Ok(());
        if history.is_steady && history.vendor.fault.is_none() {
            // A gap is found although nothing follows that would show it.
            checked = history.check_stored();
        }
        history.finish();
        if let Err(error) = checked.and_then(|()| history.check()) {
            let log = history.log.join("\n");
            panic!(
                "history {seed}: {error}\n{log}\ngaps: {:#?}",
                history.feed.gaps
            );
        }
    }

    fn operation(&mut self) {
        match self.random.below(12) {
            0..=3 => {
                let count = self.random.size(1, 2 * self.vendor.page_size.min(40) + 2);
                self.export(count, 1);
            }
            4 | 5 => {
                let group = self.random.size(2, 3 * self.vendor.page_size + 1);
                let group = match self.random.one_in(2) {
                    true => group.min(self.vendor.page_size.saturating_sub(1)).max(1),
                    false => group,
                };
                self.export(1, group);
            }
            6 | 7 => self.pull_some(TriggerKind::Notification),
            8 => {
                let kind = self.random.of(&[
                    TriggerKind::FollowUp,
                    TriggerKind::LateFollowUp,
                    TriggerKind::Reconciliation,
                ]);
                self.pull_some(kind);
            }
            9 => {
                let minutes = self.random.time(90);
                self.clock += minutes * MINUTE;
            }
            10 => {
                if self.random.one_in(2) {
                    let most = self.random.of(&[12, 40, 250]);
                    let mut size = self.random.size(10, most.max(10));
                    if self.feed.lookback == SHORT_LOOKBACK {
                        size = size.max(self.vendor.page_size);
                    }
                    self.is_steady = false;
                    self.benign &= size >= self.vendor.page_size;
                    self.vendor.page_size = size;
                    self.log.push(format!("pages of {}", self.vendor.page_size));
                }
            }
            _ => {
                let fault = [Fault::Stuck, Fault::Back, Fault::Cycle].map(Some);
                self.vendor.fault = match self.random.one_in(2) {
                    true => None,
                    false => self.random.of(&fault),
                };
                self.benign &= self.vendor.fault.is_none();
                self.log.push(format!("{:?}", self.vendor.fault));
            }
        }
    }

    /// Exports groups of `group` documents with equal moments.
    fn export(&mut self, count: usize, group: usize) {
        let lag = match self.random.one_in(4) {
            true => self.random.time(MAX_LAG),
            false => 0,
        };
        self.benign &= group < self.vendor.page_size && lag == 0;
        for _ in 0..count {
            self.clock += 1 + self.random.time(3_000);
            for _ in 0..group {
                let late = lag > 0 && self.random.one_in(2);
                self.vendor.list.push(Listed {
                    at: self.clock,
                    id: self.vendor.list.len(),
                    visible_at: self.clock + if late { lag } else { 0 },
                });
            }
        }
        self.log
            .push(format!("{count} exports of {group}, lag {lag}"));
        self.clock += 1;
    }

    /// Pulls to the end, or a few pages only: others may go on meanwhile.
    fn pull_some(&mut self, kind: TriggerKind) {
        let most = match self.random.one_in(2) {
            true => self.random.size(1, 3),
            false => MAX_PAGES,
        };
        self.pull_pages(kind, most);
    }

    fn pull(&mut self, kind: TriggerKind) {
        self.pull_pages(kind, MAX_PAGES);
    }

    fn pull_pages(&mut self, kind: TriggerKind, most: usize) {
        self.feed.pull(&self.vendor, &mut self.clock, kind, most);
        let Feed {
            cursor,
            stored,
            gaps,
            ..
        } = &self.feed;
        let (kind, stored, gaps) = (kind.as_str(), stored.len(), gaps.len());
        self.log.push(format!(
            "{kind}: {stored} stored, {gaps} gaps, at {cursor:?}"
        ));
    }

    /// Pulls until everything is visible and was read.
    fn read_all(&mut self) {
        for kind in self.feed.in_progress() {
            // The end of a first read ends the others too.
            if self.feed.in_progress().contains(&kind) {
                self.pull(kind);
            }
        }
        self.pull(TriggerKind::Notification);
        self.clock += MAX_LAG;
        self.pull(TriggerKind::FollowUp);
    }

    /// Lets later documents be exported, and everything be pulled.
    fn finish(&mut self) {
        for _ in 0..2 {
            self.clock += MINUTE;
            self.vendor.list.push(Listed {
                at: self.clock,
                id: self.vendor.list.len(),
                visible_at: self.clock,
            });
            self.clock += 1;
            self.pull(TriggerKind::Notification);
        }
        self.clock += MAX_LAG;
        self.pull(TriggerKind::FollowUp);
        self.clock += MAX_LAG;
        self.pull(TriggerKind::Reconciliation);
    }

    fn is_stored(&self, one: &Listed) -> bool {
        let key = Moment::read(&self.vendor.versions.text(one.at));
        let key = key.expect("a moment").to_string();
        self.feed.stored.contains(&(one.id, key))
    }

    /// Returns true if a page has room for every group, and for the one before it where versions
    /// and cursors are not equally fine.
    fn shows_groups(&self) -> bool {
        let (cursor, version) = (self.vendor.form.unit(), self.vendor.versions.unit());
        let unit = cursor.max(version);
        let groups = self.vendor.list.chunk_by(|a, b| a.at / unit == b.at / unit);
        let largest = groups.map(<[Listed]>::len).max().unwrap_or_default();
        let shown = if cursor == version { 1 } else { 2 };
        shown * largest < self.first_size
    }

    fn check_stored(&self) -> Result<(), String> {
        let is_lost =
            |one: &&Listed| !self.is_stored(one) && !self.feed.has_gap_over(&self.vendor, one);
        match self.vendor.list.iter().find(is_lost) {
            Some(one) => Err(format!("{one:?} is missing without a gap")),
            None => Ok(()),
        }
    }

    fn check(&self) -> Result<(), String> {
        self.check_stored()?;
        let feed = &self.feed;
        let last = self.vendor.list.last().expect("it was exported");
        if !self.is_stored(last) && !feed.failing {
            return Err(format!("the later {last:?} did not arrive"));
        }
        if feed.failing && self.vendor.has_moments() {
            return Err("a feed whose cursors are moments is failing".to_owned());
        }
        let stored = self.vendor.list.iter().filter(|one| self.is_stored(one));
        if stored.count() != feed.stored.len() {
            return Err("a version is stored that the vendor does not have".to_owned());
        }
        let provable = earliest_provable(&feed.gaps, feed.largest_page);
        if self.vendor.fault.is_none() && provable.is_some() {
            return Err(format!("nobody tried to prove the gap after {provable:?}"));
        }
        let harmless = |stored: &StoredGap| stored.gap.reason == IncompleteReason::PageSizeUnknown;
        let benign = self.benign && self.shows_groups();
        if benign && !feed.gaps.iter().all(harmless) {
            return Err("a gap, though nothing was wrong".to_owned());
        }
        Ok(())
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "no setting of the program")]
fn whatever_the_pages_each_version_is_stored_or_in_a_gap() {
    let asked = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let histories = asked("PAGING_HISTORIES").unwrap_or(HISTORIES);
    let first = asked("PAGING_SEED").unwrap_or(0);
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for part in 0..threads {
            let seeds = (first..first + histories).skip(part).step_by(threads);
            scope.spawn(|| seeds.for_each(History::run));
        }
    });
}
