//! What is set in files: the seeds' policies as they are, and no word that is not understood.

use std::fs;
use std::path::PathBuf;

use s2_coordinator::MemoryStore;
use s2_core::{S2, Settings};
use s2_governor::BasisPoints;

/// The policy blocks of the documents that S² comes from, in a folder next to the data that tests read.
fn policies() -> Vec<String> {
    let data = PathBuf::from(std::env::var_os("S2_DATA").expect("S2_DATA: the folder of the data that tests read"));
    let seeds = data.join("../seeds");
    let mut found = Vec::new();
    for file in fs::read_dir(&seeds).unwrap_or_else(|error| panic!("{}: {error}", seeds.display())).flatten() {
        let text = fs::read_to_string(file.path()).unwrap_or_default();
        let blocks = text.split("```").skip(1).step_by(2);
        let policies = blocks.filter_map(|block| block.split_once('\n')).map(|(_, block)| block.to_owned());
        found.extend(policies.filter(|block| block.starts_with("rescue_policy:")));
    }
    found
}

#[test]
fn the_seeds_policies_load_unchanged() {
    if std::env::var_os("S2_DATA").is_none() && std::env::var_os("CI").is_none() {
        eprintln!("S2_DATA is not set: the seeds' policies are not read");
        return;
    }
    let policies = policies();
    assert_eq!(policies.len(), 2, "{policies:?}");
    for block in &policies {
        let settings: Settings = serde_saphyr::from_str(block).unwrap_or_else(|error| panic!("{error}\n{block}"));
        settings.check().expect("in range");
        assert_eq!(settings.rescue_policy.max_rescuers_per_blocker, 2);
        assert_eq!(settings.rescue_policy.min_capability_match, BasisPoints::new(7_000).expect("a share"));
    }
    let preempts: Vec<bool> = policies.iter().map(|block| block.contains("preemption_allowed: true")).collect();
    assert_eq!(preempts.iter().filter(|preempts| **preempts).count(), 1);
}

#[test]
fn unknown_keys_are_refused_by_name() {
    for (yaml, named) in [
        ("rescue_polcy: {}", "rescue_polcy"),
        ("rescue_policy: { max_rescuer: 2 }", "max_rescuer"),
        ("help: { timeout: 3 }", "timeout"),
        ("budget: { session_limt: $5.00 }", "session_limt"),
        ("providers: { models: { bulkheed: {} } }", "bulkheed"),
        ("providers: { models: { breaker: { opne_ms: 3 } } }", "opne_ms"),
        ("bonds: [ { between: [a, b], bnd: peers } ]", "bnd"),
        ("bonds: [ { between: [a, b], bond: strangers } ]", "strangers"),
        ("limits: { telephony: plenty }", "plenty"),
        ("limits: { 'no name': $5.00 }", "no name"),
        ("help: { enough: some }", "some"),
    ] {
        let error = serde_saphyr::from_str::<Settings>(yaml).expect_err(yaml).to_string();
        assert!(error.contains(named), "{yaml}: {error}");
    }
}

/// Which setting is wrong, its value, and what it may be: before anything of the fleet is there.
#[tokio::test]
async fn what_is_out_of_range_is_refused_with_field_and_value() {
    for (yaml, named, value) in [
        ("budget: { warn_percent: 101 }", "warn_percent", "101"),
        ("budget: { ttl_s: 0 }", "ttl", "0ns"),
        ("budget: { session_limit: default }", "session_limit", "default"),
        ("help: { timeout_s: 0 }", "help.timeout_s", "0ns"),
        ("help: { timeout_s: 86401 }", "help.timeout_s", "86401s"),
        ("help: { look_again_s: 0 }", "help.look_again_s", "0ns"),
        ("help: { half_life_days: 0 }", "help.half_life_days", "0"),
        ("help: { half_life_days: 3651 }", "help.half_life_days", "3651"),
        ("providers: { models: { bulkhead: { concurrent: 0 } } }", "concurrent", "0"),
        ("providers: { models: { breaker: { failure_percent: 101 } } }", "failure_percent", "101"),
    ] {
        let settings: Settings = serde_saphyr::from_str(yaml).unwrap_or_else(|error| panic!("{yaml}: {error}"));
        let error = settings.check().expect_err(yaml);
        let said = error.to_string();
        assert!(said.contains(named) && said.contains(&format!("\"{value}\"")), "{yaml}: {said}");
        let built = S2::builder().with_settings(settings).on_memory(&MemoryStore::new()).await.expect_err(yaml);
        assert_eq!((built.to_string(), built.code()), (said, "S2_INVALID"), "{yaml}");
    }
}

#[test]
fn settings_say_what_they_are() {
    let yaml = "
      rescue_policy: { max_rescuers_per_blocker: 3 }
      budget: { session_limit: $20.00 }
      limits: { telephony: $200.00, telephony/sip: unlimited }
      providers: { models: { bulkhead: { concurrent: 4 } } }
      bonds: [ { between: [telephony/sip, telephony/ndi], bond: peers } ]
      help: { timeout_s: 120, enough: all, cost: $0.50, organise: false }
    ";
    let settings: Settings = serde_saphyr::from_str(yaml).expect("settings");
    let written = serde_json::to_string(&settings).expect("JSON");
    assert_eq!(serde_json::from_str::<Settings>(&written).expect("settings"), settings);
    let nothing: Settings = serde_saphyr::from_str("{}").expect("settings");
    assert_eq!(nothing, Settings::default());
}
