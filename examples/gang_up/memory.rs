//! The same blocker in the same world, helped with in three ways: by everybody, by whoever the lot falls on, and by those who
//! fit.

use std::error::Error;
use std::time::Duration;

use s2_coordinator::{MemoryStore, Random};
use s2_core::S2;
use s2_governor::{BasisPoints, NanoUsd, Waste};

use crate::checks::Checks;
use crate::fleet::{Plan, enter, settings, submit};
use crate::story::Story;
use crate::world::{CALLS, FLEET, Models, NEEDED, PRICE, draw, experts, others};

/// In how many worlds each way is tried.
const WORLDS: u64 = 20;

/// How long a call takes.
const TAKES: Duration = Duration::from_millis(2);

/// A fleet of its own, in which SIP is blocked once; without a plan for whom it asks, those who fit are.
pub(crate) async fn tell(plan: &Plan, seed: u64) -> Result<Story, Box<dyn Error>> {
    let s2 = S2::builder().with_settings(settings()?).on_memory(&MemoryStore::new()).await?;
    for member in &FLEET {
        enter(&s2, member, Models { seed, takes: TAKES }).await?;
    }
    let (task, trace) = submit(&s2, plan).await?;
    let story = Story::of(&s2, task, trace).await?;
    s2.shutdown(Duration::from_secs(1)).await;
    Ok(story)
}

/// Some at a time whom the lot falls on, nobody twice.
fn at_random(seed: u64, at_a_time: usize) -> Plan {
    let all = others();
    let count = all.len();
    let drawn = draw(&mut Random::from_seed(seed), all, count);
    drawn.chunks(at_a_time).map(<[_]>::to_vec).collect()
}

/// What several stories come to.
struct Sum {
    stories: Vec<Story>,
}

impl Sum {
    fn mean(&self, of: impl Fn(&Story) -> f64) -> f64 {
        self.stories.iter().map(of).sum::<f64>() / self.stories.len() as f64
    }

    fn took_ms(&self) -> f64 {
        self.mean(|story| story.took.as_secs_f64() * 1_000.0)
    }

    /// Of all the help of all stories, taken together.
    fn waste(&self) -> BasisPoints {
        let mut waste = Waste::default();
        self.stories.iter().for_each(|story| waste.extend(story.help()));
        waste.share()
    }

    fn cost(&self) -> NanoUsd {
        let sum: u64 = self.stories.iter().map(|story| story.cost().as_nanos()).sum();
        to_cents(sum / self.stories.len() as u64)
    }

    fn print(&self, way: &str) {
        let (helpers, took) = (self.mean(|story| story.given.len() as f64), self.took_ms());
        let (cost, share) = (self.cost(), self.waste());
        let wasted = cost.as_nanos() / u64::from(BasisPoints::FULL.get()) * u64::from(share.get());
        let [spent, wasted, share] = [cost.to_string(), to_cents(wasted).to_string(), share.to_string()];
        println!("{way:<28} {helpers:>7.1} {spent:>7} {wasted:>8} {share:>8} {took:>9.0} ms");
    }
}

/// Whole cents are enough for people.
fn to_cents(nanos: u64) -> NanoUsd {
    NanoUsd::from_cents(nanos / NanoUsd::from_cents(1).as_nanos())
}

/// Tells the three stories, and checks what they come to.
pub(crate) async fn run() -> Result<Checks, Box<dyn Error>> {
    let story = tell(&Plan::new(), 1).await?;
    println!("SIP needs {NEEDED} observations; a helper makes {CALLS} calls for {PRICE} each.\n\nWhat happened:");
    story.print_timeline();
    println!("\nWho was considered:");
    story.print_considered();
    println!("\nThe trace of the rescue, from the journal:");
    story.print_trace();

    let most = settings()?.rescue_policy.max_rescuers_per_blocker;
    let [mut everybody, mut random, mut matched] = [const { Sum { stories: Vec::new() } }; 3];
    for seed in 1..=WORLDS {
        everybody.stories.push(tell(&vec![others()], seed).await?);
        random.stories.push(tell(&at_random(seed, most), seed).await?);
        matched.stories.push(tell(&Plan::new(), seed).await?);
    }
    println!("\nThe means of {WORLDS} worlds, in which other calls are of use and the lot falls on others:");
    println!(
        "{:<28} {:>7} {:>7} {:>8} {:>8} {:>12}",
        "helped by", "helpers", "spent", "wasted", "share", "resolved in"
    );
    everybody.print("everybody");
    random.print(&format!("{most} at a time at random"));
    matched.print(&format!("the {most} who fit best"));
    Ok(check(&everybody, &random, &matched))
}

fn check(everybody: &Sum, random: &Sum, matched: &Sum) -> Checks {
    let mut checks = Checks::default();
    let are_asked = |story: &Story| story.choices() == [experts()];
    checks.that("NDI and WebRTC are asked, once, in each world", matched.stories.iter().all(are_asked));
    checks.that("everybody wastes 57 %", everybody.waste() == BasisPoints::from_percent(57));
    checks.that("those who fit waste nothing", matched.waste() == BasisPoints::ZERO);
    checks.that("they cost less than random help", matched.cost() < random.cost());
    checks.that("they resolve it at least 25 % sooner", matched.took_ms() <= 0.75 * random.took_ms());
    checks
}
