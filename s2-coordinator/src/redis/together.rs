//! Calls that share a step.
//!
//! What a step costs besides what it is asked for (reading the state of the fleet and writing it, its numbers, the time) is a
//! good part of what it costs to end a claim and make the next. So of calls that come while others are on their way, those
//! that are small wait until one of these is back, and go together: one of them takes the others along. Whoever calls alone
//! waits for nobody.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::redis::reply::Reply;

/// So many are on their way at once: one is answered while another is executed.
const ON_THE_WAY: usize = 2;

/// So many calls go together at most.
const MOST_CALLS: usize = 64;

/// Who has been on the way for longer holds up nobody: perhaps its host does not poll it.
const LONG: Duration = Duration::from_millis(250);

/// Who has heard nothing for that long goes by itself.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

/// Whoever claims or ends more tasks than that goes alone.
pub(super) const FEW: usize = 4;

/// What has more arguments or bytes than that goes alone.
const MOST_ARGS: usize = 64;
const MOST_BYTES: usize = 16 * 1024;

/// Which calls are on their way, and which wait for that.
#[derive(Debug, Default)]
pub(super) struct Together(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The numbers of places that are taken, and since when.
    on_the_way: Vec<(u64, Instant)>,
    /// The last number of a place.
    last: u64,
    waiting: VecDeque<Waiting>,
}

/// What is asked of a step.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) verb: &'static str,
    /// The fields that it will read.
    pub(super) fields: Vec<String>,
    pub(super) args: Vec<Vec<u8>>,
}

#[derive(Debug)]
struct Waiting {
    request: Request,
    told: oneshot::Sender<Told>,
}

/// What a call that waits is told.
#[derive(Debug)]
pub(super) enum Told {
    /// Another has taken it along, and this was its answer.
    Answer(Reply),
    /// It is its turn.
    Lead(Group),
}

/// What a call is to do.
pub(super) enum Turn {
    /// Go, and drop this when it is back.
    Go(Place),
    /// Wait. Where nothing is told, it goes by itself.
    Wait(oneshot::Receiver<Told>),
}

/// A place among those that are on their way. Dropped, it is given to some of those that wait.
#[derive(Debug)]
pub(super) struct Place(Arc<Together>, u64);

/// Calls that go together. The first is of whoever leads.
#[derive(Debug)]
pub(super) struct Group {
    first: Request,
    others: Vec<Waiting>,
    place: Place,
}

impl Group {
    /// What is to be asked now: nothing of those that nobody waits for any more. It must not happen later.
    pub(super) fn requests(&mut self) -> Vec<&Request> {
        self.others.retain(|other| !other.told.is_closed());
        std::iter::once(&self.first).chain(self.others.iter().map(|other| &other.request)).collect()
    }

    /// Tells the others what was answered to each, and answers with what was answered to the first. Those without an answer
    /// go by themselves.
    pub(super) fn answer(self, answers: impl IntoIterator<Item = Option<Reply>>) -> Option<Reply> {
        let mut answers = answers.into_iter();
        let first = answers.next().flatten();
        for (other, answer) in self.others.into_iter().zip(answers) {
            if let Some(answer) = answer {
                // Whoever has asked may be gone.
                drop(other.told.send(Told::Answer(answer)));
            }
        }
        first
    }
}

impl Together {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a call of a verb with these arguments is to do, that will read these fields.
    pub(super) fn turn<'a>(
        self: &Arc<Self>,
        verb: &'static str,
        args: impl Iterator<Item = &'a [u8]> + Clone,
        fields: impl FnOnce() -> Vec<String>,
    ) -> Turn {
        let is_small =
            || args.clone().count() <= MOST_ARGS && args.clone().map(<[u8]>::len).sum::<usize>() <= MOST_BYTES;
        let mut state = self.state();
        let on_the_way = state.on_the_way.iter().filter(|(_, since)| since.elapsed() <= LONG).count();
        if on_the_way < ON_THE_WAY || !is_small() {
            return Turn::Go(Place(Arc::clone(self), state.take_place()));
        }
        let (told, wait) = oneshot::channel();
        let request = Request { verb, fields: fields(), args: args.map(<[u8]>::to_vec).collect() };
        state.waiting.push_back(Waiting { request, told });
        Turn::Wait(wait)
    }

    /// Those that go when one is back, and their place; nothing if nobody waits.
    fn next(&self, back: u64) -> Option<(VecDeque<Waiting>, u64)> {
        let mut state = self.state();
        state.on_the_way.retain(|(place, _)| *place != back);
        if state.waiting.is_empty() {
            return None;
        }
        let rest = state.waiting.len().min(MOST_CALLS);
        let rest = state.waiting.split_off(rest);
        Some((std::mem::replace(&mut state.waiting, rest), state.take_place()))
    }
}

