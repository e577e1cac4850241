//! Reservations that nobody ends.

use std::time::Duration;

use s2_coordinator::Severity;

use crate::account::Level;
use crate::conformance::harness::Fleet;
use crate::conformance::harness::Outcome;
use crate::conformance::harness::cases;
use crate::conformance::kit::DAY;
use crate::conformance::kit::SESSION;
use crate::conformance::kit::balance;
use crate::conformance::kit::cents;
use crate::conformance::kit::denied;
use crate::conformance::kit::entries;
use crate::conformance::kit::granted;
use crate::conformance::kit::levels;
use crate::conformance::kit::limited;
use crate::conformance::kit::operations;
use crate::conformance::kit::reserve;
use crate::conformance::kit::state;
use crate::money::NanoUsd;
use crate::settings::LedgerSettings;
use crate::spend::Charge;
use crate::spend::Denial;
use crate::spend::Expiry;
use crate::spend::Reserve;

cases! {
    what_expires_is_presumed_to_be_spent;
    a_late_settlement_corrects_what_was_presumed;
    a_late_settlement_may_cost_more_than_was_presumed;
    a_late_release_says_that_nothing_was_spent;
    a_reservation_may_be_free_again_instead;
    a_cost_counts_also_after_what_held_it_is_free_again;
    it_holds_until_the_very_last_microsecond;
    an_extension_lets_it_hold_longer_and_never_shorter;
    what_has_ended_cannot_be_extended;
    an_extension_is_bounded;
    hundreds_expire_at_once;
    they_expire_in_the_order_of_their_deadlines;
    an_expiry_is_journalled;
    presumed_costs_reach_levels;
    a_correction_lets_an_account_go_on_that_was_not_exhausted_after_all;
    what_is_presumed_can_be_corrected_whatever_else_happens;
    what_was_presumed_is_final_after_a_day;
    what_is_presumed_counts_as_open;
}

const TTL: Duration = Duration::from_secs(600);

async fn what_expires_is_presumed_to_be_spent(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = limited(&*fleet, cents(20)).await?;
    let _ = reserve(&*ledger, cents(10)).await?;
    fleet.advance(TTL).await;
    let after = balance(&*ledger, &SESSION).await?;
    assert_eq!((after.spent, after.held, after.presumed), (cents(10), NanoUsd::ZERO, cents(10)));
    let refused = denied(&*ledger, Reserve::new(SESSION, cents(11))).await?;
    assert_eq!((refused.available, refused.presumed, refused.reason), (cents(10), cents(10), Denial::Spent));
    assert!(refused.to_string().contains("$0.10 are presumed to be spent"), "{refused}");
    assert_eq!(state(&*ledger).await?, (cents(10), NanoUsd::ZERO));
    Ok(())
}

async fn a_late_settlement_corrects_what_was_presumed(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = limited(&*fleet, cents(10)).await?;
    let held = reserve(&*ledger, cents(10)).await?;
    fleet.advance(TTL).await;
    denied(&*ledger, Reserve::new(SESSION, cents(1))).await?;
    let posted = ledger.settle(&held, cents(4)).await?;
    assert_eq!((posted.remaining, posted.level), (cents(6), Level::Within));
    let after = balance(&*ledger, &SESSION).await?;
    assert_eq!((after.spent, after.presumed), (cents(4), NanoUsd::ZERO));
    ledger.settle(&held, cents(4)).await?;
    assert_eq!(state(&*ledger).await?, (cents(4), NanoUsd::ZERO));
    Ok(())
}

async fn a_late_settlement_may_cost_more_than_was_presumed(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = limited(&*fleet, cents(100)).await?;
    let (first, _second) = (reserve(&*ledger, cents(10)).await?, reserve(&*ledger, cents(20)).await?);
    fleet.advance(TTL).await;
    ledger.settle(&first, cents(15)).await?;
    let after = balance(&*ledger, &SESSION).await?;
    assert_eq!((after.spent, after.presumed), (cents(35), cents(20)));
    Ok(())
}

async fn a_late_release_says_that_nothing_was_spent(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = limited(&*fleet, cents(10)).await?;
    let held = reserve(&*ledger, cents(9)).await?;
    fleet.advance(TTL).await;
    ledger.release(&held).await?;
    ledger.release(&held).await?;
    let after = balance(&*ledger, &SESSION).await?;
    assert_eq!((after.spent, after.held, after.presumed), (NanoUsd::ZERO, NanoUsd::ZERO, NanoUsd::ZERO));
    Ok(())
}

async fn a_reservation_may_be_free_again_instead(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = limited(&*fleet, cents(10)).await?;
    let _ = granted(&*ledger, Reserve::new(SESSION, cents(10)).with_expiry(Expiry::Release)).await?;
    denied(&*ledger, Reserve::new(SESSION, cents(10))).await?;
    fleet.advance(TTL).await;
    let _ = reserve(&*ledger, cents(10)).await?;
    assert_eq!(state(&*ledger).await?, (NanoUsd::ZERO, cents(10)));
    assert_eq!(balance(&*ledger, &SESSION).await?.presumed, NanoUsd::ZERO);
    Ok(())
}

