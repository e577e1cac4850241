//! Receiving from a group on Redis.
//!
//! Each wait has a ticket, which rises. Repeated under its ticket, a take gets the deliveries that were handed out under it:
//! so neither a lost reply nor a lost push loses anything. A consumer has one ticket at a time; who drops a wait leaves its
//! ticket behind, for the next call to go on with, or to be given back.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::delivery::Delivery;
use crate::error::Error;
use crate::event::Position;
use crate::redis::codec;
use crate::redis::keeper;
use crate::redis::post::Letterbox;
use crate::redis::reply::Reply;
use crate::redis::scripts::{CANCEL, JOIN, LEAVE, TAKE};
use crate::redis::store::{Call, Membership, PAUSE, RedisStore};
use crate::settle::{Receipt, Recipient, Settle};
use crate::subscription::{Consumer, Subscribe};
use crate::time::Timestamp;

/// How long a wait that was dropped is left in place, in case the next one follows at once.
const GRACE: Duration = Duration::from_millis(10);

/// At most so many deliveries are asked for at once.
const MOST: usize = 500;

/// Where a consumer stands in its group.
#[derive(Debug)]
struct Place {
    recipient: Arc<Recipient>,
    letterbox: Arc<Letterbox>,
}

/// What a consumer has open with the server.
#[derive(Debug)]
struct Turn {
    place: Place,
    /// The ticket of a wait that has not ended, and for how many.
    open: Option<(u64, usize)>,
}

#[derive(Debug)]
struct Inner {
    store: RedisStore,
    settle: Arc<dyn Settle>,
    how: Subscribe,
    bus_closed: watch::Receiver<bool>,
    closed: watch::Sender<bool>,
    /// Held by whoever waits; others wait for it in turn.
    turn: tokio::sync::Mutex<Turn>,
    membership: Arc<Membership>,
    /// Under which the keeper knows it.
    number: u64,
    last_ticket: AtomicU64,
    /// The last ticket that has ended.
    done: AtomicU64,
    left: AtomicBool,
}

/// One member of a group.
#[derive(Debug)]
pub(super) struct RedisConsumer {
    inner: Arc<Inner>,
}

/// What a take came to.
enum Taken {
    Deliveries(Vec<Delivery>),
    Nothing,
    /// The group or the member is not there any more.
    Lost,
    /// The ticket is not to be used any more.
    Superseded,
}

impl RedisStore {
    /// Joins a group, or returns to one that was lost.
    async fn join(&self, how: &Subscribe, again: bool) -> Result<Recipient, Error> {
        let mut call = self.call_once(JOIN);
        call.arg(how.topic.as_str());
        call.arg(how.group.as_str());
        let (start, position) = codec::start(how.start);
        call.arg(start);
        call.number(position);
        call.arg(how.consumer.as_ref().map(|name| name.as_str()).unwrap_or_default());
        call.number(how.prefetch);
        call.number(how.ack_timeout.unwrap_or(self.config().ack_timeout).as_micros());
        call.arg(how.deliveries.map(|deliveries| deliveries.to_string()).unwrap_or_default());
        call.number(u8::from(again));
        let answer = call.answer().await?;
        let number = |nth: usize| answer.get(nth).and_then(Reply::as_u64);
        let (topic, group) = (how.topic.clone(), how.group.clone());
        match (answer.get(0).and_then(Reply::as_str), number(1), number(2)) {
            (Some("ok"), Some(incarnation), Some(consumer)) => Ok(Recipient { topic, group, incarnation, consumer }),
            (Some("not_retained"), Some(oldest), _) => {
                Err(Error::NotRetained { topic, position, oldest: Position::new(oldest) })
            }
            (Some("groups"), Some(actual), _) => Err(Error::LimitExceeded {
                limit: "groups",
                what: format!("topic {topic}"),
                actual,
                max: self.config().limits.groups as u64,
            }),
            _ => {
                let refusal = crate::redis::publish::refusal(&answer, &self.config().limits);
                Err(refusal.unwrap_or_else(|| Call::unexpected(JOIN, &answer)))
            }
        }
    }
}

