//! What an archiving needs beside the archive: a stack for resolvers and for rows being sorted, and
//! the list of shared values it has met. Kept from save to save, so that a save allocates nothing.
//!
//! Knows nothing of what is put on the stack.

use std::{
    alloc::Layout as MemLayout, any::TypeId, collections::HashMap, hash::BuildHasherDefault,
    mem::MaybeUninit, ptr::NonNull,
};

use rkyv::hash::FxHasher64;

use crate::session::Later;

/// How far the archiving of a shared value has come.
#[derive(Clone, Copy)]
pub(crate) enum Shared {
    /// It is being written: to meet it now is a cycle. Around it, this was the deepest so far.
    Pending { deepest: u32 },
    /// It is at `pos`, and there are `height` pointers from the one to it to the deepest value
    /// below.
    At { pos: usize, height: u32 },
}

/// A session's lasting memory: resolvers and rows being sorted, on a stack of chunks that never
/// move. Kept from save to save.
#[derive(Default)]
pub(crate) struct Scratch {
    chunks: Vec<Chunk>,
    /// The chunk in use; bytes in use in it.
    current: usize,
    top: usize,
    /// Where an archive is made that is written to its file by a system call.
    pub(crate) buffer: rkyv::util::AlignedVec<64>,
    /// Memory for the list of fields whose pages come later: a pause that has to find some may have to
    /// tidy up the whole heap for it.
    pub(crate) later: Vec<Later>,
    /// Shared values met so far, by address and pointer type.
    pub(crate) shared: HashMap<(usize, TypeId), Shared, BuildHasherDefault<FxHasher64>>,
}

/// One stretch of a [`Scratch`], held by a raw pointer: what was given out of it stays usable while
/// more is given out.
struct Chunk {
    memory: NonNull<[MaybeUninit<u128>]>,
    /// `top` when the next chunk was taken into use.
    resume: usize,
}

// SAFETY: it owns its memory alone, and knows nothing of what is kept there.
unsafe impl Send for Chunk {}

impl Chunk {
    /// At least `bytes` bytes, aligned to 16.
    fn new(bytes: usize) -> Chunk {
        let memory = Box::leak(Box::new_uninit_slice(bytes.div_ceil(16)));
        Chunk { memory: NonNull::from(memory), resume: 0 }
    }

    fn base(&self) -> NonNull<u8> {
        self.memory.cast()
    }

    fn len(&self) -> usize {
        self.memory.len() * 16
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        // SAFETY: it came from a box in `new`, and is given back once.
        drop(unsafe { Box::from_raw(self.memory.as_ptr()) });
    }
}

/// Where the stack of a [`Scratch`] stood.
#[derive(Clone, Copy)]
pub(crate) struct Mark {
    chunk: usize,
    top: usize,
}

impl Scratch {
    /// Memory of `layout` on top of the stack.
    pub(crate) fn push(&mut self, layout: MemLayout) -> NonNull<u8> {
        loop {
            if let Some(chunk) = self.chunks.get_mut(self.current) {
                let base = chunk.base();
                // u128 aligns the chunk to 16; a larger alignment is met from there.
                let start = base.addr().get() + self.top;
                let start = start.next_multiple_of(layout.align()) - base.addr().get();
                if start + layout.size() <= chunk.len() {
                    self.top = start + layout.size();
                    // SAFETY: `start` is within the chunk, by the comparison above.
                    return unsafe { base.add(start) };
                }
                chunk.resume = self.top;
            }
            let next = if self.chunks.is_empty() { 0 } else { self.current + 1 };
            let want = (layout.size() + layout.align()).max(64 << 10).max(self.top * 2);
            // A chunk too small for this request is replaced: nothing in it is in use.
            if self.chunks.get(next).is_none_or(|c| c.len() < layout.size() + layout.align()) {
                self.chunks.truncate(next);
                self.chunks.push(Chunk::new(want));
            }
            self.current = next;
            self.top = 0;
        }
    }

    /// Where the stack stands, for [`release`](Self::release).
    #[inline]
    pub(crate) fn mark(&self) -> Mark {
        Mark { chunk: self.current, top: self.top }
    }

    /// Gives back everything that was pushed since `mark`.
    #[inline]
    pub(crate) fn release(&mut self, mark: Mark) {
        (self.current, self.top) = (mark.chunk, mark.top);
    }

    /// Gives back what was pushed last, which starts at `from`.
    pub(crate) fn pop(&mut self, from: NonNull<u8>) {
        let Mark { mut chunk, mut top } = self.mark();
        let base = self.chunks[chunk].base().addr().get();
        top = from.addr().get().wrapping_sub(base).min(top);
        if top == 0 && chunk > 0 {
            chunk -= 1;
            top = self.chunks[chunk].resume;
        }
        self.release(Mark { chunk, top });
    }

    /// Forgets everything but the memory.
    pub(crate) fn clear(&mut self) {
        self.release(Mark { chunk: 0, top: 0 });
        self.shared.clear();
    }
}
