//! What becomes of a rescue, step by step.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use s2_coordinator::{
    Blocker, Capabilities, Config, EscalationId, Resolution, SchedulerExt, Task, TaskResult, TaskState, Tasks,
};
use s2_core::{Context, Enough, HELP, HelpRequest, RESCUE, RescueEvent, RescueHooks, Rescued, S2, TaskError};
use s2_governor::{Limit, NanoUsd, Verified};

use crate::kit::{
    HOST, LONG, Place, SIP, Tally, answers, blocked, chosen, helper, invite, settings, slow, stories, told, until,
    willing,
};

stories! {
    gang_up_with_capability_matching,
    whoever_declines_is_followed_by_the_next_best,
    whoever_takes_too_long_is_followed_by_the_next_best,
    whoever_may_not_spend_declines,
    all_answers_if_the_policy_says_so,
    the_first_answer_calls_the_others_off,
    nobody_suitable_is_told_once_and_looked_for_again,
    a_person_may_let_it_go_on_without_help,
    whoever_waits_too_long_goes_on_without_help,
    a_cancelled_task_calls_its_rescue_off,
    the_host_says_what_it_takes_what_is_to_be_done_and_what_is_accepted,
    who_helped_well_is_preferred,
    a_helper_may_be_blocked_itself,
    help_of_the_hosts_own_needs_no_organiser,
    two_processes_have_one_organiser,
    a_halted_session_is_not_asked,
    a_rescue_that_cannot_go_on_keeps_no_other_from_it,
    a_hook_that_panics_ends_nothing,
    what_the_handler_finds_of_an_answer_counts,
}

async fn six(s2: &S2) {
    willing(s2, "telephony/ndi", &["integration:ndi", "integration:sip", "telephony:protocols", "tool:rust"]).await;
    willing(s2, "telephony/webrtc", &["integration:webrtc", "integration:sip", "telephony:protocols", "tool:rust"])
        .await;
    willing(s2, "telephony/h323", &["integration:h323", "telephony:legacy"]).await;
    willing(s2, "tools/cli", &["cli:tooling", "tool:python"]).await;
    willing(s2, "talent/match", &["talent:matching"]).await;
    blocked(s2, "telephony/sip", SIP).await;
}

async fn gang_up_with_capability_matching(place: Place) {
    let s2 = place.fleet(settings(|settings| settings.help.enough = Enough::All)).await;
    six(&s2).await;
    let task = invite(&s2, "telephony/sip").await;
    let mut helped = answers(&s2, task).await;
    helped.sort();
    assert_eq!(helped, ["telephony/ndi", "telephony/webrtc"]);
    assert_eq!(chosen(&s2).await, ["telephony/ndi", "telephony/webrtc"]);
    let told = told(&s2).await;
    let Some(RescueEvent::Matched { blocked, by, helpers, others, .. }) = told.first() else { panic!("{told:?}") };
    assert_eq!((*blocked, by.as_str(), helpers.len()), (task, "telephony/sip", 2));
    let why = |name: &str| others.iter().find(|(other, _)| other.as_str() == name).expect("considered").1.to_string();
    assert!(why("telephony/h323").ends_with("fits too little"), "{}", why("telephony/h323"));
    assert!(why("telephony/sip").ends_with("is the one that is blocked"), "{}", why("telephony/sip"));
    let of_use = told.iter().filter(|told| matches!(told, RescueEvent::Verified { outcome: Verified::Success, .. }));
    assert_eq!(of_use.count(), 2, "found out with the end of the task");
    // Nothing is left over.
    assert_eq!(s2.scheduler().stats().await.expect("stats").unfinished(), 0);
}

