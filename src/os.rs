//! What the operating system gives, Linux's way: the one file to write anew for another system.
//!
//! Knows file descriptors, addresses and lengths; nothing of headers, places or snapshots.

use std::{
    fs::File,
    io,
    ops::Range,
    os::fd::{AsRawFd, OwnedFd},
    path::Path,
    ptr::NonNull,
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

pub(crate) mod socket;
pub(crate) mod term;

use rustix::{
    fs::{FallocateFlags, MemfdFlags, Mode, OFlags, SealFlags},
    io::Errno,
    mm::{Advice, MapFlags, ProtFlags},
    thread::futex::Flags as FutexFlags,
    time::{ClockId, Timespec},
};

/// The size of a memory page: what syncing and populating round to.
pub(crate) fn page_size() -> usize {
    rustix::param::page_size()
}

/// Sixteen random bytes.
pub(crate) fn random_id() -> io::Result<[u8; 16]> {
    let mut id = [0; 16];
    let mut filled = 0;
    while filled < id.len() {
        filled +=
            rustix::rand::getrandom(&mut id[filled..], rustix::rand::GetRandomFlags::empty())?;
    }
    Ok(id)
}

/// Names this boot of the machine; all zeros where the kernel does not tell.
pub(crate) fn boot_id() -> [u8; 16] {
    static BOOT: OnceLock<[u8; 16]> = OnceLock::new();
    *BOOT.get_or_init(|| {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
        u128::from_str_radix(&digits, 16).unwrap_or(0).to_be_bytes()
    })
}

fn nanos(t: Timespec) -> u64 {
    let secs = u64::try_from(t.tv_sec).unwrap_or(0);
    secs.saturating_mul(1_000_000_000).saturating_add(u64::try_from(t.tv_nsec).unwrap_or(0))
}

/// Nanoseconds since 1970, in steps of a timer tick (1 to 10 ms): a few nanoseconds to read.
pub(crate) fn wall_clock() -> u64 {
    nanos(rustix::time::clock_gettime(ClockId::RealtimeCoarse))
}

/// Nanoseconds on a clock that never goes back, in steps of a timer tick.
pub(crate) fn steady_clock() -> u64 {
    nanos(rustix::time::clock_gettime(ClockId::MonotonicCoarse))
}

/// Whether this process is a forked child of one that called this before.
///
/// One page that the kernel empties in a child: a load, where asking for the process id would be a
/// system call. Without such a page (old kernels) forks go unseen.
#[inline]
pub(crate) fn forked() -> bool {
    // Relaxed: no partner. The word is written once below, before it is shared, and then by the
    // kernel alone, at a fork.
    origin().is_some_and(|word| word.load(Ordering::Relaxed) == 0)
}

fn origin() -> Option<&'static AtomicU32> {
    static PAGE: OnceLock<Option<&'static AtomicU32>> = OnceLock::new();
    *PAGE.get_or_init(|| {
        let len = page_size();
        let (prot, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
        // SAFETY: a new anonymous mapping at an address of the kernel's choice.
        let page = unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), len, prot, flags) };
        let page = NonNull::new(page.ok()?)?;
        // SAFETY: the page just mapped, whole; emptying it in a child is what we want.
        unsafe { rustix::mm::madvise(page.as_ptr(), len, Advice::LinuxWipeOnFork) }.ok()?;
        // SAFETY: mapped, aligned, zeroed, never unmapped, and used only as this atomic.
        let word: &'static AtomicU32 = unsafe { page.cast::<AtomicU32>().as_ref() };
        // Relaxed: `OnceLock` publishes it.
        word.store(1, Ordering::Relaxed);
        Some(word)
    })
}

/// A file system, as far as we care.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileSystem {
    /// Lives in memory: reserving space takes memory.
    Memory,
    /// Mappings and locks are not to be relied on.
    Remote(&'static str),
    Disk,
}

/// The kind of file system that `fd` is on.
pub(crate) fn file_system(fd: &File) -> io::Result<FileSystem> {
    let kind = rustix::fs::fstatfs(fd)?.f_type;
    Ok(by_magic(u32::try_from(kind & 0xffff_ffff).unwrap_or(0)))
}

