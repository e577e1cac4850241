//! What people see of accounts.

use s2_coordinator::SwarmId;

use crate::account::Limit;
use crate::conformance::harness::Fleet;
use crate::conformance::harness::Outcome;
use crate::conformance::harness::cases;
use crate::conformance::kit::DAY;
use crate::conformance::kit::OTHER;
use crate::conformance::kit::SESSION;
use crate::conformance::kit::SWARM;
use crate::conformance::kit::balance;
use crate::conformance::kit::cents;
use crate::conformance::kit::entries;
use crate::conformance::kit::granted;
use crate::conformance::kit::ledger_of;
use crate::conformance::kit::operations;
use crate::conformance::kit::reserve;
use crate::conformance::kit::today;
use crate::error::Error;
use crate::money::NanoUsd;
use crate::settings::LedgerSettings;
use crate::spend::Charge;
use crate::spend::Reserve;

cases! {
    an_account_that_nobody_has_used_is_empty;
    a_session_may_be_as_deep_as_a_path;
    a_statement_has_what_is_within_by_path;
    a_statement_comes_in_pages;
    a_page_is_bounded;
    a_page_comes_after_one_within;
    what_is_said_about_swarms_is_bounded;
    keys_and_reasons_may_have_any_letters;
    a_swarm_that_spends_itself_is_a_session;
    a_limit_counts_before_and_after_the_first_spend;
    limits_are_journalled;
    looking_leaves_no_trace;
}

async fn an_account_that_nobody_has_used_is_empty(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = ledger_of(&*fleet);
    let path = ledger.balances(&SESSION, None).await?;
    let limits: Vec<_> = path.iter().map(|it| it.limit).collect();
    assert_eq!(limits, [NanoUsd::from_dollars(50), NanoUsd::MAX, NanoUsd::MAX]);
    assert!(path.iter().all(|it| (it.spent, it.held, it.halted.is_none()) == (NanoUsd::ZERO, NanoUsd::ZERO, true)));
    assert_eq!(ledger.statement(&SWARM, None, None, 10).await?.within, []);
    Ok(())
}

async fn a_session_may_be_as_deep_as_a_path(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = ledger_of(&*fleet);
    let deep = SwarmId::new(["a"; SwarmId::DEPTH].join("/"))?;
    let held = granted(&*ledger, Reserve::new(deep.clone(), cents(3))).await?;
    ledger.settle(&held, cents(2)).await?;
    let path = ledger.balances(&deep, None).await?;
    assert_eq!(path.len(), SwarmId::DEPTH);
    assert!(path.iter().all(|it| (it.spent, it.held) == (cents(2), NanoUsd::ZERO)), "{path:?}");
    let long = SwarmId::new(format!("{}/{}", "l".repeat(125), "s".repeat(130)))?;
    ledger.set_limit(&long, Limit::PerDay(cents(1))).await?;
    ledger.charge(&Charge::new(long.clone(), cents(1))).await?;
    assert!(balance(&*ledger, &long).await?.halted.is_some());
    Ok(())
}

async fn a_statement_has_what_is_within_by_path(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = ledger_of(&*fleet);
    for path in ["telephony/sip/b", "telephony/sip/a", "telephony/sip-2/a", "telephony/sip", "telephony2/a", "t"] {
        ledger.charge(&Charge::new(SwarmId::new(path)?, cents(1))).await?;
    }
    let statement = ledger.statement(&SwarmId::from_static("telephony/sip"), None, None, 10).await?;
    assert_eq!(statement.balance.spent, cents(3));
    let within = |within: &[crate::account::Balance]| {
        within.iter().map(|it| format!("{} {}", it.swarm, it.spent)).collect::<Vec<_>>()
    };
    assert_eq!(within(&statement.within), ["telephony/sip/a $0.01", "telephony/sip/b $0.01"]);
    let statement = ledger.statement(&SWARM, None, None, 10).await?;
    assert_eq!(
        within(&statement.within),
        [
            "telephony/sip $0.03",
            "telephony/sip-2 $0.01",
            "telephony/sip-2/a $0.01",
            "telephony/sip/a $0.01",
            "telephony/sip/b $0.01"
        ]
    );
    Ok(())
}

async fn a_statement_comes_in_pages(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = ledger_of(&*fleet);
    for nth in 0..120 {
        ledger.charge(&Charge::new(SwarmId::new(format!("telephony/{nth:03}"))?, cents(1))).await?;
    }
    let (mut after, mut seen) = (None, Vec::new());
    loop {
        let page = ledger.statement(&SWARM, None, after.as_ref(), 50).await?.within;
        let Some(last) = page.last() else { break };
        after = Some(last.swarm.clone());
        seen.extend(page.into_iter().map(|it| it.swarm.leaf().to_owned()));
    }
    assert_eq!(seen, (0..120).map(|nth| format!("{nth:03}")).collect::<Vec<_>>());
    Ok(())
}

async fn a_page_is_bounded(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = ledger_of(&*fleet);
    assert_eq!(ledger.statement(&SWARM, None, None, 0).await.expect_err("none").code(), "S2_INVALID");
    assert_eq!(ledger.statement(&SWARM, None, None, 501).await.expect_err("many").code(), "S2_LIMIT_EXCEEDED");
    Ok(())
}

