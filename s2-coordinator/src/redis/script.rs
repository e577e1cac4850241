//! Scripts: how a step is written for Redis.

use crate::config::Config;
use crate::time::Timestamp;

/// One verb in Lua. It defines `verb()`, which answers with a table, and runs between the prelude and the end of a step.
///
/// Its own arguments begin at `ARGV[5]`, and keys other than those of S² at `KEYS[2]`. `docs/wire/scripts.md` lists what the
/// prelude offers: `now`, `journal`, `publish`, `escalate`, `wake`, `int`, `number`, `arm`.
#[derive(Debug)]
pub struct Script {
    name: &'static str,
    body: &'static str,
}

impl Script {
    /// A script of this name, for errors and logs, with this body.
    #[must_use]
    pub const fn new(name: &'static str, body: &'static str) -> Self {
        Self { name, body }
    }

    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The whole text that the server runs.
    pub(super) fn source(&self, config: &str) -> String {
        let [step, topic, group, publish, sweep, place, letters, finish] = PRELUDE;
        [config, step, topic, group, publish, sweep, place, letters, self.body, finish].join("\n")
    }
}

const PRELUDE: [&str; 8] = [
    include_str!("lua/prelude/step.lua"),
    include_str!("lua/prelude/topic.lua"),
    include_str!("lua/prelude/group.lua"),
    include_str!("lua/prelude/publish.lua"),
    include_str!("lua/prelude/sweep.lua"),
    include_str!("lua/prelude/place.lua"),
    include_str!("lua/prelude/letters.lua"),
    include_str!("lua/prelude/finish.lua"),
];

/// The settings as Lua text: each process says in its scripts how its fleet behaves.
pub(super) fn constants(config: &Config, gone_after: u64) -> String {
    let micros = |duration: std::time::Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    let optional = |age: Option<std::time::Duration>| age.map_or_else(|| "false".to_owned(), |age| micros(age).to_string());
    let bounded = |number: u64| number.min(Timestamp::MAX.as_micros());
    let limits = &config.limits;
    let numbers = [
        ("ack_timeout", micros(config.ack_timeout)),
        ("deliveries", config.deliveries.into()),
        ("backoff_base", micros(config.backoff.base)),
        ("backoff_max", micros(config.backoff.max)),
        ("window", micros(config.idempotency_window)),
        ("group_expiry", micros(config.group_expiry)),
        ("gone_after", gone_after),
        ("topic_bytes", config.topics.bytes),
        ("journal_bytes", config.journal.bytes),
        ("backlog_bytes", limits.backlog_bytes),
        ("topics", limits.topics as u64),
        ("groups", limits.groups as u64),
        ("escalations", limits.escalations as u64),
        ("settles", limits.settles),
    ];
    let mut lines = String::from("local C = {\n");
    for (name, number) in numbers {
        lines.push_str(&format!("  {name} = {},\n", bounded(number)));
    }
    lines.push_str(&format!("  topic_age = {},\n", optional(config.topics.age)));
    lines.push_str(&format!("  journal_age = {},\n}}\n", optional(config.journal.age)));
    lines
}
