//! An HTTP client of models behind bulkhead, breaker and budget, and a provider that does not always do well: it limits how
//! often it is asked, goes down, and is slow. It is a server of this process, so nothing leaves the machine.
//!
//! ```sh
//! cargo run --example llm_http
//! ```
//!
//! For each call, the cheapest model that will do is chosen, the most that it may cost is reserved, and what it did cost is
//! settled, by the tokens of the answer. The calls are real; time is moved by hand, so that minutes pass at once. In the end
//! the ledger and the provider's own bill must agree to a billionth of a dollar.

mod caller;
mod purse;
mod server;
mod story;
mod tally;
mod wire;

use std::time::Duration;

use tokio::time::timeout;

use crate::caller::BoxError;
use crate::story::Story;

/// Nothing here takes as long, by the clock on the wall.
const AT_MOST: Duration = Duration::from_secs(60);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    timeout(AT_MOST, run()).await?
}

async fn run() -> Result<(), BoxError> {
    let mut story = Story::begin().await?;
    story.work_through().await?;
    story.burst().await?;
    story.give_up().await?;
    story.be_thrifty().await?;
    story.be_denied().await?;
    story.check().await
}
