//! How swarms stand to each other.
//!
//! The host declares it; S² infers nothing. A bond never makes anybody suitable: it decides between helpers that are
//! equally good.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;

use foldhash::HashMap;
use s2_coordinator::SwarmId;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How two swarms stand to each other: the five relations of the seeds. Of equally good helpers, the one whose bond is
/// listed first is preferred; no bond comes last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bond {
    /// One is on the critical path of the other (君臣, ruler and minister).
    CriticalPath,
    /// One is a module of the other (父子, parent and child).
    ParentChild,
    /// They work together as equals (朋友, friends).
    Peers,
    /// One is there to support others (長幼, elder and younger).
    Support,
    /// They are two halves of one thing (夫婦, husband and wife).
    Complement,
}

impl Bond {
    /// All of them, the closest first.
    pub const ALL: [Bond; 5] = [Self::CriticalPath, Self::ParentChild, Self::Peers, Self::Support, Self::Complement];
}

impl fmt::Display for Bond {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::CriticalPath => "critical path",
            Self::ParentChild => "parent and child",
            Self::Peers => "peers",
            Self::Support => "support",
            Self::Complement => "complement",
        })
    }
}

/// The bonds of a fleet.
///
/// A bond between two swarms holds for everything inside them, unless something nearer is declared: the declaration counts
/// that takes the fewest steps up from both together, and of several such the closest bond. It has no direction.
///
/// ```
/// use s2_coordinator::SwarmId;
/// use s2_governor::{Bond, Bonds};
///
/// let id = |path| SwarmId::new(path);
/// let mut bonds = Bonds::default();
/// bonds.declare(id("telephony")?, id("tools")?, Bond::Support);
/// bonds.declare(id("telephony/sip")?, id("tools/cli")?, Bond::Peers);
/// assert_eq!(bonds.between(&id("tools/cli/1")?, &id("telephony/sip/4")?), Some(Bond::Peers));
/// assert_eq!(bonds.between(&id("telephony/ndi")?, &id("tools/cli")?), Some(Bond::Support));
/// assert_eq!(bonds.between(&id("telephony/ndi")?, &id("telephony/sip")?), None);
/// # Ok::<(), s2_coordinator::Invalid>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bonds {
    /// Each declaration under both swarms.
    declared: HashMap<SwarmId, BTreeMap<SwarmId, Bond>>,
}

impl Bonds {
    /// Declares how two swarms stand to each other; the last word counts. A swarm and itself: how its members do.
    pub fn declare(&mut self, a: SwarmId, b: SwarmId, bond: Bond) {
        self.declared.entry(a.clone()).or_default().insert(b.clone(), bond);
        self.declared.entry(b).or_default().insert(a, bond);
    }

    /// How two swarms stand to each other, if anybody has said so.
    #[must_use]
    pub fn between(&self, a: &SwarmId, b: &SwarmId) -> Option<Bond> {
        self.of(a).with(b)
    }

    /// Everything that is declared about a swarm and those that contain it.
    pub(crate) fn of(&self, swarm: &SwarmId) -> Near<'_> {
        let mut bonds = Vec::new();
        for (steps, swarm) in swarm.ancestors().enumerate() {
            let others = self.declared.get(&swarm).into_iter().flatten();
            // Whoever is inside `other` takes as many steps up to it as its path is longer.
            let far = |other: &SwarmId| steps + SwarmId::DEPTH - other.depth();
            bonds.extend(others.map(|(other, bond)| (other.as_str(), (far(other), *bond))));
        }
        bonds.sort_unstable_by(|(a, one), (b, other)| by_end(a, b).then_with(|| one.cmp(other)));
        bonds.dedup_by_key(|(other, _)| *other);
        let mut lengths: Vec<usize> = bonds.iter().map(|(other, _)| other.len()).collect();
        lengths.dedup();
        Near { bonds, lengths }
    }

    /// Each declaration once, in order.
    fn declarations(&self) -> Vec<Declaration> {
        let all = self.declared.iter().flat_map(|(a, others)| others.iter().map(move |(b, bond)| (a, b, *bond)));
        let mut once: Vec<_> = all.filter(|(a, b, _)| a <= b).collect();
        once.sort_unstable();
        once.into_iter().map(|(a, b, bond)| Declaration { between: [a.clone(), b.clone()], bond }).collect()
    }
}