impl RedisConsumer {
    /// Joins a group.
    pub(super) async fn join(
        store: RedisStore,
        settle: Arc<dyn Settle>,
        how: &Subscribe,
        bus_closed: watch::Receiver<bool>,
    ) -> Result<Self, Error> {
        let recipient = store.join(how, false).await?;
        let number = store.number();
        let letterbox = store.shared.post.open_box(recipient.consumer);
        let membership = Arc::new(Membership {
            incarnation: AtomicU64::new(recipient.incarnation),
            consumer: AtomicU64::new(recipient.consumer),
            waits: AtomicU64::new(0),
        });
        let mut members = store.shared.members.lock().unwrap_or_else(PoisonError::into_inner);
        members.insert(number, Arc::clone(&membership));
        drop(members);
        let place = Place { recipient: Arc::new(recipient), letterbox };
        let inner = Inner {
            store,
            settle,
            how: how.clone(),
            bus_closed,
            closed: watch::Sender::new(false),
            turn: tokio::sync::Mutex::new(Turn { place, open: None }),
            membership,
            number,
            last_ticket: AtomicU64::new(0),
            done: AtomicU64::new(0),
            left: AtomicBool::new(false),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// What the bus keeps to close it.
    pub(super) fn closer(&self) -> Closer {
        Closer { inner: Arc::downgrade(&self.inner) }
    }
}

impl Inner {
    fn is_closed(&self) -> bool {
        *self.closed.borrow() || *self.bus_closed.borrow()
    }

    /// Ends when the consumer or its bus is closed. A bus that is dropped is not closed.
    async fn closing(&self) {
        let (mut one, mut other) = (self.closed.subscribe(), self.bus_closed.clone());
        tokio::select! {
            Ok(_) = one.wait_for(|closed| *closed) => {}
            Ok(_) = other.wait_for(|closed| *closed) => {}
        }
    }

    async fn next(self: &Arc<Self>, max: usize) -> Result<Vec<Delivery>, Error> {
        keeper::ensure(&self.store.shared)?;
        tokio::select! {
            biased;
            () = self.closing() => Ok(Vec::new()),
            taken = self.wait(max.min(MOST)) => taken,
        }
    }

    /// Waits for deliveries. A wait that is dropped leaves its ticket behind.
    async fn wait(self: &Arc<Self>, max: usize) -> Result<Vec<Delivery>, Error> {
        let mut lost = self.store.shared.post.lost();
        let mut turn = self.turn.lock().await;
        let abandoned = Abandoned { inner: Some(self) };
        let mut ticket = loop {
            match self.open_ticket(&mut turn, max).await {
                Err(Error::Backend { retryable: true, .. }) => tokio::time::sleep(PAUSE).await,
                ticket => break ticket?,
            }
        };
        let deliveries = loop {
            keeper::ensure(&self.store.shared)?;
            lost.borrow_and_update();
            match self.take(&turn, ticket, max, true).await {
                Ok(Taken::Deliveries(deliveries)) => break deliveries,
                Ok(Taken::Nothing) => {}
                Ok(Taken::Lost) => {
                    self.rejoin(&mut turn).await?;
                    ticket = self.new_ticket(&mut turn, max);
                    continue;
                }
                Ok(Taken::Superseded) => {
                    ticket = self.new_ticket(&mut turn, max);
                    continue;
                }
                // A wait has time: the server will be back.
                Err(Error::Backend { retryable: true, .. }) => {
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
                Err(error) => {
                    abandoned.ended(&mut turn);
                    return Err(error);
                }
            }
            self.membership.waits.store(ticket, Ordering::Release);
            let told = tokio::select! {
                told = turn.place.letterbox.told(ticket) => told,
                _ = lost.changed() => None,
            };
            self.membership.waits.store(0, Ordering::Release);
            if let Some(deliveries) = told.and_then(|told| self.deliveries(&turn.place.recipient, &told)) {
                break deliveries;
            }
        };
        abandoned.ended(&mut turn);
        Ok(deliveries)
    }

    /// What can be had at once.
    async fn take_now(self: &Arc<Self>, max: usize) -> Result<Vec<Delivery>, Error> {
        let mut turn = match self.turn.try_lock() {
            Ok(turn) => turn,
            // Whoever holds the turn waits, since there is nothing.
            Err(_) if self.membership.waits.load(Ordering::Acquire) > 0 => return Ok(Vec::new()),
            Err(_) => self.turn.lock().await,
        };
        let abandoned = Abandoned { inner: Some(self) };
        let taken = loop {
            let ticket = self.open_ticket(&mut turn, max).await?;
            match self.take(&turn, ticket, max, false).await? {
                _ if self.is_closed() => break Vec::new(),
                Taken::Lost => self.rejoin(&mut turn).await?,
                Taken::Superseded => drop(self.new_ticket(&mut turn, max)),
                Taken::Nothing => break Vec::new(),
                Taken::Deliveries(deliveries) => break deliveries,
            }
        };
        abandoned.ended(&mut turn);
        Ok(taken)
    }

    fn new_ticket(&self, turn: &mut Turn, max: usize) -> u64 {
        let ticket = self.last_ticket.fetch_add(1, Ordering::AcqRel) + 1;
        turn.open = Some((ticket, max));
        ticket
    }

    /// The ticket of a wait that was dropped, if it was for as many; or a new one.
    async fn open_ticket(&self, turn: &mut Turn, max: usize) -> Result<u64, Error> {
        match turn.open {
            Some((ticket, same)) if same == max => Ok(ticket),
            Some((ticket, _)) => {
                self.cancel(&turn.place.recipient, ticket).await?;
                self.done.store(ticket, Ordering::Release);
                Ok(self.new_ticket(turn, max))
            }
            None => Ok(self.new_ticket(turn, max)),
        }
    }

    async fn take(&self, turn: &Turn, ticket: u64, max: usize, wait: bool) -> Result<Taken, Error> {
        let recipient = &turn.place.recipient;
        let mut call = self.store.call_again(TAKE);
        call.number(recipient.incarnation);
        call.number(recipient.consumer);
        call.number(ticket);
        call.number(self.done.load(Ordering::Acquire));
        call.number(max);
        call.number(u8::from(wait));
        let answer = call.answer().await?;
        match answer.get(0).and_then(Reply::as_str) {
            Some("ok") => {}
            Some("lost") => return Ok(Taken::Lost),
            Some("superseded") => return Ok(Taken::Superseded),
            Some("removed") => {
                self.forget(recipient.consumer);
                let Recipient { topic, group, .. } = &**recipient;
                return Err(Error::UnknownGroup { topic: topic.clone(), group: group.clone() });
            }
            _ => return Err(Call::unexpected(TAKE, &answer)),
        }
        let deliveries = answer.get(1).and_then(|told| self.deliveries(recipient, told));
        match deliveries {
            Some(deliveries) if deliveries.is_empty() => Ok(Taken::Nothing),
            Some(deliveries) => Ok(Taken::Deliveries(deliveries)),
            None => Err(Call::unexpected(TAKE, &answer)),
        }
    }

    /// Reads deliveries: runs of events that are alike in the numbers of deliveries and attempts and in the deadline.
    fn deliveries(&self, recipient: &Arc<Recipient>, told: &Reply) -> Option<Vec<Delivery>> {
        let mut deliveries = Vec::new();
        for run in told.as_list()? {
            let [delivery, attempt, deadline, id, texts @ ..] = run.as_list()? else { return None };
            let (delivery, attempt) = (delivery.as_u64()?.try_into().ok()?, u32::try_from(attempt.as_u64()?).ok()?);
            let deadline = Timestamp::from_micros(deadline.as_u64()?);
            for event in codec::run(id, texts)? {
                let event = Arc::new(codec::event(&recipient.topic, event)?);
                let receipt = Receipt::new(Arc::clone(recipient), event.position, delivery);
                deliveries.push(Delivery::new(event, attempt, deadline, receipt, Arc::clone(&self.settle)));
            }
            self.store.arm(deadline);
        }
        Some(deliveries)
    }

    /// Joins the group anew, after the server has forgotten the group or this member.
    async fn rejoin(&self, turn: &mut Turn) -> Result<(), Error> {
        let recipient = loop {
            match self.store.join(&self.how, true).await {
                Err(Error::Backend { retryable: true, .. }) => tokio::time::sleep(PAUSE).await,
                joined => break joined?,
            }
        };
        let post = &self.store.shared.post;
        post.close_box(turn.place.recipient.consumer);
        let letterbox = post.open_box(recipient.consumer);
        self.membership.incarnation.store(recipient.incarnation, Ordering::Release);
        self.membership.consumer.store(recipient.consumer, Ordering::Release);
        turn.place = Place { recipient: Arc::new(recipient), letterbox };
        turn.open = None;
        self.done.store(self.last_ticket.load(Ordering::Acquire), Ordering::Release);
        Ok(())
    }

    async fn cancel(&self, recipient: &Recipient, ticket: u64) -> Result<(), Error> {
        let mut call = self.store.call_again(CANCEL);
        call.number(recipient.incarnation);
        call.number(recipient.consumer);
        call.number(ticket);
        call.answer().await.map(drop)
    }

    /// Gives back the ticket of a wait that was dropped, unless somebody went on with it.
    async fn give_back(self: Arc<Self>) {
        tokio::time::sleep(GRACE).await;
        let Ok(mut turn) = self.turn.try_lock() else { return };
        if let Some((ticket, _)) = turn.open
            && !self.left.load(Ordering::Acquire)
            && self.cancel(&turn.place.recipient, ticket).await.is_ok()
        {
            turn.open = None;
            self.done.store(ticket, Ordering::Release);
        }
    }

    /// Leaves the group. It does not wait for its turn: a wait that nobody polls would never give it.
    async fn leave(&self) -> Result<(), Error> {
        self.closed.send_replace(true);
        if self.left.load(Ordering::Acquire) {
            return Ok(());
        }
        let consumer = self.membership.consumer.load(Ordering::Acquire);
        self.forget(consumer);
        let mut call = self.store.call_again(LEAVE);
        call.number(self.membership.incarnation.load(Ordering::Acquire));
        call.number(consumer);
        call.number(self.done.load(Ordering::Acquire));
        call.answer().await?;
        self.left.store(true, Ordering::Release);
        Ok(())
    }

    fn forget(&self, consumer: u64) {
        self.store.shared.post.close_box(consumer);
        self.store.shared.members.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.number);
    }
}

/// A wait that has begun; dropped, its ticket is given back.
struct Abandoned<'a> {
    inner: Option<&'a Arc<Inner>>,
}

impl Abandoned<'_> {
    fn ended(mut self, turn: &mut Turn) {
        if let (Some(inner), Some((ticket, _))) = (self.inner.take(), turn.open.take()) {
            inner.done.store(ticket, Ordering::Release);
        }
    }
}

