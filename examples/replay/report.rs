//! What a replay says, as tables for people and as JSON.

use std::fmt;
use std::time::Duration;

use s2_governor::{BasisPoints, NanoUsd};
use serde::Serialize;

use crate::replay::change::HistoryRun;
use crate::replay::graph::GraphRun;
use crate::replay::lines::BadLine;
use crate::replay::outcomes::OutcomesRead;
use crate::replay::tries::{AllTries, PRICE_OF_A_TRY};

/// So many bad lines are named; of the others only the number is told.
const BAD_LINES: usize = 5;

const GRAPH_LEGEND: &str = "\
blocked   how long issues with which somebody was stuck waited until somebody went on, together
double    tasks that two sessions had at a time, or that were done twice
in vain   what was paid for help that was of no use and for work that was begun anew; waste is its share of help, without
          blockers that only the lead could solve
solved    without the lead; to lead: what it was given; claims: of issues

Each run was checked by its journal and its accounts: nothing was begun before what it waits for was over, each issue was
done once, and no account was overrun.
";

const HISTORY_LEGEND: &str = "\
held so      by attempts that came to nothing; lay about: between two attempts
till closed  from the first attempt to the end, all items together
";

/// Hours, to a hundredth.
pub(super) fn hours(time: Duration) -> f64 {
    (time.as_secs_f64() / 36.0).round() / 100.0
}

pub(super) fn percent(share: BasisPoints) -> f64 {
    f64::from(share.get()) / 100.0
}

/// What a replay came to: one part for each kind of input.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// The issues, under three policies.
    pub graph: Option<GraphRun>,
    /// How the outcome files were read.
    pub outcomes: Option<OutcomesRead>,
    /// The outcomes, the best asked first.
    pub tries: Option<AllTries>,
    /// The events, with what would have changed.
    pub history: Option<HistoryRun>,
    /// What of all this is made up.
    pub synthetic: Vec<String>,
}

