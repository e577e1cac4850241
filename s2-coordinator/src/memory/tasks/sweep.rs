//! What time brings.

use std::time::Duration;

use crate::dependency::TaskId;
use crate::entry::Record;
use crate::lease::Loss;
use crate::memory::effects::Effects;
use crate::memory::tasks::slot::State;
use crate::memory::tasks::{Tasks, Timer, named};
use crate::outcome::{Cause, Run, RunEnd};
use crate::severity::Severity;
use crate::text::Text;
use crate::time::Timestamp;

/// How long a finished task stays at least, so that whoever waits for it is told.
const TOLD: Duration = Duration::from_secs(1);

impl Tasks {
    /// When something is due next.
    pub(in crate::memory) fn next_due(&self, fx: &Effects) -> Timestamp {
        let timer = self.timers.first().map_or(Timestamp::MAX, |(at, _)| *at);
        let kept = fx.config.finished;
        let age = if self.finished_bytes > kept.bytes { Some(TOLD) } else { kept.age.map(|age| age.max(TOLD)) };
        let forgotten = self.finished.front().zip(age).map(|((at, _), age)| *at + age);
        // What is finished is not forgotten before everybody has heard of it.
        let forgotten = forgotten.filter(|_| self.chores.is_empty());
        timer.min(forgotten.unwrap_or(Timestamp::MAX)).min(self.flat_at(fx))
    }

    /// Whether there is more due than one step does.
    pub(in crate::memory) fn is_behind(&self) -> bool {
        self.due == 0
    }

    /// Does what is due by now, up to a point.
    pub(in crate::memory) fn sweep(&mut self, fx: &mut Effects) {
        loop {
            while self.due > 0
                && let Some(&(at, timer)) = self.timers.first()
                && at <= fx.now
            {
                self.due -= 1;
                self.timers.pop_first();
                self.fire(at, timer, fx);
            }
            self.work(fx);
            // What follows may be due at once, too.
            if self.due == 0 || self.timers.first().is_none_or(|(at, _)| *at > fx.now) {
                break;
            }
        }
        self.flatline(fx);
        self.forget(fx);
    }

    fn fire(&mut self, at: Timestamp, timer: Timer, fx: &mut Effects) {
        match timer {
            Timer::Deadline(id) if self.is_unfinished(id) => self.fail(id, Cause::Overdue, fx),
            Timer::Deadline(_) => {}
            Timer::Start(id) => self.make_ready(id, at, fx),
            Timer::Window(id) => self.open_to_all(id, fx),
            Timer::Offer(id, number) => {
                if let Some(session) = self.sessions.get_mut(number) {
                    session.offer_again(id);
                    self.nudged.push(number);
                }
            }
            Timer::Lease(id) => self.expire(id, at, fx),
            Timer::Wait(id) => self.preempt(id, Vec::new(), fx),
        }
    }

    /// A lease was not renewed in time.
    fn expire(&mut self, id: TaskId, at: Timestamp, fx: &mut Effects) {
        let Some(hold) = self.slots.get(&id).and_then(|slot| slot.hold()) else { return };
        let is_there = self.sessions.get(hold.by.number).is_some();
        let stalled = at == hold.progressed + fx.config.progress;
        let (operation, loss) = if stalled { ("stalled", Loss::Stalled) } else { ("expired", Loss::Expired) };
        let entry = self.record(operation, id).with("session", named(&hold.by.session)).with("token", hold.token.get());
        fx.journal(entry.with_severity(Severity::Medium));
        self.lose(id, loss);
        let end = match is_there {
            false => RunEnd::Lost,
            true if stalled => RunEnd::Stalled,
            true => RunEnd::TimedOut,
        };
        self.count_failure(id, end, at, fx);
    }

    /// An attempt ended without its session saying so.
    pub(super) fn count_failure(&mut self, id: TaskId, end: RunEnd, at: Timestamp, fx: &mut Effects) {
        let Some(slot) = self.slots.get_mut(&id) else { return };
        let Some(hold) = slot.hold().cloned() else { return };
        slot.failures += 1;
        slot.history.push(Run::new(hold.by.session, hold.token, hold.started, at, end));
        if slot.failures >= slot.task.attempts {
            return self.fail(id, Cause::Attempts, fx);
        }
        self.make_ready(id, at, fx);
        self.tell(id, fx);
    }

    /// Forgets finished tasks that are too old, the oldest first; if there are too many, an eighth of what is kept.
    fn forget(&mut self, fx: &mut Effects) {
        let kept = fx.config.finished;
        if !self.chores.is_empty() {
            return;
        }
        let room = if self.finished_bytes > kept.bytes { kept.bytes - kept.bytes / 8 } else { kept.bytes };
        let (mut forgotten, mut through) = (0_u64, 0);
        while self.due > 0
            && let Some(&(at, id)) = self.finished.front()
        {
            let age = fx.now.since(at);
            let too_old = kept.age.is_some_and(|most| age >= most);
            let is_current = self.finished_at(id) == Some(at);
            if is_current && (age < TOLD || !too_old && self.finished_bytes <= room) {
                break;
            }
            self.due -= 1;
            self.finished.pop_front();
            if !is_current {
                continue;
            }
            if let Some(slot) = self.slots.remove(&id) {
                self.order.remove(&id);
                self.finished_bytes -= slot.weight();
                self.counts[slot.state() as usize] -= 1;
                if let Some(key) = &slot.task.key {
                    self.keys.remove(key);
                }
                (forgotten, through) = (forgotten + 1, id.get());
                self.tell(id, fx);
            }
        }
        if forgotten > 0 {
            fx.journal(Record::new("task", "forgotten", Text::number(through)).with("tasks", forgotten));
        }
    }

    fn finished_at(&self, id: TaskId) -> Option<Timestamp> {
        match self.slots.get(&id)?.state {
            State::Finished(_, at) => Some(at),
            _ => None,
        }
    }
}
