//! The same fleet in four processes, four times: nothing happens to it; the process of a helper is killed in mid-help; the one
//! that organises help is; the one that is blocked is.

use std::error::Error;
use std::time::Duration;

use s2_coordinator::{Config, Entry, RedisStore, Start, SwarmId, Tail, Topic};
use s2_core::S2;
use s2_examples::workers::{Worker, end_with_parent};
use s2_governor::Waste;

use crate::checks::Checks;
use crate::fleet::{Plan, enter, settings, submit};
use crate::memory;
use crate::story::Story;
use crate::timeline::text;
use crate::world::{FLEET, Member, Models, NEEDED, experts};

/// Which sessions each process has. The first one organises help, since it is there first.
const WORKERS: [&[&str]; 4] =
    [&["hr/talent"], &["telephony/sip"], &["telephony/ndi", "tools/cli"], &["telephony/webrtc", "telephony/h323"]];
const ORGANISES: usize = 0;
const BLOCKED: usize = 1;
const HELPS: usize = 2;

/// How long a call takes: long enough to kill somebody in the middle of the work.
const TAKES: Duration = Duration::from_millis(20);

/// After how many calls of a helper somebody is killed.
const MIDDLE: usize = 5;

/// Each round: its name, and which process is killed.
const ROUNDS: [(&str, Option<usize>); 4] = [
    ("calm", None),
    ("helper-killed", Some(HELPS)),
    ("organiser-killed", Some(ORGANISES)),
    ("blocked-killed", Some(BLOCKED)),
];

/// How long a round may take.
const ROUND: Duration = Duration::from_secs(60);

async fn connect(url: &str, fleet: SwarmId) -> Result<S2, Box<dyn Error>> {
    let mut config = Config::default();
    // Who is killed should not hold up a demonstration for half a minute.
    (config.lease, config.ack_timeout) = (Duration::from_secs(2), Duration::from_secs(2));
    let store = RedisStore::builder(fleet).with_config(config).connect(url).await?;
    Ok(S2::builder().with_settings(settings()?).on_redis(&store).await?)
}

/// A process of the fleet: it works until it is killed, or the one that has started it is gone.
pub(crate) async fn work(url: &str, worker: usize) -> Result<(), Box<dyn Error>> {
    let s2 = connect(url, SwarmId::new(crate::option("--fleet").ok_or("--fleet is missing")?)?).await?;
    let is_here = |member: &&Member| WORKERS.get(worker).is_some_and(|names| names.contains(&member.name));
    for member in FLEET.iter().filter(is_here) {
        enter(&s2, member, Models { seed: 1, takes: TAKES }).await?;
    }
    end_with_parent();
    std::future::pending().await
}

/// What the journal says, as it says it.
struct Watch(Tail);

impl Watch {
    /// Waits for so many entries of this operation on one of these.
    async fn until(&mut self, operation: &str, of: &[&str], mut times: usize) -> Result<(), Box<dyn Error>> {
        while times > 0 {
            let entry: Entry = self.0.next().await?.ok_or("the bus is closed")?.json()?;
            let is_it = entry.operation.as_str() == operation && of.contains(&entry.subject.as_str());
            times -= usize::from(is_it);
        }
        Ok(())
    }
}

/// One round: whoever is to be killed is, in the middle of the work.
async fn round(url: &str, name: &str, killed: Option<usize>) -> Result<Story, Box<dyn Error>> {
    // Each round is a fleet of its own.
    let fleet = SwarmId::new(format!("gang-up-{}-{name}", std::process::id()))?;
    let s2 = connect(url, fleet.clone()).await?;
    let mut watch = Watch(s2.bus().tail(&Topic::JOURNAL, Start::Beginning).await?);
    let mut workers = vec![Worker::start(url, fleet.as_str(), &ORGANISES.to_string())?];
    watch.until("entered", &["s2/organiser"], 1).await?;
    for nth in 1..WORKERS.len() {
        workers.push(Worker::start(url, fleet.as_str(), &nth.to_string())?);
    }
    let later = WORKERS[1..].concat();
    watch.until("entered", &later, later.len()).await?;
    let (task, trace) = submit(&s2, &Plan::new()).await?;
    if let Some(killed) = killed {
        watch.until("settle", &["telephony/ndi"], MIDDLE).await?;
        workers[killed].kill()?;
    }
    Story::of(&s2, task, trace).await
}

/// Tells what happens in each round, and checks that it is what happens in one process.
pub(crate) async fn lead(url: &str) -> Result<Checks, Box<dyn Error>> {
    let mut checks = Checks::default();
    let alone = memory::tell(&Plan::new(), 1).await?;
    for (name, killed) in ROUNDS {
        println!("\n{name}: four processes{}", killed.map_or("", |_| ", of which one is killed in mid-help"));
        let story = tokio::time::timeout(ROUND, round(url, name, killed)).await??;
        print(&story);
        if killed.is_none() {
            println!("the trace of the rescue, from the journal:");
            story.print_trace();
        }
        let is_same = story.choices().first() == alone.choices().first();
        checks.that(format!("{name}: those were asked who are in one process"), is_same);
        check(&mut checks, name, killed, &story);
    }
    Ok(checks)
}

fn check(checks: &mut Checks, name: &str, killed: Option<usize>, story: &Story) {
    let has: u64 = story.given.iter().map(|given| given.useful).sum();
    checks.that(format!("{name}: the blocker is solved"), has >= NEEDED);
    let are_experts = story.given.iter().all(|given| experts().contains(&given.by));
    checks.that(format!("{name}: only those who fit have helped"), are_experts);
    // What a helper took with it, somebody else has to find out.
    let again = usize::from(killed == Some(HELPS));
    checks.that(format!("{name}: nobody was asked again without need"), story.choices().len() == 1 + again);
    let in_the_middle = match killed {
        None => return,
        Some(HELPS) => count(story, "expired", "telephony/ndi") == 1,
        Some(ORGANISES) => count(story, "expired", "s2/organiser") == 1,
        Some(_) => count(story, "claimed", "telephony/sip") == 1,
    };
    checks.that(format!("{name}: that was in mid-help, and others went on"), in_the_middle);
}

fn print(story: &Story) {
    story.print_timeline();
    println!("who was considered:");
    story.print_considered();
    let (share, took) = (story.help().collect::<Waste>().share(), story.took.as_secs_f64());
    println!("spent {}, in vain {share} of it, resolved in {took:.1} s", story.cost());
}

/// How many entries there are of this operation on tasks of this session.
fn count(story: &Story, operation: &str, session: &str) -> usize {
    let is_it = |entry: &&Entry| entry.operation.as_str() == operation && text(entry, "session") == session;
    story.entries.iter().filter(is_it).count()
}