async fn a_swarm_that_spends_itself_is_a_session(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = ledger_of(&*fleet);
    let _ = granted(&*ledger, Reserve::new(OTHER, cents(1))).await?;
    assert_eq!(balance(&*ledger, &SWARM).await?.limit, NanoUsd::MAX);
    let _ = granted(&*ledger, Reserve::new(SWARM, cents(1))).await?;
    assert_eq!(balance(&*ledger, &SWARM).await?.limit, NanoUsd::from_dollars(50));
    Ok(())
}

async fn a_limit_counts_before_and_after_the_first_spend(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = ledger_of(&*fleet);
    assert_eq!(ledger.set_limit(&SESSION, Limit::PerDay(cents(5))).await?.limit, cents(5));
    let _ = reserve(&*ledger, cents(1)).await?;
    assert_eq!(balance(&*ledger, &SESSION).await?.limit, cents(5));
    assert_eq!(ledger.set_limit(&SESSION, Limit::PerDay(cents(9))).await?.available(), cents(8));
    fleet.advance(DAY).await;
    assert_eq!(balance(&*ledger, &SESSION).await?.limit, cents(9));
    assert_eq!(ledger.set_limit(&SESSION, Limit::Unlimited).await?.limit, NanoUsd::MAX);
    assert_eq!(ledger.set_limit(&SESSION, Limit::Default).await?.limit, NanoUsd::from_dollars(50));
    Ok(())
}

async fn limits_are_journalled(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = ledger_of(&*fleet);
    ledger.set_limit(&SESSION, Limit::PerDay(cents(5))).await?;
    ledger.set_limit(&SWARM, Limit::Unlimited).await?;
    ledger.set_limit(&SESSION, Limit::Default).await?;
    ledger.halt(&SWARM, "stop").await?;
    ledger.resume(&SWARM).await?;
    assert_eq!(
        operations(&*fleet).await?,
        [
            "limit telephony/sip/session-4",
            "limit telephony",
            "limit telephony/sip/session-4",
            "halt telephony",
            "resume telephony"
        ]
    );
    Ok(())
}

async fn looking_leaves_no_trace(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = ledger_of(&*fleet);
    ledger.balances(&SESSION, None).await?;
    ledger.statement(&SESSION, None, None, 1).await?;
    ledger.balances(&SESSION, Some(today(&*ledger).await?.next())).await?;
    assert_eq!(operations(&*fleet).await?, [""; 0]);
    assert_eq!(ledger.statement(&SWARM, None, None, 10).await?.within, []);
    Ok(())
}

async fn a_page_comes_after_one_within(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = ledger_of(&*fleet);
    let sip = SwarmId::from_static("telephony/sip");
    for path in ["telephony/sip/a", "telephony/sip-2/a", "telephony/sip.b", "telephony/sip/b"] {
        ledger.charge(&Charge::new(SwarmId::new(path)?, cents(1))).await?;
    }
    let all = ledger.statement(&sip, None, Some(&sip), 10).await?.within;
    assert_eq!(all.iter().map(|it| it.swarm.leaf()).collect::<Vec<_>>(), ["a", "b"]);
    for other in [OTHER, SWARM] {
        assert_eq!(ledger.statement(&sip, None, Some(&other), 10).await.expect_err("outside").code(), "S2_INVALID");
    }
    Ok(())
}

async fn what_is_said_about_swarms_is_bounded(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = fleet.ledger(LedgerSettings { rules: 2, ..LedgerSettings::default() });
    ledger.set_limit(&SESSION, Limit::PerDay(cents(1))).await?;
    ledger.halt(&OTHER, "stop").await?;
    for error in [
        ledger.set_limit(&SWARM, Limit::Unlimited).await.expect_err("too many"),
        ledger.halt(&SWARM, "stop").await.expect_err("too many"),
    ] {
        assert!(matches!(error, Error::LimitExceeded { limit: "rules", actual: 3, max: 2, .. }), "{error}");
    }
    ledger.halt(&SESSION, "it has a rule already").await?;
    ledger.resume(&OTHER).await?;
    ledger.set_limit(&SWARM, Limit::Unlimited).await?;
    assert_eq!(operations(&*fleet).await?.len(), 5);
    Ok(())
}

async fn keys_and_reasons_may_have_any_letters(fleet: Box<dyn Fleet>) -> Outcome {
    let ledger = ledger_of(&*fleet);
    let long = "ö".repeat(128);
    let keys = [r#"a "quoted" \\ key"#, "1 2 3", "Grüße 你好", ":", &long];
    for key in keys {
        let held = granted(&*ledger, Reserve::new(SESSION, cents(1)).with_key(key.parse()?)).await?;
        ledger.settle(&held, cents(1)).await?;
        ledger.settle(&held, cents(1)).await?;
    }
    for reason in ["", "two\nlines \0 and \"more\"", "Grüße"] {
        assert_eq!(ledger.halt(&SWARM, reason).await?.halted.as_deref(), Some(reason));
    }
    let said = entries(&*fleet).await?;
    let ids: Vec<_> =
        said.iter().filter(|it| *it.operation == *"settle").map(|it| it.params.get("id").cloned()).collect();
    assert_eq!(ids, keys.map(|key| Some(key.to_owned().into())));
    Ok(())
}
