//! How much a ledger has done, as far as somebody knows.

use serde::{Deserialize, Serialize};

/// A point in the life of a ledger. The epoch rises each time the server that holds it begins anew, the sequence with each change.
///
/// Who has seen more than the ledger has done knows that the ledger has forgotten something: its server came back with older
/// data. Handles keep the highest point that they have seen and say it with each call; a host that keeps it in a file of its own
/// also notices when nobody was alive meanwhile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Seen {
    /// Which life of the server.
    pub epoch: u64,
    /// How many changes of the ledger.
    pub sequence: u64,
}

impl Seen {
    /// A point.
    #[must_use]
    pub const fn new(epoch: u64, sequence: u64) -> Self {
        Self { epoch, sequence }
    }
}
