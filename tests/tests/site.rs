//! The whole site, end to end: one bed, a file a behaviour. Needs root; fails, and says so, without.

#[path = "site/adoption.rs"]
mod adoption;
#[path = "site/balance.rs"]
mod balance;
#[path = "site/children.rs"]
mod children;
#[path = "site/datagrams.rs"]
mod datagrams;
#[path = "site/failover.rs"]
mod failover;
#[path = "site/flood.rs"]
mod flood;
#[path = "site/identity.rs"]
mod identity;
#[path = "site/markers.rs"]
mod markers;
#[path = "site/monitoring.rs"]
mod monitoring;
#[path = "site/operation.rs"]
mod operation;
#[path = "site/page.rs"]
mod page;
#[path = "site/reach.rs"]
mod reach;
#[path = "site/recovery.rs"]
mod recovery;
#[path = "site/redirect.rs"]
mod redirect;
#[path = "site/reload.rs"]
mod reload;
#[path = "site/restart.rs"]
mod restart;
#[path = "site/swap.rs"]
mod swap;
#[path = "site/wire.rs"]
mod wire;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use foobar_tests::leftovers::left_behind;
use foobar_tests::progress::Lines;
use foobar_tests::{Bed, Options};
use libtest_mimic::{Arguments, Trial};

/// A check of the shared bed; it leaves the site as it found it.
type Check = fn(&Bed) -> Result<()>;

/// In this order: what only looks, then what changes the site, then what breaks it.
const CHECKS: &[(&str, Check)] = &[
    ("a_page_is_written_and_read_through_every_tier", page::written_and_read),
    ("every_web_and_app_server_takes_part", page::servers_vary),
    ("port_80_redirects", redirect::port_80),
    ("300_connections_are_150_and_150", balance::exact_over_nat),
    ("ipv6_connections_are_balanced", balance::exact_over_ipv6),
    ("a_drained_backend_keeps_its_connections", operation::drained),
    ("weights_are_exact_over_a_cycle", operation::weighed),
    ("who_takes_the_last_weight_is_warned", operation::weightless),
    ("a_disabled_backend_is_cut_off", operation::disabled),
    ("one_flow_is_ended_and_no_other", operation::flows_end),
    ("a_backend_that_leaves_by_the_file_keeps_its_connections", operation::left),
    ("a_set_reaches_known_flows", operation::sets_reach_known_flows),
    ("datagrams_are_balanced_and_come_back", datagrams::echoed),
    ("local_sockets_see_the_vip_that_they_have_asked", datagrams::asked_by_local_sockets),
    ("every_door_opens_for_whom_the_file_allows_and_nobody_else", reach::exactly_the_allowed),
    ("no_plain_text_between_balancer_and_web", wire::encrypted),
    ("web_servers_ask_for_the_balancers_certificate", identity::client_certificates),
    ("prometheus_has_every_target_up", monitoring::targets_up),
    ("every_query_of_the_dashboard_has_an_answer", monitoring::dashboard_answers),
    ("a_bad_file_is_refused_and_changes_nothing", reload::bad_file),
    ("a_changed_file_is_applied", reload::changed_file),
    ("rules_are_swapped_whole_under_load", swap::never_a_mix),
    ("a_syn_flood_leaves_a_listener_its_goodput", flood::syns_to_a_listener),
    ("a_full_flow_table_refuses_nobody", flood::a_full_table_refuses_nobody),
    ("half_open_flows_drive_out_no_idle_one", flood::half_open_flows_drive_out_no_idle_one),
    ("what_is_over_leaves_the_flow_tables", flood::tables_are_drained),
    ("a_hog_beside_nginx_moves_no_answer", children::hog),
    ("children_are_left_alone_when_their_agent_dies", children::orphaned),
    ("each_child_is_back_a_second_after_a_kill", children::killed),
    ("a_process_that_dies_is_started_again", restart::process),
    ("a_dead_nginx_costs_a_second_and_comes_back", recovery::nginx),
    ("a_dead_web_server_costs_a_second_and_comes_back", recovery::web_server),
    ("a_dead_primary_costs_visitors_seconds_and_no_entry", failover::guest_book),
    ("the_data_path_outlives_the_agent", adoption::balancer_agent),
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // The checks share one site and some of them break it.
    arguments.test_threads = Some(1);
    if arguments.list {
        let trials = CHECKS.iter().map(|(name, _)| Trial::test(*name, || Ok(()))).collect();
        return libtest_mimic::run(&arguments, trials).exit_code();
    }
    let bed = match Options::find().and_then(|options| Bed::start(&options, &Lines)) {
        Ok(bed) => Arc::new(bed),
        Err(error) => {
            eprintln!("the site's bed did not start: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    let id = bed.id().to_owned();
    let trials = CHECKS.iter().map(|(name, check)| {
        let bed = Arc::clone(&bed);
        Trial::test(*name, move || check(&bed).map_err(|error| format!("{error:#}").into()))
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    // The last check: the bed is closed, and nothing of the run exists any more.
    let mut left = Arc::into_inner(bed).map_or_else(|| vec!["somebody still holds the bed".to_owned()], Bed::close);
    left.extend(left_behind(&id));
    for what in &left {
        eprintln!("left behind: {what}");
    }
    if conclusion.has_failed() || !left.is_empty() {
        return ExitCode::FAILURE;
    }
    println!("nothing left behind");
    ExitCode::SUCCESS
}
