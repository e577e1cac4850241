//! The same random history on a small model, on memory and on Redis: after every step everybody has the same answer and the
//! same accounts.

mod model;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use proptest::prelude::*;
use s2_coordinator::{Config, Entry, EscalationId, IdempotencyKey, Position, SwarmId, Timestamp, UtcDay};
use s2_governor::conformance::Fleet;
use s2_governor::{
    BudgetLedger, Charge, Error, Expiry, LedgerSettings, Level, Limit, NanoUsd, Posted, Reservation, Reserve, Reserved,
};
use s2_tests::redis::RedisFleet;
use s2_tests::servers::RedisServer;
use s2_tests::{MemoryFleet, START, counts};

use crate::model::{DAY, Model, SESSION_LIMIT, Spend, State};

/// Swarms, and sessions in them; some are both.
const SWARMS: [&str; 7] = ["a", "a/x", "a/x/1", "a/x/2", "a/y", "b", "a-x/1"];

#[derive(Clone, Debug)]
enum Step {
    Reserve {
        who: usize,
        amount: u64,
        ttl: u64,
        presumes: bool,
        key: usize,
    },
    Extend {
        which: usize,
        by: u64,
    },
    Settle {
        which: usize,
        actual: u64,
    },
    Release {
        which: usize,
    },
    Charge {
        who: usize,
        cost: u64,
        key: usize,
    },
    Limit {
        who: usize,
        limit: Option<u64>,
    },
    Halt {
        who: usize,
        reason: bool,
    },
    Resume {
        who: usize,
    },
    Advance {
        by: u64,
    },
    /// Settles at exactly what is held.
    SettleAll {
        which: usize,
    },
    /// Waits until just before midnight, or until midnight.
    Midnight {
        early: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let who = || 0..SWARMS.len();
    let which = || 0_usize..8;
    prop_oneof![
        6 => (who(), 0_u64..30, 1_u64..100, any::<bool>(), 0_usize..40)
            .prop_map(|(who, amount, ttl, presumes, key)| Step::Reserve { who, amount, ttl, presumes, key }),
        1 => (which(), 1_u64..100).prop_map(|(which, by)| Step::Extend { which, by }),
        3 => (which(), 0_u64..60).prop_map(|(which, actual)| Step::Settle { which, actual }),
        2 => which().prop_map(|which| Step::SettleAll { which }),
        2 => which().prop_map(|which| Step::Release { which }),
        2 => (who(), 0_u64..30, 0_usize..40).prop_map(|(who, cost, key)| Step::Charge { who, cost, key }),
        2 => (who(), prop::option::of(0_u64..120)).prop_map(|(who, limit)| Step::Limit { who, limit }),
        1 => (who(), any::<bool>()).prop_map(|(who, reason)| Step::Halt { who, reason }),
        2 => who().prop_map(|who| Step::Resume { who }),
        3 => (0_u64..60).prop_map(|by| Step::Advance { by: by * 1_000_000 }),
        1 => (0_u64..DAY).prop_map(|by| Step::Advance { by }),
        1 => any::<bool>().prop_map(|early| Step::Midnight { early }),
    ]
}

fn swarm(who: usize) -> SwarmId {
    SwarmId::from_static(SWARMS[who])
}

fn settings() -> LedgerSettings {
    let mut settings = LedgerSettings::default();
    settings.session_limit = Limit::PerDay(NanoUsd::from_nanos(SESSION_LIMIT));
    // Nothing is forgotten within a history.
    settings.kept_days = 1_000;
    settings
}

const fn nanos(nanos: u64) -> NanoUsd {
    NanoUsd::from_nanos(nanos)
}

/// A fleet, what should be on its accounts, and what is held.
struct World {
    fleet: Box<dyn Fleet>,
    ledger: Arc<dyn BudgetLedger>,
    model: Model,
    held: Vec<Reservation>,
}

impl World {
    fn new(fleet: Box<dyn Fleet>) -> Self {
        let ledger = fleet.ledger(settings());
        let model = Model::new(START.as_micros());
        Self { fleet, ledger, model, held: Vec::new() }
    }

    fn config() -> Config {
        let mut config = Config::default();
        config.idempotency_window = Duration::from_secs(1_000 * 24 * 60 * 60);
        config
    }