impl Drop for Abandoned<'_> {
    fn drop(&mut self) {
        if let (Some(inner), Ok(runtime)) = (self.inner, Handle::try_current()) {
            inner.membership.waits.store(0, Ordering::Release);
            runtime.spawn(Arc::clone(inner).give_back());
        }
    }
}

/// What a bus keeps of a consumer, to close it.
#[derive(Clone, Debug)]
pub(super) struct Closer {
    inner: std::sync::Weak<Inner>,
}

impl Closer {
    pub(super) fn is_of(&self, other: &Self) -> bool {
        self.inner.ptr_eq(&other.inner)
    }

    pub(super) fn is_gone(&self) -> bool {
        self.inner.strong_count() == 0
    }

    pub(super) async fn close(&self) -> Result<(), Error> {
        match self.inner.upgrade() {
            Some(inner) => inner.leave().await,
            None => Ok(()),
        }
    }
}

impl Drop for RedisConsumer {
    fn drop(&mut self) {
        self.inner.closed.send_replace(true);
        if let Ok(runtime) = Handle::try_current() {
            let inner = Arc::clone(&self.inner);
            runtime.spawn(async move {
                while let Err(Error::Backend { retryable: true, .. }) = inner.leave().await {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            });
        }
    }
}

#[async_trait]
impl Consumer for RedisConsumer {
    async fn next(&self, max: usize) -> Result<Vec<Delivery>, Error> {
        self.inner.next(max).await
    }

    async fn take(&self, max: usize) -> Result<Vec<Delivery>, Error> {
        if self.inner.is_closed() {
            return Ok(Vec::new());
        }
        self.inner.take_now(max.min(MOST)).await
    }

    async fn close(&self) -> Result<(), Error> {
        self.inner.leave().await
    }
}
