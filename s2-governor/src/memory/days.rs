//! The accounts of each day.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use foldhash::HashMap;
use s2_coordinator::{SwarmId, Timestamp, UtcDay};

use crate::memory::account::Account;
use crate::memory::account::Rule;

/// Where the accounts of a path stand, innermost first.
pub(super) type Path = Arc<[usize]>;

#[derive(Debug, Default)]
pub(super) struct Day {
    accounts: Vec<Account>,
    places: BTreeMap<SwarmId, usize>,
    paths: HashMap<SwarmId, Path>,
}

#[derive(Debug)]
pub(super) struct Days {
    days: BTreeMap<UtcDay, Day>,
    rules: HashMap<SwarmId, Rule>,
    count: usize,
    /// The oldest day that is kept.
    oldest: UtcDay,
}

impl Default for Days {
    fn default() -> Self {
        let oldest = UtcDay::of(Timestamp::EPOCH);
        Self { days: BTreeMap::new(), rules: HashMap::default(), count: 0, oldest }
    }
}

impl Day {
    pub(super) fn account(&self, swarm: &SwarmId) -> Option<&Account> {
        self.places.get(swarm).map(|place| &self.accounts[*place])
    }

    pub(super) fn account_mut(&mut self, swarm: &SwarmId) -> Option<&mut Account> {
        self.places.get(swarm).map(|place| &mut self.accounts[*place])
    }

    /// At most `limit` accounts within a swarm that come after `after`, by path.
    pub(super) fn within<'a>(
        &'a self,
        swarm: &'a SwarmId,
        after: Option<&SwarmId>,
        limit: usize,
    ) -> impl Iterator<Item = &'a Account> {
        let from = after.filter(|after| swarm.contains(after)).unwrap_or(swarm);
        let later = self.places.range::<SwarmId, _>((Bound::Excluded(from), Bound::Unbounded));
        // Between a swarm and what is within it may stand others whose names begin alike.
        let near = later.take_while(move |(other, _)| other.as_str().starts_with(swarm.as_str()));
        near.filter(move |(other, _)| swarm.contains(other)).take(limit).map(|(_, place)| &self.accounts[*place])
    }
}

impl Days {
    pub(super) fn day(&self, day: UtcDay) -> Option<&Day> {
        self.days.get(&day)
    }

    pub(super) fn day_mut(&mut self, day: UtcDay) -> Option<&mut Day> {
        self.days.get_mut(&day)
    }

    pub(super) const fn count(&self) -> usize {
        self.count
    }

    pub(super) fn rule(&self, swarm: &SwarmId) -> Rule {
        self.rules.get(swarm).cloned().unwrap_or_default()
    }

    /// How many accounts must be opened for a session to spend.
    pub(super) fn missing(&self, day: UtcDay, session: &SwarmId) -> usize {
        let day = self.days.get(&day);
        let stands = |swarm: &SwarmId| day.is_some_and(|day| day.places.contains_key(swarm));
        session.ancestors().filter(|swarm| !stands(swarm)).count()
    }

    /// Where the accounts of a session stand that has spent on that day.
    pub(super) fn path(&self, day: UtcDay, session: &SwarmId) -> Option<Path> {
        self.days.get(&day)?.paths.get(session).map(Arc::clone)
    }

    /// The accounts of a path, innermost first.
    pub(super) fn along<'a>(&'a self, day: UtcDay, path: &'a Path) -> impl Iterator<Item = &'a Account> {
        let day = self.days.get(&day);
        path.iter().filter_map(move |place| day.map(|day| &day.accounts[*place]))
    }

    /// Changes the accounts of a path, innermost first.
    pub(super) fn change(&mut self, day: UtcDay, path: &Path, mut change: impl FnMut(&mut Account)) {
        if let Some(day) = self.days.get_mut(&day) {
            path.iter().for_each(|place| change(&mut day.accounts[*place]));
        }
    }

    /// The accounts of a path as they stand, or as they would begin.
    pub(super) fn look(&self, day: UtcDay, swarm: &SwarmId) -> Vec<Account> {
        let day = self.days.get(&day);
        let account = |(nth, swarm): (usize, SwarmId)| {
            let stands = day.and_then(|day| day.account(&swarm)).cloned();
            let rule = || self.rule(&swarm);
            stands.unwrap_or_else(|| Account::new(swarm.clone(), rule(), nth == 0))
        };
        swarm.ancestors().enumerate().map(account).collect()
    }

    /// Opens the accounts that are missing for a session to spend.
    pub(super) fn open(&mut self, day: UtcDay, session: &SwarmId) -> Path {
        let Self { days, rules, count, .. } = self;
        let day = days.entry(day).or_default();
        let mut path = Vec::new();
        for swarm in session.ancestors() {
            let place = *day.places.entry(swarm.clone()).or_insert_with(|| {
                let rule = rules.get(&swarm).cloned().unwrap_or_default();
                day.accounts.push(Account::new(swarm, rule, false));
                *count += 1;
                day.accounts.len() - 1
            });
            path.push(place);
        }
        day.accounts[path[0]].is_session = true;
        let path: Path = path.into();
        day.paths.insert(session.clone(), Arc::clone(&path));
        path
    }

    /// Changes what is said about a swarm, for every day.
    pub(super) fn say(&mut self, swarm: &SwarmId, change: impl Fn(&mut Rule)) {
        let rule = self.rules.entry(swarm.clone()).or_default();
        change(rule);
        if rule.limit.is_none() && rule.halted.is_none() {
            self.rules.remove(swarm);
        }
        self.days.values_mut().filter_map(|day| day.account_mut(swarm)).for_each(|account| change(&mut account.rule));
    }

    pub(super) const fn oldest(&self) -> UtcDay {
        self.oldest
    }

    /// Whether something is said about it.
    pub(super) fn has_rule(&self, swarm: &SwarmId) -> bool {
        self.rules.contains_key(swarm)
    }

    /// About how many something is said.
    pub(super) fn rules(&self) -> usize {
        self.rules.len()
    }

    /// Forgets the days before `oldest`.
    pub(super) fn forget(&mut self, oldest: UtcDay) {
        self.oldest = self.oldest.max(oldest);
        let oldest = self.oldest;
        if self.days.first_key_value().is_some_and(|(day, _)| *day < oldest) {
            self.days = self.days.split_off(&oldest);
            self.count = self.days.values().map(|day| day.accounts.len()).sum();
        }
    }
}
