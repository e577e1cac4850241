//! Who is asked to help.

use std::collections::HashMap;
use std::time::Duration;

use s2_coordinator::{Error as CoordinatorError, SchedulerExt, SwarmId, TaskId, TaskState, Text, Timestamp, WaitGraph};
use s2_governor::{Assessment, Candidate, Matcher, Need, Passed, TrackRecords};

use crate::error::Error;
use crate::help::Rescue;
use crate::rescue::fleet::Sighted;
use crate::rescue::open::Open;
use crate::rescue::records::Records;
use crate::s2::S2;

/// Up to how many waiting tasks it is counted how many wait for a blocker; beyond that, all blockers count alike.
const MOST_WAITING: u64 = 10_000;

/// Of how many sessions it is told why they were not chosen.
const TOLD: usize = 50;

/// Who is asked for one rescue, and who is not.
#[derive(Debug, Default)]
pub(super) struct Chosen {
    /// Who, why, what it offers, and whether it works and must be called off.
    pub(super) helpers: Vec<(Candidate, Text)>,
    /// Who is not, and why.
    pub(super) others: Vec<(SwarmId, Text)>,
}

/// Chooses helpers for all these rescues together, for the most valuable ones first where there are not enough.
pub(super) async fn choose(s2: &S2, records: &TrackRecords, open: &[&Open]) -> Result<HashMap<TaskId, Chosen>, Error> {
    let now = s2.clock().now();
    let mut sighted = Sighted::look(s2).await?;
    let waiting = dependants(s2, open).await?;
    let (idle, sessions) = (sighted.idle(), sighted.candidates.len());
    let need = |open: &&Open| {
        let age = now.since(open.rescue.since);
        let preempts = s2.settings().rescue_policy.may_preempt(age, idle, sessions);
        let dependants = waiting.get(&open.rescue.blocked).copied().unwrap_or(0);
        need(&open.rescue, value(dependants, open.rescue.weight, age)).with_preemption(preempts)
    };
    let needs: Vec<Need> = open.iter().map(need).collect();
    loop {
        let matcher = matcher(s2, records, now);
        let chosen = choose_among(
            &matcher,
            &needs,
            open,
            &sighted.candidates,
            s2.settings().rescue_policy.max_rescuers_per_blocker,
        )?;
        let helpers: Vec<SwarmId> =
            chosen.values().flat_map(|chosen| &chosen.helpers).map(|(helper, _)| helper.session.clone()).collect();
        // Only those who would help are asked what they may spend.
        if !sighted.ask_ledger(s2, &helpers).await? {
            return Ok(chosen);
        }
    }
}

fn matcher<'a>(s2: &'a S2, records: &'a TrackRecords, now: Timestamp) -> Matcher<'a> {
    let settings = s2.settings();
    Matcher::new(&settings.rescue_policy, now)
        .with_records(records)
        .with_half_life(settings.help.half_life_days)
        .with_bonds(&settings.bonds)
}

fn need(rescue: &Rescue, value: u64) -> Need {
    Need::new(rescue.by.clone(), &rescue.requires).with_value(value)
}

/// What it is worth to help: how many wait for it × how urgent it is × for how long it has been blocked (rule of the design).
fn value(dependants: u64, weight: u64, age: Duration) -> u64 {
    (dependants + 1).saturating_mul(weight).saturating_mul(age.as_secs() + 1).min(Need::HIGHEST_VALUE)
}

/// What is to be said of each session and somebody who is blocked, the best first.
pub(crate) async fn assess(s2: &S2, rescue: &Rescue) -> Result<Vec<(SwarmId, Text)>, Error> {
    let (now, sighted) = (s2.clock().now(), Sighted::look(s2).await?);
    let age = now.since(rescue.since);
    let preempts = s2.settings().rescue_policy.may_preempt(age, sighted.idle(), sighted.candidates.len());
    let mut records = Records::default();
    let (records, need) = (records.catch_up(s2).await?, need(rescue, 1).with_preemption(preempts));
    let matcher = matcher(s2, records, now);
    let mut all: Vec<_> = sighted.candidates.iter().map(|candidate| matcher.assess(&need, candidate)).collect();
    all.sort_by_key(|assessment| std::cmp::Reverse(assessment.score.total));
    Ok(all.iter().map(|assessment| (assessment.candidate.session.clone(), told(assessment))).collect())
}

