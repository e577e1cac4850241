//! SIP is blocked, and five sessions could help. All of them would waste more than half of what they cost; so who fits is
//! asked first.
//!
//! ```sh
//! cargo run --example capability_match
//! ```
//!
//! Of how much use each session is was found out afterwards; the matcher does not know it.

use std::error::Error;

use s2_coordinator::{Capabilities, SessionState, SwarmId, Timestamp};
use s2_governor::{
    BasisPoints, Bond, Bonds, Candidate, Help, Matcher, NanoUsd, Need, PolicyFile, TrackRecords, Verified, Waste,
};

/// What an operator has written; everything else keeps its default.
const POLICY: &str = "
rescue_policy:
  max_rescuers_per_blocker: 2
  min_capability_match: 0.70
  expertise_scoring:
    - domain_match: 0.50
    - tool_match: 0.30
    - recent_success: 0.20
";

/// What SIP needs.
const REQUIRED: [&str; 2] = ["integration:sip", "telephony:protocols"];

/// Who there is, what they offer, and of how much use they are to SIP, in percent.
const SESSIONS: [(&str, &[&str], u8); 5] = [
    ("telephony/ndi", &["integration:ndi", "integration:sip", "telephony:protocols", "tool:rust"], 100),
    ("telephony/webrtc", &["integration:webrtc", "integration:sip", "telephony:protocols", "tool:rust"], 100),
    ("telephony/h323", &["integration:h323", "telephony:legacy"], 10),
    ("tools/cli", &["cli:tooling", "tool:python"], 5),
    ("hr/talent", &["talent:matching"], 0),
];

/// The sessions with what each costs and is worth, and SIP itself.
fn fleet() -> Result<Vec<(Candidate, BasisPoints)>, Box<dyn Error>> {
    let price = NanoUsd::from_cents(40);
    let mut fleet = Vec::new();
    for (name, offered, useful) in SESSIONS {
        let candidate = Candidate::new(SwarmId::new(name)?, Capabilities::new(offered)?).with_cost(price);
        fleet.push((candidate, BasisPoints::from_percent(useful)));
    }
    let sip = Candidate::new(SwarmId::new("telephony/sip")?, Capabilities::new(REQUIRED)?);
    fleet.push((sip.with_state(SessionState::Blocked), BasisPoints::ZERO));
    Ok(fleet)
}

fn waste<'a>(helped: impl IntoIterator<Item = &'a (Candidate, BasisPoints)>) -> Waste {
    helped.into_iter().map(|(candidate, useful)| Help::new(candidate.cost, *useful)).collect()
}

/// What is wasted on average by any `size` of these: all the help of all such groups, taken together.
fn random_waste(others: &[(Candidate, BasisPoints)], size: usize) -> (usize, BasisPoints) {
    let groups = (0..1_u32 << others.len()).filter(|group| group.count_ones() as usize == size);
    let (mut count, mut waste) = (0, Waste::default());
    for group in groups {
        count += 1;
        let members = others.iter().enumerate().filter(|(nth, _)| group & (1 << nth) != 0);
        waste.extend(members.map(|(_, (candidate, useful))| Help::new(candidate.cost, *useful)));
    }
    (count, waste.share())
}

fn main() -> Result<(), Box<dyn Error>> {
    let policy = serde_saphyr::from_str::<PolicyFile>(POLICY)?.rescue_policy;
    let (now, fleet) = ("2025-11-12T09:00:00Z".parse::<Timestamp>()?, fleet()?);
    let need = Need::new(SwarmId::new("telephony/sip")?, &Capabilities::new(REQUIRED)?);
    let candidates: Vec<Candidate> = fleet.iter().map(|(candidate, _)| candidate.clone()).collect();
    let mut bonds = Bonds::default();
    bonds.declare(SwarmId::new("telephony")?, SwarmId::new("telephony")?, Bond::Peers);
    bonds.declare(SwarmId::new("telephony")?, SwarmId::new("tools")?, Bond::Support);
    let matcher = Matcher::new(&policy, now).with_bonds(&bonds);

    println!("{} is blocked; it takes {} and {}\n", need.blocked, REQUIRED[0], REQUIRED[1]);
    println!("{:<18} {:>7} {:>7} {:>8} {:>7}  bond", "session", "domain", "tools", "success", "score");
    let choice = matcher.choose(&need, &candidates);
    for one in choice.helpers.iter().chain(choice.others.iter().map(|(one, _)| one)) {
        let (score, bond) = (one.score, one.bond.map_or_else(|| "none".to_owned(), |bond| bond.to_string()));
        let [domain, tool, success, total] =
            [score.domain, score.tool, score.success, score.total].map(|share| share.to_string());
        println!("{:<18} {domain:>7} {tool:>7} {success:>8} {total:>7}  {bond}", one.candidate.session.as_str());
    }

    println!("\nat most {} help, with {} at least:", policy.max_rescuers_per_blocker, policy.min_capability_match);
    for helper in &choice.helpers {
        println!("+ {helper}");
    }
    for (other, why) in &choice.others {
        let missing = other.missing();
        let lacks = if missing.is_empty() { String::new() } else { format!(": lacks {missing}") };
        println!("- {} {why}{lacks}", other.candidate.session);
    }

    let is_helper = |candidate: &Candidate| choice.helpers.iter().any(|helper| helper.candidate == candidate);
    let matched: Vec<_> = fleet.iter().filter(|(candidate, _)| is_helper(candidate)).collect();
    let others = &fleet[..SESSIONS.len()];
    let (groups, random) = random_waste(others, matched.len());
    println!("\nwhat is wasted of what help costs:");
    println!("{:>5}  by the {} that match", waste(matched.iter().copied()).share().to_string(), matched.len());
    println!("{:>5}  by {} at random, the mean of all {groups} groups", random.to_string(), matched.len());
    println!("{:>5}  by all {}", waste(others).share().to_string(), others.len());

    // What comes of it is remembered: who was of use ranks higher the next time.
    let mut records = TrackRecords::default();
    records.record(&choice.helpers[1].candidate.session, &need, Verified::Success, now);
    records.record(&choice.helpers[0].candidate.session, &need, Verified::Failure, now);
    let matcher = matcher.with_records(&records);
    println!("\nif the first is of no use this time, and the second is, then the next time:");
    for helper in matcher.choose(&need, &candidates).helpers {
        println!("+ {helper}");
    }
    Ok(())
}
