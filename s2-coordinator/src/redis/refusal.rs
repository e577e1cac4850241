//! What scripts say when something about tasks cannot be done.

use crate::capability::Capabilities;
use crate::dependency::{TaskId, TaskRef};
use crate::error::{Error, lacks};
use crate::invalid::Invalid;
use crate::lease::{Incarnation, Lease, Token};
use crate::limits::Limits;
use crate::new_task::NewTask;
use crate::redis::publish;
use crate::redis::reply::Reply;
use crate::redis::task;

/// What a call was about, for the error that says what was wrong with it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct About<'a> {
    pub(super) tasks: &'a [NewTask],
    pub(super) lease: Option<&'a Lease>,
    pub(super) session: Option<&'a Incarnation>,
    pub(super) task: Option<TaskId>,
}

/// The error that an answer stands for, if it is one.
pub(super) fn refusal(answer: &Reply, about: About<'_>, limits: &Limits) -> Option<Error> {
    let number = |nth: usize| answer.get(nth).and_then(Reply::as_u64);
    let text = |nth: usize| answer.get(nth).and_then(Reply::as_str);
    let id = |nth: usize| number(nth).map(TaskId::new);
    let nth_task = |place: usize| about.tasks.get(usize::try_from(number(place)?).ok()?);
    let exceeded = |limit: &'static str, what: String, actual: u64, max: usize| {
        Some(Error::LimitExceeded { limit, what, actual, max: max as u64 })
    };
    match text(0)? {
        "stale" => {
            let lease = about.lease?;
            Some(Error::StaleLease { task: lease.task, held: lease.token, current: number(1).map(Token::new) })
        }
        "already" => {
            let lease = about.lease?;
            Some(Error::AlreadyEnded { task: lease.task, held: lease.token, outcome: ended(text(1)?) })
        }
        "stale_session" => {
            let session = about.session?;
            let (held, current) = (session.number, number(1));
            Some(Error::StaleSession { session: session.session.clone(), held, current })
        }
        "unknown_task" => Some(Error::UnknownTask { task: about.task.or(id(1))?.into() }),
        "unknown_key" => Some(Error::UnknownTask { task: TaskRef::Key(text(1)?.parse().ok()?) }),
        "task_conflict" => Some(Error::TaskConflict { key: text(1)?.parse().ok()?, original: id(2)? }),
        "same_key" => {
            let (first, nth) = (number(1)?, number(2)?);
            let reason = format!("tasks {first} and {nth} of the batch have it and ask for different things");
            Some(Invalid::new("key", nth_task(1)?.key.as_ref()?.as_str(), reason).into())
        }
        "assignee" => {
            let (nth, task, missing) = (number(1)?, nth_task(1)?, task::capabilities(answer.get(2)?)?);
            let reason = format!("task {nth} ({}) is not for it: {}", task.kind, lacks(&missing));
            Some(Invalid::new("assignee", task.assignee.as_ref()?.as_str(), reason).into())
        }
        "batch_cycle" => {
            let nth = |reply: &Reply| about.tasks.get(usize::try_from(reply.as_u64()?).ok()?);
            let key = |reply: &Reply| nth(reply)?.key.clone().map(TaskRef::Key);
            Some(Error::DependencyCycle { cycle: answer.get(1)?.as_list()?.iter().filter_map(key).collect() })
        }
        "cycle" => {
            let id = |reply: &Reply| reply.as_u64().map(|id| TaskRef::Id(TaskId::new(id)));
            Some(Error::DependencyCycle { cycle: answer.get(1)?.as_list()?.iter().filter_map(id).collect() })
        }
        "limit" => match text(1)? {
            "tasks" => exceeded("tasks", "the fleet".into(), number(2)?, limits.tasks),
            "classes" => exceeded("classes", "the fleet".into(), number(2)?, limits.classes),
            "sessions" => exceeded("sessions", "the fleet".into(), number(2)?, limits.sessions),
            "leases" => exceeded("leases", format!("session {}", about.session?.session), number(2)?, limits.leases),
            _ => None,
        },
        "depth" => {
            let what = format!("task {} ({})", number(2)?, nth_task(2)?.kind);
            exceeded("depth", what, number(1)?, limits.depth as usize)
        }
        "children" => exceeded("children", format!("task {}", number(2)?), number(1)?, limits.children),
        "wrong_state" => {
            let expected = match text(3)? {
                "assign" => "only a task that nobody has can be assigned",
                "redrive" => "only one that has failed, was cancelled or is on hold can be redriven",
                _ => "redrive it before what depends on it",
            };
            Some(Error::WrongState { task: id(1)?, state: task::state(answer.get(2)?)?, expected })
        }
        "not_eligible" => {
            let missing: Capabilities = task::capabilities(answer.get(3)?)?;
            Some(Error::NotEligible { session: text(2)?.parse().ok()?, task: id(1)?, missing })
        }
        _ => publish::refusal(answer, limits),
    }
}

fn ended(word: &str) -> &'static str {
    ["completed", "retrying", "failed", "released", "refused", "blocked"]
        .into_iter()
        .find(|ended| *ended == word)
        .unwrap_or_default()
}
