//! Capture files.

use ringway_apps::capture::{MAX_FRAME_BYTES, Reader, Resolution, Writer};

/// Reads a file of either format; what was read is written and read again.
///
/// # Panics
/// If something is wrong with that.
pub fn capture(data: &[u8]) {
    let Ok(mut reader) = Reader::new(data) else { return };
    let mut frames = vec![];
    let mut at = reader.offset();
    while let Ok(Some(frame)) = reader.next_frame() {
        assert!(frame.data.len() <= MAX_FRAME_BYTES as usize && frame.data.len() <= data.len());
        assert!(reader.offset() > at && reader.offset() <= data.len() as u64);
        at = reader.offset();
        frames.push(frame);
    }
    assert!(matches!(reader.next_frame(), Ok(None)), "it goes on after its end");
    let Some(link_type) = frames.first().map(|f| f.link_type) else { return };
    let mut writer = Writer::new(vec![], link_type, MAX_FRAME_BYTES, Resolution::Nanos)
        .expect("a vector takes everything");
    for f in &frames {
        writer.write(f.ts_ns, f.orig_len, &f.data).expect("a vector takes everything");
    }
    let written = writer.into_inner();
    let again: Vec<_> =
        Reader::new(&written[..]).expect("our own header").map(|f| f.expect("our own")).collect();
    assert_eq!(again.len(), frames.len());
    for (a, b) in again.iter().zip(&frames) {
        assert_eq!(a.data, b.data);
        // 32 bits of seconds.
        if b.ts_ns / 1_000_000_000 <= u64::from(u32::MAX) {
            assert_eq!(a.ts_ns, b.ts_ns);
        }
    }
}
