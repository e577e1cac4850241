//! The kit of servers and workers does to them what it says.

use std::fs::{self, File};
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use s2_tests::servers::RedisServer;
use s2_tests::workers::{Worker, is_worker};

const SOON: Duration = Duration::from_millis(100);
const LONG: Duration = Duration::from_secs(10);

/// Whether a process is there, and not merely waiting for somebody to ask how it ended.
fn lives(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// Whether a process ends before long.
fn dies(pid: u32) -> bool {
    let deadline = Instant::now() + LONG;
    while lives(pid) && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(2));
    }
    !lives(pid)
}

/// The directory of a server.
fn directory(server: &RedisServer) -> PathBuf {
    let data = server.command(&["CONFIG", "GET", "dir"]);
    let data = data.strip_prefix("dir\n").expect("a name and a value");
    Path::new(data).parent().expect("a directory").to_owned()
}

/// For a worker that panics on purpose.
fn quiet() -> (&'static str, String) {
    ("RUST_BACKTRACE", "0".to_owned())
}

/// What a panic says.
fn said(panic: &(dyn std::any::Any + Send)) -> &str {
    panic.downcast_ref::<String>().map_or("", String::as_str)
}

/// A worker's main: says hello and what it is told, and waits for its end.
#[test]
#[ignore = "a worker of the tests in this file"]
fn talker() {
    if !is_worker() {
        return;
    }
    println!("hello");
    println!("{}", std::env::var("WORDS").expect("words"));
    loop {
        thread::park();
    }
}

