//! Which process organises help: one at a time, and another when that one is gone or does nothing.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use s2_coordinator::{Capabilities, Error as CoordinatorError, Profile, Session, SessionInfo, Start, SwarmId};

use crate::error::Error;
use crate::help::ORGANISE;
use crate::help::ORGANISER;
use crate::help::RESCUES;
use crate::help::RescueEvent;
use crate::rescue::organiser::MOST;
use crate::rescue::organiser::Organiser;
use crate::s2::S2;
use crate::s2::Stop;

/// How often a process looks whether somebody organises.
const STAND_BY: Duration = Duration::from_secs(5);

/// How long to wait for a store that is away.
const PAUSE: Duration = Duration::from_secs(1);

/// Begins to organise help in this process, as soon as nobody else does, and to call sessions off their work.
pub(crate) fn begin(s2: &S2) {
    if !s2.begins() {
        return;
    }
    s2.spawn(call_off_recruits(s2.clone()));
    if s2.settings().help.organise {
        s2.spawn(stand_by(s2.clone()));
    }
}

/// Tells sessions of this process that somebody needs them more urgently.
async fn call_off_recruits(s2: S2) {
    let follow = async {
        loop {
            if let Err(error) = follow_recruits(&s2).await {
                tracing::warn!(%error, "it is not heard who is called off its work; trying again");
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    tokio::select! {
        () = s2.stopped(Stop::Drain) => {}
        () = follow => {}
    }
}

async fn follow_recruits(s2: &S2) -> Result<(), CoordinatorError> {
    let mut tail = s2.bus().tail(&RESCUES, Start::Now).await?;
    loop {
        match tail.next().await {
            Ok(Some(event)) => {
                if let Ok(RescueEvent::Recruited { helper, help }) = event.json() {
                    let session = s2.recruits().get(&helper).and_then(Weak::upgrade);
                    session.into_iter().for_each(|session| session.call_off(help));
                }
            }
            Ok(None) => return Ok(()),
            Err(CoordinatorError::Lagged { .. }) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Organises help whenever nobody else does.
async fn stand_by(s2: S2) {
    let mut seen = None;
    loop {
        if let Err(error) = organise_if_needed(&s2, &mut seen).await {
            tracing::warn!(%error, "help could not be organised; trying again");
        }
        tokio::select! {
            () = s2.stopped(Stop::Drain) => return,
            () = s2.parts.needed.notified() => {}
            () = tokio::time::sleep(STAND_BY) => {}
        }
    }
}

/// What an organiser was seen to do: which one, how many rescues it had and how many waited for it, and since when that is so.
#[derive(Clone, Copy)]
struct Seen {
    number: u64,
    load: usize,
    queued: usize,
    since: Instant,
}

impl Seen {
    fn of(info: &SessionInfo) -> Self {
        let SessionInfo { incarnation, load, queued, .. } = info;
        Self { number: incarnation.number, load: *load, queued: *queued, since: Instant::now() }
    }

    /// What is seen now, after this was. Whoever takes something up, or has nothing to take up, is not idle.
    fn then(self, now: Self) -> Self {
        let is_idle =
            (self.number, self.load) == (now.number, now.load) && 0 < self.queued && self.queued <= now.queued;
        // One that is full takes up nothing, however much it does.
        let is_idle = is_idle && now.load < MOST;
        if is_idle { Self { since: self.since, ..now } } else { now }
    }
}

/// Organises unless somebody else does. Who has left work undone for a while is not believed to: it is superseded.
async fn organise_if_needed(s2: &S2, seen: &mut Option<Seen>) -> Result<(), Error> {
    // The one before it by name: no other session has a name between them.
    let before = SwarmId::from_static("s2/organise");
    let next = s2.scheduler().sessions(Some(&before), 1).await?;
    if let Some(info) = next.iter().find(|info| info.incarnation.session == ORGANISER) {
        let now = seen.map_or_else(|| Seen::of(info), |before| before.then(Seen::of(info)));
        *seen = Some(now);
        if now.queued == 0 || now.since.elapsed() < STAND_BY {
            return Ok(());
        }
        tracing::warn!(organiser = now.number, "whoever organises help does not; this process takes over");
    }
    *seen = None;
    let profile = Profile::new(ORGANISER).with_capabilities(Capabilities::new([ORGANISE])?);
    let session = Session::enter(Arc::clone(s2.scheduler()), &profile).await?;
    let ended = tokio::select! {
        ended = Organiser::new(s2.clone()).serve(&session) => ended,
        () = s2.stopped(Stop::Drain) => Ok(()),
    };
    match ended {
        // Somebody else has taken over.
        Err(Error::Coordinator(CoordinatorError::StaleSession { .. })) => Ok(()),
        ended => {
            session.leave().await?;
            ended
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seen one after the other, a second apart: number, load, queue. Answers for how many seconds it is idle.
    fn idle(all: &[(u64, usize, usize)]) -> u64 {
        let begun = Instant::now();
        let seen = all.iter().zip(0..).map(|((number, load, queued), nth)| Seen {
            number: *number,
            load: *load,
            queued: *queued,
            since: begun + Duration::from_secs(nth),
        });
        let last = seen.reduce(Seen::then).expect("something is seen");
        (all.len() as u64 - 1) - last.since.duration_since(begun).as_secs()
    }

    #[test]
    fn only_who_leaves_work_undone_is_idle() {
        for (what, all, seconds) in [
            ("nothing to do", vec![(1, 0, 0), (1, 0, 0), (1, 0, 0)], 0),
            ("it waits", vec![(1, 0, 1), (1, 0, 1), (1, 0, 1)], 2),
            ("more and more waits", vec![(1, 3, 1), (1, 3, 2), (1, 3, 5)], 2),
            ("something was taken up", vec![(1, 3, 5), (1, 3, 4), (1, 3, 4)], 1),
            ("something came to an end, or was begun", vec![(1, 3, 5), (1, 2, 5), (1, 3, 5)], 0),
            ("another one", vec![(1, 0, 1), (2, 0, 1), (2, 0, 1)], 1),
            ("it is full", vec![(1, MOST, 5), (1, MOST, 5), (1, MOST, 5)], 0),
        ] {
            assert_eq!(idle(&all), seconds, "{what}");
        }
    }
}
