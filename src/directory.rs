#![forbid(unsafe_code)]
//! The directory: whether it can be trusted, who may write in it, and the files' coming and going.
//!
//! Knows names, owners and modes. What is in the files is for `open.rs`.

use std::{
    fs::{DirBuilder, File},
    io,
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd},
        unix::fs::{DirBuilderExt as _, FileExt as _, FileTypeExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use crate::{
    error::OpenError,
    header::{FLOOR_LEN, Floor, Uuid},
    lease::{Leases, Lessor},
    options::Options,
    os::{self, FileSystem},
    storage::{RawFile, Storage, SystemFile},
};

const LOCK_NAME: &str = "writer.lock";
pub(crate) const LEASES_NAME: &str = "leases.lock";
/// Where in the lock file the third copy of the id floor lies.
const LOCK_FLOOR_AT: u64 = 512;

/// Adds the path and the deed to a system error.
pub(crate) fn io_error(path: &Path, doing: &'static str) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.to_owned();
    move |source| OpenError::Io { path, doing, source }
}

/// A directory of ours, locked for writing until this is dropped.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    dir: File,
    lock: File,
    /// The lock is ours alone: it ends when this is dropped, whoever else has the descriptor.
    ours: AtomicBool,
    file_system: FileSystem,
}

impl Directory {
    /// Makes the directory if it is missing, checks that nobody else can change it, and takes the
    /// writer lock.
    pub(crate) fn open(path: &Path, options: &Options) -> Result<Directory, OpenError> {
        let directory = Directory::find(path, options)?;
        if !directory.try_lock()? {
            return Err(directory.in_use());
        }
        Ok(directory)
    }

    /// The same without the lock: nothing may be written yet.
    pub(crate) fn find(path: &Path, options: &Options) -> Result<Directory, OpenError> {
        make(path)?;
        let dir = match os::open_dir(path) {
            Ok(dir) => dir,
            Err(e) if e.kind() == io::ErrorKind::NotADirectory => {
                return Err(OpenError::NotADirectory { path: path.to_owned() });
            }
            Err(e) => return Err(io_error(path, "open the directory")(e)),
        };
        trust_directory(path, &dir)?;
        let file_system =
            os::file_system(&dir).map_err(io_error(path, "ask for the file system"))?;
        if let FileSystem::Remote(kind) = file_system
            && !options.allow_remote
        {
            return Err(OpenError::Remote { path: path.to_owned(), kind });
        }
        let lock = open_or_create(path, &dir, LOCK_NAME)?;
        let ours = AtomicBool::new(false);
        Ok(Directory { path: path.to_owned(), dir, lock, ours, file_system })
    }

    /// Takes the writer lock, if nobody has it.
    pub(crate) fn try_lock(&self) -> Result<bool, OpenError> {
        let lock_path = self.path.join(LOCK_NAME);
        if !os::try_lock(&self.lock).map_err(io_error(&lock_path, "lock"))? {
            return Ok(false);
        }
        self.keep_lock(true);
        self.sign()?;
        Ok(true)
    }

    /// Puts our name to what is locked.
    pub(crate) fn sign(&self) -> Result<(), OpenError> {
        self.write_name().map_err(io_error(&self.path.join(LOCK_NAME), "write"))
    }

    /// Why the lock cannot be had.
    pub(crate) fn in_use(&self) -> OpenError {
        OpenError::WriterActive { path: self.path.clone(), holder: holder(&self.lock) }
    }

