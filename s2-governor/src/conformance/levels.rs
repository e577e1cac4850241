//! Who is warned, who is halted, and who lets them go on.

use s2_coordinator::Severity;

use crate::account::Level;
use crate::account::Limit;
use crate::conformance::harness::Fleet;
use crate::conformance::harness::Outcome;
use crate::conformance::harness::cases;
use crate::conformance::kit::OTHER;
use crate::conformance::kit::SESSION;
use crate::conformance::kit::SWARM;
use crate::conformance::kit::balance;
use crate::conformance::kit::cents;
use crate::conformance::kit::denied;
use crate::conformance::kit::entries;
use crate::conformance::kit::granted;
use crate::conformance::kit::ledger_of;
use crate::conformance::kit::levels;
use crate::conformance::kit::limited;
use crate::conformance::kit::nanos;
use crate::conformance::kit::operations;
use crate::conformance::kit::questions;
use crate::conformance::kit::reserve;
use crate::conformance::kit::today;
use crate::error::Error;
use crate::ledger::BudgetLedgerExt;
use crate::money::NanoUsd;
use crate::settings::LedgerSettings;
use crate::spend::Charge;
use crate::spend::Denial;
use crate::spend::Reserve;

cases! {
    eighty_percent_is_announced_once_and_not_a_nano_earlier;
    all_of_it_is_announced_once_and_halts;
    a_leap_over_both_levels_is_one_event_and_one_question;
    the_question_says_what_was_spent_of_what;
    every_account_of_a_path_has_levels_of_its_own;
    sixty_four_tasks_reach_each_level_once;
    what_is_held_is_not_judged;
    a_halted_account_grants_nothing;
    a_raised_limit_lets_it_go_on;
    levels_of_a_raised_limit_are_announced_anew;
    a_limit_below_what_is_spent_exhausts;
    a_limit_below_what_is_spent_halts_also_who_was_resumed;
    a_limit_that_is_no_news_changes_nothing;
    resumed_it_may_claim_but_has_no_money;
    a_person_halts_a_whole_swarm;
    halting_and_resuming_again_changes_nothing;
    the_warning_may_come_at_another_percentage;
    the_limit_of_sessions_may_be_another;
    levels_are_severe;
}

const NAME: &str = "telephony/sip/session-4";

async fn charge(ledger: &dyn crate::ledger::BudgetLedger, cost: NanoUsd) -> Result<Level, Error> {
    Ok(ledger.charge(&Charge::new(SESSION, cost)).await?.level)
}

async fn eighty_percent_is_announced_once_and_not_a_nano_earlier(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = limited(&*fleet, cents(100)).await?;
    assert_eq!(charge(&*ledger, nanos(799_999_999)).await?, Level::Within);
    assert_eq!(levels(&*fleet).await?, []);
    assert_eq!(charge(&*ledger, nanos(1)).await?, Level::Warned);
    assert_eq!(charge(&*ledger, nanos(1)).await?, Level::Warned);
    assert_eq!(levels(&*fleet).await?, [(NAME.to_owned(), 80)]);
    let warned = balance(&*ledger, &SESSION).await?;
    assert_eq!((warned.level, warned.halted), (Level::Warned, None));
    assert_eq!(questions(&*fleet).await?, []);
    Ok(())
}

async fn all_of_it_is_announced_once_and_halts(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = limited(&*fleet, cents(100)).await?;
    for _ in 0..12 {
        charge(&*ledger, cents(10)).await?;
    }
    assert_eq!(levels(&*fleet).await?, [(NAME.to_owned(), 80), (NAME.to_owned(), 100)]);
    let full = balance(&*ledger, &SESSION).await?;
    assert_eq!((full.level, full.halted.as_deref()), (Level::Exhausted, Some("budget_exceeded")));
    assert_eq!(questions(&*fleet).await?.len(), 1);
    assert_eq!(ledger.halted(&SESSION).await?.expect("halted").swarm, SESSION);
    assert_eq!(ledger.halted(&OTHER).await?, None);
    Ok(())
}

async fn a_leap_over_both_levels_is_one_event_and_one_question(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = limited(&*fleet, cents(100)).await?;
    let held = reserve(&*ledger, cents(10)).await?;
    ledger.settle(&held, cents(500)).await?;
    assert_eq!(levels(&*fleet).await?, [(NAME.to_owned(), 100)]);
    assert_eq!(questions(&*fleet).await?.len(), 1);
    Ok(())
}