    fn in_memory() -> Self {
        Self::new(Box::new(MemoryFleet::new(Self::config())))
    }

    async fn on_redis(server: &RedisServer) -> Self {
        Self::new(Box::new(RedisFleet::new(server, Self::config()).await))
    }

    /// Does it, and does it again: the second time changes nothing.
    async fn run(&mut self, step: &Step) {
        self.once(step).await;
        self.model.expire();
        let repeats = matches!(
            step,
            Step::Settle { .. }
                | Step::Release { .. }
                | Step::Charge { .. }
                | Step::Limit { .. }
                | Step::Halt { .. }
                | Step::Resume { .. }
        );
        if repeats {
            let before = self.journal().await.len();
            self.once(step).await;
            assert_eq!(self.journal().await.len(), before, "repeated, {step:?} changes nothing");
        }
    }

    async fn once(&mut self, step: &Step) {
        match *step {
            Step::Reserve { who, amount, ttl, presumes, key } => self.reserve(who, amount, ttl, presumes, key).await,
            Step::Extend { which, by } => self.extend(which, by).await,
            Step::Settle { which, actual } => self.settle(which, |_| actual).await,
            Step::SettleAll { which } => self.settle(which, |amount| amount).await,
            Step::Release { which } => self.release(which).await,
            Step::Charge { who, cost, key } => self.charge(who, cost, key).await,
            Step::Limit { who, limit } => {
                let said = limit.map_or(Limit::Default, |limit| Limit::PerDay(nanos(limit)));
                self.ledger.set_limit(&swarm(who), said).await.expect("no error");
                self.model.set_limit(&swarm(who), limit);
            }
            Step::Halt { who, reason } => {
                let reason = if reason { "one" } else { "another" };
                self.ledger.halt(&swarm(who), reason).await.expect("no error");
                self.model.halt(&swarm(who), reason);
            }
            Step::Resume { who } => {
                self.ledger.resume(&swarm(who)).await.expect("no error");
                self.model.resume(&swarm(who));
            }
            Step::Advance { by } => self.advance(by).await,
            Step::Midnight { early } => {
                let midnight = (self.model.today() + 1) * DAY - u64::from(early);
                self.advance(midnight - self.model.now).await;
            }
        }
    }

    async fn advance(&mut self, by: u64) {
        self.fleet.advance(Duration::from_micros(by)).await;
        self.model.now += by;
        self.model.expire();
    }

    async fn reserve(&mut self, who: usize, amount: u64, ttl: u64, presumes: bool, key: usize) {
        let (session, expiry) = (swarm(who), if presumes { Expiry::Presume } else { Expiry::Release });
        let name = format!("r{key}");
        let ask = Reserve::new(session.clone(), nanos(amount))
            .with_ttl(Duration::from_secs(ttl))
            .with_expiry(expiry)
            .with_key(IdempotencyKey::new(&name).expect("a key"));
        let before = self.journal().await.len();
        let answer = self.ledger.reserve(&ask).await;
        if let Some(spend) = self.model.spends.get(&name) {
            let is_same = spend.amount == Some(amount) && spend.session == session && spend.presumes == presumes;
            match answer {
                Err(Error::SpendConflict { .. }) => assert!(!is_same),
                Err(Error::ReservationEnded { .. }) => assert!(is_same && spend.state != State::Held),
                Ok(Reserved::Granted(again)) => {
                    assert!(is_same && spend.state == State::Held);
                    assert_eq!(again.until.as_micros(), spend.until);
                }
                other => panic!("{other:?}"),
            }
            assert_eq!(self.journal().await.len(), before);
            return;
        }
        match (answer.expect("no error"), self.model.denies(&session, amount)) {
            (Reserved::Granted(granted), None) => {
                let (day, until) = (self.model.today(), self.model.now + ttl * 1_000_000);
                assert_eq!((u64::from(granted.day.as_days()), granted.until), (day, Timestamp::from_micros(until)));
                let (amount, state) = (Some(amount), State::Held);
                let before = self.model.levels_of(&session, day);
                self.model.spends.insert(name, Spend { session: session.clone(), day, amount, until, presumes, state });
                self.model.judge(&session, day, &before, false);
                self.held.push(granted);
            }
            (Reserved::Denied(denied), Some((swarm, reason, sums))) => {
                assert_eq!((denied.swarm, denied.reason), (swarm, reason));
                assert_eq!((denied.available, denied.presumed), (nanos(sums.available()), nanos(sums.presumed)));
                assert_eq!(self.journal().await.len(), before, "a denial leaves no trace");
            }
            (answer, expected) => panic!("{answer:?}, not {expected:?}"),
        }
    }