async fn a_cost_counts_also_after_what_held_it_is_free_again(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = limited(&*fleet, cents(10)).await?;
    let held = granted(&*ledger, Reserve::new(SESSION, cents(10)).with_expiry(Expiry::Release)).await?;
    fleet.advance(TTL).await;
    ledger.release(&held).await?;
    ledger.settle(&held, cents(7)).await?;
    assert_eq!(state(&*ledger).await?, (cents(7), NanoUsd::ZERO));
    Ok(())
}

async fn it_holds_until_the_very_last_microsecond(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = limited(&*fleet, cents(10)).await?;
    let ttl = Duration::from_micros(1_500_000);
    let _ = granted(&*ledger, Reserve::new(SESSION, cents(10)).with_ttl(ttl)).await?;
    fleet.advance(ttl - Duration::from_micros(1)).await;
    assert_eq!(state(&*ledger).await?, (NanoUsd::ZERO, cents(10)));
    fleet.advance(Duration::from_micros(1)).await;
    assert_eq!(state(&*ledger).await?, (cents(10), NanoUsd::ZERO));
    Ok(())
}

async fn an_extension_lets_it_hold_longer_and_never_shorter(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = limited(&*fleet, cents(10)).await?;
    let held = reserve(&*ledger, cents(10)).await?;
    fleet.advance(TTL / 2).await;
    assert_eq!(ledger.extend(&held, Duration::from_secs(1)).await?, held.until);
    let until = ledger.extend(&held, TTL).await?;
    assert_eq!(until, held.until + TTL / 2);
    assert_eq!(ledger.extend(&held, TTL).await?, until);
    fleet.advance(TTL - Duration::from_micros(1)).await;
    assert_eq!(state(&*ledger).await?, (NanoUsd::ZERO, cents(10)));
    fleet.advance(Duration::from_micros(1)).await;
    assert_eq!(state(&*ledger).await?, (cents(10), NanoUsd::ZERO));
    Ok(())
}

async fn what_has_ended_cannot_be_extended(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = limited(&*fleet, cents(100)).await?;
    let held =
        [reserve(&*ledger, cents(1)).await?, reserve(&*ledger, cents(1)).await?, reserve(&*ledger, cents(1)).await?];
    ledger.release(&held[0]).await?;
    ledger.settle(&held[1], cents(1)).await?;
    fleet.advance(TTL).await;
    for (held, how) in held.iter().zip(["released", "settled", "expired"]) {
        let error = ledger.extend(held, TTL).await.expect_err("ended");
        assert_eq!((error.code(), error.to_string().ends_with(how)), ("S2_RESERVATION_ENDED", true), "{error}");
    }
    Ok(())
}

async fn an_extension_is_bounded(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = limited(&*fleet, cents(10)).await?;
    let held = reserve(&*ledger, cents(10)).await?;
    let error = ledger.extend(&held, Duration::from_secs(86_401)).await.expect_err("too long");
    assert_eq!(error.code(), "S2_LIMIT_EXCEEDED");
    assert_eq!(ledger.extend(&held, Duration::ZERO).await.expect_err("no time").code(), "S2_INVALID");
    Ok(())
}

async fn hundreds_expire_at_once(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = limited(&*fleet, cents(1_000)).await?;
    for nth in 0..250 {
        let expiry = if nth < 50 { Expiry::Release } else { Expiry::Presume };
        let _ = granted(&*ledger, Reserve::new(SESSION, cents(1)).with_expiry(expiry)).await?;
    }
    fleet.advance(TTL).await;
    let after = balance(&*ledger, &SESSION).await?;
    assert_eq!((after.spent, after.held, after.presumed), (cents(200), NanoUsd::ZERO, cents(200)));
    assert_eq!(operations(&*fleet).await?.iter().filter(|it| it.starts_with("expire")).count(), 250);
    Ok(())
}

