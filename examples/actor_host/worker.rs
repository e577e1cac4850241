//! The actors: workers, each a session of the fleet, and the team that starts them anew.

use std::time::Duration;

use kameo::actor::{Actor, ActorRef, Spawn, WeakActorRef};
use kameo::error::Infallible;
use kameo::mailbox::{MailboxReceiver, Signal};
use kameo::message::{Context, Message};
use kameo::supervision::RestartPolicy;
use s2_coordinator::{Completion, Error, Held, MemoryScheduler, Profile, SchedulerExt, Session, SwarmId};
use tokio::sync::watch;

use crate::calculator::Calculator;

pub(crate) const NAMES: [SwarmId; 4] = [
    SwarmId::from_static("team/ada"),
    SwarmId::from_static("team/bob"),
    SwarmId::from_static("team/cleo"),
    SwarmId::from_static("team/dan"),
];

/// What all workers of a team share.
#[derive(Clone, Debug)]
pub(crate) struct Crew {
    pub(crate) scheduler: MemoryScheduler,
    /// How often a worker has started.
    pub(crate) starts: watch::Sender<u32>,
}

/// The supervisor. A worker that panics is started anew, with a new session of the same name.
pub(crate) struct Team;

impl Actor for Team {
    type Args = Crew;
    type Error = Infallible;

    async fn on_start(crew: Crew, team: ActorRef<Self>) -> Result<Self, Infallible> {
        for name in NAMES {
            let worker = Worker::supervise(&team, (name, crew.clone()))
                .restart_policy(RestartPolicy::Transient)
                .restart_limit(1_000, Duration::from_secs(60))
                .spawn()
                .await;
            worker.wait_for_startup().await;
        }
        Ok(Self)
    }
}

/// An actor that is a session. It has its own address, so it runs until it is told to stop.
pub(crate) struct Worker {
    this: ActorRef<Self>,
    session: Session,
    calculator: Calculator,
}

impl Actor for Worker {
    type Args = (SwarmId, Crew);
    type Error = Error;

    /// Enters the fleet. If it was there before and has crashed, the older session is superseded.
    async fn on_start((name, crew): Self::Args, this: ActorRef<Self>) -> Result<Self, Error> {
        let session = crew.scheduler.join(&Profile::new(name)).await?;
        crew.starts.send_modify(|starts| *starts += 1);
        Ok(Self { this, session, calculator: Calculator::default() })
    }

    /// What comes first: a message of its runtime, or a task of the fleet. Claiming is cancel safe, so nothing is lost when it
    /// is a message.
    async fn next(
        &mut self,
        _: WeakActorRef<Self>,
        mailbox: &mut MailboxReceiver<Self>,
    ) -> Result<Option<Signal<Self>>, Error> {
        tokio::select! {
            biased;
            signal = mailbox.recv() => Ok(signal),
            held = self.session.claim() => Ok(held?.map(|held| message(held, self.this.clone()))),
        }
    }
}

/// A task as a message that the actor has sent to itself.
fn message(held: Held, actor_ref: ActorRef<Worker>) -> Signal<Worker> {
    Signal::Message {
        message: Box::new(held),
        actor_ref,
        reply: None,
        sent_within_actor: true,
        message_name: <Worker as Message<Held>>::name(),
    }
}

impl Message<Held> for Worker {
    type Reply = Result<(), Error>;

    /// If it panics, the guard is dropped by that, and the attempt has failed. The supervisor does the rest.
    async fn handle(&mut self, held: Held, _: &mut Context<Self, Self::Reply>) -> Result<(), Error> {
        let number = self.calculator.calculate(&String::from_utf8_lossy(&held.task.data));
        held.complete(Completion::new().with_data(number.to_string())).await?;
        Ok(())
    }
}
