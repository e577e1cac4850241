//! The words of asking for help and giving it.

use std::collections::BTreeMap;

use s2_coordinator::{
    Capabilities, EventType, Invalid, NewEvent, Position, Preempted, Subject, SwarmId, TaskId, TaskKind, TaskResult,
    Text, Timestamp, Topic,
};
use s2_governor::Verified;
use serde::{Deserialize, Serialize};

/// The tasks by which somebody's help is asked for. Their payload is a [`HelpRequest`].
pub const HELP: TaskKind = TaskKind::from_static("s2.help");

/// The tasks by which help is organised; only the organiser of a fleet does them.
pub const RESCUE: TaskKind = TaskKind::from_static("s2.rescue");

/// Where it is told who was chosen to help and why, who was called off what it did, and of what use help was.
pub const RESCUES: Topic = Topic::from_static("rescues");

/// The session that organises help: one of the fleet at a time, in whatever process.
pub(crate) const ORGANISER: SwarmId = SwarmId::from_static("s2/organiser");

/// What only the organiser offers, and gets nothing else.
pub(crate) const ORGANISE: &str = "only:s2:organise";

/// The tasks that only people do: to answer a question.
pub(crate) const QUESTION: TaskKind = TaskKind::from_static("s2.question");

/// What only people offer.
pub(crate) const PERSON: &str = "only:s2:person";

/// What a rescue task says: somebody is blocked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rescue {
    pub(crate) blocked: TaskId,
    pub(crate) by: SwarmId,
    pub(crate) kind: TaskKind,
    pub(crate) subject: Option<Subject>,
    pub(crate) reason: Text,
    pub(crate) requires: Capabilities,
    /// Since when it has been blocked by this.
    pub(crate) since: Timestamp,
    /// How much a step of its priority weighs: 4 for P0 to 1 for P3.
    pub(crate) weight: u64,
}

/// What a helper is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct HelpRequest {
    /// The task that is blocked.
    pub blocked: TaskId,
    /// The session that is blocked.
    pub by: SwarmId,
    /// What that task is about.
    pub kind: TaskKind,
    /// What that task is about.
    pub subject: Option<Subject>,
    /// What stands in the way.
    pub reason: Text,
    /// What it takes to help.
    pub requires: Capabilities,
    /// Who is asked.
    pub helper: SwarmId,
    /// Why this one: its score, what it lacks, the bond.
    pub because: Text,
    /// What this helper in particular is to do, if the host says so ([`RescueHooks::details`](crate::RescueHooks::details)).
    pub details: Option<serde_json::Value>,
}

/// Who gave help that was accepted, and by which task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Helped {
    pub(crate) helper: SwarmId,
    pub(crate) task: TaskId,
}

/// What somebody found out for one who was blocked.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Answer {
    /// The task that has found it out.
    pub task: TaskId,
    /// Who did it, if help was organised.
    pub helper: Option<SwarmId>,
    /// What came out.
    pub result: TaskResult,
}

/// What became of a wait for help.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rescued {
    /// What came out; nothing if nobody could help.
    pub answers: Vec<Answer>,
    /// Why it goes on although the help is not there, if so: it would wait for ever, or has waited for too long.
    pub preempted: Option<Box<Preempted>>,
}

impl Rescued {
    /// The first answer, if there is one.
    #[must_use]
    pub fn first(&self) -> Option<&Answer> {
        self.answers.first()
    }
}

/// What is told on [`RESCUES`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
#[non_exhaustive]
pub enum RescueEvent {
    /// Helpers were looked for.
    Matched {
        /// The task that is blocked.
        blocked: TaskId,
        /// Its session.
        by: SwarmId,
        /// The task by which help is organised.
        rescue: TaskId,
        /// Who is asked, and why.
        helpers: Vec<(SwarmId, Text)>,
        /// Who is not, and why not: at most fifty.
        others: Vec<(SwarmId, Text)>,
    },
    /// A session that works is to hand its task back, and help.
    Recruited {
        /// The session.
        helper: SwarmId,
        /// The task by which it is asked.
        help: TaskId,
    },
    /// It was found out of what use help was.
    Verified {
        /// Who helped.
        helper: SwarmId,
        /// Who was blocked.
        by: SwarmId,
        /// What it took to help.
        requires: Capabilities,
        /// Of what use it was.
        outcome: Verified,
    },
    /// What was found out until now, so that it outlives the events that told it.
    Summed {
        /// Up to which position of [`RESCUES`].
        through: Position,
        /// Which part of the sum this is, of how many.
        part: (usize, usize),
        /// The records of some sessions, as [`TrackRecords`](s2_governor::TrackRecords) are stored.
        records: BTreeMap<SwarmId, serde_json::Value>,
    },
}

impl RescueEvent {
    /// The event by which it is told.
    pub(crate) fn told_by(&self, source: SwarmId) -> Result<NewEvent, Invalid> {
        let event_type = match self {
            Self::Matched { .. } => EventType::from_static("rescue.matched"),
            Self::Recruited { .. } => EventType::from_static("rescue.recruited"),
            Self::Verified { .. } => EventType::from_static("rescue.verified"),
            Self::Summed { .. } => EventType::from_static("rescue.summed"),
        };
        NewEvent::new(RESCUES, event_type, source).with_json(self)
    }
}
