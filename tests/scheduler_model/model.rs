//! The scheduler as simply as it can be said: a list of tasks, and loops over all of them.

use std::collections::{BTreeMap, BTreeSet};

use s2_coordinator::{OnFailure, TaskState};

pub(crate) const STEP: u64 = 600_000_000;
pub(crate) const LEASE: u64 = 30_000_000;
pub(crate) const WINDOW: u64 = 60_000_000;
pub(crate) const ABOVE: usize = 2;
pub(crate) const PROGRESS: u64 = 50_000_000;
pub(crate) const LONGEST_WAIT: u64 = 400_000_000;

/// Sets of capabilities: bit 0 is `a`, bit 1 is `b`.
pub(crate) type Set = u8;
pub(crate) type Nth = usize;
/// Sessions go by a number for their name; another one counts those that have entered.
pub(crate) type Name = usize;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum At {
    Waiting,
    Delayed(u64),
    Ready,
    Resumable { name: Name, number: u64, until: u64, awaited: bool, lease: usize },
    Claimed { name: Name, number: u64, lease: usize, deadline: u64, progressed: u64, resumes: Option<usize> },
    Blocked { name: Name, number: u64, awaited: bool, lease: usize },
    OnHold,
    Done,
    Failed,
    Cancelled,
}

#[derive(Clone, Debug)]
pub(crate) struct Task {
    pub(crate) level: u64,
    pub(crate) requires: Set,
    pub(crate) after: Vec<(Nth, OnFailure)>,
    pub(crate) start: u64,
    pub(crate) deadline: Option<u64>,
    pub(crate) attempts: u32,
    pub(crate) at: At,
    pub(crate) since: u64,
    pub(crate) failures: u32,
    pub(crate) assignee: Option<Name>,
    pub(crate) waits: Vec<(Nth, OnFailure)>,
    pub(crate) redriven: bool,
    pub(crate) was_claimed: bool,
    /// The claim that was ended by blocking, and by whom, until somebody has it again.
    pub(crate) blocked_by: Option<(u64, usize)>,
    /// What it was blocked by, likewise.
    pub(crate) wait: Option<Wait>,
    /// What it was last released from.
    pub(crate) released: Option<Released>,
}

/// What a task is blocked by.
#[derive(Clone, Debug)]
pub(crate) struct Wait {
    pub(crate) since: u64,
    pub(crate) any: bool,
    pub(crate) again: bool,
    pub(crate) reason: usize,
    pub(crate) on: Vec<Nth>,
}

#[derive(Clone, Debug)]
pub(crate) struct Released {
    pub(crate) from: Wait,
    pub(crate) failures: u32,
    /// Unless it was blocked since: the ring, and how long it had waited.
    pub(crate) latest: Option<(Vec<Nth>, u64)>,
}

impl Task {
    pub(crate) fn is_finished(&self) -> bool {
        matches!(self.at, At::Done | At::Failed | At::Cancelled)
    }

    pub(crate) fn state(&self) -> TaskState {
        match self.at {
            At::Waiting => TaskState::Waiting,
            At::Delayed(_) => TaskState::Delayed,
            At::Ready | At::Resumable { .. } => TaskState::Ready,
            At::Claimed { .. } => TaskState::Claimed,
            At::Blocked { .. } => TaskState::Blocked,
            At::OnHold => TaskState::OnHold,
            At::Done => TaskState::Done,
            At::Failed => TaskState::Failed,
            At::Cancelled => TaskState::Cancelled,
        }
    }

    pub(crate) fn session(&self) -> Option<Name> {
        match self.at {
            At::Claimed { name, .. } | At::Blocked { name, .. } | At::Resumable { name, .. } => Some(name),
            At::Ready => self.assignee,
            _ => None,
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) number: u64,
    pub(crate) offers: Set,
    pub(crate) refused: BTreeMap<Nth, u64>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    pub(crate) now: u64,
    pub(crate) tasks: Vec<Task>,
    pub(crate) sessions: BTreeMap<Name, Session>,
    pub(crate) leases: usize,
    pub(crate) numbers: u64,
    /// Tasks that are over and whose dependants have not heard of it.
    pub(crate) over: Vec<Nth>,
    /// Tasks that have lost a way out.
    pub(crate) suspects: BTreeSet<Nth>,
}

impl Model {
    fn may(&self, name: Name, task: Nth) -> bool {
        let offers = self.sessions.get(&name).map_or(0, |session| session.offers);
        self.tasks[task].requires & !offers == 0
    }