/// The bonds of one swarm: with whom, how far that is from whoever is inside both, up to what is the same for all bonds of
/// one path, and which. The nearest of each, in order.
#[derive(Debug, Default)]
pub(crate) struct Near<'a> {
    bonds: Vec<(&'a str, (usize, Bond))>,
    /// How long names are, so that most paths are told from a look at where a name would end.
    lengths: Vec<usize>,
}

/// An order of names that mostly takes no more than a look at their ends: that is where neighbours differ.
fn by_end(a: &str, b: &str) -> Ordering {
    let end = |name: &str| (name.len(), name.as_bytes().last().copied());
    end(a).cmp(&end(b)).then_with(|| a.cmp(b))
}

impl Near<'_> {
    pub(crate) fn with(&self, other: &SwarmId) -> Option<Bond> {
        let path = other.as_str();
        let ends = |length: &usize| matches!(path.as_bytes().get(*length), None | Some(b'/')) && *length <= path.len();
        let declared = self.lengths.iter().filter(|length| ends(length)).filter_map(|length| {
            let nth = self.bonds.binary_search_by(|(other, _)| by_end(other, &path[..*length])).ok()?;
            Some(self.bonds[nth].1)
        });
        declared.min().map(|(_, bond)| bond)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Declaration {
    between: [SwarmId; 2],
    bond: Bond,
}

impl Serialize for Bonds {
    /// A list of `{between: [a, b], bond}`.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.declarations().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Bonds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut bonds = Self::default();
        for Declaration { between: [a, b], bond } in Vec::deserialize(deserializer)? {
            bonds.declare(a, b, bond);
        }
        Ok(bonds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bonds(declared: &[(&'static str, &'static str, Bond)]) -> Bonds {
        let mut bonds = Bonds::default();
        for (a, b, bond) in declared {
            bonds.declare(SwarmId::from_static(a), SwarmId::from_static(b), *bond);
        }
        bonds
    }

    #[test]
    fn the_nearest_declaration_wins_in_both_directions() {
        let declared = [
            ("a", "b", Bond::Support),
            ("a/x", "b", Bond::Complement),
            ("a/x/1", "b/y", Bond::Peers),
            ("a", "a", Bond::ParentChild),
        ];
        for (one, other, bond) in [
            ("a/z", "b/z", Some(Bond::Support)),
            ("a/x", "b/z", Some(Bond::Complement)),
            ("a/x/2", "b/z", Some(Bond::Complement)),
            ("a/x/1", "b/y/9", Some(Bond::Peers)),
            ("a/x/1", "b/z", Some(Bond::Complement)),
            ("a/x", "a/z", Some(Bond::ParentChild)),
            ("a/x", "c", None),
            ("b/y", "b/z", None),
            ("ab", "b", None),
        ] {
            let (one, other) = (SwarmId::from_static(one), SwarmId::from_static(other));
            assert_eq!(bonds(&declared).between(&one, &other), bond, "{one} and {other}");
            assert_eq!(bonds(&declared).between(&other, &one), bond, "{other} and {one}");
        }
    }

    #[test]
    fn of_declarations_equally_near_the_closest_bond_counts() {
        let (one, other) = (SwarmId::from_static("a/x"), SwarmId::from_static("b/y"));
        let both = [("a/x", "b", Bond::Complement), ("a", "b/y", Bond::Peers)];
        assert_eq!(bonds(&both).between(&one, &other), Some(Bond::Peers));
        assert_eq!(bonds(&both).between(&other, &one), Some(Bond::Peers));
    }

    #[test]
    fn the_last_word_counts_and_is_stored_once() {
        let bonds = bonds(&[("b", "a", Bond::Peers), ("a", "b", Bond::CriticalPath), ("c", "c", Bond::Peers)]);
        let stored = serde_json::to_string(&bonds).unwrap();
        assert_eq!(stored, r#"[{"between":["a","b"],"bond":"critical_path"},{"between":["c","c"],"bond":"peers"}]"#);
        assert_eq!(serde_json::from_str::<Bonds>(&stored).unwrap(), bonds);
    }
}
