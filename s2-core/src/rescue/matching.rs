//! Who is asked to help.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use s2_coordinator::{Error as CoordinatorError, SchedulerExt, SwarmId, TaskId, TaskState, Text, Timestamp, WaitGraph};
use s2_governor::{Assessment, Candidate, Matcher, Need, Passed, Selection, TrackRecords};

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
    /// Who, and why.
    pub(super) helpers: Vec<(Candidate, Text)>,
    /// Who is not, and why.
    pub(super) others: Vec<(SwarmId, Text)>,
}

/// Chooses helpers for all these rescues together, for the most valuable ones first where there are not enough.
pub(super) async fn choose(s2: &S2, records: &mut Records, open: &[&Open]) -> Result<HashMap<TaskId, Chosen>, Error> {
    let now = s2.clock().now();
    let (sighted, records, waiting) = tokio::join!(Sighted::look(s2), records.catch_up(s2), dependants(s2, open));
    let (mut sighted, records, waiting) = (sighted?, records?, waiting?);
    let (idle, sessions) = (sighted.idle(), sighted.candidates.len());
    let need = |open: &&Open| {
        let age = now.since(open.rescue.since);
        let preempts = s2.settings().rescue_policy.may_preempt(age, idle, sessions);
        let dependants = waiting.get(&open.rescue.blocked).copied().unwrap_or(0);
        need(&open.rescue, value(dependants, open.rescue.weight, age)).with_preemption(preempts)
    };
    let needs: Vec<Need> = open.iter().map(need).collect();
    let (matcher, most) = (matcher(s2, records, now), s2.settings().rescue_policy.max_rescuers_per_blocker);
    loop {
        let helpers = helpers(&matcher, &needs, open, &sighted.candidates, most)?;
        let sessions: Vec<SwarmId> = helpers.iter().flatten().map(|(helper, _)| helper.session.clone()).collect();
        // Only those who would help are asked what they may spend.
        if sighted.ask_ledger(s2, &sessions).await? {
            continue;
        }
        let chosen = open.iter().zip(&needs).zip(helpers).map(|((open, need), helpers)| {
            let others = others(&matcher.choose(need, &sighted.candidates), open, &helpers);
            (open.id(), Chosen { helpers, others })
        });
        return Ok(chosen.collect());
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
    Ok(all.iter().map(|assessment| (assessment.candidate.session.clone(), assessment.to_string().into())).collect())
}

/// Those whom nobody was asked to help yet are looked at together; whoever needs somebody else after a refusal comes after them.
fn helpers(
    matcher: &Matcher<'_>,
    needs: &[Need],
    open: &[&Open],
    candidates: &[Candidate],
    most: usize,
) -> Result<Vec<Vec<(Candidate, Text)>>, Error> {
    let mut helpers: Vec<Vec<(Candidate, Text)>> = vec![Vec::new(); open.len()];
    let fresh: Vec<usize> = (0..open.len()).filter(|nth| open[*nth].parts.is_empty()).collect();
    let first: Vec<Need> = fresh.iter().map(|nth| needs[*nth].clone()).collect();
    for (nth, assigned) in fresh.into_iter().zip(matcher.assign(&first, candidates)?) {
        helpers[nth] = assigned.iter().map(asked).collect();
    }
    for nth in (0..open.len()).filter(|nth| !open[*nth].parts.is_empty()) {
        let taken: HashSet<&SwarmId> = helpers.iter().flatten().map(|(helper, _)| &helper.session).collect();
        let may =
            |candidate: &&Candidate| !taken.contains(&candidate.session) && !open[nth].was_asked(&candidate.session);
        let left: Vec<Candidate> = candidates.iter().filter(may).cloned().collect();
        let selection = matcher.choose(&needs[nth], &left);
        helpers[nth] = selection.helpers.iter().take(open[nth].places(most)).map(asked).collect();
    }
    Ok(helpers)
}

/// Who is asked, and why.
fn asked(assessment: &Assessment<'_>) -> (Candidate, Text) {
    (assessment.candidate.clone(), assessment.to_string().into())
}

/// Who is not asked, and why not.
fn others(selection: &Selection<'_>, open: &Open, helpers: &[(Candidate, Text)]) -> Vec<(SwarmId, Text)> {
    let suitable = selection.helpers.iter().map(|other| (other, Some("helps somebody else".to_owned())));
    let passed = selection.others.iter().map(|(other, why)| match why {
        // It says so itself.
        Passed::Excluded(_) => (other, None),
        why => (other, Some(why.to_string())),
    });
    let told = suitable.chain(passed).map(|(other, why)| {
        let session = &other.candidate.session;
        let why = why.map(|why| if open.was_asked(session) { "was asked before".to_owned() } else { why });
        (session.clone(), why.map_or_else(|| other.to_string(), |why| format!("{other}; {why}")).into())
    });
    let helps = |session: &SwarmId| helpers.iter().any(|(helper, _)| helper.session == *session);
    told.filter(|(session, _)| !helps(session)).take(TOLD).collect()
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
    let (mut next, mut seen) = (vec![task], HashSet::from([task]));
    while let Some(task) = next.pop() {
        next.extend(on.get(&task).into_iter().flatten().filter(|waiter| seen.insert(**waiter)));
    }
    seen.len() as u64 - 1
}