async fn whoever_declines_is_followed_by_the_next_best(place: Place) {
    let s2 = place.fleet(settings(|_| {})).await;
    let declines = |_| async { Err(TaskError::fatal("not my field")) };
    helper(&s2, "a", SIP, declines).await;
    helper(&s2, "b", SIP, declines).await;
    willing(&s2, "c", SIP).await;
    blocked(&s2, "sip", SIP).await;
    let task = invite(&s2, "sip").await;
    assert_eq!(answers(&s2, task).await, ["c"]);
    assert_eq!(chosen(&s2).await, ["a", "b", "c"]);
    let failed = told(&s2).await.into_iter().filter_map(|told| match told {
        RescueEvent::Verified { helper, outcome: Verified::Failure, .. } => Some(helper.to_string()),
        _ => None,
    });
    // The one that was followed by somebody else; the other may still have been at it when that one had answered.
    let failed: Vec<String> = failed.collect();
    assert!(failed.iter().all(|name| ["a", "b"].contains(&name.as_str())) && !failed.is_empty(), "{failed:?}");
}

async fn whoever_takes_too_long_is_followed_by_the_next_best(place: Place) {
    let s2 = place.fleet(settings(|settings| settings.help.timeout = Duration::from_millis(300))).await;
    slow(&s2, "a", SIP).await;
    slow(&s2, "b", SIP).await;
    willing(&s2, "c", SIP).await;
    blocked(&s2, "sip", SIP).await;
    let task = invite(&s2, "sip").await;
    assert_eq!(answers(&s2, task).await, ["c"]);
}

async fn whoever_may_not_spend_declines(place: Place) {
    let mut policy = settings(|_| {});
    policy.rescue_policy.max_rescuers_per_blocker = 1;
    policy.providers.insert("models".parse().expect("a name"), Default::default());
    policy.limits.insert("a".parse().expect("a name"), Limit::PerDay(NanoUsd::from_cents(1)));
    let s2 = place.fleet(policy).await;
    for name in ["a", "b"] {
        let handler = async |cx: Context| {
            let call = async |_| Ok::<_, std::io::Error>(cx.session().to_string());
            Ok(cx.spend("models", NanoUsd::from_cents(10), call).await?)
        };
        s2.session(name).skills(SIP).run(handler).await.expect("a session");
    }
    blocked(&s2, "sip", SIP).await;
    let task = invite(&s2, "sip").await;
    assert_eq!(answers(&s2, task).await, ["b"]);
    assert_eq!(chosen(&s2).await, ["a", "b"]);
}

async fn all_answers_if_the_policy_says_so(place: Place) {
    let s2 = place.fleet(settings(|settings| settings.help.enough = Enough::All)).await;
    willing(&s2, "a", SIP).await;
    helper(&s2, "b", SIP, |_| async { Err(TaskError::fatal("no")) }).await;
    willing(&s2, "c", SIP).await;
    willing(&s2, "d", SIP).await;
    blocked(&s2, "sip", SIP).await;
    let task = invite(&s2, "sip").await;
    let mut helped = answers(&s2, task).await;
    helped.sort();
    assert_eq!(helped, ["a", "c"], "two, with the next best in place of the one that declined");
}

async fn the_first_answer_calls_the_others_off(place: Place) {
    let s2 = place.fleet(settings(|_| {})).await;
    slow(&s2, "a", SIP).await;
    willing(&s2, "b", SIP).await;
    blocked(&s2, "sip", SIP).await;
    let task = invite(&s2, "sip").await;
    assert_eq!(answers(&s2, task).await, ["b"]);
    until("the other is called off", || async { s2.scheduler().stats().await.expect("stats").unfinished() == 0 }).await;
    let helps = s2.scheduler().list(&Tasks::all().with_kind(HELP)).await.expect("tasks").items;
    let states: Vec<TaskState> = helps.iter().map(|help| help.state).collect();
    assert_eq!(states, [TaskState::Cancelled, TaskState::Done]);
    // Whoever was called off is free for other work.
    let other = invite_for(&s2, "integration:sip").await;
    let loss = tokio::time::timeout(LONG, s2.scheduler().wait(other)).await;
    assert!(loss.is_ok(), "{:?}", s2.scheduler().why(other).await);
}

