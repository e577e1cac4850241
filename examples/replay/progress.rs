//! A bar on the terminal, for runs that take a while. In a file or a pipe there is none.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// Runs that are shorter show none, and it moves as often at most.
const PATIENCE: Duration = Duration::from_millis(500);
const WIDTH: usize = 40;

/// A bar on the standard error output.
#[derive(Debug)]
pub struct Bar {
    what: String,
    is_shown: bool,
    next: Instant,
    drawn: bool,
}

impl Bar {
    /// A bar, on a terminal only.
    #[must_use]
    pub fn new() -> Self {
        let is_shown = std::io::stderr().is_terminal();
        Self { what: String::new(), is_shown, next: Instant::now() + PATIENCE, drawn: false }
    }

    /// Says what is done now.
    pub fn begin(&mut self, what: impl Into<String>) {
        self.clear();
        (self.what, self.next) = (what.into(), Instant::now() + PATIENCE);
    }

    /// So much is done.
    pub fn at(&mut self, done: usize, of: usize) {
        if !self.is_shown || of == 0 || Instant::now() < self.next {
            return;
        }
        (self.next, self.drawn) = (Instant::now() + PATIENCE / 5, true);
        let full = (done * WIDTH / of).min(WIDTH);
        eprint!("\r[{}{}] {done} of {of}  {}", "#".repeat(full), "·".repeat(WIDTH - full), self.what);
        // A bar that cannot be drawn is no reason to stop.
        drop(std::io::stderr().flush());
    }

    fn clear(&mut self) {
        if std::mem::take(&mut self.drawn) {
            eprint!("\r\x1b[2K");
        }
    }
}

impl Default for Bar {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.clear();
    }
}
