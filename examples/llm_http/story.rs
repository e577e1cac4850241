//! A provider that does not always do well, and who asks it all the same.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use s2_coordinator::{Clock, ManualClock, MemoryStore, SwarmId, Timestamp};
use s2_governor::{
    BreakerState, BudgetLedger, BudgetLedgerExt, BulkheadSettings, Limit, MemoryBoard, MemoryLedger, NanoUsd,
    PriceTable, Provider, ProviderName, ProviderSettings, Providers, Quality, Tier, TierPolicy, TierRouter, Window,
};
use tokio::task::JoinSet;

use crate::caller::{BoxError, Called, Caller, Job, NotAsked, PATIENCE, stack};
use crate::purse::Purse;
use crate::server::{A_MINUTE, Mood, Server};
use crate::tally::Tally;

const MODELS: ProviderName = ProviderName::from_static("models");
const TEAM: SwarmId = SwarmId::from_static("team");
const BUSY: SwarmId = SwarmId::from_static("team/busy");
const THRIFTY: SwarmId = SwarmId::from_static("team/thrifty");
const SIMPLE: Quality = Quality::new(1);
const HARD: Quality = Quality::new(2);

const PRICES: &str = r#"{"models": {
    "small": {"input": "$0.25", "output": "$1.25", "cache_read": "$0.03"},
    "large": {"input": "$3", "output": "$15", "cache_read": "$0.30"}
}}"#;
const JOBS: u32 = 60;
/// When the provider is down, in seconds since the beginning.
const DOWN: Range<u64> = 60..135;
const TICK: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

pub(crate) struct Story {
    clock: Arc<ManualClock>,
    start: Timestamp,
    server: Server,
    provider: Provider,
    caller: Caller,
    tally: Tally,
}

/// The nth change to review. Every third is a hard one.
fn job(n: u32) -> Job {
    let files: Vec<String> = (0..=n % 12).map(|k| format!("file-{k}.rs line {}", n * (k + 1))).collect();
    let quality = if n.is_multiple_of(3) { HARD } else { SIMPLE };
    Job { id: format!("job-{n}"), text: files.join(", "), wanted: quality, floor: quality }
}

fn settings() -> ProviderSettings {
    let (mut bulkhead, mut settings) = (BulkheadSettings::default(), ProviderSettings::default());
    (bulkhead.concurrent, bulkhead.waiting) = (4, 2);
    settings.breaker.window = Window::Calls(20);
    settings.with_bulkhead(bulkhead)
}

impl Story {
    pub(crate) async fn begin() -> Result<Self, BoxError> {
        let clock = Arc::new(ManualClock::new("2025-11-12T09:00:00Z".parse()?));
        let store = MemoryStore::builder().with_clock(Arc::clone(&clock)).build()?;
        let provider = Providers::new(Arc::new(MemoryBoard::new(&store))).isolate(MODELS, settings())?;
        let server = Server::start(Arc::clone(&clock)).await?;
        let prices: PriceTable = serde_json::from_str(PRICES)?;
        let tiers = TierPolicy::new([Tier::new("small", SIMPLE), Tier::new("large", HARD)]);
        let purse = Purse {
            session: BUSY,
            ledger: Arc::new(MemoryLedger::new(&store)),
            router: Arc::new(TierRouter::new(tiers, &prices)?),
            prices: Arc::new(prices),
        };
        let (stack, address) = (stack(&provider), server.address);
        let caller = Caller { purse, stack, clock: Arc::clone(&clock), address };
        Ok(Self { start: clock.now(), clock, server, provider, caller, tally: Tally::default() })
    }

    fn second(&self) -> u64 {
        self.clock.now().since(self.start).as_secs()
    }

    fn say(&self, text: impl std::fmt::Display) {
        println!("{:>4} s  {text}", self.second());
    }

    /// One call, and what the breaker makes of it.
    async fn call(&mut self, caller: &mut Caller, job: &Job) -> Result<Called, BoxError> {
        let called = caller.call(job).await?;
        self.provider.breaker().flush().await?;
        if let Some(change) = self.tally.look(&self.provider.breaker().verdict(), self.clock.now()) {
            self.say(format_args!("the breaker is {change}"));
        }
        self.tally.count(&called)?;
        Ok(called)
    }

    /// One job a second, each until it is done, through a limit and an outage.
    pub(crate) async fn work_through(&mut self) -> Result<(), BoxError> {
        self.say(format_args!("{JOBS} jobs; the provider may be asked {A_MINUTE} times a minute"));
        let mut caller = self.caller.clone();
        let mut jobs: VecDeque<Job> = (0..JOBS).map(job).collect();
        while let Some(job) = jobs.front() {
            let is_down = DOWN.contains(&self.second());
            self.server.set_mood(if is_down { Mood::Down } else { Mood::Well });
            if let Called::Answered { .. } = self.call(&mut caller, job).await? {
                jobs.pop_front();
            }
            self.clock.advance(TICK);
        }
        self.say("all jobs are done");
        Ok(())
    }

