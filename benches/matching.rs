//! Choosing helpers: one need against 1,000 sessions, and 200 needs against 200 sessions.
//!
//! `cargo bench -p s2-benches --bench matching`. The goals are 100 µs and 50 ms. All of a choice is measured: every session
//! is assessed, ranked or passed over with a reason. The raw limit beside it is one `Capabilities::satisfy` for each of the
//! same sessions.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use s2_coordinator::{Capabilities, SwarmId, Timestamp};
use s2_governor::{BasisPoints, Bond, Bonds, Candidate, Matcher, NanoUsd, Need, RescuePolicy, TrackRecords, Verified};

const NOW: Timestamp = Timestamp::from_micros(1_762_938_000_000_000);

/// A pseudo-random number below `end`, the same in each run.
fn below(state: &mut u64, end: u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) % end
}

fn swarm(nth: u64) -> SwarmId {
    SwarmId::new(format!("swarm-{}/session-{nth}", nth % 10)).expect("a name")
}

/// So many paths of one field.
fn topics(state: &mut u64, field: u64, count: u64) -> Vec<String> {
    (0..count).map(|_| format!("field-{field}:topic-{}", below(state, 6))).collect()
}

/// Sessions with five skills and tools each.
fn candidates(state: &mut u64, count: u64, fields: u64) -> Vec<Candidate> {
    let one = |nth| {
        let field = below(state, fields);
        let paths = [topics(state, field, 4), vec![format!("tool:tool-{}", below(state, 3))]].concat();
        Candidate::new(swarm(nth), Capabilities::new(paths).expect("capabilities"))
            .with_load(below(state, 4) as usize)
            .with_cost(NanoUsd::from_cents(below(state, 100)))
    };
    (0..count).map(one).collect()
}

fn needs(state: &mut u64, count: u64, fields: u64) -> Vec<Need> {
    let one = |nth| {
        let field = below(state, fields);
        let paths = [topics(state, field, 2), vec![format!("tool:tool-{}", below(state, 3))]].concat();
        let required = Capabilities::new(paths).expect("capabilities");
        Need::new(swarm(10_000 + nth), &required).with_value(1 + below(state, 1_000))
    };
    (0..count).map(one).collect()
}

/// Ten days of outcomes for every session.
fn records(candidates: &[Candidate], need: &Need, state: &mut u64) -> TrackRecords {
    let mut records = TrackRecords::default();
    for candidate in candidates {
        for day in 0..10 {
            let outcome = if below(state, 3) == 0 { Verified::Failure } else { Verified::Success };
            records.record(&candidate.session, need, outcome, NOW - std::time::Duration::from_secs(day * 86_400));
        }
    }
    records
}

fn bonds() -> Bonds {
    let mut bonds = Bonds::default();
    for (nth, bond) in Bond::ALL.into_iter().enumerate() {
        let swarm = |nth: usize| SwarmId::new(format!("swarm-{nth}")).expect("a name");
        bonds.declare(swarm(0), swarm(nth + 1), bond);
    }
    bonds
}

fn choose(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("one need, 1,000 sessions");
    let mut state = 1;
    let (candidates, needs) = (candidates(&mut state, 1_000, 4), needs(&mut state, 1, 4));
    let (policy, records, bonds) = (RescuePolicy::default(), records(&candidates, &needs[0], &mut state), bonds());
    let required: Capabilities = needs[0].domain.iter().chain(needs[0].tools.iter()).cloned().collect();
    group.bench_function("raw: satisfy", |bencher| {
        bencher.iter(|| candidates.iter().filter(|one| one.capabilities.satisfy(black_box(&required))).count());
    });
    let plain = Matcher::new(&policy, NOW);
    group.bench_function("choose", |bencher| bencher.iter(|| plain.choose(black_box(&needs[0]), &candidates)));
    let bound = plain.clone().with_bonds(&bonds);
    group.bench_function("choose, bonds", |bencher| bencher.iter(|| bound.choose(black_box(&needs[0]), &candidates)));
    let all = bound.clone().with_records(&records);
    group.bench_function("choose, bonds, ten days of records", |bencher| {
        bencher.iter(|| all.choose(black_box(&needs[0]), &candidates));
    });
}

fn assign(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("200 needs, 200 sessions");
    group.sample_size(20);
    for (fields, least, what) in [(4, 70, "4 fields"), (1, 0, "everybody fits everything")] {
        let mut state = 1;
        let (candidates, needs) = (candidates(&mut state, 200, fields), needs(&mut state, 200, fields));
        for places in [1, 2] {
            let mut policy = RescuePolicy::default();
            policy.max_rescuers_per_blocker = places;
            policy.min_capability_match = BasisPoints::from_percent(least);
            let matcher = Matcher::new(&policy, NOW);
            let name = format!("assign, {places} each, {what}");
            let helpers = matcher.assign(&needs, &candidates).expect("small enough");
            println!("{name}: {} helpers", helpers.iter().map(Vec::len).sum::<usize>());
            group.bench_function(name, |bencher| bencher.iter(|| matcher.assign(black_box(&needs), &candidates)));
        }
    }
}

criterion_group!(benches, choose, assign);
criterion_main!(benches);
