//! Bytes and open descriptors over a Unix stream socket, none of it waited for beyond a deadline.
//!
//! Knows nothing of what is said; that is for `wire.rs`.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec},
    io::Errno,
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags,
    },
};

/// The most descriptors that go with one message; the system's limit is 253.
pub(crate) const DESCRIPTORS: usize = 128;

/// The user and the process at the other end, as the kernel knows them.
pub(crate) fn peer(stream: &UnixStream) -> io::Result<(u32, u32)> {
    // SAFETY: a struct of integers, for which zero is a value.
    let mut peer: libc::ucred = unsafe { std::mem::zeroed() };
    let mut len = size_of::<libc::ucred>() as libc::socklen_t;
    let (level, option) = (libc::SOL_SOCKET, libc::SO_PEERCRED);
    let to = (&raw mut peer).cast();
    // SAFETY: an open descriptor, and room for `len` bytes.
    match unsafe { libc::getsockopt(stream.as_raw_fd(), level, option, to, &mut len) } {
        0 => Ok((peer.uid, u32::try_from(peer.pid).unwrap_or(0))),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Waits until one of them can be read, has ended or has failed; which. All `false`: the time is up.
pub(crate) fn readable<const N: usize>(
    descriptors: [BorrowedFd<'_>; N],
    until: Option<Instant>,
) -> io::Result<[bool; N]> {
    let mut polled = descriptors.each_ref().map(|fd| PollFd::new(fd, PollFlags::IN));
    poll(&mut polled, until)?;
    Ok(polled.each_ref().map(|fd| !fd.revents().is_empty()))
}

fn poll(polled: &mut [PollFd<'_>], until: Option<Instant>) -> io::Result<()> {
    loop {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let left = left.map(|left: Duration| Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        });
        match rustix::event::poll(polled, left.as_ref()) {
            Err(Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(e) => return Err(e.into()),
        }
    }
}

/// Waits until the stream is ready; an error when the time is up.
fn ready(stream: &UnixStream, flags: PollFlags, until: Instant) -> io::Result<()> {
    let mut polled = [PollFd::new(stream, flags)];
    poll(&mut polled, Some(until))?;
    if polled[0].revents().is_empty() {
        return Err(io::Error::new(io::ErrorKind::TimedOut, "the other process did not answer"));
    }
    Ok(())
}

/// Sends all of `bytes`, the descriptors with the first of them.
pub(crate) fn send(
    stream: &UnixStream,
    mut bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
    until: Instant,
) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut left = descriptors;
    while !bytes.is_empty() {
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !left.is_empty() && !control.push(SendAncillaryMessage::ScmRights(left)) {
            return Err(io::Error::other(format!("{} descriptors in one message", left.len())));
        }
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        match rustix::net::sendmsg(stream, &[IoSlice::new(bytes)], &mut control, flags) {
            Ok(sent) => {
                bytes = &bytes[sent..];
                left = &[];
            }
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => ready(stream, PollFlags::OUT, until)?,
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// Fills `bytes`, and takes the descriptors that come with them. An error at the stream's end.
pub(crate) fn receive(
    stream: &UnixStream,
    bytes: &mut [u8],
    descriptors: &mut Vec<OwnedFd>,
    until: Instant,
) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut filled = 0;
    while filled < bytes.len() {
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut room = [IoSliceMut::new(&mut bytes[filled..])];
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        match rustix::net::recvmsg(stream, &mut room, &mut control, flags) {
            Ok(received) => {
                for message in control.drain() {
                    if let RecvAncillaryMessage::ScmRights(rights) = message {
                        descriptors.extend(rights);
                    }
                }
                if descriptors.len() > DESCRIPTORS {
                    return Err(io::Error::other("more descriptors than a message may have"));
                }
                if received.flags.contains(ReturnFlags::CTRUNC) {
                    return Err(io::Error::other(
                        "not all descriptors arrived: too many of them, or this process may have no more open",
                    ));
                }
                if received.bytes == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                filled += received.bytes;
            }
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => ready(stream, PollFlags::IN, until)?,
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// The same open file anew, with an open file description of its own.
pub(crate) fn open_again(fd: BorrowedFd<'_>) -> io::Result<std::fs::File> {
    let path = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
    std::fs::OpenOptions::new().read(true).write(true).open(path)
}

/// Whether a file can never get shorter: a memory file, sealed against it.
pub(crate) fn never_shrinks(fd: BorrowedFd<'_>) -> bool {
    use rustix::fs::SealFlags;
    rustix::fs::fcntl_get_seals(fd).is_ok_and(|seals| {
        seals.contains(SealFlags::SHRINK)
            && !seals.intersects(SealFlags::WRITE | SealFlags::FUTURE_WRITE)
    })
}
