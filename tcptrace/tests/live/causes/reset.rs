//! RSTs that come from the wire and that neither end has sent, in every state that they can hit.

use std::net::Shutdown;

use super::{
    fate::{Fate, Watch},
    say_reset,
};
use crate::{
    close::{ACTIVE_CLIENT, LISTENER, PASSIVE_SERVER},
    support::{
        segment::{ACK, FIN, RST},
        tcp::{self, Pair, await_reset, read_to_end},
        wire::{To, wire_scenario},
    },
};

/// A middlebox tells both ends; neither has sent one.
#[test]
fn in_established() {
    wire_scenario(|wire| {
        let watch = Watch::both(wire);
        let Pair { listener, client, server, ends } = wire.pair();
        tcp::send(&client, 5);
        tcp::receive(&server, 5);
        tcp::send(&server, 3);
        tcp::receive(&client, 3);
        // Both know what the other has.
        wire.until("the data is acknowledged", |seen| {
            seen.to_server() && !seen.segment.has_data() && seen.segment.ack == wire_ack(wire)
        });
        say_reset(wire, To::Client);
        say_reset(wire, To::Server);
        await_reset(&client);
        await_reset(&server);
        drop((client, server, listener));
        watch.tells(
            &[
                Fate::new(
                    ends.client,
                    client!["RST< in ESTABLISHED", "ESTABLISHED>CLOSE ECONNRESET"],
                    "peer_rst",
                )
                .bytes(5, 3),
                Fate::new(
                    ends.server,
                    server!["RST< in ESTABLISHED", "ESTABLISHED>CLOSE ECONNRESET"],
                    "peer_rst",
                )
                .bytes(3, 5),
            ],
            &[(ends.listener, LISTENER)],
        );
    });
}

/// The number after the server's last payload.
fn wire_ack(wire: &crate::support::wire::Wire<'_>) -> u32 {
    wire.last(|seen| seen.to_client() && seen.segment.has_data()).segment.next()
}
