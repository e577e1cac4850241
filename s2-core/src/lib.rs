//! The composition root of S²: nothing else in S² depends on it.
//!
//! It puts together what stands for itself elsewhere ([`s2_coordinator`], [`s2_governor`]), and adds what needs all of it: sessions that
//! claim, spend, ask for help and give it.
//!
//! ```
//! use std::time::Duration;
//!
//! use s2_coordinator::{Blocker, Capabilities, NewTask, Scheduler, SchedulerExt, SwarmId, TaskKind};
//! use s2_core::{Context, S2};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let s2 = S2::in_memory();
//!
//! // It cannot go on, and says what it takes to help.
//! let sip = s2.session("telephony/sip").skills(["voice:sip"]);
//! sip.run(async |cx: Context| {
//!     let needs = Capabilities::new(["integration:sip", "telephony:protocols"])?;
//!     let rescued = cx.blocked(Blocker::new("the invite is answered with 488").with_requires(needs)).await?;
//!     Ok(rescued.first().map(|answer| answer.result.json::<String>()).transpose()?)
//! })
//! .await?;
//!
//! // Whoever is free and fits is asked.
//! let ndi = s2.session("telephony/ndi").skills(["integration:sip", "telephony:protocols"]);
//! ndi.run(async |cx: Context| {
//!     let asked = cx.help_request().expect("nothing else is to be done");
//!     Ok(format!("{}: offer PCMU, too", asked.reason))
//! })
//! .await?;
//!
//! let task = NewTask::new(TaskKind::new("invite")?, SwarmId::new("host")?)
//!     .with_requires(Capabilities::new(["voice:sip"])?);
//! let id = s2.scheduler().submit_one(&task).await?.id;
//! let done = s2.scheduler().wait(id).await?.result().expect("it is done").json::<String>()?;
//! assert_eq!(done, "the invite is answered with 488: offer PCMU, too");
//! s2.shutdown(Duration::from_secs(5)).await;
//! # Ok(()) }
//! ```
//!
//! | feature | what it adds |
//! |---|---|
//! | `redis` | `S2::redis`: the fleet on a Redis server, over many processes |
//! | `redis-tls` | the same over TLS (`rediss://`), with the system's certificates |
//! | `tower` | bulkhead and breaker as layers of tower, in [`s2_governor`] |
//! | `test-util` | `ManualClock`, in [`s2_coordinator`] |
//! | `full` | `redis` and `tower` |

// Words.
mod error;
mod task_error;
mod spend_error;
mod settings;
mod help;
mod hooks;
mod s2;
// What a handler has.
mod meter;
mod places;
mod context;
mod spend;
mod blocked;
mod job;
// What runs.
mod rescue;
mod session;
mod session_builder;
mod shutdown;
mod people;
mod why;
mod builder;

pub use builder::Builder;
pub use context::Context;
pub use error::Error;
pub use help::{Answer, HELP, HelpRequest, RESCUE, RESCUES, RescueEvent, Rescued};
pub use hooks::{NoHooks, RescueHooks};
pub use job::{Interrupted, Job};
pub use meter::Meter;
pub use s2::S2;
pub use session::Session;
pub use session_builder::SessionBuilder;
pub use settings::{Enough, HelpSettings, Settings};
pub use spend_error::SpendError;
pub use task_error::TaskError;
pub use why::{BreakerSaid, Explanation};
