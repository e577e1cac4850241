//! Replies that are lost between the script and who asked.

use std::time::Duration;

use s2_coordinator::{
    Blocker, Claim, Completion, Config, Ended, Ending, EventBus, EventType, Grant, Lease, Leases, NewEvent, NewTask,
    Outcome, Profile, RedisScheduler, RedisStore, Retry, Scheduler, SchedulerExt, Start, SwarmId, TaskState, Topic,
};
use s2_tests::proxy::Proxy;
use s2_tests::servers::RedisServer;

use crate::{FLEET, HOST, WORK, store, task};

const EFFECTS: Topic = Topic::from_static("effects");

/// A fleet whose replies get lost, and the same one from where nothing does.
struct World {
    proxy: Proxy,
    scheduler: RedisScheduler,
    direct: RedisScheduler,
    store: RedisStore,
    requests: u64,
    // Ends last.
    _server: RedisServer,
}

impl World {
    async fn new() -> Self {
        let server = RedisServer::start_volatile();
        let proxy = Proxy::of(&server);
        let mut config = Config::default();
        config.attempts = 1;
        let lossy = RedisStore::builder(FLEET).with_config(config).connect(&proxy.url()).await.expect("a fleet");
        let store = store(&server.url()).await;
        let (scheduler, direct) = (lossy.scheduler(), store.scheduler());
        Self { proxy, scheduler, direct, store, requests: 0, _server: server }
    }

    async fn end(&self, lease: Lease, ending: Ending) -> Ended {
        let mut all = self.proxy.losing(self.scheduler.end(vec![(lease, ending)], None)).await;
        all.ended.remove(0).expect("ended")
    }

    async fn state(&self, grant: &Grant) -> (TaskState, u32) {
        let status = self.direct.task(grant.task.id).await.expect("a task");
        (status.state, status.failures)
    }

