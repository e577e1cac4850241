//! What the fleet says of tasks and sessions to who looks.

use crate::dependency::TaskId;
use crate::lease::{Incarnation, Lease, Token};
use crate::outcome::Outcome;
use crate::redis::reply::Reply;
use crate::redis::task;
use crate::registry::{SessionInfo, SessionState, Stats};
use crate::swarm::SwarmId;
use crate::task::TaskState;
use crate::time::Timestamp;
use crate::waits::Needs;
use crate::why::{Link, Why};

/// A session and what it has.
pub(super) fn session_info(said: &Reply) -> Option<SessionInfo> {
    let count = |nth: usize| usize::try_from(said.get(nth)?.as_u64()?).ok();
    let incarnation = Incarnation { session: said.get(1)?.as_str()?.parse().ok()?, number: said.get(0)?.as_u64()? };
    let mut info = SessionInfo::new(incarnation, task::from_words(said.get(2)?.as_str()?)?);
    (info.load, info.queued, info.blocked) = (count(3)?, count(4)?, count(5)?);
    info.state = match said.get(6)?.as_str()? {
        "working" => SessionState::Working,
        "waiting_on" => SessionState::WaitingOn,
        "blocked" => SessionState::Blocked,
        _ => SessionState::Idle,
    };
    Some(info)
}

/// How many tasks of each state there are, sessions, and classes.
pub(super) fn stats(said: &Reply) -> Option<Stats> {
    let numbers: Vec<u64> = said.as_list()?.iter().map(Reply::as_u64).collect::<Option<_>>()?;
    let (tasks, rest) = numbers.split_first_chunk::<{ TaskState::ALL.len() }>()?;
    let [sessions, classes] = *rest else { return None };
    Some(Stats { tasks: *tasks, sessions, classes })
}

/// Why a task is where it is.
pub(super) fn why(said: &Reply, lease_of: TaskId) -> Option<Why> {
    let text = |nth: usize| said.get(nth)?.as_str();
    let number = |nth: usize| said.get(nth)?.as_u64();
    let time = |nth: usize| number(nth).map(Timestamp::from_micros);
    let session = |nth: usize| text(nth)?.parse::<SwarmId>().ok();
    let waits = |nth: usize| {
        let one = |pair: &[Reply]| Some((TaskId::new(pair.first()?.as_u64()?), task::state(pair.get(1)?)?));
        said.get(nth)?.as_list()?.chunks(2).map(one).collect::<Option<Vec<_>>>()
    };
    let link = |said: &Reply| {
        let (task, state) = (TaskId::new(said.get(0)?.as_u64()?), task::state(said.get(1)?)?);
        Some(Link { task, state, session: task::session(said.get(2)?)? })
    };
    let chain = |nth: usize| said.get(nth)?.as_list()?.iter().map(link).collect::<Option<Vec<_>>>();
    Some(match text(0)? {
        "waiting" => {
            Why::Waiting { on: waits(1)?, count: number(2)?, chain: chain(3)?, deserted: task::session(said.get(4)?)? }
        }
        "deadlocked" => Why::Deadlocked {
            session: session(1)?,
            reason: text(2)?.to_owned().into(),
            since: time(3)?,
            cycle: task::ids(said.get(4)?)?,
        },
        "delayed" => match said.get(3)? {
            Reply::Nil => Why::NotYet { start: time(1)? },
            run => {
                let failures = u32::try_from(number(2)?).ok()?;
                Why::BacksOff { until: time(1)?, failures, reason: task::run(run)?.end.reason() }
            }
        },
        "absent" => Why::Absent { session: session(1)? },
        "assigned" => Why::Assigned { session: session(1)?, ahead: number(2)? },
        "no_session" => Why::NoSession,
        "not_capable" => Why::NotCapable { closest: session(1)?, missing: task::capabilities(said.get(2)?)? },
        "refused" => Why::Refused { until: time(1)? },
        "queued" => Why::Queued { ahead: number(1)?, eligible: number(2)? },
        "resumable" => {
            Why::Resumable { session: session(1)?, until: time(2)?, preempted: task::preempted(said.get(3)?)? }
        }
        "lost" => Why::Lost {
            by: Incarnation { session: session(2)?, number: number(1)? },
            lease: Lease { task: lease_of, token: Token::new(number(3)?) },
            deadline: time(5)?,
        },
        "running" => Why::Running {
            by: Incarnation { session: session(2)?, number: number(1)? },
            lease: Lease { task: lease_of, token: Token::new(number(3)?) },
            since: time(4)?,
            deadline: time(5)?,
            progressed: time(6)?,
        },
        "blocked" => Why::Blocked {
            session: session(1)?,
            reason: text(2)?.to_owned().into(),
            requires: task::from_words(text(3)?)?,
            on: waits(4)?,
            count: number(5)?,
            needs: if number(6)? == 1 { Needs::Any } else { Needs::All },
            since: time(7)?,
            chain: chain(8)?,
        },
        "on_hold" => Why::OnHold { because: TaskId::new(number(1)?) },
        _ => match task::outcome(said)? {
            Outcome::Done(_) => Why::Done,
            Outcome::Failed { cause, history } => {
                Why::Failed { cause, reason: history.last().map(|run| run.end.reason()) }
            }
            Outcome::Cancelled { reason } => Why::Cancelled { reason },
        },
    })
}
