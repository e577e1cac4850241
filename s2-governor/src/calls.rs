//! The calls that decide whether a breaker trips: how many, how many of them failed, how many were slow.

use std::collections::VecDeque;
use std::time::Duration;

use s2_coordinator::Timestamp;

use crate::provider_settings::{BreakerSettings, Window};

/// Into how many parts a window of time is divided: it moves by one of them at a time.
const PARTS: u64 = 10;

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) failed: bool,
    pub(crate) slow: bool,
}

/// Sums over some calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    pub(crate) calls: u32,
    pub(crate) failed: u32,
    pub(crate) slow: u32,
}

impl Sums {
    fn add(&mut self, answer: Answer) {
        self.calls = self.calls.saturating_add(1);
        self.failed = self.failed.saturating_add(answer.failed.into());
        self.slow = self.slow.saturating_add(answer.slow.into());
    }

    fn remove(&mut self, answer: Answer) {
        self.calls -= 1;
        self.failed -= u32::from(answer.failed);
        self.slow -= u32::from(answer.slow);
    }

    /// Whether they are too many to go on asking.
    pub(crate) fn trips(&self, settings: &BreakerSettings) -> bool {
        self.calls >= settings.minimum_calls
            && (at_least(self.failed, settings.failure_percent, self.calls)
                || at_least(self.slow, settings.slow_percent, self.calls))
    }
}

/// Whether `part` is at least so many percent of `whole`.
pub(crate) fn at_least(part: u32, percent: u32, whole: u32) -> bool {
    u64::from(part) * 100 >= u64::from(percent) * u64::from(whole)
}

#[derive(Debug)]
enum Kept {
    Calls { most: usize, answers: VecDeque<Answer> },
    Parts { length: Duration, parts: VecDeque<(u64, Sums)> },
}

/// The calls of a window.
#[derive(Debug)]
pub(crate) struct Calls {
    kept: Kept,
    sums: Sums,
}

impl Calls {
    pub(crate) fn new(window: Window) -> Self {
        let kept = match window {
            Window::Calls(most) => Kept::Calls { most: most as usize, answers: VecDeque::new() },
            Window::Last(last) => Kept::Parts { length: last / PARTS as u32, parts: VecDeque::new() },
        };
        Self { kept, sums: Sums::default() }
    }

    pub(crate) fn clear(&mut self) {
        self.sums = Sums::default();
        match &mut self.kept {
            Kept::Calls { answers, .. } => answers.clear(),
            Kept::Parts { parts, .. } => parts.clear(),
        }
    }

    /// Counts a call and answers with the sums of the window.
    pub(crate) fn record(&mut self, now: Timestamp, answer: Answer) -> Sums {
        match &mut self.kept {
            Kept::Calls { most, answers } => {
                if answers.len() >= *most
                    && let Some(oldest) = answers.pop_front()
                {
                    self.sums.remove(oldest);
                }
                answers.push_back(answer);
                self.sums.add(answer);
            }
            Kept::Parts { length, parts } => {
                let nth = now.as_micros() / u64::try_from(length.as_micros()).unwrap_or(u64::MAX).max(1);
                while parts.front().is_some_and(|(first, _)| first + PARTS <= nth) {
                    parts.pop_front();
                }
                match parts.back_mut() {
                    // Time does not go back; if it seems to, the latest part counts.
                    Some((last, sums)) if *last >= nth => sums.add(answer),
                    _ => {
                        let mut sums = Sums::default();
                        sums.add(answer);
                        parts.push_back((nth, sums));
                    }
                }
                self.sums = parts.iter().fold(Sums::default(), |all, (_, part)| Sums {
                    calls: all.calls.saturating_add(part.calls),
                    failed: all.failed.saturating_add(part.failed),
                    slow: all.slow.saturating_add(part.slow),
                });
            }
        }
        self.sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn answer((failed, slow): (bool, bool)) -> Answer {
        Answer { failed, slow }
    }

    proptest! {
        #[test]
        fn a_window_of_calls_counts_the_last(most in 1_usize..20, answers in prop::collection::vec(any::<(bool, bool)>(), 1..100)) {
            let mut calls = Calls::new(Window::Calls(most as u32));
            for nth in 0..answers.len() {
                let sums = calls.record(Timestamp::EPOCH, answer(answers[nth]));
                let last = &answers[(nth + 1).saturating_sub(most)..=nth];
                let count = |which: fn(&&(bool, bool)) -> bool| last.iter().filter(which).count() as u32;
                prop_assert_eq!(sums, Sums { calls: last.len() as u32, failed: count(|a| a.0), slow: count(|a| a.1) });
            }
        }

        #[test]
        fn a_window_of_time_counts_what_lies_within_it_to_a_tenth(steps in prop::collection::vec((0_u64..400, any::<(bool, bool)>()), 1..100)) {
            let (mut calls, mut seen, mut now) = (Calls::new(Window::Last(Duration::from_micros(1000))), Vec::new(), 0);
            for (step, made) in steps {
                now += step;
                seen.push((now, made));
                let sums = calls.record(Timestamp::from_micros(now), answer(made));
                let within = |micros: u64| seen.iter().filter(|(at, _)| at + micros > now).count() as u32;
                prop_assert!(within(900) <= sums.calls && sums.calls <= within(1001), "{:?}", sums);
                let Kept::Parts { parts, .. } = &calls.kept else { unreachable!() };
                prop_assert!(parts.len() <= PARTS as usize);
            }
        }
    }

    #[test]
    fn the_threshold_itself_trips_and_too_few_calls_do_not() {
        let settings = BreakerSettings::default();
        let sums = |calls, failed, slow| Sums { calls, failed, slow };
        assert!(sums(10, 5, 0).trips(&settings) && sums(10, 0, 10).trips(&settings));
        assert!(!sums(9, 9, 9).trips(&settings) && !sums(11, 5, 10).trips(&settings));
    }
}
