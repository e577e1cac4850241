//! The command line.

use std::path::PathBuf;

use crate::replay::world::SESSIONS;

/// How to call it.
pub const USAGE: &str = "\
usage: replay [ISSUES.jsonl] [--outcomes FOLDER] [--events EVENTS.jsonl] [--sessions N] [--seed N] [--json]

  ISSUES.jsonl   an issue export in the beads JSONL format: done under three policies
  --outcomes     a folder of outcome files: asking the best first; with issues, who can do what
  --events       the events of a swarm: what leases, a progress deadline and helpers change
  --sessions     how many sessions there are, 1 to 400, unless outcome files name them; 8 unless set
  --seed         from which all that is synthetic is drawn; 1 unless set
  --json         the report as JSON

Without any of the first three, it replays a small example of its own.";

/// What to replay, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arguments {
    /// An issue export.
    pub issues: Option<PathBuf>,
    /// A folder of outcome files.
    pub outcomes: Option<PathBuf>,
    /// Events of a swarm.
    pub events: Option<PathBuf>,
    /// How many sessions there are.
    pub sessions: usize,
    /// From which all that is synthetic is drawn.
    pub seed: u64,
    /// Whether the report is JSON.
    pub json: bool,
}

impl Default for Arguments {
    fn default() -> Self {
        Self { issues: None, outcomes: None, events: None, sessions: SESSIONS, seed: 1, json: false }
    }
}

impl Arguments {
    /// Reads the command line, without the name of the program. If it names nothing to replay, it is the example's own.
    ///
    /// # Errors
    ///
    /// What is wrong, for people.
    pub fn parse(args: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let (mut parsed, mut args) = (Self::default(), args.into_iter());
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
            match arg.as_str() {
                "--json" => parsed.json = true,
                "--outcomes" => parsed.outcomes = Some(value()?.into()),
                "--events" => parsed.events = Some(value()?.into()),
                "--sessions" => parsed.sessions = usize::try_from(number(&arg, &value()?, 1..=400)?).unwrap_or(1),
                "--seed" => parsed.seed = number(&arg, &value()?, 0..=u64::MAX)?,
                _ if arg.starts_with('-') => return Err(format!("{arg} is not known")),
                _ if parsed.issues.is_some() => return Err(format!("{arg} is a second issue export")),
                _ => parsed.issues = Some(arg.into()),
            }
        }
        Ok(if parsed.names_nothing() { parsed.with_fixture() } else { parsed })
    }

    fn names_nothing(&self) -> bool {
        self.issues.is_none() && self.outcomes.is_none() && self.events.is_none()
    }

    fn with_fixture(mut self) -> Self {
        let file = |name: &str| Some(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("replay/fixture").join(name));
        (self.issues, self.outcomes, self.events) = (file("issues.jsonl"), file("outcomes"), file("events.jsonl"));
        self
    }
}

fn number(option: &str, value: &str, range: std::ops::RangeInclusive<u64>) -> Result<u64, String> {
    let number = value.parse().ok().filter(|number| range.contains(number));
    number.ok_or_else(|| format!("{option} {value}: expected a whole number from {} to {}", range.start(), range.end()))
}
