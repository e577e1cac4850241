//! Sessions of this process, and the end of all of them.

use std::time::Duration;

use s2_coordinator::SwarmId;

use crate::s2::S2;
use crate::s2::Stop;
use crate::session_builder::SessionBuilder;

/// How much of a grace is kept for handing back: a quarter, at most this.
const HANDING_BACK: Duration = Duration::from_secs(2);

impl S2 {
    /// A session of this name, a path such as `telephony/sip/session-4`: each prefix of it is a swarm that contains it.
    pub fn session(&self, name: impl AsRef<str>) -> SessionBuilder {
        SessionBuilder::new(self.clone(), SwarmId::new(name.as_ref()))
    }

    /// Works until `end` is over, and then leaves ([`S2::shutdown`]). Answers what it came to.
    pub async fn run_until<T>(&self, end: impl Future<Output = T>, grace: Duration) -> T {
        let ended = end.await;
        self.shutdown(grace).await;
        ended
    }

    /// Leaves the fleet: nothing new is taken up, handlers may end what they do, and whatever is left when most of the grace is
    /// over is dropped and handed back, without an attempt. A loop of the host's own has the same time, and then hears of it
    /// ([`Interrupted::Leaving`](crate::Interrupted::Leaving)). At the end of the grace it answers in any case; what the store has not
    /// heard of by then comes back when its lease ends. Other processes go on. It may be called more than once, also at once: the
    /// shortest grace counts.
    ///
    /// # Cancel safety
    ///
    /// Repeating it completes it.
    pub async fn shutdown(&self, grace: Duration) {
        self.stop(Stop::Drain);
        let handing_back = (grace / 4).min(HANDING_BACK);
        drop(tokio::time::timeout(grace.saturating_sub(handing_back), self.idle()).await);
        self.stop(Stop::Now);
        let left = async { tokio::join!(self.idle(), self.leave()) };
        if tokio::time::timeout(handing_back.max(Duration::from_millis(100)), left).await.is_err() {
            tracing::warn!(left = *self.parts.busy.borrow(), "not everything could be handed back in time");
            self.running().abort_all();
        }
        while self.running().try_join_next().is_some() {}
    }

    fn stop(&self, far: Stop) {
        self.parts.stop.send_if_modified(|stop| (*stop < far).then(|| *stop = far).is_some());
    }

    /// Waits until nothing is done any more.
    async fn idle(&self) {
        // The sender lives as long as this.
        drop(self.parts.busy.subscribe().wait_for(|busy| *busy == 0).await);
    }

    /// Takes the sessions that are still there out of the fleet.
    async fn leave(&self) {
        let members: Vec<_> = self.recruits().values().filter_map(std::sync::Weak::upgrade).collect();
        for member in members {
            if let Err(error) = member.claimant().leave().await {
                tracing::warn!(%error, "a session could not leave; it will be missed");
            }
        }
    }
}
