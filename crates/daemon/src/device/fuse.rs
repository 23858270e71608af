//! The file system: a folder with one file. Requests are handed to the threads of descriptors; nothing here waits.

use super::descriptor::{Descriptor, Job, User};
use super::memory::Caller;
use super::{FILE_NAME, Task};
use fuser::*;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

/// What the kernel may remember of attributes. Of names nothing: each user finds an inode of his own.
const ATTR_TTL: Duration = Duration::from_secs(1);
/// The inode of user 0's file; others follow.
const FIRST_FILE: u64 = 2;

/// The file system.
#[derive(Debug)]
pub(super) struct DeviceFs {
    task: Task,
    made: SystemTime,
    open: Mutex<HashMap<u64, Arc<Descriptor>>>,
    users: Mutex<HashMap<u32, Arc<User>>>,
    next: AtomicU64,
}

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

impl DeviceFs {
    pub fn new(task: Task) -> Self {
        DeviceFs {
            task,
            made: SystemTime::now(),
            open: Mutex::default(),
            users: Mutex::default(),
            next: AtomicU64::new(1),
        }
    }

    fn attr(&self, ino: INodeNo) -> FileAttr {
        let is_folder = ino == INodeNo::ROOT;
        FileAttr {
            ino,
            size: 0,
            blocks: 0,
            atime: self.made,
            mtime: self.made,
            ctime: self.made,
            crtime: self.made,
            kind: if is_folder { FileType::Directory } else { FileType::RegularFile },
            perm: if is_folder { 0o755 } else { self.task.mode },
            nlink: 1,
            uid: if is_folder { 0 } else { self.task.owner },
            gid: if is_folder { 0 } else { self.task.group },
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }

    fn descriptor(&self, fh: FileHandle) -> Option<Arc<Descriptor>> {
        lock(&self.open).get(&fh.0).cloned()
    }

    fn user(&self, uid: u32) -> Arc<User> {
        lock(&self.users).entry(uid).or_insert_with(|| Arc::new(User::new(uid))).clone()
    }
}

impl Filesystem for DeviceFs {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        config
            .add_capabilities(InitFlags::FUSE_PASSTHROUGH)
            .map_err(|_| io::Error::other("the kernel has no FUSE pass-through"))?;
        config.set_max_stack_depth(1).map_err(|_| io::Error::from(io::ErrorKind::Unsupported))?;
        Ok(())
    }

    fn lookup(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if parent != INodeNo::ROOT || name != FILE_NAME {
            return reply.error(Errno::ENOENT);
        }
        let ino = INodeNo(FIRST_FILE + u64::from(req.uid()));
        reply.entry_with_ttls(&ATTR_TTL, &Duration::ZERO, &self.attr(ino), Generation(0));
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&ATTR_TTL, &self.attr(ino));
    }

    fn setattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        _size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        // Owner and mode are the configuration's. O_TRUNC means nothing, as on a device.
        if mode.is_some() || uid.is_some() || gid.is_some() {
            return reply.error(Errno::EPERM);
        }
        reply.attr(&ATTR_TTL, &self.attr(ino));
    }

    fn open(&self, req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        if ino != INodeNo(FIRST_FILE + u64::from(req.uid())) {
            // Found by one user and opened by another (setfsuid between the two): look again.
            return reply.error(Errno::ESTALE);
        }
        let user = self.user(req.uid());
        let fh = self.next.fetch_add(1, Relaxed);
        match Descriptor::start(&user, Caller::of(req), self.task.descriptors, FileHandle(fh), reply) {
            Ok(descriptor) => {
                lock(&self.open).insert(fh, descriptor);
            }
            Err((reply, errno)) => reply.error(Errno::from_i32(errno.0)),
        }
    }

    fn ioctl(
        &self,
        req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        flags: IoctlFlags,
        cmd: u32,
        in_data: &[u8],
        out_size: u32,
        reply: ReplyIoctl,
    ) {
        let Some(descriptor) = self.descriptor(fh) else { return reply.error(Errno::EBADF) };
        if flags.intersects(IoctlFlags::FUSE_IOCTL_COMPAT | IoctlFlags::FUSE_IOCTL_UNRESTRICTED) {
            return reply.error(Errno::EOPNOTSUPP);
        }
        let data = in_data.to_vec();
        descriptor.push(Job::Ioctl { caller: Caller::of(req), cmd, data, out_size, reply });
    }

    fn poll(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        ph: PollNotifier,
        events: PollEvents,
        flags: PollFlags,
        reply: ReplyPoll,
    ) {
        let Some(descriptor) = self.descriptor(fh) else { return reply.poll(PollEvents::POLLERR) };
        let notifier = flags.contains(PollFlags::FUSE_POLL_SCHEDULE_NOTIFY).then_some(ph);
        // Bits beyond 16 are epoll's own.
        descriptor.push(Job::Poll { events: events.bits() as u16 as i16, notifier, reply });
    }

    fn release(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        if let Some(descriptor) = lock(&self.open).remove(&fh.0) {
            descriptor.release();
        }
        reply.ok();
    }

    fn read(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _offset: u64,
        _size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        reply.error(Errno::EINVAL);
    }

    fn write(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _offset: u64,
        _data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        reply.error(Errno::EINVAL);
    }

    fn readdir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let all =
            [(FileType::Directory, "."), (FileType::Directory, ".."), (FileType::RegularFile, FILE_NAME)];
        for (i, (kind, name)) in all.into_iter().enumerate().skip(offset as usize) {
            let ino = if kind == FileType::Directory { INodeNo::ROOT } else { INodeNo(FIRST_FILE) };
            if reply.add(ino, i as u64 + 1, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn flush(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _owner: LockOwner, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }
}
