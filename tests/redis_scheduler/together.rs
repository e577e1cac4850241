//! Calls that come while others are on their way go together.

use std::collections::HashSet;
use std::task::Poll;
use std::time::Duration;

use s2_coordinator::{
    Claim, Completion, Ended, Ending, Error, Grant, Incarnation, Lease, Leases, Profile, RedisScheduler, Scheduler,
    SchedulerExt, SwarmId, TaskId, TaskState, Token,
};
use s2_tests::proxy::Proxy;
use s2_tests::servers::RedisServer;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::{LONG, store, task};

/// As many as go with one, besides the two that are on their way before.
const MANY: usize = 30;

struct World {
    scheduler: RedisScheduler,
    sessions: Vec<Incarnation>,
    server: RedisServer,
}

/// A call that has begun.
type Begun<T> = JoinHandle<Result<T, Error>>;

impl World {
    async fn new(tasks: usize, bytes: usize) -> Self {
        let server = RedisServer::start_volatile();
        Self::at(&server.url(), server, tasks, bytes).await
    }

    async fn at(url: &str, server: RedisServer, tasks: usize, bytes: usize) -> Self {
        let scheduler = store(url).await.scheduler();
        let mut sessions = Vec::new();
        for nth in 0..MANY {
            let profile = Profile::new(SwarmId::new(format!("session-{nth}")).expect("a name"));
            sessions.push(scheduler.enter(&profile).await.expect("entered"));
        }
        for _ in 0..tasks {
            scheduler.submit_one(&task().with_data(vec![b'x'; bytes])).await.expect("submitted");
        }
        Self { scheduler, sessions, server }
    }

    fn claim(&self, nth: usize, request: u64) -> Claim {
        Claim { by: self.sessions[nth].clone(), request, max: 1 }
    }

    fn take(&self, claim: Claim) -> Begun<Vec<Grant>> {
        let scheduler = self.scheduler.clone();
        tokio::spawn(async move { scheduler.take(&claim).await })
    }

    /// Each session begins to take a task, while the server stands still.
    async fn take_at_once(&self) -> Vec<Begun<Vec<Grant>>> {
        self.server.stop();
        let all = (0..MANY).map(|nth| self.take(self.claim(nth, 1))).collect();
        settle().await;
        all
    }

    async fn all_taken(&self) -> Vec<Grant> {
        let all = self.take_at_once().await;
        self.server.resume();
        let granted: Vec<Grant> = answers(all).await.into_iter().flatten().flatten().collect();
        let ids: HashSet<TaskId> = granted.iter().map(|grant| grant.task.id).collect();
        assert_eq!((granted.len(), ids.len()), (MANY, MANY), "each one, and nobody the same");
        granted
    }

    async fn ready(&self) -> u64 {
        self.scheduler.stats().await.expect("stats").count(TaskState::Ready)
    }

    /// How many steps there were.
    fn steps(&self) -> u64 {
        let stats = self.server.command(&["INFO", "commandstats"]);
        let calls = stats.split("cmdstat_fcall:calls=").nth(1).expect("steps").split(',').next().expect("a number");
        calls.parse().expect("a number")
    }
}

/// Until what was begun has got as far as it can.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

async fn answers<T>(all: Vec<Begun<T>>) -> Vec<Result<T, Error>> {
    let mut answers = Vec::new();
    for one in all {
        answers.push(tokio::time::timeout(LONG, one).await.expect("in time").expect("no panic"));
    }
    answers
}

