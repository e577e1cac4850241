//! Numbers stay exact: times, positions, amounts.

use crate::{BILLS, CLERKS, LONG, MOST, ORDERS, entries, event, group};
use s2_coordinator::{
    AttemptEnd, Clock, ConsumerName, DeadLetters, Delivery, Escalation, EscalationId, EventBus, EventBusExt, EventId,
    IdempotencyKey, Inbox, ManualClock, NewEscalation, Position, RedisStore, Reply, Resolution, Script, Settled,
    Severity, Start, Subject, Subscribe, SwarmId, Text, Timestamp, Topic, Value,
};
use s2_tests::redis::unique_name;
use s2_tests::servers::RedisServer;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// 16 digits, late in the year 2254, and no round number in any unit.
const LATE: Timestamp = Timestamp::from_micros(8_976_543_210_987_653);

struct Late {
    server: RedisServer,
    store: RedisStore,
    clock: Arc<ManualClock>,
    name: SwarmId,
}

impl Late {
    async fn begin() -> Self {
        let (server, clock, name) = (RedisServer::start_volatile(), Arc::new(ManualClock::new(LATE)), unique_name());
        let builder = RedisStore::builder(name.clone()).with_clock(Arc::clone(&clock));
        let store = builder.connect(&server.url()).await.expect("a fleet");
        Self { server, store, clock, name }
    }

    fn passes(&self, micros: u64) -> Timestamp {
        self.clock.advance(Duration::from_micros(micros));
        self.clock.now()
    }
}

#[tokio::test]
async fn times_are_exact_to_the_microsecond() {
    let late = Late::begin().await;
    let bus = late.store.bus();
    let subscribe = Subscribe::new(ORDERS, CLERKS).with_consumer(ConsumerName::from_static("clerk")).with_deliveries(4);
    let clerk = bus.subscribe(&subscribe.with_ack_timeout(Duration::from_micros(30_000_007))).await.expect("a group");
    let placed = event(ORDERS).with_json(&MOST).expect("a number").with_time(Timestamp::from_micros(MOST));
    bus.publish(&[placed, event(ORDERS)]).await.expect("published");

    let published = bus.read(&ORDERS, Start::Beginning, 2).await.expect("read").items;
    assert_eq!((published[0].time, published[1].time), (Timestamp::from_micros(MOST), LATE));

    // Given back.
    let first_started = late.passes(1);
    let first = clerk.next().await.expect("no error").expect("a delivery");
    assert_eq!((first.event.position, first.attempt), (Position::new(1), 1));
    assert_eq!(first.event.json::<u64>().expect("a number"), MOST);
    assert_eq!(first.deadline, first_started + Duration::from_micros(30_000_007));
    let first_ended = late.passes(1_000_003);
    let retry_at = first_ended + Duration::from_micros(2_000_011);
    assert_eq!(first.nack(Duration::from_micros(2_000_011)).await.expect("given back"), Settled::Retrying(retry_at));

    // Extended and timed out.
    let second_started = late.passes(2_000_011);
    assert_eq!(second_started, retry_at);
    let second = clerk.next().await.expect("no error").expect("a delivery");
    assert_eq!((second.event.position, second.attempt), (Position::new(1), 2));
    assert_eq!(second.deadline, second_started + Duration::from_micros(30_000_007));
    let extended = late.passes(13) + Duration::from_micros(40_000_001);
    assert_eq!(second.extend(Duration::from_micros(40_000_001)).await.expect("extended"), extended);
    late.passes(40_000_000);
    assert_eq!(group(&bus, &ORDERS).await.in_flight, 1, "one microsecond is left");

    // Given back with a delay of the backoff's choice.
    let third_started = late.passes(77);
    let third = clerk.next().await.expect("no error").expect("a delivery");
    assert_eq!((third.event.position, third.attempt), (Position::new(1), 3));
    let third_ended = late.passes(9);
    let Settled::Retrying(later) = third.retry("again").await.expect("given back") else { panic!("not the last") };
    assert!(later > third_ended && later <= third_ended + Duration::from_secs(10), "{later}");

    // Refused.
    let fourth_started = late.passes(later.since(third_ended).as_micros().try_into().expect("soon"));
    assert_eq!(fourth_started, later);
    let fourth = clerk.next().await.expect("no error").expect("a delivery");
    assert_eq!((fourth.event.position, fourth.attempt), (Position::new(1), 4));
    let died = late.passes(1_234_567);
    fourth.dead_letter("poison").await.expect("refused");

    let letter = bus.dead_letters(&DeadLetters::all()).await.expect("letters").remove(0);
    assert_eq!((letter.died, letter.event.time), (died, Timestamp::from_micros(MOST)));
    let nacked =
        |reason: Option<&'static str>, at| AttemptEnd::Nacked { reason: reason.map(Text::from), retry_at: Some(at) };
    let history: Vec<_> =
        letter.history.iter().map(|attempt| (attempt.started, attempt.ended, attempt.end.clone())).collect();
    assert_eq!(
        history,
        [
            (first_started, first_ended, nacked(None, retry_at)),
            (second_started, extended, AttemptEnd::TimedOut),
            (third_started, third_ended, nacked(Some("again"), later)),
            (fourth_started, died, AttemptEnd::Refused { reason: "poison".into() }),
        ]
    );

    // Committed.
    let committed = late.passes(3);
    let last = clerk.next().await.expect("no error").expect("a delivery");
    last.commit(&[event(BILLS)]).await.expect("committed");
    assert_eq!(bus.read(&BILLS, Start::Beginning, 1).await.expect("read").items[0].time, committed);

    // Escalated and resolved.
    let raised = late.passes(11);
    let inbox = late.store.inbox();
    let escalation = NewEscalation::new(Subject::from_static("budget"), "exceeded");
    let id = inbox.escalate(escalation).await.expect("raised").id;
    late.passes(5_000_999);
    let pending = inbox.pending(EscalationId::default(), 1).await.expect("pending");
    assert_eq!(pending.iter().map(|pending: &Escalation| pending.raised).collect::<Vec<_>>(), [raised]);
    inbox.resolve(id, Resolution::new("ann", "resume")).await.expect("resolved");

    let told: Vec<(String, Timestamp)> =
        entries(&late.store).await.iter().map(|entry| (entry.operation.to_string(), entry.time)).collect();
    let at = |operation: &str, time| (operation.to_owned(), time);
    assert_eq!(
        told,
        [at("group_created", LATE), at("dead_letter", died), at("escalate", raised), at("resolve", late.clock.now())]
    );
    let journal = bus.read(&Topic::JOURNAL, Start::Beginning, 10).await.expect("read").items;
    assert_eq!(journal[1].time, died);
}

