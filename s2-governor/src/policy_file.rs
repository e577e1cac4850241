//! The rescue policy as it is written in files.
//!
//! Keys, values and shapes are those of the concept that S² started from, lists of one-key maps included, so what was
//! written for that loads as it is. Every value is read by a visitor that knows its field: whatever is wrong is told with
//! field, value and range.

use std::fmt;

use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Unexpected, Visitor};
use serde::ser::SerializeStruct;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::basis_points::BasisPoints;
use crate::basis_points::Share;
use crate::rescue_policy::AGE_MINUTES;
use crate::rescue_policy::IDLE_PERCENT;
use crate::rescue_policy::PreemptionConditions;
use crate::rescue_policy::RESCUERS;
use crate::rescue_policy::Range;
use crate::rescue_policy::RescuePolicy;
use crate::score::Weights;

/// A file of policies.
///
/// What is not mentioned keeps its default, and an unknown key is refused. In YAML, with a crate such as `serde-saphyr`:
///
/// ```
/// use s2_governor::PolicyFile;
///
/// let file: PolicyFile = serde_saphyr::from_str(
///     "
///     rescue_policy:
///       max_rescuers_per_blocker: 3
///       expertise_scoring:
///         - domain_match: 0.60
///         - tool_match: 0.20
///     ",
/// )?;
/// assert_eq!(file.rescue_policy.max_rescuers_per_blocker, 3);
/// assert_eq!(file.rescue_policy.expertise_scoring.domain().get(), 6_000);
/// let error = serde_saphyr::from_str::<PolicyFile>("rescue_policy: { min_capability_match: 70 }").unwrap_err();
/// assert!(error.to_string().contains("70") && error.to_string().contains("min_capability_match from 0 to 1"));
/// # Ok::<(), serde_saphyr::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct PolicyFile {
    /// How the fleet helps whoever is blocked.
    pub rescue_policy: RescuePolicy,
}

const POLICY: &[&str] = &[
    "max_rescuers_per_blocker",
    "min_capability_match",
    "expertise_scoring",
    "preemption_allowed",
    "preemption_conditions",
];
const SCORING: &[&str] = &["domain_match", "tool_match", "recent_success"];
const CONDITIONS: &[&str] = &["age_minutes", "idle_fleet_percent"];

impl Serialize for RescuePolicy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { max_rescuers_per_blocker, min_capability_match, expertise_scoring, .. } = self;
        let (scoring, conditions) = (expertise_scoring, &self.preemption_conditions);
        let weights = [scoring.domain(), scoring.tool(), scoring.success()];
        let conditions = [conditions.age_minutes, conditions.idle_fleet_percent.into()];
        let mut policy = serializer.serialize_struct("RescuePolicy", POLICY.len())?;
        policy.serialize_field(POLICY[0], max_rescuers_per_blocker)?;
        policy.serialize_field(POLICY[1], min_capability_match)?;
        policy.serialize_field(POLICY[2], &OneKeyMaps(SCORING, &weights))?;
        policy.serialize_field(POLICY[3], &self.preemption_allowed)?;
        policy.serialize_field(POLICY[4], &OneKeyMaps(CONDITIONS, &conditions))?;
        policy.end()
    }
}

/// A list of maps, each with one of the keys and its value.
struct OneKeyMaps<'a, T>(&'static [&'static str], &'a [T]);

impl<T: Serialize> Serialize for OneKeyMaps<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let maps = self.0.iter().zip(self.1).map(|(key, value)| [(*key, value)].into_iter().collect());
        serializer.collect_seq(maps.collect::<Vec<std::collections::BTreeMap<_, _>>>())
    }
}

impl<'de> Deserialize<'de> for RescuePolicy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (mut policy, mut seen) = (Self::default(), Seen::default());
        deserializer.deserialize_struct("RescuePolicy", POLICY, MapOf { value: &mut policy, seen: &mut seen })?;
        Ok(policy)
    }
}

/// What has keys that set it.
trait Keyed: Sized {
    const KEYS: &'static [&'static str];

    /// Reads the value of one of the keys.
    fn read<'de, A: MapAccess<'de>>(&mut self, key: &'static str, map: &mut A) -> Result<(), A::Error>;
}

