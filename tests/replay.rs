//! The example `replay`: the numbers of real data, and those of its own fixture.

use std::path::{Path, PathBuf};

use s2_examples::replay::{Arguments, BadLine, Change, GraphRun, HistoryRun, Policy, Report, replay};
use s2_tests::data;

fn parse(args: &[&str]) -> Result<Arguments, String> {
    Arguments::parse(args.iter().map(|arg| (*arg).to_owned()))
}

async fn run(args: &[&str]) -> Report {
    replay(&parse(args).expect("arguments")).await.expect("a report")
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a path of text")
}

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/replay/fixture")
}

fn lines(bad: &[BadLine]) -> Vec<usize> {
    bad.iter().map(|bad| bad.line).collect()
}

/// All is done, once, whatever the policy; that is checked by the run itself, too, which else would be an error.
fn check_graph(graph: &GraphRun) {
    assert_eq!(graph.policies.iter().map(|run| run.policy).collect::<Vec<_>>(), Policy::ALL);
    for run in &graph.policies {
        assert_eq!((run.done, run.duplicates), (graph.read.issues, 0), "{run:?}");
        assert!(run.attempts >= run.done && run.solved <= run.done && run.in_vain <= run.money, "{run:?}");
        assert!(run.makespan_h > 0.0, "{run:?}");
    }
}

fn held_in_vain(history: &HistoryRun) -> Vec<f64> {
    history.changes.iter().map(|run| run.in_vain_h).collect()
}

#[tokio::test]
async fn lines_that_cannot_be_read_are_counted_and_the_rest_is_replayed() {
    let report = run(&[]).await;
    let graph = report.graph.expect("issues");
    let read = &graph.read;
    assert_eq!((read.issues, read.tombstones, lines(&read.bad)), (22, 1, vec![7, 19, 20]));
    assert!(read.bad[1].why.contains("priority 9") && read.bad[2].why.contains("demo-2"), "{:?}", read.bad);
    // Two of 15 wait for each other, so one is dropped. The three parts of the gateway wait for the transport, as it does.
    assert_eq!((read.blocks, read.inherited, read.parts, read.unknown, read.rings), (14, 3, 6, 1, 1));
    check_graph(&graph);
    let facts = report.history.expect("events").facts;
    assert_eq!(lines(&facts.bad), [9, 21, 22]);
}

#[tokio::test]
async fn whatever_is_drawn_all_work_is_done_once_and_in_order() {
    let issues = fixture().join("issues.jsonl");
    let outcomes = fixture().join("outcomes");
    for seed in 0..40 {
        let seed = seed.to_string();
        for sessions in ["1", "3", "20"] {
            let report = run(&[path(&issues), "--seed", &seed, "--sessions", sessions]).await;
            check_graph(&report.graph.expect("issues"));
        }
        let report = run(&[path(&issues), "--seed", &seed, "--outcomes", path(&outcomes)]).await;
        check_graph(&report.graph.expect("issues"));
    }
}

#[tokio::test]
async fn the_same_seed_gives_the_same_report_and_another_another() {
    let json = |report: &Report| serde_json::to_string(report).expect("JSON");
    let one = json(&run(&["--seed", "7"]).await);
    assert_eq!(one, json(&run(&["--seed", "7"]).await));
    assert_ne!(one, json(&run(&["--seed", "8"]).await));
}

#[tokio::test]
async fn each_policy_counts_what_it_does() {
    let graph = run(&[]).await.graph.expect("issues");
    let [escalate, lease, gang] = graph.policies.as_slice() else { panic!("three policies") };
    assert_eq!((escalate.waste_percent, escalate.in_vain.as_nanos()), (Some(0.0), 0));
    assert_eq!(escalate.solved + escalate.escalated, escalate.done, "a blocker is one issue");
    assert_eq!(lease.waste_percent, None, "nobody helps");
    assert!(gang.escalated < escalate.escalated, "{gang:?}");
}

#[tokio::test]
async fn the_best_first_is_ranked_by_all_other_tasks() {
    let report = run(&["--outcomes", path(&fixture().join("outcomes"))]).await;
    let (read, tries) = (report.outcomes.expect("outcomes"), report.tries.expect("tries"));
    assert_eq!((read.files, read.left_out, read.tasks), (3, vec!["delta".to_owned()], 10));
    assert_eq!((tries.best_single, tries.any), (5, 8));
    let solved: Vec<_> = tries.tries.iter().map(|one| (one.solved, one.attempts)).collect();
    // By hand: of ten tasks the first try solves 5, the second three more.
    assert_eq!(solved, [(5, 10), (8, 15), (8, 17)]);
}

#[tokio::test]
async fn what_leases_and_a_deadline_change_is_known_by_the_minute() {
    let report = run(&["--events", path(&fixture().join("events.jsonl"))]).await;
    let history = report.history.expect("events");
    let facts = &history.facts;
    assert_eq!((facts.items, facts.twice, facts.attempts, facts.reset, facts.closed), (5, 2, 9, 4, 5));
    // 241 + 120 + 30 + 30 min were reset, 20 + 20 + 40 + 20 + 30 min were closed.
    assert_eq!((facts.reset_h, facts.closed_h, facts.closed_long), (7.02, 2.17, 5));
    let held = held_in_vain(&history);
    assert_eq!(held[0], 7.02, "as recorded");
    // The last signs of life came after 1, 110 and no minutes, twice; each lease lasts 30 s more.
    assert_eq!(held[1], 1.88, "leases");
    // The one that was active elsewhere did nothing with its item after 2 min: 32 min instead of 110.
    assert_eq!(held[2], 0.58, "progress deadline");
    assert!(history.changes.iter().all(|run| run.closed == 5 && run.duplicates == 0), "{history:?}");
    assert_eq!(history.changes[3].change, Change::GangUp);
}