/// A topic that was forgotten goes on where it ended; here that is said to have been near the end of all numbers.
#[tokio::test]
async fn positions_are_exact_up_to_the_last() {
    const LAST: u64 = MOST - 1000;
    let late = Late::begin().await;
    let ended = format!("s2:{{{}}}:ended", late.name);
    assert_eq!(late.server.command(&["HSET", &ended, "orders", &LAST.to_string()]), "1");
    let bus = late.store.bus();
    let clerk = bus.subscribe(&Subscribe::new(ORDERS, CLERKS).with_deliveries(1)).await.expect("a group");
    let mut tail = bus.tail(&ORDERS, Start::Beginning).await.expect("a tail");
    let keyed = event(ORDERS).with_idempotency_key(IdempotencyKey::from_static("once"));
    let mut batch = vec![event(ORDERS); 100];
    batch[0] = keyed.clone();
    let published = bus.publish(&batch).await.expect("published");
    let positions: Vec<Position> = (LAST + 1..=LAST + 100).map(Position::new).collect();
    assert_eq!(published.iter().map(|published| published.position).collect::<Vec<_>>(), positions);
    let again = bus.publish_one(&keyed).await.expect("published");
    assert_eq!((again.position, again.duplicate), (positions[0], true));
    let read = bus.read(&ORDERS, Start::After(positions[49]), 500).await.expect("read");
    assert_eq!(read.items.iter().map(|event| event.position).collect::<Vec<_>>(), positions[50..]);
    assert_eq!(tail.next().await.expect("no error").expect("an event").position, positions[0]);

    let mut deliveries = clerk.next_batch(50).await.expect("deliveries");
    deliveries.extend(clerk.next_batch(50).await.expect("deliveries"));
    // The default prefetch is 64.
    assert_eq!(deliveries.iter().map(|delivery| delivery.event.position).collect::<Vec<_>>(), positions[..64]);
    let dead = deliveries.remove(33);
    let Settled::DeadLettered(id) = dead.dead_letter("poison").await.expect("refused") else { panic!("a dead letter") };
    for acked in Delivery::ack_all(&deliveries).await.expect("acks") {
        assert_eq!(acked.expect("acked"), Settled::Acked);
    }
    assert_eq!(group(&bus, &ORDERS).await.floor, positions[63]);
    let letter = bus.dead_letters(&DeadLetters::one(id)).await.expect("letters").remove(0);
    assert_eq!(letter.event.position, positions[33]);
    bus.redrive(&DeadLetters::one(id)).await.expect("redriven");
    let returned = clerk.next().await.expect("no error").expect("a delivery");
    assert_eq!(returned.event.position, positions[33], "those that come back, come first");
    returned.ack().await.expect("acked");
    let rest = clerk.next_batch(500).await.expect("deliveries");
    assert_eq!(rest.iter().map(|delivery| delivery.event.position).collect::<Vec<_>>(), positions[64..]);
    let entry = &entries(&late.store).await[0];
    assert_eq!(entry.params.get("starts_at"), Some(&Value::from(LAST + 1)), "{entry:?}");
}