    /// The descriptor by which the lock is held: whoever has it has the lock.
    pub(crate) fn lock_descriptor(&self) -> BorrowedFd<'_> {
        self.lock.as_fd()
    }

    /// Whether the lock ends with this, or only with the last descriptor of whoever shares it.
    pub(crate) fn keep_lock(&self, ours: bool) {
        // Relaxed: looked at when this is dropped, which comes after all else by itself.
        self.ours.store(ours, Ordering::Relaxed);
    }

    /// Takes a locked descriptor in place of our own. `false` if it is not of this directory's lock
    /// file, or not locked.
    pub(crate) fn adopt_lock(&mut self, lock: File) -> io::Result<bool> {
        let same = is_same_lock(&self.lock, &lock)?;
        if same {
            self.lock = lock;
        }
        Ok(same)
    }

    /// Where one of our files is, for messages and for the one who removes it.
    pub(crate) fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The path of a file in here that is short enough for a socket's address, however long the
    /// directory's own is.
    pub(crate) fn short_path(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{name}", self.dir.as_raw_fd()))
    }

    /// Says in the lock file who has it, for the error of the next one.
    fn write_name(&self) -> io::Result<()> {
        let mut text = [b' '; 64];
        let name = format!("process {}\n", std::process::id());
        text[..name.len()].copy_from_slice(name.as_bytes());
        self.lock.write_all_at(&text, 0)
    }
}

impl Storage for Directory {
    fn leases(&self) -> Result<Option<Box<dyn Lessor>>, OpenError> {
        let file = open_or_create(&self.path, &self.dir, LEASES_NAME)?;
        Ok(Some(Box::new(Leases::of(file))))
    }

    fn path(&self) -> &Path {
        &self.path
    }

    fn in_memory(&self) -> bool {
        self.file_system == FileSystem::Memory
    }

    fn boot(&self) -> Uuid {
        Uuid(os::boot_id())
    }

    fn random_id(&self) -> io::Result<Uuid> {
        os::random_id().map(Uuid)
    }

    fn file(&self, name: &str) -> Result<Option<Box<dyn RawFile>>, OpenError> {
        let file = open_trusted(&self.path, &self.dir, name)?;
        Ok(file.map(|file| Box::new(SystemFile(file)) as Box<dyn RawFile>))
    }

    fn create(&self, name: &str) -> Result<Box<dyn RawFile>, OpenError> {
        let new = format!("{name}.new");
        match os::remove_in(&self.dir, &new) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(io_error(&self.path.join(new), "remove what an earlier opening left")(
                    e,
                ));
            }
            _ => {}
        }
        let file = os::create_in(&self.dir, &new);
        Ok(Box::new(SystemFile(file.map_err(io_error(&self.path.join(new), "create"))?)))
    }

    fn put_in_place(&self, name: &str) -> Result<(), OpenError> {
        os::rename_in(&self.dir, &format!("{name}.new"), name)
            .map_err(io_error(&self.path.join(name), "put the new file in place"))
    }

    fn set_aside(&self, name: &str) -> Result<PathBuf, OpenError> {
        let aside = format!("{name}.damaged");
        os::rename_in(&self.dir, name, &aside)
            .map_err(io_error(&self.path.join(name), "set the damaged file aside"))?;
        Ok(self.path.join(aside))
    }

    fn sync(&self) -> io::Result<()> {
        self.dir.sync_all()
    }

    fn floor(&self) -> Option<Floor> {
        let mut bytes = [0; FLOOR_LEN];
        self.lock.read_exact_at(&mut bytes, LOCK_FLOOR_AT).ok()?;
        Floor::decode(&bytes)
    }

    fn write_floor(&self, floor: &Floor) -> io::Result<()> {
        self.lock.write_all_at(&floor.encode(), LOCK_FLOOR_AT)?;
        self.lock.sync_data()
    }

    fn directory(&self) -> Option<&Directory> {
        Some(self)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // In a forked child the lock is still the parent's: closing our descriptor is all. So it is
        // where the lock has been handed over, or not taken yet. Relaxed: see `keep_lock`.
        if !os::forked() && self.ours.load(Ordering::Relaxed) {
            _ = os::unlock(&self.lock);
        }
    }
}

/// Makes the directory and what is missing above it; returns when the names of what it made are on
/// the disk.
fn make(path: &Path) -> Result<(), OpenError> {
    let missing = |p: &&Path| !p.as_os_str().is_empty() && !p.exists();
    let made: Vec<&Path> = path.ancestors().take_while(missing).collect();
    match DirBuilder::new().recursive(true).mode(0o700).create(path) {
        Ok(()) => {}
        Err(e)
            if matches!(e.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory) =>
        {
            return Err(OpenError::NotADirectory { path: path.to_owned() });
        }
        Err(e) => return Err(io_error(path, "make the directory")(e)),
    }
    // A name is in the directory above. The outermost first: nothing is on the disk without it.
    for name in made.into_iter().rev() {
        let above = name.parent().filter(|p| !p.as_os_str().is_empty());
        let above = above.unwrap_or(Path::new("."));
        os::open_dir(above)
            .and_then(|dir| dir.sync_all())
            .map_err(io_error(above, "sync the directory (which now holds a new one)"))?;
    }
    Ok(())
}