/// Those who were asked by nobody yet are shared out together; whoever needs somebody else after a refusal chooses then.
fn choose_among(
    matcher: &Matcher<'_>,
    needs: &[Need],
    open: &[&Open],
    candidates: &[Candidate],
    most: usize,
) -> Result<HashMap<TaskId, Chosen>, Error> {
    let (mut chosen, mut taken): (HashMap<TaskId, Chosen>, Vec<&SwarmId>) = Default::default();
    let fresh: Vec<usize> = (0..open.len()).filter(|nth| open[*nth].parts.is_empty()).collect();
    let first: Vec<Need> = fresh.iter().map(|nth| needs[*nth].clone()).collect();
    for (nth, helpers) in fresh.iter().zip(matcher.assign(&first, candidates)?) {
        let helpers: Vec<_> = helpers.iter().map(|helper| (helper.candidate.clone(), told(helper))).collect();
        taken.extend(helpers.iter().filter_map(|(helper, _)| named(candidates, &helper.session)));
        chosen.entry(open[*nth].id()).or_default().helpers = helpers;
    }
    for (nth, open) in open.iter().enumerate().filter(|(_, open)| !open.parts.is_empty()) {
        let free = |candidate: &&Candidate| !taken.contains(&&candidate.session) && !open.was_asked(&candidate.session);
        let left: Vec<Candidate> = candidates.iter().filter(free).cloned().collect();
        let selection = matcher.choose(&needs[nth], &left);
        let helpers: Vec<_> = selection
            .helpers
            .iter()
            .take(open.places(most))
            .map(|helper| (helper.candidate.clone(), told(helper)))
            .collect();
        taken.extend(helpers.iter().filter_map(|(helper, _)| named(candidates, &helper.session)));
        chosen.entry(open.id()).or_default().helpers = helpers;
    }
    for (nth, open) in open.iter().enumerate() {
        let of = chosen.entry(open.id()).or_default();
        let helps = |session: &SwarmId| of.helpers.iter().any(|(helper, _)| helper.session == *session);
        let others = matcher.choose(&needs[nth], candidates);
        let not_helping = others.helpers.iter().map(|other| (other, elsewhere(open, other)));
        let passed = others.others.iter().map(|(other, why)| (other, passed(*why)));
        let told = not_helping.chain(passed).filter(|(other, _)| !helps(&other.candidate.session));
        of.others = told
            .map(|(other, why)| (other.candidate.session.clone(), format!("{other}{why}").into()))
            .take(TOLD)
            .collect();
    }
    Ok(chosen)
}

fn named<'a>(candidates: &'a [Candidate], session: &SwarmId) -> Option<&'a SwarmId> {
    candidates.iter().map(|candidate| &candidate.session).find(|name| *name == session)
}

fn told(assessment: &Assessment<'_>) -> Text {
    assessment.to_string().into()
}

/// Why somebody who fits does not help, to be added to what is to be said of it.
fn elsewhere(open: &Open, other: &Assessment<'_>) -> String {
    if open.was_asked(&other.candidate.session) { "; was asked before" } else { "; helps somebody else" }.to_owned()
}

/// The same of somebody who does not fit, or cannot: then it has been said.
fn passed(why: Passed) -> String {
    if matches!(why, Passed::Excluded(_)) { String::new() } else { format!("; {why}") }
}

/// How many tasks wait for each of these, directly or not. It is asked only where it decides something.
async fn dependants(s2: &S2, open: &[&Open]) -> Result<HashMap<TaskId, u64>, Error> {
    if open.len() < 2 {
        return Ok(HashMap::new());
    }
    let stats = s2.scheduler().stats().await?;
    if stats.count(TaskState::Waiting) + stats.count(TaskState::Blocked) > MOST_WAITING {
        return Ok(HashMap::new());
    }
    match s2.scheduler().wait_graph(&[]).await {
        Ok(graph) => Ok(open.iter().map(|open| (open.rescue.blocked, waiters(&graph, open.rescue.blocked))).collect()),
        Err(CoordinatorError::LimitExceeded { .. }) => Ok(HashMap::new()),
        Err(error) => Err(error.into()),
    }
}

/// How many wait for a task, directly or not.
fn waiters(graph: &WaitGraph, task: TaskId) -> u64 {
    let mut on: HashMap<TaskId, Vec<TaskId>> = HashMap::new();
    for waiter in graph.iter() {
        waiter.on.iter().for_each(|for_| on.entry(*for_).or_default().push(waiter.task));
    }
    let (mut next, mut seen) = (vec![task], std::collections::HashSet::from([task]));
    while let Some(task) = next.pop() {
        next.extend(on.get(&task).into_iter().flatten().filter(|waiter| seen.insert(**waiter)));
    }
    seen.len() as u64 - 1
}
