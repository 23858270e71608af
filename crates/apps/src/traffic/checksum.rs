//! The Internet checksum: whole (RFC 1071) and updated in place (RFC 1624, equation 3).

/// One's complement sum of `data` as big-endian words, added to `start`, folded to 16 bits and **not**
/// inverted. An odd last byte counts as the high half of a word.
pub fn sum(start: u32, data: &[u8]) -> u16 {
    // 64 bits: no data of a possible length makes this overflow, so it is folded once.
    let mut total = u64::from(start);
    let mut words = data.chunks_exact(2);
    for word in &mut words {
        total += u64::from(u16::from_be_bytes([word[0], word[1]]));
    }
    if let [last] = words.remainder() {
        total += u64::from(*last) << 8;
    }
    while total > 0xffff {
        total = (total >> 16) + (total & 0xffff);
    }
    total as u16
}

/// The checksum field after a word under it changed from `old` to `new`.
pub fn adjust(check: u16, old: u16, new: u16) -> u16 {
    let mut total = u32::from(!check) + u32::from(!old) + u32::from(new);
    total = (total >> 16) + (total & 0xffff);
    total = (total >> 16) + (total & 0xffff);
    !(total as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_example_of_rfc_1071() {
        assert_eq!(sum(0, &[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), 0xddf2);
        assert_eq!(sum(0, &[0xab]), 0xab00);
    }

    proptest! {
        /// Zero has two forms in one's complement, hence the comparison modulo 0xffff.
        #[test]
        fn adjusting_equals_summing_again(mut data in prop::collection::vec(any::<u8>(), 2..64), at: usize, new: u16) {
            let before = !sum(0, &data);
            let at = at % (data.len() / 2) * 2;
            let old = u16::from_be_bytes([data[at], data[at + 1]]);
            data[at..at + 2].copy_from_slice(&new.to_be_bytes());
            prop_assert_eq!(adjust(before, old, new) % 0xffff, !sum(0, &data) % 0xffff);
        }
    }
}
