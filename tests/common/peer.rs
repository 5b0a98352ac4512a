//! One side of a hand-over, spoken by hand, from SNAPSHOT_FORMAT.md alone: to say the wrong thing, or
//! nothing, at any step.

use std::{
    fs::File,
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
    time::Duration,
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};

use super::{field, table};

pub(crate) const HELLO: u8 = 1;
pub(crate) const WELCOME: u8 = 3;
pub(crate) const READY: u8 = 4;
pub(crate) const YOURS: u8 = 5;
pub(crate) const MORE: u8 = 6;
pub(crate) const TAKEN: u8 = 7;

/// A structure of the document with these fields, little-endian, and zeros.
pub(crate) fn row(name: &str, fields: &[(&str, u64)]) -> Vec<u8> {
    let mut bytes = vec![0; table(name).size()];
    for (name_of_field, value) in fields {
        let field = table(name).field(name_of_field);
        let value = &value.to_le_bytes()[..field.size];
        bytes[field.offset..][..field.size].copy_from_slice(value);
    }
    bytes
}

#[derive(Debug)]
pub(crate) struct Peer(pub(crate) UnixStream);

impl Peer {
    pub(crate) fn connect(dir: &Path) -> Peer {
        Peer::of(UnixStream::connect(dir.join("handover.sock")).expect("somebody offers"))
    }

    pub(crate) fn of(stream: UnixStream) -> Peer {
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        Peer(stream)
    }

    pub(crate) fn say(&self, kind: u8, body: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut bytes = row("frame", &[("kind", kind.into()), ("len", body.len() as u64)]);
        bytes[..4].copy_from_slice(b"SNH\x01");
        bytes.extend(body);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(fds)));
        }
        let bytes = [IoSlice::new(&bytes)];
        rustix::net::sendmsg(&self.0, &bytes, &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// What the layout of `T` says first.
    pub(crate) fn greet<T: snapring::Snapshot>(&self) {
        let fingerprint = snapring::Fingerprint::of::<T>().to_bytes();
        self.say(HELLO, &fingerprint, &[]).expect("heard");
    }

    /// The next frame's kind, body and descriptors; `None` at the end.
    pub(crate) fn hear(&self) -> Option<(u8, Vec<u8>, Vec<OwnedFd>)> {
        let (header, fds) = self.take(table("frame").size())?;
        assert_eq!(header[..4], *b"SNH\x01");
        let len = field(&header, "frame", "len") as usize;
        let body = if len == 0 { Vec::new() } else { self.take(len)?.0 };
        Some((field(&header, "frame", "kind") as u8, body, fds))
    }

    fn take(&self, len: usize) -> Option<(Vec<u8>, Vec<OwnedFd>)> {
        let (mut bytes, mut fds, mut at) = (vec![0; len], Vec::new(), 0);
        while at < len {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(200))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut room = [IoSliceMut::new(&mut bytes[at..])];
            let flags = RecvFlags::CMSG_CLOEXEC;
            let got = rustix::net::recvmsg(&self.0, &mut room, &mut control, flags).ok()?;
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(rights) = message {
                    fds.extend(rights);
                }
            }
            if got.bytes == 0 {
                return None;
            }
            at += got.bytes;
        }
        Some((bytes, fds))
    }
}

/// Takes the writer lock of a directory by hand; `None` if somebody has it.
pub(crate) fn lock_of(dir: &Path) -> Option<File> {
    let file = File::options().read(true).write(true).open(dir.join("writer.lock")).expect("there");
    // SAFETY: a struct of integers, for which zero is a value.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_WRLCK as libc::c_short;
    // SAFETY: an open descriptor and a whole `flock`.
    let taken = unsafe { libc::fcntl(file.as_fd().as_raw_fd(), libc::F_OFD_SETLK, &lock) } == 0;
    taken.then_some(file)
}
