//! A disk that takes no more, and then does again: a sparse image of a file system, on a memory file
//! system that is smaller.

use std::{
    fs::{self, File},
    os::{fd::AsRawFd as _, unix::fs::FileExt as _},
    path::PathBuf,
    process::Command,
};

use super::place::{Mount, TempDir, run};

/// Unmounted when dropped.
#[derive(Debug)]
pub(crate) struct Failing {
    disk: Mount,
    host: Mount,
    dir: TempDir,
}

impl Failing {
    /// The reason where the system refuses.
    pub(crate) fn new() -> Result<Failing, String> {
        let dir = TempDir::new("failing");
        let host =
            Mount::at(&dir.inside("host"), &["-t", "tmpfs", "-o", "size=24m,mode=700", "none"])?;
        let image = host.path().join("image");
        let file = File::create(&image).map_err(|e| e.to_string())?;
        file.set_len(64 << 20).map_err(|e| e.to_string())?;
        let mut make = Command::new("mkfs.ext4");
        // Blocks as large as the host's pages: a write that begins in a page that is there and ends in
        // one that cannot be had is short, and the loop device takes a short write for a whole one.
        let blocks = ["-q", "-b", "4096", "-O", "^has_journal", "-E", "root_owner"];
        run(make.args(blocks).arg(&image))?;
        let image = image.display().to_string();
        let disk = Mount::at(&dir.inside("disk"), &["-o", "loop", &image])?;
        Ok(Failing { disk, host, dir })
    }

    /// A directory on it, for a ring.
    pub(crate) fn ring(&self) -> PathBuf {
        self.disk.path().join("ring")
    }

    fn rest(&self) -> PathBuf {
        self.host.path().join("rest")
    }

    /// From now on nothing more gets to the disk where it has not been before, or where the blocks
    /// hold nothing but `mark`.
    pub(crate) fn fail(&self, mark: u8) {
        let image =
            fs::OpenOptions::new().read(true).write(true).open(self.host.path().join("image"));
        let image = image.expect("the image");
        let mut block = [0; 4096];
        for at in (0..image.metadata().expect("a length").len()).step_by(4096) {
            image.read_exact_at(&mut block, at).expect("read");
            if block.iter().all(|b| *b == mark) {
                let hole = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
                // SAFETY: an open descriptor and numbers.
                let punched = unsafe { libc::fallocate(image.as_raw_fd(), hole, at as i64, 4096) };
                assert_eq!(punched, 0, "a hole in the image");
            }
        }
        let rest = File::create(self.rest()).expect("created");
        let mut at = 0;
        while rest.write_at(&[1; 4096], at).is_ok_and(|n| n > 0) {
            at += 4096;
        }
    }

    /// The disk takes everything again.
    pub(crate) fn heal(&self) {
        File::create(self.rest()).expect("emptied");
    }

    /// What is on the disk at this moment, as after a loss of power: the ring in a mounted copy.
    pub(crate) fn power_cut(&self) -> (Mount, PathBuf) {
        let image = self.dir.inside("cut");
        // The copy of a sparse file is sparse.
        run(Command::new("cp")
            .arg("--sparse=always")
            .arg(self.host.path().join("image"))
            .arg(&image))
        .expect("a copy of the image");
        let image = image.display().to_string();
        let mount = Mount::at(&self.dir.inside("after"), &["-o", "loop", &image]).expect("mounted");
        let ring = mount.path().join("ring");
        (mount, ring)
    }
}
