//! Why a task is where it is, with all that S² knows.

use std::time::Duration;

use s2_coordinator::{Blocker, Capabilities, TaskId, TaskState, Why};
use s2_core::Context;
use s2_governor::ForcedTo;

use crate::{GRACE, On, name, on_both, work};

on_both! {
    halted_accounts_of_those_who_could_take_it_are_named
    providers_that_are_left_alone_are_named
    whoever_could_help_is_named
}

async fn halted_accounts_of_those_who_could_take_it_are_named(on: On) {
    let fleet = on.fleet().await;
    for swarm in ["telephony", "video", "legal/one"] {
        fleet.s2.ledger().halt(&name(swarm), "maintenance").await.expect("halted");
    }
    for (session, skill) in [("telephony/one", "voice:sip"), ("telephony/two", "voice:sip"), ("video/one", "video:ndi")]
    {
        fleet.s2.session(session).skills([skill]).run(async |_| Ok(())).await.expect("a session");
    }
    let needs = Capabilities::new(["voice:sip"]).expect("a skill");
    let id = fleet.submit(work().with_requires(needs)).await;
    let explained = fleet.s2.why(id).await.expect("a reason");
    assert!(matches!(explained.why, Why::Queued { .. }), "{explained}");
    let halted: Vec<_> = explained.halted.iter().map(|balance| balance.swarm.as_str()).collect();
    assert_eq!(halted, ["telephony"], "{explained}");
    assert!(explained.to_string().contains("\ntelephony is halted: maintenance, spent $0.00 of "), "{explained}");
    fleet.s2.shutdown(GRACE).await;
}

async fn providers_that_are_left_alone_are_named(on: On) {
    let fleet = on.fleet().await;
    let id = fleet.submit(work()).await;
    let explained = fleet.s2.why(id).await.expect("a reason");
    assert!(matches!(explained.why, Why::NoSession) && explained.breakers.is_empty(), "{explained}");
    let provider = fleet.s2.providers().get("models").expect("a provider");
    provider.breaker().force(ForcedTo::Open, "a person", "maintenance").await.expect("forced");
    let explained = fleet.s2.why(id).await.expect("a reason");
    assert_eq!(explained.breakers.len(), 1, "{explained}");
    assert!(explained.to_string().contains("\nprovider models is left alone"), "{explained}");
    provider.breaker().clear("a person").await.expect("cleared");
    assert!(fleet.s2.why(id).await.expect("a reason").breakers.is_empty());
    provider.breaker().acquire().await.expect("closed").throttled(Some(Duration::from_secs(60)));
    let explained = fleet.s2.why(id).await.expect("a reason");
    assert!(explained.breakers[0].until.is_some(), "{explained}");
    provider.breaker().force(ForcedTo::Closed, "a person", "it is needed").await.expect("forced");
    let explained = fleet.s2.why(id).await.expect("a reason");
    assert!(explained.breakers.is_empty(), "whoever asks it gets through: {explained}");
}

async fn whoever_could_help_is_named(on: On) {
    let fleet = on.fleet().await;
    let awaited = fleet.submit(work().with_start(Duration::from_secs(3_600))).await;
    let session = fleet.s2.session("one").skills(["voice:sip"]).run(move |cx: Context| async move {
        let needs = Capabilities::new(["video:ndi"])?;
        cx.blocked(Blocker::new("which port?").with_wait(awaited).with_requires(needs)).await?;
        Ok(())
    });
    session.await.expect("a session");
    fleet.s2.session("two").skills(["video:ndi"]).run(async |_| Ok(())).await.expect("a session");
    let id = fleet.submit(work().with_requires(Capabilities::new(["voice:sip"]).expect("a skill"))).await;
    fleet.until_state(id, TaskState::Blocked).await;
    let explained = fleet.s2.why(id).await.expect("a reason");
    assert!(matches!(&explained.why, Why::Blocked { reason, .. } if reason.as_str() == "which port?"), "{explained}");
    assert_eq!(explained.helpers[0].0, name("two"), "{explained}");
    fleet.s2.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn nobody_knows_of_an_unknown_task() {
    let fleet = On::Memory.fleet().await;
    let error = fleet.s2.why(TaskId::new(1_000)).await.expect_err("unknown");
    assert_eq!(error.code(), "S2_UNKNOWN_TASK", "{error:?}");
}
