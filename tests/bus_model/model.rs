//! The model: one record for each event and group, and every answer from looking through all of them.

use std::collections::BTreeMap;

use s2_coordinator::{Attempt, AttemptEnd};

pub(crate) const ACK_TIMEOUT: u64 = 30;
pub(crate) const DELIVERIES: u32 = 3;

/// Which delivery.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Token {
    pub(crate) group: usize,
    pub(crate) event: usize,
    pub(crate) delivery: u32,
    /// Of the nack that is being said.
    pub(crate) delay: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum State {
    Fresh,
    InFlight { deadline: u64 },
    Delayed { until: u64 },
    Ready,
    Acked,
    Committed { output: usize },
    Dead,
}

/// How a delivery ended that did not end well.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum End {
    GivenBack,
    Refused,
    TimedOut,
    Lost,
}

impl End {
    pub(crate) fn of(attempt: &Attempt) -> Self {
        match attempt.end {
            AttemptEnd::Nacked { .. } => Self::GivenBack,
            AttemptEnd::Refused { .. } => Self::Refused,
            AttemptEnd::TimedOut => Self::TimedOut,
            AttemptEnd::Lost => Self::Lost,
        }
    }

    pub(crate) fn is_told(self) -> bool {
        matches!(self, Self::GivenBack | Self::Refused)
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) state: State,
    pub(crate) deliveries: u32,
    pub(crate) born: u32,
    pub(crate) consumer: usize,
    pub(crate) suspect: bool,
    pub(crate) settled_at: u64,
    /// By delivery: how it ended, and the dead letter that it led to.
    pub(crate) ends: BTreeMap<u32, (End, Option<u64>)>,
}

#[derive(Clone, Debug)]
pub(crate) struct Letter {
    pub(crate) group: usize,
    pub(crate) event: usize,
    pub(crate) history: Vec<(u32, End)>,
}

#[derive(Debug, Default)]
pub(crate) struct Model {
    pub(crate) now: u64,
    pub(crate) events: usize,
    pub(crate) records: [Vec<Record>; 2],
    /// Group, prefetch, whether it is there.
    pub(crate) consumers: Vec<(usize, usize, bool)>,
    pub(crate) letters: BTreeMap<u64, Letter>,
    pub(crate) redriven: Vec<u64>,
    pub(crate) last_letter: u64,
}

/// What a take answers: event, attempt.
pub(crate) type Taken = Option<(usize, u32)>;

/// What a consumer says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Said {
    Done,
    Committed(usize),
    Failed(End),
}

/// What a settle answers, as far as it is to be compared.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Answer {
    Acked,
    Committed,
    GivenBack,
    Dead(u64),
    Extended,
    Stale,
    Already,
}

impl Model {
    pub(crate) fn publish(&mut self, count: usize) {
        self.events += count;
        let fresh = Record {
            state: State::Fresh,
            deliveries: 0,
            born: 0,
            consumer: 0,
            suspect: false,
            settled_at: 0,
            ends: BTreeMap::new(),
        };
        for records in &mut self.records {
            records.resize(self.events, fresh.clone());
        }
    }

    pub(crate) fn held(&self, consumer: usize) -> (usize, usize) {
        let group = self.consumers[consumer].0;
        let mine = |record: &&Record| matches!(record.state, State::InFlight { .. }) && record.consumer == consumer;
        let held = self.records[group].iter().filter(mine);
        (held.clone().count(), held.filter(|record| record.suspect).count())
    }

    /// Ends whatever is due, in the order in which it is due.
    pub(crate) fn expire(&mut self) {
        loop {
            let due = |group: usize, (nth, record): (usize, &Record)| match record.state {
                State::InFlight { deadline: at } | State::Delayed { until: at } if at <= self.now => {
                    Some((at, group, nth))
                }
                _ => None,
            };
            let of_group =
                |group: usize| self.records[group].iter().enumerate().filter_map(move |each| due(group, each));
            let Some((at, group, nth)) = of_group(0).chain(of_group(1)).min() else { return };
            let record = &mut self.records[group][nth];
            if let State::Delayed { .. } = record.state {
                (record.state, record.suspect) = (State::Ready, false);
                continue;
            }
            let end = if self.consumers[record.consumer].2 { End::TimedOut } else { End::Lost };
            record.ends.insert(record.deliveries, (end, None));
            if record.deliveries - record.born >= DELIVERIES {
                self.bury(group, nth, end, at);
            } else {
                (record.state, record.suspect) = (State::Ready, true);
            }
        }
    }