impl State {
    fn take_place(&mut self) -> u64 {
        self.last += 1;
        self.on_the_way.push((self.last, Instant::now()));
        self.last
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some((mut calls, place)) = self.0.next(self.1) else { return };
        let mut place = Place(Arc::clone(&self.0), place);
        while let Some(Waiting { request, told }) = calls.pop_front() {
            match told.send(Told::Lead(Group { first: request, others: calls.into(), place })) {
                // Nobody waits for that one any more.
                Err(Told::Lead(group)) => (calls, place) = (group.others.into(), group.place),
                _ => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(together: &Arc<Together>, arg: &[u8]) -> Turn {
        together.turn("verb", std::iter::once(arg), Vec::new)
    }

    fn go(together: &Arc<Together>) -> Place {
        let Turn::Go(place) = turn(together, b"") else { panic!("it waits") };
        place
    }

    fn wait(together: &Arc<Together>) -> oneshot::Receiver<Told> {
        let Turn::Wait(told) = turn(together, b"") else { panic!("it goes") };
        told
    }

    fn lead(told: &mut oneshot::Receiver<Told>) -> Group {
        let Ok(Told::Lead(group)) = told.try_recv() else { panic!("it does not lead") };
        group
    }

    #[test]
    fn those_that_wait_are_taken_along_by_the_first_of_them() {
        let together = Arc::default();
        let (one, two) = (go(&together), go(&together));
        let (mut first, mut second, mut third) = (wait(&together), wait(&together), wait(&together));
        drop(one);
        let mut group = lead(&mut first);
        let mut fourth = wait(&together);
        assert_eq!(group.requests().len(), 3);
        assert_eq!(group.answer([Some(Reply::Int(1)), Some(Reply::Int(2)), None]), Some(Reply::Int(1)));
        assert!(matches!(second.try_recv(), Ok(Told::Answer(Reply::Int(2)))));
        assert!(matches!(third.try_recv(), Err(oneshot::error::TryRecvError::Closed)), "it goes by itself");
        let group = lead(&mut fourth);
        drop((two, group));
        drop((go(&together), go(&together)));
    }

    #[test]
    fn those_that_nobody_waits_for_are_left_out_and_hold_nobody_up() {
        let together = Arc::default();
        let (one, two) = (go(&together), go(&together));
        let all: Vec<_> = (0..3 * MOST_CALLS).map(|_| wait(&together)).collect();
        let (mut kept, mut dropped) = (Vec::new(), Vec::new());
        for (nth, told) in all.into_iter().enumerate() {
            if nth < MOST_CALLS || nth % 2 == 0 { dropped.push(told) } else { kept.push(told) }
        }
        drop(dropped);
        // The first group has nobody, and is passed over.
        drop(one);
        let mut group = lead(&mut kept[0]);
        assert_eq!(group.requests().len(), MOST_CALLS / 2);
        let late = kept.remove(1);
        drop(late);
        assert_eq!(group.requests().len(), MOST_CALLS / 2 - 1);
        // Whoever leads may be gone before it has begun: then the others go by themselves, and the next take the place.
        drop(group);
        assert!(matches!(kept[1].try_recv(), Err(oneshot::error::TryRecvError::Closed)));
        drop(kept);
        drop(two);
        drop((go(&together), go(&together)));
        assert!(together.state().on_the_way.is_empty());
    }

    #[test]
    fn what_is_large_waits_for_nobody() {
        let together = Arc::default();
        let places = (go(&together), go(&together));
        let Turn::Go(large) = turn(&together, &[0; MOST_BYTES + 1]) else { panic!("it waits") };
        let Turn::Go(many) = together.turn("verb", [&[][..]; MOST_ARGS + 1].into_iter(), Vec::new) else {
            panic!("it waits")
        };
        let mut small = wait(&together);
        drop(large);
        drop(lead(&mut small));
        drop((many, places));
        assert!(together.state().on_the_way.is_empty());
    }

    #[test]
    fn those_that_do_not_come_back_hold_nobody_up() {
        let together = Arc::default();
        let _stuck = (go(&together), go(&together));
        let mut first = wait(&together);
        std::thread::sleep(LONG + Duration::from_millis(10));
        let another = (go(&together), go(&together));
        let mut second = wait(&together);
        drop(another.0);
        let group = lead(&mut first);
        assert_eq!(group.others.len(), 1);
        drop((group, another.1));
        assert!(second.try_recv().is_err());
        // Nor does one after the other wait.
        for _ in 0..3 {
            drop(go(&together));
        }
    }
}