impl Keyed for RescuePolicy {
    const KEYS: &'static [&'static str] = POLICY;

    fn read<'de, A: MapAccess<'de>>(&mut self, field: &'static str, map: &mut A) -> Result<(), A::Error> {
        match field {
            "max_rescuers_per_blocker" => {
                let most = map.next_value_seed(Whole { field, range: RESCUERS })?;
                self.max_rescuers_per_blocker = most.try_into().map_err(A::Error::custom)?;
            }
            "min_capability_match" => self.min_capability_match = map.next_value_seed(Share { field })?,
            "expertise_scoring" => {
                let [domain, tool, success] = map.next_value_seed(ListOf { field, value: Shares::default() })?.0;
                self.expertise_scoring = Weights::new(domain, tool, success).map_err(A::Error::custom)?;
            }
            "preemption_allowed" => self.preemption_allowed = map.next_value_seed(YesNo { field })?,
            _ => {
                let value = PreemptionConditions::default();
                self.preemption_conditions = map.next_value_seed(ListOf { field, value })?;
            }
        }
        Ok(())
    }
}

/// Three weights before anybody has looked at their sum.
struct Shares([BasisPoints; 3]);

impl Default for Shares {
    fn default() -> Self {
        let weights = Weights::default();
        Self([weights.domain(), weights.tool(), weights.success()])
    }
}

impl Keyed for Shares {
    const KEYS: &'static [&'static str] = SCORING;

    fn read<'de, A: MapAccess<'de>>(&mut self, field: &'static str, map: &mut A) -> Result<(), A::Error> {
        let nth = SCORING.iter().position(|key| *key == field).unwrap_or_default();
        self.0[nth] = map.next_value_seed(Share { field })?;
        Ok(())
    }
}

impl Keyed for PreemptionConditions {
    const KEYS: &'static [&'static str] = CONDITIONS;

    fn read<'de, A: MapAccess<'de>>(&mut self, field: &'static str, map: &mut A) -> Result<(), A::Error> {
        if field == "age_minutes" {
            let minutes = map.next_value_seed(Whole { field, range: AGE_MINUTES })?;
            self.age_minutes = minutes.try_into().map_err(A::Error::custom)?;
        } else {
            let percent = map.next_value_seed(Whole { field, range: IDLE_PERCENT })?;
            self.idle_fleet_percent = percent.try_into().map_err(A::Error::custom)?;
        }
        Ok(())
    }
}

/// The keys that have come up.
#[derive(Default)]
struct Seen(Vec<&'static str>);

impl Seen {
    fn note<E: Error>(&mut self, key: &str, known: &'static [&'static str]) -> Result<&'static str, E> {
        let key = known.iter().copied().find(|known| *known == key).ok_or_else(|| E::unknown_field(key, known))?;
        if self.0.contains(&key) {
            return Err(E::duplicate_field(key));
        }
        self.0.push(key);
        Ok(key)
    }
}

/// A map whose keys set parts of a value.
struct MapOf<'a, T> {
    value: &'a mut T,
    seen: &'a mut Seen,
}

impl<'de, T: Keyed> Visitor<'de> for MapOf<'_, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a map with keys of {}", T::KEYS.join(", "))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            let key = self.seen.note(&key, T::KEYS)?;
            self.value.read(key, &mut map)?;
        }
        Ok(())
    }
}

/// A list of maps whose keys set parts of a value together.
struct ListOf<T> {
    field: &'static str,
    value: T,
}

impl<'de, T: Keyed> Visitor<'de> for ListOf<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to be a list of maps with a key each, of {}", self.field, T::KEYS.join(", "))
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<T, A::Error> {
        let mut seen = Seen::default();
        while list.next_element_seed(MapOf { value: &mut self.value, seen: &mut seen })?.is_some() {}
        Ok(self.value)
    }
}

struct YesNo {
    field: &'static str,
}

impl Visitor<'_> for YesNo {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to be true or false", self.field)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<bool, E> {
        Ok(value)
    }
}

struct Whole {
    field: &'static str,
    range: Range,
}

impl Visitor<'_> for Whole {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to be a whole number from {} to {}", self.field, self.range.start(), self.range.end())
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<u64, E> {
        if self.range.contains(&number) {
            Ok(number)
        } else {
            Err(E::invalid_value(Unexpected::Unsigned(number), &self))
        }
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<u64, E> {
        match u64::try_from(number) {
            Ok(number) => self.visit_u64(number),
            Err(_) => Err(E::invalid_value(Unexpected::Signed(number), &self)),
        }
    }
}

/// What reads a value by looking at it: then a value of another type is told with the field, too.
macro_rules! read_any {
    ($([$($generics:tt)*] $Seed:ty),*) => {
        $(impl<'de, $($generics)*> DeserializeSeed<'de> for $Seed {
            type Value = <Self as Visitor<'de>>::Value;

            fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
                deserializer.deserialize_any(self)
            }
        })*
    };
}

read_any!([] YesNo, [] Whole, [] Share, [T: Keyed] ListOf<T>, [T: Keyed] MapOf<'_, T>);
