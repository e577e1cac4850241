//! How tasks lie there: terms that scripts read, and a text that only sessions read, attributes as JSON and data as they are.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::capability::Capabilities;
use crate::config::Config;
use crate::dependency::{OnFailure, TaskId, TaskRef};
use crate::entry::Params;
use crate::lease::{Grant, Incarnation, Lease, Preempted, Token};
use crate::name::{IdempotencyKey, Subject, Tag, TaskKind};
use crate::new_task::{NewTask, When};
use crate::outcome::{Cause, Outcome, Run, RunEnd, TaskResult};
use crate::priority::Priority;
use crate::redis::reply::Reply;
use crate::redis::store::Call;
use crate::swarm::SwarmId;
use crate::task::{Submitted, Task, TaskState, TaskStatus};
use crate::text::Text;
use crate::time::Timestamp;
use crate::trace::TraceToken;

/// Where the state of a task is kept.
pub(super) fn task_field(task: TaskId) -> String {
    format!("{:016}", task.get())
}

/// Where a session is kept.
pub(super) fn session_field(session: &Incarnation) -> String {
    format!("session:{}", session.number)
}

/// What a task says to sessions, besides its data.
#[derive(Serialize, Deserialize)]
struct Attributes<'a, R> {
    source: R,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subject: Option<Subject>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    datacontenttype: Option<Text>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    idempotencykey: Option<IdempotencyKey>,
    #[serde(default, skip_serializing_if = "<[Tag]>::is_empty")]
    tags: std::borrow::Cow<'a, [Tag]>,
    #[serde(default, skip_serializing_if = "Capabilities::is_empty")]
    requires: Capabilities,
}

/// What came out of a task, besides its data.
#[derive(Default, Serialize, Deserialize)]
struct ResultAttributes {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    datacontenttype: Option<Text>,
    #[serde(default)]
    evidence: Params,
}

/// JSON, which has no line feed, a line feed, and data.
fn text(attributes: &impl Serialize, data: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(256 + data.len());
    // Names and texts all have a JSON form.
    serde_json::to_writer(&mut text, attributes).unwrap_or_default();
    text.push(b'\n');
    text.extend_from_slice(data);
    text
}

fn split(text: &Bytes) -> Option<(&[u8], Bytes)> {
    let end = text.iter().position(|byte| *byte == b'\n')?;
    Some((&text[..end], text.slice(end + 1..)))
}

/// Requirements or offers as scripts read them.
pub(super) fn words(capabilities: &Capabilities) -> String {
    capabilities.iter().map(|capability| capability.as_str()).collect::<Vec<_>>().join(" ")
}

pub(super) fn from_words(words: &str) -> Option<Capabilities> {
    Capabilities::new(words.split_whitespace()).ok()
}

/// Numbers as scripts unpack them: the most significant byte first.
#[derive(Default)]
struct Packed(Vec<u8>);

impl Packed {
    /// A number of so many bytes, of which scripts keep 53 bits.
    fn number(&mut self, number: u64, bytes: usize) {
        self.0.extend_from_slice(&number.min(Timestamp::MAX.as_micros()).to_be_bytes()[8 - bytes..]);
    }

    fn duration(&mut self, duration: Duration) {
        self.number(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX), 7);
    }

    fn when(&mut self, when: Option<When>) -> u64 {
        match when {
            None => self.number(0, 7),
            Some(When::At(at)) => self.number(at.as_micros(), 7),
            Some(When::In(delay)) => {
                self.duration(delay);
                return 1;
            }
        }
        0
    }
}

