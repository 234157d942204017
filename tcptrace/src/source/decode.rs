//! From the ring's bytes to records.

use tcptrace_common::record::{CloseDetail, CloseRecord, Kind, Record};
use zerocopy::FromBytes as _;

/// A record where it stands in the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded<'a> {
    /// What every record has.
    pub record: &'a Record,
    /// What a CLOSE has.
    pub detail: Option<&'a CloseDetail>,
}

/// Bytes that are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The length fits no kind of record, or not this one.
    #[error("{len} bytes are no record of kind {kind:?}")]
    Length {
        /// How many bytes there are.
        len: usize,
        /// The kind they claim to be, if there are enough to tell.
        kind: Option<u8>,
    },
    /// The kind is none of ours.
    #[error("there is no record of kind {0}")]
    Kind(u8),
    /// The bytes do not stand where a record can.
    #[error("the bytes are not aligned to 8")]
    Alignment,
}

/// Reads a record without copying it.
pub fn decode(bytes: &[u8]) -> Result<Decoded<'_>, DecodeError> {
    if !bytes.as_ptr().addr().is_multiple_of(align_of::<CloseRecord>()) {
        return Err(DecodeError::Alignment);
    }
    let Ok((record, rest)) = Record::ref_from_prefix(bytes) else {
        return Err(DecodeError::Length { len: bytes.len(), kind: None });
    };
    let wrong = DecodeError::Length { len: bytes.len(), kind: Some(record.kind.0) };
    match record.kind {
        Kind::CLOSE => match CloseDetail::ref_from_bytes(rest) {
            Ok(detail) => Ok(Decoded { record, detail: Some(detail) }),
            Err(_) => Err(wrong),
        },
        Kind(kind) if usize::from(kind) >= Kind::COUNT => Err(DecodeError::Kind(kind)),
        _ if rest.is_empty() => Ok(Decoded { record, detail: None }),
        _ => Err(wrong),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use proptest::prelude::*;
    use zerocopy::IntoBytes as _;

    use super::*;

    /// Bytes where a record may stand.
    fn aligned(bytes: &[u8], run: impl FnOnce(&[u8])) {
        let mut words = vec![0u64; bytes.len().div_ceil(8)];
        let room = words.as_mut_bytes();
        room[..bytes.len()].copy_from_slice(bytes);
        run(&room[..bytes.len()]);
    }

    #[test]
    fn every_kind_is_read_back() {
        for number in 0..Kind::COUNT {
            let kind = Kind(u8::try_from(number).unwrap());
            let record = Record { kind, ts_ns: 7, sk: 8, ..Record::default() };
            if kind == Kind::CLOSE {
                let detail = CloseDetail { sk_err: 104, ..CloseDetail::default() };
                aligned(CloseRecord { record, detail }.as_bytes(), |bytes| {
                    assert_eq!(decode(bytes), Ok(Decoded { record: &record, detail: Some(&detail) }));
                });
            } else {
                aligned(record.as_bytes(), |bytes| {
                    assert_eq!(decode(bytes), Ok(Decoded { record: &record, detail: None }));
                });
            }
        }
    }

    #[test]
    fn every_truncation_is_refused() {
        let close = CloseRecord {
            record: Record { kind: Kind::CLOSE, ..Record::default() },
            ..CloseRecord::default()
        };
        for len in 0..size_of::<CloseRecord>() {
            aligned(&close.as_bytes()[..len], |bytes| {
                assert!(matches!(decode(bytes), Err(DecodeError::Length { .. })), "{len}");
            });
        }
        let short = Record::default();
        for len in 0..size_of::<Record>() {
            aligned(&short.as_bytes()[..len], |bytes| assert!(decode(bytes).is_err(), "{len}"));
        }
    }

    #[test]
    fn foreign_bytes_are_refused() {
        let foreign = Record { kind: Kind(6), ..Record::default() };
        aligned(foreign.as_bytes(), |bytes| assert_eq!(decode(bytes), Err(DecodeError::Kind(6))));
        let mut longer = Record::default().as_bytes().to_vec();
        longer.push(0);
        aligned(&longer, |bytes| {
            assert_eq!(decode(bytes), Err(DecodeError::Length { len: 121, kind: Some(0) }));
        });
        let words = [0u64; 20];
        assert_eq!(decode(&words.as_bytes()[1..121]), Err(DecodeError::Alignment));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            aligned(&bytes, |bytes| {
                let _ = decode(bytes);
            });
        }
    }
}
