//! What the compiler refuses, so that no buffer gets two owners, is used by who does not have it any more, or outlives its port. Each
//! entry is tested twice: its first lines compile, and with the last one they do not. (What is refused at run time: `tests/ownership.rs`.)

/// `cannot!(name, code, lines, line)`: after `lines`, which compile, `line` is refused with error `code`.
macro_rules! cannot {
    ($($name:ident, $code:literal, $lines:literal, $line:literal;)*) => { $(
        #[doc = concat!("```\n", begin!(), $lines, "\n# Ok::<(), Box<dyn std::error::Error>>(())\n```")]
        #[doc = concat!(
            "```compile_fail,", $code, "\n", begin!(), $lines, "\n", $line,
            "\n# Ok::<(), Box<dyn std::error::Error>>(())\n```"
        )]
        #[allow(dead_code)]
        struct $name;
    )* };
}

/// What all of them begin with: two ports of one region, and an extra buffer.
macro_rules! begin {
    () => {
        "# #![allow(unused)]
# use ringway::*;
# let netmap = Netmap::embedded();
# let mut a = netmap.builder(\"vale0:a\").extra_buffers(2).open()?;
# let mut b = netmap.builder(\"vale0:b\").share_memory_with(&a).open()?;
# let mut extra = a.take_extra().unwrap();
"
    };
}

cannot! {
    UseASlotAfterItsRingWasSynced, "E0502",
        "let mut tx = a.tx(0); let slot = tx.slot(0).unwrap(); slot.set(60, 0);", "tx.sync()?; slot.len();";
    UseASlotThatWasHandedOver, "E0502",
        "let mut tx = a.tx(0); let slot = tx.slot(0).unwrap();", "tx.advance(1); slot.set(60, 0);";
    UseAReleasedPacket, "E0502",
        "let mut rx = a.rx(0); let packet = rx.slot(0).map(|s| s.payload());",
        "rx.release(1); packet.map(|p| p.len());";
    KeepAPayloadFromASwap, "E0502",
        "let mut tx = a.tx(0); let p = tx.slot(0).unwrap().payload();", "tx.place(0)?; p.store_u8(0, 1);";
    KeepASlotThatAClosureWasLent, "E0521",
        "let mut tx = a.tx(0); let mut kept = tx.slot(0);", "tx.fill(1, |slot| { kept = Some(*slot); true });";
    KeepAPayloadThatAClosureWasLent, "E0521",
        "let mut rx = a.rx(0); let mut kept: Vec<Payload> = vec![];", "rx.drain(1, |slot| { kept.push(slot.payload()); true });";
    CloseAPortWhoseRingIsBorrowed, "E0505",
        "let mut tx = a.tx(0);", "drop(a); tx.sync()?;";
    CloseAPortWhosePayloadIsBorrowed, "E0505",
        "let p = extra.payload(&a).unwrap();", "drop(a); p.len();";
    BorrowARingTwice, "E0499",
        "let mut tx = a.tx(0);", "let mut again = a.tx(0); tx.sync()?;";
    WaitWhileARingIsBorrowed, "E0499",
        "let rx = a.rx(0);", "a.wait(Interest::RX, None)?; rx.len();";
    HandADescriptorOnWhileARingIsBorrowed, "E0499",
        "let mut tx = a.tx(0);", "a.descriptor(); tx.place(0)?;";
    SwapTwoSlotsOfOneBorrow, "E0499",
        "let (mut tx, mut other) = (a.tx(0), b.tx(0)); swap(tx.place(0)?, other.place(0)?)?;",
        "swap(tx.place(0)?, tx.place(1)?)?;";
    SwapAPlaceTwice, "E0382",
        "let (mut tx, mut rx) = (a.tx(0), b.tx(0)); let p = tx.place(0)?; swap(p, rx.place(0)?)?;",
        "swap(p, extra.place())?;";
    SwapAnExtraBufferWithItself, "E0499",
        "extra.place();", "swap(extra.place(), extra.place())?;";
    KeepThePayloadOfAnExtraBufferFromASwap, "E0502",
        "let p = extra.payload(&b);", "swap(extra.place(), b.tx(0).place(0)?)?; p.is_some();";
    CopyAnExtraBuffer, "E0599",
        "extra.buf_idx();", "extra.clone();";
    MakeAnotherBufferOfAnExtraBuffer, "E0616",
        "extra.buf_idx();", "extra.entry = 1;";
    ForwardARingToItself, "E0308",
        "let mut tx = a.tx(0); tx.forward(&mut b.rx(0), 1)?;", "tx.forward(&mut tx, 1)?;";
    SayWhichBufferLiesInASlot, "E0599",
        "let mut tx = a.tx(0); let slot = tx.slot(0).unwrap(); slot.buf_idx();", "slot.set_buf_idx(7);";
    LendBuffersOfAnothersPort, "E0277",
        "struct Mine; extra.payload(&a);", "extra.payload(&Mine);";
    SendASlotToAnotherThread, "E0277",
        "let mut tx = a.tx(0); let slot = tx.slot(0).unwrap();",
        "std::thread::scope(|s| { s.spawn(move || slot.set(60, 0)); });";
    UseARingInTwoThreads, "E0277",
        "let mut tx = a.tx(0);", "std::thread::scope(|s| { s.spawn(|| tx.slot(0).is_some()); tx.space(); });";
    LetAThreadOutliveThePortOfItsRing, "E0597",
        "let mut tx = a.tx(0); tx.sync()?;", "std::thread::spawn(move || tx.sync());";
    LookAtAPayloadAsASlice, "E0133",
        "let p = extra.payload(&a).unwrap();", "let bytes: &[u8] = p.as_slice();";
}
