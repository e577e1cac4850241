//! A session spends its daily budget. It is warned about, halted, and let go on by a person; a worker of it crashes, and what
//! it held is presumed to be spent, until somebody knows better; and tomorrow is another day.
//!
//! ```sh
//! cargo run --example daily_budget
//! ```
//!
//! Time is moved by hand, so that hours pass at once; what is granted, announced and asked is decided by the ledger.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use s2_coordinator::{Clock, EscalationId, Inbox, Journal, ManualClock, MemoryStore, Position, Resolution, SwarmId};
use s2_governor::{
    Balance, BudgetLedger, BudgetLedgerExt, Denied, Level, Limit, MemoryLedger, NanoUsd, Reservation, Reserve, Reserved,
};

const SWARM: SwarmId = SwarmId::from_static("telephony");
const SIP: SwarmId = SwarmId::from_static("telephony/sip/session-4");
const NDI: SwarmId = SwarmId::from_static("telephony/ndi/session-1");

/// What a call may cost at most, and how long it takes.
const MOST: NanoUsd = NanoUsd::from_cents(60);
const CALL: Duration = Duration::from_secs(5 * 60);

/// The provider: what its nth answer costs, which is as long as it likes, but not longer than it may be.
fn answer(nth: u64, most: NanoUsd) -> NanoUsd {
    NanoUsd::from_cents(35 + nth * 11 % 26).min(most)
}

struct Fleet {
    ledger: MemoryLedger,
    clock: Arc<ManualClock>,
    calls: u64,
}

impl Fleet {
    fn say(&self, text: impl std::fmt::Display) {
        println!("{}  {text}", &self.clock.now().to_string()[11..16]);
    }

    /// One call: what it may cost is held first, and what it has cost is posted afterwards. With little left, it asks for a
    /// short answer.
    async fn call(&mut self, session: &SwarmId) -> Result<Result<Level, Denied>, s2_governor::Error> {
        let before = self.ledger.balance(session).await?;
        let most = MOST.min(before.available());
        let held = match self.ledger.reserve(&Reserve::new(session.clone(), most)).await? {
            Reserved::Granted(held) => held,
            Reserved::Denied(denied) => return Ok(Err(denied)),
        };
        self.calls += 1;
        self.clock.advance(CALL);
        let posted = self.ledger.settle(&held, answer(self.calls, most)).await?;
        let after = self.ledger.balance(session).await?;
        if after.level > before.level {
            self.say(format_args!("{}: {:?}, {} of {} are spent", after.swarm, after.level, after.spent, after.limit));
        }
        Ok(Ok(posted.level))
    }

    async fn tell(&self, session: &SwarmId) -> Result<Balance, s2_governor::Error> {
        let balance = self.ledger.balance(session).await?;
        let Balance { swarm, day, spent, held, presumed, .. } = &balance;
        self.say(format_args!("{swarm} on {day}: spent {spent}, of it presumed {presumed}; held {held}"));
        Ok(balance)
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let clock = Arc::new(ManualClock::new("2025-11-12T20:00:00Z".parse()?));
    let store = MemoryStore::builder().with_clock(Arc::clone(&clock)).build()?;
    let inbox = store.inbox();
    let mut fleet = Fleet { ledger: MemoryLedger::new(&store), clock: Arc::clone(&clock), calls: 0 };

    let limit = Limit::PerDay(NanoUsd::from_dollars(5));
    fleet.ledger.set_limit(&SIP, limit).await?;
    fleet.say(format_args!("{SIP} may spend {limit} a day"));

    // Two sessions call in turn, until one of them may not.
    let mut disturbed = 0;
    let denied = loop {
        disturbed += u32::from(fleet.call(&NDI).await?.is_err());
        if let Err(denied) = fleet.call(&SIP).await? {
            break denied;
        }
    };
    fleet.say(format_args!("denied: {denied}"));
    disturbed += u32::from(fleet.call(&NDI).await?.is_err());

    // A person is asked, and decides.
    let questions = inbox.pending(EscalationId::default(), 100).await?;
    let [question] = &questions[..] else { return Err(format!("one question, not {}", questions.len()).into()) };
    fleet.say(format_args!("a person reads: {} {}", question.reason, String::from_utf8_lossy(&question.payload)));
    fleet.ledger.set_limit(&SIP, Limit::PerDay(NanoUsd::from_dollars(10))).await?;
    inbox.resolve(question.id, Resolution::new("alice", "$10.00 today and from now on")).await?;
    let goes_on = fleet.call(&SIP).await?.is_ok();
    fleet.say(format_args!("{SIP} {}", if goes_on { "goes on" } else { "does not go on" }));

    // A worker crashes between reserve and settle. What it has written down first is all that is left of it.
    let reserve = Reserve::new(SIP, MOST).with_key("task-17/1/call-3".parse()?);
    let file = match fleet.ledger.reserve(&reserve).await? {
        Reserved::Granted(held) => serde_json::to_string(&held)?,
        Reserved::Denied(denied) => return Err(denied.to_string().into()),
    };
    fleet.say("a worker has reserved, and crashes");
    let held = fleet.tell(&SIP).await?;
    clock.advance(Duration::from_secs(10 * 60));
    let presumed = fleet.tell(&SIP).await?;
    if let Reserved::Denied(denied) = fleet.ledger.reserve(&Reserve::new(SIP, NanoUsd::from_dollars(5))).await? {
        fleet.say(format_args!("denied: {denied}"));
    }

    // Somebody finds the file and asks the provider what became of the call.
    clock.advance(Duration::from_secs(60 * 60));
    let found: Reservation = serde_json::from_str(&file)?;
    fleet.ledger.settle(&found, NanoUsd::from_cents(12)).await?;
    let corrected = fleet.tell(&SIP).await?;

    clock.advance(corrected.day.next().start().since(clock.now()));
    let today = fleet.tell(&SIP).await?;
    let swarm = fleet.ledger.balances(&SWARM, Some(corrected.day)).await?.swap_remove(0);
    fleet.say(format_args!("{SWARM} has spent {} on {}", swarm.spent, swarm.day));

    println!("\nThe journal says:");
    let (mut often, mut levels): (BTreeMap<String, u32>, u32) = Default::default();
    for entry in store.journal().entries(Position::ORIGIN, 500).await?.items {
        if ["reserve", "settle"].contains(&&*entry.operation) {
            *often.entry(format!("{}.{}", entry.component, entry.operation)).or_default() += 1;
            continue;
        }
        let params = entry.params.iter().map(|(name, value)| Ok(format!("{name} {}", serde_json::to_string(value)?)));
        let params = params.collect::<Result<Vec<_>, serde_json::Error>>()?.join(", ");
        levels += u32::from(entry.operation.as_str() == "level");
        let (at, subject) = (&entry.time.to_string()[11..16], &entry.subject);
        println!("{at}  {}.{:<8} {subject}: {params}", entry.component, entry.operation);
    }
    println!("and besides {often:?}");

    let presumes = presumed.presumed == held.held && presumed.spent > corrected.spent;
    let is_new = today.spent == NanoUsd::ZERO && today.halted.is_none() && today.available() == today.limit;
    let overruns = [&held, &presumed, &corrected].iter().any(|balance| balance.overrun() > NanoUsd::ZERO);
    if disturbed == 0 && goes_on && presumes && !overruns && levels == 2 && is_new {
        println!("\nNo budget was overrun, and {NDI} was not disturbed");
        return Ok(());
    }
    Err("the ledger did not do what it should".into())
}
