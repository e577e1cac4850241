//! A ledger on a Redis server: the same decisions, as one script.

mod script;
mod answer;
mod ledger;

pub use ledger::RedisLedger;