async fn the_question_says_what_was_spent_of_what(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = limited(&*fleet, cents(100)).await?;
    charge(&*ledger, nanos(1_000_000_070)).await?;
    let day = today(&*ledger).await?;
    let said =
        format!(r#"{{"account":"{NAME}","day":"{day}","cost_incurred":"$1.00000007","budget_original":"$1.00"}}"#);
    assert_eq!(questions(&*fleet).await?, [(format!("budget:{day}:{NAME}"), said)]);
    Ok(())
}

async fn every_account_of_a_path_has_levels_of_its_own(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = limited(&*fleet, cents(100)).await?;
    ledger.set_limit(&SWARM, Limit::PerDay(cents(200))).await?;
    charge(&*ledger, cents(90)).await?;
    ledger.charge(&Charge::new(OTHER, cents(75))).await?;
    ledger.charge(&Charge::new(OTHER, cents(35))).await?;
    let swarm = SWARM.to_string();
    assert_eq!(levels(&*fleet).await?, [(NAME.to_owned(), 80), (swarm.clone(), 80), (swarm, 100)]);
    let refused = denied(&*ledger, Reserve::new(SESSION, cents(1))).await?;
    assert_eq!((refused.swarm, refused.reason), (SWARM, Denial::Halted));
    assert_eq!(ledger.halted(&SESSION).await?.expect("halted").swarm, SWARM);
    Ok(())
}

async fn sixty_four_tasks_reach_each_level_once(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = limited(&*fleet, cents(64)).await?;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..64 {
        let ledger = ledger_of(&*fleet);
        tasks.spawn(async move { charge(&*ledger, cents(2)).await });
    }
    for each in tasks.join_all().await {
        each?;
    }
    assert_eq!(levels(&*fleet).await?, [(NAME.to_owned(), 80), (NAME.to_owned(), 100)]);
    assert_eq!(questions(&*fleet).await?.len(), 1);
    assert_eq!(balance(&*ledger, &SESSION).await?.spent, cents(128));
    Ok(())
}

async fn what_is_held_is_not_judged(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = limited(&*fleet, cents(100)).await?;
    let held = reserve(&*ledger, cents(100)).await?;
    assert_eq!(levels(&*fleet).await?, []);
    assert_eq!(balance(&*ledger, &SESSION).await?.halted, None);
    ledger.settle(&held, cents(79)).await?;
    assert_eq!(levels(&*fleet).await?, []);
    Ok(())
}

async fn a_halted_account_grants_nothing(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = limited(&*fleet, cents(100)).await?;
    charge(&*ledger, cents(100)).await?;
    assert_eq!(denied(&*ledger, Reserve::new(SESSION, cents(1))).await?.reason, Denial::Halted);
    assert_eq!(denied(&*ledger, Reserve::new(SESSION, NanoUsd::ZERO)).await?.reason, Denial::Halted);
    Ok(())
}

async fn a_raised_limit_lets_it_go_on(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = limited(&*fleet, cents(100)).await?;
    charge(&*ledger, cents(100)).await?;
    let raised = ledger.set_limit(&SESSION, Limit::PerDay(cents(200))).await?;
    assert_eq!((raised.halted, raised.level, raised.spent), (None, Level::Within, cents(100)));
    let _ = reserve(&*ledger, cents(100)).await?;
    Ok(())
}

async fn levels_of_a_raised_limit_are_announced_anew(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = limited(&*fleet, cents(100)).await?;
    charge(&*ledger, cents(100)).await?;
    ledger.set_limit(&SESSION, Limit::PerDay(cents(120))).await?;
    charge(&*ledger, cents(1)).await?;
    charge(&*ledger, cents(19)).await?;
    let percent: Vec<i64> = levels(&*fleet).await?.into_iter().map(|(_, percent)| percent).collect();
    assert_eq!(percent, [100, 100], "more than 80 % of the raised limit were announced already");
    ledger.set_limit(&SESSION, Limit::PerDay(cents(1_000))).await?;
    charge(&*ledger, cents(680)).await?;
    assert_eq!(levels(&*fleet).await?.len(), 3);
    assert_eq!(questions(&*fleet).await?.len(), 1, "nobody has answered the first");
    Ok(())
}

async fn a_limit_below_what_is_spent_exhausts(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = limited(&*fleet, cents(100)).await?;
    charge(&*ledger, cents(50)).await?;
    let lowered = ledger.set_limit(&SESSION, Limit::PerDay(cents(40))).await?;
    assert_eq!((lowered.level, lowered.halted.as_deref()), (Level::Exhausted, Some("budget_exceeded")));
    assert_eq!(lowered.overrun(), cents(10));
    assert_eq!(levels(&*fleet).await?, [(NAME.to_owned(), 100)]);
    assert_eq!(questions(&*fleet).await?.len(), 1);
    let back = ledger.set_limit(&SESSION, Limit::Default).await?;
    assert_eq!((back.limit, back.halted), (NanoUsd::from_dollars(50), None));
    Ok(())
}

async fn a_limit_below_what_is_spent_halts_also_who_was_resumed(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = limited(&*fleet, cents(100)).await?;
    charge(&*ledger, cents(100)).await?;
    ledger.resume(&SESSION).await?;
    let lowered = ledger.set_limit(&SESSION, Limit::PerDay(cents(50))).await?;
    assert_eq!(lowered.halted.as_deref(), Some("budget_exceeded"));
    Ok(())
}

async fn a_limit_that_is_no_news_changes_nothing(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = limited(&*fleet, cents(100)).await?;
    charge(&*ledger, cents(100)).await?;
    let before = operations(&*fleet).await?;
    let again = ledger.set_limit(&SESSION, Limit::PerDay(cents(100))).await?;
    assert_eq!(again.halted.as_deref(), Some("budget_exceeded"));
    assert_eq!(operations(&*fleet).await?, before);
    Ok(())
}

async fn resumed_it_may_claim_but_has_no_money(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = limited(&*fleet, cents(100)).await?;
    charge(&*ledger, cents(100)).await?;
    assert_eq!(ledger.resume(&SESSION).await?.halted, None);
    assert_eq!(ledger.halted(&SESSION).await?, None);
    assert_eq!(denied(&*ledger, Reserve::new(SESSION, cents(1))).await?.reason, Denial::Spent);
    charge(&*ledger, cents(1)).await?;
    assert_eq!(levels(&*fleet).await?.len(), 1, "once for each limit");
    assert_eq!(balance(&*ledger, &SESSION).await?.halted, None);
    Ok(())
}

async fn a_person_halts_a_whole_swarm(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = ledger_of(&*fleet);
    let held = reserve(&*ledger, cents(1)).await?;
    let halted = ledger.halt(&SWARM, "too many cooks").await?;
    assert_eq!(halted.halted.as_deref(), Some("too many cooks"));
    for session in [SESSION, OTHER] {
        let refused = denied(&*ledger, Reserve::new(session.clone(), cents(1))).await?;
        assert_eq!((refused.swarm, refused.reason), (SWARM, Denial::Halted));
        assert_eq!(ledger.halted(&session).await?.expect("halted").halted.as_deref(), Some("too many cooks"));
    }
    ledger.settle(&held, cents(1)).await?;
    ledger.set_limit(&SWARM, Limit::Unlimited).await?;
    denied(&*ledger, Reserve::new(SESSION, cents(1))).await?;
    assert_eq!(ledger.resume(&SWARM).await?.halted, None);
    let _ = granted(&*ledger, Reserve::new(OTHER, cents(1))).await?;
    assert_eq!(questions(&*fleet).await?, [], "a person knows already");
    Ok(())
}

async fn halting_and_resuming_again_changes_nothing(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = ledger_of(&*fleet);
    ledger.resume(&SWARM).await?;
    for _ in 0..2 {
        ledger.halt(&SWARM, "no").await?;
    }
    for _ in 0..2 {
        ledger.resume(&SWARM).await?;
    }
    assert_eq!(operations(&*fleet).await?, ["halt telephony", "resume telephony"]);
    let error = ledger.halt(&SWARM, &"x".repeat(1025)).await.expect_err("too long");
    assert_eq!(error.code(), "S2_LIMIT_EXCEEDED");
    Ok(())
}

async fn the_warning_may_come_at_another_percentage(fleet: Box<dyn Fleet>) -> Outcome {
    let settings = LedgerSettings { warn_percent: 33, ..LedgerSettings::default() };
    let ledger = fleet.ledger(settings);
    ledger.set_limit(&SESSION, Limit::PerDay(nanos(7))).await?;
    assert_eq!(charge(&*ledger, nanos(2)).await?, Level::Within);
    assert_eq!(charge(&*ledger, nanos(1)).await?, Level::Warned);
    assert_eq!(levels(&*fleet).await?, [(NAME.to_owned(), 33)]);
    Ok(())
}

async fn the_limit_of_sessions_may_be_another(fleet: Box<dyn Fleet>) -> Outcome {
    let settings = LedgerSettings { session_limit: Limit::PerDay(cents(5)), ..LedgerSettings::default() };
    let ledger = fleet.ledger(settings);
    denied(&*ledger, Reserve::new(SESSION, cents(6))).await?;
    let _ = granted(&*ledger, Reserve::new(OTHER, cents(5))).await?;
    assert_eq!(balance(&*ledger, &SWARM).await?.limit, NanoUsd::MAX);
    Ok(())
}

async fn levels_are_severe(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = limited(&*fleet, cents(100)).await?;
    charge(&*ledger, cents(80)).await?;
    charge(&*ledger, cents(20)).await?;
    let said = entries(&*fleet).await?;
    let levels: Vec<_> = said.iter().filter(|it| *it.operation == *"level").collect();
    assert_eq!(levels.iter().map(|it| it.severity).collect::<Vec<_>>(), [Severity::Medium, Severity::High]);
    let amounts = [levels[0].params.get("spent_nano_usd"), levels[0].params.get("limit_nano_usd")];
    assert_eq!(amounts.map(Option::<&_>::cloned), [Some(800_000_000_u64.into()), Some(1_000_000_000_u64.into())]);
    Ok(())
}
