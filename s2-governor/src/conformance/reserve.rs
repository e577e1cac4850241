//! Reserving: all levels or none, and never more than there is.

use std::time::Duration;

use s2_coordinator::SwarmId;

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
use crate::spend::Denial;
use crate::spend::Expiry;
use crate::spend::Reserve;

cases! {
    a_grant_holds_on_every_level;
    exactly_the_limit_is_granted_and_not_a_nano_more;
    every_level_must_have_enough_or_none_moves;
    a_denial_names_the_first_account_that_refuses;
    a_denial_says_whether_waiting_helps;
    a_denial_leaves_no_trace;
    a_session_has_fifty_dollars_a_day_and_a_swarm_what_it_needs;
    unlimited_is_as_much_as_there_is;
    nothing_may_be_reserved_of_nothing;
    repeated_under_its_key_it_is_the_same_reservation;
    a_key_that_says_something_else_is_refused;
    a_reservation_that_has_ended_is_not_granted_again;
    how_long_it_holds_is_bounded;
    open_reservations_are_bounded;
    accounts_are_bounded;
    all_ledgers_of_a_fleet_are_the_same_accounts;
    sixty_four_tasks_get_what_there_is_and_no_more;
    sessions_of_one_swarm_race_for_its_budget;
}

async fn a_grant_holds_on_every_level(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = ledger_of(&*fleet);
    let held = reserve(&*ledger, cents(10)).await?;
    assert_eq!((held.session.clone(), held.amount), (SESSION, cents(10)));
    assert_eq!(state(&*ledger).await?, (NanoUsd::ZERO, cents(10)));
    let path = ledger.balances(&SESSION, None).await?;
    assert_eq!(path[0].day, held.day);
    assert_eq!(
        path.iter().map(|it| it.swarm.to_string()).collect::<Vec<_>>(),
        ["telephony/sip/session-4", "telephony/sip", "telephony"]
    );
    Ok(())
}

async fn exactly_the_limit_is_granted_and_not_a_nano_more(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = limited(&*fleet, cents(10)).await?;
    let more = Reserve::new(SESSION, cents(10).saturating_add(nanos(1)));
    let refused = denied(&*ledger, more).await?;
    assert_eq!((refused.available, refused.reason), (cents(10), Denial::Spent));
    let _ = reserve(&*ledger, cents(10)).await?;
    let refused = denied(&*ledger, Reserve::new(SESSION, nanos(1))).await?;
    assert_eq!((refused.available, refused.reason), (NanoUsd::ZERO, Denial::Held));
    let full = balance(&*ledger, &SESSION).await?;
    assert_eq!((full.available(), full.overrun()), (NanoUsd::ZERO, NanoUsd::ZERO));
    Ok(())
}

async fn every_level_must_have_enough_or_none_moves(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = ledger_of(&*fleet);
    ledger.set_limit(&SWARM, Limit::PerDay(cents(25))).await?;
    let _ = granted(&*ledger, Reserve::new(OTHER, cents(20))).await?;
    let refused = denied(&*ledger, Reserve::new(SESSION, cents(6))).await?;
    assert_eq!((refused.swarm, refused.available), (SWARM, cents(5)));
    assert_eq!(balance(&*ledger, &SESSION).await?.held, NanoUsd::ZERO);
    assert_eq!(balance(&*ledger, &SWARM).await?.held, cents(20));
    let _ = granted(&*ledger, Reserve::new(SESSION, cents(5))).await?;
    assert_eq!(balance(&*ledger, &SWARM).await?.available(), NanoUsd::ZERO);
    Ok(())
}

