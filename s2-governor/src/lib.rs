//! What a fleet may spend, who helps whom, and which providers it may still ask.
//!
//! The modules are listed in reading order; each knows only those above it.

// Words.
mod error;
mod money;

pub use error::Error;
pub use money::NanoUsd;