    pub(crate) fn key(&self, task: Nth) -> u64 {
        // Its own, and that of whatever waits for it.
        let (mut waiting, mut nth) = (vec![task], 0);
        while let Some(on) = waiting.get(nth).copied() {
            let waits = |other: &Nth| self.tasks[*other].waits.iter().any(|(it, _)| *it == on);
            let new: Vec<Nth> =
                (0..self.tasks.len()).filter(|other| waits(other) && !waiting.contains(other)).collect();
            waiting.extend(new);
            nth += 1;
        }
        let own = |nth: Nth| self.tasks[nth].since + self.tasks[nth].level * STEP;
        waiting.into_iter().map(own).min().unwrap_or_default()
    }

    fn ready(&mut self, task: Nth) {
        self.tasks[task].at = At::Ready;
        if let Some(name) = self.tasks[task].assignee {
            let is_there = self.sessions.contains_key(&name);
            let keeps = if is_there { self.may(name, task) } else { !self.tasks[task].was_claimed };
            if !keeps {
                self.tasks[task].assignee = None;
            }
        }
    }

    pub(crate) fn submit(&mut self, task: Task) -> Nth {
        self.tasks.push(task);
        let nth = self.tasks.len() - 1;
        self.begin(nth, false);
        nth
    }

    fn begin(&mut self, nth: Nth, redriven: bool) {
        self.tasks[nth].at = At::Waiting;
        self.tasks[nth].waits.clear();
        let mut verdict = None;
        for (on, on_failure) in self.tasks[nth].after.clone() {
            match self.tasks[on].at {
                At::Done => {}
                At::Failed | At::Cancelled => match on_failure {
                    OnFailure::Fail => verdict = Some(At::Failed),
                    OnFailure::Hold if !redriven => verdict = verdict.or(Some(At::OnHold)),
                    OnFailure::Hold | OnFailure::Run => {}
                },
                _ => self.tasks[nth].waits.push((on, on_failure)),
            }
        }
        match verdict {
            Some(At::Failed) => self.end(nth, At::Failed),
            Some(at) => self.tasks[nth].at = at,
            None => self.proceed(nth),
        }
    }

    fn proceed(&mut self, nth: Nth) {
        if !self.tasks[nth].waits.is_empty() {
            return;
        }
        match self.tasks[nth].at.clone() {
            At::Waiting if self.tasks[nth].start > self.now => self.tasks[nth].at = At::Delayed(self.tasks[nth].start),
            At::Waiting => {
                self.tasks[nth].since = self.now;
                self.ready(nth);
            }
            At::Blocked { name, number, awaited, lease } => {
                let until = self.now + WINDOW;
                self.tasks[nth].at = At::Resumable { name, number, until, awaited, lease };
            }
            _ => {}
        }
    }

    fn end(&mut self, nth: Nth, at: At) {
        self.tasks[nth].at = at;
        self.tasks[nth].waits.clear();
        self.over.push(nth);
    }

    /// Tells what waits for what is over.
    pub(crate) fn settle(&mut self) {
        while let Some(over) = self.over.pop() {
            let is_done = self.tasks[over].at == At::Done;
            if !self.tasks[over].is_finished() {
                continue;
            }
            for nth in 0..self.tasks.len() {
                let Some(edge) = self.tasks[nth].waits.iter().position(|(on, _)| *on == over) else { continue };
                let (_, on_failure) = self.tasks[nth].waits.remove(edge);
                let waits = matches!(self.tasks[nth].at, At::Blocked { .. } | At::Waiting);
                let any = waits && self.tasks[nth].wait.as_ref().is_some_and(|wait| wait.any);
                match on_failure {
                    OnFailure::Fail if !is_done => self.end(nth, At::Failed),
                    OnFailure::Hold if !is_done => self.tasks[nth].at = At::OnHold,
                    OnFailure::Run if any && is_done => {
                        self.tasks[nth].waits.clear();
                        self.proceed(nth);
                    }
                    _ => {
                        if on_failure == OnFailure::Run && any {
                            self.suspects.insert(nth);
                        }
                        self.proceed(nth);
                    }
                }
            }
        }
    }