    /// One of the latest reservations, and what the model knows of it.
    fn pick(&mut self, which: usize) -> Option<(Reservation, &mut Spend)> {
        let nth = self.held.len().checked_sub(which + 1)?;
        let reservation = self.held[nth].clone();
        let spend = self.model.spends.get_mut(reservation.key.as_str()).expect("a spend");
        Some((reservation, spend))
    }

    async fn extend(&mut self, which: usize, by: u64) {
        let ledger = Arc::clone(&self.ledger);
        let now = self.model.now;
        let Some((reservation, spend)) = self.pick(which) else { return };
        match ledger.extend(&reservation, Duration::from_secs(by)).await {
            Ok(until) => {
                assert_eq!(spend.state, State::Held);
                spend.until = spend.until.max(now + by * 1_000_000);
                assert_eq!(until.as_micros(), spend.until);
            }
            Err(error) => {
                assert!(matches!(error, Error::ReservationEnded { .. }), "{error:?}");
                assert_ne!(spend.state, State::Held);
            }
        }
    }

    async fn settle(&mut self, which: usize, actual: impl Fn(u64) -> u64) {
        let ledger = Arc::clone(&self.ledger);
        let Some((reservation, spend)) = self.pick(which) else { return };
        let actual = actual(reservation.amount.as_nanos());
        let posted = match (ledger.settle(&reservation, nanos(actual)).await, spend.state) {
            (Ok(_), State::Settled(before)) => return assert_eq!(before, actual),
            (Ok(posted), _) => posted,
            (Err(Error::AlreadySettled { actual: before, .. }), State::Settled(known)) => {
                return assert_eq!((before, known != actual), (nanos(known), true));
            }
            (answer, state) => panic!("{answer:?} of {state:?}"),
        };
        let (session, day) = (spend.session.clone(), spend.day);
        let before = self.model.levels_of(&session, day);
        self.model.spends.get_mut(reservation.key.as_str()).expect("a spend").state = State::Settled(actual);
        self.posted(&session, day, &before, actual, &posted);
    }

    /// Costs were posted.
    fn posted(&mut self, session: &SwarmId, day: u64, before: &[Level], cost: u64, posted: &Posted) {
        self.model.judge(session, day, before, cost > 0);
        let sums: Vec<_> = session.ancestors().map(|swarm| (self.model.sums(&swarm, day, false), swarm)).collect();
        let level = sums.iter().map(|(sums, _)| Model::level(sums)).max().expect("a level");
        let remaining = sums.iter().map(|(sums, _)| sums.available()).min().expect("a level");
        let (first, swarm) = sums.iter().find(|(sums, _)| Model::level(sums) == level).expect("a level");
        assert_eq!((posted.remaining, posted.level, &posted.swarm), (nanos(remaining), level, swarm));
        assert_eq!((posted.spent, posted.limit), (nanos(first.spent), nanos(first.limit)));
    }

    async fn release(&mut self, which: usize) {
        let ledger = Arc::clone(&self.ledger);
        let Some((reservation, spend)) = self.pick(which) else { return };
        let released = ledger.release(&reservation).await;
        match spend.state {
            State::Settled(_) => assert!(matches!(released, Err(Error::AlreadySettled { .. })), "{released:?}"),
            State::Lapsed | State::Released => assert!(released.is_ok()),
            _ => {
                assert!(released.is_ok());
                let (session, day) = (spend.session.clone(), spend.day);
                let before = self.model.levels_of(&session, day);
                self.model.spends.get_mut(reservation.key.as_str()).expect("a spend").state = State::Released;
                self.model.judge(&session, day, &before, false);
            }
        }
    }

