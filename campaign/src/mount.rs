//! File systems of our own: images on loop devices, mounted, cut off, and mounted again, in a mount
//! namespace that ends with this process. And a boot id of our own.

use std::{
    ffi::CString,
    fs::{self, File},
    io,
    os::{fd::AsRawFd as _, unix::ffi::OsStrExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// What the kernel calls its boot id.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Runs a command of the system; what it says where it fails.
pub(crate) fn command(program: &str, arguments: &[&str]) -> Result<String, String> {
    let run = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = run.map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

fn text(path: impl AsRef<Path>) -> Result<CString, String> {
    CString::new(path.as_ref().as_os_str().as_bytes()).map_err(|error| error.to_string())
}

fn last_error(doing: &str) -> String {
    format!("{doing}: {}", io::Error::last_os_error())
}

/// What is mounted from here on is seen by this process and its children alone, and is gone with
/// them.
pub(crate) fn be_private() -> Result<(), String> {
    // SAFETY: changes what this process sees of mounts, nothing in its memory.
    if unsafe { libc::unshare(libc::CLONE_NEWNS) } != 0 {
        return Err(last_error("a mount namespace"));
    }
    mount(Path::new("none"), Path::new("/"), None, libc::MS_REC | libc::MS_PRIVATE, "")
}

/// `mount(2)`.
pub(crate) fn mount(
    source: &Path,
    at: &Path,
    kind: Option<&str>,
    flags: libc::c_ulong,
    options: &str,
) -> Result<(), String> {
    let (from, to) = (text(source)?, text(at)?);
    let kind = kind.map(text).transpose()?;
    let options = text(options)?;
    let kind = kind.as_ref().map_or(std::ptr::null(), |kind| kind.as_ptr());
    // SAFETY: strings that end with a zero (or null), read by the call alone.
    let done =
        unsafe { libc::mount(from.as_ptr(), to.as_ptr(), kind, flags, options.as_ptr().cast()) };
    if done == 0 { Ok(()) } else { Err(last_error(&format!("mount {}", at.display()))) }
}

/// `umount(2)`, waiting a moment for who still leaves.
pub(crate) fn unmount(at: &Path) -> Result<(), String> {
    let to = text(at)?;
    for _ in 0..200 {
        // SAFETY: a string that ends with a zero.
        if unsafe { libc::umount2(to.as_ptr(), 0) } == 0 {
            return Ok(());
        }
        if io::Error::last_os_error().raw_os_error() != Some(libc::EBUSY) {
            break;
        }
        crate::process::nap(std::time::Duration::from_millis(5));
    }
    Err(last_error(&format!("umount {}", at.display())))
}

/// A boot id that can be changed: what a machine that lost its power has.
#[derive(Debug)]
pub(crate) struct Boot(PathBuf);

impl Boot {
    /// Needs a [private](be_private) namespace.
    pub(crate) fn pretend(scratch: &Path) -> Result<Boot, String> {
        let file = scratch.join("boot_id");
        let boot = Boot(file);
        boot.set(1)?;
        mount(&boot.0, Path::new(BOOT_ID), None, libc::MS_BIND, "")?;
        Ok(boot)
    }

    /// The machine starts for the `n`th time.
    pub(crate) fn set(&self, n: u64) -> Result<(), String> {
        let id = format!("5a5a5a5a-0000-4000-8000-{n:012x}\n");
        fs::write(&self.0, id).map_err(|error| format!("{}: {error}", self.0.display()))
    }
}

/// `struct loop_config` of linux/loop.h, as far as it is used.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    before: [u64; 6],
    key_size: u32,
    flags: u32,
    after: [u64; 30],
}
const _: () = assert!(size_of::<LoopConfig>() == 304);

/// Binds an image to a free loop device, which goes with its last user.
fn loop_device(image: &Path) -> Result<(PathBuf, File), String> {
    const GET_FREE: libc::c_ulong = 0x4c82;
    const CONFIGURE: libc::c_ulong = 0x4c0a;
    const AUTOCLEAR: u32 = 4;
    let read_write = |path: &Path| {
        let file = File::options().read(true).write(true).open(path);
        file.map_err(|error| format!("{}: {error}", path.display()))
    };
    let (control, image) = (read_write(Path::new("/dev/loop-control"))?, read_write(image)?);
    for _ in 0..100 {
        // SAFETY: an open device, and a call that takes nothing.
        let number = unsafe { libc::ioctl(control.as_raw_fd(), GET_FREE) };
        if number < 0 {
            return Err(last_error("a loop device"));
        }
        let path = PathBuf::from(format!("/dev/loop{number}"));
        let device = read_write(&path)?;
        let config = LoopConfig {
            fd: image.as_raw_fd() as u32,
            block_size: 0,
            before: [0; 6],
            key_size: 0,
            flags: AUTOCLEAR,
            after: [0; 30],
        };
        // SAFETY: an open device, and a whole structure, read by the call alone.
        if unsafe { libc::ioctl(device.as_raw_fd(), CONFIGURE, &config) } == 0 {
            return Ok((path, device));
        }
        if io::Error::last_os_error().raw_os_error() != Some(libc::EBUSY) {
            break;
        }
        // Somebody else took it at this moment.
        crate::process::nap(std::time::Duration::from_millis(1));
    }
    Err(last_error("configuring a loop device"))
}

/// A file system of its own in an image. Each mounting has a loop device of its own, so that nothing
/// that the kernel remembers of the one before is taken for what is on the disk.
#[derive(Debug)]
pub(crate) struct Volume {
    kind: &'static str,
    image: PathBuf,
    at: PathBuf,
    mounted: bool,
}

impl Volume {
    /// Makes a file system of this kind in an image of so many bytes, and mounts it under `scratch`.
    pub(crate) fn new(scratch: &Path, kind: &'static str, bytes: u64) -> Result<Volume, String> {
        fs::create_dir_all(scratch).map_err(|error| error.to_string())?;
        let image = scratch.join(format!("{kind}.img"));
        let file = File::create(&image).map_err(|error| format!("{}: {error}", image.display()))?;
        file.set_len(bytes).map_err(|error| error.to_string())?;
        drop(file);
        let shown = image.display().to_string();
        match kind {
            "xfs" => command("mkfs.xfs", &["-q", "-f", &shown])?,
            _ => command("mkfs.ext4", &["-q", "-F", "-m", "0", &shown])?,
        };
        let at = scratch.join(kind);
        fs::create_dir_all(&at).map_err(|error| error.to_string())?;
        let mut volume = Volume { kind, image, at, mounted: false };
        volume.mount()?;
        Ok(volume)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.at
    }

    pub(crate) fn mount(&mut self) -> Result<(), String> {
        let (device, held) = loop_device(&self.image)?;
        mount(&device, &self.at, Some(self.kind), 0, "")?;
        drop(held);
        self.mounted = true;
        Ok(())
    }

    /// Nothing that is not on the device by now will come there; `log_too`: what the file system
    /// has in its own log goes there first.
    pub(crate) fn cut(&self, log_too: bool) -> Result<(), String> {
        // _IOR('X', 125, u32); 1 flushes the log, 2 does not.
        const GOING_DOWN: libc::c_ulong = 0x8004_587d;
        let root = File::open(&self.at).map_err(|error| error.to_string())?;
        let how: u32 = if log_too { 1 } else { 2 };
        // SAFETY: an open directory, and the number that this call reads.
        if unsafe { libc::ioctl(root.as_raw_fd(), GOING_DOWN, &how) } != 0 {
            return Err(last_error("shutting the file system down"));
        }
        Ok(())
    }

    pub(crate) fn unmount(&mut self) -> Result<(), String> {
        unmount(&self.at)?;
        self.mounted = false;
        Ok(())
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        if self.mounted {
            _ = unmount(&self.at);
        }
    }
}

/// Starts writing bytes of a file to its disk, as the kernel may at any moment.
pub(crate) fn write_back(file: &File, offset: u64, len: u64) {
    let flags = libc::SYNC_FILE_RANGE_WRITE | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    // SAFETY: an open file; what comes of it is of no concern.
    unsafe { libc::sync_file_range(file.as_raw_fd(), offset as i64, len as i64, flags) };
}