/// A task that any helper may take, though it is no help.
async fn invite_for(s2: &S2, skill: &str) -> s2_coordinator::TaskId {
    let requires = Capabilities::new([skill]).expect("a capability");
    let task = s2_coordinator::NewTask::new(crate::kit::INVITE, HOST).with_requires(requires).with_attempts(1);
    s2.scheduler().submit_one(&task).await.expect("submitted").id
}

async fn nobody_suitable_is_told_once_and_looked_for_again(place: Place) {
    let s2 = place.fleet(settings(|_| {})).await;
    willing(&s2, "other", &["talent:matching"]).await;
    blocked(&s2, "sip", SIP).await;
    let task = invite(&s2, "sip").await;
    let pending = || async { s2.inbox().pending(EscalationId::default(), 10).await.expect("the inbox") };
    until("it is escalated", || async { !pending().await.is_empty() }).await;
    // Whoever looks for the second looks for the first again, too.
    blocked(&s2, "sip-2", SIP).await;
    let second = invite(&s2, "sip-2").await;
    until("the second is escalated", || async { pending().await.len() == 2 }).await;
    let escalations = pending().await;
    assert_eq!((escalations[0].reason.as_str(), escalations[0].times), ("no_rescuer", 1));
    assert_eq!(escalations[0].key.as_str(), format!("no_rescuer:{task}"));
    let evidence: serde_json::Value = serde_json::from_slice(&escalations[0].payload).expect("evidence");
    assert_eq!(evidence["rescue"]["reason"], "488");
    assert!(evidence.to_string().contains("fits too little"), "{evidence}");
    let why = s2.why(task).await.expect("a reason").to_string();
    assert!(why.contains("other: ") && why.contains("lacks integration:sip"), "{why}");
    willing(&s2, "expert", SIP).await;
    assert_eq!(answers(&s2, task).await, ["expert"]);
    assert_eq!(answers(&s2, second).await, ["expert"]);
}

async fn a_person_may_let_it_go_on_without_help(place: Place) {
    let s2 = place.fleet(settings(|_| {})).await;
    blocked(&s2, "sip", SIP).await;
    let task = invite(&s2, "sip").await;
    let pending = || async { s2.inbox().pending(EscalationId::default(), 10).await.expect("the inbox") };
    until("it is escalated", || async { !pending().await.is_empty() }).await;
    let id = pending().await[0].id;
    s2.resolve(id, Resolution::new("anna", "unblock")).await.expect("resolved");
    assert_eq!(answers(&s2, task).await, Vec::<String>::new());
    s2.resolve(id, Resolution::new("anna", "unblock")).await.expect("repeated");
    until("nobody looks for help any more", || async {
        s2.scheduler().stats().await.expect("stats").unfinished() == 0
    })
    .await;
}

async fn whoever_waits_too_long_goes_on_without_help(place: Place) {
    let mut config = Config::default();
    config.longest_wait = Duration::from_millis(500);
    let s2 = place.fleet_with(settings(|_| {}), config, s2_core::NoHooks).await;
    slow(&s2, "a", SIP).await;
    let handler = async |cx: Context| {
        let rescued = cx.blocked(Blocker::new("488").with_requires(Capabilities::new(SIP)?)).await?;
        let Rescued { answers, preempted, .. } = rescued;
        Ok((answers.len(), preempted.is_some()))
    };
    s2.session("sip").skills(["voice:sip"]).run(handler).await.expect("a session");
    let task = invite(&s2, "sip").await;
    let outcome = tokio::time::timeout(LONG, s2.scheduler().wait(task)).await.expect("in time").expect("an outcome");
    assert_eq!(outcome.result().expect("done").json::<(usize, bool)>().expect("json"), (0, true));
    until("its helpers are called off", || async { s2.scheduler().stats().await.expect("stats").unfinished() == 0 })
        .await;
}

