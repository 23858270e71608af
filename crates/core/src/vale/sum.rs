//! The Internet checksum, summed while bytes are copied between buffers.
//!
//! Source: RFC 1071. A one's complement sum does not depend on the width of the words that are added, as long as every byte keeps
//! its place within 16 bits.

use ringway_os::bytes::Payload;

/// Bytes copied and summed at a time. Even, so that no piece but the last begins at an odd place.
const PIECE: usize = 1024;

/// A sum under way.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sum {
    total: u64,
    /// The next byte is the low half of a word.
    odd: bool,
}

impl Sum {
    /// Adds bytes that follow those added before.
    pub fn add(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        if self.odd
            && let Some((first, others)) = rest.split_first()
        {
            self.total += u64::from(*first);
            (rest, self.odd) = (others, false);
        }
        let mut words = rest.chunks_exact(4);
        for w in &mut words {
            self.total += u64::from(u32::from_be_bytes([w[0], w[1], w[2], w[3]]));
        }
        for pair in words.remainder().chunks(2) {
            let low = pair.get(1).copied();
            self.total += u64::from(u16::from_be_bytes([pair[0], low.unwrap_or(0)]));
            self.odd = low.is_none();
        }
    }

    /// The same, with the next byte at an even place again: for parts of which all but this one have an even number of bytes.
    pub fn and_apart(self) -> Self {
        Sum { odd: false, ..self }
    }

    /// The complement of the folded sum, as it stands in a header.
    pub fn checksum(self) -> u16 {
        let mut sum = self.total;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    /// As [`Sum::checksum`], for a field in which 0 means that there is no checksum: 0 becomes its other form (RFC 768).
    pub fn checksum_not_0(self) -> u16 {
        match self.checksum() {
            0 => 0xffff,
            sum => sum,
        }
    }
}

/// Copies `from` to the start of `to`, as far as that holds it, and adds what was copied. Each byte is read once: a writer at the
/// other end of `from` can spoil its own checksum, and nothing else.
pub(super) fn copy_summed(from: &Payload<'_>, to: &Payload<'_>, sum: &mut Sum) {
    let mut piece = [0; PIECE];
    let mut at = 0;
    while at < from.len() {
        let n = from.slice(at, PIECE).copy_to(&mut piece);
        sum.add(&piece[..n]);
        to.slice(at, n).copy_from(&piece[..n]);
        at += n;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::Rng;

    /// Oracle: RFC 1071 as it is told, one word after the other.
    fn simple(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for (i, b) in bytes.iter().enumerate() {
            sum += if i % 2 == 0 { u32::from(*b) << 8 } else { u32::from(*b) };
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    #[test]
    fn pieces_of_all_lengths_sum_up_to_the_whole() {
        let mut rng = Rng::new(1);
        for len in (0..40).chain([1023, 1024, 1025, 5001]) {
            let bytes: Vec<u8> = (0..len).map(|_| rng.next_u64() as u8 | 0x80).collect();
            for _ in 0..20 {
                let mut sum = Sum::default();
                let mut rest = &bytes[..];
                while !rest.is_empty() {
                    let n = 1 + rng.below(rest.len() as u32) as usize;
                    sum.add(&rest[..n]);
                    rest = &rest[n..];
                }
                assert_eq!(sum.checksum(), simple(&bytes), "{len} bytes");
            }
        }
    }
}
