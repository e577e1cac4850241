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
}

impl Script {
    /// A script of this name, for errors and logs, with this body.
    #[must_use]
    pub const fn new(name: &'static str, body: &'static str) -> Self {
        Self { name, body, frees: false }
    }

    pub(super) const fn frees(name: &'static str, body: &'static str) -> Self {
        Self { name, body, frees: true }
    }

    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    pub(super) const fn body(&self) -> &'static str {
        self.body
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
        let mut source = PRELUDE.join("\n");
        for Script { name, body, frees } in scripts {
            let flags = if *frees { "'allow-oom'" } else { "" };
            source.push_str(&format!(
                "\ndo\n{body}\nredis.register_function {{ function_name = LIBRARY .. '_{name}', callback = step(verb), \
                 flags = {{ {flags} }} }}\nend\n"
            ));
        }
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

/// The settings as text: each process says with each call how its fleet behaves.
pub(super) fn settings(config: &Config, gone_after: Duration) -> String {
    let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    let optional = |age: Option<Duration>| age.map_or_else(|| "none".to_owned(), |age| micros(age).to_string());
    let limits = &config.limits;
    let numbers = [
        ("ack_timeout", micros(config.ack_timeout)),
        ("deliveries", config.deliveries.into()),
        ("backoff_base", micros(config.backoff.base)),
        ("backoff_max", micros(config.backoff.max)),
        ("window", micros(config.idempotency_window)),
        ("group_expiry", micros(config.group_expiry)),
        ("gone_after", micros(gone_after)),
        ("topic_bytes", config.topics.bytes),
        ("journal_bytes", config.journal.bytes),
        ("backlog_bytes", limits.backlog_bytes),
        ("topics", limits.topics as u64),
        ("groups", limits.groups as u64),
        ("escalations", limits.escalations as u64),
        ("settles", limits.settles),
    ];
    let exact = |number: u64| number.min(Timestamp::MAX.as_micros());
    let mut text = numbers.map(|(name, number)| format!("{name}={}", exact(number))).join(" ");
    text.push_str(&format!(" topic_age={} journal_age={}", optional(config.topics.age), optional(config.journal.age)));
    text
}