async fn a_cancelled_task_calls_its_rescue_off(place: Place) {
    let s2 = place.fleet(settings(|_| {})).await;
    let tally = Tally::default();
    let begun = tally.clone();
    helper(&s2, "a", SIP, move |_| {
        begun.add("begun");
        std::future::pending()
    })
    .await;
    blocked(&s2, "sip", SIP).await;
    let task = invite(&s2, "sip").await;
    until("help has begun", || async { tally.of("begun") == 1 }).await;
    assert!(s2.scheduler().cancel(task, "not needed".into()).await.expect("cancelled"));
    until("its rescue is called off", || async { s2.scheduler().stats().await.expect("stats").unfinished() == 0 })
        .await;
}

/// A host that knows that everything is about SIP, has something to say to each helper, and does not accept everything.
#[derive(Debug)]
struct Knows;

impl RescueHooks for Knows {
    fn requires(&self, task: &Task, reason: &str) -> Capabilities {
        assert_eq!((task.kind.as_str(), reason), ("invite", "488"));
        Capabilities::new(SIP).expect("capabilities")
    }

    fn details(&self, request: &HelpRequest) -> Option<serde_json::Value> {
        Some(serde_json::json!(format!("look at line {}", request.helper.as_str().len())))
    }

    fn accepts(&self, request: &HelpRequest, result: &TaskResult) -> bool {
        assert_eq!(request.reason.as_str(), "488");
        result.json::<String>().is_ok_and(|answer| !answer.contains("no idea"))
    }
}

async fn the_host_says_what_it_takes_what_is_to_be_done_and_what_is_accepted(place: Place) {
    let s2 = place.fleet_with(settings(|_| {}), Config::default(), Knows).await;
    for name in ["a", "bb"] {
        helper(&s2, name, SIP, |_| async { Ok("no idea".to_owned()) }).await;
    }
    helper(&s2, "ccc", SIP, |asked| async move { Ok(asked.details.expect("details").to_string()) }).await;
    blocked(&s2, "sip", &[]).await;
    let task = invite(&s2, "sip").await;
    assert_eq!(answers(&s2, task).await, ["\"look at line 3\""]);
    assert_eq!(chosen(&s2).await, ["a", "bb", "ccc"]);
}

async fn who_helped_well_is_preferred(place: Place) {
    let mut policy = settings(|_| {});
    policy.rescue_policy.max_rescuers_per_blocker = 1;
    let s2 = place.fleet(policy).await;
    let knows = Arc::new(AtomicBool::new(false));
    let learns = Arc::clone(&knows);
    helper(&s2, "a", SIP, move |asked| {
        let knows = learns.load(Ordering::Relaxed);
        async move { if knows { Ok(asked.helper.to_string()) } else { Err(TaskError::fatal("no idea")) } }
    })
    .await;
    willing(&s2, "b", SIP).await;
    blocked(&s2, "sip", SIP).await;
    let first = invite(&s2, "sip").await;
    assert_eq!(answers(&s2, first).await, ["b"], "a declined");
    knows.store(true, Ordering::Relaxed);
    let second = invite(&s2, "sip").await;
    assert_eq!(answers(&s2, second).await, ["b"], "b has helped, a has not");
    assert_eq!(chosen(&s2).await, ["a", "b", "b"]);
}

async fn a_helper_may_be_blocked_itself(place: Place) {
    let s2 = place.fleet(settings(|_| {})).await;
    let handler = async |cx: Context| {
        assert!(cx.help_request().is_some());
        let rescued =
            cx.blocked(Blocker::new("which codec?").with_requires(Capabilities::new(["codec:opus"])?)).await?;
        let codec = rescued.first().ok_or_else(|| TaskError::fatal("nobody knows"))?.result.json::<String>()?;
        Ok(format!("{codec} told {}", cx.session()))
    };
    s2.session("a").skills(SIP).run(handler).await.expect("a session");
    willing(&s2, "codecs", &["codec:opus"]).await;
    blocked(&s2, "sip", SIP).await;
    let task = invite(&s2, "sip").await;
    assert_eq!(answers(&s2, task).await, ["codecs told a"]);
}

