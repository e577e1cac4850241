//! What this crate keeps of a fleet on a Redis server: the same decisions, as scripts.

mod unexpected;
// Accounts.
mod script;
mod answer;
mod ledger;
// Providers.
mod board;

pub use board::RedisBoard;
pub use ledger::RedisLedger;
