//! What a fleet may spend, who helps whom, and which providers it may still ask.
//!
//! The modules are listed in reading order; each knows only those above it.

// Words.
mod error;
mod money;
// Who helps.
mod basis_points;
mod coverage;
mod need;
mod track_record;
mod track_records;
mod candidate;
mod bond;
mod score;
mod rescue_policy;
mod policy_file;
mod matcher;
mod assignment;
mod waste;

pub use basis_points::BasisPoints;
pub use bond::{Bond, Bonds};
pub use candidate::Candidate;
pub use error::Error;
pub use matcher::{Assessment, Choice, Excluded, Matcher, Passed};
pub use money::NanoUsd;
pub use need::Need;
pub use policy_file::PolicyFile;
pub use rescue_policy::{PreemptionConditions, RescuePolicy};
pub use score::{Score, Weights};
pub use track_record::{Decay, TrackRecord, Verified};
pub use track_records::TrackRecords;
pub use waste::{Help, Waste};