async fn they_expire_in_the_order_of_their_deadlines(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = limited(&*fleet, cents(1_000)).await?;
    for (key, seconds) in [("c", 30), ("b", 20), ("a", 20), ("d", 10)] {
        let ask = Reserve::new(SESSION, cents(1)).with_key(key.parse()?);
        let _ = granted(&*ledger, ask.with_ttl(Duration::from_secs(seconds))).await?;
    }
    fleet.advance(TTL).await;
    state(&*ledger).await?;
    let said = entries(&*fleet).await?;
    let keys: Vec<String> = said
        .iter()
        .filter(|it| *it.operation == *"expire")
        .filter_map(|it| it.params.get("id").map(|id| format!("{id:?}")))
        .collect();
    assert_eq!(keys, [r#"Text("d")"#, r#"Text("a")"#, r#"Text("b")"#, r#"Text("c")"#]);
    Ok(())
}

async fn an_expiry_is_journalled(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = limited(&*fleet, cents(100)).await?;
    let _ = reserve(&*ledger, cents(1)).await?;
    let _ = granted(&*ledger, Reserve::new(SESSION, cents(2)).with_expiry(Expiry::Release).with_ttl(TTL * 2)).await?;
    fleet.advance(TTL * 2).await;
    state(&*ledger).await?;
    let said = entries(&*fleet).await?;
    let expired: Vec<_> = said.iter().filter(|it| *it.operation == *"expire").collect();
    assert_eq!(expired.iter().map(|it| it.severity).collect::<Vec<_>>(), [Severity::Medium, Severity::Info]);
    let presumed = expired.iter().map(|it| it.params.get("presumed").cloned()).collect::<Vec<_>>();
    assert_eq!(presumed, [Some(true.into()), Some(false.into())]);
    Ok(())
}

async fn presumed_costs_reach_levels(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = limited(&*fleet, cents(100)).await?;
    let held = reserve(&*ledger, cents(80)).await?;
    fleet.advance(TTL).await;
    state(&*ledger).await?;
    let warned = vec![("telephony/sip/session-4".to_owned(), 80)];
    assert_eq!(levels(&*fleet).await?, warned);
    ledger.settle(&held, cents(1)).await?;
    let again = reserve(&*ledger, cents(80)).await?;
    ledger.settle(&again, cents(80)).await?;
    assert_eq!(levels(&*fleet).await?, warned, "once, though it was corrected meanwhile");
    Ok(())
}

async fn a_correction_lets_an_account_go_on_that_was_not_exhausted_after_all(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = limited(&*fleet, cents(100)).await?;
    let held = [reserve(&*ledger, cents(60)).await?, reserve(&*ledger, cents(40)).await?];
    fleet.advance(TTL).await;
    let halted = balance(&*ledger, &SESSION).await?;
    assert_eq!((halted.level, halted.halted.as_deref()), (Level::Exhausted, Some("budget_exceeded")));
    ledger.settle(&held[0], cents(10)).await?;
    assert_eq!(balance(&*ledger, &SESSION).await?.halted, None);
    ledger.release(&held[1]).await?;
    ledger.settle(&reserve(&*ledger, cents(90)).await?, cents(90)).await?;
    let halted = balance(&*ledger, &SESSION).await?;
    assert_eq!((halted.spent, halted.halted.as_deref()), (cents(100), Some("budget_exceeded")), "now it is");
    assert_eq!(levels(&*fleet).await?.len(), 1, "each level is announced once");
    Ok(())
}

async fn what_is_presumed_can_be_corrected_whatever_else_happens(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = fleet.ledger(LedgerSettings { remembered: 1, ..LedgerSettings::default() });
    let held = reserve(&*ledger, cents(10)).await?;
    fleet.advance(TTL).await;
    for _ in 0..300 {
        ledger.charge(&Charge::new(SESSION, cents(1))).await?;
    }
    ledger.settle(&held, cents(4)).await?;
    assert_eq!(state(&*ledger).await?, (cents(304), NanoUsd::ZERO));
    assert_eq!(balance(&*ledger, &SESSION).await?.presumed, NanoUsd::ZERO);
    Ok(())
}

async fn what_was_presumed_is_final_after_a_day(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = limited(&*fleet, cents(100)).await?;
    let held = reserve(&*ledger, cents(10)).await?;
    fleet.advance(TTL).await;
    state(&*ledger).await?;
    fleet.advance(DAY - Duration::from_micros(1)).await;
    assert_eq!(ledger.extend(&held, TTL).await.expect_err("expired").code(), "S2_RESERVATION_ENDED");
    fleet.advance(Duration::from_micros(1)).await;
    assert_eq!(ledger.settle(&held, cents(4)).await.expect_err("final").code(), "S2_UNKNOWN_RESERVATION");
    let then = &ledger.balances(&SESSION, Some(held.day)).await?[0];
    assert_eq!((then.spent, then.presumed), (cents(10), cents(10)));
    Ok(())
}

async fn what_is_presumed_counts_as_open(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = fleet.ledger(LedgerSettings { open: 2, ..LedgerSettings::default() });
    let held = reserve(&*ledger, cents(1)).await?;
    let _ = reserve(&*ledger, cents(1)).await?;
    fleet.advance(TTL).await;
    let error = ledger.reserve(&Reserve::new(SESSION, cents(1))).await.expect_err("too many");
    assert_eq!(error.code(), "S2_LIMIT_EXCEEDED");
    ledger.settle(&held, cents(1)).await?;
    let _ = reserve(&*ledger, cents(1)).await?;
    fleet.advance(2 * DAY).await;
    state(&*ledger).await?;
    fleet.advance(2 * DAY).await;
    let _ = (reserve(&*ledger, cents(1)).await?, reserve(&*ledger, cents(1)).await?);
    Ok(())
}