    fn fail_attempt(&mut self, nth: Nth, at: u64) {
        self.tasks[nth].failures += 1;
        if self.tasks[nth].failures >= self.tasks[nth].attempts {
            return self.end(nth, At::Failed);
        }
        self.tasks[nth].since = at;
        self.ready(nth);
    }

    /// What is due next.
    fn due(&self) -> Option<(u64, u8, Nth)> {
        let of = |(nth, task): (Nth, &Task)| {
            let own = match task.at {
                At::Claimed { deadline, .. } => Some((deadline, 0, nth)),
                At::Delayed(at) => Some((at, 2, nth)),
                At::Resumable { until, .. } => Some((until, 3, nth)),
                At::Blocked { .. } | At::Waiting => task.wait.as_ref().map(|wait| (wait.since + LONGEST_WAIT, 5, nth)),
                _ => None,
            };
            let overdue = task.deadline.filter(|_| !task.is_finished()).map(|at| (at, 1, nth));
            [own, overdue].into_iter().flatten().min()
        };
        self.tasks.iter().enumerate().filter_map(of).min()
    }

    pub(crate) fn advance(&mut self, by: u64) {
        let until = self.now + by;
        while let Some((at, _, _)) = self.due().filter(|(at, _, _)| *at <= until) {
            self.now = self.now.max(at);
            while let Some((at, kind, nth)) = self.due().filter(|(at, _, _)| *at <= self.now) {
                match kind {
                    0 => {
                        self.fail_attempt(nth, at);
                    }
                    1 => self.end(nth, At::Failed),
                    2 => {
                        self.tasks[nth].since = at;
                        self.ready(nth);
                    }
                    5 => self.preempt(nth, Vec::new()),
                    _ => {
                        self.tasks[nth].assignee = None;
                        self.ready(nth);
                    }
                }
            }
            self.settle();
        }
        self.now = until;
        for session in self.sessions.values_mut() {
            session.refused.retain(|_, until| *until > self.now);
        }
    }

    pub(crate) fn enter(&mut self, name: Name, offers: Set) -> u64 {
        self.numbers += 1;
        let number = self.numbers;
        let older = self.sessions.insert(name, Session { number, offers, refused: BTreeMap::new() });
        for nth in 0..self.tasks.len() {
            if self.tasks[nth].at == At::Ready && self.tasks[nth].assignee == Some(name) {
                self.ready(nth);
            }
        }
        if let Some(older) = older {
            for nth in 0..self.tasks.len() {
                if matches!(self.tasks[nth].at, At::Claimed { number, .. } if number == older.number) {
                    self.fail_attempt(nth, self.now);
                }
            }
            self.part(older.number);
        }
        self.settle();
        number
    }

    pub(crate) fn leave(&mut self, name: Name, number: u64) -> bool {
        if self.sessions.get(&name).is_none_or(|session| session.number != number) {
            return false;
        }
        self.sessions.remove(&name);
        self.part(number);
        for nth in 0..self.tasks.len() {
            if self.tasks[nth].at == At::Ready && self.tasks[nth].assignee == Some(name) {
                self.tasks[nth].assignee = None;
            }
        }
        self.settle();
        true
    }

    fn part(&mut self, gone: u64) {
        for nth in 0..self.tasks.len() {
            match self.tasks[nth].at {
                At::Blocked { number, .. } if number == gone => {
                    self.tasks[nth].at = At::Waiting;
                    self.proceed(nth);
                }
                At::Resumable { number, .. } if number == gone => self.ready(nth),
                _ => {}
            }
        }
    }

    fn has_any(&self, number: u64) -> bool {
        self.tasks.iter().any(|task| matches!(task.at, At::Claimed { number: of, .. } if of == number))
    }

    /// The first of the tasks that qualify.
    fn first(&self, qualifies: impl Fn(Nth, &Task) -> bool) -> Option<Nth> {
        let all = (0..self.tasks.len()).filter(|nth| qualifies(*nth, &self.tasks[*nth]));
        all.min_by_key(|nth| (self.key(*nth), *nth))
    }

