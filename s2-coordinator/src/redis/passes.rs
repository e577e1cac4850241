//! Work that one at a time does for all who have asked for it before it began.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// Which passes were asked for, begun and ended: 1, 2, 3 …
#[derive(Debug)]
pub(super) struct Passes {
    state: Mutex<State>,
    ended: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    wanted: u64,
    begun: u64,
    /// Whether somebody makes them.
    runs: bool,
}

/// A pass that begins after it was asked for.
#[must_use = "it is waited for by asking for its end"]
pub(super) struct Pass {
    nth: u64,
    ended: watch::Receiver<u64>,
    /// Whether nobody makes passes: then whoever has asked has them made.
    pub(super) is_first: bool,
}

impl Default for Passes {
    fn default() -> Self {
        Self { state: Mutex::default(), ended: watch::Sender::new(0) }
    }
}

impl Passes {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for a pass that has not begun yet.
    pub(super) fn ask(&self) -> Pass {
        let mut state = self.state();
        state.wanted = state.begun + 1;
        let is_first = !std::mem::replace(&mut state.runs, true);
        Pass { nth: state.wanted, ended: self.ended.subscribe(), is_first }
    }

    /// Begins the next pass; nothing if none is wanted: then whoever asks next has them made.
    pub(super) fn begin(&self) -> Option<u64> {
        let mut state = self.state();
        state.runs = state.wanted > state.begun;
        state.runs.then(|| {
            state.begun += 1;
            state.begun
        })
    }

    pub(super) fn end(&self, nth: u64) {
        self.ended.send_replace(nth);
    }

    /// Whoever made them is gone. Nobody waits any longer, and whoever asks next has them made.
    pub(super) fn abandon(&self) {
        let mut state = self.state();
        if std::mem::take(&mut state.runs) {
            state.begun = state.wanted;
            self.ended.send_replace(state.begun);
        }
    }
}

impl Pass {
    /// Waits for its end, or until whoever made it is gone.
    pub(super) async fn ended(mut self) {
        // Passes end with who asks for them.
        drop(self.ended.wait_for(|ended| *ended >= self.nth).await);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether it has ended, for whoever looks once.
    async fn is_over(pass: Pass) -> bool {
        tokio::time::timeout(std::time::Duration::ZERO, pass.ended()).await.is_ok()
    }

    #[tokio::test]
    async fn a_pass_that_has_begun_is_not_the_one_that_was_asked_for() {
        let passes = Passes::default();
        let (first, second) = (passes.ask(), passes.ask());
        assert!(first.is_first && !second.is_first);
        assert_eq!(passes.begin(), Some(1));
        let late = passes.ask();
        passes.end(1);
        assert!(is_over(first).await && is_over(second).await, "one is enough for both");
        assert_eq!(passes.begin(), Some(2));
        passes.end(2);
        assert!(is_over(late).await);
        assert_eq!(passes.begin(), None);
        assert!(passes.ask().is_first);
    }

    #[tokio::test]
    async fn nobody_waits_for_whoever_is_gone() {
        let passes = Passes::default();
        let never_begun = passes.ask();
        passes.abandon();
        assert!(is_over(never_begun).await);
        let (begun, next) = (passes.ask(), {
            assert_eq!(passes.begin(), Some(2));
            passes.ask()
        });
        passes.abandon();
        assert!(is_over(begun).await && is_over(next).await);
        let again = passes.ask();
        assert!(again.is_first);
        assert_eq!(passes.begin(), Some(4));
        assert!(!is_over(again).await);
    }
}
