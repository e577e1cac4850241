//! The same issues in the same world, under each policy.

use s2_governor::NanoUsd;
use serde::Serialize;

use crate::replay::Failure;
use crate::replay::issues::{Issues, Read};
use crate::replay::outcomes::Outcomes;
use crate::replay::policy::Policy;
use crate::replay::progress::Bar;
use crate::replay::report::{hours, percent};
use crate::replay::sim::Sim;
use crate::replay::world::World;

/// What a policy came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PolicyRun {
    /// Which one.
    pub policy: Policy,
    /// From the first claim to the last completion.
    pub makespan_h: f64,
    /// For how long issues waited for somebody who could go on, together.
    pub blocked_h: f64,
    /// Tasks that two sessions had at a time, or that were done twice.
    pub duplicates: usize,
    /// What all sessions cost.
    pub money: NanoUsd,
    /// What of it came to nothing: help that was of no use, and work that was begun anew.
    pub in_vain: NanoUsd,
    /// What of the cost of help was in vain, in percent, without blockers that only the lead could solve; nothing, if nobody
    /// helped.
    pub waste_percent: Option<f64>,
    /// Issues that were done.
    pub done: usize,
    /// Issues that were done without the lead.
    pub solved: usize,
    /// Blockers, or issues, that the lead was given.
    pub escalated: usize,
    /// How often an issue was claimed.
    pub attempts: usize,
    /// How often a session was out of money for the day.
    pub denied: usize,
}

/// What came of the issues.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GraphRun {
    /// How the export was read.
    pub read: Read,
    /// Sessions, without the lead.
    pub sessions: usize,
    /// From which all that is synthetic was drawn.
    pub seed: u64,
    /// Whether outcome files say who can do what.
    pub outcomes: bool,
    /// One run for each policy.
    pub policies: Vec<PolicyRun>,
}

/// Runs the issues under each policy, and checks each run.
///
/// # Errors
///
/// When a run did not keep what was promised.
pub(super) async fn run(
    issues: &Issues,
    outcomes: Option<&Outcomes>,
    sessions: usize,
    seed: u64,
    bar: &mut Bar,
) -> Result<GraphRun, Failure> {
    let world = World::new(issues, outcomes, sessions, seed)?;
    let mut policies = Vec::new();
    for policy in Policy::ALL {
        bar.begin(policy.to_string());
        policies.push(run_one(issues, &world, policy, bar).await.map_err(|error| format!("{policy}: {error}"))?);
    }
    let (read, sessions) = (issues.read.clone(), world.lead());
    Ok(GraphRun { read, sessions, seed, outcomes: outcomes.is_some(), policies })
}

async fn run_one(issues: &Issues, world: &World, policy: Policy, bar: &mut Bar) -> Result<PolicyRun, Failure> {
    let mut sim = Sim::new(issues, world, policy).await?;
    sim.run(bar).await?;
    let (duplicates, money) = sim.check().await?;
    let tally = &sim.tally;
    Ok(PolicyRun {
        policy,
        makespan_h: hours(sim.took()),
        blocked_h: hours(tally.blocked),
        duplicates,
        money,
        in_vain: tally.in_vain,
        waste_percent: (tally.helped > 0).then(|| percent(tally.help.share())),
        done: tally.done,
        solved: tally.solved,
        escalated: tally.escalated,
        attempts: tally.attempts,
        denied: tally.denied,
    })
}
