//! A fleet that stands still.

use crate::entry::Record;
use crate::escalation::NewEscalation;
use crate::memory::effects::Effects;
use crate::memory::tasks::Tasks;
use crate::name::Subject;
use crate::severity::Severity;
use crate::task::TaskState;
use crate::time::{Timestamp, millis};

/// When anything last made progress.
#[derive(Debug)]
pub(super) struct Progress {
    at: Timestamp,
    /// Whether there was nothing to do.
    idle: bool,
    /// Whether a person knows that it is too long ago.
    told: bool,
}

impl Default for Progress {
    fn default() -> Self {
        Self { at: Timestamp::EPOCH, idle: true, told: false }
    }
}

impl Progress {
    pub(super) const fn happened(&mut self, now: Timestamp) {
        (self.at, self.told) = (now, false);
    }
}

impl Tasks {
    /// Whether there is anything that should go on.
    fn has_work(&self) -> bool {
        [TaskState::Ready, TaskState::Claimed, TaskState::Blocked].iter().any(|state| self.counts[*state as usize] > 0)
    }

    /// When the fleet has stood still for too long; never, if a person knows already.
    pub(super) fn flat_at(&self, fx: &Effects) -> Timestamp {
        let Progress { at, idle, told } = self.progress;
        if idle || told { Timestamp::MAX } else { at + fx.config.flatline }
    }

    /// Notices when there is something to do again.
    pub(super) fn watch_progress(&mut self, fx: &mut Effects) {
        let idle = !self.has_work();
        let was_idle = std::mem::replace(&mut self.progress.idle, idle);
        if was_idle && !self.progress.idle {
            self.progress.happened(fx.now);
        }
        fx.arm(self.flat_at(fx));
    }

    /// Nothing has moved for too long.
    pub(super) fn flatline(&mut self, fx: &mut Effects) {
        if self.flat_at(fx) > fx.now {
            return;
        }
        self.progress.told = true;
        let unfinished = self.stats().unfinished();
        let entry = Record::new("fleet", "flatline", "fleet").with("idle_ms", millis(fx.now.since(self.progress.at)));
        fx.journal(entry.with("unfinished", unfinished).with_severity(Severity::High));
        if let Ok(key) = Subject::new("flatline") {
            drop(fx.escalate(NewEscalation::new(key, "nothing has moved for too long")));
        }
    }
}
