//! A disk that takes no more, and then does again: an image of a file system behind a loop device,
//! which loses all but its start.

use std::{
    cell::RefCell,
    fs::{self, File, OpenOptions},
    os::{fd::AsRawFd as _, unix::fs::FileExt as _},
    path::PathBuf,
    process::Command,
};

use super::place::{Mount, TempDir, run};

/// Bytes of the image.
const LEN: u64 = 64 << 20;
/// Bytes that stay while it fails: the file system's own tables, and no file's data.
const START: u64 = 4 << 20;

/// Unmounted when dropped.
#[derive(Debug)]
pub(crate) struct Failing {
    disk: Mount,
    dir: TempDir,
    /// What lies behind the start, while that is all there is.
    lost: RefCell<Option<Vec<u8>>>,
}

impl Failing {
    /// The reason where the system refuses.
    pub(crate) fn new() -> Result<Failing, String> {
        let dir = TempDir::new("failing");
        let image = dir.inside("image");
        let file = File::create(&image).map_err(|e| e.to_string())?;
        file.set_len(LEN).map_err(|e| e.to_string())?;
        let mut make = Command::new("mkfs.ext4");
        let kind = ["-q", "-b", "4096", "-O", "^has_journal", "-E", "root_owner"];
        run(make.args(kind).arg(&image))?;
        let disk = Mount::at(&dir.inside("disk"), &["-o", "loop", &image.display().to_string()])?;
        Ok(Failing { disk, dir, lost: RefCell::new(None) })
    }

    /// A directory on it, for a ring.
    pub(crate) fn ring(&self) -> PathBuf {
        self.disk.path().join("ring")
    }

    fn image(&self) -> File {
        let image = OpenOptions::new().read(true).write(true).open(self.dir.inside("image"));
        image.expect("the image")
    }

    /// The loop device looks how long the image is.
    fn look_again(&self) {
        const LOOP_SET_CAPACITY: libc::Ioctl = 0x4c07;
        let told = Command::new("losetup")
            .args(["-n", "-O", "NAME", "-j"])
            .arg(self.dir.inside("image"))
            .output()
            .expect("losetup comes with mount");
        let name = String::from_utf8_lossy(&told.stdout).trim().to_owned();
        let device = File::open(&name).expect("the loop device");
        // SAFETY: an open descriptor and a number.
        let done = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_SET_CAPACITY, 0) };
        assert_eq!(done, 0, "{name}: {}", std::io::Error::last_os_error());
    }

    /// From now on no file's data gets to the disk.
    pub(crate) fn fail(&self) {
        let image = self.image();
        let mut lost = vec![0; (LEN - START) as usize];
        image.read_exact_at(&mut lost, START).expect("read");
        *self.lost.borrow_mut() = Some(lost);
        image.set_len(START).expect("cut off");
        self.look_again();
    }

    /// The disk has what it had before, and takes everything again.
    pub(crate) fn heal(&self) {
        let lost = self.lost.borrow_mut().take().expect("it failed before");
        let image = self.image();
        image.set_len(LEN).expect("as long as before");
        for (n, block) in lost.chunks(4096).enumerate() {
            if block.iter().any(|byte| *byte != 0) {
                image.write_all_at(block, START + n as u64 * 4096).expect("as before");
            }
        }
        self.look_again();
    }

    /// What is on the disk at this moment, as after a loss of power: the ring in a mounted copy.
    pub(crate) fn power_cut(&self) -> (Mount, PathBuf) {
        let copy = self.dir.inside("cut");
        fs::copy(self.dir.inside("image"), &copy).expect("a copy of the image");
        let copy = copy.display().to_string();
        let mount = Mount::at(&self.dir.inside("after"), &["-o", "loop", &copy]).expect("mounted");
        let ring = mount.path().join("ring");
        (mount, ring)
    }
}
