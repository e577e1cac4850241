//! Reading a stream.

use std::sync::Arc;

use crate::entry::Entry;
use crate::error::Error;
use crate::event::{Event, Position};
use crate::name::Topic;
use crate::redis::codec::{self, Recorded};
use crate::redis::reply::Reply;
use crate::redis::scripts::READ;
use crate::redis::store::{Call, RedisStore};
use crate::start::Start;

/// What was read of a topic.
#[derive(Debug)]
pub(super) struct Read {
    /// Where reading began.
    pub(super) from: Position,
    /// The oldest that is retained, or the next one.
    pub(super) oldest: Position,
    /// The next one.
    pub(super) end: Position,
    topic: Topic,
    answer: Reply,
}

impl Read {
    fn each<T>(&self, read: impl Fn(Recorded<'_>) -> Option<T>) -> Result<Vec<T>, Error> {
        let runs = self.answer.get(2).and_then(Reply::as_list).ok_or_else(|| self.unexpected())?;
        let mut found = Vec::new();
        for run in runs {
            let run = run.as_list().and_then(|run| codec::run(run.first()?, run.get(1..)?));
            for each in run.ok_or_else(|| self.unexpected())? {
                found.push(read(each).ok_or_else(|| self.unexpected())?);
            }
        }
        Ok(found)
    }

    fn unexpected(&self) -> Error {
        Call::unexpected(READ, &self.answer)
    }

    pub(super) fn events(&self) -> Result<Vec<Arc<Event>>, Error> {
        if self.topic == Topic::JOURNAL {
            return self.each(|each| codec::entry(each).map(|entry| Arc::new(entry.to_event())));
        }
        self.each(|each| codec::event(&self.topic, each).map(Arc::new))
    }

    pub(super) fn entries(&self) -> Result<Vec<Entry>, Error> {
        self.each(codec::entry)
    }
}

impl RedisStore {
    /// At most `limit` events from a start on.
    pub(super) async fn read(&self, topic: &Topic, start: Start, limit: usize) -> Result<Read, Error> {
        let (kind, position) = codec::start(start);
        self.read_as(topic, kind, position, limit).await
    }

    /// The events from a position on; where there are none, this process will be told of the next one.
    pub(super) async fn follow(&self, topic: &Topic, from: Position, limit: usize) -> Result<Read, Error> {
        self.read_as(topic, "tail", from, limit).await
    }

    async fn read_as(&self, topic: &Topic, kind: &str, position: Position, limit: usize) -> Result<Read, Error> {
        let mut call = self.call_again(READ);
        call.arg(topic.as_str());
        call.arg(kind);
        call.number(position);
        call.number(limit);
        let answer = call.answer().await?;
        let number = |nth: usize| answer.get(nth).and_then(Reply::as_u64).map(Position::new);
        match (answer.get(0).and_then(Reply::as_str), number(1)) {
            (Some("ok"), Some(from)) => {
                let oldest = number(3).unwrap_or(from);
                let end = number(4).unwrap_or(from);
                Ok(Read { from, oldest, end, topic: topic.clone(), answer })
            }
            (Some("not_retained"), Some(oldest)) => Err(Error::NotRetained { topic: topic.clone(), position, oldest }),
            _ => Err(Call::unexpected(READ, &answer)),
        }
    }
}
