//! Sessions that are to enter the fleet.

use s2_coordinator::{Capabilities, Error as CoordinatorError, Invalid, Profile, SwarmId};
use serde::Serialize;

use crate::context::Context;
use crate::error::Error;
use crate::s2::S2;
use crate::session::Session;
use crate::task_error::TaskError;

/// How many tasks a session has at once at most.
const MOST_AT_ONCE: usize = 1_000_000;

/// The swarm of S²'s own sessions.
const OWN: SwarmId = SwarmId::from_static("s2");

/// A session that is to enter the fleet. What is wrong with what was said comes up when it does.
#[derive(Debug)]
#[must_use = "a session does nothing until it runs or joins"]
pub struct SessionBuilder {
    s2: S2,
    name: Result<SwarmId, Invalid>,
    offers: Vec<String>,
    concurrency: usize,
}

impl SessionBuilder {
    pub(crate) fn new(s2: S2, name: Result<SwarmId, Invalid>) -> Self {
        Self { s2, name, offers: Vec::new(), concurrency: 1 }
    }

    /// Adds what it can do, as paths such as `integration:sip`.
    pub fn skills<P: AsRef<str>>(mut self, skills: impl IntoIterator<Item = P>) -> Self {
        self.offers.extend(skills.into_iter().map(|skill| skill.as_ref().to_owned()));
        self
    }

    /// Adds the tools that it masters: `rust` is the capability `tool:rust`.
    pub fn tools<P: AsRef<str>>(mut self, tools: impl IntoIterator<Item = P>) -> Self {
        self.offers.extend(tools.into_iter().map(|tool| format!("tool:{}", tool.as_ref())));
        self
    }

    /// Sets how many tasks it has at once: 1 unless set. Tasks that are blocked do not count.
    pub fn concurrency(mut self, tasks: usize) -> Self {
        self.concurrency = tasks;
        self
    }

    /// Enters the fleet, for a host with a loop of its own: it asks for [`Session::next`].
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for a name or a capability; [`Error::ShuttingDown`]; `S2_NO_RUNTIME`; as
    /// [`Scheduler::enter`](s2_coordinator::Scheduler::enter).
    ///
    /// # Cancel safety
    ///
    /// As there.
    pub async fn join(self) -> Result<Session, Error> {
        let Self { s2, name, offers, concurrency } = self;
        if s2.is_stopping() {
            return Err(Error::ShuttingDown);
        }
        tokio::runtime::Handle::try_current().map_err(|_| CoordinatorError::NoRuntime)?;
        if !(1..=MOST_AT_ONCE).contains(&concurrency) {
            let range = format!("must be from 1 to {MOST_AT_ONCE}");
            return Err(Invalid::new("concurrency", &concurrency.to_string(), range).into());
        }
        let name = name?;
        if OWN.contains(&name) {
            return Err(Invalid::new("session", name.as_str(), "names below s2 are of S² itself").into());
        }
        let profile = Profile::new(name).with_capabilities(Capabilities::new(&offers)?);
        Session::enter(s2, profile, concurrency).await
    }

    /// Enters the fleet, and handles tasks in the background until the process leaves, the session does, or a newer one of its
    /// name takes its place.
    ///
    /// A handler is dropped when its claim is lost; a panic fails the attempt. While an account on the way up is halted, nothing is
    /// claimed. A session that was taken for lost, since nothing was heard of the process for too long, enters anew.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use s2_coordinator::{NewTask, Scheduler, SchedulerExt, SwarmId, TaskKind};
    /// use s2_core::{Context, S2};
    ///
    /// let s2 = S2::in_memory();
    /// let ndi = s2.session("telephony/ndi").skills(["integration:sip"]).tools(["rust"]).concurrency(2);
    /// ndi.run(async |cx: Context| Ok(cx.task().json::<String>()?.len())).await?;
    ///
    /// let task = NewTask::new(TaskKind::new("measure")?, SwarmId::new("host")?).with_json("src/invite.rs")?;
    /// let id = s2.scheduler().submit_one(&task).await?.id;
    /// assert_eq!(s2.scheduler().wait(id).await?.result().expect("done").json::<usize>()?, 13);
    /// s2.shutdown(std::time::Duration::from_secs(1)).await;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`SessionBuilder::join`].
    ///
    /// # Cancel safety
    ///
    /// As [`SessionBuilder::join`].
    pub async fn run<T, F, H>(self, handler: H) -> Result<Session, Error>
    where
        T: Serialize + Send + 'static,
        F: Future<Output = Result<T, TaskError>> + Send + 'static,
        H: Fn(Context) -> F + Send + Sync + 'static,
    {
        let s2 = self.s2.clone();
        let session = self.join().await?;
        s2.spawn(session.clone().serve(handler));
        Ok(session)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_wrong_with_a_session_comes_up_when_it_joins() {
        let s2 = S2::in_memory();
        for (builder, message) in [
            (s2.session("s2"), "invalid session \"s2\": names below s2 are of S² itself"),
            (s2.session("s2/organiser"), "invalid session \"s2/organiser\": names below s2 are of S² itself"),
            (s2.session("a//b"), "invalid swarm id \"a//b\": a segment is empty"),
            (
                s2.session("a").skills(["b c"]),
                "invalid capability \"b c\": a word has letters, digits and . _ + # - only",
            ),
            (s2.session("a").concurrency(0), "invalid concurrency \"0\": must be from 1 to 1000000"),
        ] {
            let error = builder.join().await.expect_err(message);
            assert_eq!((error.to_string().as_str(), error.code()), (message, "S2_INVALID"));
        }
        assert!(s2.session("s2-swarm/one").join().await.is_ok(), "a namesake is somebody else");
    }
}
