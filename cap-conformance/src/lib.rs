//! The suite that every storage and every transport of cap must pass.
//!
//! An adapter's author provides a fresh storage or broker, in a [`StorageFixture`](storage::StorageFixture) or a
//! [`TransportFixture`](transport::TransportFixture), and has a macro write one test for each case. A storage in SQL has more
//! to pass, as its tables can be looked into: see [`SqlFixture`](sql::SqlFixture) and [`sql_storage_suite!`].
//!
//! ```
//! use cap_conformance::storage::StorageFixture;
//! use cap_memory::MemoryStorage;
//!
//! struct Fresh(MemoryStorage);
//!
//! impl StorageFixture for Fresh {
//!     type Storage = MemoryStorage;
//!
//!     async fn open(&self) -> MemoryStorage {
//!         self.0.clone()
//!     }
//! }
//!
//! async fn fresh() -> Fresh {
//!     Fresh(MemoryStorage::new())
//! }
//!
//! cap_conformance::storage_suite!(fresh);
//! # fn main() {}
//! ```
//!
//! The cases check what [`cap_adapter::storage`], [`cap_adapter::monitor`] and [`cap_adapter::transport`] specify; the embedded
//! pair of `cap-memory` is their model. Real servers have clocks of
//! their own, so nothing here asserts how long something takes: where time must pass, a case asks again until it
//! has, or until a generous deadline.
// A suite of tests speaks in assertions, and panics are how it reports.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::missing_panics_doc)]

mod patience;
mod run;
pub mod sql;
pub mod storage;
pub mod transport;

/// What the macros write refers to this; exempt from semantic versioning.
#[doc(hidden)]
pub mod __private {
    pub use crate::run::{run_storage, run_transport};
}

