//! `epoll_ctl` and `epoll_wait` with netmap descriptors.
//!
//! The kernel's epoll never hears of a netmap descriptor: it is in a list beside it ([`Set`]). A wait looks at the list as poll does, and sleeps on the
//! kernel's epoll and on the list together. Edge-triggered: an event is new if a position in shared memory has moved, or the program has synced,
//! since it was told; so no edge is lost, and there may be one too many.

use core::ffi::c_int;
use libc::{
    EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD, EPOLLET, EPOLLONESHOT, POLLERR, POLLIN, epoll_event,
};
use libc::{pollfd, sigset_t, timespec};
use ringway_abi::Errno;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use crate::errno;
use crate::table::{self, DESC, Desc, EPOLL, Entry, HIDDEN, Inside, lock};
use crate::wait::{Member, in_slices, wait};
use crate::{fail, poll, real};

/// A netmap descriptor in an epoll.
#[derive(Debug)]
struct Item {
    fd: c_int,
    /// Gone when the program has closed it, and unmapped its maps.
    desc: Weak<Desc>,
    events: u32,
    data: u64,
    /// Edge-triggered: the mark when it was last told.
    told: Option<u64>,
    /// One shot: has been told.
    spent: bool,
}

/// The netmap descriptors in one epoll, in the order of their next turn.
#[derive(Debug, Default)]
pub struct Set(Mutex<Items>);

#[derive(Debug, Default)]
struct Items {
    items: Vec<Item>,
    /// Whose turn is first: the kernel's events, or ours.
    ours_first: bool,
}

impl Items {
    fn find(&mut self, fd: c_int, desc: &Arc<Desc>) -> Option<usize> {
        self.items.retain(|i| i.desc.strong_count() > 0);
        self.items.iter().position(|i| i.fd == fd && core::ptr::eq(i.desc.as_ptr(), Arc::as_ptr(desc)))
    }
}

/// epoll_ctl on a netmap descriptor.
fn control(
    ep: c_int,
    op: c_int,
    fd: c_int,
    desc: &Arc<Desc>,
    event: Option<epoll_event>,
) -> Result<(), Errno> {
    let set = match table::get(ep) {
        Some(Entry::Epoll(set)) => set,
        Some(Entry::Desc(_)) => return Err(Errno::EINVAL),
        None => {
            // The kernel says whether it is an epoll: ours is no member, unless it is a bad fd.
            // SAFETY: the kernel reads no event for DEL.
            let done = unsafe { real::epoll_ctl(ep, EPOLL_CTL_DEL, fd, core::ptr::null_mut()) };
            let error = errno::get();
            if done < 0 && error != Errno::ENOENT {
                return Err(error);
            }
            let set = Arc::new(Set::default());
            drop(table::put(ep, Entry::Epoll(set.clone())));
            set
        }
    };
    let mut list = lock(&set.0);
    let at = list.find(fd, desc);
    let fresh = |e: epoll_event| Item {
        fd,
        desc: Arc::downgrade(desc),
        events: e.events,
        data: e.u64,
        told: None,
        spent: false,
    };
    match (op, at, event) {
        (EPOLL_CTL_ADD, Some(_), Some(_)) => Err(Errno::EEXIST),
        (EPOLL_CTL_ADD, None, Some(e)) => {
            list.items.push(fresh(e));
            Ok(())
        }
        (EPOLL_CTL_MOD, Some(i), Some(e)) => {
            list.items[i] = fresh(e);
            Ok(())
        }
        (EPOLL_CTL_DEL, Some(i), _) => {
            list.items.remove(i);
            Ok(())
        }
        (EPOLL_CTL_MOD | EPOLL_CTL_DEL, None, _) => Err(Errno::ENOENT),
        _ => Err(Errno::EINVAL),
    }
}

/// epoll_ctl on a device file. The kernel's epoll may have it already, from before it was recognised; then it stays there.
fn control_file(
    ep: c_int,
    op: c_int,
    fd: c_int,
    desc: &Arc<Desc>,
    mut event: Option<epoll_event>,
) -> Result<(), Errno> {
    let ours = match table::get(ep) {
        Some(Entry::Epoll(set)) => lock(&set.0).find(fd, desc).is_some(),
        _ => false,
    };
    if !ours {
        let at = event.as_mut().map_or(core::ptr::null_mut(), core::ptr::from_mut);
        // SAFETY: the event is valid, or null where none is read.
        if unsafe { real::epoll_ctl(ep, op, fd, at) } < 0 {
            return Err(errno::get());
        }
        if op != EPOLL_CTL_ADD {
            return Ok(());
        }
        // So it was not in there: it goes where its waits are ours.
        // SAFETY: the kernel reads no event for DEL.
        unsafe { real::epoll_ctl(ep, EPOLL_CTL_DEL, fd, core::ptr::null_mut()) };
    }
    control(ep, op, fd, desc, event)
}