    fn next(&mut self, name: Name, number: u64) -> Option<Nth> {
        let takes = |nth: Nth| self.may(name, nth) && !self.sessions[&name].refused.contains_key(&nth);
        let own = self.first(|nth, task| match task.at {
            At::Resumable { number: of, awaited, .. } => of == number && !awaited,
            At::Ready => task.assignee == Some(name) && takes(nth),
            _ => false,
        });
        let any = || self.first(|nth, task| task.at == At::Ready && task.assignee.is_none() && takes(nth));
        if let Some(nth) = own.or_else(any) {
            return Some(nth);
        }
        if self.has_any(number) {
            return None;
        }
        let mut queues: BTreeMap<Name, Vec<Nth>> = BTreeMap::new();
        for (nth, task) in self.tasks.iter().enumerate() {
            if let (At::Ready, Some(owner)) = (&task.at, task.assignee) {
                queues.entry(owner).or_default().push(nth);
            }
        }
        let mut longest: Vec<_> = queues.into_iter().filter(|(_, queue)| queue.len() > ABOVE).collect();
        longest.sort_by_key(|(owner, queue)| (std::cmp::Reverse(queue.len()), *owner));
        let mut victims = longest.into_iter().filter(|(owner, _)| *owner != name);
        let stolen = victims.find_map(|(_, queue)| {
            let mine = queue.into_iter().filter(|nth| takes(*nth));
            mine.max_by_key(|nth| (self.tasks[*nth].level, *nth))
        })?;
        self.tasks[stolen].assignee = None;
        Some(stolen)
    }

    fn grant(&mut self, nth: Nth, name: Name, number: u64, resumes: Option<usize>) -> (Nth, usize) {
        self.leases += 1;
        let (lease, deadline) = (self.leases, self.now + LEASE);
        self.tasks[nth].at = At::Claimed { name, number, lease, deadline, progressed: self.now, resumes };
        (self.tasks[nth].blocked_by, self.tasks[nth].wait, self.tasks[nth].was_claimed) = (None, None, true);
        (nth, lease)
    }

    pub(crate) fn claim(&mut self, name: Name, number: u64, max: usize) -> Vec<(Nth, usize)> {
        let mut granted = Vec::new();
        while granted.len() < max
            && let Some(nth) = self.next(name, number)
        {
            granted.push(self.grant(nth, name, number, None));
        }
        granted
    }

    pub(crate) fn resume(&mut self, name: Name, number: u64, nth: Nth, lease: usize) -> Option<(Nth, usize)> {
        let may = match self.tasks[nth].at {
            At::Resumable { number: of, lease: held, .. } => of == number && held == lease,
            At::Ready => self.tasks[nth].blocked_by == Some((number, lease)),
            _ => false,
        };
        may.then(|| self.grant(nth, name, number, Some(lease)))
    }

    /// Whether this is the claim that counts.
    pub(crate) fn holds(&self, nth: Nth, lease: usize) -> bool {
        matches!(self.tasks[nth].at, At::Claimed { lease: held, .. } if held == lease)
    }

    pub(crate) fn complete(&mut self, nth: Nth) {
        self.end(nth, At::Done);
        self.settle();
    }

    pub(crate) fn fail(&mut self, nth: Nth, delay: Option<u64>) {
        self.tasks[nth].failures += 1;
        match delay.filter(|_| self.tasks[nth].failures < self.tasks[nth].attempts) {
            None => self.end(nth, At::Failed),
            Some(0) => {
                self.tasks[nth].since = self.now;
                self.ready(nth);
            }
            Some(delay) => {
                self.tasks[nth].since = self.now + delay;
                self.tasks[nth].at = At::Delayed(self.now + delay);
            }
        }
        self.settle();
    }

    pub(crate) fn release(&mut self, nth: Nth) {
        self.ready(nth);
    }

    pub(crate) fn refuse(&mut self, nth: Nth, delay: u64) {
        let At::Claimed { number, .. } = self.tasks[nth].at else { return };
        let until = self.now + delay;
        if let Some(session) = self.sessions.values_mut().find(|session| session.number == number) {
            session.refused.insert(nth, until);
        }
        self.tasks[nth].assignee = None;
        self.ready(nth);
    }

