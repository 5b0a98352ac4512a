//! A directory's bytes, as another process changes them: seen through mappings, compared with what
//! they were.

use std::{
    collections::BTreeMap,
    ffi::CString,
    fs::{self, File},
    io,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    },
    path::{Path, PathBuf},
    ptr::NonNull,
};

/// All files of a directory, by name.
pub(crate) type Image = BTreeMap<String, Vec<u8>>;

/// Writes an image into an empty or missing directory.
pub(crate) fn lay_out(image: &Image, dir: &Path) -> Result<(), String> {
    use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
    let told = |error: io::Error| format!("{}: {error}", dir.display());
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(told(error)),
        _ => {}
    }
    fs::DirBuilder::new().mode(0o700).recursive(true).create(dir).map_err(told)?;
    for (name, bytes) in image {
        let mut file = File::options();
        let file = file.write(true).create_new(true).mode(0o600).open(dir.join(name));
        io::Write::write_all(&mut file.map_err(told)?, bytes).map_err(told)?;
    }
    Ok(())
}

/// What has changed in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Change {
    Nothing,
    /// Bytes that opening does not read: no sealed record has them.
    Unread,
    /// Anything else.
    Read,
}

const PAGE: usize = 4096;

/// Whether opening reads this page of a file: it is none of the data area, or a record whose seal is
/// not zero says that it has bytes there. By SNAPSHOT_FORMAT.md alone.
fn is_read(name: &str, bytes: &[u8], page: usize) -> bool {
    let word = |at: usize, len: usize| {
        let bytes = bytes.get(at..at + len).unwrap_or_default();
        bytes.iter().rev().fold(0_u64, |word, byte| word << 8 | u64::from(*byte))
    };
    let slots = word(28, 4) as usize;
    if !["snapshot_a.bin", "snapshot_b.bin"].contains(&name) || page < PAGE * (1 + slots) {
        return true;
    }
    let covers = |slot: usize, field: usize| {
        let (offset, len) = (word(slot + field, 8), word(slot + field + 8, 8));
        let (from, to) = (page as u64, (page + PAGE) as u64);
        len > 0 && offset < to && offset.saturating_add(len) > from
    };
    // The seal, then the extents of the archive, the page table and the layout text.
    let mut pages = (1..=slots).map(|slot| slot * PAGE);
    pages.any(|slot| word(slot + 192, 4) != 0 && [112, 136, 160].iter().any(|f| covers(slot, *f)))
}

/// A file, mapped for reading.
#[derive(Debug)]
struct View {
    inode: u64,
    at: NonNull<u8>,
    len: usize,
}

impl View {
    fn new(path: &Path) -> io::Result<View> {
        let file = File::open(path)?;
        let meta = file.metadata()?;
        let len = meta.len() as usize;
        if len == 0 {
            return Ok(View { inode: meta.ino(), at: NonNull::dangling(), len });
        }
        let (prot, flags, fd) = (libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd());
        // SAFETY: a new mapping of an open file, at an address of the kernel's choice.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), len, prot, flags, fd, 0) };
        let at = NonNull::new(at.cast()).filter(|_| at != libc::MAP_FAILED);
        let at = at.ok_or_else(io::Error::last_os_error)?;
        Ok(View { inode: meta.ino(), at, len })
    }

    /// The bytes, while everybody who could change them is stopped.
    fn bytes(&self) -> &[u8] {
        // SAFETY: a mapping of this length (or none of no bytes); the file gets no shorter, since
        // snapring shortens none; its writers are stopped while the parent looks.
        unsafe { std::slice::from_raw_parts(self.at.as_ptr(), self.len) }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        if self.len > 0 {
            // SAFETY: mapped by `new`, with this length.
            unsafe { libc::munmap(self.at.as_ptr().cast(), self.len) };
        }
    }
}

/// A directory, watched.
#[derive(Debug)]
pub(crate) struct Mirror {
    dir: PathBuf,
    watch: File,
    views: BTreeMap<String, View>,
    image: Image,
}

impl Mirror {
    pub(crate) fn new(dir: &Path) -> Result<Mirror, String> {
        let told = |what: &str| format!("{what}: {}", io::Error::last_os_error());
        // SAFETY: makes a descriptor.
        let fd = unsafe { libc::inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC) };
        if fd < 0 {
            return Err(told("inotify"));
        }
        // SAFETY: just made, and nobody else's.
        let watch = unsafe { OwnedFd::from_raw_fd(fd) };
        let path = CString::new(dir.as_os_str().as_bytes()).map_err(|e| e.to_string())?;
        let events = libc::IN_MODIFY | libc::IN_CREATE | libc::IN_DELETE | libc::IN_MOVE;
        // SAFETY: an open descriptor, and a string that ends with a zero.
        if unsafe { libc::inotify_add_watch(watch.as_raw_fd(), path.as_ptr(), events) } < 0 {
            return Err(told("inotify"));
        }
        let mut mirror = Mirror {
            dir: dir.to_owned(),
            watch: File::from(watch),
            views: BTreeMap::new(),
            image: Image::new(),
        };
        mirror.read_names()?;
        mirror.take();
        Ok(mirror)
    }

    /// Looks again. The directory's owner is stopped meanwhile.
    pub(crate) fn look(&mut self) -> Result<Change, String> {
        let mut events = [0; 4096];
        // System calls that change something are told by the kernel, stores to mappings are not.
        if io::Read::read(&mut &self.watch, &mut events).is_ok() {
            self.read_names()?;
        }
        Ok(self.take())
    }

    /// What is in the directory by now.
    fn read_names(&mut self) -> Result<(), String> {
        let told = |error: io::Error| format!("{}: {error}", self.dir.display());
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(told)? {
            let entry = entry.map_err(told)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let meta = entry.metadata().map_err(told)?;
            let known = self.views.get(&name);
            if known.is_none_or(|v| v.inode != meta.ino() || v.len as u64 != meta.len()) {
                self.views.insert(name.clone(), View::new(&entry.path()).map_err(told)?);
            }
            names.push(name);
        }
        self.views.retain(|name, _| names.contains(name));
        Ok(())
    }

    /// Copies what has changed.
    fn take(&mut self) -> Change {
        let mut change = Change::Nothing;
        if self.image.len() != self.views.len() {
            self.image.retain(|name, _| self.views.contains_key(name));
            change = Change::Read;
        }
        for (name, view) in &self.views {
            let now = view.bytes();
            match self.image.get_mut(name) {
                Some(bytes) if bytes == now => {}
                Some(bytes) if bytes.len() == now.len() => {
                    let pages = bytes.chunks_mut(PAGE).zip(now.chunks(PAGE)).enumerate();
                    let mut changed = Vec::new();
                    for (page, (old, new)) in pages.filter(|(_, (old, new))| old != new) {
                        old.copy_from_slice(new);
                        changed.push(page * PAGE);
                    }
                    let read = changed.into_iter().any(|at| is_read(name, bytes, at));
                    change = change.max(if read { Change::Read } else { Change::Unread });
                }
                _ => {
                    change = Change::Read;
                    self.image.insert(name.clone(), now.to_vec());
                }
            }
        }
        change
    }

    /// What the directory holds.
    pub(crate) fn image(&self) -> &Image {
        &self.image
    }
}