async fn help_of_the_hosts_own_needs_no_organiser(place: Place) {
    let s2 = place.fleet(settings(|settings| settings.help.organise = false)).await;
    let handler = async |cx: Context| {
        if cx.task().kind.as_str() == "look" {
            return Ok("looked".to_owned());
        }
        let look = s2_coordinator::NewTask::new("look".parse()?, cx.session().clone());
        let rescued = cx.blocked(Blocker::new("a look is needed").with_help(look)).await?;
        Ok(rescued.first().ok_or_else(|| TaskError::fatal("nobody looked"))?.result.json::<String>()?)
    };
    s2.session("sip").skills(["voice:sip"]).run(handler).await.expect("a session");
    let task = invite(&s2, "sip").await;
    let outcome = tokio::time::timeout(LONG, s2.scheduler().wait(task)).await.expect("in time").expect("an outcome");
    assert_eq!(outcome.result().expect("done").json::<String>().expect("json"), "looked");
    assert_eq!(s2.scheduler().list(&Tasks::all().with_kind(RESCUE)).await.expect("tasks").items.len(), 0);
}

async fn two_processes_have_one_organiser(place: Place) {
    let s2 = place.fleet(settings(|_| {})).await;
    willing(&s2, "a", SIP).await;
    let session = || async {
        let all = s2.scheduler().sessions(None, 100).await.expect("sessions");
        all.into_iter().find(|info| info.incarnation.session.as_str() == "s2/organiser")
    };
    until("somebody organises", || async { session().await.is_some() }).await;
    let first = session().await.expect("an organiser").incarnation;
    // Another organiser takes over, as if the first had been taken for lost. The first one stands by from then on.
    let profile = s2_coordinator::Profile::new(first.session.clone())
        .with_capabilities(Capabilities::new(["only:s2:organise"]).expect("a capability"));
    let other = s2_coordinator::Session::enter(Arc::clone(s2.scheduler()), &profile).await.expect("entered");
    blocked(&s2, "sip", SIP).await;
    let task = invite(&s2, "sip").await;
    let held = tokio::time::timeout(LONG, other.claim()).await.expect("in time").expect("no error").expect("a rescue");
    assert_eq!(held.task.kind, RESCUE);
    // It leaves with the rescue unfinished, and somebody else goes on.
    held.release().await.expect("released");
    other.leave().await.expect("left");
    assert_eq!(answers(&s2, task).await, ["a"]);
    let last = session().await.expect("an organiser").incarnation;
    assert!(last.number > first.number, "{last:?} after {first:?}");
}

async fn a_halted_session_is_not_asked(place: Place) {
    let s2 = place.fleet(settings(|_| {})).await;
    willing(&s2, "a", SIP).await;
    willing(&s2, "b", SIP).await;
    s2.ledger().halt(&"a".parse().expect("a name"), "a person says so").await.expect("halted");
    blocked(&s2, "sip", SIP).await;
    let task = invite(&s2, "sip").await;
    assert_eq!(answers(&s2, task).await, ["b"]);
    assert_eq!(chosen(&s2).await, ["b"]);
}

/// A task so deep that there is no room for help below it, and one that is not.
async fn a_rescue_that_cannot_go_on_keeps_no_other_from_it(place: Place) {
    let mut config = Config::default();
    config.limits.depth = 3;
    let s2 = place.fleet_with(settings(|_| {}), config, s2_core::NoHooks).await;
    blocked(&s2, "sip", SIP).await;
    blocked(&s2, "deep", SIP).await;
    let root = invite_for(&s2, "nobody:here").await;
    let child = s2_coordinator::NewTask::new(crate::kit::INVITE, HOST).with_parent(root);
    let child = child.with_requires(Capabilities::new(["nobody:here"]).expect("a capability"));
    let child = s2.scheduler().submit_one(&child).await.expect("submitted").id;
    let grandchild = s2_coordinator::NewTask::new(crate::kit::INVITE, HOST).with_parent(child);
    let grandchild = grandchild.with_requires(Capabilities::new(["voice:deep"]).expect("a capability"));
    let deep = s2.scheduler().submit_one(&grandchild).await.expect("submitted").id;
    until("it is blocked", || async { s2.scheduler().task(deep).await.expect("a task").state == TaskState::Blocked })
        .await;
    willing(&s2, "expert", SIP).await;
    assert_eq!(answers(&s2, deep).await, Vec::<String>::new(), "it goes on without help");
    let task = invite(&s2, "sip").await;
    assert_eq!(answers(&s2, task).await, ["expert"]);
}