    pub(crate) fn renew(&mut self, nth: Nth, progress: bool) {
        let now = self.now;
        if let At::Claimed { deadline, progressed, .. } = &mut self.tasks[nth].at {
            if progress {
                *progressed = now;
            }
            *deadline = (now + LEASE).min(*progressed + PROGRESS);
        }
    }

    /// Whether one task waits for another, over however many.
    pub(crate) fn reaches(&self, from: Nth, to: Nth) -> bool {
        let (mut found, mut nth) = (vec![from], 0);
        while let Some(at) = found.get(nth).copied() {
            for (on, _) in &self.tasks[at].waits {
                if !found.contains(on) {
                    found.push(*on);
                }
            }
            nth += 1;
        }
        found.contains(&to)
    }

    pub(crate) fn block(&mut self, nth: Nth, on: &[Nth], awaited: bool, any: bool, reason: (usize, bool)) {
        // New help is told by the reason.
        let (reason, is_new) = reason;
        let At::Claimed { name, number, lease, .. } = self.tasks[nth].at else { return };
        let mut on = on.to_vec();
        on.sort_unstable();
        on.dedup();
        let failures = self.tasks[nth].failures;
        let mut again = false;
        if let Some(released) = &mut self.tasks[nth].released {
            let same =
                is_new && released.from.reason == reason || released.from.on.iter().any(|task| on.contains(task));
            again = same && released.failures == failures;
            released.latest = None;
        }
        self.tasks[nth].wait = Some(Wait { since: self.now, any, again, reason, on: on.clone() });
        self.tasks[nth].at = At::Blocked { name, number, awaited, lease };
        self.tasks[nth].blocked_by = Some((number, lease));
        let enough = any && on.iter().any(|on| self.tasks[*on].at == At::Done);
        let unfinished: Vec<Nth> = on.iter().copied().filter(|on| !enough && !self.tasks[*on].is_finished()).collect();
        self.tasks[nth].waits = unfinished.iter().map(|on| (*on, OnFailure::Run)).collect();
        self.suspects.insert(nth);
        if self.sessions.values().all(|session| session.number != number) {
            self.tasks[nth].at = At::Waiting;
            self.proceed(nth);
        } else if !on.is_empty() && unfinished.is_empty() {
            self.proceed(nth);
        }
    }

    fn preempt(&mut self, nth: Nth, cycle: Vec<Nth>) {
        let task = &mut self.tasks[nth];
        let Some(from) = task.wait.clone() else { return };
        let waited = self.now - from.since;
        task.released = Some(Released { from, failures: task.failures, latest: Some((cycle, waited)) });
        task.waits.clear();
        match task.at {
            At::Blocked { name, number, awaited, lease } => {
                task.at = At::Resumable { name, number, until: self.now + WINDOW, awaited, lease };
            }
            _ => {
                task.since = self.now;
                self.ready(nth);
            }
        }
    }

    /// Which tasks never go on: none of those that everything is taken from that can.
    fn stuck(&self) -> Vec<Nth> {
        let mut stuck: Vec<Nth> = (0..self.tasks.len()).filter(|nth| !self.tasks[*nth].waits.is_empty()).collect();
        loop {
            let goes_on = |nth: &Nth| {
                let task = &self.tasks[*nth];
                let waits = matches!(task.at, At::Blocked { .. } | At::Waiting);
                let any = waits && task.wait.as_ref().is_some_and(|wait| wait.any);
                let mut on = task.waits.iter().map(|(on, _)| !stuck.contains(on));
                if any { on.any(|goes| goes) } else { on.all(|goes| goes) }
            };
            let left: Vec<Nth> = stuck.iter().copied().filter(|nth| !goes_on(nth)).collect();
            if left.len() == stuck.len() {
                return stuck;
            }
            stuck = left;
        }
    }

