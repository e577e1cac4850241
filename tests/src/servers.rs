//! Redis servers to break.
//!
//! A server that tests share cannot be killed, stopped or set back by one of them, and a fake does not lose what a real
//! one loses. So each test that needs Redis starts a `redis-server` of its own, on a free port of 127.0.0.1 and in a
//! fresh directory; both go when the test does. That takes some ten milliseconds.
//!
//! Everything here blocks, for milliseconds as a rule: in an async test, let other tasks have threads of their own
//! (`flavor = "multi_thread"`) where they must go on meanwhile.
//!
//! ```
//! use s2_tests::servers::RedisServer;
//!
//! let server = RedisServer::start();
//! assert_eq!(server.command(&["SET", "key", "value"]), "OK");
//! server.kill();
//! server.restart();
//! assert_eq!(server.command(&["GET", "key"]), "value");
//! ```

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use std::{env, process, thread};

use crate::spawner::Process;
use crate::spawner::TICK;
use crate::spawner::on_path;

/// How long a server may take to load its data and answer.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// How long an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long to wait at a restart for a port that somebody else took meanwhile.
const PORT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the answer of a server that is starting may take, before it is asked again.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// How many ports to try for a new server.
const PORTS: u32 = 20;

/// How many lines of the log a failure shows.
const LOG_LINES: usize = 30;

/// Whatever Redis acknowledges is on disk. A file that ends in the middle is mended by [`mend`], not by the server.
const DURABLE: [(&str, &str); 5] = [
    ("appendonly", "yes"),
    ("appendfsync", "always"),
    ("aof-load-truncated", "no"),
    ("save", ""),
    ("maxmemory-policy", "noeviction"),
];

/// Nothing is ever on disk.
const VOLATILE: [(&str, &str); 3] = [("appendonly", "no"), ("save", ""), ("maxmemory-policy", "noeviction")];

/// A Redis server of the test's own.
///
/// Dropping it kills the server and removes its directory, also when the test panics; the end of its log is printed
/// then. When the test is killed, Linux kills the server (given util-linux's `setpriv`), and the directory stays: it is
/// `s2-redis-…` below [`std::env::temp_dir`]. The same holds for a server in a `static`.
#[derive(Debug)]
pub struct RedisServer {
    directory: PathBuf,
    port: u16,
    config: Vec<(String, String)>,
    process: Mutex<Process>,
}

/// Why a server did not start.
enum Failure {
    PortTaken,
    Other(String),
}

impl RedisServer {
    /// A server that keeps whatever it acknowledged: `appendonly yes`, `appendfsync always`.
    ///
    /// # Panics
    ///
    /// When `redis-server` is not installed or does not start.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Like [`start`](Self::start), with configuration on top of that or in its place: names and values of `redis.conf`, such as
    /// `("maxmemory", "10mb")`. Address, port, directory and log are the kit's.
    ///
    /// # Panics
    ///
    /// When `redis-server` is not installed or does not start, as with a configuration that it does not know.
    #[must_use]
    pub fn start_with(config: &[(&str, &str)]) -> Self {
        Self::launch(&[&DURABLE, config].concat())
    }

    /// A quick server that keeps nothing: for tests that do not kill it.
    ///
    /// # Panics
    ///
    /// When `redis-server` is not installed or does not start.
    #[must_use]
    pub fn start_volatile() -> Self {
        Self::launch(&VOLATILE)
    }

    fn launch(config: &[(&str, &str)]) -> Self {
        let config: Vec<_> = config.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        let directory = fresh_directory();
        for _ in 0..PORTS {
            let port = free_port();
            match launch(&directory, port, &config) {
                Ok(process) => return Self { directory, port, config, process: Mutex::new(process) },
                Err(Failure::PortTaken) => {}
                Err(Failure::Other(why)) => {
                    drop(remove_folder(&directory));
                    panic!("{why}");
                }
            }
        }
        drop(remove_folder(&directory));
        panic!("redis-server: each of {PORTS} free ports was taken before the server had it");
    }