#[tokio::test]
async fn claims_and_endings_share_steps() {
    let world = World::new(2 * MANY, 0).await;
    let before = world.steps();
    let granted = world.all_taken().await;
    assert!(world.steps() - before <= 4, "{} steps for {MANY} claims", world.steps() - before);

    let before = world.steps();
    world.server.stop();
    let ends = granted.iter().enumerate().map(|(nth, grant)| {
        let (scheduler, next, lease) = (world.scheduler.clone(), world.claim(nth, 2), grant.lease);
        let ending = Ending::Complete(Completion::new().with_data(format!("result of {nth}")));
        tokio::spawn(async move { scheduler.end(vec![(lease, ending)], Some(&next)).await })
    });
    let ends: Vec<_> = ends.collect();
    settle().await;
    world.server.resume();
    let mut seen: HashSet<TaskId> = granted.iter().map(|grant| grant.task.id).collect();
    for answer in answers(ends).await {
        let all = answer.expect("ended");
        assert!(matches!(all.ended[0], Ok(Ended::Completed { .. })), "{all:?}");
        assert!(seen.insert(all.granted[0].task.id), "another one each");
    }
    assert!(world.steps() - before <= 4, "{} steps for {MANY} endings", world.steps() - before);
    assert_eq!(seen.len(), 2 * MANY);
    for (nth, grant) in granted.iter().enumerate() {
        let outcome = world.scheduler.outcome(grant.task.id).await.expect("no error").expect("an outcome");
        assert_eq!(outcome.result().expect("a result").data, format!("result of {nth}"));
    }
}

/// What a call makes ready belongs to who has waited for it, not to who comes later in the same step.
#[tokio::test]
async fn each_hands_out_before_the_next() {
    let world = World::new(1, 0).await;
    let first = world.take(world.claim(0, 1)).await.expect("no panic").expect("granted").remove(0);
    let then = world.scheduler.submit_one(&task().after(first.task.id)).await.expect("submitted").id;
    let (scheduler, claim) = (world.scheduler.clone(), world.claim(1, 1));
    let waiting = tokio::spawn(async move { scheduler.claim(&claim).await });
    while world.server.command(&["KEYS", "s2:{fleet}:waiting:*"]).trim().is_empty() {
        assert!(!waiting.is_finished(), "there is nothing for it yet");
        tokio::task::yield_now().await;
    }

    world.server.stop();
    let before = [world.take(world.claim(2, 1)), world.take(world.claim(3, 1))];
    settle().await;
    let scheduler = world.scheduler.clone();
    let ending = vec![(first.lease, Ending::Complete(Completion::new()))];
    let ended = tokio::spawn(async move { scheduler.end(ending, None).await });
    settle().await;
    let later = world.take(world.claim(4, 1));
    settle().await;
    world.server.resume();
    let answers: Vec<_> = answers(before.into_iter().chain([later]).collect()).await;
    assert!(answers.iter().all(|granted| granted.as_ref().is_ok_and(Vec::is_empty)), "{answers:?}");
    assert!(ended.await.expect("no panic").expect("ended").ended[0].is_ok());
    let granted = tokio::time::timeout(LONG, waiting).await.expect("in time").expect("no panic").expect("granted");
    assert_eq!(granted[0].task.id, then);
}

#[tokio::test]
async fn one_that_is_refused_keeps_no_other_from_it() {
    let world = World::new(MANY, 0).await;
    let granted = world.all_taken().await;
    world.server.stop();
    let ends: Vec<_> = granted
        .iter()
        .enumerate()
        .map(|(nth, grant)| {
            // Of every three, one has the wrong token and one says the same twice.
            let lease = if nth % 3 == 1 { Lease { token: Token::new(1), ..grant.lease } } else { grant.lease };
            let scheduler = world.scheduler.clone();
            let end = move || {
                let (scheduler, lease) = (scheduler.clone(), lease);
                tokio::spawn(async move { scheduler.end(vec![(lease, Ending::Release)], None).await })
            };
            (nth, if nth % 3 == 2 { vec![end(), end()] } else { vec![end()] })
        })
        .collect();
    let mut gone = world.claim(0, 7);
    gone.by.number += 1_000_000;
    let gone = world.take(gone);
    settle().await;
    world.server.resume();
    for (nth, ends) in ends {
        for answer in answers(ends).await {
            let ended = answer.expect("an answer").ended.remove(0);
            match nth % 3 {
                1 => assert!(matches!(ended, Err(Error::StaleLease { .. })), "{ended:?}"),
                _ => assert!(matches!(ended, Ok(Ended::Released)), "{ended:?}"),
            }
        }
    }
    let refused = answers(vec![gone]).await.remove(0);
    assert!(matches!(refused, Err(Error::StaleSession { .. })), "{refused:?}");
    assert_eq!(world.ready().await, 20);
}