    /// Ends what would wait for ever: at the end of every step.
    pub(crate) fn conclude(&mut self) {
        for suspect in std::mem::take(&mut self.suspects) {
            loop {
                let stuck = self.stuck();
                if !stuck.contains(&suspect) {
                    break;
                }
                let (mut way, mut at) = (Vec::new(), suspect);
                while !way.contains(&at) {
                    way.push(at);
                    let on = self.tasks[at].waits.iter().map(|(on, _)| *on);
                    at = on.filter(|on| stuck.contains(on)).min().expect("who is stuck waits for who is");
                }
                let ring = way.split_off(way.iter().position(|nth| *nth == at).expect("it was passed"));
                let may = |nth: &&Nth| {
                    let task = &self.tasks[**nth];
                    let waits = matches!(task.at, At::Blocked { .. } | At::Waiting);
                    let is_there = matches!(task.at, At::Blocked { .. });
                    waits && task.wait.as_ref().is_some_and(|wait| !(wait.again && is_there))
                };
                let since = |nth: &&Nth| self.tasks[**nth].wait.as_ref().map(|wait| (wait.since, **nth));
                let Some(first) = ring.iter().filter(may).min_by_key(since).copied() else {
                    // A person has to decide.
                    let blocked = ring.iter().filter(|nth| matches!(self.tasks[**nth].at, At::Blocked { .. }));
                    let first = *blocked.min_by_key(since).expect("somebody is blocked");
                    self.tasks[first].waits.clear();
                    continue;
                };
                let begin = ring.iter().position(|nth| *nth == first).expect("a part of it");
                self.preempt(first, ring[begin..].iter().chain(&ring[..begin]).copied().collect());
            }
        }
    }

    pub(crate) fn abandon(&mut self, nth: Nth, lease: usize) {
        match &mut self.tasks[nth].at {
            At::Claimed { lease: held, resumes, .. } if *held == lease || *resumes == Some(lease) => self.ready(nth),
            At::Blocked { lease: held, awaited, .. } | At::Resumable { lease: held, awaited, .. } if *held == lease => {
                *awaited = false;
            }
            _ => {}
        }
    }

    pub(crate) fn unblock(&mut self, nth: Nth) -> bool {
        let is_blocked = matches!(self.tasks[nth].at, At::Blocked { .. });
        if is_blocked {
            self.tasks[nth].waits.clear();
            self.proceed(nth);
        }
        is_blocked
    }

    pub(crate) fn cancel(&mut self, nth: Nth) -> bool {
        if !self.tasks[nth].is_finished() {
            self.end(nth, At::Cancelled);
            self.settle();
        }
        self.tasks[nth].at == At::Cancelled
    }

    pub(crate) fn assign(&mut self, nth: Nth, name: Option<Name>) -> bool {
        let is_free = matches!(self.tasks[nth].at, At::Waiting | At::Delayed(_) | At::Ready | At::OnHold);
        let able = name.is_none_or(|name| !self.sessions.contains_key(&name) || self.may(name, nth));
        if is_free && able && self.tasks[nth].assignee != name {
            (self.tasks[nth].assignee, self.tasks[nth].was_claimed) = (name, false);
        }
        is_free && able
    }

    /// Whether it was redriven now; nothing where that is refused.
    pub(crate) fn redrive(&mut self, nth: Nth) -> Option<bool> {
        let task = &self.tasks[nth];
        let is_failed = matches!(task.at, At::Failed | At::OnHold | At::Cancelled);
        if !is_failed {
            return task.redriven.then_some(false);
        }
        let was_on_hold = task.at == At::OnHold;
        if task.after.iter().any(|(on, _)| !self.tasks[*on].is_finished() && self.reaches(*on, nth)) {
            return None;
        }
        let in_the_way = |(on, on_failure): &(Nth, OnFailure)| {
            *on_failure == OnFailure::Fail && matches!(self.tasks[*on].at, At::Failed | At::Cancelled)
        };
        if !was_on_hold && task.after.iter().any(in_the_way) {
            return None;
        }
        let now = self.now;
        let task = &mut self.tasks[nth];
        (task.failures, task.redriven, task.since) = (0, true, now.max(task.start));
        (task.blocked_by, task.wait, task.released) = (None, None, None);
        if !was_on_hold && task.deadline.is_some_and(|at| at <= now) {
            task.deadline = None;
        }
        if was_on_hold {
            task.at = At::Waiting;
            for (on, on_failure) in task.after.clone() {
                let waits = self.tasks[nth].waits.iter().any(|(other, _)| *other == on);
                if !waits && !self.tasks[on].is_finished() {
                    self.tasks[nth].waits.push((on, on_failure));
                }
            }
            self.proceed(nth);
        } else {
            self.begin(nth, true);
        }
        self.settle();
        Some(true)
    }
}
