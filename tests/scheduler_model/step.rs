//! The steps of histories.

use proptest::prelude::*;
use s2_coordinator::OnFailure;

use crate::SECOND;
use crate::model::{Name, Set};

/// One step of a history. Numbers pick from what there is at that moment.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Submit(New),
    SubmitAfter(New, Vec<(usize, OnFailure)>),
    SubmitLater(New, u64),
    SubmitDue(New, u64),
    SubmitOnce(New),
    SubmitAssigned(New, Name),
    Enter {
        name: Name,
        offers: Set,
    },
    Leave {
        session: usize,
    },
    Claim {
        session: usize,
        max: usize,
    },
    ClaimAgain {
        claim: usize,
    },
    Complete {
        lease: usize,
    },
    CompleteAndClaim {
        lease: usize,
        session: usize,
    },
    CompleteWith {
        lease: usize,
        new: New,
    },
    Fail {
        lease: usize,
        delay: u64,
    },
    FailAtOnce {
        lease: usize,
    },
    GiveUp {
        lease: usize,
    },
    Release {
        lease: usize,
    },
    Refuse {
        lease: usize,
        delay: u64,
    },
    Block {
        lease: usize,
        new: New,
        how: How,
    },
    BlockOn {
        lease: usize,
        on: usize,
        how: How,
    },
    BlockOnSome {
        lease: usize,
        on: Vec<usize>,
        new: Option<New>,
        how: How,
    },
    BlockOnNothing {
        lease: usize,
        how: How,
    },
    Progress {
        lease: usize,
    },
    Renew {
        lease: usize,
    },
    RenewAll,
    Abandon {
        lease: usize,
    },
    Resume {
        lease: usize,
        session: usize,
    },
    Unblock {
        task: usize,
    },
    Cancel {
        task: usize,
    },
    Assign {
        task: usize,
        to: Name,
    },
    Unassign {
        task: usize,
    },
    Redrive {
        task: usize,
    },
    Advance {
        micros: u64,
    },
    AdvanceToLeaseEnd,
    AdvanceLong {
        seconds: u64,
    },
    EndAgain {
        lease: usize,
    },
    /// Redis forgets its functions, and with them what they remember.
    Forget,
}

#[derive(Clone, Debug)]
pub(super) struct New {
    pub(super) level: usize,
    pub(super) requires: Set,
    pub(super) attempts: u32,
}

fn new() -> impl Strategy<Value = New> {
    (0..4_usize, prop_oneof![4 => Just(0), 1 => Just(1), 1 => Just(2), 1 => Just(3)], 1..4_u32)
        .prop_map(|(level, requires, attempts)| New { level, requires, attempts })
}

/// How a task is blocked.
#[derive(Clone, Copy, Debug)]
pub(super) struct How {
    pub(super) awaited: bool,
    pub(super) any: bool,
    pub(super) reason: usize,
}

fn how() -> impl Strategy<Value = How> {
    (any::<bool>(), any::<bool>(), 0..6_usize).prop_map(|(awaited, any, reason)| How { awaited, any, reason })
}

fn on_failure() -> impl Strategy<Value = OnFailure> {
    prop_oneof![3 => Just(OnFailure::Fail), 1 => Just(OnFailure::Hold), 1 => Just(OnFailure::Run)]
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    let pick = || 0..1000_usize;
    let name = || 0..3_usize;
    let submits = prop_oneof![
        3 => new().prop_map(Step::Submit),
        4 => (new(), prop::collection::vec((pick(), on_failure()), 1..4)).prop_map(|(new, after)| Step::SubmitAfter(new, after)),
        1 => (new(), 1..100 * SECOND).prop_map(|(new, delay)| Step::SubmitLater(new, delay)),
        1 => (new(), 1..200 * SECOND).prop_map(|(new, due)| Step::SubmitDue(new, due)),
        1 => new().prop_map(Step::SubmitOnce),
        3 => (new(), name()).prop_map(|(new, name)| Step::SubmitAssigned(new, name)),
    ];
    let sessions = prop_oneof![
        3 => (name(), 0..4_u8).prop_map(|(name, offers)| Step::Enter { name, offers }),
        1 => pick().prop_map(|session| Step::Leave { session }),
        12 => (pick(), 1..3_usize).prop_map(|(session, max)| Step::Claim { session, max }),
        1 => pick().prop_map(|claim| Step::ClaimAgain { claim }),
    ];
    let ends = prop_oneof![
        4 => pick().prop_map(|lease| Step::Complete { lease }),
        2 => (pick(), pick()).prop_map(|(lease, session)| Step::CompleteAndClaim { lease, session }),
        1 => (pick(), new()).prop_map(|(lease, new)| Step::CompleteWith { lease, new }),
        2 => (pick(), 1..90 * SECOND).prop_map(|(lease, delay)| Step::Fail { lease, delay }),
        1 => pick().prop_map(|lease| Step::FailAtOnce { lease }),
        1 => pick().prop_map(|lease| Step::GiveUp { lease }),
        2 => pick().prop_map(|lease| Step::Release { lease }),
        2 => (pick(), 1..90 * SECOND).prop_map(|(lease, delay)| Step::Refuse { lease, delay }),
        2 => (pick(), new(), how()).prop_map(|(lease, new, how)| Step::Block { lease, new, how }),
        3 => (pick(), pick(), how()).prop_map(|(lease, on, how)| Step::BlockOn { lease, on, how }),
        3 => (pick(), prop::collection::vec(pick(), 1..4), prop::option::of(new()), how())
            .prop_map(|(lease, on, new, how)| Step::BlockOnSome { lease, on, new, how }),
        1 => (pick(), how()).prop_map(|(lease, how)| Step::BlockOnNothing { lease, how }),
        1 => pick().prop_map(|lease| Step::Progress { lease }),
        1 => pick().prop_map(|lease| Step::Renew { lease }),
        1 => Just(Step::RenewAll),
        1 => pick().prop_map(|lease| Step::Abandon { lease }),
        2 => (pick(), pick()).prop_map(|(lease, session)| Step::Resume { lease, session }),
        1 => pick().prop_map(|lease| Step::EndAgain { lease }),
    ];
    let others = prop_oneof![
        2 => pick().prop_map(|task| Step::Unblock { task }),
        2 => pick().prop_map(|task| Step::Cancel { task }),
        1 => (pick(), name()).prop_map(|(task, to)| Step::Assign { task, to }),
        1 => pick().prop_map(|task| Step::Unassign { task }),
        2 => pick().prop_map(|task| Step::Redrive { task }),
        2 => (1..40 * SECOND).prop_map(|micros| Step::Advance { micros }),
        1 => Just(Step::AdvanceToLeaseEnd),
        1 => (1..2_000_u64).prop_map(|seconds| Step::AdvanceLong { seconds }),
        1 => Just(Step::Forget),
    ];
    prop_oneof![6 => submits, 8 => sessions, 9 => ends, 4 => others]
}
