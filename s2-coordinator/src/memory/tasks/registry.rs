//! Sessions come and go.

use crate::entry::Record;
use crate::error::Error;
use crate::lease::{Incarnation, Loss};
use crate::limits::check;
use crate::memory::effects::Effects;
use crate::memory::tasks::sessions::Session;
use crate::memory::tasks::{Chore, Tasks, Timer, named};
use crate::outcome::RunEnd;
use crate::registry::Profile;
use crate::severity::Severity;
use crate::swarm::SwarmId;

impl Tasks {
    pub(in crate::memory) fn enter(&mut self, profile: &Profile, fx: &mut Effects) -> Result<Incarnation, Error> {
        let limits = &fx.config.limits;
        limits.check_profile(profile)?;
        let name = &profile.session;
        let older = self.sessions.named(name).map(|session| session.incarnation.clone());
        check("sessions", || "the fleet".into(), self.sessions.len() + usize::from(older.is_none()), limits.sessions)?;
        let incarnation = Incarnation { session: name.clone(), number: fx.number() };
        let older = older.and_then(|older| self.sessions.remove(&older));
        let kind = self.queues.enter_kind(&profile.capabilities);
        fx.journal(entry("entered", name).with("incarnation", incarnation.number));
        self.sessions.insert(incarnation.clone(), profile.capabilities.clone(), kind);
        // Its own queue is there for the newer one, and for what the older one had of it, as far as that can do it.
        if let Some(older) = older {
            self.part(&older, Some(&incarnation), fx);
        }
        self.chores.push_back(Chore::Sift(name.clone()));
        Ok(incarnation)
    }

    pub(in crate::memory) fn leave(&mut self, incarnation: &Incarnation, fx: &mut Effects) -> bool {
        if self.sessions.check(incarnation).is_err() {
            return false;
        }
        let Some(session) = self.sessions.remove(incarnation) else { return false };
        let name = &incarnation.session;
        fx.journal(entry("left", name).with("incarnation", incarnation.number));
        self.part(&session, None, fx);
        self.chores.push_back(Chore::Sift(name.clone()));
        true
    }

    /// What a session leaves behind. If another takes its place, its claims end as those of a crashed one do.
    fn part(&mut self, session: &Session, newer: Option<&Incarnation>, fx: &mut Effects) {
        let number = session.incarnation.number;
        if let Some(kind) = self.queues.kind_mut(session.kind) {
            fx.wake(kind.waiting.all(|other| other == number));
        }
        self.queues.leave_kind(session.kind);
        for (at, task) in session.refusals() {
            self.timers.remove(&(at, Timer::Offer(task, number)));
        }
        if let Some(newer) = newer {
            let name = &session.incarnation.session;
            fx.journal(
                entry("superseded", name)
                    .with("incarnation", number)
                    .with("by", newer.number)
                    .with_severity(Severity::Medium),
            );
            for &task in &session.held {
                self.lose(task, Loss::Superseded);
                self.count_failure(task, RunEnd::Lost, fx.now, fx);
            }
        }
        let resumable = session.resumable.iter().map(|place| &place.task);
        self.chores.extend(session.blocked.iter().chain(resumable).map(|task| Chore::Desert(*task)));
    }
}

fn entry(operation: &'static str, session: &SwarmId) -> Record {
    Record::new("session", operation, named(session))
}
