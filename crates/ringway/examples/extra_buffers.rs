//! Buffers that lie in no slot: received packets are set aside without copying, and their slots go on receiving.

use ringway::{ExtraBuf, Netmap, swap};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let netmap = Netmap::embedded();
    let mut sender = netmap.open("vale0:a")?;
    let mut receiver = netmap.builder("vale0:b").extra_buffers(16).open()?;
    println!("{} extra buffers granted", receiver.extra_left());

    let mut aside: Vec<(ExtraBuf, u16)> = Vec::new();
    for number in 0..10u8 {
        let mut tx = sender.tx(0);
        let mut frame = [0xff; 60];
        frame[14] = number;
        tx.send(&frame);
        tx.sync()?;

        let spare = if number % 2 == 0 { receiver.take_extra() } else { None };
        let mut rx = receiver.rx(0);
        rx.sync()?;
        let Some(len) = rx.slot(0).map(|slot| slot.len()) else { continue };
        if let Some(mut spare) = spare {
            // The packet is in `spare` now, and the slot has an empty buffer.
            swap(rx.place(0)?, spare.place())?;
            aside.push((spare, len));
        }
        rx.release(1);
    }

    for (buffer, len) in &aside {
        let payload = buffer.payload(&receiver).ok_or("the port is open")?;
        println!("packet {:?}, {len} bytes, in buffer {:?}", payload.load_u8(14), buffer.buf_idx());
    }
    // Dropped, they can be taken again; when the port closes, all go back to the region.
    aside.clear();
    assert_eq!(receiver.extra_left(), 16);
    Ok(())
}
