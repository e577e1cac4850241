//! The journal of a fleet: every entry, packed.

use std::collections::VecDeque;

use crate::config::Retention;
use crate::entry::{Entry, Record};
use crate::event::Position;
use crate::memory::packed::{pack, unpack};
use crate::memory::wait::WaitList;
use crate::time::Timestamp;

/// The journal's entries, the oldest first.
#[derive(Debug)]
pub(super) struct JournalLog {
    stamps: VecDeque<Stamp>,
    /// The packed records, one after the other.
    packed: VecDeque<u8>,
    /// How many packed bytes were dropped so far.
    dropped: u64,
    /// The position of the first entry, or of the next one when there is none.
    first: Position,
    retention: Retention,
    pub(super) tails: WaitList,
    /// Where the next record is packed.
    buffer: Vec<u8>,
}

/// When an entry was made, and how many bytes had been packed then, those of all before it included.
#[derive(Clone, Copy, Debug)]
struct Stamp {
    time: Timestamp,
    end: u64,
}

impl JournalLog {
    pub(super) fn new(retention: Retention) -> Self {
        Self {
            stamps: VecDeque::new(),
            packed: VecDeque::new(),
            dropped: 0,
            first: Position::ORIGIN.next(),
            retention,
            tails: WaitList::default(),
            buffer: Vec::new(),
        }
    }

    pub(super) fn append(&mut self, record: &Record, now: Timestamp) -> Position {
        let position = self.push(record, now);
        self.trim(now);
        position
    }

    fn push(&mut self, record: &Record, now: Timestamp) -> Position {
        let position = self.end();
        self.buffer.clear();
        pack(record, &mut self.buffer);
        self.packed.extend(&self.buffer);
        self.stamps.push_back(Stamp { time: now, end: self.dropped + self.packed.len() as u64 });
        position
    }

    /// How many bytes it would occupy without its oldest entries, of which `dropped` bytes are packed.
    fn bytes_after(&self, entries: usize, dropped: u64) -> u64 {
        let stamps = (self.stamps.len() - entries) * size_of::<Stamp>();
        self.packed.len() as u64 - (dropped - self.dropped) + stamps as u64
    }

    /// When the oldest entry will be too old. One alone stays: what would be left is the word of its own trimming.
    pub(super) fn aged_at(&self) -> Option<Timestamp> {
        let oldest = self.stamps.front().filter(|_| self.stamps.len() > 1)?;
        self.retention.age.map(|age| oldest.time + age)
    }

    /// Drops the oldest entries, an eighth of what is kept at a time, and says so in an entry of its own.
    pub(super) fn trim(&mut self, now: Timestamp) {
        let too_old = self.aged_at().is_some_and(|at| at <= now);
        let too_much = self.bytes_after(0, self.dropped) > self.retention.bytes;
        if !too_old && !too_much {
            return;
        }
        let room = if too_much { self.retention.bytes - self.retention.bytes / 8 } else { u64::MAX };
        let youth = self.retention.age.filter(|_| too_old).map(|age| age - age / 8);
        let (mut entries, mut end) = (0, self.dropped);
        for stamp in &self.stamps {
            let is_old = youth.is_some_and(|youth| now.since(stamp.time) >= youth);
            if !is_old && self.bytes_after(entries, end) <= room {
                break;
            }
            (entries, end) = (entries + 1, stamp.end);
        }
        self.stamps.drain(..entries);
        self.packed.drain(..(end - self.dropped) as usize);
        self.dropped = end;
        self.first = Position::new(self.first.get() + entries as u64);
        if entries > 0 {
            let through = self.first.get() - 1;
            let trim = Record::new("journal", "trim", "s2.journal").with("through", through);
            self.push(&trim.with("entries", entries as u64), now);
        }
    }

    /// The position of the oldest entry, or of the next one when there is none.
    pub(super) fn first(&self) -> Position {
        self.first
    }

    /// The position of the next entry.
    pub(super) fn end(&self) -> Position {
        Position::new(self.first.get() + self.stamps.len() as u64)
    }

