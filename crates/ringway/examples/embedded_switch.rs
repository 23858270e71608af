//! A switch with three ports in one process, without a broker: it learns who sits where.

use ringway::{Netmap, Port, SyncError};

fn frame(to: u8, from: u8) -> [u8; 60] {
    let mut frame = [0; 60];
    frame[..6].copy_from_slice(&[2, 0, 0, 0, 0, to]);
    frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, from]);
    frame
}

fn send(port: &mut Port, to: u8, from: u8) -> Result<(), SyncError> {
    let mut tx = port.tx(0);
    tx.send(&frame(to, from));
    tx.sync()
}

fn received(port: &mut Port) -> Result<u32, SyncError> {
    let mut rx = port.rx(0);
    rx.sync()?;
    Ok(rx.release(u32::MAX))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let netmap = Netmap::embedded();
    let mut ports = Vec::new();
    for name in ["vale0:a", "vale0:b", "vale0:c"] {
        ports.push(netmap.open(name)?);
    }
    // Nobody knows address 2: the packet goes to all.
    send(&mut ports[0], 2, 1)?;
    assert_eq!((received(&mut ports[1])?, received(&mut ports[2])?), (1, 1));
    // It answers from port b, so the switch learns where it is; and where 1 is, it knows already.
    send(&mut ports[1], 1, 2)?;
    assert_eq!((received(&mut ports[0])?, received(&mut ports[2])?), (1, 0));
    send(&mut ports[0], 2, 1)?;
    assert_eq!((received(&mut ports[1])?, received(&mut ports[2])?), (1, 0));

    for port in netmap.ports()? {
        println!("{}: {} address(es) learned", port.name, port.macs);
    }
    println!("vale0:a counted {:?}", ports[0].counters().tx);
    Ok(())
}
