//! Each bond decides one tie.

use s2_governor::Bond;

use crate::kit::{Place, SIP, answers, blocked, chosen, invite, settings, willing};

/// `b` and `a` fit alike; by name, `a` would be asked. A bond of `b` with whoever is blocked decides otherwise.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_bond_decides_one_tie() {
    for (nth, bond) in Bond::ALL.into_iter().enumerate() {
        let mut policy = settings(|_| {});
        policy.rescue_policy.max_rescuers_per_blocker = 1;
        let id = |name: &str| name.parse().expect("a name");
        policy.bonds.declare(id("telephony"), id("b"), bond);
        // The next bond is weaker than this one; without any it is the weakest.
        if let Some(weaker) = Bond::ALL.get(nth + 1) {
            policy.bonds.declare(id("telephony"), id("a"), *weaker);
        }
        let s2 = Place::Memory.fleet(policy).await;
        willing(&s2, "a", SIP).await;
        willing(&s2, "b", SIP).await;
        blocked(&s2, "telephony/sip", SIP).await;
        let task = invite(&s2, "telephony/sip").await;
        assert_eq!(answers(&s2, task).await, ["b"], "{bond}");
        assert_eq!(chosen(&s2).await, ["b"], "{bond}");
        let told = format!("{:?}", crate::kit::told(&s2).await);
        assert!(told.contains(&bond.to_string()), "{bond} stands in the explanation: {told}");
    }
}
