//! Days: a new one is a new account, and a hold belongs to its own.

use std::time::Duration;

use s2_coordinator::UtcDay;

use crate::account::Level;
use crate::account::Limit;
use crate::conformance::harness::Fleet;
use crate::conformance::harness::Outcome;
use crate::conformance::harness::cases;
use crate::conformance::kit::DAY;
use crate::conformance::kit::HOUR;
use crate::conformance::kit::SESSION;
use crate::conformance::kit::SWARM;
use crate::conformance::kit::balance;
use crate::conformance::kit::cents;
use crate::conformance::kit::denied;
use crate::conformance::kit::ledger_of;
use crate::conformance::kit::levels;
use crate::conformance::kit::limited;
use crate::conformance::kit::questions;
use crate::conformance::kit::reserve;
use crate::conformance::kit::state;
use crate::conformance::kit::today;
use crate::error::Error;
use crate::money::NanoUsd;
use crate::settings::LedgerSettings;
use crate::spend::Charge;
use crate::spend::Denial;
use crate::spend::Reserve;

cases! {
    a_new_day_is_a_new_account;
    midnight_is_that_of_utc_to_the_microsecond;
    a_hold_belongs_to_its_day;
    a_reservation_that_expires_tomorrow_was_spent_today;
    an_account_that_was_exhausted_goes_on_tomorrow;
    a_person_halts_for_every_day;
    levels_are_announced_on_each_day;
    accounts_are_kept_for_a_week;
    a_cost_of_a_day_that_is_forgotten_changes_no_account;
    accounts_of_forgotten_days_are_not_counted;
}

/// From nine o'clock in the morning.
const MIDNIGHT: Duration = Duration::from_secs(15 * 60 * 60);

async fn a_new_day_is_a_new_account(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = limited(&*fleet, cents(100)).await?;
    ledger.charge(&Charge::new(SESSION, cents(70))).await?;
    let first = today(&*ledger).await?;
    fleet.advance(DAY).await;
    let fresh = balance(&*ledger, &SESSION).await?;
    assert_eq!((fresh.day, fresh.spent, fresh.limit), (first.next(), NanoUsd::ZERO, cents(100)));
    let _ = reserve(&*ledger, cents(100)).await?;
    assert_eq!(ledger.balances(&SESSION, Some(first)).await?[0].spent, cents(70));
    Ok(())
}

async fn midnight_is_that_of_utc_to_the_microsecond(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = limited(&*fleet, cents(100)).await?;
    let first = today(&*ledger).await?;
    fleet.advance(MIDNIGHT - Duration::from_micros(1)).await;
    assert_eq!(reserve(&*ledger, cents(1)).await?.day, first);
    fleet.advance(Duration::from_micros(1)).await;
    assert_eq!(reserve(&*ledger, cents(1)).await?.day, first.next());
    Ok(())
}

async fn a_hold_belongs_to_its_day(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = limited(&*fleet, cents(100)).await?;
    fleet.advance(MIDNIGHT - Duration::from_secs(1)).await;
    let held = reserve(&*ledger, cents(60)).await?;
    fleet.advance(Duration::from_secs(2)).await;
    assert_eq!(state(&*ledger).await?, (NanoUsd::ZERO, NanoUsd::ZERO));
    let other = reserve(&*ledger, cents(100)).await?;
    let posted = ledger.settle(&held, cents(50)).await?;
    assert_eq!((posted.remaining, posted.spent), (cents(50), cents(50)), "of its own day");
    assert_eq!(state(&*ledger).await?, (NanoUsd::ZERO, cents(100)));
    let before = ledger.balances(&SESSION, Some(held.day)).await?;
    assert!(before.iter().all(|it| (it.spent, it.held) == (cents(50), NanoUsd::ZERO)), "{before:?}");
    ledger.release(&other).await?;
    assert_eq!(state(&*ledger).await?, (NanoUsd::ZERO, NanoUsd::ZERO));
    Ok(())
}

async fn a_reservation_that_expires_tomorrow_was_spent_today(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = limited(&*fleet, cents(100)).await?;
    fleet.advance(MIDNIGHT - Duration::from_secs(1)).await;
    let held = reserve(&*ledger, cents(60)).await?;
    fleet.advance(HOUR).await;
    assert_eq!(state(&*ledger).await?, (NanoUsd::ZERO, NanoUsd::ZERO));
    let before = &ledger.balances(&SESSION, Some(held.day)).await?[0];
    assert_eq!((before.spent, before.held, before.presumed), (cents(60), NanoUsd::ZERO, cents(60)));
    Ok(())
}

