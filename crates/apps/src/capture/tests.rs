//! Files made by hand, whole, cut and hostile.

use super::*;
use proptest::prelude::*;

/// Writes numbers in one byte order.
#[derive(Clone, Copy)]
struct Make(Order);

impl Make {
    fn w16(self, value: u16) -> Vec<u8> {
        if self.0 == Order::Little { value.to_le_bytes().to_vec() } else { value.to_be_bytes().to_vec() }
    }

    fn words(self, values: &[u32]) -> Vec<u8> {
        values
            .iter()
            .flat_map(|v| if self.0 == Order::Little { v.to_le_bytes() } else { v.to_be_bytes() })
            .collect()
    }

    fn block(self, kind: u32, body: &[u8]) -> Vec<u8> {
        let mut body = body.to_vec();
        body.resize(body.len().next_multiple_of(4), 0);
        let len = body.len() as u32 + 12;
        [self.words(&[kind, len]), body, self.words(&[len])].concat()
    }

    fn section(self) -> Vec<u8> {
        let body = [self.words(&[0x1a2b_3c4d]), self.w16(1), self.w16(0), vec![0xff; 8]].concat();
        self.block(0x0a0d_0d0a, &body)
    }

    fn interface(self, link: u16, snaplen: u32, options: &[u8]) -> Vec<u8> {
        self.block(1, &[self.w16(link), self.w16(0), self.words(&[snaplen]), options.to_vec()].concat())
    }

    fn enhanced(self, interface: u32, units: u64, data: &[u8]) -> Vec<u8> {
        let len = data.len() as u32;
        let head = self.words(&[interface, (units >> 32) as u32, units as u32, len, len + 4]);
        let mut body = [head, data.to_vec()].concat();
        body.resize(body.len().next_multiple_of(4), 0);
        // An option behind the data: a comment.
        body.extend([self.w16(1), self.w16(2), b"hi\0\0".to_vec()].concat());
        self.block(6, &body)
    }
}

const BOTH: [Make; 2] = [Make(Order::Little), Make(Order::Big)];

fn read(file: &[u8]) -> Result<Vec<Frame>, CaptureError> {
    Reader::new(file)?.collect()
}

fn frame(ts_ns: u64, orig_len: u32, data: &[u8]) -> Frame {
    Frame { ts_ns, orig_len, link_type: LINK_ETHERNET, data: data.to_vec() }
}

#[test]
fn classic_files_of_both_orders_and_resolutions() {
    for make in BOTH {
        for (magic, nanos) in [(0xa1b2_c3d4, 7000), (0xa1b2_3c4d, 7)] {
            let mut file = [make.words(&[magic]), make.w16(2), make.w16(4)].concat();
            file.extend(make.words(&[0, 0, 65535, 0x5000_0001]));
            file.extend(make.words(&[3, 7, 2, 60]));
            file.extend([9, 8]);
            file.extend(make.words(&[4, 0, 0, 0]));
            let want = [frame(3_000_000_000 + nanos, 60, &[9, 8]), frame(4_000_000_000, 0, &[])];
            assert_eq!(read(&file).unwrap(), want);
            assert_eq!(Reader::new(&file[..]).unwrap().link_type(), Some(LINK_ETHERNET));
        }
    }
}

#[test]
fn what_is_written_is_read_back() {
    for (resolution, ts) in [(Resolution::Micros, 5_000_001_000), (Resolution::Nanos, 5_000_001_999)] {
        let mut writer = Writer::new(Vec::new(), LINK_ETHERNET, 4, resolution).unwrap();
        writer.write(5_000_001_999, 60, &[1, 2, 3]).unwrap();
        writer.write(5_000_001_999, 6, &[1, 2, 3, 4, 5, 6]).unwrap();
        writer.flush().unwrap();
        let want = [frame(ts, 60, &[1, 2, 3]), frame(ts, 6, &[1, 2, 3, 4])];
        assert_eq!(read(&writer.into_inner()).unwrap(), want);
    }
}

#[test]
fn ng_files_of_both_orders() {
    for make in BOTH {
        let mut file = make.section();
        file.extend(make.interface(1, 4, &[]));
        // Nanoseconds, and ten seconds to add.
        let offset = if make.0 == Order::Little { 10u64.to_le_bytes() } else { 10u64.to_be_bytes() };
        let options = [
            [make.w16(2), make.w16(3), b"if1\0".to_vec()].concat(),
            [make.w16(9), make.w16(1), vec![9, 0, 0, 0]].concat(),
            [make.w16(14), make.w16(8), offset.to_vec()].concat(),
            make.words(&[0]),
        ];
        file.extend(make.interface(113, 0, &options.concat()));
        file.extend(make.block(0x0bad, &[1; 40]));
        file.extend(make.enhanced(0, 1_500_000, &[1, 2, 3, 4, 5]));
        file.extend(make.enhanced(1, 1_500_000, &[6]));
        // Simple: six bytes on the wire, four captured.
        file.extend(make.block(3, &[make.words(&[6]), vec![1, 2, 3, 4]].concat()));
        let old = [make.w16(1), make.w16(0), make.words(&[0, 5, 2, 2]), vec![7, 7]];
        file.extend(make.block(2, &old.concat()));
        // A second section of the other order, whose interface 0 is another one.
        let other = Make(if make.0 == Order::Little { Order::Big } else { Order::Little });
        file.extend(other.section());
        file.extend(other.interface(1, 0, &[other.w16(9), other.w16(1), vec![0x81, 0, 0, 0]].concat()));
        file.extend(other.enhanced(0, 3, &[]));

        let want = [
            frame(1_500_000_000, 9, &[1, 2, 3, 4, 5]),
            Frame { link_type: 113, ..frame(10_001_500_000, 5, &[6]) },
            frame(0, 6, &[1, 2, 3, 4]),
            Frame { link_type: 113, ..frame(10_000_000_005, 2, &[7, 7]) },
            frame(1_500_000_000, 4, &[]),
        ];
        assert_eq!(read(&file).unwrap(), want);
        assert_eq!(Reader::new(&file[..]).unwrap().link_type(), None);
    }
}

