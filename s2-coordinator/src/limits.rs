//! A named bound on everything.
//!
//! What has no bound is somebody's outage later. Each limit has the name that errors use; names of things are bounded
//! by [`NAME_BYTES`](crate::NAME_BYTES), 256 bytes.

use std::time::Duration;

use crate::dead_letter::DeadLetters;
use crate::ending::{Ending, Retry};
use crate::error::Error;
use crate::event::NewEvent;
use crate::invalid::Invalid;
use crate::lease::Lease;
use crate::new_task::{NewTask, When};
use crate::registry::Profile;
use crate::time::millis;

/// The limits of a fleet. The defaults suit agents that exchange documents, not films.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// The payload of one event or escalation, in bytes: 1 MiB.
    pub payload_bytes: usize,
    /// Events of one call, or dead letters or entries of one page: 500.
    pub batch: usize,
    /// Names and values of the headers of one event and its content type, in bytes: 8 KiB.
    pub header_bytes: usize,
    /// Deliveries that one consumer may hold unsettled: 10,000.
    pub prefetch: usize,
    /// Settles of one group whose answers are remembered although the topic has forgotten the events: 65,536.
    pub settles: u64,
    /// How often an event may be handled before it is a dead letter: 100.
    pub deliveries: u32,
    /// The ack timeout, and how far one `extend` reaches: 24 h.
    pub ack_timeout: Duration,
    /// How long a nack may delay: 30 days.
    pub delay: Duration,
    /// Text of a reason, in bytes: 1 KiB.
    pub reason_bytes: usize,
    /// Escalations that wait for a person: 10,000.
    pub escalations: usize,
    /// Topics of one fleet: 10,000.
    pub topics: usize,
    /// Groups of one topic: 1,000.
    pub groups: usize,
    /// What one topic may hold that is not settled: events, dead letters and idempotency keys, in bytes: 1 GiB.
    pub backlog_bytes: u64,
    /// Tasks of one fleet that are not finished: 10,000,000.
    pub tasks: usize,
    /// Different sets of requirements among them: 10,000.
    pub classes: usize,
    /// Sessions of one fleet: 10,000.
    pub sessions: usize,
    /// Capabilities that one session offers or one task requires: 64.
    pub capabilities: usize,
    /// Tags of one task: 16.
    pub tags: usize,
    /// Tasks that one task depends on, or waits for when it is blocked: 500.
    pub dependencies: usize,
    /// Tasks that those of one batch wait for, counted together: 5,000.
    pub edges: usize,
    /// How deep parts of tasks may nest: 16.
    pub depth: u32,
    /// Parts that one task may have, over its life: 100.
    pub children: usize,
    /// How often a task may be tried: 100.
    pub attempts: u32,
    /// A lease, and how long one attempt may take: 24 h.
    pub lease: Duration,
    /// Tasks that one session may have at a time: 1,000.
    pub leases: usize,
    /// Bytes of evidence in a completion: 8 KiB.
    pub evidence_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            payload_bytes: 1024 * 1024,
            batch: 500,
            header_bytes: 8 * 1024,
            prefetch: 10_000,
            settles: 65_536,
            deliveries: 100,
            ack_timeout: Duration::from_secs(24 * 60 * 60),
            delay: Duration::from_secs(30 * 24 * 60 * 60),
            reason_bytes: 1024,
            escalations: 10_000,
            topics: 10_000,
            groups: 1_000,
            backlog_bytes: 1024 * 1024 * 1024,
            tasks: 10_000_000,
            classes: 10_000,
            sessions: 10_000,
            capabilities: 64,
            tags: 16,
            dependencies: 500,
            edges: 5_000,
            depth: 16,
            children: 100,
            attempts: 100,
            lease: Duration::from_secs(24 * 60 * 60),
            leases: 1_000,
            evidence_bytes: 8 * 1024,
        }
    }
}

impl Limits {
    /// Checks a batch of events; backends call it before they write anything.
    ///
    /// # Errors
    ///
    /// [`Error::LimitExceeded`] or [`Error::Invalid`] that names the event and what is wrong with it.
    pub fn check_events(&self, events: &[NewEvent]) -> Result<(), Error> {
        check("batch", || "a batch of events".into(), events.len(), self.batch)?;
        events.iter().enumerate().try_for_each(|(nth, event)| self.check_event(nth, event))
    }

