//! The fleet at work: what SIP does, and what whoever is asked does for it.

use s2_coordinator::{
    Blocker, Capabilities, Invalid, NewTask, Random, SchedulerExt, SwarmId, Task, TaskId, TaskKind, TraceToken,
};
use s2_core::{Context, Error as S2Error, Rescued, S2, Session, Settings, TaskError};
use serde::{Deserialize, Serialize};

use crate::world::{CALLS, Member, Models, NEEDED, PRICE, REQUIRED, SIP};

/// What SIP is to do.
pub(crate) const INTEGRATE: TaskKind = TaskKind::from_static("integrate");

/// What somebody is asked to do who was not chosen by matching.
pub(crate) const HELP_OUT: TaskKind = TaskKind::from_static("help.out");

/// What an operator has written; everything else keeps its default.
const SETTINGS: &str = "
rescue_policy:
  max_rescuers_per_blocker: 2
  min_capability_match: 0.70
bonds:
  - { between: [telephony, telephony], bond: peers }
  - { between: [telephony, tools], bond: support }
help:
  enough: all
  timeout_s: 10
providers:
  models: { bulkhead: { concurrent: 10 } }
";

/// What came of one helper's work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Given {
    pub(crate) by: SwarmId,
    pub(crate) calls: u64,
    /// How many of them SIP can use.
    pub(crate) useful: u64,
}

/// What SIP was to be asked, each time that it is blocked. Whoever is not named here is found by matching.
pub(crate) type Plan = Vec<Vec<SwarmId>>;

pub(crate) fn settings() -> Result<Settings, serde_saphyr::Error> {
    serde_saphyr::from_str(SETTINGS)
}

/// A session of the fleet enters and works.
pub(crate) async fn enter(s2: &S2, member: &Member, models: Models) -> Result<Session, S2Error> {
    let session = s2.session(member.name).skills(member.skills).tools(member.tools);
    session
        .run(move |cx: Context| async move {
            let is_help = cx.help_request().is_some() || cx.task().kind == HELP_OUT;
            let result = if is_help { to_json(&help(&cx, models).await?) } else { to_json(&integrate(&cx).await?) };
            Ok(result?)
        })
        .await
}

fn to_json<T: Serialize>(result: &T) -> Result<serde_json::Value, serde_json::Error> {
    serde_json::to_value(result)
}

/// Submits what SIP is to do, with a trace of its own.
pub(crate) async fn submit(s2: &S2, plan: &Plan) -> Result<(TaskId, TraceToken), Box<dyn std::error::Error>> {
    let trace = TraceToken::root(&mut Random::from_system());
    let task = NewTask::new(INTEGRATE, SwarmId::from_static("host")).with_json(plan)?.with_trace(trace);
    let task = task.with_requires(Capabilities::new(REQUIRED)?).with_assignee(SIP);
    let id = s2.scheduler().submit_one(&task).await?.id;
    Ok((id, trace))
}

/// What SIP does: it cannot go on before it has observed enough of the gateway, which others can and it cannot.
async fn integrate(cx: &Context) -> Result<Vec<Given>, TaskError> {
    let mut plan = cx.task().json::<Plan>()?.into_iter();
    // If the process of whoever was blocked has died meanwhile, somebody else goes on with what it was given.
    let mut given = cx.resumed().await?.map_or(Ok(Vec::new()), |rescued| answers(&rescued))?;
    loop {
        let has: u64 = given.iter().map(|given| given.useful).sum();
        if has >= NEEDED {
            return Ok(given);
        }
        let reason = format!("the INVITE is answered with 488; {} observations are missing", NEEDED - has);
        let mut blocker = Blocker::new(reason).with_requires(Capabilities::new(REQUIRED)?);
        for helper in plan.next().unwrap_or_default() {
            blocker = blocker.with_help(ask(cx.task(), helper));
        }
        given.extend(answers(&cx.blocked(blocker).await?)?);
    }
}

fn answers(rescued: &Rescued) -> Result<Vec<Given>, Invalid> {
    rescued.answers.iter().map(|answer| answer.result.json()).collect()
}

/// Asks somebody, whoever it is.
fn ask(blocked: &Task, helper: SwarmId) -> NewTask {
    let mut task = NewTask::new(HELP_OUT, SIP).with_assignee(helper);
    task.trace = blocked.trace;
    task
}

/// What a helper does: it asks as long as it is paid for, and says what it has.
async fn help(cx: &Context, models: Models) -> Result<Given, TaskError> {
    let (by, task) = (cx.session().clone(), cx.task().id);
    let mut useful = 0;
    for nth in 0..CALLS {
        let call = async |_meter| models.ask(&by, task, nth).await;
        useful += u64::from(cx.spend("models", PRICE, call).await?);
    }
    cx.evidence("calls", CALLS);
    cx.evidence("useful", useful);
    Ok(Given { by, calls: CALLS, useful })
}