/// Writes one test for each case that a storage must pass.
///
/// The argument is the path of an `async fn() -> impl StorageFixture` that makes a fresh, empty store. Each test has
/// a runtime of its own, calls that function, runs its case, and cleans up whether it passed or not.
#[macro_export]
macro_rules! storage_suite {
    ($make:path) => {
        $crate::__suite! { run_storage, storage, $make,
            insert [
                every_byte_of_a_body_survives,
                awkward_headers_survive_in_order,
                a_huge_body_survives,
                a_batch_reports_item_by_item,
                an_empty_batch_is_no_error,
                a_batch_of_five_thousand,
                a_message_id_enters_the_outbox_once,
                a_message_id_enters_the_inbox_once_for_each_group,
                a_message_id_is_remembered_after_success,
                duplicates_inside_one_batch,
                messages_without_an_id_never_collide,
                a_repeated_write_changes_nothing,
                a_row_id_of_another_message_is_no_duplicate,
                parked_row_waits_for_an_operator,
                a_parked_row_with_notice_falls_to_another_node,
            ]
            claim [
                leased_rows_are_not_claimed,
                a_dead_nodes_rows_fall_to_another,
                rows_without_a_lease_are_claimed_by_any_node,
                the_longest_due_comes_first,
                the_limit_leaves_the_rest_due,
                bytes_limit_a_claim_but_not_its_first_row,
                next_due_says_when_to_come_again,
                delayed_rows_wait_for_their_time,
                a_delayed_row_comes_when_it_is_due,
                versions_do_not_meet,
                only_the_requested_groups_are_claimed,
                claim_has_the_count_of_failed_attempts,
            ]
            identity [
                another_message_is_no_duplicate,
                a_row_without_digest_is_the_same,
                a_conflict_is_stored_apart_once,
                garbage_makes_way,
                what_could_not_be_read_makes_way,
                what_was_handled_does_not_make_way,
                twins_inside_one_batch,
                twins_at_the_same_time,
                a_repeated_take_over_changes_nothing,
                an_edited_message_is_still_the_same,
            ]
            lease [
                a_lost_lease_has_no_say,
                renewing_keeps_a_row,
                a_lost_lease_is_not_renewed,
                released_row_is_not_renewed,
                unknown_leases_are_lost,
                repeated_outcome_counts_once,
                a_rerun_revives_no_old_lease,
                no_lease_is_given_twice,
            ]
            suspect [
                only_an_expired_lease_makes_a_suspect,
                a_crash_is_counted_and_recorded,
                what_did_not_run_alone_is_not_counted,
                a_mark_ends_with_its_lease,
                a_crash_can_be_withdrawn,
                a_rerun_forgets_crashes,
            ]
            complete [
                success_may_forget_the_state,
                success_may_keep_the_state,
                success_may_delete_everything,
                an_unrouted_message_keeps_its_reason,
                a_retry_with_hold_stays_with_its_node,
                a_retry_without_hold_goes_to_anyone,
                every_attempt_is_recorded,
                attempt_records_when_the_next_was_due,
                a_failure_is_final,
                a_failure_may_count_no_attempt,
                a_notice_falls_to_another_node,
                a_notice_given_is_never_due_again,
                a_released_row_keeps_its_place,
                a_released_row_may_rest,
                replies_are_stored_with_the_success,
                replies_of_a_lost_lease_are_not_stored,
            ]
            waiting [
                a_retry_at_the_broker_is_recorded,
                a_retry_comes_without_the_broker,
                a_waiting_row_is_claimed_before_it_is_due,
                a_waiting_row_falls_to_another_node,
                a_waiting_row_is_claimed_once,
                what_does_not_wait_any_more_is_not_claimed,
                leased_row_is_not_claimed_as_waiting,
                waiting_rows_of_others_are_left_alone,
                nodes_never_share_a_waiting_row,
                broker_and_operator_do_not_share_a_row,
            ]
            expire [
                what_was_forgotten_expires_by_age,
                what_was_kept_expires_by_its_own_time,
                what_failed_expires_by_its_own_time,
                what_is_unfinished_never_expires,
                the_limit_bounds_what_is_deleted,
                a_deleted_message_id_is_free_again,
            ]
            nodes [
                twenty_nodes_have_twenty_worker_ids,
                requested_worker_id_is_given,
                requested_worker_id_that_is_taken_is_refused,
                worker_id_out_of_range_is_refused,
                node_that_joins_again_keeps_a_worker_id,
                worker_id_of_a_dead_node_is_free,
                worker_id_left_by_its_node_is_free,
                all_nodes_share_one_key,
            ]
            monitor [
                lists_go_from_new_to_old_in_pages,
                lists_are_filtered,
                lists_are_filtered_by_error,
                lists_are_filtered_by_time,
                lists_are_filtered_by_version,
                one_row_is_shown_whole,
                rows_are_found_by_message_id,
                rows_are_counted_by_state,
            ]
            actions [
                a_failed_row_is_run_again,
                row_is_rerun_while_an_operator_is_notified,
                a_row_that_succeeded_is_run_again,
                a_delayed_row_is_run_now,
                a_row_in_work_is_not_run_again,
                delayed_row_is_cancelled,
                row_that_is_not_delayed_is_not_cancelled,
                deleting_takes_all_but_what_is_in_work,
            ]
            rerun [
                a_rerun_may_change_the_message,
                a_change_may_be_of_one_kind,
                both_sides_forget_what_their_leases_hold,
                audit_lines_gather_up_to_a_bound,
                a_change_leaves_work_alone,
                ten_thousand_rows_are_changed_at_once,
                only_what_failed_is_run_again,
                only_what_failed_is_deleted,
                operators_share_failed_rows,
            ]
            search [
                messages_are_found_by_what_they_say,
                messages_are_found_by_their_state,
                messages_are_found_by_their_node,
                search_stops_at_its_bound_and_goes_on,
            ]
            lag [
                only_waiting_messages_have_a_lag,
                lag_is_the_age_of_the_oldest_message,
                each_group_has_its_own_lag,
            ]
            audit [
                acts_are_listed_from_new_to_old,
            ]
            crowd [
                claimers_never_share_a_row,
                writers_of_one_message_id_agree,
                a_rerun_wakes_the_other_nodes,
                a_dropped_write_is_whole_or_nothing,
                a_dropped_claim_loses_no_row,
            ]
        }
    };
}

