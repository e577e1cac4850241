//! Names for spends that were given none.

use std::fmt::Write;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use s2_coordinator::IdempotencyKey;

/// Makes keys that no other ledger makes, short enough to be cloned for nothing.
#[derive(Debug)]
pub(crate) struct Keys {
    prefix: String,
    last: AtomicU64,
}

impl Default for Keys {
    fn default() -> Self {
        // Each state is seeded by the system anew.
        Self { prefix: format!("{:012x}.", RandomState::new().hash_one(0_u8) >> 16), last: AtomicU64::new(0) }
    }
}

impl Keys {
    /// The key, or one that was never used.
    pub(crate) fn or_new(&self, key: Option<&IdempotencyKey>) -> IdempotencyKey {
        let new = || {
            let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
            let mut key = String::with_capacity(40);
            key.push_str(&self.prefix);
            write!(key, "{number}").expect("text can be written");
            IdempotencyKey::new(key).unwrap_or(UNNAMED)
        };
        key.cloned().unwrap_or_else(new)
    }
}

/// Never used: what `or_new` makes is a valid key.
const UNNAMED: IdempotencyKey = IdempotencyKey::from_static("unnamed");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_kept_and_a_new_one_is_new() {
        let (keys, others) = (Keys::default(), Keys::default());
        let given = IdempotencyKey::from_static("task-17/1");
        assert_eq!(keys.or_new(Some(&given)), given);
        let made = [keys.or_new(None), keys.or_new(None), others.or_new(None)];
        assert!(made[0] != made[1] && made[0] != made[2] && made[1] != made[2], "{made:?}");
        assert!(made.iter().all(|key| key.as_str().len() < 23 && *key != UNNAMED), "{made:?}");
    }
}