async fn an_account_that_was_exhausted_goes_on_tomorrow(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = limited(&*fleet, cents(100)).await?;
    ledger.charge(&Charge::new(SESSION, cents(100))).await?;
    denied(&*ledger, Reserve::new(SESSION, cents(1))).await?;
    fleet.advance(DAY).await;
    let fresh = balance(&*ledger, &SESSION).await?;
    assert_eq!((fresh.level, fresh.halted), (Level::Within, None));
    let _ = reserve(&*ledger, cents(1)).await?;
    Ok(())
}

async fn a_person_halts_for_every_day(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = ledger_of(&*fleet);
    ledger.halt(&SWARM, "until monday").await?;
    fleet.advance(2 * DAY).await;
    assert_eq!(denied(&*ledger, Reserve::new(SESSION, cents(1))).await?.reason, Denial::Halted);
    ledger.resume(&SWARM).await?;
    let _ = reserve(&*ledger, cents(1)).await?;
    Ok(())
}

async fn levels_are_announced_on_each_day(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = limited(&*fleet, cents(100)).await?;
    for _ in 0..2 {
        ledger.charge(&Charge::new(SESSION, cents(100))).await?;
        fleet.advance(DAY).await;
    }
    assert_eq!(levels(&*fleet).await?.len(), 2);
    assert_eq!(questions(&*fleet).await?.len(), 2, "one for each day");
    Ok(())
}

async fn accounts_are_kept_for_a_week(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = ledger_of(&*fleet);
    ledger.charge(&Charge::new(SESSION, cents(1))).await?;
    let first = today(&*ledger).await?;
    fleet.advance(7 * DAY).await;
    assert_eq!(ledger.balances(&SESSION, Some(first)).await?[0].spent, cents(1));
    assert_eq!(ledger.statement(&SWARM, Some(first), None, 10).await?.within.len(), 2);
    fleet.advance(DAY).await;
    let error = ledger.balances(&SESSION, Some(first)).await.expect_err("forgotten");
    assert!(matches!(error, Error::NotRetained { day, oldest } if day == first && oldest == first.next()), "{error}");
    assert_eq!(ledger.statement(&SWARM, Some(first), None, 10).await.expect_err("forgotten").code(), "S2_NOT_RETAINED");
    let tomorrow = UtcDay::of(today(&*ledger).await?.next().start());
    assert_eq!(ledger.balances(&SESSION, Some(tomorrow)).await?[0].spent, NanoUsd::ZERO);
    Ok(())
}

async fn a_cost_of_a_day_that_is_forgotten_changes_no_account(fleet: Box<dyn Fleet>) -> Outcome {
    let mut settings = LedgerSettings::default();
    (settings.kept_days, settings.ttl, settings.longest_ttl) = (1, 5 * DAY, 5 * DAY);
    let ledger = fleet.ledger(settings);
    ledger.set_limit(&SESSION, Limit::PerDay(cents(10))).await?;
    let (held, other) = (reserve(&*ledger, cents(5)).await?, reserve(&*ledger, cents(5)).await?);
    fleet.advance(3 * DAY).await;
    let posted = ledger.settle(&held, cents(20)).await?;
    assert_eq!((posted.remaining, posted.level), (cents(10), Level::Within));
    fleet.advance(3 * DAY).await;
    assert_eq!(state(&*ledger).await?, (NanoUsd::ZERO, NanoUsd::ZERO));
    assert_eq!(levels(&*fleet).await?, []);
    assert_eq!(ledger.settle(&other, cents(5)).await?.remaining, cents(10));
    Ok(())
}

async fn accounts_of_forgotten_days_are_not_counted(fleet: Box<dyn Fleet>) -> Outcome {
    let mut settings = LedgerSettings::default();
    (settings.kept_days, settings.accounts) = (1, 6);
    let ledger = fleet.ledger(settings);
    for _ in 0..5 {
        let _ = reserve(&*ledger, cents(1)).await?;
        fleet.advance(DAY).await;
    }
    Ok(())
}