/// By the numbers of linux/magic.h and of the file systems' own headers.
fn by_magic(magic: u32) -> FileSystem {
    match magic {
        0x0102_1994 | 0x8584_58f6 => FileSystem::Memory,
        0x6969 => FileSystem::Remote("NFS"),
        0x0102_1997 => FileSystem::Remote("9p"),
        0x517b => FileSystem::Remote("SMB"),
        0xfe53_4d42 | 0xff53_4d42 => FileSystem::Remote("SMB"),
        0x6573_5546 => FileSystem::Remote("FUSE"),
        0x00c3_6400 => FileSystem::Remote("Ceph"),
        0x0bd0_0bd0 => FileSystem::Remote("Lustre"),
        0x4750_4653 => FileSystem::Remote("GPFS"),
        0x5346_414f | 0x6b41_4653 => FileSystem::Remote("AFS"),
        0x7375_7245 => FileSystem::Remote("Coda"),
        0x7461_636f => FileSystem::Remote("OCFS2"),
        0x0116_1970 => FileSystem::Remote("GFS2"),
        0x786f_4256 => FileSystem::Remote("VirtualBox"),
        _ => FileSystem::Disk,
    }
}

/// Opens a directory as the anchor of everything done inside it.
pub(crate) fn open_dir(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?.into())
}

/// Opens `name` in `dir` for reading and writing. Never follows a symbolic link, never waits for
/// the other end of a FIFO.
pub(crate) fn open_in(dir: &File, name: &str) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir, name, flags, Mode::empty())?.into())
}

/// Opens `name` in `dir` for reading alone; otherwise as [`open_in`].
pub(crate) fn open_to_read_in(dir: &File, name: &str) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir, name, flags, Mode::empty())?.into())
}

/// Creates `name` in `dir`, for its owner alone; an error if it is there.
pub(crate) fn create_in(dir: &File, name: &str) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir, name, flags, Mode::RUSR | Mode::WUSR)?.into())
}

/// Renames within `dir`, over whatever has the new name.
pub(crate) fn rename_in(dir: &File, from: &str, to: &str) -> io::Result<()> {
    Ok(rustix::fs::renameat(dir, from, dir, to)?)
}

/// Removes `name` from `dir`.
pub(crate) fn remove_in(dir: &File, name: &str) -> io::Result<()> {
    Ok(rustix::fs::unlinkat(dir, name, rustix::fs::AtFlags::empty())?)
}

/// The user this process acts as.
pub(crate) fn effective_user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// A file without a name, which may grow and never shrink.
pub(crate) fn memory_file(name: &str) -> io::Result<File> {
    let fd: OwnedFd =
        rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK)?;
    Ok(fd.into())
}

/// Makes bytes `[from, to)` of the file real: the disk (or memory) can no longer run out under a
/// store to them. The length becomes `to` at least.
pub(crate) fn reserve(file: &File, from: u64, to: u64) -> io::Result<()> {
    loop {
        match rustix::fs::fallocate(file, FallocateFlags::empty(), from, to - from) {
            Ok(()) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(Errno::OPNOTSUPP) => return fill_with_zeros(file, from, to),
            Err(e) => return Err(e.into()),
        }
    }
}

/// Whether a file in memory has a page for each of its `len` bytes: it then needs no reserving,
/// which would walk them all.
pub(crate) fn has_all_pages(file: &File, len: u64) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    file.metadata().is_ok_and(|meta| meta.blocks() * 512 >= len)
}

/// For file systems that cannot reserve.
fn fill_with_zeros(file: &File, from: u64, to: u64) -> io::Result<()> {
    use std::os::unix::fs::FileExt as _;
    let zeros = vec![0; 1 << 20];
    let mut at = from.max(file.metadata()?.len());
    while at < to {
        let len = zeros.len().min(usize::try_from(to - at).unwrap_or(usize::MAX));
        file.write_all_at(&zeros[..len], at)?;
        at += len as u64;
    }
    Ok(())
}

/// Takes the exclusive lock of a file; `false` if another open file has it. It ends with the last
/// descriptor, or by [`unlock`].
pub(crate) fn try_lock(file: &File) -> io::Result<bool> {
    set_lock(file, libc::F_WRLCK, 0..0)
}

/// Gives the lock back, also where a forked child still holds the descriptor.
pub(crate) fn unlock(file: &File) -> io::Result<()> {
    set_lock(file, libc::F_UNLCK, 0..0).map(drop)
}

/// Takes a lock of one byte that any number of open files can share; `false` if one has it for
/// itself. Of the file as opened: taken twice it is still one lock, and it ends as [`try_lock`]'s.
pub(crate) fn share_byte(file: &File, at: u64) -> io::Result<bool> {
    set_lock(file, libc::F_RDLCK, at..at + 1)
}

/// Gives the lock of a byte back.
pub(crate) fn unshare_byte(file: &File, at: u64) -> io::Result<()> {
    set_lock(file, libc::F_UNLCK, at..at + 1).map(drop)
}

