//! One file per rule. A new one is a file and a line here.

use super::Rule;

macro_rules! rules {
    ($($module:ident)+) => {
        $(mod $module;)+
        /// Every rule; where findings are equally bad, in this order.
        pub static RULES: &[&Rule] = &[$(&$module::RULE),+];
    };
}

rules! {
    port_exhaustion
    accept_queue_full
    close_wait_leak
    syn_flood
    syn_queue_drops
    time_wait_limit
    memory_pressure
    orphan_pressure
    connect_refused
    connect_timeouts
    connect_stuck
    peer_resets
    middlebox_resets
    peer_timeouts
    keepalive_deaths
    retransmit_storm
    fin_wait1_stuck
    last_ack_stuck
    fin_wait2_orphans
    unread_close
    linger_zero
    closed_port
    listener_restarts
    short_connections
    sysctls
}
