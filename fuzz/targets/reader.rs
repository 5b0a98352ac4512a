#![no_main]
//! The structured edits in real files, seen by a reader: history, mementos and reads of whatever is
//! there, and no word of a writer's.

use std::{
    cell::RefCell,
    fs::{self, File, OpenOptions},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use libfuzzer_sys::fuzz_target;
use snapring::{Options, Reader, Snapshot};
use snapring_fuzz::{
    edits::forge,
    image::{Files, RING},
    input::Input,
    states::{Maps, Plain, Sample, Shared},
};

/// A directory whose files are those of an image.
struct Place {
    image: Files,
    dir: PathBuf,
    files: [File; 2],
}

impl Place {
    fn of<T: Sample>(name: &str) -> Place {
        let shm = Path::new("/dev/shm");
        let base = if shm.is_dir() { shm.to_owned() } else { std::env::temp_dir() };
        let dir = base.join(format!("snapring-fuzz-{}-{name}", std::process::id()));
        let options = Options::new().ring(RING).file_size(64 << 10);
        // SAFETY: a directory of this process's own; the caretaker ends here.
        drop(unsafe { options.open::<T>(&dir) }.expect("made"));
        let image = Files::of::<T>();
        let files = ["snapshot_a.bin", "snapshot_b.bin"]
            .map(|name| OpenOptions::new().write(true).open(dir.join(name)).expect("the file"));
        for (side, file) in files.iter().enumerate() {
            file.write_all_at(image.honest(side), 0).expect("written");
        }
        Place { image, dir, files }
    }

    fn run<T: Sample + Snapshot>(&mut self, input: &mut Input<'_>) {
        forge(&mut self.image, input);
        self.write();
        // SAFETY: the files are written before and after, by this thread alone.
        if let Ok(reader) = unsafe { Reader::<T>::open(&self.dir) } {
            _ = reader.read(T::read);
            for entry in reader.history() {
                if let Ok(memento) = reader.try_memento(entry.id()) {
                    T::read(&memento);
                    _ = (memento.thaw().is_ok(), memento.digest(), memento.bytes());
                }
            }
            _ = (reader.latest().is_some(), reader.head(), reader.is_current());
        }
        self.image.heal_with(|side, at, bytes| {
            self.files[side].write_all_at(bytes, at as u64).expect("written");
        });
    }

    fn write(&self) {
        self.image.touched(|side, at, bytes| {
            self.files[side].write_all_at(bytes, at as u64).expect("written");
        });
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.dir);
    }
}

thread_local! {
    static PLACES: RefCell<(Place, Place, Place)> = RefCell::new((
        Place::of::<Plain>("plain"),
        Place::of::<Maps>("maps"),
        Place::of::<Shared>("shared"),
    ));
}

fuzz_target!(|bytes: &[u8]| {
    PLACES.with_borrow_mut(|places| {
        let mut input = Input::new(bytes);
        match input.below(3) {
            0 => places.0.run::<Plain>(&mut input),
            1 => places.1.run::<Maps>(&mut input),
            _ => places.2.run::<Shared>(&mut input),
        }
    });
});
