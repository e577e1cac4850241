//! A rescue over processes, some of which are killed in the middle of it.

use std::env;
use std::time::Duration;

use s2_coordinator::{Config, EventBusExt, EventType, NewEvent, RedisStore, Start, SwarmId, TaskId, Topic};
use s2_core::{Context, HELP, NoHooks, S2, Settings, TaskError};
use s2_tests::counts;
use s2_tests::servers::RedisServer;
use s2_tests::workers::{Worker, is_worker};

use crate::kit::{HOST, LONG, SIP, answers, blocked, chosen, invite, settings, until};

/// What a helper waits for that is told to wait.
const GO: Topic = Topic::from_static("go");
const FLEET: SwarmId = SwarmId::from_static("fleet");

async fn fleet(url: &str, settings: Settings) -> S2 {
    let mut config = Config::default();
    config.lease = Duration::from_secs(1);
    // Whoever says nothing for six seconds is taken for lost.
    config.ack_timeout = Duration::from_secs(1);
    let store = RedisStore::builder(FLEET).with_config(config).connect(url).await.expect("a store");
    S2::builder().with_settings(settings).with_hooks(NoHooks).on_redis(&store).await.expect("a fleet")
}

fn policy(organise: bool, most: usize) -> Settings {
    settings(|settings| {
        settings.help.organise = organise;
        settings.rescue_policy.max_rescuers_per_blocker = most;
        settings.help.timeout = Duration::from_secs(60);
    })
}

/// Says with its name that it helps; a `waits-…` helps once it is told to go on, a `hangs-…` never.
async fn help(cx: Context) -> Result<String, TaskError> {
    assert_eq!(cx.task().kind, HELP);
    println!("helps {}", cx.session());
    if cx.session().leaf().starts_with("hangs-") {
        std::future::pending::<()>().await;
    }
    if cx.session().leaf().starts_with("waits-") {
        let mut tail = cx.s2().bus().tail(&GO, Start::Beginning).await?;
        tail.next().await?;
    }
    Ok(cx.session().to_string())
}

/// A worker's main: a process with these sessions. `name=skill,skill` helps; a name alone, such as `telephony/sip`, gets blocked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a worker of the tests in this file"]
async fn process() {
    if !is_worker() {
        return;
    }
    let given = |name: &str| env::var(name).expect("an argument");
    let s2 = fleet(&given("URL"), policy(given("ORGANISE") == "true", given("MOST").parse().expect("a number"))).await;
    for session in given("SESSIONS").split(' ').filter(|session| !session.is_empty()) {
        if let Some((name, skills)) = session.split_once('=') {
            s2.session(name).skills(skills.split(',')).run(help).await.expect("a session");
        } else {
            blocked(&s2, session, SIP).await;
        }
    }
    println!("ready");
    std::future::pending::<()>().await;
}

struct Fleet {
    server: RedisServer,
    s2: S2,
    most: usize,
}

impl Fleet {
    async fn begin(most: usize) -> Self {
        let server = RedisServer::start_volatile();
        let s2 = fleet(&server.url(), policy(false, most)).await;
        Self { server, s2, most }
    }

    /// Another process, with these sessions.
    fn process(&self, sessions: &str, organises: bool) -> Worker {
        let args = [
            ("URL", self.server.url()),
            ("SESSIONS", sessions.to_owned()),
            ("ORGANISE", organises.to_string()),
            ("MOST", self.most.to_string()),
        ];
        let mut worker = Worker::spawn("processes::process", &args);
        assert_eq!(worker.line(LONG).as_deref(), Some("ready"));
        worker
    }

    async fn organised(&self) {
        let organised = || async {
            let sessions = self.s2.scheduler().sessions(None, 100).await.expect("sessions");
            sessions.iter().any(|info| info.incarnation.session.as_str() == "s2/organiser")
        };
        until("somebody organises", organised).await;
    }

    async fn go(&self) {
        let go = NewEvent::new(GO, EventType::from_static("go"), HOST);
        self.s2.bus().publish_one(&go).await.expect("published");
    }

    async fn blocked(&self) -> TaskId {
        invite(&self.s2, "telephony/sip").await
    }
}