    fn check_event(&self, nth: usize, event: &NewEvent) -> Result<(), Error> {
        let what = |part: &str| format!("{part} of event {nth} ({})", event.event_type);
        if event.topic.is_reserved() {
            return Err(Error::ReservedTopic { topic: event.topic.clone() });
        }
        check("payload_bytes", || what("the payload"), event.data.len(), self.payload_bytes)?;
        let content_type = event.datacontenttype.as_ref().map_or(0, |text| text.len());
        let headers = event.headers.iter().map(|(name, value)| name.as_str().len() + value.len());
        check("header_bytes", || what("the headers"), headers.sum::<usize>() + content_type, self.header_bytes)?;
        match event.headers.iter().find(|(name, _)| name.is_reserved()) {
            Some((name, _)) => {
                Err(Invalid::new("header name", name.as_str(), "an attribute of the envelope itself").into())
            }
            None => Ok(()),
        }
    }

    /// Checks a batch of tasks, as far as it can be told from themselves; backends call it before they write anything.
    ///
    /// # Errors
    ///
    /// [`Error::LimitExceeded`] or [`Error::Invalid`] that names the task and what is wrong with it.
    pub fn check_tasks(&self, tasks: &[NewTask]) -> Result<(), Error> {
        check("batch", || "a batch of tasks".into(), tasks.len(), self.batch)?;
        let edges = tasks.iter().map(|task| task.after.len()).sum();
        check("edges", || "the dependencies of a batch of tasks".into(), edges, self.edges)?;
        tasks.iter().enumerate().try_for_each(|(nth, task)| self.check_task(nth, task))
    }

    fn check_task(&self, nth: usize, task: &NewTask) -> Result<(), Error> {
        let what = |part: &'static str| move || format!("{part} of task {nth} ({})", task.kind);
        check("payload_bytes", what("the payload"), task.data.len(), self.payload_bytes)?;
        let content_type = task.content_type.as_ref().map_or(0, |text| text.len());
        check("header_bytes", what("the content type"), content_type, self.header_bytes)?;
        check("capabilities", what("the requirements"), task.requires.len(), self.capabilities)?;
        check("tags", what("the tags"), task.tags.len(), self.tags)?;
        check("dependencies", what("the dependencies"), task.after.len(), self.dependencies)?;
        let attempts = task.attempts.unwrap_or(1);
        check("attempts", what("the attempts"), attempts as usize, self.attempts as usize)?;
        if attempts == 0 {
            return Err(Invalid::new("attempts", "0", format!("task {nth} ({}) could never run", task.kind)).into());
        }
        if let Some(When::In(delay)) = task.start {
            self.check_delay(delay)?;
        }
        [task.lease, task.timeout].into_iter().flatten().try_for_each(|lease| self.check_lease(lease))
    }

    /// Checks what a session says about itself.
    ///
    /// # Errors
    ///
    /// [`Error::LimitExceeded`].
    pub fn check_profile(&self, profile: &Profile) -> Result<(), Error> {
        let what = || format!("session {}", profile.session);
        check("capabilities", what, profile.capabilities.len(), self.capabilities)
    }

    /// Checks how many claims are to be ended in one call, and how many tasks follow from all of them together.
    ///
    /// # Errors
    ///
    /// [`Error::LimitExceeded`] when either is more than `batch`.
    pub fn check_endings(&self, endings: &[(Lease, Ending)]) -> Result<(), Error> {
        check("batch", || "a batch of endings".into(), endings.len(), self.batch)?;
        let follow = endings.iter().map(|(_, ending)| ending.tasks().len()).sum();
        check("batch", || "what follows from a batch of endings".into(), follow, self.batch)
    }

    /// Checks how a claim is to be ended, as far as it can be told from itself.
    ///
    /// # Errors
    ///
    /// [`Error::LimitExceeded`] or [`Error::Invalid`].
    pub fn check_ending(&self, ending: &Ending) -> Result<(), Error> {
        match ending {
            Ending::Release => Ok(()),
            Ending::Complete(completion) => {
                let result = &completion.result;
                check("payload_bytes", || "a result".into(), result.data.len(), self.payload_bytes)?;
                let content_type = result.content_type.as_ref().map_or(0, |text| text.len());
                check("header_bytes", || "the content type of a result".into(), content_type, self.header_bytes)?;
                let evidence = usize::try_from(result.evidence.weight()).unwrap_or(usize::MAX);
                check("evidence_bytes", || "the evidence".into(), evidence, self.evidence_bytes)?;
                self.check_tasks(&completion.tasks)?;
                self.check_events(&completion.events)
            }
            Ending::Fail { reason, retry } => {
                if let Retry::After(delay) = retry {
                    self.check_delay(*delay)?;
                }
                self.check_reason(reason)
            }
            Ending::Refuse { reason, delay } => {
                self.check_delay(delay.unwrap_or_default())?;
                self.check_reason(reason)
            }
            Ending::Block(blocker) => {
                self.check_reason(&blocker.reason)?;
                let waits = blocker.help.len() + blocker.on.len();
                check("dependencies", || "what a blocked task waits for".into(), waits, self.dependencies)?;
                let requires = blocker.requires.len();
                check("capabilities", || "the requirements of a blocker".into(), requires, self.capabilities)?;
                self.check_tasks(&blocker.help)
            }
        }
    }