    /// At most `limit` entries from `from` on, which is retained.
    pub(super) fn from(&self, from: Position, limit: usize) -> impl Iterator<Item = Entry> {
        let skip = usize::try_from(from.get() - self.first.get()).unwrap_or(usize::MAX).min(self.stamps.len());
        let before = skip.checked_sub(1).and_then(|last| self.stamps.get(last));
        let begin = before.map_or(self.dropped, |stamp| stamp.end);
        let entries = self.stamps.range(skip..).take(limit).zip(from.get()..);
        entries.scan(begin, |begin, (stamp, position)| {
            let place = |at: u64| (at - self.dropped) as usize;
            let packed: Vec<u8> = self.packed.range(place(*begin)..place(stamp.end)).copied().collect();
            *begin = stamp.end;
            Some(Entry::new(unpack(&packed), Position::new(position), stamp.time))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const BYTES: u64 = 10_000;
    const AGE: Duration = Duration::from_secs(100);

    /// How many bytes the word of a trimming takes, which comes on top.
    const WORD: u64 = 100;

    /// The same, unpacked. It is told how many entries have gone.
    #[derive(Default)]
    struct Model {
        entries: VecDeque<Entry>,
        bytes: VecDeque<u64>,
        last: u64,
    }

    impl Model {
        fn push(&mut self, record: Record, now: Timestamp) {
            let mut packed = Vec::new();
            pack(&record, &mut packed);
            self.bytes.push_back((packed.len() + size_of::<Stamp>()) as u64);
            self.last += 1;
            self.entries.push_back(Entry::new(record, Position::new(self.last), now));
        }

        /// Everything before `first` has gone, which was no more than had to, and an entry says so.
        fn trim(&mut self, first: Position, now: Timestamp) {
            let gone = self.entries.iter().take_while(|entry| entry.position < first).count();
            let dropped: Vec<(Entry, u64)> = self.entries.drain(..gone).zip(self.bytes.drain(..gone)).collect();
            if let Some((last, bytes)) = dropped.last() {
                let is_too_old = now.since(last.time) >= AGE - AGE / 8;
                let was_too_much = self.bytes.iter().sum::<u64>() + bytes > BYTES - BYTES / 8;
                assert!(is_too_old || was_too_much, "{last:?} at {now:?}");
                let trim = Record::new("journal", "trim", "s2.journal").with("through", first.get() - 1);
                self.push(trim.with("entries", gone as u64), now);
            }
        }
    }

    /// Some time passes, and then there is perhaps something to record.
    fn steps() -> impl Strategy<Value = Vec<(u64, Option<String>)>> {
        let texts = prop_oneof![30 => "[a-zé]{0,200}", 1 => "[aé]{5000,9000}"];
        let seconds = prop_oneof![20 => 0..2u64, 1 => 0..150u64];
        prop::collection::vec((seconds, prop::option::weighted(0.9, texts)), 0..400)
    }

    proptest! {
        #[test]
        fn it_gives_what_it_was_given_and_keeps_no_more_than_it_may(
            steps in steps(),
            skip in any::<prop::sample::Index>(),
            limit in 0..20usize,
        ) {
            let (mut log, mut model) = (JournalLog::new(Retention { bytes: BYTES, age: Some(AGE) }), Model::default());
            let mut now = Timestamp::EPOCH;
            for (nth, (seconds, text)) in steps.into_iter().enumerate() {
                now = now + Duration::from_secs(seconds);
                if let Some(text) = text {
                    let record = Record::new("task", "completed", text).with("nth", nth as u64);
                    prop_assert_eq!(log.append(&record, now).get(), model.last + 1);
                    model.push(record, now);
                } else {
                    log.trim(now);
                }
                model.trim(log.first(), now);
                prop_assert_eq!(log.end().get(), model.last + 1);
                let bytes = log.bytes_after(0, log.dropped);
                prop_assert_eq!(bytes, model.bytes.iter().sum::<u64>());
                prop_assert!(bytes <= BYTES + WORD, "{} bytes", bytes);
                if let Some(oldest) = model.entries.front() {
                    prop_assert_eq!(log.first(), oldest.position);
                    prop_assert!(model.entries.len() == 1 || now.since(oldest.time) < AGE, "since {:?}", oldest.time);
                }

                let skip = skip.index(model.entries.len() + 1);
                let given: Vec<Entry> = log.from(Position::new(log.first().get() + skip as u64), limit).collect();
                let kept: Vec<Entry> = model.entries.iter().skip(skip).take(limit).cloned().collect();
                prop_assert_eq!(given, kept);
            }
        }
    }
}