/// Bytes among these that another open file has locked; one such range, if there are several.
pub(crate) fn locked_by_others(file: &File, bytes: Range<u64>) -> io::Result<Option<Range<u64>>> {
    let found = lock_call(file, libc::F_OFD_GETLK, libc::F_WRLCK, bytes)?;
    if i32::from(found.l_type) == libc::F_UNLCK {
        return Ok(None);
    }
    let start = u64::try_from(found.l_start).unwrap_or(0);
    // Without a length it reaches to the end of all files.
    let len = u64::try_from(found.l_len).ok().filter(|len| *len > 0);
    Ok(Some(start..len.map_or(u64::MAX, |len| start.saturating_add(len))))
}

/// Sets a lock on a range of bytes (an empty one: on all); `false` if another open file has one
/// that excludes it.
fn set_lock(file: &File, kind: libc::c_int, bytes: Range<u64>) -> io::Result<bool> {
    match lock_call(file, libc::F_OFD_SETLK, kind, bytes) {
        Ok(_) => Ok(true),
        Err(e) if matches!(e.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
        Err(e) => Err(e),
    }
}

fn lock_call(
    file: &File,
    call: libc::c_int,
    kind: libc::c_int,
    bytes: Range<u64>,
) -> io::Result<libc::flock> {
    let offset = |at: u64| libc::off_t::try_from(at).map_err(|_| io::ErrorKind::InvalidInput);
    // SAFETY: a struct of integers, for which zero is a value.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock.l_start = offset(bytes.start)?;
    lock.l_len = offset(bytes.end - bytes.start)?;
    // SAFETY: an open descriptor, and a whole `flock` of ours that the call reads and may write.
    match unsafe { libc::fcntl(file.as_raw_fd(), call, &raw mut lock) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(lock),
    }
}

/// Sleeps while the word, which other processes share, is `seen`: until it is
/// [woken](wake_waiting), at most `limit`, and now and then for no reason.
pub(crate) fn wait_while(word: &AtomicU32, seen: u32, limit: Duration) {
    let secs = i64::try_from(limit.as_secs()).unwrap_or(i64::MAX);
    let limit = Timespec { tv_sec: secs, tv_nsec: limit.subsec_nanos().into() };
    // Its errors are the ways to wake up: another value, a signal, the limit.
    _ = rustix::thread::futex::wait(word, FutexFlags::empty(), seen, Some(&limit));
}

/// Wakes whoever waits for the word to change, in any process.
pub(crate) fn wake_waiting(word: &AtomicU32) {
    // Fails only for an address that is none of ours.
    _ = rustix::thread::futex::wake(word, FutexFlags::empty(), i32::MAX as u32);
}

/// A forked child does not get these pages: it faults rather than writes.
///
/// # Safety
///
/// `[at, at + len)` is a mapping of the caller's.
pub(crate) unsafe fn keep_from_children(at: NonNull<u8>, len: usize) -> io::Result<()> {
    // SAFETY: by the caller's promise; the advice changes no bytes.
    Ok(unsafe { rustix::mm::madvise(at.as_ptr().cast(), len, Advice::LinuxDontFork) }?)
}

/// Lets go of the memory under these whole pages of a shared mapping of `file`: first the mapping's
/// hold on them, then the page cache, which keeps what is not on the disk. Bytes stay what they are.
pub(crate) fn forget(
    file: &File,
    map: &memmap2::MmapRaw,
    from: usize,
    len: usize,
) -> io::Result<()> {
    assert!(from.checked_add(len).is_some_and(|end| end <= map.len()), "inside the mapping");
    // SAFETY: inside the mapping, by the assertion.
    let at = unsafe { map.as_mut_ptr().add(from) };
    // SAFETY: whole pages (an error otherwise) of a shared mapping: what was stored to them is in
    // the page cache, and they come back from there, or from the file, with the same bytes.
    unsafe { rustix::mm::madvise(at.cast(), len, Advice::LinuxDontNeed) }?;
    let (from, len) = (from as u64, std::num::NonZeroU64::new(len as u64));
    Ok(rustix::fs::fadvise(file, from, len, rustix::fs::Advice::DontNeed)?)
}

/// A touch of these whole pages of a mapping brings in them alone, and not what follows in the file.
///
/// # Safety
///
/// As for [`populate`].
pub(crate) unsafe fn touch_alone(at: NonNull<u8>, len: usize) -> io::Result<()> {
    // SAFETY: by the caller's promise; the advice changes no bytes.
    Ok(unsafe { rustix::mm::madvise(at.as_ptr().cast(), len, Advice::Random) }?)
}

/// Has these bytes of a file written out, as far as they are dirty, and waits for nothing.
pub(crate) fn start_write_back(file: &File, from: u64, len: u64) {
    let (Ok(from), Ok(len)) = (libc::off64_t::try_from(from), libc::off64_t::try_from(len)) else {
        return;
    };
    // A hint alone: what it could not do is done by the sync, which tells of failures.
    // SAFETY: an open descriptor and numbers.
    _ = unsafe { libc::sync_file_range(file.as_raw_fd(), from, len, libc::SYNC_FILE_RANGE_WRITE) };
}

/// Lets this thread run after those that somebody waits for: nicer by ten, and in batches. The other
/// threads of the process are not touched.
pub(crate) fn yield_to_others() -> io::Result<()> {
    const NICE: libc::c_int = 10;
    let me = rustix::thread::gettid().as_raw_nonzero().get();
    // SAFETY: numbers alone. On Linux a thread's number stands for that thread.
    if unsafe { libc::setpriority(libc::PRIO_PROCESS, me as libc::id_t, NICE) } != 0 {
        return Err(io::Error::last_os_error());
    }
    run_in_batches()
}

/// This thread, and those that it starts, get as much of the processor as others, but do not take it
/// from whoever wakes them.
pub(crate) fn run_in_batches() -> io::Result<()> {
    let me = rustix::thread::gettid().as_raw_nonzero().get();
    // SAFETY: a struct of integers, for which zero is a value, and the only one allowed here.
    let priority: libc::sched_param = unsafe { std::mem::zeroed() };
    // SAFETY: numbers, and a struct that the call only reads.
    if unsafe { libc::sched_setscheduler(me, libc::SCHED_BATCH, &priority) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Makes pages present ahead of need; `writable` also readies them for stores. Errors where a
/// store would have signalled.
///
/// # Safety
///
/// `[at, at + len)` is page-aligned and inside a mapping of the caller's.
pub(crate) unsafe fn populate(at: NonNull<u8>, len: usize, writable: bool) -> io::Result<()> {
    let advice = if writable { Advice::LinuxPopulateWrite } else { Advice::LinuxPopulateRead };
    // SAFETY: by the caller's promise; the advice changes no bytes.
    match unsafe { rustix::mm::madvise(at.as_ptr().cast(), len, advice) } {
        // A kernel before 5.14: the pages come one by one, as they are touched.
        Ok(()) | Err(Errno::INVAL) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// Makes pages dirty as stores to them would, without any: a failed writeback has left them clean
/// and write-protected. `false`: this kernel has no such call.
///
/// # Safety
///
/// As for [`populate`].
pub(crate) unsafe fn dirty(at: NonNull<u8>, len: usize) -> io::Result<bool> {
    // SAFETY: by the caller's promise; the advice changes no bytes.
    match unsafe { rustix::mm::madvise(at.as_ptr().cast(), len, Advice::LinuxPopulateWrite) } {
        Ok(()) => Ok(true),
        Err(Errno::INVAL) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

#[cfg(test)]
mod tests {
    //! A network file system taken for a disk would lose snapshots without a word.

    use super::*;

    #[test]
    fn file_systems_are_told_apart_by_their_numbers() {
        let remote = [
            (0x6969, "NFS"),
            (0x0102_1997, "9p"),
            (0x517b, "SMB"),
            (0xfe53_4d42, "SMB"),
            (0xff53_4d42, "SMB"),
            (0x6573_5546, "FUSE"),
            (0x00c3_6400, "Ceph"),
            (0x0bd0_0bd0, "Lustre"),
            (0x4750_4653, "GPFS"),
            (0x5346_414f, "AFS"),
            (0x6b41_4653, "AFS"),
            (0x7375_7245, "Coda"),
            (0x7461_636f, "OCFS2"),
            (0x0116_1970, "GFS2"),
            (0x786f_4256, "VirtualBox"),
        ];
        for (magic, name) in remote {
            assert_eq!(by_magic(magic), FileSystem::Remote(name), "{magic:#x}");
        }
        // tmpfs, ramfs; ext, XFS, btrfs, overlayfs, ZFS, F2FS.
        for memory in [0x0102_1994, 0x8584_58f6] {
            assert_eq!(by_magic(memory), FileSystem::Memory);
        }
        for disk in [0xef53, 0x5846_5342, 0x9123_683e, 0x794c_7630, 0x2fc1_2fc1, 0xf2f5_2010] {
            assert_eq!(by_magic(disk), FileSystem::Disk);
        }
    }

    #[test]
    fn a_mounted_file_system_is_told_by_its_number() {
        if let Ok(memory) = File::open("/dev/shm")
            && std::fs::read_to_string("/proc/mounts").is_ok_and(|m| m.contains("tmpfs /dev/shm "))
        {
            assert_eq!(file_system(&memory).ok(), Some(FileSystem::Memory));
        }
    }
}