/// Writes one test for each case that a storage in SQL must pass, beside those of [`storage_suite!`].
///
/// The argument is the path of an `async fn() -> impl SqlFixture` that makes a fresh, empty storage.
#[macro_export]
macro_rules! sql_storage_suite {
    ($make:path) => {
        $crate::__suite! { run_storage, sql, $make,
            claims [
                longest_due_comes_first_and_the_limit_holds,
                next_due_is_that_of_the_first_row_not_claimed,
                row_is_claimed_again_only_after_its_lease,
                groups_and_versions_are_kept_apart,
                failure_not_notified_goes_to_another_node,
                large_messages_are_claimed_a_few_at_a_time,
                unreadable_row_is_parked,
                unreadable_waiting_row_is_parked,
                leases_are_renewed_only_while_they_hold,
                eight_claimers_never_get_the_same_row,
            ]
            writes [
                new_rows_have_status_owner_and_due,
                parked_messages_are_failed_from_the_start,
                duplicate_changes_nothing,
                repeated_call_is_recognized_and_taken_id_refused,
                success_leaves_what_the_retention_says,
                failures_are_counted_and_recorded_in_order,
                outcomes_of_one_row_apply_in_order,
                released_row_is_as_before,
                no_span_of_time_is_too_long,
                lost_lease_completes_and_publishes_nothing,
                batch_is_written_whole_or_not_at_all,
                unstorable_text_is_refused_by_name,
                any_body_and_header_is_read_as_written,
                writers_of_the_same_messages_do_not_deadlock,
            ]
            expiry [
                messages_expire_by_age_or_own_expiry_in_batches,
                generated_ids_expire_in_the_inbox,
                rerun_and_forgotten_message_expires_by_age,
                message_rerun_during_expiry_stays_whole,
            ]
            expires_at [
                tables_without_a_node_show_one_day,
                shortest_retention_of_two_nodes_is_shown,
                dead_node_no_longer_counts,
                last_node_counts_while_none_is_left,
                retention_of_zero_expires_at_once,
                older_node_counts_with_one_day,
                rerun_message_expires_like_others,
            ]
            worker_ids [
                requested_worker_id_goes_to_one_live_node,
                released_worker_id_is_free,
                all_worker_ids_can_be_drawn_and_no_more,
                nodes_that_join_at_once_get_different_ids,
            ]
            monitor [
                lists_are_newest_first_and_filtered,
                row_shows_everything,
                messages_are_found_by_their_id,
                rerun_starts_anew_and_keeps_attempts,
                unreadable_message_is_rerun_unchanged,
                only_delayed_messages_are_cancelled,
                idle_messages_can_be_deleted,
                state_rows_are_counted,
            ]
        }
    };
}

/// Writes one test for each case that a transport must pass.
///
/// The argument is the path of an `async fn() -> impl TransportFixture` that makes a fresh broker, or a corner of
/// one that no other test knows. Each test has a runtime of its own, calls that function, runs its case, and cleans
/// up whether it passed or not.
#[macro_export]
macro_rules! transport_suite {
    ($make:path) => {
        $crate::__suite! { run_transport, transport, $make,
            route [
                a_message_is_routed_or_not,
                nothing_to_send_is_no_error,
                each_group_gets_a_copy,
                members_of_a_group_share,
                wildcards_follow_amqp,
                overlapping_topics_give_one_copy,
                topics_are_only_added,
                exchanges_of_two_versions_do_not_meet,
                a_queue_keeps_messages_without_a_consumer,
            ]
            carry [
                awkward_headers_arrive_in_full,
                many_headers_arrive,
                bodies_arrive_byte_for_byte,
                a_large_body_arrives,
                the_last_error_is_not_sent,
                a_foreign_message_arrives_as_it_is,
            ]
            consume [
                a_queue_keeps_its_order,
                the_limit_bounds_a_batch,
                the_bytes_bound_a_batch,
                a_consumer_short_of_memory_misses_nothing,
                the_prefetch_bounds_what_is_unacknowledged,
                any_of_a_batch_may_be_acknowledged_first,
                what_is_acknowledged_does_not_come_again,
                what_a_dropped_consumer_had_is_redelivered,
                what_is_requeued_comes_again,
                a_dropped_receive_loses_nothing,
                sends_at_the_same_time_all_arrive,
                an_interruption_loses_nothing,
            ]
            delay [
                nothing_to_delay_is_no_error,
                a_delayed_message_comes_to_its_group_alone,
                a_delayed_message_that_is_requeued_is_still_delayed,
                long_delay_blocks_no_short_one,
                a_topic_delay_reaches_every_group,
                delays_of_two_versions_do_not_meet,
                what_stays_is_not_delayed,
                an_interruption_loses_nothing_delayed,
            ]
            existing [
                a_queue_that_is_there_is_consumed_as_it_is,
                a_queue_that_is_not_there_is_awaited,
            ]
            in_process [
                what_is_acknowledged_is_confirmed,
                excepted_groups_are_left_out,
                groups_that_are_gone_are_pending,
                a_group_that_takes_too_long_is_pending,
            ]
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __suite {
    ($run:ident, $family:ident, $make:path, $($module:ident [ $($case:ident,)* ])*) => {
        $($(
            #[test]
            fn $case() {
                $crate::__private::$run($make, $crate::$family::$module::$case);
            }
        )*)*
    };
}