    /// Where clients find it: `redis://127.0.0.1:PORT/0`. It stays the same over restarts.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// Its port on 127.0.0.1. It stays the same over restarts.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The id of its process; of the last one, after [`kill`](Self::kill).
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process().id()
    }

    /// Sends a command over a connection of its own and answers the reply as text: strings, numbers and errors as they
    /// come (`WRONGTYPE Operation …`), nothing as `(nil)`, arrays as the lines of their items, however nested.
    ///
    /// # Panics
    ///
    /// When there is no reply within ten seconds.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> String {
        match self.try_command(args, ANSWER_TIMEOUT) {
            Ok(reply) => reply,
            Err(error) => panic!("{args:?} to the server at port {}: {error}", self.port),
        }
    }

    /// Like [`command`](Self::command), for a server that may be gone or stopped.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached, or stays silent for as long as `within`.
    pub fn try_command(&self, args: &[&str], within: Duration) -> io::Result<String> {
        ask(self.port, args, within)
    }

    /// Whether it answers a `PING` with `PONG` in time.
    #[must_use]
    pub fn ping(&self, within: Duration) -> bool {
        self.try_command(&["PING"], within).is_ok_and(|reply| reply == "PONG")
    }

    /// A field of `INFO everything`, such as `used_memory`.
    ///
    /// # Panics
    ///
    /// When there is no such field, or no reply within ten seconds.
    #[must_use]
    pub fn info(&self, field: &str) -> String {
        let info = self.command(&["INFO", "everything"]);
        info_field(&info, field).unwrap_or_else(|| panic!("INFO has no field {field}:\n{info}")).to_owned()
    }

    /// SIGKILL, as a power cut to the process; returns when it is gone. Nothing happens when it is gone already.
    ///
    /// # Panics
    ///
    /// When the operating system refuses.
    pub fn kill(&self) {
        self.process().kill();
    }

    /// SIGSTOP: connections stay open and nobody answers, as behind a hung disk or a broken link. Returns when the
    /// server stands still.
    ///
    /// # Panics
    ///
    /// When the server was killed.
    pub fn stop(&self) {
        self.process().stop();
    }

    /// SIGCONT: the server answers what came in while it was stopped.
    ///
    /// # Panics
    ///
    /// When the server was killed.
    pub fn resume(&self) {
        self.process().resume();
    }

    /// Starts it again at the same port, with the data that it left; kills it first when it runs. Returns when the data
    /// is loaded.
    ///
    /// # Panics
    ///
    /// When it does not start.
    pub fn restart(&self) {
        self.restart_locked(&mut self.process());
    }

    /// `CLIENT PAUSE ms ALL`: for that long every command of every client waits, and then is served.
    ///
    /// # Panics
    ///
    /// When the server does not answer.
    pub fn pause(&self, ms: u64) {
        assert_eq!(self.command(&["CLIENT", "PAUSE", &ms.to_string(), "ALL"]), "OK");
    }

    /// Keeps a copy of the data for [`roll_back`](Self::roll_back), in place of the last one. The server may be running
    /// (it stands still meanwhile), stopped or killed. A server without a disk
    /// ([`start_volatile`](Self::start_volatile)) has nothing to copy, and is empty after a `roll_back`.
    ///
    /// # Panics
    ///
    /// When a file cannot be copied.
    pub fn snapshot(&self) {
        let mut process = self.process();
        let running = process.ended().is_none() && !process.is_stopped();
        if running {
            process.stop();
        }
        let copied = replace_folder(&self.directory.join("data"), &self.directory.join("snapshot"));
        if running {
            process.resume();
        }
        copied.expect("the data can be copied");
    }

    /// Kills the server and starts it again with the data of the last [`snapshot`](Self::snapshot): as a restored
    /// backup, or a failover to a replica that lagged. Can be repeated.
    ///
    /// # Panics
    ///
    /// When there is no snapshot, or the server does not start.
    pub fn roll_back(&self) {
        let snapshot = self.directory.join("snapshot");
        assert!(snapshot.is_dir(), "there is no snapshot to roll back to");
        let mut process = self.process();
        process.kill();
        replace_folder(&snapshot, &self.directory.join("data")).expect("the snapshot can be copied");
        self.restart_locked(&mut process);
    }

    fn restart_locked(&self, process: &mut Process) {
        process.kill();
        mend(&self.directory);
        let deadline = Instant::now() + PORT_TIMEOUT;
        loop {
            match launch(&self.directory, self.port, &self.config) {
                Ok(started) => break *process = started,
                Err(Failure::PortTaken) => assert!(
                    Instant::now() < deadline,
                    "somebody else took port {} while the server was down, and keeps it",
                    self.port
                ),
                Err(Failure::Other(why)) => panic!("{why}"),
            }
        }
    }

    fn process(&self) -> MutexGuard<'_, Process> {
        // A panic elsewhere leaves the process as usable as it was.
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("the log of the server at port {} ends with:\n{}", self.port, log_tail(&self.directory, 0));
        }
        self.process().kill();
        drop(remove_folder(&self.directory));
    }
}

