use super::*;

#[test]
fn fill_ring_keeps_order_over_the_wrap_of_the_counters() {
    let mut fill = FillRing(Ring::anonymous(8));
    for start in [0u32, u32::MAX - 3] {
        fill.0.producer().store(start, Ordering::Relaxed);
        fill.0.consumer().store(start, Ordering::Relaxed);
        assert_eq!(fill.free(), 8);
        let mut addrs = 100u64..;
        assert_eq!(fill.push(&mut addrs), 8);
        assert_eq!(addrs.next(), Some(108), "what did not fit was not drawn");
        assert_eq!((fill.free(), fill.push([1])), (0, 0));
        assert_eq!(fill.unread().collect::<Vec<_>>(), (100..108).collect::<Vec<_>>());
        fill.0.give_back(3);
        assert_eq!(fill.push([1, 2, 3, 4]), 3);
        assert_eq!(fill.unread().collect::<Vec<_>>(), [103, 104, 105, 106, 107, 1, 2, 3]);
    }
}

#[test]
fn scribbled_counters_stay_within_the_ring() {
    let mut rx = RxRing(Ring::anonymous(4));
    let mut tx = TxRing(Ring::anonymous(4));
    let mut comp = CompRing(Ring::anonymous(4));
    let values = [0, 1, 4, 5, 1000, 1 << 31, u32::MAX];
    for p in values {
        for c in values {
            for r in [&rx.0, &tx.0] {
                r.producer().store(p, Ordering::Relaxed);
                r.consumer().store(c, Ordering::Relaxed);
            }
            comp.0.producer().store(p, Ordering::Relaxed);
            comp.0.consumer().store(c, Ordering::Relaxed);
            assert!(rx.available() <= 4 && tx.free() <= 4 && comp.available() <= 4);
            for i in [0, 3, 4, u32::MAX] {
                let _ = rx.get(i);
                tx.put(i, XdpDesc { addr: 1, len: 2, options: 0 });
                let _ = comp.get(i);
            }
            rx.release(u32::MAX);
            tx.submit(u32::MAX);
            assert!(comp.drain(u32::MAX, |_| {}) <= 4);
            assert!(rx.available() <= 4 && tx.free() <= 4);
        }
    }
}

#[test]
fn another_holder_goes_on_where_the_first_stopped() {
    let mut rx = RxRing(Ring::anonymous(8));
    for i in 0..6 {
        let e = rx.0.entry(i);
        e.addr.store(u64::from(i), Ordering::Relaxed);
        e.len.store(60 + i, Ordering::Relaxed);
    }
    rx.0.publish(6);
    rx.release(2);
    // No state but the shared words: a second view of the same memory sees the rest.
    assert_eq!(rx.available(), 4);
    assert_eq!(rx.get(0), XdpDesc { addr: 2, len: 62, options: 0 });
}

#[test]
fn sizes_are_powers_of_two() {
    let s = RingSizes::for_slots(1000, 0);
    assert_eq!((s.rx, s.fill, s.tx, s.comp), (1024, 1024, 2, 2));
    assert!(s.check().is_ok() && RingSizes { rx: 1000, ..s }.check().is_err());
    assert!(RingSizes { comp: 0, ..s }.check().is_err());
    assert_eq!(RingSizes::for_slots(u32::MAX, 1).rx, MAX_ENTRIES);
}
