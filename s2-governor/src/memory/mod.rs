//! A ledger in one process. It is the model: other backends give the same answers to the same history.

mod turn;
mod account;
mod days;
mod spends;
mod book;
mod ledger;

pub use ledger::MemoryLedger;
