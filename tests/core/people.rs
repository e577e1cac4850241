//! What only people can decide reaches them once, and what they say happens.

use std::sync::Arc;
use std::time::Duration;

use s2_coordinator::{
    Blocker, Capabilities, Escalation, EscalationId, NewEscalation, Profile, Resolution, Retry, Session as Claimant,
    Subject, TaskId, TaskKind, TaskState, Tasks,
};
use s2_core::{Context, Error, TaskError};
use s2_governor::{Charge, Limit};
use tokio::sync::mpsc;

use crate::{Fleet, GRACE, On, cents, name, on_both, patient, settings, until, within, work};

on_both! {
    an_answer_arrives
    a_question_is_asked_once_though_the_handler_begins_anew
    a_question_that_was_answered_is_not_asked_again
    a_question_that_is_cancelled_has_no_answer
    a_question_may_wait_for_hours
    an_answer_that_nobody_could_give_yet_is_not_lost
    two_people_answer_at_once
    two_questions_are_told_apart
    what_a_host_asks_touches_no_task
    help_that_nobody_gives_is_decided_by_a_person
    a_halted_account_is_resumed_by_its_escalation
    escalations_are_shown_once_and_in_order
}

async fn pending(fleet: &Fleet) -> Vec<Escalation> {
    fleet.s2.inbox().pending(EscalationId::default(), 100).await.expect("the inbox")
}

/// The only question that waits.
async fn question(fleet: &Fleet) -> Escalation {
    until(async || !pending(fleet).await.is_empty()).await;
    let mut pending = pending(fleet).await;
    assert_eq!((pending.len(), pending[0].reason.as_str()), (1, "question"), "{pending:?}");
    pending.remove(0)
}

fn says(what: &str) -> Resolution {
    Resolution::new("danny", what.to_owned())
}

async fn asker(fleet: &Fleet) -> TaskId {
    let session = fleet.s2.session("one").run(async |cx: Context| {
        let answer = cx.ask("which codec?").await?;
        Ok(format!("{}: {}", answer.by, answer.decision))
    });
    session.await.expect("a session");
    fleet.submit(work()).await
}

async fn an_answer_arrives(on: On) {
    let fleet = on.fleet().await;
    let id = asker(&fleet).await;
    let asked = question(&fleet).await;
    let payload: serde_json::Value = serde_json::from_slice(&asked.payload).expect("JSON");
    assert_eq!((&payload["question"], &payload["session"]), (&"which codec?".into(), &"one".into()));
    // Its place is free meanwhile.
    let other = fleet.submit(work().with_data("other")).await;
    fleet.until_state(other, TaskState::Blocked).await;
    fleet.s2.resolve(asked.id, says("PCMU")).await.expect("resolved");
    assert_eq!(fleet.done::<String>(id).await, "danny: PCMU");
    assert_eq!(fleet.s2.resolve(asked.id, says("PCMA")).await.expect_err("too late").code(), "S2_ALREADY_RESOLVED");
    let nobody = EscalationId::new(asked.id.get() + 1_000);
    assert_eq!(fleet.s2.resolve(nobody, says("yes")).await.expect_err("unknown").code(), "S2_UNKNOWN_ESCALATION");
    fleet.s2.shutdown(GRACE).await;
}

/// The process that asked leaves, and another one asks the same: people hear of one question, and the answer arrives.
async fn a_question_is_asked_once_though_the_handler_begins_anew(on: On) {
    let fleet = on.fleet().await;
    let first = fleet.again().await;
    let ask = async |cx: Context| Ok(cx.ask("which codec?").await?.decision);
    first.session("one").run(ask).await.expect("a session");
    let id = fleet.submit(work()).await;
    let asked = question(&fleet).await;
    first.shutdown(Duration::ZERO).await;
    assert!(!fleet.state(id).await.is_finished());
    fleet.s2.session("two").run(ask).await.expect("a session");
    assert_eq!(question(&fleet).await.id, asked.id);
    fleet.s2.resolve(asked.id, says("PCMU")).await.expect("resolved");
    assert_eq!(fleet.done::<String>(id).await, "PCMU");
    assert_eq!(pending(&fleet).await, []);
    let questions = Tasks::all().with_kind(TaskKind::from_static("s2.question"));
    assert_eq!(fleet.s2.scheduler().list(&questions).await.expect("a page").items.len(), 1);
    fleet.s2.shutdown(GRACE).await;
}

/// The handler fails after it was answered: the next attempt gets the same answer, and nobody is asked again.
async fn a_question_that_was_answered_is_not_asked_again(on: On) {
    let fleet = on.fleet().await;
    let session = fleet.s2.session("one").run(async |cx: Context| {
        let answer = cx.ask("which codec?").await?;
        if cx.attempt() == 1 { Err(TaskError::retry("not yet")) } else { Ok(answer.decision) }
    });
    session.await.expect("a session");
    let id = fleet.submit(work()).await;
    let asked = question(&fleet).await;
    fleet.s2.resolve(asked.id, says("PCMU")).await.expect("resolved");
    assert_eq!(fleet.done::<String>(id).await, "PCMU");
    assert_eq!(fleet.failures(id).await, 1);
    assert_eq!(pending(&fleet).await, [], "nothing waits for a person");
    fleet.s2.shutdown(GRACE).await;
}

