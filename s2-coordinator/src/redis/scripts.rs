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
    PUBLISH: verb "publish";
    JOIN: verb "join";
    TAKE: frees "take";
    CANCEL: frees "cancel";
    LEAVE: frees "leave";
    SETTLE: frees "settle";
    EXTEND: frees "extend";
    READ: frees "read";
    GROUPS: frees "groups";
    REMOVE_GROUP: frees "remove_group";
    DEAD_LETTERS: frees "dead_letters";
    REDRIVE: verb "redrive";
    PURGE: frees "purge";
    ESCALATE: verb "escalate";
    PENDING: frees "pending";
    RESOLVE: frees "resolve";
    BEAT: frees "beat";
    TASKS_SUBMIT: about_tasks "tasks_submit";
    TASKS_ENTER: about_tasks "tasks_enter";
    TASKS_LEAVE: frees_tasks "tasks_leave";
    TASKS_CLAIM: frees_tasks "tasks_claim";
    TASKS_UNCLAIM: frees_tasks "tasks_unclaim";
    TASKS_END: frees_tasks "tasks_end";
    TASKS_TOGETHER: frees_tasks "tasks_together";
    TASKS_RENEW: frees_tasks "tasks_renew";
    TASKS_PROGRESS: frees_tasks "tasks_progress";
    TASKS_RESUME: frees_tasks "tasks_resume";
    TASKS_ABANDON: frees_tasks "tasks_abandon";
    TASKS_UNBLOCK: frees_tasks "tasks_unblock";
    TASKS_ASSIGN: frees_tasks "tasks_assign";
    TASKS_CANCEL: frees_tasks "tasks_cancel";
    TASKS_REDRIVE: about_tasks "tasks_redrive";
    TASKS_TASK: frees_tasks "tasks_task";
    TASKS_LIST: frees_tasks "tasks_list";
    TASKS_SESSIONS: frees_tasks "tasks_sessions";
    TASKS_STATS: frees_tasks "tasks_stats";
    TASKS_OUTCOME: frees_tasks "tasks_outcome";
    TASKS_LOSS: frees_tasks "tasks_loss";
    TASKS_WHY: frees_tasks "tasks_why";
    TASKS_WAITS: frees_tasks "tasks_waits";
    TASKS_SUSPECTS: frees_tasks "tasks_suspects";
    TASKS_RELEASE: frees_tasks "tasks_release";
}
