//! What every engine promises, checked on each of them: in memory, on disk, and a real etcd.

#![allow(clippy::unwrap_used)] // a step that fails is a test that fails

mod crash;
mod durability;
mod subject;
mod suite;
mod tls;

use subject::{Kind, Subject};

/// One test for each engine and promise. Memory does not promise to last.
macro_rules! promises {
    ($($name:ident),* $(,)?; lasting: $($lasting:ident),*) => {
        mod in_memory { use super::*; $(promises!(@test $name, Kind::Memory);)* }
        mod on_disk { use super::*; promises!(@tests $($name,)* $($lasting,)*; Kind::Disk); }
        mod etcd { use super::*; promises!(@tests $($name,)* $($lasting,)*; Kind::Etcd); }
    };
    (@tests $($name:ident,)*; $kind:expr) => { $(promises!(@test $name, $kind);)* };
    (@test $name:ident, $kind:expr) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            let Some(mut subject) = Subject::start($kind).await else { return };
            suite::$name(&mut subject).await;
        }
    };
}

promises!(
    create_makes_a_key_once,
    update_needs_the_current_revision,
    delete_can_need_the_current_revision,
    a_key_created_again_is_a_new_one,
    concurrent_updates_lose_nothing,
    range_takes_whole_prefixes_in_order,
    range_goes_on_at_a_fixed_revision,
    the_past_can_be_read,
    watch_is_ordered_and_complete,
    watch_resumes,
    watch_tells_what_was_replaced,
    watch_of_a_slow_reader_misses_nothing,
    compacted_is_a_distinct_error,
    a_key_with_a_time_to_live_expires,
    ;
    lasting: a_restart_changes_nothing
);