async fn a_denial_names_the_first_account_that_refuses(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = limited(&*fleet, cents(1)).await?;
    ledger.set_limit(&SWARM, Limit::PerDay(cents(1))).await?;
    let refused = denied(&*ledger, Reserve::new(SESSION, cents(2))).await?;
    assert_eq!(refused.swarm, SESSION, "the innermost of two");
    assert_eq!(denied(&*ledger, Reserve::new(OTHER, cents(2))).await?.swarm, SWARM);
    let said = refused.to_string();
    assert!(said.contains("telephony/sip/session-4") && said.contains("$0.01 left"), "{said}");
    Ok(())
}

async fn a_denial_says_whether_waiting_helps(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = limited(&*fleet, cents(10)).await?;
    let held = reserve(&*ledger, cents(6)).await?;
    assert_eq!(denied(&*ledger, Reserve::new(SESSION, cents(5))).await?.reason, Denial::Held);
    assert_eq!(denied(&*ledger, Reserve::new(SESSION, cents(11))).await?.reason, Denial::Spent);
    ledger.settle(&held, cents(6)).await?;
    assert_eq!(denied(&*ledger, Reserve::new(SESSION, cents(5))).await?.reason, Denial::Spent);
    assert_eq!(balance(&*ledger, &SESSION).await?.halted, None, "a refusal halts nobody");
    Ok(())
}

async fn a_denial_leaves_no_trace(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = ledger_of(&*fleet);
    ledger.set_limit(&SWARM, Limit::PerDay(cents(1))).await?;
    let before = operations(&*fleet).await?;
    let ask = Reserve::new(SESSION, cents(2)).with_key("once".parse()?);
    for _ in 0..3 {
        denied(&*ledger, ask.clone()).await?;
    }
    assert_eq!(operations(&*fleet).await?, before);
    assert_eq!(ledger.statement(&SWARM, None, None, 10).await?.within, [], "no account is opened");
    ledger.set_limit(&SWARM, Limit::PerDay(cents(2))).await?;
    let _ = granted(&*ledger, ask).await?;
    Ok(())
}

async fn a_session_has_fifty_dollars_a_day_and_a_swarm_what_it_needs(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = ledger_of(&*fleet);
    assert_eq!(balance(&*ledger, &SESSION).await?.limit, NanoUsd::from_dollars(50));
    let _ = granted(&*ledger, Reserve::new(SESSION, NanoUsd::from_dollars(50))).await?;
    denied(&*ledger, Reserve::new(SESSION, nanos(1))).await?;
    let _ = granted(&*ledger, Reserve::new(OTHER, NanoUsd::from_dollars(50))).await?;
    let swarm = balance(&*ledger, &SWARM).await?;
    assert_eq!((swarm.limit, swarm.held), (NanoUsd::MAX, NanoUsd::from_dollars(100)));
    Ok(())
}

async fn unlimited_is_as_much_as_there_is(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = ledger_of(&*fleet);
    ledger.set_limit(&SESSION, Limit::Unlimited).await?;
    let _ = reserve(&*ledger, NanoUsd::MAX.saturating_sub(nanos(1))).await?;
    let _ = reserve(&*ledger, nanos(1)).await?;
    let refused = denied(&*ledger, Reserve::new(SESSION, nanos(1))).await?;
    assert_eq!((refused.reason, refused.available), (Denial::Held, NanoUsd::ZERO));
    let refused = denied(&*ledger, Reserve::new(SESSION, NanoUsd::MAX)).await?;
    assert_eq!((refused.reason, refused.available), (Denial::Held, NanoUsd::ZERO));
    assert_eq!(state(&*ledger).await?, (NanoUsd::ZERO, NanoUsd::MAX), "every digit");
    Ok(())
}

async fn nothing_may_be_reserved_of_nothing(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = limited(&*fleet, NanoUsd::ZERO).await?;
    let free = reserve(&*ledger, NanoUsd::ZERO).await?;
    denied(&*ledger, Reserve::new(SESSION, nanos(1))).await?;
    ledger.settle(&free, NanoUsd::ZERO).await?;
    assert_eq!(state(&*ledger).await?, (NanoUsd::ZERO, NanoUsd::ZERO));
    Ok(())
}