#[test]
fn wrong_arguments_are_named() {
    for (args, wrong) in [
        (&["--verbose"][..], "--verbose is not known"),
        (&["--outcomes"], "--outcomes needs a value"),
        (&["a.jsonl", "b.jsonl"], "b.jsonl is a second issue export"),
        (&["--sessions", "0"], "--sessions 0: expected a whole number from 1 to 400"),
        (&["--sessions", "many"], "--sessions many: expected a whole number from 1 to 400"),
        (&["--seed", "-1"], "--seed -1: expected a whole number from 0 to 18446744073709551615"),
    ] {
        assert_eq!(parse(args).expect_err("a mistake"), wrong);
    }
}

#[tokio::test]
async fn what_cannot_be_read_at_all_is_an_error_that_names_it() {
    let outcomes = fixture().join("outcomes");
    for args in [
        &["nowhere.jsonl"][..],
        &["--outcomes", "nowhere"],
        &["--events", "nowhere.jsonl"],
        // A file of another kind: every line of it is bad.
        &[path(&outcomes.join("alpha.json"))],
        &["--events", path(&fixture().join("issues.jsonl"))],
    ] {
        let error = replay(&parse(args).expect("arguments")).await.expect_err("an error").to_string();
        assert!(args.iter().any(|arg| error.contains(arg)), "{args:?}: {error}");
    }
}

#[tokio::test]
async fn a_real_backlog_is_done_in_order_and_without_duplicates() {
    let Some(data) = data() else { return };
    let report = run(&[path(&data.join("beads_rust/issues.jsonl"))]).await;
    let graph = report.graph.expect("issues");
    let read = &graph.read;
    assert_eq!((read.issues, read.tombstones, read.blocks, read.parts), (512, 1, 289, 114 + 19));
    assert_eq!((read.unknown, read.rings, read.bad.len()), (0, 0, 0));
    check_graph(&graph);
    let [escalate, lease, gang] = graph.policies.as_slice() else { panic!("three policies") };
    assert!(gang.blocked_h < escalate.blocked_h && escalate.blocked_h < lease.blocked_h, "{graph:?}");
}

#[tokio::test]
async fn a_real_backlog_is_done_by_those_who_can_do_what_real_models_can() {
    let Some(data) = data() else { return };
    let outcomes = data.join("swebench_pro");
    let issues = data.join("gastown/issues.jsonl");
    let graph = run(&[path(&issues), "--outcomes", path(&outcomes)]).await.graph.expect("issues");
    assert_eq!((graph.sessions, graph.read.issues, graph.read.blocks, graph.read.unknown), (6, 677, 55, 204 + 29));
    check_graph(&graph);
}

#[tokio::test]
async fn asking_the_best_of_real_models_first_solves_what_their_records_promise() {
    let Some(data) = data() else { return };
    let report = run(&["--outcomes", path(&data.join("swebench_pro"))]).await;
    let tries = report.tries.expect("tries");
    assert_eq!((tries.sessions, tries.tasks, tries.best_single, tries.any), (6, 650, 277, 383));
    for (one, expected) in tries.tries.iter().zip([284_usize, 327, 363]) {
        assert!(one.solved.abs_diff(expected) <= 3, "{one:?}: expected {expected}");
    }
    assert_eq!(tries.tries.len(), 3);
}

#[tokio::test]
async fn a_real_week_is_recomputed_and_shows_what_leases_and_a_deadline_change() {
    let Some(data) = data() else { return };
    let report = run(&["--events", path(&data.join("gastown/events.jsonl"))]).await;
    let history = report.history.expect("events");
    let facts = &history.facts;
    assert_eq!((facts.events, facts.items, facts.twice), (3_667, 206, 47));
    assert_eq!((facts.attempts, facts.reset, facts.closed, facts.closed_long), (323, 105, 218, 32));
    assert!((facts.reset_h - 201.9).abs() < 0.05 && (facts.closed_h - 33.7).abs() < 0.05, "{facts:?}");
    let [recorded, leases, deadline, gang] = history.changes.as_slice() else { panic!("four runs") };
    assert_eq!((recorded.twice, recorded.attempts, recorded.in_vain), (facts.twice, facts.attempts, facts.reset));
    assert_eq!(recorded.in_vain_h, facts.reset_h, "the scheduler holds what the record says");
    assert!(leases.in_vain_h < recorded.in_vain_h && deadline.in_vain_h < leases.in_vain_h, "{history:?}");
    assert!(gang.until_closed_h <= deadline.until_closed_h, "{history:?}");
    assert!(history.changes.iter().all(|run| run.closed == 218 && run.duplicates == 0), "{history:?}");
}