fn quoted(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// Writes new tasks as arguments: how many, and four for each. `parent` is what they are parts of unless they say otherwise.
pub(super) fn write_tasks(call: &mut Call<'_>, tasks: &[NewTask], parent: Option<TaskId>, config: &Config) {
    call.number(tasks.len());
    for task in tasks {
        let attributes = Attributes {
            source: &task.source,
            subject: task.subject.clone(),
            datacontenttype: task.content_type.clone(),
            idempotencykey: task.key.clone(),
            tags: task.tags.as_slice().into(),
            requires: task.requires.clone(),
        };
        let text = text(&attributes, &task.data);
        call.arg(head(task, text.len(), config));
        call.arg(words(&task.requires));
        call.arg(entry(task, parent));
        call.arg(text);
    }
}

fn head(task: &NewTask, bytes: usize, config: &Config) -> Vec<u8> {
    let mut head = Packed::default();
    head.number(task.attempts.unwrap_or(config.attempts).into(), 4);
    head.duration(task.lease.unwrap_or(config.lease));
    head.duration(task.timeout.unwrap_or_default());
    let start_in = head.when(task.start);
    // A deadline of the epoch has passed, too.
    let deadline_in = match task.deadline {
        Some(When::At(at)) => head.when(Some(When::At(at.max(Timestamp::from_micros(1))))),
        Some(When::In(delay)) => head.when(Some(When::In(delay.max(Duration::from_micros(1))))),
        None => head.when(None),
    };
    head.number(task.parent.map_or(0, TaskId::get), 7);
    head.number(bytes as u64, 4);
    head.number(task.priority().level().into(), 1);
    head.number(start_in, 1);
    head.number(deadline_in, 1);
    head.0.extend_from_slice(&fingerprint(task));
    let texts = [
        task.key.as_ref().map(|key| key.as_str()).unwrap_or_default(),
        task.assignee.as_ref().map(|assignee| assignee.as_str()).unwrap_or_default(),
        task.kind.as_str(),
        &task.trace.map(|trace| trace.to_string()).unwrap_or_default(),
    ];
    texts.iter().for_each(|text| head.number(text.len() as u64, 2));
    head.number(task.after.len() as u64, 2);
    texts.iter().for_each(|text| head.0.extend_from_slice(text.as_bytes()));
    for dependency in &task.after {
        head.number(dependency.on_failure as u64, 1);
        match &dependency.on {
            TaskRef::Id(id) => {
                head.number(0, 1);
                head.number(id.get(), 7);
            }
            TaskRef::Key(key) => {
                head.number(1, 1);
                head.number(key.as_str().len() as u64, 7);
                head.0.extend_from_slice(key.as_str().as_bytes());
            }
        }
    }
    head.0
}

/// Two tasks under one key must agree in it.
fn fingerprint(task: &NewTask) -> [u8; 32] {
    let mut hash = Sha256::new();
    let text = |text: Option<&str>| text.map(str::to_owned);
    let said = [
        text(Some(task.kind.as_str())),
        text(task.subject.as_ref().map(|subject| subject.as_str())),
        text(task.content_type.as_deref()),
        text(Some(&words(&task.requires))),
    ];
    for said in said {
        hash.update([u8::from(said.is_some())]);
        let said = said.unwrap_or_default();
        hash.update((said.len() as u64).to_be_bytes());
        hash.update(said.as_bytes());
    }
    hash.update(&task.data);
    hash.finalize().into()
}

/// What the journal says of a task that is submitted, from its parameters on.
fn entry(task: &NewTask, parent: Option<TaskId>) -> String {
    let parent = task.parent.or(parent).map(|parent| format!(r#","parent":{parent}"#)).unwrap_or_default();
    let trace = task.trace.map(|trace| format!(r#","trace":"{trace}""#)).unwrap_or_default();
    format!(
        r#""params":{{"kind":{},"priority":"{}","source":"{}"{parent}}},"severity":"INFO"{trace}}}"#,
        quoted(&task.kind),
        task.priority(),
        task.source
    )
}

/// What came out of a task, as text; empty if nothing did.
pub(super) fn result_text(result: &TaskResult) -> Vec<u8> {
    if *result == TaskResult::default() {
        return Vec::new();
    }
    let attributes =
        ResultAttributes { datacontenttype: result.content_type.clone(), evidence: result.evidence.clone() };
    text(&attributes, &result.data)
}

/// What shows that it is one, as more parameters of an entry.
pub(super) fn evidence(result: &TaskResult) -> String {
    let object = quoted(&result.evidence);
    let params = object.trim_start_matches('{').strip_suffix('}').unwrap_or_default();
    if params.is_empty() { String::new() } else { format!(",{params}") }
}

fn result(said: &Bytes) -> Option<TaskResult> {
    if said.is_empty() {
        return Some(TaskResult::default());
    }
    let (attributes, data) = split(said)?;
    let attributes: ResultAttributes = serde_json::from_slice(attributes).ok()?;
    Some(TaskResult { content_type: attributes.datacontenttype, data, evidence: attributes.evidence })
}

/// Reads numbers as scripts pack them.
struct Unpacked<'a>(&'a [u8]);

impl Unpacked<'_> {
    fn number(&mut self, bytes: usize) -> Option<u64> {
        let (number, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(number.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn small(&mut self, bytes: usize) -> Option<u32> {
        u32::try_from(self.number(bytes)?).ok()
    }

    fn duration(&mut self) -> Option<Duration> {
        self.number(7).map(Duration::from_micros)
    }

    fn time(&mut self) -> Option<Timestamp> {
        self.number(7).map(Timestamp::from_micros)
    }

    fn text(&mut self, bytes: usize) -> Option<&str> {
        let (text, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        std::str::from_utf8(text).ok()
    }
}

/// A task: number, terms, text, what it was to come after.
pub(super) fn task(reply: &Reply) -> Option<Task> {
    let id = TaskId::new(reply.get(0)?.as_u64()?);
    let mut terms = Unpacked(reply.get(1)?.as_bytes()?);
    let (attributes, data) = split(reply.get(2)?.as_bytes()?)?;
    let attributes: Attributes<'_, SwarmId> = serde_json::from_slice(attributes).ok()?;
    let priority = Priority::ALL.get(usize::try_from(terms.number(1)?).ok()?).copied()?;
    let attempts = terms.small(4)?;
    let (lease, timeout) = (terms.duration()?, terms.duration()?);
    let (submitted, start, deadline) = (terms.time()?, terms.time()?, terms.time()?);
    let (depth, path) = (terms.small(4)?, terms.small(4)?);
    let parent = terms.number(7)?;
    let _bytes = terms.number(4)?;
    let (kind, trace) = (terms.small(2)? as usize, terms.small(2)? as usize);
    let kind: TaskKind = terms.text(kind)?.parse().ok()?;
    let trace = terms.text(trace)?;
    let trace: Option<TraceToken> = if trace.is_empty() { None } else { Some(trace.parse().ok()?) };
    Some(Task {
        id,
        kind,
        source: attributes.source,
        subject: attributes.subject,
        content_type: attributes.datacontenttype,
        data,
        key: attributes.idempotencykey,
        priority,
        tags: attributes.tags.into_owned(),
        requires: attributes.requires,
        after: edges(reply.get(3)?.as_bytes()?)?,
        parent: (parent > 0).then(|| TaskId::new(parent)),
        depth,
        submitted,
        start,
        deadline: (deadline > Timestamp::EPOCH).then_some(deadline),
        attempts,
        lease,
        timeout: (!timeout.is_zero()).then_some(timeout),
        path,
        trace,
    })
}

fn edges(packed: &[u8]) -> Option<Vec<(TaskId, OnFailure)>> {
    let edge = |packed: &[u8]| {
        let mut packed = Unpacked(packed);
        let on = TaskId::new(packed.number(7)?);
        let on_failure = match packed.number(1)? {
            0 => OnFailure::Fail,
            1 => OnFailure::Hold,
            _ => OnFailure::Run,
        };
        Some((on, on_failure))
    };
    packed.chunks(8).map(edge).collect()
}

/// A task in the hands of a session: after the task attempt, token, deadline, until when at the longest, what it waited for, and
/// why it goes on without that.
pub(super) fn grant(reply: &Reply) -> Option<Grant> {
    let number = |nth: usize| reply.get(nth)?.as_u64();
    let task = Arc::new(task(reply)?);
    let lease = Lease { task: task.id, token: Token::new(number(5)?) };
    let answers = reply.get(8)?.as_bytes()?.chunks(7).map(|id| Unpacked(id).number(7).map(TaskId::new));
    Some(Grant {
        attempt: u32::try_from(number(4)?).ok()?,
        lease,
        deadline: Timestamp::from_micros(number(6)?),
        expires: Some(number(7)?).filter(|expires| *expires > 0).map(Timestamp::from_micros),
        answers: answers.collect::<Option<_>>()?,
        preempted: preempted(reply.get(9)?)?.map(Box::new),
        task,
    })
}

/// Why a task goes on without what it waited for, if it does: how long it has waited, and the ring.
pub(super) fn preempted(reply: &Reply) -> Option<Option<Preempted>> {
    let Some(said) = reply.as_list() else { return Some(None) };
    let [waited, cycle] = said else { return None };
    Some(Some(Preempted::new(ids(cycle)?, Duration::from_micros(waited.as_u64()?))))
}

/// Numbers of tasks.
pub(super) fn ids(reply: &Reply) -> Option<Vec<TaskId>> {
    reply.as_list()?.iter().map(|id| id.as_u64().map(TaskId::new)).collect()
}

pub(super) fn grants(reply: &Reply) -> Option<Vec<Grant>> {
    reply.as_list()?.iter().map(grant).collect()
}

/// Where a task is, in a word.
pub(super) fn state(reply: &Reply) -> Option<TaskState> {
    let word = reply.as_str()?;
    TaskState::ALL.into_iter().find(|state| state.as_str() == word)
}

/// A task and where it is: after the task state, failures, session.
pub(super) fn status(reply: &Reply) -> Option<TaskStatus> {
    let failures = u32::try_from(reply.get(5)?.as_u64()?).ok()?;
    Some(TaskStatus::new(Arc::new(task(reply)?), state(reply.get(4)?)?, failures, session(reply.get(6)?)?))
}

/// The name of a session, or none where it is empty.
pub(super) fn session(reply: &Reply) -> Option<Option<SwarmId>> {
    match reply.as_str()? {
        "" => Some(None),
        session => session.parse().ok().map(Some),
    }
}

/// What became of tasks: numbers and whether each was there already, in turn.
pub(super) fn submitted(reply: &Reply) -> Option<Vec<Submitted>> {
    let Some(list) = reply.as_list() else { return Some(Vec::new()) };
    let one = |pair: &[Reply]| {
        Some(Submitted { id: TaskId::new(pair.first()?.as_u64()?), duplicate: pair.get(1)?.as_u64()? == 1 })
    };
    list.chunks(2).map(one).collect()
}

/// An attempt that failed: who, token, when it began and ended, how, why.
pub(super) fn run(reply: &Reply) -> Option<Run> {
    let number = |nth: usize| reply.get(nth)?.as_u64();
    let end = match reply.get(4)?.as_str()? {
        "failed" => RunEnd::Failed { reason: reply.get(5)?.as_str()?.to_owned().into() },
        "timed_out" => RunEnd::TimedOut,
        "stalled" => RunEnd::Stalled,
        "lost" => RunEnd::Lost,
        _ => return None,
    };
    let (started, ended) = (Timestamp::from_micros(number(2)?), Timestamp::from_micros(number(3)?));
    Some(Run::new(reply.get(0)?.as_str()?.parse().ok()?, Token::new(number(1)?), started, ended, end))
}

/// What became of a task: `done` and the result; `failed`, why, because of which other, and the attempts; `cancelled` and why.
pub(super) fn outcome(reply: &Reply) -> Option<Outcome> {
    Some(match reply.get(0)?.as_str()? {
        "done" => Outcome::Done(result(reply.get(1)?.as_bytes()?)?),
        "cancelled" => Outcome::Cancelled { reason: reply.get(1)?.as_str()?.to_owned().into() },
        "failed" => Outcome::Failed {
            cause: match reply.get(1)?.as_str()? {
                "attempts" => Cause::Attempts,
                "fatal" => Cause::Fatal,
                "overdue" => Cause::Overdue,
                "deadlock" => Cause::Deadlock { cycle: ids(reply.get(2)?)? },
                _ => Cause::Dependency { task: TaskId::new(reply.get(2)?.as_u64()?) },
            },
            history: reply.get(3)?.as_list()?.iter().map(run).collect::<Option<_>>()?,
        },
        _ => return None,
    })
}

/// A list of names of capabilities.
pub(super) fn capabilities(reply: &Reply) -> Option<Capabilities> {
    let names: Option<Vec<&str>> = reply.as_list()?.iter().map(Reply::as_str).collect();
    Capabilities::new(names?).ok()
}
