//! Rescue policies as they are written.

use s2_governor::{BasisPoints, PolicyFile, RescuePolicy};

fn json(policy: &str) -> Result<RescuePolicy, String> {
    let file = serde_json::from_str::<PolicyFile>(&format!("{{\"rescue_policy\": {policy}}}"));
    file.map(|file| file.rescue_policy).map_err(|error| error.to_string())
}

fn yaml(policy: &str) -> Result<RescuePolicy, String> {
    let file = serde_saphyr::from_str::<PolicyFile>(&format!("rescue_policy: {policy}"));
    file.map(|file| file.rescue_policy).map_err(|error| error.to_string())
}

#[test]
fn both_policies_of_the_seeds_load_unchanged() {
    let scored = "
  max_rescuers_per_blocker: 2
  min_capability_match: 0.70  # a comment
  expertise_scoring:
    - domain_match: 0.50 # another
    - tool_match: 0.30
    - recent_success: 0.20

# and one at the end
";
    let bounded = "
  max_rescuers_per_blocker: 2
  min_capability_match: 0.70
  preemption_allowed: true
  preemption_conditions:
    - age_minutes: 30  # a comment
    - idle_fleet_percent: 50
";
    assert_eq!(yaml(scored).unwrap(), RescuePolicy::default());
    assert_eq!(yaml(bounded).unwrap(), RescuePolicy::default());
    assert_eq!(yaml(bounded).unwrap().min_capability_match.get(), 7_000);
}

#[test]
fn every_key_is_read_and_written_back_in_the_same_shape() {
    let text = concat!(
        r#"{"max_rescuers_per_blocker":3,"min_capability_match":0.6543,"#,
        r#""expertise_scoring":[{"domain_match":0.6},{"tool_match":0.4},{"recent_success":0.0}],"#,
        r#""preemption_allowed":false,"preemption_conditions":[{"age_minutes":45},{"idle_fleet_percent":75}]}"#
    );
    let policy = json(text).unwrap();
    assert_eq!(policy.max_rescuers_per_blocker, 3);
    assert_eq!(policy.min_capability_match.get(), 6_543);
    assert_eq!(policy.expertise_scoring.tool(), BasisPoints::from_percent(40));
    assert!(!policy.preemption_allowed);
    assert_eq!(policy.preemption_conditions.age_minutes, 45);
    assert_eq!(policy.preemption_conditions.idle_fleet_percent, 75);
    assert_eq!(serde_json::to_string(&policy).unwrap(), text);
    let mut file = PolicyFile::default();
    file.rescue_policy = policy;
    let written = serde_saphyr::to_string(&file).unwrap();
    assert_eq!(serde_saphyr::from_str::<PolicyFile>(&written).unwrap(), file, "{written}");
    let lines: Vec<&str> = written.lines().map(str::trim).collect();
    assert!(lines.ends_with(&["preemption_conditions:", "- age_minutes: 45", "- idle_fleet_percent: 75"]), "{written}");
}

#[test]
fn what_is_not_mentioned_keeps_its_default() {
    for policy in [
        "{}",
        r#"{"preemption_conditions": [{"age_minutes": 30}]}"#,
        r#"{"preemption_conditions": []}"#,
        r#"{"expertise_scoring": [{"recent_success": 0.2}]}"#,
        r#"{"expertise_scoring": [{"recent_success": 0.2, "tool_match": 0.3}]}"#,
    ] {
        assert_eq!(json(policy), Ok(RescuePolicy::default()), "{policy}");
    }
    assert_eq!(serde_json::from_str::<PolicyFile>("{}").unwrap(), PolicyFile::default());
}

#[test]
fn what_is_wrong_is_told_with_field_value_and_range() {
    let share = "from 0 to 1 with at most four digits after the point";
    for (policy, said) in [
        ("{min_capability_match: 0.70001}", &["0.70001", "min_capability_match", share][..]),
        ("{min_capability_match: 1.1}", &["1.1", "min_capability_match", share]),
        ("{min_capability_match: -1}", &["-1", "min_capability_match", share]),
        ("{min_capability_match: 70}", &["70", "min_capability_match", share]),
        ("{min_capability_match: 1e-9}", &["1e-9", "min_capability_match", share]),
        ("{min_capability_match: most}", &["most", "min_capability_match", share]),
        ("{min_capability_match: [0.7]}", &["sequence", "min_capability_match", share]),
        ("{max_rescuers_per_blocker: 0}", &["0", "max_rescuers_per_blocker", "from 1 to 100"]),
        ("{max_rescuers_per_blocker: 101}", &["101", "max_rescuers_per_blocker", "from 1 to 100"]),
        ("{max_rescuers_per_blocker: -2}", &["-2", "max_rescuers_per_blocker", "from 1 to 100"]),
        ("{max_rescuers_per_blocker: 2.5}", &["2.5", "max_rescuers_per_blocker", "from 1 to 100"]),
        ("{max_rescuers_per_blocker: two}", &["two", "max_rescuers_per_blocker", "from 1 to 100"]),
        ("{preemption_allowed: 1}", &["1", "preemption_allowed", "true or false"]),
        ("{preemption_allowed: often}", &["often", "preemption_allowed", "true or false"]),
        ("{preemption_conditions: [age_minutes: -1]}", &["-1", "age_minutes", "from 0 to 525600"]),
        ("{preemption_conditions: [idle_fleet_percent: 101]}", &["101", "idle_fleet_percent", "from 0 to 100"]),
        ("{preemption_conditions: {age_minutes: 30}}", &["map", "preemption_conditions", "list of maps"]),
        ("{preemption_conditions: 30}", &["30", "preemption_conditions", "list of maps"]),
        ("{expertise_scoring: [domain_match: 0.51]}", &["51 % domain", "expertise_scoring", "sum to 1"]),
        ("{expertise_scoring: [domain_match: 50]}", &["50", "domain_match", share]),
        ("{expertise_scoring: [luck: 0.1]}", &["luck", "domain_match", "recent_success"]),
        ("{rescuers: 2}", &["rescuers", "max_rescuers_per_blocker", "preemption_conditions"]),
    ] {
        let error = yaml(policy).unwrap_err();
        for said in said {
            assert!(error.contains(said), "{policy}: {error:?} does not say {said:?}");
        }
    }
    let twice = r#"{"expertise_scoring": [{"tool_match": 0.3}, {"tool_match": 0.3}]}"#;
    assert!(json(twice).unwrap_err().contains("duplicate field `tool_match`"));
    let error = serde_json::from_str::<PolicyFile>(r#"{"rescue": {}}"#).unwrap_err().to_string();
    assert!(error.contains("unknown field `rescue`"), "{error}");
    assert!(serde_json::from_str::<PolicyFile>(r#"{"rescue_policy": 2}"#).is_err());
}