#[tokio::test]
async fn who_goes_before_it_was_asked_for_is_granted_nothing() {
    let world = World::new(MANY, 0).await;
    let mut all = world.take_at_once().await;
    for dropped in all.drain(2..) {
        dropped.abort();
    }
    settle().await;
    world.server.resume();
    assert!(answers(all).await.into_iter().all(|granted| granted.expect("granted").len() == 1));
    // Whoever asks now comes after them.
    assert_eq!(world.ready().await, MANY as u64 - 2);
}

#[tokio::test]
async fn what_waits_and_is_dropped_is_withdrawn() {
    let world = World::new(0, 0).await;
    world.server.stop();
    let waiting: Vec<_> = (0..MANY)
        .map(|nth| {
            let (scheduler, claim) = (world.scheduler.clone(), world.claim(nth, 1));
            tokio::spawn(async move { scheduler.claim(&claim).await })
        })
        .collect();
    settle().await;
    waiting[5..].iter().for_each(JoinHandle::abort);
    world.server.resume();
    for (nth, waiting) in waiting.into_iter().enumerate().skip(5) {
        assert!(waiting.await.expect_err("aborted").is_cancelled(), "{nth}");
    }
    for _ in 0..10 {
        world.scheduler.submit_one(&task()).await.expect("submitted");
    }
    // The first five have one each, and nobody else: within less than the lease of one that was handed out to nobody.
    let begun = Instant::now();
    while world.ready().await != 5 {
        assert!(begun.elapsed() < Duration::from_secs(10), "{}", world.ready().await);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn who_asks_and_gives_up_again_and_again_is_heard_no_later() {
    let world = World::new(0, 0).await;
    let before = world.steps();
    world.server.stop();
    for request in 1..=1_000 {
        let (scheduler, claim) = (world.scheduler.clone(), world.claim(0, request));
        let waiting = tokio::spawn(async move { scheduler.claim(&claim).await });
        tokio::task::yield_now().await;
        waiting.abort();
        assert!(waiting.await.expect_err("aborted").is_cancelled(), "{request}");
    }
    world.server.resume();
    world.scheduler.submit_one(&task()).await.expect("submitted");
    let granted = tokio::time::timeout(LONG, world.scheduler.claim(&world.claim(0, 1_001))).await.expect("in time");
    assert_eq!(granted.expect("no error").len(), 1);
    let steps = world.steps() - before;
    assert!(steps <= 10, "{steps} steps");
}

/// Nor is it granted something behind its back.
#[tokio::test]
async fn who_asks_the_same_again_and_again_while_the_server_is_away_is_heard() {
    for seconds in 1..=3 {
        let server = RedisServer::start();
        let world = World::at(&server.url(), server, 0, 0).await;
        let (scheduler, claim) = (world.scheduler.clone(), world.claim(0, 1));
        world.server.kill();
        let asking = tokio::spawn(async move {
            loop {
                if let Ok(granted) = tokio::time::timeout(Duration::from_millis(1_300), scheduler.claim(&claim)).await {
                    return granted;
                }
            }
        });
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        world.server.restart();
        let id = world.scheduler.submit_one(&task()).await.expect("submitted").id;
        let granted = answers(vec![asking]).await.remove(0).expect("granted");
        assert_eq!(granted.iter().map(|grant| grant.task.id).collect::<Vec<_>>(), [id]);
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(world.ready().await, 0, "it is held still");
    }
}

/// Ends what waits on a handle while the server is away: what the server knows of, and what it is still to hear of.
async fn waits_end_while_the_server_is(away: fn(&RedisServer)) {
    let world = World::new(1, 0).await;
    let grant = world.take(world.claim(0, 1)).await.expect("no panic").expect("granted").remove(0);
    let claim = |nth: usize| {
        let (scheduler, claim) = (world.scheduler.clone(), world.claim(nth, 1));
        tokio::spawn(async move { scheduler.claim(&claim).await })
    };
    let wait = || {
        let (scheduler, task) = (world.scheduler.clone(), grant.task.id);
        tokio::spawn(async move { scheduler.wait(task).await })
    };
    let (known, watched) = (claim(1), wait());
    for key in ["s2:{fleet}:waiting:*", "s2:{fleet}:tails:task*"] {
        while world.server.command(&["KEYS", key]).trim().is_empty() {
            assert!(!known.is_finished() && !watched.is_finished(), "nothing happens to {key}");
            tokio::task::yield_now().await;
        }
    }
    away(&world.server);
    let (unknown, unwatched) = (claim(2), wait());
    settle().await;
    world.scheduler.close().await.expect("closed");
    let begun = Instant::now();
    for answer in answers(vec![known, unknown]).await {
        assert!(answer.expect("no error").is_empty());
    }
    for answer in answers(vec![watched, unwatched]).await {
        assert!(matches!(answer, Err(Error::Closed)), "{answer:?}");
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn closing_without_a_server() {
    waits_end_while_the_server_is(RedisServer::kill).await;
}

#[tokio::test]
async fn closing_while_the_server_stands_still() {
    waits_end_while_the_server_is(RedisServer::stop).await;
}

#[tokio::test]
async fn a_step_hands_out_no_more_than_it_may() {
    // Together eight times of that.
    let world = World::new(MANY, 1024 * 1024).await;
    let granted = world.all_taken().await;
    assert!(granted.iter().all(|grant| grant.task.data.len() == 1024 * 1024));
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_whose_step_is_lost_go_by_themselves() {
    let server = RedisServer::start_volatile();
    let proxy = Proxy::of(&server);
    let world = World::at(&proxy.url(), server, MANY, 0).await;
    let all = world.take_at_once().await;
    proxy.lose_next();
    world.server.resume();
    let granted: Vec<Grant> = answers(all).await.into_iter().flat_map(|granted| granted.expect("granted")).collect();
    let ids: HashSet<TaskId> = granted.iter().map(|grant| grant.task.id).collect();
    assert_eq!((granted.len(), ids.len()), (MANY, MANY));
    assert_eq!(proxy.lost(), 1);
    assert_eq!(world.ready().await, 0);
}

#[tokio::test]
async fn calls_that_are_begun_and_left_alone_hold_nobody_up() {
    let world = World::new(MANY, 0).await;
    let (one, other) = (world.claim(0, 1), world.claim(1, 1));
    let mut left = [Box::pin(world.scheduler.take(&one)), Box::pin(world.scheduler.take(&other))];
    for call in &mut left {
        assert!(std::future::poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx).is_pending())).await);
    }
    let begun = Instant::now();
    let all = (2..MANY).map(|nth| world.take(world.claim(nth, 1))).collect();
    assert!(answers(all).await.into_iter().all(|granted| granted.expect("granted").len() == 1));
    for nth in 2..MANY {
        let granted = world.scheduler.take(&world.claim(nth, 1)).await.expect("no error");
        assert_eq!(granted.len(), 1, "the same again");
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    for call in left {
        assert_eq!(call.await.expect("granted").len(), 1);
    }
}

#[tokio::test]
async fn a_server_that_has_forgotten_the_steps_is_told_them_again() {
    let world = World::new(MANY, 0).await;
    assert_eq!(world.server.command(&["FUNCTION", "FLUSH"]).trim(), "OK");
    world.all_taken().await;
}
