//! How far one gets who asks the best first: each task goes to the session that the matcher ranks first, then to the next one.
//!
//! The track record by which a task's sessions are ranked has the outcomes of all other tasks, and not its own: *leave one out*.
//! All outcomes are of one day, so none weighs less than another. The matcher's rate is the mean of a Beta distribution: one
//! success and one failure are added. That moves all sessions alike, since all have tried the same tasks, and so changes no order;
//! ties are those of the matcher, by name.

use s2_coordinator::{Capabilities, IdempotencyKey, SwarmId};
use s2_governor::{
    BasisPoints, BudgetLedger, Candidate, Help, Limit, Matcher, MemoryLedger, NanoUsd, Need, RescuePolicy, Reserve,
    Reserved, TrackRecords, Verified, Waste,
};
use serde::Serialize;

use crate::replay::outcomes::{Outcomes, Tried};
use crate::replay::progress::Bar;
use crate::replay::report::percent;
use crate::replay::{Failure, START};

/// Up to so many tries.
const MOST_TRIES: usize = 3;
/// What a try costs: synthetic, since outcome files name no prices.
pub(super) const PRICE_OF_A_TRY: NanoUsd = NanoUsd::from_cents(50);
const HOST: SwarmId = SwarmId::from_static("host");

/// What asking the best first comes to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Tries {
    /// How many sessions are asked at most.
    pub at_most: usize,
    /// How many tasks one of them solves.
    pub solved: usize,
    /// How often a session was asked.
    pub attempts: usize,
    /// What that costs.
    pub money: NanoUsd,
    /// What of it is in vain, in percent, without tasks that nobody solves.
    pub waste_percent: f64,
}

/// Asking the best first, compared with what is possible.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AllTries {
    /// Tasks.
    pub tasks: usize,
    /// Sessions.
    pub sessions: usize,
    /// What the best of the sessions solves alone.
    pub best_single: usize,
    /// What all of them solve together.
    pub any: usize,
    /// One try, two, three.
    pub tries: Vec<Tries>,
}

/// Asks the best first.
///
/// # Errors
///
/// When something of the project does not do what it promises.
pub(super) async fn run(outcomes: &Outcomes, bar: &mut Bar) -> Result<AllTries, Failure> {
    let ranked = rank_all(outcomes, bar)?;
    let mut tries = Vec::new();
    for at_most in 1..=MOST_TRIES.min(outcomes.sessions.len()) {
        tries.push(ask(outcomes, &ranked, at_most).await?);
    }
    let solved_by = |nth: usize| outcomes.tasks.iter().filter(|task| task.solved[nth]).count();
    Ok(AllTries {
        tasks: outcomes.tasks.len(),
        sessions: outcomes.sessions.len(),
        best_single: (0..outcomes.sessions.len()).map(solved_by).max().unwrap_or(0),
        any: outcomes.tasks.iter().filter(|task| task.solved.contains(&true)).count(),
        tries,
    })
}

fn need(task: &Tried) -> Need {
    Need::new(HOST, &[task.area.clone()].into_iter().collect())
}

/// What is known when this task is to be done. Outcomes in other areas say nothing about it, and are not looked at.
fn records_without(outcomes: &Outcomes, left_out: usize) -> TrackRecords {
    let (mut records, area) = (TrackRecords::default(), &outcomes.tasks[left_out].area);
    for (nth, task) in outcomes.tasks.iter().enumerate() {
        if nth == left_out || task.area != *area {
            continue;
        }
        for (session, solved) in outcomes.sessions.iter().zip(&task.solved) {
            records.record(session, &need(task), verified(*solved), START);
        }
    }
    records
}

pub(super) fn verified(solved: bool) -> Verified {
    if solved { Verified::Success } else { Verified::Failure }
}

/// For each task the sessions that the matcher chooses, the best first.
fn rank_all(outcomes: &Outcomes, bar: &mut Bar) -> Result<Vec<Vec<usize>>, Failure> {
    let mut policy = RescuePolicy::default();
    policy.max_rescuers_per_blocker = MOST_TRIES;
    let mut ranked = Vec::with_capacity(outcomes.tasks.len());
    for (nth, task) in outcomes.tasks.iter().enumerate() {
        // Each has tried each area, so each offers it; what tells them apart is their record.
        let offers: Capabilities = [task.area.clone()].into_iter().collect();
        let candidate = |session: &SwarmId| Candidate::new(session.clone(), offers.clone()).with_cost(PRICE_OF_A_TRY);
        let candidates: Vec<Candidate> = outcomes.sessions.iter().map(candidate).collect();
        let (need, records) = (need(task), records_without(outcomes, nth));
        let choice = Matcher::new(&policy, START).with_records(&records).choose(&need, &candidates);
        let place = |session: &SwarmId| outcomes.sessions.iter().position(|other| other == session);
        let helpers = choice.helpers.iter().map(|helper| place(&helper.candidate.session));
        ranked.push(helpers.collect::<Option<_>>().ok_or("the matcher chose somebody who is not there")?);
        bar.at(nth + 1, outcomes.tasks.len());
    }
    Ok(ranked)
}

/// Asks at most so many for each task, until one has solved it; each is paid for.
async fn ask(outcomes: &Outcomes, ranked: &[Vec<usize>], at_most: usize) -> Result<Tries, Failure> {
    let store = crate::replay::fleet::store(s2_coordinator::Config::default(), START)?.0;
    let ledger = MemoryLedger::new(&store);
    for session in &outcomes.sessions {
        ledger.set_limit(session, Limit::Unlimited).await?;
    }
    let (mut solved, mut attempts, mut waste) = (0, 0, Waste::default());
    for (nth, (task, ranked)) in outcomes.tasks.iter().zip(ranked).enumerate() {
        let is_solvable = task.solved.contains(&true);
        for session in ranked.iter().take(at_most) {
            attempts += 1;
            let key = IdempotencyKey::new(format!("task-{nth}/{attempts}"))?;
            let reserve = Reserve::new(outcomes.sessions[*session].clone(), PRICE_OF_A_TRY).with_key(key);
            let Reserved::Granted(held) = ledger.reserve(&reserve).await? else {
                return Err("an account without a limit denied".into());
            };
            ledger.settle(&held, PRICE_OF_A_TRY).await?;
            let useful = if task.solved[*session] { BasisPoints::FULL } else { BasisPoints::ZERO };
            waste.add(if is_solvable { Help::new(PRICE_OF_A_TRY, useful) } else { Help::unsolvable(PRICE_OF_A_TRY) });
            if task.solved[*session] {
                solved += 1;
                break;
            }
        }
    }
    let money = ledger.balances(&SwarmId::new("models")?, None).await?.swap_remove(0).spent;
    Ok(Tries { at_most, solved, attempts, money, waste_percent: percent(waste.share()) })
}