static SPEND: Script = Script::new(
    "spend",
    r"
local function verb()
  journal {
    component = 'host', operation = 'spend', subject = ARGV[5], severity = 'LOW',
    params = {
      'amount', 9007199254740991, 'given', tonumber(ARGV[6]), 'less', -9007199254740991, 'list', { 9007199254740990, 'a' },
      'yes', true, 'time', now,
    },
  }
  wake(ARGV[5])
  return { 'ok', 9007199254740991, 'text' }
end
",
);

/// Answers with where the event stands, the number of the escalation, what a key of its own holds, and large numbers.
static SAY: Script = Script::new(
    "say",
    r"
local function verb()
  local answers = publish({ ARGV[5], ARGV[6], ARGV[7] .. '\n' .. int(9007199254740991) }, 1, 1)
  local raised = escalate { key = 'budget', reason = 'exceeded', payload = int(now), severity = 'CRITICAL' }
  call('SET', KEYS[2], int(9007199254740991))
  return { answers[1], raised[1], call('GET', KEYS[2]), { -9007199254740991, { now } }, number() }
end
",
);

#[tokio::test]
async fn a_script_of_the_host_is_one_step_with_exact_numbers() {
    let late = Late::begin().await;
    let amount = MOST.to_string();
    let mut heard = late.store.listen("budget").expect("a runtime");
    let mut unheard = late.store.listen("budge").expect("a runtime");
    heard.borrow_and_update();
    unheard.borrow_and_update();
    let answer = late.store.call(&SPEND, &[], &[b"budget", amount.as_bytes()]).await.expect("an answer");
    let text = |text: &'static str| Reply::Bytes(text.as_bytes().into());
    assert_eq!(answer, Reply::List(vec![text("ok"), Reply::Int(9_007_199_254_740_991), text("text")]));
    timeout(LONG, heard.changed()).await.expect("woken").expect("the store lives");
    assert!(!unheard.has_changed().expect("the store lives"), "another name");

    let entry = entries(&late.store).await.remove(0);
    assert_eq!((&*entry.component, &*entry.operation, &*entry.subject), ("host", "spend", "budget"));
    assert_eq!((entry.severity, entry.time, entry.position), (Severity::Low, LATE, Position::new(1)));
    let params: Vec<(&str, &Value)> = entry.params.iter().collect();
    let list = Value::List(Box::new([Value::Int(9_007_199_254_740_990), Value::from("a")]));
    assert_eq!(
        params,
        [
            ("amount", &Value::Int(9_007_199_254_740_991)),
            ("given", &Value::Int(9_007_199_254_740_991)),
            ("less", &Value::Int(-9_007_199_254_740_991)),
            ("list", &list),
            ("yes", &Value::Bool(true)),
            ("time", &Value::from(LATE.as_micros())),
        ]
    );

    let id = EventId::from_bits(MOST.into());
    let attributes = format!(r#"{{"id":"{id}","source":"host","type":"host.said"}}"#);
    let args = [b"orders".as_slice(), &id.to_bits().to_be_bytes(), attributes.as_bytes()];
    let answer = late.store.call(&SAY, &["x:own"], &args).await.expect("an answer");
    let Reply::List(parts) = &answer else { panic!("{answer:?}") };
    let now = i64::try_from(LATE.as_micros()).expect("a number");
    let numbers = Reply::List(vec![Reply::Int(-9_007_199_254_740_991), Reply::List(vec![Reply::Int(now)])]);
    assert_eq!(parts[..4], [Reply::Int(1), Reply::Int(1), text("9007199254740991"), numbers]);
    assert!(parts[4].as_int().is_some_and(|number| number >= now), "{answer:?}");
    let own = format!("s2:{{{}}}:x:own", late.name);
    assert_eq!(late.server.command(&["GET", &own]), amount, "keys have the prefix of the fleet");
    let said = late.store.bus().read(&ORDERS, Start::Beginning, 10).await.expect("read").items;
    assert_eq!((said.len(), said[0].id, said[0].json::<u64>().expect("a number")), (1, id, MOST));
    assert_eq!(said[0].time, LATE);
    let pending = late.store.inbox().pending(EscalationId::default(), 10).await.expect("pending");
    assert_eq!((pending.len(), pending[0].raised, pending[0].severity), (1, LATE, Severity::Critical));
    assert_eq!(&pending[0].payload[..], LATE.as_micros().to_string().as_bytes());
}
