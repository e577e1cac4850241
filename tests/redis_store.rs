//! What the fleet on Redis promises beyond the contracts: idle consumers cost nothing, numbers stay exact, a cluster will do,
//! errors say what is wrong, processes may die, memory may run out, and events may be large.

use std::error::Error as _;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use s2_coordinator::{
    AttemptEnd, Clock, Config, ConsumerName, DeadLetter, DeadLetters, Delivery, Entry, Error, Escalation, EscalationId,
    EventBus, EventBusExt, EventId, EventType, Group, GroupName, IdempotencyKey, Inbox, Journal, ManualClock,
    NewEscalation, NewEvent, Position, RedisBus, RedisStore, Reply, Resolution, Script, Settled, Severity, Start,
    Subject, Subscribe, SwarmId, Text, Timestamp, Topic, Value,
};
use s2_tests::redis::unique_name;
use s2_tests::servers::RedisServer;
use s2_tests::workers::{Worker, is_worker};
use tokio::time::{sleep, timeout};

const ORDERS: Topic = Topic::from_static("orders");
const BILLS: Topic = Topic::from_static("bills");
const CLERKS: GroupName = GroupName::from_static("clerks");
const OTHERS: GroupName = GroupName::from_static("others");

const LONG: Duration = Duration::from_secs(60);
const TICK: Duration = Duration::from_millis(10);
const MIB: usize = 1024 * 1024;
/// The largest whole number that Lua keeps exact.
const MOST: u64 = (1 << 53) - 1;

fn event(topic: Topic) -> NewEvent {
    NewEvent::new(topic, EventType::from_static("order.placed"), SwarmId::from_static("shop"))
}

async fn store(server: &RedisServer) -> RedisStore {
    RedisStore::connect(&server.url(), unique_name()).await.expect("a fleet")
}

/// Everything that an error says, causes and debug form included.
fn said(error: &Error) -> String {
    let mut text = format!("{error}");
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    format!("{text} ({error:?})")
}

async fn entries(store: &RedisStore) -> Vec<Entry> {
    let journal = store.journal();
    let start = journal.start().await.expect("a journal");
    journal.entries(start, 500).await.expect("entries").items
}

async fn group(bus: &RedisBus, topic: &Topic) -> Group {
    let mut groups = bus.groups(topic).await.expect("groups");
    assert_eq!(groups.len(), 1, "{groups:?}");
    groups.remove(0)
}

// a. Idle consumers.

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_idle_consumers_cost_nothing() {
    const SUBSCRIBERS: usize = 1000;
    // Two signs of life, whenever it begins.
    const WINDOW: Duration = Duration::from_secs(30);
    let (server, name) = (RedisServer::start_volatile(), unique_name());
    let bus = RedisStore::connect(&server.url(), name.clone()).await.expect("a fleet").bus();
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..SUBSCRIBERS {
        let subscription = bus.subscribe(&Subscribe::new(ORDERS, CLERKS)).await.expect("a subscription");
        waiting.spawn(async move { subscription.next().await });
    }
    let key = format!("s2:{{{name}}}:g:{}", group(&bus, &ORDERS).await.incarnation);
    let deadline = Instant::now() + LONG;
    while s2_tests::redis::waiting(&server, &key) != SUBSCRIBERS {
        assert!(Instant::now() < deadline, "not all wait");
        sleep(TICK).await;
    }

    let counted = || {
        let info = server.command(&["INFO", "everything"]);
        let number = |text: &str| text.split(',').next().and_then(|text| text.parse::<u64>().ok());
        let field = |name: &str| info.lines().find_map(|line| number(line.strip_prefix(name)?)).unwrap_or(0);
        let scripts = ["cmdstat_fcall:calls=", "cmdstat_evalsha:calls=", "cmdstat_eval:calls="].map(field);
        (scripts.iter().sum::<u64>(), field("total_commands_processed:"))
    };
    let before = counted();
    sleep(WINDOW).await;
    let after = counted();
    let clients: u32 = server.info("connected_clients").parse().expect("a number");
    // Without the time that this test asked.
    let (scripts, commands) = (after.0 - before.0, after.1 - before.1 - 1);
    println!(
        "{SUBSCRIBERS} idle consumers: {scripts} scripts, {commands} commands in {WINDOW:?}, {} clients",
        clients - 1
    );

    for batch in vec![event(ORDERS); SUBSCRIBERS].chunks(500) {
        bus.publish(batch).await.expect("published");
    }
    let received = timeout(LONG, waiting.join_all()).await.expect("everybody gets something");
    let mut positions: Vec<u64> = received
        .into_iter()
        .map(|received| received.expect("no error").expect("a delivery").event.position.get())
        .collect();
    positions.sort_unstable();
    assert_eq!(positions, (1..=SUBSCRIBERS as u64).collect::<Vec<_>>(), "all events, each once");

    assert!(clients - 1 <= 8, "{clients} clients, one of them the test's");
    assert!(scripts <= WINDOW.as_secs(), "{scripts} scripts in {WINDOW:?}");
    assert!(commands <= WINDOW.as_secs(), "{commands} commands, those within scripts included, in {WINDOW:?}");
}

