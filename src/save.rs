//! Saving: a state archived straight into a mapping, then sealed and published.
//!
//! User code runs here (the state's own archiving), so no lock is held meanwhile, and whatever it
//! does - fail, panic, call back - leaves the ring and the files as they were (P5).

use std::cell::RefCell;

use crate::{
    engine::Engine,
    error::SaveError,
    id::SnapshotId,
    options::Durability,
    os,
    publish::Contents,
    session::{Halted, MAX_ARCHIVE, Room, Session},
    snapshot::Snapshot,
    space::Making,
};

/// Archives longer than this have their checksum follow the writer; shorter ones are still in the
/// cache when they are done.
const FUSE_FROM: u64 = 256 << 10;

thread_local! {
    /// The engines that this thread is inside of, by address.
    static INSIDE: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

/// This thread is inside an engine: user code called from there may not come back in.
pub(crate) struct Inside(usize);

impl Inside {
    /// `None` if the thread is inside already.
    pub(crate) fn enter(engine: &Engine) -> Option<Inside> {
        let address = std::ptr::from_ref(engine).addr();
        let entered = INSIDE.try_with(|inside| {
            let mut inside = inside.borrow_mut();
            let fresh = !inside.contains(&address);
            if fresh {
                inside.push(address);
            }
            fresh
        });
        // A thread that is ending has no list: nothing of ours is below it on the stack.
        entered.unwrap_or(true).then(|| Inside(address))
    }
}

/// Whether this thread is inside the engine at this address.
pub(crate) fn is_inside(address: usize) -> bool {
    let inside = |list: &RefCell<Vec<usize>>| list.borrow().contains(&address);
    INSIDE.try_with(inside).unwrap_or(false)
}

impl Drop for Inside {
    fn drop(&mut self) {
        _ = INSIDE.try_with(|inside| {
            let mut inside = inside.borrow_mut();
            if let Some(at) = inside.iter().rposition(|address| *address == self.0) {
                inside.swap_remove(at);
            }
        });
    }
}

impl Room for Making<'_> {
    fn extend(&mut self, need: u64) -> Result<usize, Option<SaveError>> {
        match Making::extend(self, need) {
            Ok(true) => Ok(self.span().1.min(MAX_ARCHIVE) as usize),
            Ok(false) => Err(None),
            Err(error) => Err(Some(error)),
        }
    }
}

impl Engine {
    /// Archives `state`, seals it and makes it the head.
    pub(crate) fn save<T: Snapshot>(&self, state: &T) -> Result<SnapshotId, SaveError> {
        if os::forked() {
            return Err(SaveError::Forked);
        }
        let inside = Inside::enter(self).ok_or(SaveError::Reentrant)?;
        let mut need = 0;
        let id = loop {
            match self.try_save(state, need)? {
                Ok(id) => break id,
                // The space found was too small and cannot grow where it is: once more elsewhere.
                Err(more) => need = more,
            }
        };
        drop(inside);
        if self.options.durability == Durability::Sync {
            self.flush_upto(id.get()).map_err(|source| SaveError::NotDurable { id, source })?;
        }
        Ok(id)
    }

    /// One try in room for `need` bytes; `Ok(Err(more))` asks for another.
    fn try_save<T: Snapshot>(
        &self,
        state: &T,
        need: u64,
    ) -> Result<Result<SnapshotId, u64>, SaveError> {
        let (mut making, last, scratch) = self.begin(need)?;
        let (at, len) = making.span();
        let base = making.file().at(at, len);
        let cap = len.min(MAX_ARCHIVE) as usize;
        let (fused, depth) = (last > FUSE_FROM, self.options.max_depth);
        // SAFETY: blocks are aligned to 4096; `len` bytes from `base` are touchable (`at`) and were
        // handed to this snapshot in the making alone; `making` outlives the session.
        let mut session =
            unsafe { Session::new(base.as_ptr(), cap, fused, depth, scratch, &mut making) };
        match session.run(state) {
            Ok(written) => {
                let scratch = session.into_scratch();
                let contents = Contents {
                    len: written.len as u64,
                    crc: written.crc,
                    root_pos: written.root as u32,
                    depth: written.depth,
                };
                let root = base.addr().get() + written.root;
                making.seal(&contents, root, scratch).map(Ok)
            }
            Err(halted) => {
                making.abandon(session.into_scratch());
                match halted {
                    Halted::Elsewhere(more) => {
                        self.lock().counts.restarts += 1;
                        Ok(Err(more))
                    }
                    Halted::Error(error) => Err(error),
                }
            }
        }
    }
}
