//! What waits for a person: how it reaches one, and what follows from the answer.

use std::sync::Arc;
use std::time::Duration;

use s2_coordinator::{
    Capabilities, Completion, Error as CoordinatorError, Escalation, EscalationId, Invalid, NotEnded, Profile,
    Resolution, SwarmId, TaskId,
};

use crate::error::Error;
use crate::help::PERSON;
use crate::help::QUESTION;
use crate::s2::S2;
use crate::s2::Stop;

/// How often it is looked for what is new.
const LOOK: Duration = Duration::from_secs(1);

/// How many escalations are looked at at a time.
const PAGE: usize = 100;

impl S2 {
    /// Resolves an escalation, and does what was decided:
    ///
    /// | reason | decision | what follows |
    /// |---|---|---|
    /// | `budget_exceeded` | `resume` | the account may be spent from again |
    /// | `question` ([`Context::ask`](crate::Context::ask)) | anything | it is the answer |
    /// | `no_rescuer`, and tasks that wait for each other | `unblock` | the task goes on without help |
    /// | the same | `cancel` | the task is cancelled |
    /// | anything, and what the host has asked | anything else | nothing: the person has seen to it |
    ///
    /// A store that has forgotten what was spent does not know whose accounts these are: it cannot be resolved by `resume`, and
    /// says so; [`BudgetLedger::resume`](s2_governor::BudgetLedger::resume) does it, swarm by swarm.
    ///
    /// What was decided is done before the escalation is resolved, and again if that is repeated: so nothing is lost in between.
    ///
    /// # Errors
    ///
    /// `S2_UNKNOWN_ESCALATION`, `S2_ALREADY_RESOLVED`; `S2_WRONG_STATE` when a question cannot be answered just now; whatever the deed can fail with: then the escalation is still pending.
    ///
    /// # Cancel safety
    ///
    /// Repeating it completes it.
    pub async fn resolve(&self, id: EscalationId, resolution: Resolution) -> Result<(), Error> {
        let before = EscalationId::new(id.get().saturating_sub(1));
        let pending = self.inbox().pending(before, 1).await?;
        if let Some(escalation) = pending.iter().find(|escalation| escalation.id == id) {
            self.act(escalation, &resolution).await?;
        }
        Ok(self.inbox().resolve(id, resolution).await?)
    }

    async fn act(&self, escalation: &Escalation, resolution: &Resolution) -> Result<(), Error> {
        let (what, of) = escalation.key.as_str().split_once(':').unwrap_or((escalation.key.as_str(), ""));
        let task = of.parse().ok().map(TaskId::new);
        match (what, task, resolution.decision.as_str()) {
            ("budget", _, "resume") => _ = self.ledger().resume(&account(escalation)?).await?,
            ("question", Some(question), _) => self.answer(question, resolution).await?,
            ("no_rescuer" | "deadlock" | "blocked_again", Some(task), "unblock") => {
                _ = self.scheduler().unblock(task).await?;
            }
            ("no_rescuer" | "deadlock" | "blocked_again", Some(task), "cancel") => {
                let reason = format!("{} decided so", resolution.by);
                _ = self.scheduler().cancel(task, reason.into()).await?;
            }
            // What a host asks is its own business.
            _ => {}
        }
        Ok(())
    }

    /// Answers a question: as a session that does nothing else, and for this question only.
    async fn answer(&self, question: TaskId, resolution: &Resolution) -> Result<(), Error> {
        let status = self.scheduler().task(question).await?;
        if status.state.is_finished() || status.task.kind != QUESTION {
            return Ok(());
        }
        let person = Profile::new(SwarmId::new(format!("s2/person-{question}"))?);
        let person = person.with_capabilities(Capabilities::new([PERSON])?);
        self.scheduler().assign(question, Some(&person.session)).await?;
        let session = s2_coordinator::Session::enter(Arc::clone(self.scheduler()), &person).await?;
        let claimed = session.try_claim().await?;
        if let Some(held) = claimed.filter(|held| held.task.id == question) {
            let answered = held.complete(Completion::new().with_json(resolution)?).await;
            answered.map_err(|NotEnded { error, .. }| *error)?;
        }
        session.leave().await?;
        match self.scheduler().task(question).await?.state {
            state if state.is_finished() => Ok(()),
            // Whoever tried it before has failed, and it comes back after a backoff.
            state => Err(CoordinatorError::WrongState { task: question, state, expected: "ready" }.into()),
        }
    }

    /// Shows escalations to people: `show` is called for each one that waits, once in this process, the oldest first. It runs in
    /// the background until the process leaves.
    pub fn on_escalation<F>(&self, show: impl Fn(Escalation) -> F + Send + Sync + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let s2 = self.clone();
        self.spawn(async move {
            tokio::select! {
                () = s2.stopped(Stop::Drain) => {}
                () = show_all(&s2, show) => {}
            }
        });
    }
}

/// The account that an escalation is about. Its key may be shortened; its payload says it in full.
fn account(escalation: &Escalation) -> Result<SwarmId, Error> {
    #[derive(serde::Deserialize)]
    struct Halted {
        account: SwarmId,
    }
    let halted = serde_json::from_slice::<Halted>(&escalation.payload);
    let invalid = |error| Invalid::new("account of escalation", escalation.key.as_str(), error);
    Ok(halted.map_err(invalid)?.account)
}

async fn show_all<F: Future<Output = ()>>(s2: &S2, show: impl Fn(Escalation) -> F) {
    let mut shown = EscalationId::default();
    loop {
        match s2.inbox().pending(shown, PAGE).await {
            Ok(pending) => {
                for escalation in pending {
                    shown = escalation.id;
                    show(escalation).await;
                }
            }
            Err(error) => tracing::warn!(%error, "the inbox cannot be read; trying again"),
        }
        tokio::time::sleep(LOOK).await;
    }
}
