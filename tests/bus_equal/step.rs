//! The steps of histories.

use proptest::prelude::*;

/// One step of a history. Numbers pick from what there is at that moment.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Publish {
        events: Vec<Planned>,
    },
    Subscribe {
        topic: usize,
        group: usize,
        prefetch: usize,
        timeout: Option<u64>,
        deliveries: Option<u32>,
        start: Begin,
    },
    Close {
        consumer: usize,
    },
    Take {
        consumer: usize,
        max: usize,
    },
    /// Waits for as many, until something comes or time passes.
    Wait {
        consumer: usize,
        max: usize,
    },
    Settle {
        held: usize,
        how: How,
    },
    SettleAll {
        from: usize,
        count: usize,
        how: How,
    },
    Extend {
        held: usize,
        by: u64,
    },
    Advance {
        seconds: u64,
    },
    Redrive {
        which: Which,
    },
    Purge {
        which: Which,
    },
    RemoveGroup {
        topic: usize,
        group: usize,
    },
    Read {
        topic: usize,
        start: Begin,
        limit: usize,
    },
    Escalate {
        key: usize,
    },
    Resolve {
        id: u64,
        decision: bool,
    },
    /// Redis forgets its functions, and with them what they remember.
    Forget,
}

#[derive(Clone, Debug)]
pub(super) struct Planned {
    pub(super) topic: usize,
    pub(super) key: Option<usize>,
    pub(super) data: u8,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Begin {
    Beginning,
    Now,
    After(u64),
}

#[derive(Clone, Debug)]
pub(super) enum How {
    Ack,
    Nack(u64),
    Refuse,
    Commit(Vec<Planned>),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Which {
    All,
    One(u64),
    Of(usize, usize),
}

fn planned() -> impl Strategy<Value = Planned> {
    (0..2_usize, prop_oneof![3 => Just(None), 1 => (0..3_usize).prop_map(Some)], 0..3_u8)
        .prop_map(|(topic, key, data)| Planned { topic, key, data })
}

fn begin() -> impl Strategy<Value = Begin> {
    prop_oneof![4 => Just(Begin::Beginning), 1 => Just(Begin::Now), 1 => (0..40_u64).prop_map(Begin::After)]
}

fn how() -> impl Strategy<Value = How> {
    prop_oneof![
        4 => Just(How::Ack),
        3 => prop_oneof![Just(0), 1..90_u64].prop_map(How::Nack),
        1 => Just(How::Refuse),
        2 => proptest::collection::vec(planned(), 0..4).prop_map(How::Commit),
    ]
}

fn which() -> impl Strategy<Value = Which> {
    prop_oneof![
        Just(Which::All),
        (0..12_u64).prop_map(Which::One),
        (0..2_usize, 0..2_usize).prop_map(|(topic, group)| Which::Of(topic, group)),
    ]
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    let pick = 0..1000_usize;
    let subscribe = (
        0..2_usize,
        0..2_usize,
        1..40_usize,
        prop_oneof![2 => Just(None), 1 => (1..90_u64).prop_map(Some)],
        prop_oneof![3 => Just(None), 1 => (1..4_u32).prop_map(Some)],
        begin(),
    );
    prop_oneof![
        2 => proptest::collection::vec(planned(), 0..40).prop_map(|events| Step::Publish { events }),
        2 => (0..2_usize, proptest::collection::vec(planned(), 0..40)).prop_map(|(topic, mut events)| {
            events.iter_mut().for_each(|event| event.topic = topic);
            Step::Publish { events }
        }),
        1 => Just(Step::Forget),
        3 => subscribe.prop_map(|(topic, group, prefetch, timeout, deliveries, start)| {
            Step::Subscribe { topic, group, prefetch, timeout, deliveries, start }
        }),
        1 => pick.clone().prop_map(|consumer| Step::Close { consumer }),
        8 => (pick.clone(), prop_oneof![2 => 1..4_usize, 1 => 1..50_usize])
            .prop_map(|(consumer, max)| Step::Take { consumer, max }),
        4 => (pick.clone(), 1..12_usize).prop_map(|(consumer, max)| Step::Wait { consumer, max }),
        8 => (pick.clone(), how()).prop_map(|(held, how)| Step::Settle { held, how }),
        3 => (pick.clone(), 1..40_usize, how()).prop_map(|(from, count, how)| Step::SettleAll { from, count, how }),
        1 => (pick, 1..90_u64).prop_map(|(held, by)| Step::Extend { held, by }),
        3 => prop_oneof![6 => 1..60_u64, 2 => 3_600..90_000_u64, 1 => 80_000..800_000_u64]
            .prop_map(|seconds| Step::Advance { seconds }),
        1 => which().prop_map(|which| Step::Redrive { which }),
        1 => which().prop_map(|which| Step::Purge { which }),
        1 => (0..2_usize, 0..2_usize).prop_map(|(topic, group)| Step::RemoveGroup { topic, group }),
        1 => (0..2_usize, begin(), 1..20_usize).prop_map(|(topic, start, limit)| Step::Read { topic, start, limit }),
        1 => (0..3_usize).prop_map(|key| Step::Escalate { key }),
        1 => (0..6_u64, any::<bool>()).prop_map(|(id, decision)| Step::Resolve { id, decision }),
    ]
}
