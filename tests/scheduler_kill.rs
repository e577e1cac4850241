//! Kill test: processes that submit and do tasks, and their server, are killed, stopped, paused and cut off while they work.
//! Whatever happens, each task that was accepted ends once, what follows from it exists once, and nothing is stuck.
//!
//! The faults are drawn at random; `S2_SEED` draws those of an earlier run again.

use std::collections::BTreeMap;
use std::env;
use std::ops::Range;
use std::time::{Duration, Instant};

use s2_coordinator::{
    Blocker, Completion, Config, Dependency, Ending, Error, EventBus, EventBusExt, EventType, Held, Journal, NewEvent,
    NewTask, NotEnded, OnFailure, Position, Priority, Profile, Random, RedisScheduler, RedisStore, Retention, Retry,
    Scheduler, SchedulerExt, Session, Start, SwarmId, TaskKind, TaskState, Tasks, Topic,
};
use s2_tests::chaos::{Chaos, RECOVERY, TICK, Tally, again, below, connect, enough, given, is_away, seed};
use s2_tests::counts;
use s2_tests::servers::RedisServer;
use s2_tests::workers::is_worker;

/// What was done: one event for each task, with its number.
const EFFECTS: Topic = Topic::from_static("effects");
/// The first event ends the submitters, the second the workers.
const ENOUGH: Topic = Topic::from_static("enough");
const WORK: TaskKind = TaskKind::from_static("work");
const HELP: TaskKind = TaskKind::from_static("help");
const FLEET: SwarmId = SwarmId::from_static("kill");

const SUBMITTERS: usize = 2;
const WORKERS: usize = 4;
/// Submitters pause while more than so many tasks wait to be done.
const QUEUED: u64 = 500;
const LEASE: Duration = Duration::from_secs(2);

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

// What all processes have in common.

fn config() -> Config {
    let mut config = Config::default();
    config.lease = LEASE;
    config.attempts = 100;
    config.backoff.base = Duration::from_millis(50);
    config.resume_window = Duration::from_secs(1);
    // Nothing is dropped before the judge has seen it.
    config.topics = Retention { bytes: 1 << 30, age: None };
    config.journal = Retention { bytes: 1 << 30, age: None };
    config
}

fn event(topic: Topic, data: String) -> NewEvent {
    NewEvent::new(topic, EventType::from_static("kill"), FLEET).with_data(data)
}

// A submitter.

/// A worker's main: submits until it is enough, and says what was accepted.
#[tokio::test]
#[ignore = "a worker of the test in this file"]
async fn submitter() {
    if is_worker()
        && let Err(error) = submit_all().await
    {
        println!("broken {error:?}");
    }
}

async fn submit_all() -> Outcome {
    let (mut random, mut next) = (Random::from_seed(given("SEED")?), given("FIRST")?);
    let store = connect(&env::var("URL")?, &FLEET, &config(), below(&mut random, 4) > 0).await?;
    let (scheduler, enough) = (store.scheduler(), enough(&store, &ENOUGH, 1).await?);
    while !enough.is_finished() {
        let most = 1 + below(&mut random, 20);
        let batch = next..next + 1 + below(&mut random, most);
        next = batch.end;
        let tasks: Vec<NewTask> =
            batch.clone().map(|number| task(number, &batch, &mut random)).collect::<Result<_, _>>()?;
        let submitted = again(|| scheduler.submit(&tasks)).await?;
        println!("acked {} {}", batch.start, batch.end);
        if below(&mut random, 16) == 0 {
            let repeated = again(|| scheduler.submit(&tasks)).await?;
            let alike = submitted.iter().zip(&repeated).all(|(one, same)| same.duplicate && one.id == same.id);
            if !alike {
                return Err(format!("{submitted:?}, and then {repeated:?}").into());
            }
        }
        while again(|| scheduler.stats()).await?.unfinished() > QUEUED {
            tokio::time::sleep(5 * TICK).await;
        }
    }
    Ok(enough.await??)
}

