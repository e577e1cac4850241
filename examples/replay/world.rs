//! What the export does not say, and is made up: how long work takes, who gets stuck where, what sessions cost.
//!
//! All of it is drawn before a policy runs, from one seed: so all policies meet the same world. Who can do what comes from outcome
//! files if there are any: then each issue is given the outcomes of one of their tasks, and its area.

use std::collections::BTreeSet;
use std::time::Duration;

use s2_coordinator::{Capabilities, Capability, Random, SwarmId};
use s2_governor::NanoUsd;

use crate::replay::Failure;
use crate::replay::issues::Issues;
use crate::replay::outcomes::Outcomes;

/// Who works on blockers only, and solves each of them.
const LEAD: SwarmId = SwarmId::from_static("fleet/lead");
/// What the lead costs each second: $18 an hour.
const LEAD_PRICE: NanoUsd = NanoUsd::from_nanos(5_000_000);
/// How many sessions there are unless outcome files name them.
pub(super) const SESSIONS: usize = 8;
/// The longest that helping takes.
pub(super) const LONGEST_HELP: Duration = minutes(30);

const fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(minutes * 60)
}

/// A session of the world.
#[derive(Debug)]
pub(super) struct Being {
    pub(super) name: SwarmId,
    /// What it offers.
    pub(super) offers: Capabilities,
    /// What it costs each second.
    pub(super) price: NanoUsd,
    /// For each job whether it can do it without help.
    can: Vec<bool>,
}

impl Being {
    pub(super) fn can(&self, job: usize) -> bool {
        self.can[job]
    }

    pub(super) fn cost(&self, time: Duration) -> NanoUsd {
        self.price.checked_mul(time.as_secs()).unwrap_or(NanoUsd::MAX)
    }
}

/// What there is to know about an issue.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) area: Capability,
    /// How long it takes.
    pub(super) work: Duration,
    /// After how long whoever cannot do it gets stuck.
    pub(super) stuck_after: Duration,
    /// How long helping takes.
    pub(super) help: Duration,
}

/// The sessions, the lead last, and the jobs, in the order of the issues.
#[derive(Debug)]
pub struct World {
    pub(super) beings: Vec<Being>,
    pub(super) jobs: Vec<Job>,
}

/// Draws from a seed.
struct Dice(Random);

impl Dice {
    /// A whole number from `from` to `to`, both included.
    fn roll(&mut self, from: u64, to: u64) -> u64 {
        from + u64::try_from(self.0.bits() >> 64).unwrap_or(0) % (to - from + 1)
    }

    fn minutes(&mut self, from: u64, to: u64) -> Duration {
        minutes(self.roll(from, to))
    }

    fn job(&mut self, area: Capability) -> Job {
        // Most work is short: 10 to 20 min, doubled up to three times.
        let work = self.minutes(10, 20) * (1 << self.roll(0, 3));
        let stuck_after = work * u32::try_from(self.roll(20, 80)).unwrap_or(50) / 100;
        Job { area, work, stuck_after, help: self.minutes(5, LONGEST_HELP.as_secs() / 60) }
    }

    /// From $0.90 to $2.70 an hour.
    fn price(&mut self) -> NanoUsd {
        NanoUsd::from_nanos(self.roll(5, 15) * 50_000)
    }
}

impl World {
    /// The world of this seed.
    ///
    /// # Errors
    ///
    /// When a session cannot have its name.
    pub fn new(issues: &Issues, outcomes: Option<&Outcomes>, sessions: usize, seed: u64) -> Result<Self, Failure> {
        let mut dice = Dice(Random::from_seed(seed));
        let mut world = match outcomes {
            Some(outcomes) => dice.world_of(issues, outcomes),
            None => dice.world(issues, sessions)?,
        };
        let can = vec![true; world.jobs.len()];
        world.beings.push(Being { name: LEAD, offers: Capabilities::default(), price: LEAD_PRICE, can });
        Ok(world)
    }

    pub(super) fn lead(&self) -> usize {
        self.beings.len() - 1
    }

    /// Whether any session but the lead can do it.
    pub(super) fn is_solvable(&self, job: usize) -> bool {
        self.beings[..self.lead()].iter().any(|being| being.can(job))
    }
}

impl Dice {
    /// Sessions that are good at some areas and bad at others, and offer what they are good at.
    fn world(&mut self, issues: &Issues, sessions: usize) -> Result<World, Failure> {
        let jobs: Vec<Job> = issues.list.iter().map(|issue| self.job(issue.area.clone())).collect();
        let areas: BTreeSet<Capability> = jobs.iter().map(|job| job.area.clone()).collect();
        let mut beings = Vec::new();
        for nth in 1..=sessions {
            let skills: Vec<(&Capability, u64)> = areas.iter().map(|area| (area, self.roll(20, 95))).collect();
            let of = |area| skills.iter().find(|(other, _)| *other == area).map_or(0, |(_, percent)| *percent);
            let can = jobs.iter().map(|job| self.roll(1, 100) <= of(&job.area)).collect();
            let good = skills.iter().filter(|(_, percent)| *percent >= 50).map(|(area, _)| (*area).clone());
            let name = SwarmId::new(format!("fleet/session-{nth:02}"))?;
            beings.push(Being { name, offers: good.collect(), price: self.price(), can });
        }
        Ok(World { beings, jobs })
    }

    /// The sessions of outcome files. All have tried all areas, and so offer them.
    fn world_of(&mut self, issues: &Issues, outcomes: &Outcomes) -> World {
        let last = outcomes.tasks.len() as u64 - 1;
        let drawn: Vec<usize> = issues.list.iter().map(|_| usize::try_from(self.roll(0, last)).unwrap_or(0)).collect();
        let jobs: Vec<Job> = drawn.iter().map(|nth| self.job(outcomes.tasks[*nth].area.clone())).collect();
        let offers: Capabilities = outcomes.tasks.iter().map(|task| task.area.clone()).collect();
        let being = |(nth, name): (usize, &SwarmId)| {
            let can = drawn.iter().map(|task| outcomes.tasks[*task].solved[nth]).collect();
            Being { name: name.clone(), offers: offers.clone(), price: self.price(), can }
        };
        World { beings: outcomes.sessions.iter().enumerate().map(being).collect(), jobs }
    }
}