/// A host whose hooks panic, but for the answers of one helper.
#[derive(Debug)]
struct Panics;

impl RescueHooks for Panics {
    fn requires(&self, _: &Task, _: &str) -> Capabilities {
        panic!("what does it take?")
    }

    fn details(&self, _: &HelpRequest) -> Option<serde_json::Value> {
        panic!("no details")
    }

    fn accepts(&self, request: &HelpRequest, _: &TaskResult) -> bool {
        assert_eq!(request.helper.as_str(), "b", "only this one is trusted");
        true
    }
}

async fn a_hook_that_panics_ends_nothing(place: Place) {
    let mut policy = settings(|_| {});
    policy.rescue_policy.max_rescuers_per_blocker = 1;
    policy.rescue_policy.min_capability_match = s2_governor::BasisPoints::from_percent(60);
    let s2 = place.fleet_with(policy, Config::default(), Panics).await;
    for name in ["a", "b"] {
        helper(&s2, name, &["voice:sip"], |asked| async move {
            assert_eq!(asked.requires.to_string(), "voice:own, voice:sip", "what the task itself requires");
            assert_eq!(asked.details, None);
            Ok(asked.helper.to_string())
        })
        .await;
    }
    let handler = async |cx: Context| {
        let rescued = cx.blocked(Blocker::new("488")).await?;
        let answers = rescued.answers.iter().map(|answer| answer.result.json::<String>());
        Ok(answers.collect::<Result<Vec<_>, _>>()?)
    };
    s2.session("sip").skills(["voice:own", "voice:sip"]).run(handler).await.expect("a session");
    let requires = Capabilities::new(["voice:own", "voice:sip"]).expect("capabilities");
    let task = s2_coordinator::NewTask::new(crate::kit::INVITE, HOST).with_requires(requires);
    let task = s2.scheduler().submit_one(&task).await.expect("submitted").id;
    assert_eq!(answers(&s2, task).await, ["b"]);
    assert_eq!(chosen(&s2).await, ["a", "b"]);
}

async fn what_the_handler_finds_of_an_answer_counts(place: Place) {
    let s2 = place.fleet(settings(|_| {})).await;
    willing(&s2, "a", SIP).await;
    let handler = async |cx: Context| {
        let blocker = Blocker::new("488").with_requires(Capabilities::new(SIP)?);
        let answer = cx.blocked(blocker).await?.first().map(|answer| answer.task);
        // Of no use, as the handler finds.
        cx.verify(answer.ok_or_else(|| TaskError::fatal("nobody helped"))?, Verified::Failure);
        assert_eq!(cx.resumed().await?, None, "it did not begin anew");
        Ok(())
    };
    s2.session("sip").skills(["voice:sip"]).run(handler).await.expect("a session");
    let task = invite(&s2, "sip").await;
    let outcome = tokio::time::timeout(LONG, s2.scheduler().wait(task)).await.expect("in time").expect("an outcome");
    assert!(outcome.result().is_some(), "{outcome:?}");
    let verified = told(&s2).await.into_iter().filter_map(|told| match told {
        RescueEvent::Verified { helper, outcome, .. } => Some((helper.to_string(), outcome)),
        _ => None,
    });
    assert_eq!(verified.collect::<Vec<_>>(), [("a".to_owned(), Verified::Failure)]);
}
