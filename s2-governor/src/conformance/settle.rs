//! Settling, releasing, charging: the truth, once.

use std::time::Duration;

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
use crate::conformance::kit::granted;
use crate::conformance::kit::ledger_of;
use crate::conformance::kit::limited;
use crate::conformance::kit::nanos;
use crate::conformance::kit::operations;
use crate::conformance::kit::reserve;
use crate::conformance::kit::state;
use crate::error::Error;
use crate::money::NanoUsd;
use crate::settings::LedgerSettings;
use crate::spend::Charge;
use crate::spend::Reserve;

cases! {
    what_it_cost_takes_the_place_of_what_was_held;
    a_cost_above_the_reservation_is_exact_to_the_nano;
    a_cost_is_never_refused;
    a_repeated_settlement_gets_the_first_answer;
    a_reservation_is_settled_at_one_cost;
    posted_says_what_remains_and_who_is_exhausted;
    a_reservation_that_nobody_made_is_unknown;
    a_release_gives_everything_back_once;
    a_release_after_the_settlement_is_refused;
    a_cost_counts_also_after_a_release;
    a_charge_needs_no_reservation;
    a_charge_happens_once_under_its_key;
    reservations_and_charges_do_not_share_keys;
    answers_are_remembered_for_a_day;
    answers_of_the_latest_are_remembered;
    costs_add_up_to_the_last_digit;
    what_happens_is_journalled;
}

async fn what_it_cost_takes_the_place_of_what_was_held(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = ledger_of(&*fleet);
    let held = reserve(&*ledger, cents(10)).await?;
    let posted = ledger.settle(&held, cents(4)).await?;
    assert_eq!(posted.remaining, NanoUsd::from_dollars(50).saturating_sub(cents(4)));
    assert_eq!(posted.require()?, posted.remaining);
    assert_eq!(state(&*ledger).await?, (cents(4), NanoUsd::ZERO));
    Ok(())
}

async fn a_cost_above_the_reservation_is_exact_to_the_nano(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = limited(&*fleet, cents(10)).await?;
    let held = reserve(&*ledger, cents(10)).await?;
    let posted = ledger.settle(&held, nanos(123_456_789)).await?;
    assert_eq!((posted.remaining, posted.level, posted.spent), (NanoUsd::ZERO, Level::Exhausted, nanos(123_456_789)));
    let balance = balance(&*ledger, &SESSION).await?;
    assert_eq!((balance.spent, balance.overrun()), (nanos(123_456_789), nanos(23_456_789)));
    assert_eq!(state(&*ledger).await?, (nanos(123_456_789), NanoUsd::ZERO));
    Ok(())
}

async fn a_cost_is_never_refused(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = limited(&*fleet, cents(10)).await?;
    let held = reserve(&*ledger, cents(5)).await?;
    ledger.halt(&SWARM, "a person said so").await?;
    ledger.settle(&held, cents(20)).await?;
    ledger.charge(&Charge::new(SESSION, cents(30))).await?;
    assert_eq!(state(&*ledger).await?, (cents(50), NanoUsd::ZERO));
    assert_eq!(balance(&*ledger, &SESSION).await?.overrun(), cents(40));
    Ok(())
}

async fn a_repeated_settlement_gets_the_first_answer(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = ledger_of(&*fleet);
    let held = reserve(&*ledger, cents(10)).await?;
    let first = ledger.settle(&held, cents(10)).await?;
    ledger.charge(&Charge::new(SESSION, cents(70))).await?;
    let before = operations(&*fleet).await?;
    assert_eq!(ledger.settle(&held, cents(10)).await?, first);
    assert_eq!(state(&*ledger).await?, (cents(80), NanoUsd::ZERO));
    assert_eq!(operations(&*fleet).await?, before);
    Ok(())
}

