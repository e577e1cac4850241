//! What was pushed to this process, and who waits for it.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, watch};

use crate::redis::reply::Reply;

/// What one consumer was told: under which ticket, and the deliveries, unless they are to be fetched.
pub(super) type Told = (u64, Option<Reply>);

/// The letterbox of one consumer.
#[derive(Debug, Default)]
pub(super) struct Letterbox {
    told: Mutex<VecDeque<Told>>,
    notify: Notify,
}

impl Letterbox {
    /// Tells whoever waits at this letterbox.
    pub(super) fn put(&self, told: Told) {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).push_back(told);
        // Who comes too late for the first is told by the second; who was told first may never look.
        self.notify.notify_waiters();
        self.notify.notify_one();
    }

    /// What was told under this ticket. What came under others is no longer of interest.
    fn get(&self, ticket: u64) -> Option<Option<Reply>> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found = None;
        told.retain_mut(|(other, deliveries)| {
            if *other == ticket {
                found = Some(deliveries.take());
            }
            *other > ticket
        });
        found
    }

    /// Waits for what is told under a ticket.
    pub(super) async fn told(&self, ticket: u64) -> Option<Reply> {
        loop {
            if let Some(found) = self.get(ticket) {
                return found;
            }
            self.notify.notified().await;
        }
    }
}

/// The post office of a process.
#[derive(Debug)]
pub(super) struct Post {
    boxes: Mutex<HashMap<u64, Arc<Letterbox>>>,
    tails: Mutex<HashMap<String, watch::Sender<u64>>>,
    wakes: Mutex<HashMap<String, watch::Sender<u64>>>,
    /// Rises when what was pushed may have been lost, so that everybody asks again.
    lost: watch::Sender<u64>,
    /// Rises when the fleet is not the one that it was.
    epoch: watch::Sender<u64>,
    connection: Notify,
    broken: AtomicU64,
}

impl Default for Post {
    fn default() -> Self {
        Self {
            boxes: Mutex::default(),
            tails: Mutex::default(),
            wakes: Mutex::default(),
            lost: watch::Sender::new(0),
            epoch: watch::Sender::new(0),
            connection: Notify::new(),
            broken: AtomicU64::new(0),
        }
    }
}

impl Post {
    /// The letterbox of a consumer, as long as nobody closes it.
    pub(super) fn open_box(&self, consumer: u64) -> Arc<Letterbox> {
        let mut boxes = self.boxes.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(boxes.entry(consumer).or_default())
    }

    pub(super) fn close_box(&self, consumer: u64) {
        self.boxes.lock().unwrap_or_else(PoisonError::into_inner).remove(&consumer);
    }

    /// Rises with each event of a topic that somebody here has asked for.
    pub(super) fn tail(&self, topic: &str) -> watch::Receiver<u64> {
        let mut tails = self.tails.lock().unwrap_or_else(PoisonError::into_inner);
        tails.retain(|_, tail| tail.receiver_count() > 0);
        tails.entry(topic.to_owned()).or_insert_with(|| watch::Sender::new(0)).subscribe()
    }

    /// Rises when a script wakes `name`.
    pub(super) fn wake(&self, name: &str) -> watch::Receiver<u64> {
        let mut wakes = self.wakes.lock().unwrap_or_else(PoisonError::into_inner);
        wakes.retain(|_, wake| wake.receiver_count() > 0);
        wakes.entry(name.to_owned()).or_insert_with(|| watch::Sender::new(0)).subscribe()
    }

    pub(super) fn lost(&self) -> watch::Receiver<u64> {
        self.lost.subscribe()
    }

    pub(super) fn epoch(&self) -> watch::Receiver<u64> {
        self.epoch.subscribe()
    }

    /// Everybody who waits asks again.
    pub(super) fn ask_again(&self) {
        let rise = |number: &mut u64| *number += 1;
        self.lost.send_modify(rise);
        for listeners in [&self.tails, &self.wakes] {
            let listeners = listeners.lock().unwrap_or_else(PoisonError::into_inner);
            listeners.values().for_each(|listener| listener.send_modify(rise));
        }
    }

    /// The fleet is not the one that it was: positions begin anew.
    pub(super) fn begin_epoch(&self) {
        self.epoch.send_modify(|number| *number += 1);
        self.ask_again();
    }

    /// There is a new connection: what was pushed in between is lost.
    pub(super) fn connected(&self) {
        self.ask_again();
        self.connection.notify_one();
    }

    /// A connection of this number has ended.
    pub(super) fn disconnected(&self, generation: u64) {
        self.broken.fetch_max(generation, Ordering::AcqRel);
        self.connection.notify_one();
    }

    /// The number of the latest connection that has ended.
    pub(super) fn broken(&self) -> u64 {
        self.broken.load(Ordering::Acquire)
    }

    /// Waits until the connection changes.
    pub(super) async fn connection(&self) {
        self.connection.notified().await;
    }

    /// A script woke whoever listens for a name. Without a name it says that the fleet was lost and made anew.
    pub(super) fn woken(&self, name: &[u8]) {
        if name.is_empty() {
            self.connection.notify_one();
        }
        self.raise(&self.wakes, &String::from_utf8_lossy(name));
    }

    /// Delivers a message to this process: consumer, ticket, and what was delivered, if it came along; or a topic that goes on.
    pub(super) fn deliver(&self, packed: Vec<u8>) {
        let Some(Reply::List(parts)) = Reply::unpack(&packed.into()) else { return };
        let mut parts = parts.into_iter();
        match (parts.next(), parts.next(), parts.next()) {
            (Some(Reply::Int(consumer)), Some(ticket), deliveries) => {
                let (Ok(consumer), Some(ticket)) = (u64::try_from(consumer), ticket.as_u64()) else { return };
                let boxes = self.boxes.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(letterbox) = boxes.get(&consumer) {
                    letterbox.put((ticket, deliveries));
                }
            }
            (Some(topic), ..) => self.raise(&self.tails, topic.as_str().unwrap_or_default()),
            _ => {}
        }
    }

    fn raise(&self, listeners: &Mutex<HashMap<String, watch::Sender<u64>>>, name: &str) {
        let listeners = listeners.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(listener) = listeners.get(name) {
            listener.send_modify(|number| *number += 1);
        }
    }
}