    pub(crate) fn bury(&mut self, group: usize, event: usize, end: End, at: u64) -> u64 {
        self.last_letter += 1;
        let record = &mut self.records[group][event];
        record.state = State::Dead;
        record.settled_at = at;
        record.ends.insert(record.deliveries, (end, Some(self.last_letter)));
        let lived = record.ends.range(record.born + 1..);
        let history = lived.map(|(delivery, (end, _))| (*delivery, *end)).collect();
        self.letters.insert(self.last_letter, Letter { group, event, history });
        self.last_letter
    }

    pub(crate) fn take(&mut self, consumer: usize) -> Taken {
        let (group, prefetch, _) = self.consumers[consumer];
        self.expire();
        let (held, suspects) = self.held(consumer);
        if held >= prefetch {
            return None;
        }
        let records = &mut self.records[group];
        let back = records.iter().position(|record| record.state == State::Ready && (!record.suspect || suspects == 0));
        let nth = back.or_else(|| records.iter().position(|record| record.state == State::Fresh))?;
        let record = &mut records[nth];
        record.deliveries += 1;
        record.consumer = consumer;
        record.state = State::InFlight { deadline: self.now + ACK_TIMEOUT };
        Some((nth, record.deliveries - record.born))
    }

    /// Whether a delivery may settle; if not, what its consumer was told before, and for what.
    pub(crate) fn standing(&mut self, held: &Token) -> Result<(), (Answer, Option<Said>)> {
        self.expire();
        let record = &self.records[held.group][held.event];
        match record.ends.get(&held.delivery) {
            Some((end, Some(id))) if end.is_told() => return Err((Answer::Dead(*id), Some(Said::Failed(*end)))),
            Some((end, None)) if end.is_told() => return Err((Answer::GivenBack, Some(Said::Failed(*end)))),
            Some((_, Some(_))) => return Err((Answer::Stale, None)),
            _ if record.deliveries != held.delivery || record.born >= held.delivery => {
                return Err((Answer::Stale, None));
            }
            _ => {}
        }
        match record.state {
            State::Acked => Err((Answer::Acked, Some(Said::Done))),
            State::Committed { output } => Err((Answer::Committed, Some(Said::Committed(output)))),
            _ => Ok(()),
        }
    }

    pub(crate) fn settle(&mut self, held: &Token, said: Said) -> Answer {
        match self.standing(held) {
            Ok(()) => {}
            Err((answer, None)) => return answer,
            Err((answer, Some(before))) => return if before == said { answer } else { Answer::Already },
        }
        let now = self.now;
        let record = &mut self.records[held.group][held.event];
        record.settled_at = now;
        if record.ends.remove(&held.delivery).is_some() {
            let last = record.ends.range(record.born + 1..).last().map(|(_, end)| end);
            record.suspect = last.is_some_and(|(end, _)| !end.is_told());
        }
        match said {
            Said::Done => {
                record.state = State::Acked;
                Answer::Acked
            }
            Said::Committed(output) => {
                record.state = State::Committed { output };
                Answer::Committed
            }
            Said::Failed(end @ End::GivenBack) if record.deliveries - record.born < DELIVERIES => {
                record.ends.insert(record.deliveries, (end, None));
                record.suspect = false;
                let delay = held.delay;
                record.state = if delay == 0 { State::Ready } else { State::Delayed { until: now + delay } };
                Answer::GivenBack
            }
            Said::Failed(end) => Answer::Dead(self.bury(held.group, held.event, end, now)),
        }
    }

    pub(crate) fn extend(&mut self, held: &Token, by: u64) -> Answer {
        match self.standing(held) {
            Ok(()) => {
                let deadline = self.now + by;
                let record = &mut self.records[held.group][held.event];
                if record.ends.remove(&held.delivery).is_some() {
                    let last = record.ends.range(record.born + 1..).last().map(|(_, end)| end);
                    record.suspect = last.is_some_and(|(end, _)| !end.is_told());
                }
                record.state = State::InFlight { deadline };
                Answer::Extended
            }
            Err((Answer::Stale, _)) => Answer::Stale,
            Err(_) => Answer::Already,
        }
    }

    pub(crate) fn redrive(&mut self, id: u64) {
        let Some(letter) = self.letters.remove(&id) else { return };
        self.redriven.push(id);
        let record = &mut self.records[letter.group][letter.event];
        record.born = record.deliveries;
        (record.state, record.suspect) = (State::Ready, false);
    }

    /// In flight, returning, never delivered.
    pub(crate) fn counts(&self, group: usize) -> (usize, usize, u64) {
        let count = |which: fn(&State) -> bool| self.records[group].iter().filter(|r| which(&r.state)).count();
        let returning = count(|state| matches!(state, State::Ready | State::Delayed { .. }));
        let fresh = count(|state| *state == State::Fresh);
        (count(|state| matches!(state, State::InFlight { .. })), returning, fresh as u64)
    }
}
