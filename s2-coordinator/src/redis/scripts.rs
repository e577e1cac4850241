//! The verbs of the ground floor.

use crate::redis::script::Script;

macro_rules! scripts {
    ($($name:ident: $kind:ident $file:literal;)*) => {
        $(pub(super) static $name: &Script = &Script::$kind($file, include_str!(concat!("lua/verbs/", $file, ".lua")));)*

        /// All of them.
        pub(super) fn all() -> impl Iterator<Item = &'static Script> {
            [$($name),*].into_iter()
        }
    };
}

scripts! {
    PUBLISH: new "publish";
    JOIN: new "join";
    TAKE: frees "take";
    CANCEL: frees "cancel";
    LEAVE: frees "leave";
    SETTLE: frees "settle";
    EXTEND: frees "extend";
    READ: frees "read";
    GROUPS: frees "groups";
    REMOVE_GROUP: frees "remove_group";
    DEAD_LETTERS: frees "dead_letters";
    REDRIVE: new "redrive";
    PURGE: frees "purge";
    ESCALATE: new "escalate";
    PENDING: frees "pending";
    RESOLVE: frees "resolve";
    BEAT: frees "beat";
}