async fn a_question_that_is_cancelled_has_no_answer(on: On) {
    let fleet = on.fleet().await;
    let (said, mut heard) = mpsc::unbounded_channel();
    let session = fleet.s2.session("one").run(move |cx: Context| {
        let said = said.clone();
        async move {
            let answer = cx.ask("which codec?").await;
            said.send(answer.map(drop)).expect("somebody listens");
            Ok(())
        }
    });
    session.await.expect("a session");
    let id = fleet.submit(work()).await;
    let asked = question(&fleet).await;
    let question: TaskId = asked.key.as_str().trim_start_matches("question:").parse().map(TaskId::new).expect("a task");
    fleet.s2.scheduler().cancel(question, "nobody knows".into()).await.expect("cancelled");
    let unanswered = within(heard.recv()).await.expect("it goes on").expect_err("nobody has answered");
    assert!(
        matches!(&unanswered, Error::Unanswered { question } if question.as_str() == "which codec?"),
        "{unanswered}"
    );
    fleet.done::<()>(id).await;
    fleet.s2.resolve(asked.id, says("PCMU")).await.expect("seen to, without effect");
    assert_eq!(pending(&fleet).await, []);
    fleet.s2.shutdown(GRACE).await;
}

/// Longer than a blocked task waits for help: the answer counts all the same.
async fn a_question_may_wait_for_hours(on: On) {
    let fleet = on.still().await;
    let id = asker(&fleet).await;
    let asked = question(&fleet).await;
    for _ in 0..20 {
        fleet.advance(Duration::from_secs(10 * 60));
        for _ in 0..10 {
            tokio::time::sleep(crate::TICK).await;
        }
        assert!(!fleet.state(id).await.is_finished());
    }
    fleet.s2.resolve(asked.id, says("PCMU")).await.expect("resolved");
    assert_eq!(fleet.done::<String>(id).await, "danny: PCMU");
    fleet.s2.shutdown(GRACE).await;
}

/// Whoever wrote the answer down died: the question comes back after a backoff. Until it is there, the escalation waits.
async fn an_answer_that_nobody_could_give_yet_is_not_lost(on: On) {
    let mut config = patient();
    config.backoff.base = Duration::from_secs(60);
    let fleet = on.with(config, settings(""), true).await;
    let id = asker(&fleet).await;
    let asked = question(&fleet).await;
    let person = Profile::new(name("died")).with_capabilities(Capabilities::new(["only:s2:person"]).expect("a word"));
    let person = Claimant::enter(Arc::clone(fleet.s2.scheduler()), &person).await.expect("a session");
    let held = person.try_claim().await.expect("no error").expect("the question");
    let failed = s2_coordinator::Ending::Fail { reason: "died".into(), retry: Retry::Backoff };
    held.end(failed).await.expect("ended");
    person.leave().await.expect("left");
    let early = fleet.s2.resolve(asked.id, says("PCMU")).await;
    if early.is_err() {
        assert_eq!(question(&fleet).await.id, asked.id, "it still waits");
        fleet.advance(Duration::from_secs(60));
        fleet.s2.resolve(asked.id, says("PCMU")).await.expect("resolved");
    }
    assert_eq!(fleet.done::<String>(id).await, "danny: PCMU");
    fleet.s2.shutdown(GRACE).await;
}

async fn two_people_answer_at_once(on: On) {
    let fleet = on.fleet().await;
    let id = asker(&fleet).await;
    let asked = question(&fleet).await;
    let others = [fleet.again().await, fleet.again().await];
    let answers = [says("PCMU"), says("PCMA")];
    let [one, two] = [0, 1].map(|nth| {
        let (s2, answer, asked) = (others[nth].clone(), answers[nth].clone(), asked.id);
        tokio::spawn(async move { s2.resolve(asked, answer).await })
    });
    let (one, two) = (one.await.expect("no panic"), two.await.expect("no panic"));
    if one.is_err() && two.is_err() {
        until(async || {
            let again = fleet.s2.resolve(asked.id, says("PCMU")).await;
            again.is_ok()
        })
        .await;
    }
    let answer = fleet.done::<String>(id).await;
    assert!(answer == "danny: PCMU" || answer == "danny: PCMA", "{answer}");
    fleet.s2.shutdown(GRACE).await;
}

