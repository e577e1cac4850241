//! Examples live beside this file; run one with `cargo run --example <name>`.

pub mod replay;
pub mod workers;