    /// Eight calls at once while the provider is slow: four are made, two wait for their turn, and two are told so.
    pub(crate) async fn burst(&mut self) -> Result<(), BoxError> {
        self.clock.advance(MINUTE);
        let slow = Duration::from_secs(20);
        self.server.set_mood(Mood::Slow(slow));
        let (mut calls, before) = (JoinSet::new(), self.server.times_asked());
        for n in 0..8 {
            let (mut caller, job) = (self.caller.clone(), Job { id: format!("burst-{n}"), ..job(n) });
            calls.spawn(async move { caller.call(&job).await });
        }
        // While nobody is answered, only those come back who were refused.
        for _ in 0..2 {
            let refused = calls.join_next().await.ok_or("there are eight")???;
            let Called::NotAsked(NotAsked::BulkheadFull(full)) = &refused else {
                return Err(format!("the bulkhead must be full: {refused:?}").into());
            };
            self.say(full);
            self.tally.count(&refused)?;
        }
        for wave in [4, 2] {
            self.server.asked(self.tally.asked() + wave).await;
            self.clock.advance(slow);
            for _ in 0..wave {
                let called = calls.join_next().await.ok_or("there are eight")???;
                self.tally.count(&called)?;
            }
            self.say(format_args!("{} calls of the burst are back", self.server.times_asked() - before));
        }
        Ok(())
    }

    /// Nobody waits for an answer that takes ten minutes. What it costs is presumed, until the provider says it.
    pub(crate) async fn give_up(&mut self) -> Result<(), BoxError> {
        self.clock.advance(MINUTE);
        self.server.set_mood(Mood::Slow(10 * MINUTE));
        let (mut caller, job) = (self.caller.clone(), Job { id: "given-up".into(), ..job(0) });
        let id = job.id.clone();
        let call = tokio::spawn(async move { caller.call(&job).await });
        self.server.asked(self.tally.asked() + 1).await;
        self.clock.advance(PATIENCE);
        let called = call.await??;
        self.tally.count(&called)?;
        let Called::GivenUp(held) = called else { return Err(format!("it must be given up: {called:?}").into()) };
        self.clock.advance(10 * MINUTE);
        let presumed = self.caller.purse.ledger.balance(&BUSY).await?.presumed;
        let owed = NanoUsd::from_nanos(self.server.owes(&id));
        self.say(format_args!("a call was given up: {presumed} presumed, {owed} billed"));
        assert!(
            presumed == held.amount && owed > NanoUsd::ZERO && owed <= presumed,
            "an estimate is the most it may be"
        );
        self.caller.purse.ledger.settle(&held, owed).await?;
        self.tally.settle(owed)
    }

    /// A session with two cents would rather have the large model, takes the small one when little is left, and stops when
    /// not even that can be paid.
    pub(crate) async fn be_thrifty(&mut self) -> Result<(), BoxError> {
        self.server.set_mood(Mood::Well);
        let limit = Limit::PerDay(NanoUsd::from_cents(2));
        self.caller.purse.ledger.set_limit(&THRIFTY, limit).await?;
        let mut caller = self.caller.clone();
        caller.purse.session = THRIFTY;
        let (mut models, mut n) = (Vec::new(), 0);
        let left = loop {
            let job = Job { id: format!("thrifty-{n}"), wanted: HARD, floor: SIMPLE, ..job(n) };
            match self.call(&mut caller, &job).await? {
                Called::Answered { model, .. } => models.push(model),
                Called::NotAsked(NotAsked::Unaffordable(left)) => break left,
                other => return Err(format!("it must be answered or too dear: {other:?}").into()),
            }
            n += 1;
            self.clock.advance(3 * TICK);
        };
        let of = |name: &str| models.iter().filter(|model| model.as_str() == name).count();
        let (large, small) = (of("large"), of("small"));
        self.say(format_args!(
            "with {limit}: {large} calls of the large model, {small} of the small one, {left} are left"
        ));
        assert!(large > 0 && small > 0 && models.is_sorted(), "first the large one, then the small one");
        Ok(())
    }

    /// A team that has next to nothing left: its sessions are refused, however much they may spend themselves.
    pub(crate) async fn be_denied(&mut self) -> Result<(), BoxError> {
        let spent = self.caller.purse.ledger.balance(&TEAM).await?.spent;
        let limit = spent.saturating_add(NanoUsd::from_nanos(1));
        self.caller.purse.ledger.set_limit(&TEAM, Limit::PerDay(limit)).await?;
        let mut caller = self.caller.clone();
        match self.call(&mut caller, &job(0)).await? {
            Called::NotAsked(NotAsked::Denied(denied)) => self.say(format_args!("{BUSY} is denied: {denied}")),
            other => return Err(format!("it must be denied: {other:?}").into()),
        }
        Ok(())
    }

    /// Whether everybody has counted the same.
    pub(crate) async fn check(&self) -> Result<(), BoxError> {
        let [team] = &self.caller.purse.ledger.balances(&TEAM, None).await?[..] else {
            return Err("the team has an account".into());
        };
        let (billed, asked) = (NanoUsd::from_nanos(self.server.bill()), self.server.times_asked());
        println!("\n{}", self.tally);
        println!("the ledger has {}, the provider bills {billed} for what it was asked {asked} times", team.spent);
        assert_eq!((team.spent, self.tally.spent), (billed, billed), "somebody has counted wrongly");
        assert_eq!((team.held, team.presumed), (NanoUsd::ZERO, NanoUsd::ZERO), "money is left hanging");
        assert_eq!(self.tally.asked(), asked, "a refused call was made, or one that was made is missing");
        assert_eq!(self.caller.purse.ledger.balance(&THRIFTY).await?.overrun(), NanoUsd::ZERO);
        assert!(self.tally.failures() < DOWN.count() as u32, "nobody has noticed that the provider was down");
        assert!(self.tally.savings.saved() > NanoUsd::ZERO);
        assert!(self.tally.opened > 0 && self.tally.throttled() > 0, "nothing has happened");
        assert_eq!(self.provider.breaker().verdict().state, BreakerState::Closed);
        Ok(())
    }
}
