//! Scripts: how a step is written for Redis, as functions of a library that the server keeps.

use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::config::Config;
use crate::time::Timestamp;

/// One verb in Lua. Its body defines `verb()`, which answers with a table, and runs between the beginning and the end of a
/// step.
///
/// Its own arguments begin at `ARGV[5]`, and keys other than those of S² at `KEYS[2]`. `docs/wire/functions.md` lists what
/// the prelude offers: `now`, `journal`, `publish`, `escalate`, `wake`, `int`, `number`, `arm`.
#[derive(Debug)]
pub struct Script {
    name: &'static str,
    body: &'static str,
    /// Whether it runs although the server has no memory left: it frees some.
    frees: bool,
    /// Whether it is about tasks, and so sees the part of the prelude that is.
    about_tasks: bool,
    /// Whether it belongs to the ground floor.
    own: bool,
    /// Whether it gives the first answer itself where it is repeated.
    repeatable: bool,
}

impl Script {
    /// A script of this name, for errors and logs, with this body.
    #[must_use]
    pub const fn new(name: &'static str, body: &'static str) -> Self {
        Self { name, body, frees: false, about_tasks: false, own: false, repeatable: false }
    }

    /// A script that may be repeated with the same arguments and then gives the first answer: no place is kept for that
    /// answer, which saves two commands. It may answer `{ 'again' }`: then it is called again at once.
    #[must_use]
    pub const fn repeatable(name: &'static str, body: &'static str) -> Self {
        Self { repeatable: true, ..Self::new(name, body) }
    }

    pub(super) const fn verb(name: &'static str, body: &'static str) -> Self {
        Self { own: true, ..Self::new(name, body) }
    }

    pub(super) const fn frees(name: &'static str, body: &'static str) -> Self {
        Self { frees: true, ..Self::verb(name, body) }
    }

    pub(super) const fn about_tasks(name: &'static str, body: &'static str) -> Self {
        Self { about_tasks: true, ..Self::verb(name, body) }
    }

    pub(super) const fn frees_tasks(name: &'static str, body: &'static str) -> Self {
        Self { frees: true, ..Self::about_tasks(name, body) }
    }

    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    pub(super) const fn body(&self) -> &'static str {
        self.body
    }

    pub(super) const fn is_own(&self) -> bool {
        self.own
    }

    pub(super) const fn is_repeatable(&self) -> bool {
        self.repeatable
    }

    /// Its part of a library, which makes it a step.
    fn register(&self, step: &str) -> String {
        let Self { name, body, frees, .. } = self;
        let flags = if *frees { "'allow-oom'" } else { "" };
        let known = if self.about_tasks { format!("tasks.verbs.{name} = verb\n") } else { String::new() };
        format!(
            "(function()\n{body}\n{known}redis.register_function {{ function_name = LIBRARY .. '_{name}', callback = {step}(verb), \
             flags = {{ {flags} }} }}\nend)();\n"
        )
    }
}

/// What the server loads: functions that share the prelude. Its name says what is in it, so versions live side by side.
#[derive(Debug)]
pub(super) struct Library {
    pub(super) source: String,
    name: String,
}

impl Library {
    pub(super) fn new(scripts: impl Iterator<Item = &'static Script>) -> Self {
        let settings = numbers(&Config::default(), Duration::ZERO).map(|(name, _)| name).join("', '");
        let mut source = format!("local SETTINGS = {{ '{settings}' }}\n{}\n", PRELUDE.join("\n"));
        // A function may have 200 locals: what is about tasks is in one of its own.
        let (about_tasks, others): (Vec<_>, Vec<_>) = scripts.partition(|script| script.about_tasks);
        source.push_str(&format!("(function()\n{}\n", TASKS.join("\n")));
        about_tasks.into_iter().for_each(|script| source.push_str(&script.register("task_step")));
        source.push_str("end)();\n");
        others.into_iter().for_each(|script| source.push_str(&script.register("step")));
        let hash = Sha256::digest(&source);
        let name = hash[..8].iter().fold("s2_".to_owned(), |name, byte| format!("{name}{byte:02x}"));
        Self { source: format!("#!lua name={name}\nlocal LIBRARY = '{name}'\n{source}"), name }
    }

