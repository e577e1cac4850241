//! What a process does although nobody calls: it delivers what was pushed, gives signs of life, and sees to what is due.
//!
//! It decides nothing. Whatever is due happens in the next step of any process; the keeper only sees to it that there is
//! one soon. It also asks the server now and then whether it knows of this process's consumers what they believe.

use std::collections::HashMap;
use std::future::pending;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{Instant, sleep_until};

use crate::clock::Clock;
use crate::error::Error;
use crate::redis::reply::Reply;
use crate::redis::scripts::BEAT;
use crate::redis::store::{Membership, Shared};
use crate::time::Timestamp;

/// How often a process looks whether what it counts on is still there.
const LOOK: Duration = Duration::from_secs(3);

/// Starts the keeper of a process, unless it runs.
pub(super) fn ensure(shared: &Arc<Shared>) -> Result<(), Error> {
    if shared.keeps.load(Ordering::Acquire) {
        return Ok(());
    }
    let runtime = Handle::try_current().map_err(|_| Error::NoRuntime)?;
    if !shared.keeps.swap(true, Ordering::AcqRel) {
        // Made here, not in the task: a runtime that ends may drop the task before its first poll.
        runtime.spawn(keep(Running(Arc::downgrade(shared))));
        *shared.runtime.lock().unwrap_or_else(PoisonError::into_inner) = Some(runtime);
    }
    Ok(())
}

/// Says that the keeper has ended, also when its runtime was shut down: then whoever waits elsewhere starts another.
struct Running(Weak<Shared>);

impl Drop for Running {
    fn drop(&mut self) {
        let Some(shared) = self.0.upgrade() else { return };
        shared.keeps.store(false, Ordering::Release);
        shared.post.ask_again();
    }
}

async fn keep(running: Running) {
    let Some(beat_every) = running.0.upgrade().map(|shared| shared.beat_every) else { return };
    let (mut beat_at, mut look_at) = (Instant::now() + beat_every, Instant::now() + LOOK);
    let mut epoch = None;
    while let Some(shared) = running.0.upgrade() {
        let due = *shared.due.lock().unwrap_or_else(PoisonError::into_inner);
        let read = *shared.read.lock().unwrap_or_else(PoisonError::into_inner);
        let (clock, rearm, post) = (shared.clock.clone(), Arc::clone(&shared.rearm), Arc::clone(&shared.post));
        drop(shared);
        let beats = tokio::select! {
            () = rearm.notified() => false,
            () = post.connection() => true,
            () = sleep_until(beat_at) => true,
            () = sleep_until(look_at) => {
                let Some(shared) = running.0.upgrade() else { return };
                look_at = Instant::now() + LOOK;
                !everything_is_there(&shared).await
            }
            () = until(clock, read, due) => true,
        };
        if beats && let Some(shared) = running.0.upgrade() {
            let failed = beat(&shared, &mut epoch).await.is_err();
            beat_at = Instant::now() + if failed { Duration::from_millis(100) } else { beat_every };
            look_at = Instant::now() + LOOK;
        }
    }
}

/// Whether the keys are there that this process counts on: one command, so that a thousand idle consumers cost next to none.
async fn everything_is_there(shared: &Shared) -> bool {
    let mut keys = vec!["meta".to_owned()];
    for member in samples(shared).values() {
        let incarnation = member.incarnation.load(Ordering::Acquire);
        keys.push(format!("g:{incarnation}"));
    }
    if has_sessions(shared) {
        keys.push("tasks".to_owned());
    }
    keys.len() == 1 || shared.count(&keys).await == Some(keys.len())
}

/// Waits until something is due by the clock of the fleet.
async fn until(clock: Option<Arc<dyn Clock>>, read: Option<(Instant, Timestamp)>, due: Timestamp) {
    match (clock, read) {
        (Some(clock), _) => clock.sleep_until(due).await,
        (None, Some((at, now))) if due < Timestamp::MAX => sleep_until(at + due.since(now)).await,
        (None, _) => pending().await,
    }
}

/// Gives a sign of life and has done what is due.
async fn beat(shared: &Arc<Shared>, epoch: &mut Option<u64>) -> Result<(), Error> {
    shared.link.close(shared.post.broken()).await;
    let mut call = shared.call_again(BEAT);
    call.number(u8::from(has_sessions(shared)));
    for member in samples(shared).values() {
        call.number(member.incarnation.load(Ordering::Acquire));
        call.number(member.consumer.load(Ordering::Acquire));
        call.number(u8::from(member.waits.load(Ordering::Acquire) > 0));
    }
    *shared.due.lock().unwrap_or_else(PoisonError::into_inner) = Timestamp::MAX;
    let answer = call.answer().await?;
    let number = |nth: usize| answer.get(nth).and_then(Reply::as_u64).unwrap_or_default();
    if epoch.replace(number(1)).is_some_and(|before| before != number(1)) {
        shared.post.begin_epoch();
    }
    if answer.get(3).and_then(Reply::as_list).is_some_and(|wrong| !wrong.is_empty()) {
        shared.post.ask_again();
    }
    // The clock was read a little before this instant: so what is due is asked for a little late, and once.
    let read = (Instant::now(), Timestamp::from_micros(number(4)));
    *shared.read.lock().unwrap_or_else(PoisonError::into_inner) = Some(read);
    shared.arm(Timestamp::from_micros(number(2)));
    if number(5) > 0 {
        drop(shared.open_rings());
    }
    Ok(())
}

fn has_sessions(shared: &Shared) -> bool {
    !shared.sessions.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
}

/// One consumer of each group, preferably one that waits.
fn samples(shared: &Shared) -> HashMap<u64, Arc<Membership>> {
    let mut samples: HashMap<u64, Arc<Membership>> = HashMap::new();
    for member in shared.members.lock().unwrap_or_else(PoisonError::into_inner).values() {
        let known = samples.entry(member.incarnation.load(Ordering::Acquire)).or_insert_with(|| Arc::clone(member));
        if known.waits.load(Ordering::Acquire) == 0 {
            *known = Arc::clone(member);
        }
    }
    samples
}
