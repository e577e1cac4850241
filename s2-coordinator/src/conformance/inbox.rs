//! The inbox: one item for each key, until a person resolves it.

use crate::conformance::harness::{Given, Outcome, cases};
use crate::conformance::kit::{DAY, inbox_of, journal_of, refused};
use crate::error::Error;
use crate::escalation::{EscalationId, NewEscalation, Resolution};
use crate::name::Subject;
use crate::severity::Severity;

cases! {
    an_escalation_waits_until_it_is_resolved: [Inbox];
    a_key_has_one_pending_escalation: [Inbox];
    sixty_four_tasks_escalate_one_key_and_there_is_one_item: [Inbox];
    a_repeated_resolution_is_answered_alike_and_another_is_refused: [Inbox];
    pending_escalations_come_in_pages: [Inbox];
    an_escalation_is_bounded: [Inbox];
    escalations_are_journalled: [Inbox, Journal];
}

fn budget() -> NewEscalation {
    NewEscalation::new(Subject::from_static("budget/telephony"), "budget_exceeded")
}

fn numbered(n: usize) -> NewEscalation {
    NewEscalation::new(Subject::new(format!("key {n}")).expect("a subject"), "test")
}

async fn an_escalation_waits_until_it_is_resolved(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let inbox = inbox_of(&*fleet);
    let raised = inbox.escalate(budget().with_payload("{}").with_severity(Severity::Critical)).await?;
    assert!(!raised.duplicate);
    fleet.advance(30 * DAY).await;
    let pending = inbox.pending(EscalationId::default(), 10).await?;
    assert_eq!(pending.len(), 1);
    let item = &pending[0];
    assert_eq!((item.id, item.key.as_str(), &*item.reason), (raised.id, "budget/telephony", "budget_exceeded"));
    assert_eq!((&item.payload[..], item.severity, item.times), (&b"{}"[..], Severity::Critical, 1));
    inbox.resolve(raised.id, Resolution::new("ada", "resume")).await?;
    assert_eq!(inbox.pending(EscalationId::default(), 10).await?, []);
    Ok(())
}

async fn a_key_has_one_pending_escalation(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let inbox = inbox_of(&*fleet);
    let first = inbox.escalate(budget().with_payload("first")).await?;
    for _ in 0..3 {
        let again = inbox.escalate(budget().with_payload("again")).await?;
        assert_eq!((again.id, again.duplicate), (first.id, true));
    }
    let pending = inbox.pending(EscalationId::default(), 10).await?;
    assert_eq!((pending.len(), pending[0].times, &pending[0].payload[..]), (1, 4, &b"first"[..]));
    inbox.resolve(first.id, Resolution::new("ada", "resume")).await?;
    let anew = inbox.escalate(budget()).await?;
    assert!(!anew.duplicate && anew.id > first.id, "after a resolution it is a new one");
    Ok(())
}

async fn sixty_four_tasks_escalate_one_key_and_there_is_one_item(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..64 {
        let inbox = inbox_of(&*fleet);
        tasks.spawn(async move { inbox.escalate(budget()).await });
    }
    let mut fresh = 0;
    for raised in tasks.join_all().await {
        fresh += usize::from(!raised?.duplicate);
    }
    let pending = inbox_of(&*fleet).pending(EscalationId::default(), 10).await?;
    assert_eq!((fresh, pending.len(), pending[0].times), (1, 1, 64));
    Ok(())
}

async fn a_repeated_resolution_is_answered_alike_and_another_is_refused(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let inbox = inbox_of(&*fleet);
    let raised = inbox.escalate(budget()).await?;
    let resume = Resolution::new("ada", "resume");
    inbox.resolve(raised.id, resume.clone()).await?;
    inbox.resolve(raised.id, resume).await?;
    match inbox.resolve(raised.id, Resolution::new("bob", "cancel")).await {
        Err(Error::AlreadyResolved { by, decision, .. }) => assert_eq!((&*by, &*decision), ("ada", "resume")),
        other => panic!("expected a refusal, got {other:?}"),
    }
    let unknown = EscalationId::new(4711);
    refused!(inbox.resolve(unknown, Resolution::new("ada", "resume")).await, Error::UnknownEscalation { .. });
    // The same key raised anew is not resolved by a repeat of the old resolution.
    let anew = inbox.escalate(budget()).await?;
    inbox.resolve(raised.id, Resolution::new("ada", "resume")).await?;
    assert_eq!(inbox.pending(EscalationId::default(), 10).await?[0].id, anew.id);
    Ok(())
}

async fn pending_escalations_come_in_pages(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let inbox = inbox_of(&*fleet);
    for n in 0..5 {
        inbox.escalate(numbered(n)).await?;
    }
    let first = inbox.pending(EscalationId::default(), 3).await?;
    let rest = inbox.pending(first[2].id, 3).await?;
    let keys: Vec<&str> = first.iter().chain(&rest).map(|item| item.key.as_str()).collect();
    assert_eq!(keys, ["key 0", "key 1", "key 2", "key 3", "key 4"]);
    refused!(inbox.pending(EscalationId::default(), 0).await, Error::Invalid(_));
    refused!(inbox.pending(EscalationId::default(), 501).await, Error::LimitExceeded { limit: "batch", .. });
    Ok(())
}

async fn an_escalation_is_bounded(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let inbox = inbox_of(&*fleet);
    let big = budget().with_payload(vec![0; 1024 * 1024 + 1]);
    refused!(inbox.escalate(big).await, Error::LimitExceeded { limit: "payload_bytes", .. });
    let long = NewEscalation::new(Subject::from_static("key"), "x".repeat(1025));
    refused!(inbox.escalate(long).await, Error::LimitExceeded { limit: "reason_bytes", .. });
    assert_eq!(inbox.pending(EscalationId::default(), 10).await?, []);
    Ok(())
}

async fn escalations_are_journalled(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let inbox = inbox_of(&*fleet);
    let raised = inbox.escalate(budget()).await?;
    inbox.escalate(budget()).await?;
    inbox.resolve(raised.id, Resolution::new("ada", "resume")).await?;
    let journal = journal_of(&*fleet);
    let entries = journal.entries(journal.start().await?, 500).await?.items;
    let entries: Vec<_> = entries.into_iter().filter(|entry| entry.component.as_str() == "inbox").collect();
    let told: Vec<(&str, &str, &str)> =
        entries.iter().map(|e| (e.component.as_str(), e.operation.as_str(), e.subject.as_str())).collect();
    let expected = [("inbox", "escalate", "budget/telephony"), ("inbox", "resolve", "budget/telephony")];
    assert_eq!(told, expected);
    assert_eq!(entries[0].severity, Severity::High);
    Ok(())
}
