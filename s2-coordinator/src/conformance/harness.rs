//! How cases are selected, run and reported.

use std::fmt::Debug;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::bus::EventBus;
use crate::config::Config;
use crate::error::Error;
use crate::inbox::Inbox;
use crate::journal::Journal;
use crate::scheduler::Scheduler;

/// What a backend may or may not promise. Without any, it publishes, delivers to groups and acks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Guarantee {
    /// A batch is published whole or not at all, and limits are enforced.
    AtomicBatch,
    /// Idempotency keys work.
    Idempotency,
    /// Attempts are counted, deliveries time out, crashed consumers' events come back.
    Redelivery,
    /// Only the current delivery settles, and repeated settles are answered alike.
    Fencing,
    /// Events that cannot be handled become dead letters that can be redriven and purged.
    DeadLetters,
    /// Outputs are published together with the ack.
    Commit,
    /// Topics can be read and tailed.
    Replay,
    /// History is trimmed, but never what a group has not settled.
    Retention,
    /// State changes are journalled.
    Journal,
    /// Escalations are kept.
    Inbox,
    /// Tasks are scheduled.
    Scheduler,
}

impl Guarantee {
    /// All of them.
    pub const ALL: &[Guarantee] = &[
        Self::AtomicBatch,
        Self::Idempotency,
        Self::Redelivery,
        Self::Fencing,
        Self::DeadLetters,
        Self::Commit,
        Self::Replay,
        Self::Retention,
        Self::Journal,
        Self::Inbox,
        Self::Scheduler,
    ];
}

/// Makes fleets to test.
#[async_trait]
pub trait Backend: Debug + Send + Sync + 'static {
    /// A fresh fleet that shares nothing with any other.
    async fn fleet(&self, config: Config) -> Box<dyn Fleet>;

    /// What it promises: everything unless it says otherwise.
    fn guarantees(&self) -> &[Guarantee] {
        Guarantee::ALL
    }
}

/// One fleet. Dropping it ends it.
#[async_trait]
pub trait Fleet: Debug + Send + Sync + 'static {
    /// Another bus of this fleet, which can be closed on its own.
    fn bus(&self) -> Arc<dyn EventBus>;

    /// Its inbox, if it promises one.
    fn inbox(&self) -> Option<Arc<dyn Inbox>> {
        None
    }

    /// Another scheduler of this fleet, which can be closed on its own, if it promises one.
    fn scheduler(&self) -> Option<Arc<dyn Scheduler>> {
        None
    }

    /// Its journal, if it promises one.
    fn journal(&self) -> Option<Arc<dyn Journal>> {
        None
    }

    /// Moves the fleet's clock forward. It stands still otherwise: cases compare instants, and let weeks pass. Only without
    /// any guarantee is this never called.
    async fn advance(&self, by: Duration);
}

/// What a case starts from.
#[derive(Clone, Debug)]
pub(super) struct Given {
    pub(super) backend: Arc<dyn Backend>,
}

impl Given {
    pub(super) async fn fleet(&self) -> Box<dyn Fleet> {
        self.backend.fleet(Config::default()).await
    }

    pub(super) async fn fleet_with(&self, change: impl FnOnce(&mut Config)) -> Box<dyn Fleet> {
        let mut config = Config::default();
        change(&mut config);
        self.backend.fleet(config).await
    }
}

/// What a case answers. Most fail by an assertion; an unexpected error of the backend fails it, too.
pub(super) type Outcome = Result<(), Error>;

type Run = fn(Given) -> Pin<Box<dyn Future<Output = Outcome> + Send>>;

#[derive(Debug)]
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) needs: &'static [Guarantee],
    pub(super) run: Run,
}

/// Lists the cases of a module with the guarantees that each needs.
macro_rules! cases {
    ($($name:ident: [$($need:ident),*];)*) => {
        pub(in crate::conformance) const CASES: &[crate::conformance::harness::Case] = &[$(
            crate::conformance::harness::Case {
                name: stringify!($name),
                needs: &[$(crate::conformance::harness::Guarantee::$need),*],
                run: |given| Box::pin($name(given)),
            },
        )*];
    };
}
pub(super) use cases;
