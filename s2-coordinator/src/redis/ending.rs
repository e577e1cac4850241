//! Ending claims.

use crate::ending::{Ended, Ending, Retry};
use crate::error::Error;
use crate::lease::{Claim, Lease};
use crate::redis::codec;
use crate::redis::refusal::{About, refusal};
use crate::redis::reply::Reply;
use crate::redis::scripts::TASKS_END;
use crate::redis::store::{Call, RedisStore};
use crate::redis::task;
use crate::scheduler::EndedAll;
use crate::time::Timestamp;
use crate::waits::Needs;

impl RedisStore {
    pub(super) async fn end(&self, endings: &[(Lease, Ending)], next: Option<&Claim>) -> Result<EndedAll, Error> {
        let limits = &self.config().limits;
        limits.check_endings(endings)?;
        if let Some(claim) = next {
            limits.check_claim(claim.max)?;
        }
        let mut call = self.call_again(TASKS_END);
        call.number(endings.len());
        let wrong: Vec<Option<Error>> = endings.iter().map(|(_, ending)| limits.check_ending(ending).err()).collect();
        for ((lease, ending), wrong) in endings.iter().zip(&wrong) {
            call.number(lease.task);
            call.number(lease.token);
            if wrong.is_some() {
                call.arg("check");
            } else {
                self.write_ending(&mut call, lease, ending);
            }
        }
        call.number(next.map_or(0, |claim| claim.by.number));
        call.arg(next.map(|claim| claim.by.session.as_str()).unwrap_or_default());
        call.number(next.map_or(0, |claim| claim.request));
        call.number(next.map_or(0, |claim| claim.max));
        let most = endings.len().max(next.map_or(0, |claim| claim.max));
        let fields = || {
            let tasks = endings.iter().map(|(lease, _)| task::task_field(lease.task));
            tasks.chain(next.map(|claim| task::session_field(&claim.by))).collect()
        };
        let answer = self.task_call_together(call, most, fields).await?;
        if let Some(error) = refusal(&answer, About { session: next.map(|it| &it.by), ..About::default() }, limits) {
            return Err(error);
        }
        let unexpected = || Call::unexpected(TASKS_END, &answer);
        let said = answer.get(1).ok_or_else(unexpected)?;
        let answers = said.get(0).and_then(Reply::as_list).filter(|answers| answers.len() == endings.len());
        let answers = answers.ok_or_else(unexpected)?.iter().zip(endings).zip(wrong);
        let ended = answers.map(|((answer, (lease, ending)), wrong)| {
            let about = About { tasks: ending.tasks(), lease: Some(lease), ..About::default() };
            if let Some(error) = refusal(answer, about, limits).or(wrong) {
                return Err(error);
            }
            let ended = ended(answer).ok_or_else(|| Call::unexpected(TASKS_END, answer))?;
            if let Ended::Retrying { at } | Ended::Refused { until: at } = &ended {
                self.arm(*at);
            }
            Ok(ended)
        });
        let ended = ended.collect();
        let granted = said.get(1).and_then(task::grants).ok_or_else(unexpected)?;
        Ok(EndedAll { ended, granted })
    }

    fn write_ending(&self, call: &mut Call<'_>, lease: &Lease, ending: &Ending) {
        match ending {
            Ending::Complete(completion) => {
                call.arg("complete");
                call.arg(task::result_text(&completion.result));
                call.arg(task::evidence(&completion.result));
                task::write_tasks(call, &completion.tasks, Some(lease.task), self.config());
                self.write_events(call, &completion.events, true);
            }
            Ending::Fail { reason, retry } => {
                call.arg("fail");
                call.arg(reason.as_str());
                let (mode, delay) = match retry {
                    Retry::Backoff => ("backoff", 0),
                    Retry::After(delay) => ("after", delay.as_micros()),
                    Retry::Never => ("never", 0),
                };
                call.arg(mode);
                call.number(delay);
                call.random();
            }
            Ending::Release => call.arg("release"),
            Ending::Refuse { reason, delay } => {
                call.arg("refuse");
                call.arg(reason.as_str());
                call.arg(delay.map(|delay| delay.as_micros().to_string()).unwrap_or_default());
                call.random();
            }
            Ending::Block(blocker) => {
                call.arg("block");
                call.arg(blocker.reason.as_str());
                call.arg(task::words(&blocker.requires));
                call.number(u8::from(blocker.awaited));
                call.number(u8::from(blocker.needs == Needs::Any));
                call.number(blocker.on.len());
                blocker.on.iter().for_each(|on| call.number(on));
                task::write_tasks(call, &blocker.help, Some(lease.task), self.config());
            }
        }
    }
}

/// What a script says became of a claim.
fn ended(answer: &Reply) -> Option<Ended> {
    let time = || answer.get(1)?.as_u64().map(Timestamp::from_micros);
    Some(match answer.get(0)?.as_str()? {
        "completed" => {
            let followed = answer.get(1)?;
            let events = followed.get(1).and_then(Reply::as_list).unwrap_or_default().iter().map(codec::one_published);
            Ended::Completed {
                tasks: followed.get(0).map_or(Some(Vec::new()), task::submitted)?.into(),
                events: events.collect::<Option<Vec<_>>>()?.into(),
            }
        }
        "retrying" => Ended::Retrying { at: time()? },
        "failed" => Ended::Failed,
        "released" => Ended::Released,
        "refused" => Ended::Refused { until: time()? },
        "blocked" => Ended::Blocked { help: task::submitted(answer.get(1)?)?.into() },
        _ => return None,
    })
}
