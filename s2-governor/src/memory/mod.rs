//! What this crate keeps of a fleet in memory: the model of all other backends, which give the same answers to the same history.

// Accounts.
mod turn;
mod account;
mod days;
mod spends;
mod book;
mod ledger;
// Providers.
mod board;

pub use board::MemoryBoard;
pub use ledger::MemoryLedger;