pub(crate) fn trust_directory(path: &Path, dir: &File) -> Result<(), OpenError> {
    let meta = dir.metadata().map_err(io_error(path, "look at the directory"))?;
    let refuse = |reason: String| Err(OpenError::Untrusted { path: path.to_owned(), reason });
    if meta.uid() != os::effective_user() {
        return refuse(format!(
            "owned by user {}, not by this process's user {}; use a directory of your own",
            meta.uid(),
            os::effective_user()
        ));
    }
    if meta.mode() & 0o022 != 0 {
        return refuse(format!(
            "others may write here (mode {:03o}); chmod it to 700",
            meta.mode() & 0o777
        ));
    }
    Ok(())
}

fn open_trusted(path: &Path, dir: &File, name: &str) -> Result<Option<File>, OpenError> {
    open_trusted_by(os::open_in, path, dir, name)
}

/// Opens a file of ours in its directory, if it is there and nobody else can change it.
pub(crate) fn open_trusted_by(
    open: impl FnOnce(&File, &str) -> io::Result<File>,
    path: &Path,
    dir: &File,
    name: &str,
) -> Result<Option<File>, OpenError> {
    let full = path.join(name);
    let refuse =
        |reason: &str| Err(OpenError::Untrusted { path: full.clone(), reason: reason.to_owned() });
    let file = match open(dir, name) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) if e.raw_os_error() == Some(libc::ELOOP) => {
            return refuse("a symbolic link; put the file itself here, or remove the link");
        }
        Err(e) if matches!(e.raw_os_error(), Some(libc::EISDIR | libc::ENXIO | libc::ENODEV)) => {
            return refuse("not a regular file; move it away");
        }
        Err(e) => return Err(io_error(&full, "open")(e)),
    };
    let meta = file.metadata().map_err(io_error(&full, "look at"))?;
    let kind = meta.file_type();
    if kind.is_fifo() || kind.is_socket() || kind.is_block_device() || !kind.is_file() {
        return refuse("not a regular file; move it away");
    }
    if meta.uid() != os::effective_user() {
        return refuse("owned by another user; use a directory of your own");
    }
    if meta.nlink() != 1 {
        return refuse("it has another name too (a hard link); copy it to a file of its own");
    }
    if meta.mode() & 0o022 != 0 {
        return refuse("others may write to it; chmod it to 600");
    }
    Ok(Some(file))
}

fn open_or_create(path: &Path, dir: &File, name: &str) -> Result<File, OpenError> {
    if let Some(file) = open_trusted(path, dir, name)? {
        return Ok(file);
    }
    match os::create_in(dir, name) {
        Ok(file) => Ok(file),
        // Somebody else made it at this moment.
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            match open_trusted(path, dir, name)? {
                Some(file) => Ok(file),
                None => Err(io_error(&path.join(name), "create")(e)),
            }
        }
        Err(e) => Err(io_error(&path.join(name), "create")(e)),
    }
}

/// Whether `lock` is another descriptor of the file that `ours` is one of, and holds its lock.
pub(crate) fn is_same_lock(ours: &File, lock: &File) -> io::Result<bool> {
    let id = |file: &File| file.metadata().map(|meta| (meta.dev(), meta.ino()));
    // Ours finds it taken; that one may take it once more.
    Ok(id(ours)? == id(lock)? && !os::try_lock(ours)? && os::try_lock(lock)?)
}

/// Who has the lock, as the file says.
fn holder(lock: &File) -> String {
    let mut text = [0; 64];
    match lock.read_at(&mut text, 0) {
        Ok(n) if n > 0 => String::from_utf8_lossy(&text[..n]).trim().to_owned(),
        _ => "another process".to_owned(),
    }
}
