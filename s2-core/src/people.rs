//! What waits for a person: how it reaches one, and what follows from the answer.

use std::sync::Arc;
use std::time::Duration;

use s2_coordinator::{
    Capabilities, Completion, Escalation, EscalationId, NotEnded, Profile, Resolution, SwarmId, TaskId,
};

use crate::blocked::PERSON;
use crate::error::Error;
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
    /// | `budget_exceeded` and what else halts an account | `resume` | the account may be spent from again |
    /// | `question` ([`Context::ask`](crate::Context::ask)) | anything | it is the answer |
    /// | `no_rescuer`, and tasks that wait for each other | `unblock` | the task goes on without help |
    /// | the same | `cancel` | the task is cancelled |
    /// | anything | anything else | nothing: the person has seen to it |
    ///
    /// What was decided is done before the escalation is resolved, and again if that is repeated: so nothing is lost in between.
    ///
    /// # Errors
    ///
    /// `S2_UNKNOWN_ESCALATION`, `S2_ALREADY_RESOLVED`; whatever the deed can fail with: then the escalation is still pending.
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
            ("budget", _, "resume") => {
                // The day, and the swarm.
                let swarm = of.split_once(':').map_or(of, |(_, swarm)| swarm);
                self.ledger().resume(&SwarmId::new(swarm)?).await?;
            }
            ("question", Some(question), _) => self.answer(question, resolution).await?,
            (_, Some(task), "unblock") => _ = self.scheduler().unblock(task).await?,
            (_, Some(task), "cancel") => {
                let reason = format!("{} decided so", resolution.by);
                _ = self.scheduler().cancel(task, reason.into()).await?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Answers a question: as a session that does nothing else, and for this question only.
    async fn answer(&self, question: TaskId, resolution: &Resolution) -> Result<(), Error> {
        if self.scheduler().task(question).await?.state.is_finished() {
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
        Ok(session.leave().await?)
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
