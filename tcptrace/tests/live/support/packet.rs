//! A packet made by hand, from a host that is not there.

use std::net::{SocketAddr, SocketAddrV4};

use socket2::{Domain, Protocol, Socket, Type};

use super::segment::{SYN, Segment, WINDOW};

/// `IPPROTO_RAW`: the IP header comes with the packet.
const RAW: i32 = 255;

/// Sends a SYN. The answer goes wherever the route to `from` leads.
pub(crate) fn send_syn(from: SocketAddrV4, to: SocketAddrV4) {
    let syn = Segment { from, to, seq: 0, ack: 0, flags: SYN, window: WINDOW, payload: Vec::new() };
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(RAW))).unwrap();
    socket.send_to(&syn.packet(), &SocketAddr::V4(to).into()).unwrap();
}
