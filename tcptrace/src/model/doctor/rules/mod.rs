//! One file per rule. A new one is a file and its two lines here.

use super::Rule;

mod accept_queue_full;
mod close_wait_leak;
mod closed_port;
mod connect_refused;
mod connect_stuck;
mod connect_timeouts;
mod fin_wait1_stuck;
mod fin_wait2_orphans;
mod keepalive_deaths;
mod last_ack_stuck;
mod linger_zero;
mod listener_restarts;
mod memory_pressure;
mod middlebox_resets;
mod orphan_pressure;
mod peer_resets;
mod peer_timeouts;
mod port_exhaustion;
mod retransmit_storm;
mod short_connections;
mod syn_flood;
mod syn_queue_drops;
mod sysctls;
mod time_wait_limit;
mod unread_close;

/// Every rule; where findings are equally bad, in this order.
pub static RULES: &[&Rule] = &[
    &port_exhaustion::RULE,
    &accept_queue_full::RULE,
    &close_wait_leak::RULE,
    &syn_flood::RULE,
    &syn_queue_drops::RULE,
    &time_wait_limit::RULE,
    &memory_pressure::RULE,
    &orphan_pressure::RULE,
    &connect_refused::RULE,
    &connect_timeouts::RULE,
    &connect_stuck::RULE,
    &peer_resets::RULE,
    &middlebox_resets::RULE,
    &peer_timeouts::RULE,
    &keepalive_deaths::RULE,
    &retransmit_storm::RULE,
    &fin_wait1_stuck::RULE,
    &last_ack_stuck::RULE,
    &fin_wait2_orphans::RULE,
    &unread_close::RULE,
    &linger_zero::RULE,
    &closed_port::RULE,
    &listener_restarts::RULE,
    &short_connections::RULE,
    &sysctls::RULE,
];