async fn repeated_under_its_key_it_is_the_same_reservation(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = limited(&*fleet, cents(10)).await?;
    let ask = Reserve::new(SESSION, cents(10)).with_key("task-17/1/1".parse()?);
    let first = granted(&*ledger, ask.clone()).await?;
    fleet.advance(Duration::from_secs(60)).await;
    let again = granted(&*ledger, ask).await?;
    assert_eq!((&again.key, again.day, again.until), (&first.key, first.day, first.until));
    assert_eq!(state(&*ledger).await?, (NanoUsd::ZERO, cents(10)));
    assert_eq!(operations(&*fleet).await?.len(), 2, "limit and reserve");
    Ok(())
}

async fn a_key_that_says_something_else_is_refused(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = ledger_of(&*fleet);
    let ask = |session, amount| Reserve::new(session, amount).with_key("k".parse().expect("a key"));
    let _ = granted(&*ledger, ask(SESSION, cents(10))).await?;
    for other in [ask(SESSION, cents(11)), ask(OTHER, cents(10)), ask(SESSION, cents(10)).with_expiry(Expiry::Release)]
    {
        let error = ledger.reserve(&other).await.expect_err("a conflict");
        assert_eq!(error.code(), "S2_SPEND_CONFLICT");
        assert!(error.to_string().contains("a reservation of $0.10 by telephony/sip/session-4"), "{error}");
    }
    assert_eq!(state(&*ledger).await?, (NanoUsd::ZERO, cents(10)));
    Ok(())
}

async fn a_reservation_that_has_ended_is_not_granted_again(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = ledger_of(&*fleet);
    let ask = |key: &str| Reserve::new(SESSION, cents(1)).with_key(key.parse().expect("a key"));
    let ended = |result: Result<_, Error>| match result {
        Err(Error::ReservationEnded { how, .. }) => how,
        other => panic!("{other:?}"),
    };
    ledger.release(&granted(&*ledger, ask("a")).await?).await?;
    ledger.settle(&granted(&*ledger, ask("b")).await?, cents(1)).await?;
    let _ = granted(&*ledger, ask("c")).await?;
    fleet.advance(Duration::from_secs(600)).await;
    assert_eq!(ended(ledger.reserve(&ask("a")).await), "released");
    assert_eq!(ended(ledger.reserve(&ask("b")).await), "settled");
    assert_eq!(ended(ledger.reserve(&ask("c")).await), "expired");
    assert_eq!(state(&*ledger).await?, (cents(2), NanoUsd::ZERO));
    Ok(())
}

async fn how_long_it_holds_is_bounded(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = ledger_of(&*fleet);
    let ask = |ttl| Reserve::new(SESSION, cents(1)).with_ttl(ttl);
    let error = ledger.reserve(&ask(Duration::from_secs(24 * 60 * 60 + 1))).await.expect_err("too long");
    assert!(
        matches!(error, Error::LimitExceeded { limit: "longest_ttl", actual: 86_401_000, max: 86_400_000, .. }),
        "{error}"
    );
    assert_eq!(ledger.reserve(&ask(Duration::ZERO)).await.expect_err("no time").code(), "S2_INVALID");
    let day = granted(&*ledger, ask(Duration::from_secs(24 * 60 * 60))).await?;
    let default = granted(&*ledger, Reserve::new(SESSION, cents(1))).await?;
    assert_eq!(day.until.since(default.until), Duration::from_secs(24 * 60 * 60 - 10 * 60));
    Ok(())
}

