//! Getting help: how long it takes from being blocked to somebody being at it, and what S² adds to a task.
//!
//! `cargo bench -p s2-benches --bench gang_up`. On Redis whoever is blocked, whoever organises and whoever helps have a store of
//! their own each, as processes have; the raw limit is as many bare `EVALSHA "return 1"` as the way takes round trips one after the
//! other, in the same run.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use s2_benches::{bare_trips, percentiles};
use s2_coordinator::{Blocker, Capabilities, MemoryStore, NewTask, RedisStore, SchedulerExt, SwarmId, TaskKind};
use s2_core::{Context, HELP, S2, Settings, TaskError};
use s2_tests::servers::RedisServer;

const FLEET: SwarmId = SwarmId::from_static("fleet");
const HOST: SwarmId = SwarmId::from_static("host");
const WORK: TaskKind = TaskKind::from_static("work");
const NEEDS: &[&str] = &["integration:sip", "telephony:protocols"];
const RESCUES: usize = 500;
const TASKS: usize = 1_000;
/// Block; look around, read what is known of helpers, ask what they may spend, ask one: each waits for the one before it.
const TRIPS: usize = 5;

fn settings(organise: bool) -> Settings {
    let mut settings = Settings::default();
    settings.help.organise = organise;
    settings
}

/// Who is blocked, who organises, who helps.
struct Fleet([S2; 3]);

impl Fleet {
    async fn in_memory() -> Self {
        let s2 = S2::builder().on_memory(&MemoryStore::new()).await.expect("a fleet");
        Self([s2.clone(), s2.clone(), s2])
    }

    async fn on(server: &RedisServer) -> Self {
        let mut all = Vec::new();
        for organises in [false, true, false] {
            let store = RedisStore::connect(&server.url(), FLEET).await.expect("a store");
            let s2 = S2::builder().with_settings(settings(organises)).on_redis(&store).await.expect("a fleet");
            all.push(s2);
        }
        Self(all.try_into().expect("three"))
    }

    /// From `blocked` to the first line of the helper's handler.
    async fn rescues(&self) -> (f64, f64) {
        let begun = Arc::new(Mutex::new(None::<Instant>));
        let times = Arc::new(Mutex::new(Vec::with_capacity(RESCUES)));
        let (since, measured) = (Arc::clone(&begun), Arc::clone(&times));
        let helps = move |cx: Context| {
            let took = since.lock().expect("no panic").take().map(|since| since.elapsed());
            measured.lock().expect("no panic").extend(took);
            assert_eq!(cx.task().kind, HELP);
            async { Ok::<_, TaskError>(1) }
        };
        let [blocked, organiser, helper] = &self.0;
        organiser
            .session("organiser")
            .skills(["other"])
            .run(async |_: Context| Ok::<_, TaskError>(()))
            .await
            .expect("a session");
        helper.session("helper").skills(NEEDS).run(helps).await.expect("a session");
        let needs = move |cx: Context| {
            let begun = Arc::clone(&begun);
            async move {
                let blocker = Blocker::new("488").with_requires(Capabilities::new(NEEDS)?);
                *begun.lock().expect("no panic") = Some(Instant::now());
                let rescued = cx.blocked(blocker).await?;
                assert_eq!(rescued.answers.len(), 1);
                Ok::<_, TaskError>(())
            }
        };
        blocked.session("blocked").skills(["voice:sip"]).run(needs).await.expect("a session");
        let requires = Capabilities::new(["voice:sip"]).expect("a capability");
        for _ in 0..RESCUES {
            let task = NewTask::new(WORK, HOST).with_requires(requires.clone());
            let id = blocked.scheduler().submit_one(&task).await.expect("submitted").id;
            let outcome = blocked.scheduler().wait(id).await.expect("an outcome");
            assert!(outcome.result().is_some(), "{outcome:?}");
        }
        let times = times.lock().expect("no panic");
        assert_eq!(times.len(), RESCUES);
        percentiles(times.iter().copied())
    }

    /// What a task takes from being submitted to its outcome, if its handler does nothing.
    async fn tasks(&self) -> (f64, f64) {
        let [one, _, other] = &self.0;
        other
            .session("worker")
            .skills(["work:any"])
            .run(async |_: Context| Ok::<_, TaskError>(1))
            .await
            .expect("a session");
        let requires = Capabilities::new(["work:any"]).expect("a capability");
        let mut times = Vec::with_capacity(TASKS);
        for _ in 0..TASKS {
            let task = NewTask::new(WORK, HOST).with_requires(requires.clone());
            let begun = Instant::now();
            let id = one.scheduler().submit_one(&task).await.expect("submitted").id;
            one.scheduler().wait(id).await.expect("an outcome");
            times.push(begun.elapsed());
        }
        percentiles(times)
    }
}

fn line(what: &str, (p50, p99): (f64, f64), raw: Option<(f64, f64)>) {
    let ratio = raw.map(|(raw50, raw99)| format!("{:>8.1}× {:>6.1}×", p50 / raw50, p99 / raw99));
    println!("{what:<48} {p50:>10.1} {p99:>10.1} {}", ratio.unwrap_or_default());
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    println!("{:<48} {:>10} {:>10} {:>9} {:>7}", "µs", "p50", "p99", "to raw", "");
    let memory = Fleet::in_memory().await;
    line("memory: blocked → helper at work", memory.rescues().await, None);
    line("memory: a task that takes no time", memory.tasks().await, None);
    let server = RedisServer::start_volatile();
    let redis = Fleet::on(&server).await;
    let raw = bare_trips(&server, TRIPS).await;
    line(&format!("Redis: {TRIPS} bare round trips"), raw, None);
    line("Redis: blocked → helper at work", redis.rescues().await, Some(raw));
    let task = redis.tasks().await;
    line("Redis: a task that takes no time", task, Some(raw));
    let of_a_minute = (task.0 / 60e6 * 100.0, task.1 / 60e6 * 100.0);
    println!("of a task of a minute that is {:.4} % (p50), {:.4} % (p99)", of_a_minute.0, of_a_minute.1);
    for s2 in memory.0.iter().chain(&redis.0) {
        s2.shutdown(Duration::from_secs(1)).await;
    }
}