/// A worker's main: prints numbers for as long as it lives.
#[test]
#[ignore = "a worker of the tests in this file"]
fn counter() {
    if !is_worker() {
        return;
    }
    for number in 0_u64.. {
        println!("{number}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// A worker's main: ends as it is told.
#[test]
#[ignore = "a worker of the tests in this file"]
fn short() {
    if !is_worker() {
        return;
    }
    println!("ok");
    assert!(std::env::var("FAIL").is_err(), "told to fail (this is no failure of the test)");
}

/// A worker's main: says the id of a server of its own, or why it has none, and waits for its end.
#[test]
#[ignore = "a worker of the tests in this file"]
fn host() {
    if !is_worker() {
        return;
    }
    let server = catch_unwind(RedisServer::start_volatile);
    match &server {
        Ok(server) => println!("{} {}", server.pid(), directory(server).display()),
        Err(panic) => println!("{}", said(&**panic)),
    }
    loop {
        thread::park();
    }
}

#[test]
fn a_server_answers_and_says_how_it_is_configured() {
    let server = RedisServer::start();
    assert_eq!(server.url(), format!("redis://127.0.0.1:{}/0", server.port()));
    assert!(server.ping(LONG));
    assert_eq!(server.info("process_id"), server.pid().to_string());
    assert_eq!(server.info("tcp_port"), server.port().to_string());
    assert_eq!((server.info("aof_enabled").as_str(), server.info("maxmemory_policy").as_str()), ("1", "noeviction"));
    assert_eq!(server.command(&["CONFIG", "GET", "appendfsync"]), "appendfsync\nalways");
    assert_eq!(server.command(&["CONFIG", "GET", "save"]), "save\n");

    let server = RedisServer::start_with(&[("maxmemory", "64mb"), ("appendfsync", "everysec"), ("save", "60 7")]);
    assert_eq!(server.info("maxmemory"), (64 << 20).to_string());
    assert_eq!(server.command(&["CONFIG", "GET", "appendfsync"]), "appendfsync\neverysec");
    assert_eq!(server.command(&["CONFIG", "GET", "save"]), "save\n60 7");

    let server = RedisServer::start_volatile();
    assert_eq!(server.info("aof_enabled"), "0");
    assert_eq!(server.command(&["CONFIG", "GET", "save"]), "save\n");
}

#[test]
fn a_reply_of_any_kind_becomes_text() {
    let server = RedisServer::start_volatile();
    let script = "return {1, 'two', {'three', {}, 4}, false}";
    for (args, reply) in [
        (&["SET", "key", "two\r\nlines"][..], "OK"),
        (&["GET", "key"], "two\r\nlines"),
        (&["GET", "none"], "(nil)"),
        (&["SET", "empty", ""], "OK"),
        (&["GET", "empty"], ""),
        (&["INCR", "number"], "1"),
        (&["DECRBY", "number", "3"], "-2"),
        (&["LPOP", "none", "2"], "(nil)"),
        (&["EVAL", script, "0"], "1\ntwo\nthree\n4\n(nil)"),
        (&["LPUSH", "key", "x"], "WRONGTYPE Operation against a key holding the wrong kind of value"),
        (&["GET"], "ERR wrong number of arguments for 'get' command"),
    ] {
        assert_eq!(server.command(args), reply, "{args:?}");
    }
}

#[test]
fn a_configuration_that_redis_refuses_is_said() {
    let refused = catch_unwind(|| RedisServer::start_with(&[("no-such-option", "1")])).expect_err("no such option");
    let said = said(&*refused);
    assert!(said.contains("redis-server ended") && said.contains("no-such-option"), "{said}");
}

#[test]
fn without_redis_a_test_says_what_to_install() {
    let mut worker = Worker::spawn("host", &[("PATH", "/nowhere".to_owned()), quiet()]);
    let said = worker.line(LONG).expect("a line");
    assert!(said.contains("install redis-server 7.0 or newer (Debian: apt-get install redis-server)"), "{said}");
}

#[test]
fn what_a_killed_server_acknowledged_is_there_when_it_restarts() {
    let server = RedisServer::start();
    let (url, first) = (server.url(), server.pid());
    for round in 1..=3 {
        assert_eq!(server.command(&["INCR", "rounds"]), round.to_string());
        server.kill();
        server.kill();
        assert!(!lives(server.pid()) && !server.ping(SOON));
        assert!(server.try_command(&["PING"], SOON).is_err());
        server.restart();
    }
    assert_eq!(server.command(&["GET", "rounds"]), "3");
    server.restart();
    assert_eq!(server.command(&["GET", "rounds"]), "3", "a restart without a kill");
    assert_eq!(server.url(), url);
    assert!(server.pid() != first && !lives(first));

    let server = RedisServer::start_volatile();
    assert_eq!(server.command(&["SET", "key", "value"]), "OK");
    server.restart();
    assert_eq!(server.command(&["GET", "key"]), "(nil)", "a volatile server keeps nothing");
}

/// A server that dies while it writes a transaction must not take along what it acknowledges later.
#[test]
fn an_unfinished_transaction_does_not_swallow_what_follows_it() {
    const UNFINISHED: &[u8] =
        b"*1\r\n$5\r\nMULTI\r\n*5\r\n$4\r\nXADD\r\n$1\r\ns\r\n$1\r\n1\r\n$1\r\nv\r\n$4\r\nlost\r\n*3\r\n$3\r\nSE";
    let server = RedisServer::start();
    assert_eq!(server.command(&["SET", "key", "before"]), "OK");
    let folder = directory(&server).join("data/appendonlydir");
    server.kill();
    let mut files = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let file = files.find(|path| path.to_string_lossy().ends_with(".incr.aof")).expect("a file");
    File::options().append(true).open(file).and_then(|mut file| file.write_all(UNFINISHED)).expect("written");
    server.restart();
    let script = "redis.call('XADD', 's', 1, 'v', 'kept') redis.call('SET', 'key', 'after') return 'done'";
    assert_eq!(server.command(&["EVAL", script, "0"]), "done");
    server.kill();
    server.restart();
    assert_eq!(server.command(&["XRANGE", "s", "-", "+"]), "1-0\nv\nkept");
    assert_eq!(server.command(&["GET", "key"]), "after");
}

#[test]
fn a_stopped_server_is_silent_until_it_resumes() {
    let server = RedisServer::start();
    server.stop();
    assert!(lives(server.pid()));
    assert!(!server.ping(SOON));
    let silence = server.try_command(&["INCR", "late"], SOON).expect_err("nobody answers").kind();
    assert!(matches!(silence, std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut), "{silence}");
    server.resume();
    assert!(server.ping(LONG));
    assert_eq!(server.command(&["GET", "late"]), "1", "what came in meanwhile is done");

    server.stop();
    server.kill();
    assert!(!lives(server.pid()), "a stopped server can be killed");
    assert!(catch_unwind(AssertUnwindSafe(|| server.resume())).is_err(), "there is nothing to resume");
    server.restart();
    assert_eq!(server.command(&["GET", "late"]), "1");
}

#[test]
fn a_paused_server_answers_later() {
    let server = RedisServer::start_volatile();
    let paused = Instant::now();
    server.pause(400);
    assert!(!server.ping(SOON));
    assert!(server.ping(LONG));
    assert!(paused.elapsed() >= Duration::from_millis(400), "{:?}", paused.elapsed());
}

#[test]
fn rolling_back_brings_older_data_back() {
    let server = RedisServer::start();
    assert!(catch_unwind(AssertUnwindSafe(|| server.roll_back())).is_err(), "there is no snapshot yet");
    let rewrite = || assert!(server.command(&["BGREWRITEAOF"]).starts_with("Background append only file"));
    let set = |value| assert_eq!(server.command(&["SET", "key", value]), "OK");
    set("old");
    server.snapshot();
    assert_eq!(server.command(&["GET", "key"]), "old", "a snapshot leaves the server running");
    for _ in 0..2 {
        set("new");
        // What a rewrite has written so far belongs to nobody.
        rewrite();
        server.roll_back();
        assert_eq!(server.command(&["GET", "key"]), "old");
    }

    set("newer");
    rewrite();
    server.stop();
    server.snapshot();
    assert!(!server.ping(SOON), "a snapshot leaves the server stopped");
    server.resume();
    set("newest");
    server.roll_back();
    assert_eq!(server.command(&["GET", "key"]), "newer", "the last snapshot counts");

    set("killed");
    server.kill();
    server.snapshot();
    server.roll_back();
    assert_eq!(server.command(&["GET", "key"]), "killed");
}

#[test]
fn a_server_dies_when_it_is_dropped_and_when_a_panic_unwinds() {
    let server = RedisServer::start();
    let (pid, files) = (server.pid(), directory(&server));
    assert!(lives(pid) && files.is_dir());
    server.stop();
    drop(server);
    assert!(!Path::new(&format!("/proc/{pid}")).exists() && !files.exists());

    let pid = AtomicU32::new(0);
    let panicked = catch_unwind(|| {
        let server = RedisServer::start();
        pid.store(server.pid(), Ordering::Relaxed);
        assert!(!server.ping(LONG), "on purpose (this is no failure of the test)");
    });
    assert!(panicked.is_err());
    let pid = pid.into_inner();
    assert!(pid != 0 && !Path::new(&format!("/proc/{pid}")).exists());
}

#[test]
fn a_server_survives_the_thread_that_started_it() {
    let server = thread::spawn(RedisServer::start_volatile).join().expect("started");
    assert!(server.ping(LONG) && lives(server.pid()));
}

#[test]
fn servers_started_at_once_do_not_get_in_each_others_way() {
    let servers: Vec<RedisServer> = thread::scope(|scope| {
        let starting: Vec<_> = (0..8).map(|_| scope.spawn(RedisServer::start_volatile)).collect();
        starting.into_iter().map(|thread| thread.join().expect("started")).collect()
    });
    for server in &servers {
        assert_eq!(server.command(&["INCR", "here"]), "1");
        assert_eq!(server.info("process_id"), server.pid().to_string());
    }
}

#[test]
fn a_worker_says_what_its_main_prints_and_can_be_killed() {
    let mut worker = Worker::spawn("talker", &[("WORDS", "one\n\ntwo".to_owned())]);
    for line in ["hello", "one", "", "two"] {
        assert_eq!(worker.line(LONG).as_deref(), Some(line));
    }
    assert_eq!(worker.line(SOON), None, "it waits");
    assert!(lives(worker.pid()) && !worker.wait(SOON));
    worker.kill();
    assert!(!lives(worker.pid()) && !worker.wait(LONG), "a killed worker has not succeeded");
    assert_eq!(worker.line(LONG), None);
}

#[test]
fn a_worker_that_returns_succeeds_and_one_that_panics_does_not() {
    let mut worker = Worker::spawn("short", &[]);
    assert!(worker.wait(LONG));
    assert_eq!((worker.line(LONG).as_deref(), worker.line(LONG)), (Some("ok"), None));
    let mut worker = Worker::spawn("short", &[("FAIL", "1".to_owned()), quiet()]);
    assert!(!worker.wait(LONG) && !lives(worker.pid()));
    assert_eq!((worker.line(LONG).as_deref(), worker.line(LONG)), (Some("ok"), None));
}

#[test]
fn a_worker_without_a_main_is_said() {
    let none = catch_unwind(|| Worker::spawn("nobody", &[])).expect_err("no such worker");
    assert!(said(&*none).contains("no worker nobody"), "{}", said(&*none));
}

#[test]
fn a_stopped_worker_goes_on_when_it_resumes() {
    let mut worker = Worker::spawn("counter", &[]);
    assert_eq!(worker.line(LONG).as_deref(), Some("0"));
    worker.stop();
    while worker.line(SOON).is_some() {}
    assert!(lives(worker.pid()));
    worker.resume();
    assert!(worker.line(LONG).is_some());
}

#[test]
fn a_worker_dies_when_it_is_dropped() {
    let worker = Worker::spawn("counter", &[]);
    let pid = worker.pid();
    assert!(lives(pid));
    drop(worker);
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
}

/// As when a test is killed: nothing of it runs any more.
#[test]
#[cfg(target_os = "linux")]
fn a_server_dies_with_the_process_that_started_it() {
    let mut worker = Worker::spawn("host", &[]);
    let line = worker.line(LONG).expect("a line");
    let (pid, files) = line.split_once(' ').expect("an id and a directory");
    let pid = pid.parse().expect("an id");
    assert!(lives(pid));
    worker.kill();
    assert!(dies(pid), "the server is left over: is setpriv missing? (Debian: apt-get install util-linux)");
    fs::remove_dir_all(files).expect("a killed process leaves the directory behind");
}