/// A task that says its number; some come after the first of their batch.
fn task(number: u64, batch: &Range<u64>, random: &mut Random) -> Result<NewTask, Error> {
    let level = usize::try_from(below(random, 4)).unwrap_or(0);
    let task = NewTask::new(WORK, FLEET)
        .with_key(format!("task-{number}").parse()?)
        .with_priority(Priority::ALL[level])
        .with_data(number.to_string());
    let first: s2_coordinator::IdempotencyKey = format!("task-{}", batch.start).parse()?;
    Ok(match below(random, 4) {
        0 if number > batch.start => task.after(Dependency::on(first).with_on_failure(OnFailure::Run)),
        _ => task,
    })
}

// A worker.

/// A worker's main: does tasks until it is enough, and says so.
#[tokio::test]
#[ignore = "a worker of the test in this file"]
async fn worker() {
    if is_worker()
        && let Err(error) = work_all().await
    {
        println!("broken {error:?}");
    }
}

async fn work_all() -> Outcome {
    let mut random = Random::from_seed(given("SEED")?);
    let store = connect(&env::var("URL")?, &FLEET, &config(), below(&mut random, 4) > 0).await?;
    let (scheduler, mut enough) = (store.scheduler(), enough(&store, &ENOUGH, 2).await?);
    let profile = Profile::new(SwarmId::new(format!("workers/{}", given("FIRST")?))?);
    loop {
        // A newer incarnation of itself, now and then.
        let session = again(|| scheduler.join(&profile)).await?;
        tokio::select! {
            ended = &mut enough => {
                again(|| session.leave()).await?;
                break Ok(ended??);
            }
            worked = work(&session, &mut random) => worked?,
        }
    }
}

/// Works with one session for a while.
async fn work(session: &Session, random: &mut Random) -> Outcome {
    // Some wait through anything; others drop their claims half way.
    let patience = if below(random, 2) == 0 { Duration::from_secs(5) } else { Duration::from_millis(50) };
    for _ in 0..50 {
        let max = 1 + usize::try_from(below(random, 10))?;
        let claimed = match tokio::time::timeout(patience, session.claim_batch(max)).await {
            // It was gone for too long, and is not known any more.
            Ok(Err(Error::StaleSession { .. })) => return Ok(()),
            Ok(Err(error)) if is_away(&error) => continue,
            Ok(claimed) => claimed?,
            Err(_) => continue,
        };
        for held in claimed {
            println!("{}", handle(held, random).await?);
        }
    }
    Ok(())
}

/// Does a task; answers what became of it.
async fn handle(held: Held, random: &mut Random) -> Outcome<&'static str> {
    match below(random, 60) {
        // It is forgotten, as by a crash.
        0 => {
            drop(held.into_grant());
            Ok("held")
        }
        1..=2 => end(held, || Ending::Release, "released").await,
        3..=4 => {
            let fail = || Ending::Fail { reason: "flaky".into(), retry: Retry::Backoff };
            end(held, fail, "failed").await
        }
        5 => {
            let refuse = || Ending::Refuse { reason: "not now".into(), delay: Some(Duration::from_millis(100)) };
            end(held, refuse, "refused").await
        }
        6..=7 if held.task.kind == WORK && held.answers.is_empty() => {
            let key = format!("help-{}-{}", held.task.id, held.lease.token).parse()?;
            let help = NewTask::new(HELP, FLEET).with_key(key);
            end(held, move || Ending::Block(Blocker::new("stuck").with_help(help.clone())), "blocked").await
        }
        8 => {
            drop(held);
            Ok("dropped")
        }
        _ => {
            let id = held.task.id;
            let done = move || Ending::Complete(Completion::new().with_event(event(EFFECTS, id.to_string())));
            end(held, done, "done").await
        }
    }
}