// b. Numbers.

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
    let list = Value::List(vec![Value::Int(9_007_199_254_740_990), Value::from("a")]);
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

// c. A cluster.

#[tokio::test(flavor = "multi_thread")]
async fn everything_lies_in_one_slot_of_a_cluster() {
    let server = RedisServer::start_with(&[("cluster-enabled", "yes")]);
    assert_eq!(server.command(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]), "OK");
    let deadline = Instant::now() + LONG;
    while !server.command(&["CLUSTER", "INFO"]).contains("cluster_state:ok") {
        assert!(Instant::now() < deadline, "the cluster does not come up");
        sleep(TICK).await;
    }
    let store = store(&server).await;
    let (bus, inbox) = (store.bus(), store.inbox());
    let clerk = bus.subscribe(&Subscribe::new(ORDERS, CLERKS).with_deliveries(2)).await.expect("a group");
    let mut tail = bus.tail(&BILLS, Start::Now).await.expect("a tail");
    let told = tokio::spawn(async move { tail.next().await });
    let waiting = tokio::spawn(async move { (clerk.next().await, clerk) });
    let keyed = event(ORDERS).with_idempotency_key(IdempotencyKey::from_static("once"));
    bus.publish(&[keyed, event(ORDERS), event(ORDERS)]).await.expect("published");
    let (first, clerk) = timeout(LONG, waiting).await.expect("delivered").expect("no panic");
    first.expect("no error").expect("a delivery").commit(&[event(BILLS)]).await.expect("committed");
    let billed = timeout(LONG, told).await.expect("told").expect("no panic").expect("no error");
    assert_eq!(billed.expect("an event").topic, BILLS);

    let second = clerk.next().await.expect("no error").expect("a delivery");
    let Settled::DeadLettered(id) = second.dead_letter("poison").await.expect("refused") else {
        panic!("a dead letter")
    };
    bus.redrive(&DeadLetters::one(id)).await.expect("redriven");
    let again = clerk.next().await.expect("no error").expect("a delivery");
    assert_eq!((again.event.position, again.attempt), (Position::new(2), 1));
    again.nack(Duration::ZERO).await.expect("given back");
    let held = clerk.next().await.expect("no error").expect("a delivery");
    assert_eq!(held.attempt, 2);
    let raised = inbox.escalate(NewEscalation::new(Subject::from_static("budget"), "exceeded")).await.expect("raised");
    inbox.escalate(NewEscalation::new(Subject::from_static("other"), "exceeded")).await.expect("raised");
    inbox.resolve(raised.id, Resolution::new("ann", "resume")).await.expect("resolved");
    let third = clerk.next().await.expect("no error").expect("a delivery");
    third.dead_letter("poison").await.expect("refused");
    let operations: Vec<String> = entries(&store).await.iter().map(|entry| entry.operation.to_string()).collect();
    assert_eq!(
        operations,
        ["group_created", "dead_letter", "redrive", "escalate", "escalate", "resolve", "dead_letter"]
    );

    let keys = server.command(&["KEYS", "*"]);
    let slot = |key: &str| server.command(&["CLUSTER", "KEYSLOT", key]);
    let one = slot(keys.lines().next().expect("keys"));
    for key in keys.lines() {
        assert_eq!(slot(key), one, "{key}");
    }
    for kind in ["meta", "journal", "e:orders", "t:orders", "tg:orders", "k:orders", "letter", "escalation", "redriven"]
    {
        assert!(keys.lines().any(|key| key.ends_with(&format!(":{kind}"))), "no key {kind} among\n{keys}");
    }
}

// d. Errors.

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr()).expect("a port").port()
}

async fn refusal(url: &str) -> Error {
    RedisStore::connect(url, unique_name()).await.err().unwrap_or_else(|| panic!("connected to {url}"))
}