/// Answers find their questions, whichever was asked first, also those of one task.
async fn two_questions_are_told_apart(on: On) {
    let fleet = on.fleet().await;
    let session = fleet.s2.session("one").concurrency(2).run(async |cx: Context| {
        let mine: String = cx.task().json()?;
        let first = cx.ask(mine.clone()).await?;
        let second = cx.ask(format!("{mine} again")).await?;
        Ok((first.decision, second.decision))
    });
    session.await.expect("a session");
    let mut ids = Vec::new();
    for which in ["left", "right"] {
        ids.push(fleet.submit(work().with_json(which).expect("JSON")).await);
    }
    for _ in 0..2 {
        until(async || pending(&fleet).await.len() == 2).await;
        for asked in pending(&fleet).await.into_iter().rev() {
            let payload: serde_json::Value = serde_json::from_slice(&asked.payload).expect("JSON");
            let question = payload["question"].as_str().expect("text").to_owned();
            fleet.s2.resolve(asked.id, says(&question)).await.expect("resolved");
        }
    }
    for (id, which) in ids.into_iter().zip(["left", "right"]) {
        assert_eq!(fleet.done::<(String, String)>(id).await, (which.to_owned(), format!("{which} again")));
    }
    fleet.s2.shutdown(GRACE).await;
}

/// A host escalates what it likes. Its keys may look like those of S², and its decisions sound like them.
async fn what_a_host_asks_touches_no_task(on: On) {
    let fleet = on.fleet().await;
    let awaited = fleet.submit(work().with_start(Duration::from_secs(3_600))).await;
    let session = fleet.s2.session("one").run(move |cx: Context| async move {
        cx.blocked(Blocker::new("waits").with_wait(awaited)).await?;
        Ok(())
    });
    session.await.expect("a session");
    let id = fleet.submit(work()).await;
    fleet.until_state(id, TaskState::Blocked).await;
    for (nth, decision) in ["cancel", "unblock"].into_iter().enumerate() {
        let key = Subject::new(format!("invoice-{nth}:{id}")).expect("a key");
        let raised = fleet.s2.inbox().escalate(NewEscalation::new(key, "is this invoice ours?")).await.expect("raised");
        fleet.s2.resolve(raised.id, says(decision)).await.expect("resolved");
        assert_eq!(fleet.state(id).await, TaskState::Blocked, "{decision}: the task has nothing to do with it");
    }
    fleet.s2.shutdown(Duration::ZERO).await;
}

async fn help_that_nobody_gives_is_decided_by_a_person(on: On) {
    let fleet = on.fleet().await;
    let session = fleet.s2.session("one").concurrency(2).run(async |cx: Context| {
        let needs = Capabilities::new(["legal:contracts"])?;
        let rescued = cx.blocked(Blocker::new("may we?").with_requires(needs)).await?;
        Ok(rescued.answers.len())
    });
    session.await.expect("a session");
    for decision in ["unblock", "cancel"] {
        let id = fleet.submit(work()).await;
        until(async || !pending(&fleet).await.is_empty()).await;
        let asked = pending(&fleet).await.remove(0);
        assert_eq!((asked.reason.as_str(), asked.key.as_str()), ("no_rescuer", &*format!("no_rescuer:{id}")));
        fleet.s2.resolve(asked.id, says(decision)).await.expect("resolved");
        match decision {
            "unblock" => assert_eq!(fleet.done::<usize>(id).await, 0),
            _ => fleet.until_state(id, TaskState::Cancelled).await,
        }
        assert_eq!(pending(&fleet).await, []);
    }
    fleet.s2.shutdown(GRACE).await;
}

/// Whatever the account is called, and however long its name is.
async fn a_halted_account_is_resumed_by_its_escalation(on: On) {
    let fleet = on.fleet().await;
    let long = format!("{}/session", ["swarm-of-swarms"; 15].join("/"));
    for account in ["telephony/one", long.as_str()] {
        let session = name(account);
        fleet.s2.ledger().set_limit(&session, Limit::PerDay(cents(10))).await.expect("a limit");
        fleet
            .s2
            .ledger()
            .charge(&Charge::new(session.clone(), cents(10)))
            .await
            .expect("posted")
            .require()
            .expect_err("all");
        let asked = pending(&fleet).await.remove(0);
        assert_eq!(asked.reason.as_str(), "budget_exceeded");
        assert!(fleet.balance(account).await.halted.is_some());
        fleet.s2.resolve(asked.id, says("resume")).await.expect("resolved");
        assert_eq!(fleet.balance(account).await.halted, None, "{account}");
    }
}

async fn escalations_are_shown_once_and_in_order(on: On) {
    let fleet = on.fleet().await;
    let raise = async |nth: u32| {
        let key = Subject::new(format!("question-{nth}")).expect("a key");
        fleet.s2.inbox().escalate(NewEscalation::new(key, "what now?")).await.expect("raised").id
    };
    let mut raised = Vec::new();
    for nth in 0..150 {
        raised.push(raise(nth).await);
    }
    let (said, mut heard) = mpsc::unbounded_channel();
    fleet.s2.on_escalation(move |escalation| {
        let said = said.clone();
        async move { said.send(escalation.id).expect("somebody listens") }
    });
    let mut shown = Vec::new();
    while shown.len() < 150 {
        shown.push(within(heard.recv()).await.expect("shown"));
    }
    raise(3).await;
    raised.push(raise(150).await);
    shown.push(within(heard.recv()).await.expect("shown"));
    assert_eq!(shown, raised);
    fleet.s2.shutdown(GRACE).await;
    assert_eq!(within(heard.recv()).await, None, "nothing is shown any more");
}