/// Starts a server and waits until it answers.
/// Removes an unfinished transaction from the end of the append-only file, as an operator must before a start after a crash:
/// a server that does it itself (`aof-load-truncated yes`) leaves the beginning of the transaction in the file, and loses
/// what it acknowledges afterwards at the start after the next (`docs/decisions/0010-mend-the-append-only-file.md`).
fn mend(directory: &Path) {
    let manifest = directory.join("data/appendonlydir/appendonly.aof.manifest");
    if !manifest.exists() {
        return;
    }
    let program = on_path("redis-check-aof").expect("redis-check-aof, which comes with redis-server");
    let mut checking = process::Command::new(program)
        .arg("--fix")
        .arg(manifest)
        .stdin(process::Stdio::piped())
        .stdout(process::Stdio::piped())
        .spawn()
        .expect("redis-check-aof runs");
    // It asks before it cuts; where there is nothing to cut it does not listen.
    drop(checking.stdin.take().expect("piped").write_all(b"y\n"));
    let checked = checking.wait_with_output().expect("redis-check-aof ends");
    assert!(checked.status.success(), "redis-check-aof: {}", String::from_utf8_lossy(&checked.stdout));
}

fn launch(directory: &Path, port: u16, config: &[(String, String)]) -> Result<Process, Failure> {
    let program = on_path("redis-server").ok_or_else(|| {
        let hint = "install redis-server 7.0 or newer (Debian: apt-get install redis-server)";
        Failure::Other(format!("redis-server is not on PATH: {hint}"))
    })?;
    let log = File::options().create(true).append(true).open(directory.join("redis.log")).expect("a log");
    let log_start = log.metadata().expect("a log").len();
    let spawned = Process::spawn(&program, |command| {
        for (name, value) in config {
            command.arg(format!("--{name}")).arg(value);
        }
        command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--daemonize", "no"]);
        command.arg("--dir").arg(directory.join("data")).args(["--logfile", ""]);
        command.stderr(log.try_clone().expect("a log")).stdout(log);
    });
    let mut process = spawned.map_err(|error| Failure::Other(format!("{}: {error}", program.display())))?;
    let deadline = Instant::now() + START_TIMEOUT;
    while !serves(port, process.id()) {
        let ended = process.ended();
        let tail = || log_tail(directory, log_start);
        match ended {
            Some(_) if tail().contains("Address already in use") => return Err(Failure::PortTaken),
            Some(status) => return Err(Failure::Other(format!("redis-server ended ({status}):\n{}", tail()))),
            None if Instant::now() > deadline => {
                return Err(Failure::Other(format!("redis-server still does not answer:\n{}", tail())));
            }
            None => thread::sleep(TICK),
        }
    }
    Ok(process)
}