/// Ends a claim, whatever it takes. While processes stand still any claim may turn out stale; nothing else may go wrong.
async fn end(mut held: Held, ending: impl Fn() -> Ending, done: &'static str) -> Outcome<&'static str> {
    loop {
        match held.end(ending()).await {
            Ok(_) => return Ok(done),
            Err(NotEnded { held: again, error }) => match *error {
                error if is_away(&error) => held = again,
                Error::StaleLease { .. } => return Ok("stale"),
                error => return Err(error.into()),
            },
        }
        tokio::time::sleep(TICK).await;
    }
}

// The judge.

/// What is there in the end.
#[derive(Clone, Default)]
struct Evidence {
    /// The numbers of tasks that were accepted.
    acked: Vec<Range<u64>>,
    /// Tasks: the number, what it says, and whether it is done.
    tasks: BTreeMap<u64, (String, bool)>,
    /// For each effect the task.
    effects: Vec<u64>,
    /// The journal: completions, and the tokens of claims, in order.
    completed: Vec<u64>,
    tokens: Vec<u64>,
}

impl Evidence {
    async fn collect(store: &RedisStore, scheduler: &RedisScheduler, acked: Vec<Range<u64>>) -> Outcome<Self> {
        let mut evidence = Self { acked, ..Self::default() };
        let mut which = Tasks::all();
        loop {
            let page = scheduler.list(&which).await?;
            for status in page.items {
                let said = String::from_utf8(status.task.data.to_vec())?;
                evidence.tasks.insert(status.task.id.get(), (said, status.state == TaskState::Done));
            }
            match page.next {
                Some(next) => which = Tasks::all().after(next),
                None => break,
            }
        }
        let (bus, mut start) = (store.bus(), Start::Beginning);
        loop {
            let page = bus.read(&EFFECTS, start, 500).await?;
            if page.items.is_empty() {
                break;
            }
            start = Start::After(page.next);
            for event in page.items {
                evidence.effects.push(std::str::from_utf8(&event.data)?.parse()?);
            }
        }
        let (journal, mut after) = (store.journal(), Position::ORIGIN);
        loop {
            let page = journal.entries(after, 500).await?;
            if page.items.is_empty() {
                return Ok(evidence);
            }
            after = page.next;
            for entry in page.items {
                match (&*entry.component, &*entry.operation) {
                    ("task", "completed") => evidence.completed.push(entry.subject.parse()?),
                    ("task", "claimed") => match entry.params.get("token") {
                        Some(s2_coordinator::Value::Int(token)) => evidence.tokens.push(u64::try_from(*token)?),
                        other => return Err(format!("no token: {other:?}").into()),
                    },
                    _ => {}
                }
            }
        }
    }

    /// What is wrong.
    fn judge(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let times = |list: &[u64]| {
            let mut times: BTreeMap<u64, usize> = BTreeMap::new();
            list.iter().for_each(|number| *times.entry(*number).or_default() += 1);
            times
        };
        let (effects, completed) = (times(&self.effects), times(&self.completed));
        let mut said: BTreeMap<&str, usize> = BTreeMap::new();
        for (id, (number, is_done)) in &self.tasks {
            *said.entry(number).or_default() += 1;
            let seen = (effects.get(id).copied().unwrap_or(0), completed.get(id).copied().unwrap_or(0));
            if !is_done || seen != (1, 1) {
                let (effects, completed) = seen;
                wrong.push(format!("task {id} ({number}): done {is_done}, {effects} effects, {completed} completions"));
            }
        }
        for number in self.acked.iter().cloned().flatten().map(|number| number.to_string()) {
            match said.get(&*number) {
                Some(1) => {}
                times => wrong.push(format!("task {number} was accepted and is there {} times", times.unwrap_or(&0))),
            }
        }
        let stray = effects.keys().filter(|id| !self.tasks.contains_key(id));
        wrong.extend(stray.map(|id| format!("the effect of {id} has no task")));
        let falls = self.tokens.windows(2).filter(|pair| pair[0] >= pair[1]);
        wrong.extend(falls.map(|pair| format!("token {} after {}", pair[1], pair[0])));
        wrong
    }
}

#[test]
fn the_judge_sees_what_is_wrong() {
    let task = |number: &str| (number.to_owned(), true);
    let tasks = BTreeMap::from([(100, task("1")), (101, task("2")), (102, task(""))]);
    let (effects, completed) = (vec![101, 100, 102], vec![100, 101, 102]);
    let good = Evidence { acked: vec![1..2, 2..3], tasks, effects, completed, tokens: vec![5, 6, 9] };
    assert_eq!(good.judge(), [""; 0]);

    let check = |spoil: fn(&mut Evidence), part: &str| {
        let mut evidence = good.clone();
        spoil(&mut evidence);
        let said = evidence.judge();
        assert!(said.len() == 1 && said[0].contains(part), "{said:?}");
    };
    check(|bad| bad.acked.push(7..8), "task 7 was accepted and is there 0 times");
    check(|bad| bad.effects.push(100), "task 100 (1): done true, 2 effects, 1 completions");
    check(|bad| _ = bad.effects.pop(), "task 102 (): done true, 0 effects, 1 completions");
    check(|bad| bad.completed.push(101), "task 101 (2): done true, 1 effects, 2 completions");
    check(|bad| bad.effects.push(99), "the effect of 99 has no task");
    check(|bad| bad.tokens.push(9), "token 9 after 9");
    check(|bad| bad.tasks.entry(102).or_default().1 = false, "task 102 (): done false");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_task_ends_once_whoever_is_killed() {
    let (seed, server) = (seed(), RedisServer::start());
    let store = connect(&server.url(), &FLEET, &config(), false).await.expect("a fleet");
    let (scheduler, bus) = (store.scheduler(), store.bus());

    let begun = Instant::now();
    let mut chaos = Chaos::new(&server, seed, ("submitter", SUBMITTERS), ("worker", WORKERS));
    chaos.rage(counts(20, 200));
    let target = u64::from(counts(1_000, 20_000));
    while chaos.done() < target {
        chaos.until_something_is_done();
    }
    let raged = begun.elapsed();
    bus.publish_one(&event(ENOUGH, "submitters".to_owned())).await.expect("published");
    chaos.end("submitter");
    let deadline = Instant::now() + RECOVERY;
    loop {
        let stats = scheduler.stats().await.expect("stats");
        if stats.unfinished() == 0 {
            break;
        }
        if Instant::now() > deadline {
            let stuck = scheduler.list(&Tasks::all()).await.expect("tasks").items.into_iter();
            let stuck: Vec<_> = stuck.filter(|status| !status.state.is_finished()).take(5).collect();
            let mut why = Vec::new();
            for status in &stuck {
                why.push(scheduler.why(status.task.id).await);
            }
            panic!("stuck (S2_SEED={seed}): {stats:?} {why:#?}");
        }
        tokio::time::sleep(10 * TICK).await;
    }
    let worked = begun.elapsed();
    bus.publish_one(&event(ENOUGH, "workers".to_owned())).await.expect("published");
    chaos.end("worker");

    let acked = std::mem::take(&mut chaos.acked);
    let accepted: u64 = acked.iter().map(|batch| batch.end - batch.start).sum();
    let evidence = Evidence::collect(&store, &scheduler, acked).await.expect("evidence");
    for (fault, Tally { faults, recovery }) in &chaos.tallies {
        let recovery = recovery.map_or("-".to_owned(), |recovery| format!("{recovery:.1?}"));
        println!("{faults:4} x {fault:?}; something was done again within {recovery}");
    }
    let (tasks, claims) = (evidence.tasks.len(), evidence.tokens.len());
    println!("{accepted} tasks accepted, {tasks} done, {claims} claims; workers said {:?}", chaos.said);
    println!("faults and work for {raged:.1?}, all done after {:.1?} more", worked - raged);
    let wrong = evidence.judge();
    assert!(
        wrong.is_empty(),
        "{} things are wrong (S2_SEED={seed}): {:#?}",
        wrong.len(),
        &wrong[..wrong.len().min(20)]
    );
}