    /// Checks how many tasks a claim asks for.
    ///
    /// # Errors
    ///
    /// [`Error::LimitExceeded`] when it is more than `batch`; [`Error::Invalid`] when it is zero.
    pub fn check_claim(&self, max: usize) -> Result<(), Error> {
        if max == 0 {
            return Err(Invalid::new("claim", "0", format!("expected 1 to {} tasks", self.batch)).into());
        }
        check("batch", || "a claim".into(), max, self.batch)
    }

    /// Checks a lease, or how long an attempt may take.
    ///
    /// # Errors
    ///
    /// [`Error::LimitExceeded`], in milliseconds, when it is more than `lease`; [`Error::Invalid`] when it is zero.
    pub fn check_lease(&self, lease: Duration) -> Result<(), Error> {
        if lease.is_zero() {
            return Err(Invalid::new("lease", "0", "a task could never be done").into());
        }
        check_ms("lease", "a lease in ms", lease, self.lease)
    }

    /// Checks the size of a page.
    ///
    /// # Errors
    ///
    /// [`Error::LimitExceeded`] when it is more than `batch`; [`Error::Invalid`] when it is zero.
    pub fn check_page(&self, limit: usize) -> Result<(), Error> {
        if limit == 0 {
            return Err(Invalid::new("page limit", "0", format!("expected 1 to {}", self.batch)).into());
        }
        check("batch", || "a page".into(), limit, self.batch)
    }

    /// Checks a selection of dead letters.
    ///
    /// # Errors
    ///
    /// As [`Limits::check_page`], for its limit and for how many it names.
    pub fn check_selection(&self, which: &DeadLetters) -> Result<(), Error> {
        self.check_page(which.limit.unwrap_or(self.batch))?;
        check("batch", || "a selection of dead letters".into(), which.ids.len(), self.batch)
    }

    /// Checks the text of a reason.
    ///
    /// # Errors
    ///
    /// [`Error::LimitExceeded`] when it is longer than `reason_bytes`.
    pub fn check_reason(&self, reason: &str) -> Result<(), Error> {
        check("reason_bytes", || "the reason".into(), reason.len(), self.reason_bytes)
    }

    /// Checks an ack timeout or an extension.
    ///
    /// # Errors
    ///
    /// [`Error::LimitExceeded`], in milliseconds, when it is more than `ack_timeout`; [`Error::Invalid`] when it is zero.
    pub fn check_ack_timeout(&self, timeout: Duration) -> Result<(), Error> {
        if timeout.is_zero() {
            return Err(Invalid::new("ack timeout", "0", "an event could never be acked").into());
        }
        check_ms("ack_timeout", "an ack timeout in ms", timeout, self.ack_timeout)
    }

    /// Checks a delay.
    ///
    /// # Errors
    ///
    /// [`Error::LimitExceeded`], in milliseconds, when it is more than `delay`.
    pub fn check_delay(&self, delay: Duration) -> Result<(), Error> {
        check_ms("delay", "a delay in ms", delay, self.delay)
    }
}

/// Fails when `actual` is more than `max`.
pub(crate) fn check(
    limit: &'static str,
    what: impl FnOnce() -> String,
    actual: usize,
    max: usize,
) -> Result<(), Error> {
    if actual <= max {
        return Ok(());
    }
    Err(Error::LimitExceeded { limit, what: what(), actual: actual as u64, max: max as u64 })
}

fn check_ms(limit: &'static str, what: &str, actual: Duration, max: Duration) -> Result<(), Error> {
    if actual <= max {
        return Ok(());
    }
    Err(Error::LimitExceeded { limit, what: what.to_owned(), actual: millis(actual), max: millis(max) })
}
