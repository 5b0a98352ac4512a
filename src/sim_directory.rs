#![forbid(unsafe_code)]
//! The engine's way to a simulated disk: its directory and its files, each call of which passes the
//! disk's steps first.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use memmap2::MmapRaw;

use crate::{
    error::OpenError,
    header::{Floor, Uuid},
    lease::Lessor,
    sim::{Call, Disk, PAGE},
    sim_pages::File,
    storage::{RawFile, Storage},
};

/// The directory of a disk, opened.
#[derive(Debug)]
pub(crate) struct SimDirectory(Disk);

impl SimDirectory {
    pub(crate) fn open(disk: &Disk) -> Result<SimDirectory, OpenError> {
        let mut inner = disk.inner.lock();
        if std::mem::replace(&mut inner.locked, true) {
            let path = disk.path.to_path_buf();
            return Err(OpenError::WriterActive { path, holder: "this process".to_owned() });
        }
        drop(inner);
        Ok(SimDirectory(disk.clone()))
    }

    fn error(&self, name: &str, doing: &'static str) -> impl FnOnce(io::Error) -> OpenError {
        let path = self.0.path.join(name);
        move |source| OpenError::Io { path, doing, source }
    }

    fn rename(&self, from: &str, to: &str) {
        let mut inner = self.0.inner.lock();
        if let Some(file) = inner.names.remove(from) {
            inner.names.insert(to.to_owned(), file);
        }
        let now = inner.names.clone();
        inner.disk_names.push(now);
    }
}

impl Drop for SimDirectory {
    fn drop(&mut self) {
        self.0.inner.lock().locked = false;
    }
}

impl Storage for SimDirectory {
    fn path(&self) -> &Path {
        &self.0.path
    }

    fn in_memory(&self) -> bool {
        false
    }

    fn boot(&self) -> Uuid {
        Uuid(self.0.boot())
    }

    fn random_id(&self) -> io::Result<Uuid> {
        let mut inner = self.0.inner.lock();
        let (low, high) = (inner.random.next_u64(), inner.random.next_u64());
        Ok(Uuid((u128::from(high) << 64 | u128::from(low)).to_le_bytes()))
    }

    fn file(&self, name: &str) -> Result<Option<Box<dyn RawFile>>, OpenError> {
        let file = self.0.inner.lock().names.get(name).copied();
        Ok(file.map(|file| Box::new(SimFile { disk: self.0.clone(), file }) as Box<dyn RawFile>))
    }

    fn create(&self, name: &str) -> Result<Box<dyn RawFile>, OpenError> {
        self.0.step(Call::Create).map_err(self.error(name, "create"))?;
        let mut inner = self.0.inner.lock();
        inner.files.push(File::new());
        let file = inner.files.len() - 1;
        inner.names.insert(format!("{name}.new"), file);
        let now = inner.names.clone();
        inner.disk_names.push(now);
        drop(inner);
        Ok(Box::new(SimFile { disk: self.0.clone(), file }))
    }

    fn put_in_place(&self, name: &str) -> Result<(), OpenError> {
        self.0.step(Call::Rename).map_err(self.error(name, "put the new file in place"))?;
        self.rename(&format!("{name}.new"), name);
        Ok(())
    }

    fn set_aside(&self, name: &str) -> Result<PathBuf, OpenError> {
        self.0.step(Call::Rename).map_err(self.error(name, "set the damaged file aside"))?;
        let aside = format!("{name}.damaged");
        self.rename(name, &aside);
        Ok(self.0.path.join(aside))
    }

    fn sync(&self) -> io::Result<()> {
        self.0.step(Call::SyncNames)?;
        let mut inner = self.0.inner.lock();
        inner.disk_names = vec![inner.names.clone()];
        Ok(())
    }

    fn floor(&self) -> Option<Floor> {
        Floor::decode(&self.0.inner.lock().floor)
    }

    fn leases(&self) -> Result<Option<Box<dyn Lessor>>, OpenError> {
        Ok(Some(Box::new(self.0.clone())))
    }

    fn write_floor(&self, floor: &Floor) -> io::Result<()> {
        self.0.step(Call::Write)?;
        self.0.inner.lock().floor = floor.encode();
        self.0.step(Call::SyncFloor)?;
        let mut inner = self.0.inner.lock();
        inner.disk_floor = inner.floor;
        Ok(())
    }
}

/// One file of a disk.
#[derive(Debug)]
struct SimFile {
    disk: Disk,
    file: usize,
}

impl SimFile {
    /// Writes pages out; where that fails, they look clean all the same.
    fn sync_pages(&self, call: Call, pages: std::ops::Range<usize>) -> io::Result<()> {
        let outcome = self.disk.step(call);
        let mut inner = self.disk.inner.lock();
        let mut random = inner.random.clone();
        let file = &mut inner.files[self.file];
        for page in file.dirty(pages) {
            // Of a sync that fails, some pages may have been written.
            if outcome.is_ok() || random.one_in(4) {
                file.write_out(page);
            } else {
                file.mark_clean(page);
            }
        }
        if outcome.is_ok() {
            file.disk_len = file.len;
        }
        inner.random = random;
        outcome
    }
}

impl RawFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.inner.lock().files[self.file].len)
    }

    fn has_all_pages(&self, _: u64) -> bool {
        true
    }

    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<()> {
        let inner = self.disk.inner.lock();
        let file = &inner.files[self.file];
        if at + bytes.len() as u64 > file.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        file.fetch(at as usize, bytes);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.disk.step(Call::Write)?;
        self.disk.inner.lock().files[self.file].store(bytes, at as usize);
        self.redirtied(at, bytes.len() as u64);
        Ok(())
    }

    fn reserve(&self, _: u64, to: u64) -> io::Result<()> {
        self.disk.step(Call::Reserve)?;
        let mut inner = self.disk.inner.lock();
        let others: u64 =
            inner.files.iter().map(|f| f.len).sum::<u64>() - inner.files[self.file].len;
        if others + to > inner.capacity {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        let file = &mut inner.files[self.file];
        let from = file.len as usize;
        if to > file.len {
            file.set_len(to);
            file.grow_map(to as usize)?;
            file.clear(from..to as usize);
        }
        Ok(())
    }

    fn map(&self, span: usize) -> io::Result<Arc<MmapRaw>> {
        let mut inner = self.disk.inner.lock();
        let file = &mut inner.files[self.file];
        file.grow_map(span)?;
        file.map.clone().ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }

    fn sync_range(&self, _: &MmapRaw, from: usize, len: usize) -> io::Result<()> {
        let call = if from < PAGE { Call::SyncHeader } else { Call::Sync };
        self.sync_pages(call, from / PAGE..(from + len).div_ceil(PAGE))
    }

    fn redirtied(&self, from: u64, len: u64) {
        let mut inner = self.disk.inner.lock();
        let pages = from as usize / PAGE..(from + len).div_ceil(PAGE as u64) as usize;
        for page in pages {
            if let Some(redirtied) = inner.files[self.file].redirtied.get_mut(page) {
                *redirtied = true;
            }
        }
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync_pages(Call::SyncAll, 0..usize::MAX)
    }

    fn stored(&self, from: u64, len: u64) {
        self.redirtied(from, len);
        _ = self.disk.step(Call::Store);
    }
}
