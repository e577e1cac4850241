//! What a case starts from.

use std::fmt::Debug;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use s2_coordinator::{Inbox, Journal};

use crate::error::Error;
use crate::ledger::BudgetLedger;
use crate::settings::LedgerSettings;

/// Makes fleets to test.
#[async_trait]
pub trait Backend: Debug + Send + Sync + 'static {
    /// A fresh fleet that shares nothing with any other, with the default [`Config`](s2_coordinator::Config). Its clock shows
    /// nine o'clock in the morning, UTC.
    async fn fleet(&self) -> Box<dyn Fleet>;
}

/// One fleet. Dropping it ends it.
#[async_trait]
pub trait Fleet: Debug + Send + Sync + 'static {
    /// Another ledger of this fleet, with settings of its own: the same accounts.
    fn ledger(&self, settings: LedgerSettings) -> Arc<dyn BudgetLedger>;

    /// Its inbox.
    fn inbox(&self) -> Arc<dyn Inbox>;

    /// Its journal.
    fn journal(&self) -> Arc<dyn Journal>;

    /// Moves the fleet's clock forward. It stands still otherwise.
    async fn advance(&self, by: Duration);
}

/// What a case answers. Most fail by an assertion; an unexpected error of the backend fails it, too.
pub(super) type Outcome = Result<(), Error>;

type Run = fn(Box<dyn Fleet>) -> Pin<Box<dyn Future<Output = Outcome> + Send>>;

#[derive(Debug)]
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) run: Run,
}

/// Lists the cases of a module.
macro_rules! cases {
    ($($name:ident;)*) => {
        pub(in crate::conformance) const CASES: &[crate::conformance::harness::Case] = &[$(
            crate::conformance::harness::Case { name: stringify!($name), run: |fleet| Box::pin($name(fleet)) },
        )*];
    };
}
pub(super) use cases;
