//! Asking helpers, and telling of it.

use s2_coordinator::{Error as CoordinatorError, EventBusExt, NewEscalation, Subject, SwarmId, TaskId, Text};
use s2_governor::Candidate;

use crate::error::Error;
use crate::help::ORGANISER;
use crate::help::RescueEvent;
use crate::rescue::matching::Chosen;
use crate::rescue::open::Part;
use crate::rescue::organiser::Organiser;

impl Organiser {
    /// Asks those who were chosen for a rescue.
    pub(super) async fn ask(&mut self, id: TaskId, chosen: Chosen) -> Result<(), Error> {
        let Some(open) = self.open.get(&id) else { return Ok(()) };
        if chosen.helpers.is_empty() {
            return self.without_helpers(id, chosen).await;
        }
        let nth = open.parts.len();
        let mut new = Vec::with_capacity(chosen.helpers.len());
        for (place, (helper, because)) in chosen.helpers.iter().enumerate() {
            let request = open.request(&self.s2, helper.session.clone(), because);
            new.push((open.help(&self.s2, nth + place, &request, &helper.capabilities)?, request));
        }
        let tasks: Vec<_> = new.iter().map(|(task, _)| task.clone()).collect();
        // Side by side: neither waits for the other, and whoever dies has most likely done both.
        let (submitted, told) = tokio::join!(self.s2.scheduler().submit(&tasks), self.told(id, nth, &chosen));
        let submitted = match submitted {
            Ok(submitted) => submitted,
            // Somebody else has organised it meanwhile, and asked others: it comes back, and is taken up as it is then.
            Err(CoordinatorError::TaskConflict { .. }) => return self.hand_back(id).await,
            // Somebody has changed just now.
            Err(CoordinatorError::Invalid(_)) => {
                self.look_again(id);
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        told?;
        let parts: Vec<Part> =
            submitted.iter().zip(new).map(|(done, (_, request))| Part { task: done.id, request, end: None }).collect();
        let asked: Vec<(TaskId, Candidate)> =
            submitted.iter().map(|done| done.id).zip(chosen.helpers.iter().map(|(helper, _)| helper.clone())).collect();
        if let Some(open) = self.open.get_mut(&id) {
            open.look_at = None;
            open.parts.extend(parts);
        }
        for (help, helper) in asked {
            self.wait_for(id, help);
            if helper.is_busy() {
                let told = RescueEvent::Recruited { helper: helper.session, help };
                self.tell(&told, &format!("recruited/{help}")).await?;
            }
        }
        Ok(())
    }

    async fn hand_back(&mut self, id: TaskId) -> Result<(), Error> {
        if let Some(open) = self.open.remove(&id) {
            open.held.release().await.map_err(CoordinatorError::from)?;
        }
        Ok(())
    }

    fn look_again(&mut self, id: TaskId) {
        let at = self.s2.clock().now() + self.s2.settings().help.look_again;
        self.open.get_mut(&id).into_iter().for_each(|open| open.look_at = Some(at));
    }

    /// There is nobody to ask. If nobody is at it either, a person should know, once.
    async fn without_helpers(&mut self, id: TaskId, chosen: Chosen) -> Result<(), Error> {
        self.look_again(id);
        let Some(open) = self.open.get_mut(&id) else { return Ok(()) };
        if open.running() > 0 || open.helped() > 0 {
            open.look_at = None;
            return Ok(());
        }
        if std::mem::replace(&mut open.escalated, true) {
            return Ok(());
        }
        let (blocked, nth) = (open.rescue.blocked, open.parts.len());
        let evidence = serde_json::json!({ "rescue": open.rescue, "considered": chosen.others });
        let escalation = NewEscalation::new(Subject::new(format!("no_rescuer:{blocked}"))?, "no_rescuer");
        match self.s2.inbox().escalate(escalation.with_payload(evidence.to_string())).await {
            Ok(_) => {}
            Err(error @ CoordinatorError::LimitExceeded { .. }) => {
                tracing::error!(%blocked, %error, "nobody can help, and no person can be told");
            }
            Err(error) => return Err(error.into()),
        }
        self.told(id, nth, &chosen).await
    }

    /// Tells who was chosen and why.
    async fn told(&self, id: TaskId, nth: usize, chosen: &Chosen) -> Result<(), Error> {
        let Some(open) = self.open.get(&id) else { return Ok(()) };
        let helpers: Vec<(SwarmId, Text)> =
            chosen.helpers.iter().map(|(helper, because)| (helper.session.clone(), because.clone())).collect();
        let (blocked, by, others) = (open.rescue.blocked, open.rescue.by.clone(), chosen.others.clone());
        let told = RescueEvent::Matched { blocked, by, rescue: id, helpers, others };
        // Each time that somebody is asked, and once for each organiser that nobody is to be asked.
        let whom = if chosen.helpers.is_empty() { "nobody" } else { "somebody" };
        self.tell(&told, &format!("matched/{id}/{nth}/{whom}/{}", open.held.lease.token)).await
    }

    pub(super) async fn tell(&self, told: &RescueEvent, key: &str) -> Result<(), Error> {
        let event = told.told_by(ORGANISER)?.with_idempotency_key(key.parse()?);
        match self.s2.bus().publish_one(&event).await {
            // Told before, by somebody who has organised it before.
            Err(CoordinatorError::IdempotencyConflict { .. }) => Ok(()),
            told => Ok(told.map(drop)?),
        }
    }
}
