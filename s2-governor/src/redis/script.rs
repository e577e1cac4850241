//! The script of the ledger.

use s2_coordinator::Script;

/// All verbs of a ledger. They are one script, so that they share what they remember of the server's life. Each may be repeated:
/// what was done is kept under the key of the spend, and the rest comes to the same.
pub(super) static BUDGET: Script = Script::repeatable(
    "budget",
    concat!(
        include_str!("lua/book.lua"),
        include_str!("lua/lives.lua"),
        include_str!("lua/spend.lua"),
        include_str!("lua/verbs/begin.lua"),
        include_str!("lua/verbs/reserve.lua"),
        include_str!("lua/verbs/settle.lua"),
        include_str!("lua/verbs/charge.lua"),
        include_str!("lua/verbs/accounts.lua"),
        include_str!("lua/verbs/end.lua"),
    ),
);
