//! A packet made by hand, from a host that is not there.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use socket2::{Domain, Protocol, Socket, Type};

/// `IPPROTO_RAW`: the IP header comes with the packet.
const RAW: i32 = 255;
/// The first byte of a header of version 4 and 20 bytes.
const VERSION_AND_LENGTH: u8 = 0x45;
const TTL: u8 = 64;
const TCP: u8 = 6;
const SYN: u8 = 0x02;

/// Sends a SYN. The answer goes wherever the route to `from` leads.
pub(crate) fn send_syn(from: SocketAddrV4, to: SocketAddrV4) {
    let mut tcp = Vec::new();
    tcp.extend(from.port().to_be_bytes());
    tcp.extend(to.port().to_be_bytes());
    // Sequence number, and an acknowledgment that the missing flag declares void.
    tcp.extend([0; 8]);
    // Five words of header, a window of 65,535 bytes, no checksum yet, nothing urgent.
    tcp.extend([5 << 4, SYN, 0xff, 0xff, 0, 0, 0, 0]);
    let sum = checksum(*from.ip(), *to.ip(), &tcp);
    tcp[16..18].copy_from_slice(&sum.to_be_bytes());

    // The kernel fills in the length, the identification and the checksum (raw_send_hdrinc()).
    let mut packet = vec![VERSION_AND_LENGTH, 0, 0, 0, 0, 0, 0, 0, TTL, TCP, 0, 0];
    packet.extend(from.ip().octets());
    packet.extend(to.ip().octets());
    packet.extend(tcp);
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(RAW))).unwrap();
    socket.send_to(&packet, &SocketAddr::V4(to).into()).unwrap();
}

/// RFC 9293, 3.1: over the addresses, the protocol, the length and the segment.
fn checksum(from: Ipv4Addr, to: Ipv4Addr, tcp: &[u8]) -> u16 {
    let mut bytes = Vec::new();
    bytes.extend(from.octets());
    bytes.extend(to.octets());
    bytes.extend([0, TCP]);
    bytes.extend(u16::try_from(tcp.len()).unwrap().to_be_bytes());
    bytes.extend(tcp);
    let mut sum: u32 = bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}
