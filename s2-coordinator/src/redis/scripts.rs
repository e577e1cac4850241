//! The verbs of the ground floor.

use crate::redis::script::Script;

macro_rules! scripts {
    ($($name:ident: $file:literal;)*) => {
        $(pub(super) const $name: &Script = &Script::new($file, include_str!(concat!("lua/verbs/", $file, ".lua")));)*
    };
}

scripts! {
    PUBLISH: "publish";
    JOIN: "join";
    TAKE: "take";
    CANCEL: "cancel";
    LEAVE: "leave";
    SETTLE: "settle";
    EXTEND: "extend";
    READ: "read";
    GROUPS: "groups";
    REMOVE_GROUP: "remove_group";
    DEAD_LETTERS: "dead_letters";
    REDRIVE: "redrive";
    PURGE: "purge";
    ESCALATE: "escalate";
    PENDING: "pending";
    RESOLVE: "resolve";
    BEAT: "beat";
}