impl Report {
    /// Says what is made up, of the parts that there are.
    pub(super) fn say_what_is_synthetic(&mut self) {
        let mut say = |text: &str| self.synthetic.push(text.to_owned());
        if let Some(graph) = &self.graph {
            say(
                "issues: how long work and help take (10 min to 160 min; 5 min to 30 min), after which part of it one gets stuck",
            );
            say("issues: prices ($0.90 to $2.70 an hour; the lead $18), and that the lead solves every blocker");
            say(if graph.outcomes {
                "issues: which task's outcomes an issue is given"
            } else {
                "issues: who can do what (for each session and area 20 % to 95 % of the issues)"
            });
        }
        if self.tries.is_some() {
            self.synthetic.push(format!("tries: the price, {PRICE_OF_A_TRY} each"));
        }
        if self.history.is_some() {
            let mut say = |text: &str| self.synthetic.push(text.to_owned());
            say(
                "events: that an attempt takes as long and ends as recorded, whoever makes it, and that idle workers are there",
            );
            say(
                "events: that a worker is alive until the last sign of life that is recorded, and gets on when it does something",
            );
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(graph) = &self.graph {
            write_graph(f, graph)?;
        }
        if let (Some(read), Some(tries)) = (&self.outcomes, &self.tries) {
            write_tries(f, read, tries)?;
        }
        if let Some(history) = &self.history {
            write_history(f, history)?;
        }
        writeln!(f, "synthetic, everything else is input or computed from it:")?;
        self.synthetic.iter().try_for_each(|text| writeln!(f, "- {text}"))
    }
}

fn share(percent: Option<f64>) -> String {
    percent.map_or_else(|| "–".to_owned(), |percent| format!("{percent:.1} %"))
}

/// With digits after the point, if it is not too long for its column.
fn large(number: f64, digits: usize) -> String {
    let digits = if number < 10_000.0 { digits } else { 0 };
    format!("{number:.digits$}")
}

fn in_hours(hours: f64) -> String {
    format!("{} h", large(hours, 1))
}

fn in_dollars(money: NanoUsd) -> String {
    format!("${}", large(money.as_nanos() as f64 / 1e9, 2))
}

fn write_bad(f: &mut fmt::Formatter<'_>, bad: &[BadLine]) -> fmt::Result {
    if bad.is_empty() {
        return Ok(());
    }
    writeln!(f, "bad lines, which are left out: {}", bad.len())?;
    for BadLine { line, why } in bad.iter().take(BAD_LINES) {
        writeln!(f, "  line {line}: {why}")?;
    }
    if bad.len() > BAD_LINES { writeln!(f, "  … and {} more", bad.len() - BAD_LINES) } else { Ok(()) }
}

fn write_graph(f: &mut fmt::Formatter<'_>, graph: &GraphRun) -> fmt::Result {
    let read = &graph.read;
    write!(
        f,
        "{} issues, {} edges that order them and {} that parts inherit; ",
        read.issues, read.blocks, read.inherited
    )?;
    writeln!(f, "{} parts, {} deleted", read.parts, read.tombstones)?;
    if read.unknown + read.rings > 0 {
        writeln!(
            f,
            "edges that lead out of the export: {}; that were dropped to open rings: {}",
            read.unknown, read.rings
        )?;
    }
    write_bad(f, &read.bad)?;
    writeln!(f, "{} sessions and a lead, in the same world (seed {}):\n", graph.sessions, graph.seed)?;
    let titles = ["makespan", "blocked", "double", "money", "in vain", "waste", "done", "solved", "to lead", "claims"];
    write!(f, "{:<16}", "")?;
    titles.iter().try_for_each(|title| write!(f, "{title:>10}"))?;
    writeln!(f)?;
    for run in &graph.policies {
        let columns = [
            in_hours(run.makespan_h),
            in_hours(run.blocked_h),
            run.duplicates.to_string(),
            in_dollars(run.money),
            in_dollars(run.in_vain),
            share(run.waste_percent),
        ];
        let counts = [run.done, run.solved, run.escalated, run.attempts].map(|count| count.to_string());
        write!(f, "{:<16}", run.policy)?;
        columns.iter().chain(&counts).try_for_each(|column| write!(f, "{column:>10}"))?;
        writeln!(f)?;
    }
    write!(f, "\n{GRAPH_LEGEND}\n")
}

fn write_tries(f: &mut fmt::Formatter<'_>, read: &OutcomesRead, tries: &AllTries) -> fmt::Result {
    write!(f, "{} tasks that all of {} sessions have tried", tries.tasks, tries.sessions)?;
    writeln!(f, " ({} files have too few, {} names are bad)", read.left_out.len(), read.bad_names)?;
    writeln!(f, "the best one alone solves {}, all together {}\n", tries.best_single, tries.any)?;
    writeln!(f, "{:<16}{:>10}{:>10}{:>12}{:>10}", "the best first", "solved", "attempts", "money", "waste")?;
    for one in &tries.tries {
        write!(f, "at most {:<8}{:>10}{:>10}", one.at_most, one.solved, one.attempts)?;
        writeln!(f, "{:>12}{:>8.1} %", one.money.to_string(), one.waste_percent)?;
    }
    writeln!(f)
}

fn write_history(f: &mut fmt::Formatter<'_>, history: &HistoryRun) -> fmt::Result {
    let facts = &history.facts;
    write_bad(f, &facts.bad)?;
    writeln!(
        f,
        "{} events: {} items were given to workers, {} of them to two or more",
        facts.events, facts.items, facts.twice
    )?;
    write!(f, "{} attempts: {} ended in a reset after {:.1} h, ", facts.attempts, facts.reset, facts.reset_h)?;
    writeln!(
        f,
        "{} were closed after {:.1} h ({} after more than 15 min)\n",
        facts.closed, facts.closed_h, facts.closed_long
    )?;
    let titles = ["items twice", "attempts", "in vain", "held so", "lay about", "till closed", "closed", "help waste"];
    write!(f, "{:<21}", "")?;
    titles.iter().try_for_each(|title| write!(f, "{title:>12}"))?;
    writeln!(f)?;
    for run in &history.changes {
        write!(f, "{:<21}{:>12}{:>12}{:>12}", run.change, run.twice, run.attempts, run.in_vain)?;
        write!(f, "{:>10.1} h{:>10.1} h{:>10.1} h", run.in_vain_h, run.waiting_h, run.until_closed_h)?;
        writeln!(f, "{:>12}{:>12}", run.closed, share(run.waste_percent))?;
    }
    let must = "closed attempts that had to report more than is recorded, or the deadline would have stopped them";
    writeln!(f, "\n{HISTORY_LEGEND}{must}: {}\n", history.must_report)
}
