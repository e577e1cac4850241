//! Ganging up on a blocker, through the facade: the same stories in memory and on Redis, and over processes.

mod bonds;
mod choice;
mod fleets;
mod kit;
mod processes;
mod stories;
