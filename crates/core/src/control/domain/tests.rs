use super::*;

#[test]
fn the_halves_and_the_others_are_the_whole_file() {
    for half in 0..2 {
        let mut all: Vec<Range<usize>> = HALVES[half].iter().chain(&OTHERS[half]).cloned().collect();
        all.sort_by_key(|r| r.start);
        assert_eq!((all[0].start, all[all.len() - 1].end), (0, DOMAIN_BYTES));
        assert!(all.windows(2).all(|w| w[0].end == w[1].start), "{all:?}");
        let other = &HALVES[half ^ 1];
        let is_in_others =
            |r: &Range<usize>| OTHERS[half].iter().any(|o| o.start <= r.start && r.end <= o.end);
        assert!(other.iter().all(is_in_others), "the other half is swept");
    }
}

#[test]
fn places_do_not_overlap_and_are_used_again_late() {
    let ranges = [ALIGN..8 * ALIGN, 20 * ALIGN..24 * ALIGN];
    let mut p = Places::default();
    let take = |p: &mut Places, len| p.take(&ranges, len);
    let a = take(&mut p, 3 * ALIGN - 5).unwrap();
    let b = take(&mut p, 1).unwrap();
    assert_eq!((a, b), (ALIGN, 4 * ALIGN));
    p.give(a);
    assert_eq!(take(&mut p, ALIGN), Some(5 * ALIGN), "not yet at the place that was left");
    assert_eq!(take(&mut p, 3 * ALIGN), Some(a), "behind the last there is no room");
    assert_eq!(take(&mut p, 6 * ALIGN), None);
    assert_eq!(take(&mut p, 4 * ALIGN), Some(20 * ALIGN), "only far away");
    assert_eq!(take(&mut p, usize::MAX), None);
    for ofs in [a, b, 5 * ALIGN, 20 * ALIGN] {
        p.give(ofs);
    }
    assert_eq!(take(&mut p, ALIGN), Some(ALIGN), "from the start when all is over");
}

#[test]
fn places_agree_with_a_map_of_units() {
    // Oracle: an array of units. Lengths and order from a small generator.
    let ranges = [ALIGN..16 * ALIGN, 18 * ALIGN..24 * ALIGN];
    let mut p = Places::default();
    let (mut units, mut held, mut state) = ([false; 24], vec![], 7_u32);
    for n in [0, 16, 17] {
        units[n] = true;
    }
    for _ in 0..2000 {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let n = (state >> 16) as usize;
        if n.is_multiple_of(3) && !held.is_empty() {
            let (at, count): (usize, usize) = held.swap_remove(n % held.len());
            units[at..at + count].fill(false);
            p.give(at * ALIGN);
            continue;
        }
        let count = n % 5 + 1;
        let room = units.windows(count).any(|w| w.iter().all(|taken| !taken));
        match p.take(&ranges, count * ALIGN) {
            Some(ofs) => {
                let at = ofs / ALIGN;
                assert!(units[at..at + count].iter().all(|taken| !taken), "{at} {count} {units:?}");
                units[at..at + count].fill(true);
                held.push((at, count));
            }
            None => assert!(!room, "{count} {units:?}"),
        }
    }
}

#[test]
fn a_window_shows_its_part_of_the_file_and_comes_back_empty_when_it_is_given_back() {
    let mut domain = Domain::new().unwrap();
    let window = Arc::new(domain.take(5000).unwrap());
    let ofs = window.ofs();
    window.write_at_start(b"hello").unwrap();
    let in_file = domain.file().window(ofs, 5).unwrap();
    assert_eq!(&in_file.read_all().unwrap()[..5], b"hello");
    let leaving = domain.leave(window);
    assert_ne!(domain.take(5000).unwrap().ofs(), ofs, "its pages are there still");
    drop(leaving);
    assert!(in_file.read_all().unwrap().iter().all(|b| *b == 0));
    domain.settle();
    assert_eq!(domain.places.find(HALVES[0][0].clone(), 5000), Some(ofs));
}

#[test]
fn what_is_written_where_no_window_is_goes_after_the_last_window() {
    let mut domain = Domain::new().unwrap();
    let window = domain.take(5000).unwrap();
    let strays = [100 * GIB, 3 * GIB / 2, 200 * GIB, 0].map(|ofs| domain.file().window(ofs, 4096).unwrap());
    for stray in &strays {
        stray.write_at_start(b"stray").unwrap();
    }
    assert!(domain.sweep().is_none(), "not while there is a region");
    let leaving = domain.leave(Arc::new(window));
    assert!(domain.sweep().is_none(), "nor while one leaves");
    drop(leaving);
    let sweep = domain.sweep().unwrap();
    // Meanwhile the user may have a window: where nothing is swept.
    let window = domain.take(5000).unwrap();
    window.write_at_start(b"hello").unwrap();
    assert!(domain.sweep().is_none());
    drop(sweep);
    assert_eq!(&window.read_all().unwrap()[..5], b"hello");
    drop(domain.leave(Arc::new(window)));
    drop(domain.sweep().expect("the other half"));
    assert!(!domain.file().has_pages().unwrap());
    assert!(domain.sweep().is_none());
}