/// # Safety
/// As epoll_ctl(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn epoll_ctl(ep: c_int, op: c_int, fd: c_int, event: *mut epoll_event) -> c_int {
    if table::kind(fd) != DESC || table::is_inside() || table::is_lent() {
        // SAFETY: as the caller promises.
        return unsafe { real::epoll_ctl(ep, op, fd, event) };
    }
    let _inside = Inside::enter();
    let Some(desc) = table::desc(fd) else { return fail(Errno::EBADF) };
    if table::kind(ep) == HIDDEN {
        return fail(Errno::EBADF);
    }
    // SAFETY: as the caller promises.
    let event = if op == EPOLL_CTL_DEL { None } else { unsafe { event.as_ref() }.copied() };
    if event.is_none() && op != EPOLL_CTL_DEL {
        return fail(Errno::EFAULT);
    }
    let served = if desc.is_file() {
        control_file(ep, op, fd, &desc, event)
    } else {
        control(ep, op, fd, &desc, event)
    };
    match served {
        Ok(()) => 0,
        Err(e) => fail(e),
    }
}

/// The event that is told of what was found. The bits are poll's.
fn event(found: i16, data: u64) -> epoll_event {
    epoll_event { events: u32::from(found as u16), u64: data }
}

/// epoll_wait on an epoll with netmap descriptors.
///
/// # Safety
/// `events` has room for `max`.
#[inline(never)]
unsafe fn mixed(
    ep: c_int,
    events: *mut epoll_event,
    max: c_int,
    timeout: Option<Duration>,
    mask: *const sigset_t,
) -> c_int {
    let _inside = Inside::enter();
    let Some(Entry::Epoll(set)) = table::get(ep) else { return fail(Errno::EBADF) };
    let Some(max) = usize::try_from(max).ok().filter(|m| *m > 0) else { return fail(Errno::EINVAL) };
    let mut members = Vec::new();
    let ours_first = {
        let mut list = lock(&set.0);
        list.items.retain(|i| i.desc.strong_count() > 0);
        for item in list.items.iter().filter(|i| !i.spent) {
            let Some(desc) = item.desc.upgrade() else { continue };
            let since = if item.events & EPOLLET as u32 != 0 { item.told } else { None };
            members.push(Member { fd: item.fd, desc, events: item.events as i16, since });
        }
        list.ours_first = !list.ours_first;
        list.ours_first
    };
    let mut revents = vec![0; members.len()];
    let mut kernel = [pollfd { fd: ep, events: POLLIN, revents: 0 }];
    if let Err(e) = wait(&members, &mut revents, &mut kernel, timeout, mask) {
        return fail(e);
    }
    if kernel[0].revents & libc::POLLNVAL != 0 {
        return fail(Errno::EBADF);
    }
    // SAFETY: as the caller promises.
    let out = unsafe { core::slice::from_raw_parts_mut(events, max) };
    let mut count = 0;
    let theirs = |out: &mut [epoll_event]| {
        if kernel[0].revents == 0 || out.is_empty() {
            return 0;
        }
        let n = real::own_epoll_look(ep, out);
        usize::try_from(n).unwrap_or(0)
    };
    if !ours_first {
        count += theirs(out);
    }
    {
        let mut list = lock(&set.0);
        for (member, found) in members.iter().zip(&revents).filter(|(_, found)| **found != 0) {
            if count == max {
                break;
            }
            let Some(i) = list.find(member.fd, &member.desc) else { continue };
            let mut item = list.items.remove(i);
            out[count] = event(*found, item.data);
            count += 1;
            item.told = Some(member.mark());
            item.spent = item.events & EPOLLONESHOT as u32 != 0;
            // The next time others go first.
            list.items.push(item);
        }
    }
    if ours_first {
        count += theirs(&mut out[count..]);
    }
    count as c_int
}

/// True if the epoll has netmap descriptors in it.
#[inline]
fn concerns(ep: c_int) -> bool {
    table::kind(ep) == EPOLL && !table::is_inside()
}

/// # Safety
/// As epoll_wait(2).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn epoll_wait(
    ep: c_int,
    events: *mut epoll_event,
    max: c_int,
    timeout: c_int,
) -> c_int {
    // SAFETY: as the caller promises.
    unsafe {
        if !concerns(ep) {
            return real::epoll_wait(ep, events, max, timeout);
        }
        let timeout = u64::try_from(timeout).ok().map(Duration::from_millis);
        in_slices(timeout, |timeout, _| mixed(ep, events, max, timeout, core::ptr::null()))
    }
}

/// # Safety
/// As epoll_pwait(2).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn epoll_pwait(
    ep: c_int,
    events: *mut epoll_event,
    max: c_int,
    timeout: c_int,
    mask: *const sigset_t,
) -> c_int {
    // SAFETY: as the caller promises.
    unsafe {
        if !concerns(ep) {
            return real::epoll_pwait(ep, events, max, timeout, mask);
        }
        let timeout = u64::try_from(timeout).ok().map(Duration::from_millis);
        in_slices(timeout, |timeout, _| mixed(ep, events, max, timeout, mask))
    }
}

/// # Safety
/// As epoll_pwait2(2).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn epoll_pwait2(
    ep: c_int,
    events: *mut epoll_event,
    max: c_int,
    timeout: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    // SAFETY: as the caller promises.
    unsafe {
        if !concerns(ep) {
            return real::epoll_pwait2(ep, events, max, timeout, mask);
        }
        match poll::time(timeout) {
            Ok(timeout) => in_slices(timeout, |timeout, _| mixed(ep, events, max, timeout, mask)),
            Err(e) => fail(e),
        }
    }
}

// The bits are the same. Source: epoll_ctl(2), poll(2).
const _: () = assert!(libc::EPOLLIN == POLLIN as c_int && libc::EPOLLERR == POLLERR as c_int);