/// Whether this very process serves the port, its data loaded. Another test's server may have been quicker to bind it.
fn serves(port: u16, pid: u32) -> bool {
    let asked = |args: &[&str]| ask(port, args, PROBE_TIMEOUT).unwrap_or_default();
    asked(&["PING"]) == "PONG" && info_field(&asked(&["INFO", "server"]), "process_id") == Some(&pid.to_string())
}

fn info_field<'a>(info: &'a str, field: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))
}

/// A port that nobody uses now, below those that the system gives to clients: a client that tries again and again to reach
/// a killed server must not be given its port, nor reach itself.
fn free_port() -> u16 {
    static LAST: AtomicU32 = AtomicU32::new(0);
    loop {
        let nth = process::id().wrapping_mul(97).wrapping_add(LAST.fetch_add(1, Ordering::Relaxed));
        let port = 10_000 + u16::try_from(nth % 20_000).expect("a small number");
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

fn fresh_directory() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let nth = COUNT.fetch_add(1, Ordering::Relaxed);
    // Process ids come again, and a killed test leaves its directory.
    let since = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_micros());
    let directory = env::temp_dir().join(format!("s2-redis-{}-{nth}-{since}", process::id()));
    fs::create_dir(&directory).expect("a directory for temporary files");
    fs::create_dir(directory.join("data")).expect("a fresh directory");
    directory
}

/// Copies a folder over another, which need not be there.
fn replace_folder(from: &Path, to: &Path) -> io::Result<()> {
    if to.exists() {
        remove_folder(to)?;
    }
    copy_folder(from, to)
}

fn remove_folder(folder: &Path) -> io::Result<()> {
    loop {
        match fs::remove_dir_all(folder) {
            // A child of a killed server, rewriting its log, lives a moment longer and made a file just now.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => thread::sleep(TICK),
            removed => break removed,
        }
    }
}

fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else if !entry.file_name().to_string_lossy().starts_with("temp-") {
            // What a child of the server is writing is not part of its data yet, and may be renamed meanwhile.
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// The end of the log, of what was written after `start`.
fn log_tail(directory: &Path, start: u64) -> String {
    let log = fs::read(directory.join("redis.log")).unwrap_or_default();
    let log = String::from_utf8_lossy(log.get(usize::try_from(start).unwrap_or(0)..).unwrap_or_default()).into_owned();
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
}

/// One command and its reply, over a connection of its own.
fn ask(port: u16, args: &[&str], within: Duration) -> io::Result<String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, within)?;
    stream.set_read_timeout(Some(within))?;
    stream.set_write_timeout(Some(within))?;
    let mut request = format!("*{}\r\n", args.len());
    for arg in args {
        request.push_str(&format!("${}\r\n{arg}\r\n", arg.len()));
    }
    stream.write_all(request.as_bytes())?;
    let mut text = Vec::new();
    read_reply(&mut BufReader::new(stream), &mut text)?;
    Ok(text.join("\n"))
}

/// Reads a reply of RESP2 into its items.
fn read_reply(from: &mut BufReader<TcpStream>, items: &mut Vec<String>) -> io::Result<()> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    let invalid = || io::Error::new(io::ErrorKind::InvalidData, format!("no reply of Redis: {line:?}"));
    let head = line.strip_suffix("\r\n").ok_or_else(invalid)?;
    let (kind, rest) = head.split_at_checked(1).ok_or_else(invalid)?;
    // -1 stands for nothing.
    let length = || rest.parse::<i64>().map(|length| usize::try_from(length).ok()).map_err(|_| invalid());
    match kind {
        "+" | "-" | ":" => items.push(rest.to_owned()),
        "$" => items.push(match length()? {
            Some(length) => {
                let mut data = vec![0; length + 2];
                from.read_exact(&mut data)?;
                String::from_utf8_lossy(&data[..length]).into_owned()
            }
            None => "(nil)".to_owned(),
        }),
        "*" => match length()? {
            Some(length) => (0..length).try_for_each(|_| read_reply(from, items))?,
            None => items.push("(nil)".to_owned()),
        },
        _ => return Err(invalid()),
    }
    Ok(())
}