#[tokio::test]
async fn what_is_no_url_of_redis_is_said() {
    for url in ["", "127.0.0.1:6379", "http://127.0.0.1:6379", "redis://127.0.0.1:port", "redis://127.0.0.1/first"] {
        let error = refusal(url).await;
        let text = said(&error);
        assert!(matches!(error, Error::Backend { retryable: false, .. }), "{url}: {text}");
        // It need not say which: there may be a password in it, where nobody expects one.
        assert!(text.contains("is not a Redis URL"), "{url}: {text}");
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_said_at_once() {
    let port = free_port();
    let begun = Instant::now();
    let error = refusal(&format!("redis://127.0.0.1:{port}")).await;
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    let text = said(&error);
    assert!(matches!(error, Error::Backend { retryable: true, .. }), "{text}");
    assert!(text.contains(&format!("127.0.0.1:{port}")) && text.contains("refused"), "{text}");
}

#[tokio::test]
async fn a_server_that_stands_still_is_said_before_long() {
    let server = RedisServer::start_volatile();
    server.stop();
    let begun = Instant::now();
    let error = refusal(&server.url()).await;
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert!(matches!(error, Error::Backend { retryable: true, .. }), "{}", said(&error));
    assert!(said(&error).contains(&format!("127.0.0.1:{}", server.port())), "{}", said(&error));
}

#[tokio::test]
async fn a_password_is_never_shown() {
    let server = RedisServer::start_volatile();
    let (served, free, mut shown) = (server.port(), free_port(), Vec::new());
    for url in [
        format!("redis://:hunter2@127.0.0.1:{free}"),
        format!("redis://ann:hunter2@127.0.0.1:{free}/0"),
        format!("redis://ann:hunter2@127.0.0.1:{served}"),
        "redis://:hunter2@nowhere.invalid".to_owned(),
        "redis://ann:hunter2@127.0.0.1:port".to_owned(),
        "redis://ann:hunter2@127.0.0.1/first".to_owned(),
        "redis://ann:hunter2/@127.0.0.1".to_owned(),
        "redis://ann:hunter2".to_owned(),
        "http://ann:hunter2@127.0.0.1".to_owned(),
        "redis:/ann:hunter2@127.0.0.1".to_owned(),
        "ann:hunter2@127.0.0.1:6379".to_owned(),
        ":hunter2@127.0.0.1".to_owned(),
        "unix:///tmp/none.sock?pass=hunter2".to_owned(),
        "unix:///tmp/none.sock?db=first&pass=hunter2".to_owned(),
    ] {
        let text = said(&refusal(&url).await);
        if text.contains("hunter2") {
            shown.push(format!("{url}: {text}"));
        }
    }
    assert_eq!(shown, Vec::<String>::new());
    assert_eq!(server.command(&["CONFIG", "SET", "requirepass", "hunter3"]), "OK");
    let text = said(&refusal(&format!("redis://:hunter2@127.0.0.1:{served}")).await);
    assert!(text.contains("WRONGPASS") && !text.contains("hunter2"), "{text}");
    let text = said(&refusal(&server.url()).await);
    assert!(text.contains("NOAUTH"), "{text}");
    let url = format!("redis://:hunter3@127.0.0.1:{served}");
    let store = RedisStore::connect(&url, unique_name()).await.expect("the right password");
    let text = format!("{store:?} {:?}", store.bus());
    assert!(!text.contains("hunter3"), "{text}");
}

#[tokio::test]
async fn a_server_that_may_drop_work_is_refused() {
    for policy in ["allkeys-lru", "volatile-ttl"] {
        let server = RedisServer::start_with(&[("maxmemory-policy", policy)]);
        let error = refusal(&server.url()).await;
        let text = said(&error);
        assert!(matches!(error, Error::Backend { retryable: false, .. }), "{text}");
        assert!(text.contains("maxmemory-policy") && text.contains(policy) && text.contains("noeviction"), "{text}");
        assert_eq!(server.command(&["DBSIZE"]), "0", "nothing was written");
    }
}

#[test]
fn a_fleet_is_a_hash_tag() {
    for name in ["a{b", "a}b", "{}"] {
        assert!(SwarmId::new(name).is_err(), "{name} would have two hash tags or none");
    }
}

#[tokio::test]
async fn another_layout_is_refused() {
    let (server, name) = (RedisServer::start_volatile(), unique_name());
    let meta = format!("s2:{{{name}}}:meta");
    let store = RedisStore::connect(&server.url(), name.clone()).await.expect("a fleet");
    store.bus().publish_one(&event(ORDERS)).await.expect("published");
    assert_eq!(server.command(&["HSET", &meta, "layout", "999"]), "0");
    let mismatch = |error: Error| match error {
        Error::LayoutMismatch { found, expected } => (found, expected),
        other => panic!("{other:?}"),
    };
    let refused = RedisStore::connect(&server.url(), name.clone()).await.expect_err("another layout");
    assert_eq!(mismatch(refused).0, "999");
    let refused = store.bus().publish_one(&event(ORDERS)).await.expect_err("another layout");
    let (found, layout) = mismatch(refused);
    assert_eq!(found, "999");
    assert_eq!(server.command(&["XLEN", &format!("s2:{{{name}}}:e:orders")]), "1", "nothing was written");
    assert_eq!(server.command(&["HSET", &meta, "layout", layout]), "0");
    store.bus().publish_one(&event(ORDERS)).await.expect("published");
}

// e. Processes.

#[tokio::test(flavor = "multi_thread")]
async fn what_one_process_publishes_another_receives() {
    let (server, name) = (RedisServer::start_volatile(), unique_name());
    let one = RedisStore::connect(&server.url(), name.clone()).await.expect("a fleet").bus();
    let other = RedisStore::connect(&server.url(), name).await.expect("another process").bus();
    for (from, to) in [(&one, &other), (&other, &one)] {
        let group = GroupName::new(format!("group-{}", server.command(&["DBSIZE"]))).expect("a name");
        let clerk = to.subscribe(&Subscribe::new(ORDERS, group).with_start(Start::Now)).await.expect("a group");
        let mut tail = to.tail(&ORDERS, Start::Now).await.expect("a tail");
        let waiting = tokio::spawn(async move { (clerk.next().await, tail.next().await) });
        let published = from.publish_one(&event(ORDERS)).await.expect("published");
        let (delivery, told) = timeout(LONG, waiting).await.expect("delivered").expect("no panic");
        let delivery = delivery.expect("no error").expect("a delivery");
        assert_eq!(delivery.event.id, published.id);
        assert_eq!(told.expect("no error").expect("an event").id, published.id);
        delivery.ack().await.expect("acked");
        assert!(from.groups(&ORDERS).await.expect("groups").iter().all(|group| group.in_flight == 0));
    }
}

fn short_lived() -> Config {
    let mut config = Config::default();
    // Less than 6 s, after which a silent process counts as gone.
    config.ack_timeout = Duration::from_secs(3);
    config.deliveries = 2;
    config
}

/// Longer than it takes until a process counts as gone.
const HANDLING: Duration = Duration::from_secs(9);

/// A worker's main: takes one event, says which attempt it is, and neither acks nor ends.
#[test]
#[ignore = "a worker of the tests in this file"]
fn holder() {
    if !is_worker() {
        return;
    }
    let variable = |name| std::env::var(name).expect("a variable");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let fleet = SwarmId::new(variable("FLEET")).expect("a name");
        let builder = RedisStore::builder(fleet).with_config(short_lived());
        let bus = builder.connect(&variable("URL")).await.expect("a fleet").bus();
        let consumer = ConsumerName::new(variable("CONSUMER")).expect("a name");
        let subscribe = Subscribe::new(ORDERS, CLERKS).with_consumer(consumer).with_ack_timeout(HANDLING);
        let subscription = bus.subscribe(&subscribe).await.expect("a subscription");
        println!("joined");
        let delivery = subscription.next().await.expect("no error").expect("a delivery");
        println!("attempt {}", delivery.attempt);
        std::future::pending::<()>().await;
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_process_held_comes_back_until_it_is_a_dead_letter() {
    let (server, name) = (RedisServer::start_volatile(), unique_name());
    let store = RedisStore::builder(name.clone()).with_config(short_lived()).connect(&server.url()).await;
    let store = store.expect("a fleet");
    let bus = store.bus();
    bus.publish_one(&event(ORDERS)).await.expect("published");
    let variables =
        |consumer: &str| [("URL", server.url()), ("FLEET", name.to_string()), ("CONSUMER", consumer.to_owned())];
    for (nth, consumer) in ["first", "second"].iter().enumerate() {
        let mut worker = Worker::spawn("holder", &variables(consumer));
        assert_eq!(worker.line(LONG).as_deref(), Some("joined"));
        assert_eq!(worker.line(LONG), Some(format!("attempt {}", nth + 1)));
        assert_eq!(group(&bus, &ORDERS).await.consumers, 1);
        worker.kill();
        let killed = Instant::now();
        while group(&bus, &ORDERS).await.consumers > 0 {
            assert!(killed.elapsed() < Duration::from_secs(9), "it counts as gone after 6 s");
            sleep(TICK).await;
        }
        // A sign of life comes every two seconds; the last one may have been on its way for a while.
        assert!(killed.elapsed() > Duration::from_secs(3), "gone after {:?}", killed.elapsed());
    }
    let deadline = Instant::now() + LONG;
    let letter: DeadLetter = loop {
        if let Some(letter) = bus.dead_letters(&DeadLetters::all()).await.expect("letters").pop() {
            break letter;
        }
        assert!(Instant::now() < deadline, "no dead letter");
        sleep(TICK).await;
    };
    let history: Vec<_> = letter
        .history
        .iter()
        .map(|attempt| (attempt.delivery, attempt.consumer.as_str(), attempt.end.clone()))
        .collect();
    assert_eq!(history, [(1, "first", AttemptEnd::Lost), (2, "second", AttemptEnd::Lost)]);
    for attempt in &letter.history {
        assert_eq!(attempt.duration(), HANDLING, "it comes back when its time is over, not when somebody notices");
    }
    let left = group(&bus, &ORDERS).await;
    assert_eq!((left.in_flight, left.returning, left.backlog, left.consumers), (0, 0, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_are_not_used_again_after_everything_was_flushed() {
    let server = RedisServer::start_volatile();
    let bus = store(&server).await.bus();
    let (mut used, mut stale) = (Vec::new(), Vec::<Delivery>::new());
    for _ in 0..3 {
        let clerks = bus.subscribe(&Subscribe::new(ORDERS, CLERKS)).await.expect("a group");
        let others = bus.subscribe(&Subscribe::new(ORDERS, OTHERS)).await.expect("a group");
        let published = bus.publish_one(&event(ORDERS)).await.expect("published");
        assert_eq!(published.position, Position::new(1), "positions begin anew");
        for subscription in [&clerks, &others] {
            let delivery = subscription.next().await.expect("no error").expect("a delivery");
            assert_eq!(delivery.event.id, published.id);
            let recipient = delivery.receipt.recipient();
            used.extend([recipient.incarnation, recipient.consumer]);
            stale.push(delivery);
        }
        // The same position and the same delivery of another life of the fleet.
        let (old, current) = stale.split_at(stale.len() - 2);
        for delivery in old {
            let refused = delivery.ack().await;
            assert!(matches!(refused, Err(Error::StaleDelivery { .. })), "{refused:?}");
        }
        for delivery in current {
            delivery.ack().await.expect("it is the current one");
        }
        assert_eq!(server.command(&["FLUSHALL"]), "OK");
    }
    let count = used.len();
    used.sort_unstable();
    used.dedup();
    assert_eq!((count, used.len()), (12, 12), "each group and each consumer has a number of its own");
}

// f. Memory.

struct Full {
    server: RedisServer,
    store: RedisStore,
    /// How many events were published before memory was full.
    published: u64,
}

impl Full {
    fn allow(&self, bytes: u64) {
        assert_eq!(self.server.command(&["CONFIG", "SET", "maxmemory", &bytes.to_string()]), "OK");
    }

    fn large(nth: u64) -> NewEvent {
        let key = IdempotencyKey::new(format!("large-{nth}")).expect("a key");
        event(ORDERS).with_data(vec![b'x'; MIB / 10]).with_idempotency_key(key)
    }

    /// A server whose memory is full of events that a group waits for.
    async fn begin() -> Self {
        let server = RedisServer::start_volatile();
        let builder = RedisStore::builder(unique_name()).with_patience(Duration::from_secs(2));
        let store = builder.connect(&server.url()).await.expect("a fleet");
        let bus = store.bus();
        drop(bus.subscribe(&Subscribe::new(ORDERS, CLERKS)).await.expect("a group"));
        let mut full = Self { server, store, published: 0 };
        let used: u64 = full.server.info("used_memory").parse().expect("a number");
        full.allow(used + MIB as u64);
        let refused = loop {
            match bus.publish_one(&Self::large(full.published + 1)).await {
                Ok(_) => full.published += 1,
                Err(error) => break error,
            }
            assert!(full.published < 100, "10 MiB in 1 MiB");
        };
        assert!(matches!(refused, Error::Backend { .. }), "{refused:?}");
        assert!(said(&refused).contains("OOM"), "{}", said(&refused));
        full
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_half_written_when_memory_is_full() {
    let full = Full::begin().await;
    let bus = full.store.bus();
    for _ in 0..3 {
        let both = [Full::large(full.published + 1), event(BILLS).with_data(vec![b'x'; MIB])];
        let refused = bus.publish(&both).await.expect_err("memory is full");
        assert!(matches!(refused, Error::Backend { .. }), "{refused:?}");
    }
    full.allow(0);
    let read = bus.read(&ORDERS, Start::Beginning, 500).await.expect("read");
    let positions: Vec<u64> = read.items.iter().map(|event| event.position.get()).collect();
    assert_eq!(positions, (1..=full.published).collect::<Vec<_>>(), "what was answered is there, and nothing else");
    assert!(bus.read(&BILLS, Start::Beginning, 1).await.expect("read").items.is_empty());
    assert_eq!(group(&bus, &ORDERS).await.backlog, full.published);

    let next = bus.publish_one(&Full::large(full.published + 1)).await.expect("there is room again");
    assert_eq!((next.position, next.duplicate), (Position::new(full.published + 1), false));
    let clerk = bus.subscribe(&Subscribe::new(ORDERS, CLERKS)).await.expect("a subscription");
    for position in 1..=full.published + 1 {
        let delivery = timeout(LONG, clerk.next()).await.expect("delivered").expect("no error").expect("a delivery");
        assert_eq!((delivery.event.position.get(), delivery.attempt), (position, 1));
        delivery.ack().await.expect("acked");
    }
    let left = group(&bus, &ORDERS).await;
    assert_eq!((left.floor.get(), left.in_flight, left.backlog), (full.published + 1, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_can_be_read_when_memory_is_full() {
    let full = Full::begin().await;
    let bus = full.store.bus();
    let read = bus.read(&ORDERS, Start::Beginning, 500).await.map_err(|error| said(&error));
    assert_eq!(read.map(|page| page.items.len() as u64), Ok(full.published));
    assert_eq!(group(&bus, &ORDERS).await.backlog, full.published);
}

/// Waits do not fail.
#[tokio::test(flavor = "multi_thread")]
async fn a_wait_goes_on_when_memory_is_full() {
    let full = Full::begin().await;
    full.allow(0);
    let bus = full.store.bus();
    // One that waits when memory becomes full, one that begins to wait then, and one for whom there is something.
    let elsewhere = bus.subscribe(&Subscribe::new(BILLS, CLERKS)).await.expect("a group");
    let late = bus.subscribe(&Subscribe::new(BILLS, OTHERS)).await.expect("a group");
    let clerk = bus.subscribe(&Subscribe::new(ORDERS, CLERKS)).await.expect("a subscription");
    let mut elsewhere = tokio::spawn(async move { elsewhere.next().await });
    full.allow(1);
    let mut late = tokio::spawn(async move { late.next().await });
    let clerk = tokio::spawn(async move { clerk.next().await });
    // Beyond patience, which is 2 s.
    for (who, waiting) in [("elsewhere", &mut elsewhere), ("late", &mut late)] {
        if let Ok(ended) = timeout(Duration::from_secs(4), waiting).await {
            panic!("the wait of {who} ended: {:?}", ended.expect("no panic").map_err(|error| said(&error)));
        }
    }
    full.allow(0);
    bus.publish_one(&event(BILLS)).await.expect("there is room again");
    for waiting in [elsewhere, late, clerk] {
        let delivery = timeout(LONG, waiting).await.expect("delivered").expect("no panic").expect("no error");
        assert_eq!(delivery.expect("a delivery").event.position, Position::new(1));
    }
}

// g. Size.

#[tokio::test(flavor = "multi_thread")]
async fn twenty_events_of_a_mebibyte_each() {
    let server = RedisServer::start_volatile();
    let bus = store(&server).await.bus();
    let clerk = bus.subscribe(&Subscribe::new(ORDERS, CLERKS)).await.expect("a group");
    let data = |nth: u8| vec![nth; MIB];
    let events: Vec<NewEvent> = (0..20).map(|nth| event(ORDERS).with_data(data(nth))).collect();
    let published = bus.publish(&events).await.expect("published");
    assert_eq!(published.last().map(|last| last.position), Some(Position::new(20)));
    let mut received = Vec::new();
    while received.len() < 20 {
        let batch = timeout(LONG, clerk.next_batch(20)).await.expect("delivered").expect("no error");
        assert!(!batch.is_empty() && batch.iter().all(|delivery| delivery.attempt == 1));
        for acked in Delivery::ack_all(&batch).await.expect("acks") {
            assert_eq!(acked.expect("acked"), Settled::Acked);
        }
        received.extend(batch);
    }
    for (nth, delivery) in received.iter().enumerate() {
        assert_eq!(delivery.event.position.get(), nth as u64 + 1);
        assert!(delivery.event.data == data(u8::try_from(nth).expect("20")), "event {nth} is not what was published");
    }
    assert_eq!(received.len(), 20);
    let left = group(&bus, &ORDERS).await;
    assert_eq!((left.floor.get(), left.in_flight, left.backlog), (20, 0, 0));
    // Also to one that waits, and to a tail.
    let mut tail = bus.tail(&ORDERS, Start::Now).await.expect("a tail");
    let waiting = tokio::spawn(async move { (clerk.next_batch(20).await, tail.next().await) });
    bus.publish_one(&event(ORDERS).with_data(data(b'x'))).await.expect("published");
    let (delivered, told) = timeout(LONG, waiting).await.expect("delivered").expect("no panic");
    assert!(delivered.expect("no error")[0].event.data == data(b'x'));
    assert!(told.expect("no error").expect("an event").data == data(b'x'));
    let larger = bus.publish_one(&event(ORDERS).with_data(vec![0; MIB + 1])).await;
    assert!(matches!(larger, Err(Error::LimitExceeded { limit: "payload_bytes", .. })), "{larger:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn six_hundred_events_for_one_who_asks_for_a_thousand() {
    let server = RedisServer::start_volatile();
    let bus = store(&server).await.bus();
    let clerk = bus.subscribe(&Subscribe::new(ORDERS, CLERKS).with_prefetch(1000)).await.expect("a group");
    for count in [500, 100] {
        bus.publish(&vec![event(ORDERS); count]).await.expect("published");
    }
    let (mut positions, mut calls) = (Vec::new(), 0);
    while positions.len() < 600 {
        let batch = timeout(LONG, clerk.next_batch(1000)).await.expect("delivered").expect("no error");
        assert!(!batch.is_empty() && batch.iter().all(|delivery| delivery.attempt == 1));
        positions.extend(batch.iter().map(|delivery| delivery.event.position.get()));
        calls += 1;
    }
    assert_eq!(positions, (1..=600).collect::<Vec<u64>>());
    assert!(calls <= 3, "{calls} calls");
    assert_eq!(group(&bus, &ORDERS).await.in_flight, 600);
}

/// What comes back is read event by event; the limits that the server sets to its clients must not be met for all that.
#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_mebibytes_come_back() {
    const COUNT: usize = 64;
    let server = RedisServer::start_volatile();
    let bus = store(&server).await.bus();
    let clerk = bus.subscribe(&Subscribe::new(ORDERS, CLERKS).with_prefetch(COUNT)).await.expect("a group");
    for _ in 0..COUNT {
        bus.publish_one(&event(ORDERS).with_data(vec![b'x'; MIB])).await.expect("published");
    }
    for attempt in [1, 2] {
        let mut held = Vec::new();
        while held.len() < COUNT {
            held.extend(timeout(LONG, clerk.next_batch(COUNT)).await.expect("delivered").expect("no error"));
        }
        assert!(held.iter().all(|delivery| delivery.attempt == attempt && delivery.event.data.len() == MIB));
        for delivery in &held {
            delivery.nack(Duration::ZERO).await.expect("given back");
        }
    }
    assert_eq!(group(&bus, &ORDERS).await.returning, COUNT);
    let connections: u64 = server.info("total_connections_received").parse().expect("a number");
    assert!(connections < 100, "{connections} connections");
}

/// A key that only somebody else can have deleted must not stop the server.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_index_of_a_group_is_survived() {
    let (server, name) = (RedisServer::start_volatile(), unique_name());
    let bus = RedisStore::connect(&server.url(), name.clone()).await.expect("a fleet").bus();
    let clerk = bus.subscribe(&Subscribe::new(ORDERS, CLERKS)).await.expect("a group");
    bus.publish(&vec![event(ORDERS); 3]).await.expect("published");
    for delivery in timeout(LONG, clerk.next_batch(2)).await.expect("delivered").expect("no error") {
        delivery.nack(Duration::ZERO).await.expect("given back");
    }
    let incarnation = group(&bus, &ORDERS).await.incarnation;
    assert_eq!(server.command(&["DEL", &format!("s2:{{{name}}}:ready:{incarnation}")]), "1");
    let next = timeout(LONG, clerk.next()).await.expect("delivered").expect("no error").expect("open");
    assert_eq!((next.event.position.get(), next.attempt), (3, 1));
}

/// What was published together lies together: whoever deletes an entry deletes all of it, and the group is told.
#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_entry_takes_what_lies_with_it_and_nothing_else() {
    let (server, name) = (RedisServer::start_volatile(), unique_name());
    let store = RedisStore::connect(&server.url(), name.clone()).await.expect("a fleet");
    let bus = store.bus();
    let key = |rest: &str| format!("s2:{{{name}}}:{rest}");
    let clerk = bus.subscribe(&Subscribe::new(ORDERS, CLERKS)).await.expect("a group");
    for _ in 0..3 {
        bus.publish(&vec![event(ORDERS); 5]).await.expect("published");
    }
    let delete = |position: &str| {
        let found = server.command(&["XRANGE", &key("e:orders"), position, position]);
        let id = found.lines().next().expect("an entry");
        assert_eq!(server.command(&["XDEL", &key("e:orders"), id]), "1");
    };
    assert_eq!(server.command(&["XLEN", &key("e:orders")]), "3");
    delete("6");
    let positions = |deliveries: &[Delivery]| -> Vec<u64> {
        deliveries.iter().map(|delivery| delivery.event.position.get()).collect()
    };
    for expected in [[1, 2, 3, 4, 5], [11, 12, 13, 14, 15]] {
        let deliveries = timeout(LONG, clerk.next_batch(64)).await.expect("delivered").expect("no error");
        assert_eq!(positions(&deliveries), expected);
        for acked in Delivery::ack_all(&deliveries).await.expect("acked") {
            acked.expect("acked");
        }
    }
    let lost = entries(&store).await.into_iter().find(|entry| &*entry.operation == "data_loss").expect("it is told");
    assert_eq!(lost.params.get("events"), Some(&Value::Int(5)));
    let read = async |after: u64, limit: usize| -> Vec<u64> {
        let page = bus.read(&ORDERS, Start::After(Position::new(after)), limit).await.expect("read");
        page.items.iter().map(|event| event.position.get()).collect()
    };
    assert_eq!(read(3, 4).await, [4, 5, 11, 12]);
    assert_eq!(read(12, 100).await, [13, 14, 15]);

    // Without its state, the topic is what the stream says.
    delete("1");
    assert_eq!(server.command(&["DEL", &key("t:orders")]), "1");
    let published = bus.publish_one(&event(ORDERS)).await.expect("published");
    assert_eq!(published.position.get(), 16);
    assert_eq!(read(10, 100).await, [11, 12, 13, 14, 15, 16]);
    let delivery = timeout(LONG, clerk.next()).await.expect("delivered").expect("no error").expect("open");
    assert_eq!(delivery.event.position.get(), 16);
}

/// A process that publishes once and ends leaves nothing behind for ever but its event.
#[tokio::test(flavor = "multi_thread")]
async fn answers_to_a_process_that_ends_at_once_are_forgotten() {
    let server = RedisServer::start_volatile();
    for _ in 0..3 {
        store(&server).await.bus().publish_one(&event(ORDERS)).await.expect("published");
    }
    let answers = server.command(&["KEYS", "s2:*:q:*"]);
    assert_eq!(answers.lines().count(), 3);
    for key in answers.lines() {
        let kept: i64 = server.command(&["PTTL", key]).parse().expect("milliseconds");
        assert!(kept > 0, "{key} stays for ever: {kept}");
    }
}

/// One connection that breaks is replaced by one, not by a thousand.
#[tokio::test(flavor = "multi_thread")]
async fn a_broken_connection_is_replaced_once() {
    let server = RedisServer::start_volatile();
    let bus = store(&server).await.bus();
    let clerk = bus.subscribe(&Subscribe::new(ORDERS, CLERKS)).await.expect("a group");
    let waiting = tokio::spawn(async move { clerk.next().await });
    let received = || server.info("total_connections_received").parse::<u64>().expect("a number");
    let before = received();
    for kind in ["pubsub", "normal"] {
        let killed: u32 = server.command(&["CLIENT", "KILL", "TYPE", kind]).parse().expect("a number");
        assert!(killed >= 1, "nobody was connected");
        sleep(Duration::from_millis(500)).await;
    }
    bus.publish_one(&event(ORDERS)).await.expect("published");
    let delivery =
        timeout(LONG, waiting).await.expect("delivered").expect("no panic").expect("no error").expect("open");
    assert_eq!(delivery.event.position.get(), 1);
    // Two for each break, and those of this test.
    let made = received() - before;
    assert!(made < 20, "{made} connections for two breaks");
}