    async fn charge(&mut self, who: usize, cost: u64, key: usize) {
        let (session, name) = (swarm(who), format!("c{key}"));
        let charge = Charge::new(session.clone(), nanos(cost)).with_key(IdempotencyKey::new(&name).expect("a key"));
        let answer = self.ledger.charge(&charge).await;
        if let Some(spend) = self.model.spends.get(&name) {
            let is_same = spend.state == State::Settled(cost) && spend.session == session;
            return assert_eq!(answer.is_ok(), is_same, "{answer:?}");
        }
        let (day, until, state) = (self.model.today(), self.model.now, State::Settled(cost));
        let spend = Spend { session: session.clone(), day, amount: None, until, presumes: true, state };
        let before = self.model.levels_of(&session, day);
        self.model.spends.insert(name, spend);
        self.posted(&session, day, &before, cost, &answer.expect("no error"));
    }

    /// Every account is what the model adds up to, today and yesterday.
    async fn check(&self, step: &Step) {
        let today = self.model.today();
        for day in [today, today - 1] {
            let utc = UtcDay::of(Timestamp::from_micros(day * DAY));
            for who in 0..SWARMS.len() {
                let path = self.ledger.balances(&swarm(who), Some(utc)).await.expect("no error");
                for (nth, balance) in path.iter().enumerate() {
                    let unused = !self.model.accounts(day).contains(&balance.swarm);
                    let sums = self.model.sums(&balance.swarm, day, nth == 0 && unused);
                    let found = (balance.limit, balance.spent, balance.held, balance.presumed);
                    let expected = (nanos(sums.limit), nanos(sums.spent), nanos(sums.held), nanos(sums.presumed));
                    assert_eq!(found, expected, "{} of {utc} after {step:?}", balance.swarm);
                    assert_eq!(balance.available(), nanos(sums.available()));
                    assert_eq!(balance.overrun(), nanos((sums.spent + sums.held).saturating_sub(sums.limit)));
                    assert_eq!(balance.level, self.model.announced(&balance.swarm, day), "after {step:?}");
                    assert_eq!(balance.halted.as_deref(), self.model.halted(&balance.swarm, day).as_deref());
                }
            }
        }
        let within = self.ledger.statement(&swarm(0), None, None, 100).await.expect("no error").within;
        let mut expected = self.model.accounts(today);
        expected.retain(|account| swarm(0).contains(account) && *account != swarm(0));
        assert_eq!(within.into_iter().map(|balance| balance.swarm).collect::<Vec<_>>(), Vec::from_iter(expected));
    }

    /// In the end nothing is held, each level was announced as often as it was reached, and each question is asked.
    async fn rest(&mut self) {
        self.advance(DAY).await;
        self.check(&Step::Advance { by: DAY }).await;
        assert!(self.model.spends.values().all(|spend| spend.state != State::Held));
        let levels = self.journal().await.iter().filter(|entry| *entry.operation == *"level").count();
        assert_eq!(levels, self.model.levels.len());
        let pending = self.fleet.inbox().pending(EscalationId::default(), 500).await.expect("no error");
        assert_eq!(pending.len(), self.model.questions.len());
    }

    /// What the fleet has journalled; positions and times are the same wherever the history is.
    async fn journal(&self) -> Vec<Entry> {
        self.fleet.journal().entries(Position::ORIGIN, 500).await.expect("no error").items
    }
}

async fn play(mut world: World, steps: &[Step]) -> World {
    for step in steps {
        world.run(step).await;
        world.check(step).await;
    }
    world.rest().await;
    world
}

proptest! {
    #![proptest_config(ProptestConfig { cases: counts(500, 10_000), ..ProptestConfig::default() })]

    #[test]
    fn the_ledger_answers_as_the_model_does(steps in prop::collection::vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        runtime.block_on(play(World::in_memory(), &steps));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: counts(50, 1_000), ..ProptestConfig::default() })]

    #[test]
    fn on_redis_it_answers_likewise_and_journals_the_same(steps in prop::collection::vec(step(), 1..60)) {
        static SERVER: OnceLock<RedisServer> = OnceLock::new();
        let server = SERVER.get_or_init(RedisServer::start_volatile);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let memory = play(World::in_memory(), &steps).await.journal().await;
            let redis = play(World::on_redis(server).await, &steps).await.journal().await;
            prop_assert_eq!(memory, redis);
            Ok(())
        })?;
    }
}