    /// A task that is claimed, both with lost replies.
    async fn claimed(&mut self, name: &str, new: NewTask) -> Grant {
        let tasks = [new];
        let submitted = self.proxy.losing(self.scheduler.submit(&tasks)).await;
        assert_eq!((submitted.len(), submitted[0].duplicate), (1, false));
        let profile = Profile::new(SwarmId::new(name).expect("a name"));
        let by = self.proxy.losing(self.scheduler.enter(&profile)).await;
        self.requests += 1;
        let claim = Claim { by, request: self.requests, max: 5 };
        let granted = self.proxy.losing(self.scheduler.claim(&claim)).await;
        let again = self.proxy.losing(self.scheduler.take(&claim)).await;
        assert_eq!(granted, again);
        let [grant] = granted.try_into().expect("one task, once");
        assert_eq!((grant.task.id, grant.attempt), (submitted[0].id, 1));
        grant
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_verb_whose_reply_is_lost_happens_once_and_gets_the_first_answer() {
    let mut world = World::new().await;

    // Done, with what follows from it.
    let grant = world.claimed("one", task()).await;
    let renewed = world.proxy.losing(world.scheduler.renew(&[grant.lease])).await;
    assert!(renewed[0].is_ok());
    let event = NewEvent::new(EFFECTS, EventType::from_static("done"), HOST).with_data("effect");
    let completion = Completion::new().with_data("result").with_task(task()).with_event(event);
    let Ended::Completed { tasks, events } = world.end(grant.lease, Ending::Complete(completion)).await else {
        panic!("not completed")
    };
    assert_eq!((tasks.len(), tasks[0].duplicate, events.len(), events[0].duplicate), (1, false, 1, false));
    let effects = world.store.bus().read(&EFFECTS, Start::Beginning, 10).await.expect("read");
    assert_eq!(effects.items.len(), 1);
    let outcome = world.proxy.losing(world.scheduler.outcome(grant.task.id)).await;
    assert!(matches!(outcome, Some(Outcome::Done(result)) if &result.data[..] == b"result"));
    let cancelled = world.proxy.losing(world.scheduler.cancel(tasks[0].id, "not needed".into())).await;
    assert!(cancelled);
    let redriven = world.proxy.losing(world.scheduler.redrive(&[tasks[0].id])).await;
    assert!(!redriven[0].duplicate, "the first answer is that it was redriven");
    world.proxy.losing(world.scheduler.cancel(tasks[0].id, "not needed".into())).await;

    // Failed, to be tried again.
    let grant = world.claimed("two", task().with_attempts(3)).await;
    let retry = Retry::After(Duration::from_secs(60));
    let ended = world.end(grant.lease, Ending::Fail { reason: "flaky".into(), retry }).await;
    assert!(matches!(ended, Ended::Retrying { .. }));
    assert_eq!(world.state(&grant).await, (TaskState::Delayed, 1));
    assert!(world.proxy.losing(world.scheduler.cancel(grant.task.id, "enough".into())).await);

    // Handed back: no attempt is used up, though there is but one.
    for ending in [Ending::Release, Ending::Refuse { reason: "not now".into(), delay: Some(Duration::from_secs(60)) }] {
        let grant = world.claimed("three", task()).await;
        let ended = world.end(grant.lease, ending).await;
        assert!(matches!(ended, Ended::Released | Ended::Refused { .. }));
        assert_eq!(world.state(&grant).await, (TaskState::Ready, 0));
        world.proxy.losing(world.scheduler.assign(grant.task.id, Some(&HOST))).await;
        assert_eq!(world.direct.task(grant.task.id).await.expect("a task").session, Some(HOST));
        assert!(world.proxy.losing(world.scheduler.cancel(grant.task.id, "enough".into())).await);
    }

    // Blocked, helped, resumed.
    let grant = world.claimed("four", task()).await;
    let blocker = Blocker::new("stuck").with_help(NewTask::new(WORK, HOST).with_assignee(HOST));
    let Ended::Blocked { help } = world.end(grant.lease, Ending::Block(blocker)).await else { panic!("not blocked") };
    assert_eq!((help.len(), help[0].duplicate), (1, false));
    assert!(
        world.proxy.losing(world.scheduler.unblock(grant.task.id)).await,
        "the first answer is that it was blocked"
    );
    let sessions = world.direct.sessions(None, 10).await.expect("sessions");
    let four = sessions.iter().find(|info| info.incarnation.session.as_str() == "four").expect("it is there");
    let resumed = world.proxy.losing(world.scheduler.resume(&four.incarnation, &grant.lease)).await;
    assert!(resumed.lease.token > grant.lease.token);
    assert_eq!(world.state(&grant).await, (TaskState::Claimed, 0));

    // Ended together with the next claim.
    world.direct.submit_one(&task()).await.expect("submitted");
    world.requests += 1;
    let next = Claim { by: four.incarnation.clone(), request: world.requests, max: 1 };
    let endings = vec![(resumed.lease, Ending::Complete(Completion::new()))];
    let all = world.proxy.losing(world.scheduler.end(endings, Some(&next))).await;
    assert!(matches!(all.ended[0], Ok(Ended::Completed { .. })));
    let [grant] = <[Grant; 1]>::try_from(all.granted).expect("the next one");
    assert_eq!(world.state(&grant).await, (TaskState::Claimed, 0));

    assert!(
        world.proxy.losing(world.scheduler.leave(&four.incarnation)).await,
        "the first answer is that it was there"
    );
    let seen = world.proxy.losing(world.scheduler.stats()).await;
    assert_eq!((seen.sessions, seen.unfinished()), (3, 2));
}

/// Whoever waits hears of it, though word of it was lost.
#[tokio::test(flavor = "multi_thread")]
async fn who_waits_hears_of_it_all_the_same() {
    let world = World::new().await;
    let session = world.scheduler.join(&Profile::new(SwarmId::from_static("worker"))).await.expect("a session");
    for _ in 0..5 {
        let claiming = tokio::spawn({
            let session = session.clone();
            async move { session.claim().await }
        });
        while world.direct.sessions(None, 1).await.expect("sessions").is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        // Both connections break, and what is pushed meanwhile reaches nobody.
        for kind in ["pubsub", "normal"] {
            let killed = world._server.command(&["CLIENT", "KILL", "TYPE", kind]);
            assert!(killed.parse::<u32>().is_ok(), "{killed}");
        }
        let submitted = world.direct.submit_one(&task()).await.expect("submitted");
        let outcome = tokio::spawn({
            let direct = world.direct.clone();
            async move { direct.wait(submitted.id).await }
        });
        let claimed = tokio::time::timeout(crate::LONG, claiming).await.expect("in time").expect("no panic");
        let held = claimed.expect("no error").expect("open");
        assert_eq!((held.task.id, held.attempt), (submitted.id, 1));
        held.complete(Completion::new()).await.expect("completed");
        let outcome = tokio::time::timeout(crate::LONG, outcome).await.expect("in time").expect("no panic");
        assert!(matches!(outcome.expect("no error"), Outcome::Done(_)));
    }
}