#[test]
fn truncated_files_say_where() {
    let make = BOTH[0];
    let mut file = make.section();
    file.extend(make.interface(1, 0, &[]));
    let packet_at = file.len();
    file.extend(make.enhanced(0, 1, &[1, 2, 3, 4, 5]));
    for cut in packet_at + 1..file.len() {
        match read(&file[..cut]) {
            Err(CaptureError::Truncated { .. }) => {}
            other => panic!("cut at {cut}: {other:?}"),
        }
    }
    assert!(read(&file[..packet_at]).unwrap().is_empty());

    let mut writer = Writer::new(Vec::new(), 1, 100, Resolution::Micros).unwrap();
    writer.write(0, 3, &[1, 2, 3]).unwrap();
    let file = writer.into_inner();
    for cut in 25..file.len() {
        assert!(
            matches!(read(&file[..cut]), Err(CaptureError::Truncated { offset: 24, what: "packet record" })),
            "cut at {cut}"
        );
    }
    assert!(matches!(read(&file[..3]), Err(CaptureError::Truncated { offset: 0, .. })));
    assert!(matches!(read(b"GIF89a"), Err(CaptureError::NotACapture([b'G', b'I', b'F', b'8']))));
}

#[test]
fn hostile_lengths_are_refused() {
    for make in BOTH {
        let mut start = make.section();
        start.extend(make.interface(1, 0, &[]));
        let at = start.len() as u64;
        let with = |tail: Vec<u8>| read(&[start.clone(), tail].concat()).unwrap_err();

        for length in [0, 8, 11, 13] {
            let error = with(make.words(&[6, length, 0, 0]));
            let CaptureError::BadLength { offset, what: "block length", value } = error else {
                panic!("{error:?}")
            };
            assert_eq!((offset, value), (at, length));
        }
        // A captured length above the limit, and one above the block.
        let long = make.words(&[6, u32::MAX - 3, 0, 0, 0, u32::MAX, 0]);
        assert!(matches!(with(long), CaptureError::BadLength { what: "captured length", .. }));
        let outside = make.words(&[6, 36, 0, 0, 0, 100, 100, 0, 36]);
        assert!(matches!(with(outside), CaptureError::BadLength { value: 100, .. }));
        let trailer = make.words(&[99, 16, 0, 20]);
        assert!(matches!(with(trailer), CaptureError::BadLength { what: "trailing block length", .. }));
        let unknown = make.enhanced(5, 0, &[]);
        assert!(matches!(with(unknown), CaptureError::BadInterface { interface: 5, .. }));
        let big = make.words(&[1, 0x10_0000, 0, 0]);
        assert!(matches!(with(big), CaptureError::BadLength { what: "interface block length", .. }));

        let mut classic = [make.words(&[0xa1b2_c3d4]), vec![0; 20]].concat();
        classic.extend(make.words(&[0, 0, MAX_FRAME_BYTES + 1, 0]));
        assert!(matches!(read(&classic), Err(CaptureError::BadLength { offset: 24, .. })));
    }
    let mut bad = BOTH[0].section();
    bad[8] ^= 1;
    assert!(matches!(read(&bad), Err(CaptureError::BadByteOrder { offset: 0 })));
}

#[test]
fn an_error_ends_the_iteration() {
    let mut file = [BOTH[0].words(&[0xa1b2_c3d4]), vec![0; 20]].concat();
    file.extend([0; 7]);
    let mut reader = Reader::new(&file[..]).unwrap();
    assert!(reader.next().unwrap().is_err());
    assert!(reader.next().is_none());
}

/// A valid file of some blocks, to be damaged.
fn sample(make: Make) -> Vec<u8> {
    let mut file = make.section();
    file.extend(make.interface(1, 64, &[make.w16(9), make.w16(1), vec![200, 0, 0, 0]].concat()));
    file.extend(make.enhanced(0, u64::MAX, &[7; 33]));
    file.extend(make.block(3, &make.words(&[4, 4])));
    file.extend(make.block(2, &make.words(&[0, 0, 0, 4, 4, 4])));
    file
}

proptest! {
    #[test]
    fn no_file_makes_it_panic_or_hold_too_much(
        which in 0usize..4,
        damage in prop::collection::vec((0usize..300, any::<u8>()), 0..6),
        noise in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let mut file = match which {
            0 => sample(BOTH[0]),
            1 => sample(BOTH[1]),
            2 => {
                let mut writer = Writer::new(Vec::new(), 1, 100, Resolution::Nanos).unwrap();
                writer.write(5, 60, &[1; 60]).unwrap();
                writer.into_inner()
            }
            _ => Vec::new(),
        };
        file.extend(noise);
        for (at, value) in damage {
            if let Some(byte) = file.get_mut(at) {
                *byte = value;
            }
        }
        if let Ok(reader) = Reader::new(&file[..]) {
            // No frame can hold more than the file has; each takes at least a block's frame.
            let frames: Vec<_> = reader.map_while(Result::ok).collect();
            prop_assert!(frames.iter().all(|f| f.data.capacity() <= file.len().max(2048)));
            prop_assert!(frames.len() <= file.len() / 12);
        }
    }
}
