//! Processes that never outlive the test that started them.
//!
//! `Drop` ends a process when a test ends or panics; nothing of the test runs when the test itself is killed. There the
//! kernel helps: `setpriv --pdeathsig KILL` (util-linux) has it end the process with its parent. To the kernel the
//! parent is the *thread* that spawned, and a test's thread ends with its test, so that one thread, which lives as long
//! as the program, spawns everything. Where `setpriv` is missing, processes are started plainly.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{OnceLock, mpsc};
use std::time::{Duration, Instant};
use std::{env, fs, io, thread};

/// How long a signalled process may take to stand still.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Between two looks at a condition.
pub(crate) const TICK: Duration = Duration::from_millis(2);

/// A process that is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    stopped: bool,
}

impl Process {
    /// Starts `program`, with an empty input.
    pub(crate) fn spawn(program: &Path, configure: impl FnOnce(&mut Command)) -> io::Result<Self> {
        let mut command = if let Some(setpriv) = setpriv() {
            let mut command = Command::new(setpriv);
            command.args(["--pdeathsig", "KILL", "--"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        command.stdin(Stdio::null());
        configure(&mut command);
        let (answer, child) = mpsc::channel();
        spawner().send((command, answer)).expect("the spawner lives as long as the program");
        let child = child.recv().expect("the spawner answers")?;
        Ok(Self { child, stopped: false })
    }

    /// Its id; `setpriv` has become the program by then, and has no id of its own.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its output, once, when it is piped.
    pub(crate) fn stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// How it ended, when it did.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child of this process")
    }

    /// Whether it waits for [`resume`](Self::resume).
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// SIGKILL; returns when it is gone, also when it was before.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("a child may be killed");
        self.child.wait().expect("a child of this process");
        self.stopped = false;
    }

    /// SIGSTOP; returns when all of its threads stand still.
    pub(crate) fn stop(&mut self) {
        self.signal("-STOP");
        self.stopped = true;
        let deadline = Instant::now() + STOP_TIMEOUT;
        while !stands_still(self.id()) {
            assert!(Instant::now() < deadline, "process {} does not stop", self.id());
            thread::sleep(TICK);
        }
    }

    /// SIGCONT.
    pub(crate) fn resume(&mut self) {
        self.signal("-CONT");
        self.stopped = false;
    }

    fn signal(&mut self, signal: &str) {
        let id = self.id();
        // Its id may be another's by now.
        assert!(self.ended().is_none(), "process {id} has ended: it gets no {signal}");
        let sent = Command::new("/bin/kill").args([signal, &id.to_string()]).status();
        let sent = sent.expect("/bin/kill is missing: install procps (Debian: apt-get install procps)");
        assert!(sent.success(), "/bin/kill {signal} {id}: {sent}");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Whether each thread of a process is in state `T`, stopped; where there is no `/proc`, nobody can tell, and the signal
/// has to do.
fn stands_still(id: u32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{id}/task")) else { return true };
    threads.flatten().filter_map(|thread| fs::read_to_string(thread.path().join("stat")).ok()).all(|stat| {
        // `17 (a name, maybe with parentheses) T …`
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['T', 't']))
    })
}

/// The file of a program that can be run by name.
pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    let folders = env::var_os("PATH")?;
    env::split_paths(&folders).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// `setpriv`, when there is one that knows `--pdeathsig` (that of busybox does not).
fn setpriv() -> Option<&'static OsStr> {
    static SETPRIV: OnceLock<Option<PathBuf>> = OnceLock::new();
    let found = SETPRIV.get_or_init(|| {
        let setpriv = on_path("setpriv")?;
        let probe = Command::new(&setpriv).args(["--pdeathsig", "KILL", "--", "/bin/true"]).output().ok()?;
        probe.status.success().then_some(setpriv)
    });
    found.as_ref().map(|file| file.as_os_str())
}

type Request = (Command, mpsc::Sender<io::Result<Child>>);

/// The way to the thread that spawns.
fn spawner() -> &'static mpsc::Sender<Request> {
    static SPAWNER: OnceLock<mpsc::Sender<Request>> = OnceLock::new();
    SPAWNER.get_or_init(|| {
        let (sender, requests) = mpsc::channel::<Request>();
        let spawn = move || {
            for (mut command, answer) in requests {
                drop(answer.send(command.spawn()));
            }
        };
        thread::Builder::new().name("spawner".to_owned()).spawn(spawn).expect("a thread");
        sender
    })
}