    /// The name of the function of a script.
    pub(super) fn function(&self, script: &Script) -> String {
        format!("{}_{}", self.name, script.name)
    }
}

const PRELUDE: [&str; 11] = [
    include_str!("lua/prelude/step.lua"),
    include_str!("lua/prelude/topic.lua"),
    include_str!("lua/prelude/cell.lua"),
    include_str!("lua/prelude/group.lua"),
    include_str!("lua/prelude/deliver.lua"),
    include_str!("lua/prelude/expire.lua"),
    include_str!("lua/prelude/publish.lua"),
    include_str!("lua/prelude/sweep.lua"),
    include_str!("lua/prelude/place.lua"),
    include_str!("lua/prelude/letters.lua"),
    include_str!("lua/prelude/finish.lua"),
];

const TASKS: [&str; 13] = [
    include_str!("lua/tasks/hash.lua"),
    include_str!("lua/tasks/task.lua"),
    include_str!("lua/tasks/queue.lua"),
    include_str!("lua/tasks/own.lua"),
    include_str!("lua/tasks/session.lua"),
    include_str!("lua/tasks/flow.lua"),
    include_str!("lua/tasks/progress.lua"),
    include_str!("lua/tasks/deadlock.lua"),
    include_str!("lua/tasks/submit.lua"),
    include_str!("lua/tasks/claim.lua"),
    include_str!("lua/tasks/ending.lua"),
    include_str!("lua/tasks/look.lua"),
    include_str!("lua/tasks/time.lua"),
];

/// The settings in the order in which each call says them: times in µs, sizes in bytes.
fn numbers(config: &Config, gone_after: Duration) -> [(&'static str, Option<u64>); 31] {
    let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    let limits = &config.limits;
    [
        ("ack_timeout", Some(micros(config.ack_timeout))),
        ("deliveries", Some(config.deliveries.into())),
        ("backoff_base", Some(micros(config.backoff.base))),
        ("backoff_max", Some(micros(config.backoff.max))),
        ("window", Some(micros(config.idempotency_window))),
        ("group_expiry", Some(micros(config.group_expiry))),
        ("gone_after", Some(micros(gone_after))),
        ("topic_bytes", Some(config.topics.bytes)),
        ("topic_age", config.topics.age.map(micros)),
        ("journal_bytes", Some(config.journal.bytes)),
        ("journal_age", config.journal.age.map(micros)),
        ("backlog_bytes", Some(limits.backlog_bytes)),
        ("topics", Some(limits.topics as u64)),
        ("groups", Some(limits.groups as u64)),
        ("escalations", Some(limits.escalations as u64)),
        ("settles", Some(limits.settles)),
        ("priority_step", Some(micros(config.priority_step))),
        ("critical_path", Some(config.critical_path.into())),
        ("steal_above", Some(config.steal_above as u64)),
        ("resume_window", Some(micros(config.resume_window))),
        ("progress", Some(micros(config.progress))),
        ("longest_wait", Some(micros(config.longest_wait))),
        ("flatline", Some(micros(config.flatline))),
        ("finished_bytes", Some(config.finished.bytes)),
        ("finished_age", config.finished.age.map(micros)),
        ("tasks", Some(limits.tasks as u64)),
        ("classes", Some(limits.classes as u64)),
        ("sessions", Some(limits.sessions as u64)),
        ("depth", Some(limits.depth.into())),
        ("children", Some(limits.children as u64)),
        ("leases", Some(limits.leases as u64)),
    ]
}

/// The settings as text: each process says with each call how its fleet behaves, in as few bytes as possible.
pub(super) fn settings(config: &Config, gone_after: Duration) -> String {
    // Scripts keep 53 bits of a number.
    let exact = |number: u64| number.min(Timestamp::MAX.as_micros()).to_string();
    let text = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), exact);
    numbers(config, gone_after).map(|(_, number)| text(number)).join(" ")
}
