//! Ganging up on a blocker.
//!
//! Everything that a rescue knows is in the fleet's own tasks: the rescue task says who is blocked, its parts say who was asked and
//! what came of it. So whoever organises may die at any moment, and the next one goes on from there. One session of the fleet
//! organises at a time: it has a name of its own, and a newer one of that name supersedes it with all its claims.
//!
//! Why not let each process help its own? Two of them would ask the same helper, and nobody would see all blockers together.

mod open;
mod records;
mod fleet;
mod matching;
mod organiser;
mod asking;
mod stand_by;

pub(crate) use matching::assess;
pub(crate) use stand_by::begin;