async fn open_reservations_are_bounded(fleet: Box<dyn Fleet>) -> Outcome {
    let settings = LedgerSettings { open: 2, ..LedgerSettings::default() };
    let ledger = fleet.ledger(settings);
    let first = reserve(&*ledger, cents(1)).await?;
    let _ = reserve(&*ledger, cents(1)).await?;
    let error = ledger.reserve(&Reserve::new(SESSION, cents(1))).await.expect_err("too many");
    assert!(matches!(error, Error::LimitExceeded { limit: "open", actual: 3, max: 2, .. }), "{error}");
    assert_eq!(state(&*ledger).await?, (NanoUsd::ZERO, cents(2)));
    ledger.settle(&first, cents(1)).await?;
    let _ = reserve(&*ledger, cents(1)).await?;
    Ok(())
}

async fn accounts_are_bounded(fleet: Box<dyn Fleet>) -> Outcome {
    let settings = LedgerSettings { accounts: 4, ..LedgerSettings::default() };
    let ledger = fleet.ledger(settings);
    let _ = reserve(&*ledger, cents(1)).await?;
    let _ = granted(&*ledger, Reserve::new(OTHER, cents(1))).await?;
    let fifth = SwarmId::from_static("telephony/h323");
    let error = ledger.reserve(&Reserve::new(fifth.clone(), cents(1))).await.expect_err("too many");
    assert!(matches!(error, Error::LimitExceeded { limit: "accounts", actual: 5, max: 4, .. }), "{error}");
    assert_eq!(balance(&*ledger, &fifth).await?.held, NanoUsd::ZERO);
    let _ = reserve(&*ledger, cents(1)).await?;
    Ok(())
}

async fn all_ledgers_of_a_fleet_are_the_same_accounts(fleet: Box<dyn Fleet>) -> Outcome {
    let (one, other) = (limited(&*fleet, cents(10)).await?, ledger_of(&*fleet));
    let held = reserve(&*one, cents(10)).await?;
    denied(&*other, Reserve::new(SESSION, nanos(1))).await?;
    other.settle(&held, cents(3)).await?;
    assert_eq!(state(&*one).await?, (cents(3), NanoUsd::ZERO));
    Ok(())
}

async fn sixty_four_tasks_get_what_there_is_and_no_more(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = limited(&*fleet, NanoUsd::from_dollars(5)).await?;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..64 {
        let ledger = ledger_of(&*fleet);
        tasks.spawn(async move {
            let mut admitted = 0;
            for _ in 0..4 {
                if let Ok(held) = ledger.reserve(&Reserve::new(SESSION, cents(10))).await?.granted() {
                    admitted += 1;
                    ledger.settle(&held, cents(10)).await?;
                }
            }
            Ok::<_, Error>(admitted)
        });
    }
    let mut admitted = 0;
    for each in tasks.join_all().await {
        admitted += each?;
    }
    let spent = balance(&*ledger, &SESSION).await?;
    assert_eq!((admitted, spent.spent, spent.held), (50, NanoUsd::from_dollars(5), NanoUsd::ZERO));
    assert_eq!(spent.overrun(), NanoUsd::ZERO);
    Ok(())
}

async fn sessions_of_one_swarm_race_for_its_budget(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = ledger_of(&*fleet);
    ledger.set_limit(&SWARM, Limit::PerDay(cents(100))).await?;
    let mut tasks = tokio::task::JoinSet::new();
    for nth in 0..16 {
        let ledger = ledger_of(&*fleet);
        tasks.spawn(async move {
            let session = SwarmId::new(format!("telephony/{nth}"))?;
            let mut admitted = 0;
            for _ in 0..4 {
                let reserved = ledger.reserve(&Reserve::new(session.clone(), cents(7))).await?;
                admitted += u64::from(reserved.granted().is_ok());
            }
            Ok::<_, Error>(admitted)
        });
    }
    let mut admitted = 0;
    for each in tasks.join_all().await {
        admitted += each?;
    }
    assert_eq!((admitted, balance(&*ledger, &SWARM).await?.held), (14, cents(98)));
    let within = ledger.statement(&SWARM, None, None, 100).await?.within;
    assert_eq!(within.iter().map(|balance| balance.held).sum::<NanoUsd>(), cents(98));
    Ok(())
}
