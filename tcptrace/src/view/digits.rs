//! Numbers and addresses as text, without the formatting machinery of the standard library, which costs a busy stream more
//! than everything else that it does.

use std::{fmt::Write as _, net::IpAddr};

/// A number.
pub(super) fn number(out: &mut String, number: impl itoa::Integer) {
    out.push_str(itoa::Buffer::new().format(number));
}

/// A number with so many digits at least.
pub(super) fn padded(out: &mut String, number: u32, digits: usize) {
    let mut buffer = itoa::Buffer::new();
    let text = buffer.format(number);
    out.extend(std::iter::repeat_n('0', digits.saturating_sub(text.len())));
    out.push_str(text);
}

/// Nanoseconds as microseconds with three decimals.
pub(super) fn micros(out: &mut String, ns: u64) {
    number(out, ns / 1000);
    out.push('.');
    padded(out, (ns % 1000) as u32, 3);
}

/// A number to the base of 16.
pub(super) fn hex(out: &mut String, number: u64) {
    let digits = (64 - number.leading_zeros()).div_ceil(4).max(1);
    for place in (0..digits).rev() {
        let digit = (number >> (4 * place) & 15) as u32;
        out.push(char::from_digit(digit, 16).unwrap_or('0'));
    }
}

/// An address.
pub(super) fn address(out: &mut String, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            number(out, a);
            for octet in [b, c, d] {
                out.push('.');
                number(out, octet);
            }
        }
        // Memory takes every byte.
        IpAddr::V6(ip) => _ = write!(out, "{ip}"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn made(write: impl FnOnce(&mut String)) -> String {
        let mut text = String::new();
        write(&mut text);
        text
    }

    proptest! {
        #[test]
        fn the_standard_library_writes_the_same(number in any::<u64>(), small in any::<u32>(), ip in any::<IpAddr>()) {
            for number in [number, 0, u64::MAX] {
                assert_eq!(made(|out| super::number(out, number)), number.to_string());
                assert_eq!(made(|out| hex(out, number)), format!("{number:x}"));
                assert_eq!(made(|out| micros(out, number)), format!("{}.{:03}", number / 1000, number % 1000));
            }
            assert_eq!(made(|out| padded(out, small, 6)), format!("{small:06}"));
            assert_eq!(made(|out| padded(out, 42, 9)), "000000042");
            assert_eq!(made(|out| address(out, ip)), ip.to_string());
        }
    }
}
