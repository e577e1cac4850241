//! Worker processes to kill.
//!
//! A task that is dropped still runs destructors; a process that is killed does not. A test of crashes therefore needs
//! processes, and the program at hand is the test's own: [`Worker::spawn`] runs it again, with the one test that is the
//! worker's main. That is an ignored test beside those that spawn it, and does nothing when somebody runs it as a test:
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use s2_tests::workers::{Worker, is_worker};
//!
//! #[test]
//! #[ignore = "a worker of the tests in this file"]
//! fn doubler() {
//!     if !is_worker() {
//!         return;
//!     }
//!     let number: u32 = std::env::var("NUMBER").expect("a number").parse().expect("a number");
//!     println!("{}", 2 * number);
//! }
//!
//! #[test]
//! fn a_worker_doubles() {
//!     let mut worker = Worker::spawn("doubler", &[("NUMBER", "21".to_owned())]);
//!     assert_eq!(worker.line(Duration::from_secs(10)).as_deref(), Some("42"));
//! }
//! ```

use std::env;
use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::spawner::Process;
use crate::spawner::TICK;

/// The variable that says that a process is a worker; its value is the role.
const WORKER: &str = "S2_WORKER";

/// How long a worker may take to begin.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// Whether this process is a worker: `S2_WORKER` is set. A worker's main returns at once when it is not.
#[must_use]
pub fn is_worker() -> bool {
    env::var_os(WORKER).is_some()
}

/// A process that plays a role in a test.
///
/// Dropping it kills the process. When the test itself is killed, Linux kills the worker (given util-linux's `setpriv`),
/// and what the worker started through this kit with it.
#[derive(Debug)]
pub struct Worker {
    process: Process,
    lines: mpsc::Receiver<String>,
}

impl Worker {
    /// Starts a worker. `role` is the full name of its main as the test program lists it (`crash::committer` within a
    /// module); `args` become environment variables, and `S2_WORKER` becomes the role. It has no input; its output is
    /// read by [`line`](Self::line); its errors go where the test's go.
    ///
    /// # Panics
    ///
    /// When the program has no ignored test of that name, or does not start.
    #[must_use]
    pub fn spawn(role: &str, args: &[(&str, String)]) -> Self {
        let program = env::current_exe().expect("the program of the test");
        let spawned = Process::spawn(&program, |command| {
            // Quiet, as the harness else begins the worker's first line with the name of the test.
            command.args(["--exact", role, "--nocapture", "--ignored", "--test-threads", "1", "--quiet"]);
            command.env(WORKER, role).envs(args.iter().map(|(name, value)| (*name, value)));
            command.stdout(Stdio::piped());
        });
        let mut process = spawned.unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        let output = process.stdout().expect("output is piped");
        let (sender, lines) = mpsc::channel();
        let failed = format!("{role} --- FAILED");
        thread::spawn(move || forward(output, &failed, &sender));
        match lines.recv_timeout(START_TIMEOUT).as_deref() {
            Ok("running 1 test") => Self { process, lines },
            Ok(other) => panic!("no worker {role}, an ignored test of this program: {other}"),
            Err(error) => panic!("worker {role} does not begin: {error}"),
        }
    }

    /// The next line that the worker prints; `None` when none came in time, or the worker has ended and all its lines
    /// were read. A line that is but a dot is taken for the end: the harness ends with it.
    #[must_use]
    pub fn line(&mut self, timeout: Duration) -> Option<String> {
        self.lines.recv_timeout(timeout).ok()
    }

    /// The id of its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// SIGKILL; returns when it is gone. Nothing happens when it is gone already. Lines that it printed before can still
    /// be read.
    ///
    /// # Panics
    ///
    /// When the operating system refuses.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// SIGSTOP, as a long pause of garbage collection or of the machine; returns when the worker stands still.
    ///
    /// # Panics
    ///
    /// When the worker has ended.
    pub fn stop(&mut self) {
        self.process.stop();
    }

    /// SIGCONT.
    ///
    /// # Panics
    ///
    /// When the worker has ended.
    pub fn resume(&mut self) {
        self.process.resume();
    }

    /// Waits for the worker to end, and answers whether its main returned. `false` when it panicked, was killed, or
    /// still runs after `timeout`.
    ///
    /// # Panics
    ///
    /// When the operating system refuses.
    #[must_use]
    pub fn wait(&mut self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        loop {
            match self.process.ended() {
                Some(status) => return status.success(),
                None if Instant::now() >= deadline => return false,
                None => thread::sleep(TICK),
            }
        }
    }
}

/// Passes on what the worker prints, from the harness's `running …` to its verdict.
fn forward(output: impl Read, failed: &str, lines: &mpsc::Sender<String>) {
    let printed = BufReader::new(output).lines().map_while(Result::ok);
    let mut forwarding = true;
    for line in printed.skip_while(|line| !line.starts_with("running ")) {
        forwarding = forwarding && line != "." && line != failed;
        // The rest is read, too: a worker whose output is closed would fail when it prints.
        if forwarding {
            drop(lines.send(line));
        }
    }
}
