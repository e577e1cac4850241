//! Processes that an example starts from itself.

use std::error::Error;
use std::io::{self, Read};
use std::process::{Child, Command, Stdio};

/// A process that ends with this one: it is this program with `--redis`, `--fleet` and `--worker`, and is killed when this is
/// dropped.
#[derive(Debug)]
pub struct Worker(Child);

impl Worker {
    /// Starts a worker of a fleet on the server at `url`.
    ///
    /// # Errors
    ///
    /// Whatever the system has against it.
    pub fn start(url: &str, fleet: &str, worker: &str) -> Result<Self, Box<dyn Error>> {
        let args = ["--redis", url, "--fleet", fleet, "--worker", worker];
        Ok(Self(Command::new(std::env::current_exe()?).args(args).stdin(Stdio::piped()).spawn()?))
    }

    /// The number of its process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Kills it in the middle of what it does.
    ///
    /// # Errors
    ///
    /// Whatever the system has against it.
    pub fn kill(&mut self) -> io::Result<()> {
        self.0.kill()?;
        self.0.wait().map(drop)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // One that has ended already needs no killing.
        self.kill().ok();
    }
}

/// In a worker: it ends when whoever has started it is gone, however that ended.
pub fn end_with_parent() {
    std::thread::spawn(|| {
        // Nothing is ever written there.
        io::stdin().read_exact(&mut [0]).ok();
        std::process::exit(0);
    });
}