async fn a_reservation_is_settled_at_one_cost(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = ledger_of(&*fleet);
    let held = granted(&*ledger, Reserve::new(SESSION, cents(10)).with_key("task-17/1".parse()?)).await?;
    ledger.settle(&held, cents(9)).await?;
    let error = ledger.settle(&held, cents(10)).await.expect_err("another cost");
    assert_eq!(error.to_string(), r#"reservation "task-17/1" was settled before, at $0.09"#);
    assert!(matches!(&error, Error::AlreadySettled { actual, .. } if *actual == cents(9)), "{error}");
    assert_eq!(state(&*ledger).await?, (cents(9), NanoUsd::ZERO));
    Ok(())
}

async fn posted_says_what_remains_and_who_is_exhausted(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = limited(&*fleet, cents(100)).await?;
    ledger.set_limit(&SWARM, Limit::PerDay(cents(1_000))).await?;
    ledger.charge(&Charge::new(OTHER, cents(850))).await?;
    let posted = ledger.charge(&Charge::new(SESSION, cents(10))).await?;
    assert_eq!((posted.remaining, posted.level, posted.swarm.clone()), (cents(90), Level::Warned, SWARM));
    assert_eq!((posted.spent, posted.limit), (cents(860), cents(1_000)));
    let posted = ledger.charge(&Charge::new(OTHER, cents(140))).await?;
    assert_eq!((posted.remaining, posted.level, posted.swarm.clone()), (NanoUsd::ZERO, Level::Exhausted, SWARM));
    let error = posted.require().expect_err("exhausted");
    assert_eq!((error.code(), error.is_retryable()), ("S2_BUDGET_EXCEEDED", false));
    assert_eq!(error.to_string(), "account telephony has spent $10.00 of $10.00");
    Ok(())
}

async fn a_reservation_that_nobody_made_is_unknown(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = ledger_of(&*fleet);
    let held = reserve(&*ledger, cents(10)).await?;
    ledger.charge(&Charge::new(SESSION, cents(1)).with_key("charge".parse()?)).await?;
    let mut wrong = [held.clone(), held.clone(), held.clone(), held.clone()];
    wrong[0].key = "another".parse()?;
    wrong[1].session = OTHER;
    wrong[2].amount = cents(11);
    wrong[3].key = "charge".parse()?;
    for wrong in &wrong {
        assert_eq!(ledger.settle(wrong, cents(1)).await.expect_err("unknown").code(), "S2_UNKNOWN_RESERVATION");
        assert_eq!(ledger.release(wrong).await.expect_err("unknown").code(), "S2_UNKNOWN_RESERVATION");
        let extended = ledger.extend(wrong, Duration::from_secs(60)).await;
        assert_eq!(extended.expect_err("unknown").code(), "S2_UNKNOWN_RESERVATION");
    }
    assert_eq!(state(&*ledger).await?, (cents(1), cents(10)));
    Ok(())
}

async fn a_release_gives_everything_back_once(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = limited(&*fleet, cents(10)).await?;
    let held = reserve(&*ledger, cents(10)).await?;
    ledger.release(&held).await?;
    let _ = reserve(&*ledger, cents(10)).await?;
    let before = operations(&*fleet).await?;
    ledger.release(&held).await?;
    assert_eq!(state(&*ledger).await?, (NanoUsd::ZERO, cents(10)));
    assert_eq!(operations(&*fleet).await?, before);
    Ok(())
}

async fn a_release_after_the_settlement_is_refused(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = ledger_of(&*fleet);
    let held = reserve(&*ledger, cents(10)).await?;
    ledger.settle(&held, cents(10)).await?;
    assert_eq!(ledger.release(&held).await.expect_err("settled").code(), "S2_ALREADY_SETTLED");
    assert_eq!(state(&*ledger).await?, (cents(10), NanoUsd::ZERO));
    Ok(())
}

async fn a_cost_counts_also_after_a_release(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = ledger_of(&*fleet);
    let held = reserve(&*ledger, cents(10)).await?;
    ledger.release(&held).await?;
    ledger.settle(&held, cents(3)).await?;
    ledger.settle(&held, cents(3)).await?;
    assert_eq!(state(&*ledger).await?, (cents(3), NanoUsd::ZERO));
    assert_eq!(ledger.release(&held).await.expect_err("settled").code(), "S2_ALREADY_SETTLED");
    Ok(())
}

async fn a_charge_needs_no_reservation(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = limited(&*fleet, cents(10)).await?;
    let posted = ledger.charge(&Charge::new(SESSION, cents(7))).await?;
    assert_eq!((posted.remaining, posted.level), (cents(3), Level::Within));
    let posted = ledger.charge(&Charge::new(SESSION, cents(7))).await?;
    assert_eq!((posted.remaining, posted.level), (NanoUsd::ZERO, Level::Exhausted));
    assert_eq!(state(&*ledger).await?, (cents(14), NanoUsd::ZERO));
    Ok(())
}

async fn a_charge_happens_once_under_its_key(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = ledger_of(&*fleet);
    let charge = |session, cost| Charge::new(session, cost).with_key("k".parse().expect("a key"));
    let first = ledger.charge(&charge(SESSION, cents(7))).await?;
    ledger.charge(&Charge::new(SESSION, cents(1))).await?;
    assert_eq!(ledger.charge(&charge(SESSION, cents(7))).await?, first);
    for other in [charge(SESSION, cents(8)), charge(OTHER, cents(7))] {
        let error = ledger.charge(&other).await.expect_err("a conflict");
        assert!(error.to_string().contains("a charge of $0.07 by telephony/sip/session-4"), "{error}");
    }
    assert_eq!(state(&*ledger).await?, (cents(8), NanoUsd::ZERO));
    Ok(())
}

async fn reservations_and_charges_do_not_share_keys(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = ledger_of(&*fleet);
    ledger.charge(&Charge::new(SESSION, cents(7)).with_key("a".parse()?)).await?;
    let _ = granted(&*ledger, Reserve::new(SESSION, cents(7)).with_key("b".parse()?)).await?;
    let reserved = ledger.reserve(&Reserve::new(SESSION, cents(7)).with_key("a".parse()?)).await;
    assert_eq!(reserved.expect_err("a conflict").code(), "S2_SPEND_CONFLICT");
    let charged = ledger.charge(&Charge::new(SESSION, cents(7)).with_key("b".parse()?)).await;
    assert_eq!(charged.expect_err("a conflict").code(), "S2_SPEND_CONFLICT");
    assert_eq!(state(&*ledger).await?, (cents(7), cents(7)));
    Ok(())
}

async fn answers_are_remembered_for_a_day(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = ledger_of(&*fleet);
    let held = reserve(&*ledger, cents(10)).await?;
    let first = ledger.settle(&held, cents(10)).await?;
    fleet.advance(Duration::from_micros(24 * 60 * 60 * 1_000_000 - 1)).await;
    assert_eq!(ledger.settle(&held, cents(10)).await?, first);
    fleet.advance(Duration::from_micros(1)).await;
    assert_eq!(ledger.settle(&held, cents(10)).await.expect_err("forgotten").code(), "S2_UNKNOWN_RESERVATION");
    assert_eq!(ledger.balances(&SESSION, Some(held.day)).await?[0].spent, cents(10), "and not spent twice");
    Ok(())
}

async fn answers_of_the_latest_are_remembered(fleet: Box<dyn Fleet>) -> Outcome {
    let settings = LedgerSettings { remembered: 100, ..LedgerSettings::default() };
    let ledger = fleet.ledger(settings);
    let mut all = Vec::new();
    for _ in 0..256 {
        let held = reserve(&*ledger, nanos(1)).await?;
        ledger.settle(&held, nanos(1)).await?;
        all.push(held);
    }
    for held in &all[156..] {
        ledger.settle(held, nanos(1)).await?;
    }
    let mut forgotten = 0;
    for held in &all[..156] {
        forgotten += usize::from(ledger.settle(held, nanos(1)).await.is_err());
    }
    assert!(forgotten >= 92, "only {forgotten} of 156 are forgotten");
    assert_eq!(state(&*ledger).await?, (nanos(256), NanoUsd::ZERO));
    Ok(())
}

async fn costs_add_up_to_the_last_digit(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = ledger_of(&*fleet);
    ledger.set_limit(&SESSION, Limit::Unlimited).await?;
    let half = nanos(4_503_599_627_370_495);
    ledger.charge(&Charge::new(SESSION, half)).await?;
    let held = reserve(&*ledger, half).await?;
    ledger.settle(&held, half).await?;
    assert_eq!(state(&*ledger).await?, (NanoUsd::MAX.saturating_sub(nanos(1)), NanoUsd::ZERO));
    let posted = ledger.charge(&Charge::new(SESSION, NanoUsd::MAX)).await?;
    assert_eq!((posted.spent, posted.level), (NanoUsd::MAX, Level::Exhausted), "there is no more money than that");
    Ok(())
}

async fn what_happens_is_journalled(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = ledger_of(&*fleet);
    let held = granted(&*ledger, Reserve::new(SESSION, cents(10)).with_key("a".parse()?)).await?;
    ledger.extend(&held, Duration::from_secs(900)).await?;
    ledger.settle(&held, cents(4)).await?;
    let held = granted(&*ledger, Reserve::new(SESSION, cents(10)).with_key("b".parse()?)).await?;
    ledger.release(&held).await?;
    ledger.charge(&Charge::new(OTHER, cents(1)).with_key("c".parse()?)).await?;
    let said = crate::conformance::kit::entries(&*fleet).await?;
    let said: Vec<String> = said
        .iter()
        .map(|it| {
            let params = it.params.iter().map(|(name, value)| format!("{name}={value:?}")).collect::<Vec<_>>();
            format!("{} {} {}", it.operation, it.subject, params.join(" "))
        })
        .collect();
    assert_eq!(
        said,
        [
            r#"reserve telephony/sip/session-4 id=Text("a") amount_nano_usd=Int(100000000)"#,
            r#"settle telephony/sip/session-4 id=Text("a") actual_nano_usd=Int(40000000) reserved_nano_usd=Int(100000000)"#,
            r#"reserve telephony/sip/session-4 id=Text("b") amount_nano_usd=Int(100000000)"#,
            r#"release telephony/sip/session-4 id=Text("b") amount_nano_usd=Int(100000000)"#,
            r#"charge telephony/ndi id=Text("c") cost_nano_usd=Int(10000000)"#,
        ]
    );
    Ok(())
}