const NDI: &str = "telephony/ndi=integration:ndi,integration:sip,telephony:protocols,tool:rust";
const WEBRTC: &str = "telephony/webrtc=integration:webrtc,integration:sip,telephony:protocols,tool:rust";
const H323: &str = "telephony/h323=integration:h323,telephony:legacy";
const CLI: &str = "tools/cli=cli:tooling,tool:python";
const TALENT: &str = "talent/match=talent:matching";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_processes_choose_as_one_does() {
    for _ in 0..counts(1, 10) {
        let fleet = Fleet::begin(2).await;
        let sessions = ["telephony/sip", &format!("{NDI} {H323}"), &format!("{WEBRTC} {CLI}"), TALENT];
        let _workers: Vec<Worker> = sessions.iter().map(|sessions| fleet.process(sessions, true)).collect();
        let task = fleet.blocked().await;
        let answers = answers(&fleet.s2, task).await;
        assert!(
            answers.iter().all(|name| ["telephony/ndi", "telephony/webrtc"].contains(&name.as_str())),
            "{answers:?}"
        );
        assert_eq!(chosen(&fleet.s2).await, ["telephony/ndi", "telephony/webrtc"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_helper_that_dies_in_mid_help_is_followed_by_the_next_best() {
    for _ in 0..counts(2, 10) {
        let fleet = Fleet::begin(1).await;
        let _sip = fleet.process("telephony/sip", true);
        let skills = SIP.join(",");
        let mut first = fleet.process(&format!("a/hangs-1={skills}"), false);
        let _second = fleet.process(&format!("b/helps-2={skills}"), false);
        let task = fleet.blocked().await;
        assert_eq!(first.line(LONG).as_deref(), Some("helps a/hangs-1"));
        first.kill();
        assert_eq!(answers(&fleet.s2, task).await, ["b/helps-2"]);
        assert_eq!(chosen(&fleet.s2).await, ["a/hangs-1", "b/helps-2"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_organiser_that_dies_in_mid_help_is_followed_by_another() {
    for _ in 0..counts(2, 10) {
        let fleet = Fleet::begin(1).await;
        let mut organiser = fleet.process("other=other:skill", true);
        fleet.organised().await;
        let _sip = fleet.process("telephony/sip", true);
        let mut helper = fleet.process(&format!("a/waits-1={}", SIP.join(",")), false);
        let task = fleet.blocked().await;
        assert_eq!(helper.line(LONG).as_deref(), Some("helps a/waits-1"));
        organiser.kill();
        fleet.go().await;
        assert_eq!(answers(&fleet.s2, task).await, ["a/waits-1"]);
        assert_eq!(chosen(&fleet.s2).await, ["a/waits-1"], "nobody was asked twice");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_takes_over_from_one_that_died_while_it_was_blocked_has_the_answers() {
    for _ in 0..counts(1, 10) {
        let fleet = Fleet::begin(1).await;
        let mut helper = fleet.process(&format!("a/waits-1={}", SIP.join(",")), true);
        let mut sip = fleet.process("telephony/sip", false);
        let task = fleet.blocked().await;
        assert_eq!(helper.line(LONG).as_deref(), Some("helps a/waits-1"));
        sip.kill();
        let heir = heir(&fleet).await;
        fleet.go().await;
        assert_eq!(answers(&fleet.s2, task).await, ["a/waits-1"]);
        drop(heir);
    }
}

/// A session of this process that can do what the one that died did.
async fn heir(fleet: &Fleet) -> s2_core::Session {
    let handler = async |cx: Context| {
        let rescued = cx.resumed().await?.ok_or_else(|| TaskError::fatal("it begins anew"))?;
        let answers = rescued.answers.iter().map(|answer| answer.result.json::<String>());
        Ok(answers.collect::<Result<Vec<_>, _>>()?)
    };
    fleet.s2.session("heir").skills(["voice:telephony-sip"]).run(handler).await.expect("a session")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_was_taken_for_lost_comes_back_with_all_its_sessions() {
    let fleet = Fleet::begin(1).await;
    let _sip = fleet.process("telephony/sip", true);
    let mut helper = fleet.process(&format!("a/helps-1={}", SIP.join(",")), false);
    let there = |name: &'static str| {
        let s2 = fleet.s2.clone();
        move || {
            let s2 = s2.clone();
            async move {
                let sessions = s2.scheduler().sessions(None, 100).await.expect("sessions");
                sessions.iter().any(|info| info.incarnation.session.as_str() == name)
            }
        }
    };
    helper.stop();
    until("it is taken for lost", || async { !there("a/helps-1")().await }).await;
    helper.resume();
    until("it is there again", there("a/helps-1")).await;
    let task = fleet.blocked().await;
    assert_eq!(answers(&fleet.s2, task).await, ["a/helps-1"]);
}
