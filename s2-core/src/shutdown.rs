//! Sessions of this process, and the end of all of them.

use std::time::Duration;

use s2_coordinator::SwarmId;

use crate::s2::S2;
use crate::s2::Stop;
use crate::session::SessionBuilder;

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
    /// over is dropped and handed back, without an attempt. At the end of the grace it answers in any case; what the store has not
    /// heard of by then comes back when its lease ends. Other processes go on. Repeating it is safe.
    ///
    /// # Cancel safety
    ///
    /// Repeating it completes it.
    pub async fn shutdown(&self, grace: Duration) {
        self.parts.stop.send_if_modified(|stop| (*stop < Stop::Drain).then(|| *stop = Stop::Drain).is_some());
        let handing_back = (grace / 4).min(HANDING_BACK);
        let mut running = std::mem::take(&mut *self.running());
        let all = async { while running.join_next().await.is_some() {} };
        if tokio::time::timeout(grace.saturating_sub(handing_back), all).await.is_ok() {
            return;
        }
        self.parts.stop.send_replace(Stop::Now);
        let all = async { while running.join_next().await.is_some() {} };
        if tokio::time::timeout(handing_back.max(Duration::from_millis(100)), all).await.is_err() {
            tracing::warn!(left = running.len(), "not everything could be handed back in time");
            running.abort_all();
        }
    }
}
