//! TCP segments in IPv4 packets, and the ICMP that answers them: read from the wire, and made by hand.

use std::net::{Ipv4Addr, SocketAddrV4};

/// TCP's flags (RFC 9293, 3.1).
pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
pub(crate) const PSH: u8 = 0x08;
pub(crate) const ACK: u8 = 0x10;

/// `ICMP_HOST_UNREACH` and `ICMP_PORT_UNREACH`, codes of "destination unreachable".
pub(crate) const HOST_UNREACHABLE: u8 = 1;
pub(crate) const PORT_UNREACHABLE: u8 = 3;

/// A router between the two ends, which nobody sees but by its ICMP.
const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 254);

/// The first byte of a header of version 4 and 20 bytes.
const VERSION_AND_LENGTH: u8 = 0x45;
/// A header without options.
const IP_HEADER: usize = 20;
const TCP_HEADER: usize = 20;
const TTL: u8 = 64;
const PROTOCOL_ICMP: u8 = 1;
const PROTOCOL_TCP: u8 = 6;
/// What a segment made by hand says of its sender's window.
pub(crate) const WINDOW: u16 = 0xffff;

/// A segment, without its options.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) from: SocketAddrV4,
    pub(crate) to: SocketAddrV4,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) flags: u8,
    /// What there is room for; not scaled, so only 0 says much.
    pub(crate) window: u16,
    pub(crate) payload: Vec<u8>,
}

impl Segment {
    /// Reads a packet; none where it carries something else than TCP over IPv4.
    pub(crate) fn parse(packet: &[u8]) -> Option<Self> {
        let ip = packet.get(..IP_HEADER)?;
        if ip[0] >> 4 != 4 || ip[9] != PROTOCOL_TCP {
            return None;
        }
        let tcp = packet.get(usize::from(ip[0] & 0xf) * 4..)?;
        let payload = tcp.get(usize::from(*tcp.get(12)? >> 4) * 4..)?;
        let addr = |at: usize, port: usize| {
            let ip: [u8; 4] = ip[at..at + 4].try_into().unwrap();
            SocketAddrV4::new(ip.into(), u16::from_be_bytes([tcp[port], tcp[port + 1]]))
        };
        let number = |at: usize| u32::from_be_bytes(tcp[at..at + 4].try_into().unwrap());
        Some(Self {
            from: addr(12, 0),
            to: addr(16, 2),
            seq: number(4),
            ack: number(8),
            flags: tcp[13],
            window: u16::from_be_bytes([tcp[14], tcp[15]]),
            payload: payload.to_vec(),
        })
    }

    /// Whether these flags are set.
    pub(crate) fn has(&self, flags: u8) -> bool {
        self.flags & flags == flags
    }

    /// Whether this is a client's first segment, also when it comes again.
    pub(crate) fn is_syn(&self) -> bool {
        self.has(SYN) && !self.has(ACK)
    }

    /// Whether it is the answer to that.
    pub(crate) fn is_syn_ack(&self) -> bool {
        self.has(SYN | ACK)
    }

    /// Whether it carries payload.
    pub(crate) fn has_data(&self) -> bool {
        !self.payload.is_empty()
    }

    /// The sequence number after it.
    pub(crate) fn next(&self) -> u32 {
        let flags = u32::from(self.has(SYN)) + u32::from(self.has(FIN));
        self.seq.wrapping_add(u32::try_from(self.payload.len()).unwrap()).wrapping_add(flags)
    }

    /// What its receiver could send next, with these flags.
    pub(crate) fn answer(&self, flags: u8) -> Self {
        let (from, to) = (self.to, self.from);
        Self { from, to, seq: self.ack, ack: self.next(), flags, window: WINDOW, payload: Vec::new() }
    }

    /// What its sender could send next, with these flags.
    pub(crate) fn follow(&self, flags: u8) -> Self {
        Self { seq: self.next(), flags, payload: Vec::new(), ..self.clone() }
    }

    /// As a packet.
    pub(crate) fn packet(&self) -> Vec<u8> {
        let mut tcp = Vec::with_capacity(TCP_HEADER + self.payload.len());
        tcp.extend(self.from.port().to_be_bytes());
        tcp.extend(self.to.port().to_be_bytes());
        tcp.extend(self.seq.to_be_bytes());
        tcp.extend(self.ack.to_be_bytes());
        tcp.extend([5 << 4, self.flags]);
        tcp.extend(self.window.to_be_bytes());
        tcp.extend([0; 4]);
        tcp.extend(&self.payload);
        // The checksum covers the addresses, the protocol and the length, too.
        let mut covered = Vec::new();
        covered.extend(self.from.ip().octets());
        covered.extend(self.to.ip().octets());
        covered.extend([0, PROTOCOL_TCP]);
        covered.extend(u16::try_from(tcp.len()).unwrap().to_be_bytes());
        covered.extend(&tcp);
        tcp[16..18].copy_from_slice(&checksum(&covered).to_be_bytes());
        ip_packet(*self.from.ip(), *self.to.ip(), PROTOCOL_TCP, &tcp)
    }
}

/// "Destination unreachable" (RFC 792), from the router to who sent the packet.
pub(crate) fn unreachable(code: u8, packet: &[u8]) -> Vec<u8> {
    let sender: [u8; 4] = packet[12..16].try_into().unwrap();
    let mut icmp = vec![3, code, 0, 0, 0, 0, 0, 0];
    // It quotes the header and at least 8 bytes, which tcp_v4_err() finds the socket by.
    icmp.extend(&packet[..IP_HEADER + 8]);
    let sum = checksum(&icmp);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    ip_packet(ROUTER, sender.into(), PROTOCOL_ICMP, &icmp)
}

fn ip_packet(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(IP_HEADER + content.len()).unwrap().to_be_bytes();
    let mut packet = vec![VERSION_AND_LENGTH, 0, length[0], length[1], 0, 0, 0, 0, TTL, protocol, 0, 0];
    packet.extend(from.octets());
    packet.extend(to.octets());
    let sum = checksum(&packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(content);
    packet
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let word = |pair: &[u8]| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    let mut sum: u32 = bytes.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}
