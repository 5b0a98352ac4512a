//! The smallest file system in user space: an empty directory that refuses everything else.

use std::{
    ffi::CString,
    fs::{File, OpenOptions},
    io::{Read as _, Write as _},
    os::fd::AsRawFd as _,
    path::Path,
    thread::JoinHandle,
};

/// Mounted; unmounted when dropped.
#[derive(Debug)]
pub(crate) struct Fuse {
    at: CString,
    server: Option<JoinHandle<()>>,
}

const IN_HEADER: usize = 40;
/// Operations that are answered; of linux/fuse.h.
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const STATFS: u32 = 17;
const INIT: u32 = 26;
const OPENDIR: u32 = 27;
const RELEASEDIR: u32 = 29;
const INTERRUPT: u32 = 36;
const BATCH_FORGET: u32 = 42;

impl Fuse {
    /// Mounts it over a directory; the reason where the system refuses.
    pub(crate) fn mount(at: &Path) -> Result<Fuse, String> {
        let device = OpenOptions::new().read(true).write(true).open("/dev/fuse");
        let device = device.map_err(|e| format!("/dev/fuse: {e}"))?;
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
        let text = |s: &[u8]| CString::new(s).map_err(|e| e.to_string());
        let at = text(at.as_os_str().as_encoded_bytes())?;
        let (name, kind, options) =
            (text(b"snapring-test")?, text(b"fuse")?, text(options.as_bytes())?);
        // SAFETY: strings that end with a zero, read by the call alone.
        let mounted = unsafe {
            libc::mount(name.as_ptr(), at.as_ptr(), kind.as_ptr(), 0, options.as_ptr().cast())
        };
        if mounted != 0 {
            return Err(format!("mount: {}", std::io::Error::last_os_error()));
        }
        let server = std::thread::spawn(move || serve(device));
        Ok(Fuse { at, server: Some(server) })
    }
}

impl Drop for Fuse {
    fn drop(&mut self) {
        // SAFETY: a string that ends with a zero.
        unsafe { libc::umount2(self.at.as_ptr(), libc::MNT_DETACH) };
        // Reading the device ends with the mount.
        _ = self.server.take().map(JoinHandle::join);
    }
}

fn serve(mut device: File) {
    let mut request = vec![0; 1 << 20];
    loop {
        let len = match device.read(&mut request) {
            Ok(len) if len >= IN_HEADER => len,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            _ => return,
        };
        let word =
            |at: usize| u32::from_ne_bytes(request[..len][at..at + 4].try_into().expect("4"));
        let answer: Result<Vec<u32>, i32> = match word(4) {
            FORGET | INTERRUPT | BATCH_FORGET => continue,
            // Version 7.31, then how much at a time.
            INIT => Ok([7, 31, 0, 0, 0, 4096, 1].into_iter().chain([0; 9]).collect()),
            GETATTR => Ok(attributes()),
            STATFS => Ok((0..20).map(|i| if [10, 12].contains(&i) { 4096 } else { 0 }).collect()),
            OPENDIR => Ok(vec![0; 4]),
            RELEASEDIR => Ok(vec![]),
            _ => Err(libc::ENOSYS),
        };
        let (error, words) = answer.map_or_else(|e| (-e, vec![]), |words| (0, words));
        let mut reply = Vec::new();
        reply.extend((16 + 4 * words.len() as u32).to_ne_bytes());
        reply.extend(error.to_ne_bytes());
        reply.extend(&request[8..16]);
        words.iter().for_each(|w| reply.extend(w.to_ne_bytes()));
        if device.write_all(&reply).is_err() {
            return;
        }
    }
}

/// A directory of mode 700, valid for a second.
fn attributes() -> Vec<u32> {
    let mut words = vec![0; 26];
    words[0] = 1;
    // Inode 1; mode, links, block size.
    words[4] = 1;
    words[19] = libc::S_IFDIR | 0o700;
    words[20] = 2;
    words[24] = 4096;
    words
}
