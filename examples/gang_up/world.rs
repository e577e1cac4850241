//! The world that the fleet lives in, and the truth about it, which nobody who chooses helpers knows.

use std::convert::Infallible;
use std::time::Duration;

use s2_coordinator::{Random, SwarmId, TaskId};
use s2_governor::NanoUsd;

/// Who is blocked.
pub(crate) const SIP: SwarmId = SwarmId::from_static("telephony/sip");

/// What it takes to help: the profiles of `capability_match`.
pub(crate) const REQUIRED: [&str; 2] = ["integration:sip", "telephony:protocols"];

/// What SIP is waiting for: so many observations of the gateway that can be used.
pub(crate) const NEEDED: u64 = 40;

/// How many calls a helper makes before it says what it has.
pub(crate) const CALLS: u64 = 20;

/// What a call costs.
pub(crate) const PRICE: NanoUsd = NanoUsd::from_cents(2);

/// A session: its name, what it offers, its tools, and how many of its calls are of use to SIP, in percent.
pub(crate) struct Member {
    pub(crate) name: &'static str,
    pub(crate) skills: &'static [&'static str],
    pub(crate) tools: &'static [&'static str],
    pub(crate) useful: u64,
}

/// The fleet of the seeds.
pub(crate) const FLEET: [Member; 6] = [
    Member { name: SIP_NAME, skills: &REQUIRED, tools: &[], useful: 0 },
    Member { name: "telephony/ndi", skills: &["integration:ndi", REQUIRED[0], REQUIRED[1]], tools: &RUST, useful: 100 },
    Member {
        name: "telephony/webrtc",
        skills: &["integration:webrtc", REQUIRED[0], REQUIRED[1]],
        tools: &RUST,
        useful: 100,
    },
    Member { name: "telephony/h323", skills: &["integration:h323", "telephony:legacy"], tools: &[], useful: 10 },
    Member { name: "tools/cli", skills: &["cli:tooling"], tools: &["python"], useful: 5 },
    Member { name: "hr/talent", skills: &["talent:matching"], tools: &[], useful: 0 },
];

const SIP_NAME: &str = "telephony/sip";
const RUST: [&str; 1] = ["rust"];

/// Everybody but SIP.
pub(crate) fn others() -> Vec<SwarmId> {
    FLEET.iter().map(|member| SwarmId::from_static(member.name)).filter(|name| *name != SIP).collect()
}

/// Those whose help is of use.
pub(crate) fn experts() -> Vec<SwarmId> {
    FLEET.iter().filter(|member| member.useful == 100).map(|member| SwarmId::from_static(member.name)).collect()
}

/// The provider that every session asks. What its answers are worth depends on who asks: only those who know their way around
/// ask the right questions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Models {
    pub(crate) seed: u64,
    /// How long a call takes.
    pub(crate) takes: Duration,
}

impl Models {
    /// Whether the answer to the `nth` call of a helper is an observation that SIP can use.
    pub(crate) async fn ask(&self, by: &SwarmId, help: TaskId, nth: u64) -> Result<bool, Infallible> {
        tokio::time::sleep(self.takes).await;
        Ok(self.useful_calls(by, help).contains(&nth))
    }

    /// Which calls of a helper are of use: as many as it is worth, drawn by lot.
    fn useful_calls(&self, by: &SwarmId, help: TaskId) -> Vec<u64> {
        let useful = FLEET.iter().find(|member| by.as_str() == member.name).map_or(0, |member| member.useful);
        let mut random = Random::from_seed(self.seed ^ help.get());
        draw(&mut random, (0..CALLS).collect(), (CALLS * useful / 100) as usize)
    }
}

/// Draws some out of many, in the order in which they are drawn.
pub(crate) fn draw<T>(random: &mut Random, mut from: Vec<T>, count: usize) -> Vec<T> {
    let mut drawn = Vec::with_capacity(count);
    while drawn.len() < count && !from.is_empty() {
        let nth = (random.bits() % from.len() as u128) as usize;
        drawn.push(from.swap_remove(nth));
    }
    drawn
}
