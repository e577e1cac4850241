//! What goes over the wire.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::mpsc;
use std::time::Duration;

use s2_coordinator::SwarmId;
use s2_governor::{BudgetLedger, Charge, RedisLedger, Reserve};
use s2_tests::servers::RedisServer;

use crate::{LONG, cents, store};

/// Listens to all commands of a server that come from outside of scripts.
fn monitor(server: &RedisServer) -> mpsc::Receiver<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", server.port())).expect("a connection");
    stream.write_all(b"MONITOR\r\n").expect("asked");
    let mut lines = BufReader::new(stream).lines();
    assert_eq!(lines.next().expect("an answer").expect("text"), "+OK");
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        for line in lines.map_while(Result::ok).filter(|line| !line.contains(" lua] ")) {
            if tell.send(line).is_err() {
                return;
            }
        }
    });
    told
}

/// The commands up to a mark, but for signs of life, which come by the clock.
fn until(told: &mpsc::Receiver<String>, mark: &str) -> Vec<String> {
    let next = || told.recv_timeout(LONG).expect("the mark");
    let commands = std::iter::from_fn(|| Some(next()).filter(|line| !line.contains(mark)));
    commands.filter(|line| !line.contains("_beat\"")).collect()
}

#[tokio::test]
async fn each_verb_is_one_command_however_deep_the_path() {
    let server = RedisServer::start_volatile();
    let ledger = RedisLedger::new(&store(&server.url()).await);
    let path = |depth: usize| SwarmId::new(vec!["swarm"; depth].join("/")).expect("a path");
    for depth in 1..=6 {
        // Connects, and loads what is missing.
        ledger.charge(&Charge::new(path(depth), cents(1))).await.expect("charged");
    }
    let told = monitor(&server);
    for depth in 1..=6 {
        let mark = |what: &str| format!("{what}-{depth}");
        let held =
            ledger.reserve(&Reserve::new(path(depth), cents(1))).await.expect("no error").granted().expect("granted");
        let _ = server.command(&["ECHO", &mark("reserved")]);
        ledger.settle(&held, cents(1)).await.expect("settled");
        let _ = server.command(&["ECHO", &mark("settled")]);
        for what in ["reserved", "settled"] {
            let commands = until(&told, &mark(what));
            assert!(commands.len() == 1 && commands[0].contains("\"FCALL\""), "{depth} levels: {commands:?}");
        }
    }
}

/// The server's clock decides, and nobody tells it another time: how wrong the clock of a client is does not matter.
#[tokio::test]
async fn no_client_says_what_time_it_is() {
    let server = RedisServer::start_volatile();
    let ledger = RedisLedger::new(&store(&server.url()).await);
    let micros = || {
        let time: Vec<u64> = server.command(&["TIME"]).lines().map(|part| part.parse().expect("a number")).collect();
        time[0] * 1_000_000 + time[1]
    };
    let told = monitor(&server);
    let before = micros();
    let ttl = Duration::from_secs(600);
    let reserve = Reserve::new(crate::SESSION, cents(1)).with_ttl(ttl);
    let held = ledger.reserve(&reserve).await.expect("no error").granted().expect("granted");
    let after = micros();
    let until_ = held.until.as_micros() - ttl.as_micros() as u64;
    assert!((before..=after).contains(&until_), "{before} ≤ {until_} ≤ {after}");
    let _ = server.command(&["ECHO", "mark"]);
    let calls = until(&told, "mark");
    let calls: Vec<&String> = calls.iter().filter(|call| call.contains("\"FCALL\"")).collect();
    // The function, the number of keys, the key, the process, the time.
    let time = calls[0].split("\" \"").nth(5);
    assert_eq!((calls.len(), time), (1, Some("")), "{calls:?}");
}
