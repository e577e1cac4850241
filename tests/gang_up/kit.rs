//! What the stories have in common.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use s2_coordinator::{
    Blocker, Capabilities, Config, MemoryStore, NewTask, RedisStore, SchedulerExt, Start, SwarmId, TaskId, TaskKind,
};
use s2_core::{Context, HelpRequest, NoHooks, RESCUES, RescueEvent, RescueHooks, S2, Session, Settings, TaskError};
use s2_tests::redis::unique_name;
use s2_tests::servers::RedisServer;
use tokio::time::timeout;

pub(crate) const LONG: Duration = Duration::from_secs(30);
pub(crate) const INVITE: TaskKind = TaskKind::from_static("invite");
pub(crate) const HOST: SwarmId = SwarmId::from_static("host");
pub(crate) const SIP: &[&str] = &["integration:sip", "telephony:protocols"];

/// Where a story takes place.
pub(crate) enum Place {
    Memory,
    Redis(Box<RedisServer>),
}

impl Place {
    pub(crate) fn redis() -> Self {
        Self::Redis(Box::new(RedisServer::start_volatile()))
    }

    pub(crate) async fn fleet(&self, settings: Settings) -> S2 {
        self.fleet_with(settings, Config::default(), NoHooks).await
    }

    pub(crate) async fn fleet_with(&self, settings: Settings, config: Config, hooks: impl RescueHooks) -> S2 {
        let builder = S2::builder().with_settings(settings).with_hooks(hooks);
        match self {
            Self::Memory => {
                let store = MemoryStore::builder().with_config(config).build().expect("a store");
                builder.on_memory(&store).await.expect("a fleet")
            }
            Self::Redis(server) => {
                let store = RedisStore::builder(unique_name()).with_config(config).connect(&server.url()).await;
                builder.on_redis(&store.expect("a store")).await.expect("a fleet")
            }
        }
    }
}

/// Tells each story in memory and on Redis.
macro_rules! stories {
    ($($story:ident),* $(,)?) => {
        mod memory {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $story() {
                super::$story(crate::kit::Place::Memory).await;
            })*
        }

        mod redis {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $story() {
                super::$story(crate::kit::Place::redis()).await;
            })*
        }
    };
}
pub(crate) use stories;

/// Settings that look for helpers often, so that stories are short.
pub(crate) fn settings(change: impl FnOnce(&mut Settings)) -> Settings {
    let mut settings = Settings::default();
    settings.help.look_again = Duration::from_millis(100);
    change(&mut settings);
    settings
}

/// The session that is blocked: it asks for help once, and its result are the answers.
pub(crate) async fn blocked(s2: &S2, name: &str, requires: &'static [&'static str]) -> Session {
    let handler = move |cx: Context| async move {
        let rescued = match cx.resumed().await? {
            Some(rescued) => rescued,
            None => cx.blocked(Blocker::new("488").with_requires(Capabilities::new(requires)?)).await?,
        };
        let answers = rescued.answers.iter().map(|answer| answer.result.json::<String>());
        Ok::<_, TaskError>(answers.collect::<Result<Vec<_>, _>>()?)
    };
    s2.session(name).skills([format!("voice:{}", name.replace('/', "-"))]).run(handler).await.expect("a session")
}

/// What only that session takes.
pub(crate) async fn invite(s2: &S2, name: &str) -> TaskId {
    let requires = Capabilities::new([format!("voice:{}", name.replace('/', "-"))]).expect("a capability");
    let task = NewTask::new(INVITE, HOST).with_requires(requires);
    s2.scheduler().submit_one(&task).await.expect("submitted").id
}

/// A session that helps: it says who it is, and does what `helps` says.
pub(crate) async fn helper<F>(
    s2: &S2,
    name: &'static str,
    skills: &[&str],
    helps: impl Fn(HelpRequest) -> F + Clone + Send + Sync + 'static,
) -> Session
where
    F: Future<Output = Result<String, TaskError>> + Send + 'static,
{
    let handler = move |cx: Context| {
        let asked = cx.help_request().expect("help is asked for");
        assert_eq!(asked.helper.as_str(), name);
        helps(asked)
    };
    s2.session(name).skills(skills).run(handler).await.expect("a session")
}

/// A helper that answers with its name.
pub(crate) async fn willing(s2: &S2, name: &'static str, skills: &[&str]) -> Session {
    helper(s2, name, skills, move |asked| async move { Ok(asked.helper.to_string()) }).await
}

/// A helper that waits for ever.
pub(crate) async fn slow(s2: &S2, name: &'static str, skills: &[&str]) -> Session {
    helper(s2, name, skills, |_| std::future::pending()).await
}

/// What became of the task of a blocked session: who answered.
pub(crate) async fn answers(s2: &S2, task: TaskId) -> Vec<String> {
    let outcome = timeout(LONG, s2.scheduler().wait(task)).await.expect("in time").expect("an outcome");
    outcome.result().unwrap_or_else(|| panic!("not done: {outcome:?}")).json().expect("answers")
}

/// Everything that was told on the topic of rescues.
pub(crate) async fn told(s2: &S2) -> Vec<RescueEvent> {
    let page = s2.bus().read(&RESCUES, Start::Beginning, 500).await.expect("events");
    page.items.iter().map(|event| event.json().expect("an event of a rescue")).collect()
}

/// Who was asked, in the order in which they were chosen.
pub(crate) async fn chosen(s2: &S2) -> Vec<String> {
    let events = told(s2).await;
    let matched = events.iter().filter_map(|told| match told {
        RescueEvent::Matched { helpers, .. } => Some(helpers),
        _ => None,
    });
    matched.flatten().map(|(session, _)| session.to_string()).collect()
}

/// Waits until something is so.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, so: impl Fn() -> F) {
    let waited = async {
        while !so().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, waited).await.unwrap_or_else(|_| panic!("it never came so: {what}"));
}

/// Counts what happens, by name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally(Arc<Mutex<HashMap<String, usize>>>);

impl Tally {
    pub(crate) fn add(&self, what: &str) {
        *self.0.lock().expect("a tally").entry(what.to_owned()).or_default() += 1;
    }

    pub(crate) fn of(&self, what: &str) -> usize {
        self.0.lock().expect("a tally").get(what).copied().unwrap_or(0)
    }
}
