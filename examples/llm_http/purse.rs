//! What a session may spend, and on which model.

use std::sync::Arc;

use s2_coordinator::SwarmId;
use s2_governor::{
    BudgetLedger, BudgetLedgerExt, Choice, Denied, Error, Headroom, MemoryLedger, NanoUsd, PriceTable, Reservation,
    Reserve, Route, RouteRequest, Savings, TierRouter, Usage,
};

/// The account of a session, prices, and the models to choose from.
#[derive(Clone, Debug)]
pub(crate) struct Purse {
    pub(crate) session: SwarmId,
    pub(crate) ledger: Arc<MemoryLedger>,
    pub(crate) prices: Arc<PriceTable>,
    pub(crate) router: Arc<TierRouter>,
}

impl Purse {
    /// The cheapest model that will do and can be paid from what is left.
    pub(crate) async fn choose(&self, request: RouteRequest) -> Result<Route, Error> {
        let balance = self.ledger.balance(&self.session).await?;
        let headroom = Headroom::new(balance.limit, balance.available());
        Ok(self.router.route(&request.with_headroom(headroom))?.route)
    }

    /// Holds the most that a call may cost. Somebody else of the session may have been faster.
    pub(crate) async fn hold(&self, choice: &Choice) -> Result<Result<Reservation, Denied>, Error> {
        let reserve = Reserve::new(self.session.clone(), choice.estimate);
        Ok(self.ledger.reserve(&reserve).await?.granted())
    }

    /// Posts what a call has cost, and says what another model would have cost.
    pub(crate) async fn settle(
        &self,
        held: &Reservation,
        choice: &Choice,
        usage: &Usage,
    ) -> Result<(NanoUsd, Savings), Error> {
        let cost = self.prices.cost(&choice.model, usage)?;
        self.ledger.settle(held, cost).await?;
        Ok((cost, self.router.savings(choice, usage)?))
    }
}
