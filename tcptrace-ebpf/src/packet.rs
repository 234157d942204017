//! Reading the ends of a connection from a packet.

use tcptrace_common::record::{Addr, Tuple};

use crate::{
    globals::layout,
    memory::{Memory, Untyped},
};

/// The ends as seen from this host, from a packet that it received. `netns` is filled from the device,
/// which is set as long as no socket has been found for the packet (tcp_v4_rcv, tcp_v6_rcv).
#[inline(always)]
pub(crate) fn received(skb: Untyped) -> Tuple {
    let head = Untyped(skb.read(layout!(skb_head)));
    let ip = Untyped(head.0 + u64::from(skb.read::<u16>(layout!(skb_network))));
    let tcp = Untyped(head.0 + u64::from(skb.read::<u16>(layout!(skb_transport))));
    // Both headers begin with the version; the rest is RFC 791 and RFC 8200.
    let (raddr, laddr) = if ip.read::<u8>(0) >> 4 == 6 {
        (Addr(ip.read(8)), Addr(ip.read(24)))
    } else {
        (Addr::from_be32(ip.read(12)), Addr::from_be32(ip.read(16)))
    };
    let netns = skb
        .follow(layout!(skb_dev))
        .and_then(|device| device.follow(layout!(dev_net)))
        .map_or(0, |net| net.read(layout!(net_inum)));
    Tuple { laddr, raddr, lport: u16::from_be(tcp.read(2)), rport: u16::from_be(tcp.read(0)), netns }
}
