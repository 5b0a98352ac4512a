//! Opening must refuse what it cannot trust and say what to do, make what is missing, never give an
//! id out twice, and leave a true receipt.

mod common;

use std::{
    fs::{self, Permissions},
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _, symlink},
        net::UnixListener,
        process::CommandExt as _,
    },
    path::Path,
    process::Command,
};

use common::{
    A, B, Child, Fuse, Image, Mount, TempDir, World, child_role, open, open_with, report, skipped,
    small, thawed, world,
};
use snapring::{Caretaker, OpenError, Options, Snapshot, SnapshotId};

/// The error of opening `dir`, which names `path` and says `advice`.
fn refused(dir: &Path, path: &Path, advice: &str) -> OpenError {
    told(open_with::<World>(&small(), dir).expect_err("this must not open"), path, advice)
}

fn told(error: OpenError, path: &Path, advice: &str) -> OpenError {
    let text = error.to_string();
    assert!(text.contains(&path.display().to_string()), "{text:?} does not name {path:?}");
    assert!(text.contains(advice), "{text:?} does not say {advice:?}");
    error
}

/// A directory with the worlds 1 to `last`, closed.
fn ring_of(name: &str, last: u64) -> TempDir {
    let dir = TempDir::new(name);
    let caretaker = open(&dir);
    for n in 1..=last {
        caretaker.save(&world(n)).expect("saved");
    }
    caretaker.close().expect("closed");
    dir
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it is there").mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("a new mode");
}

/// A directory that is gone after a power cut, with all that was durable in it.
#[test]
fn the_directory_that_opening_made_is_synced_and_so_is_each_above_it() {
    const TEST: &str = "the_directory_that_opening_made_is_synced_and_so_is_each_above_it";
    if let Some((_, dir)) = child_role() {
        open(&dir).close().expect("closed");
        return;
    }
    let root = TempDir::on_disk("above");
    let (dir, log) = (root.inside("a").join("b").join("ring"), root.inside("log"));
    let mut strace = Command::new("strace");
    strace.args(["-f", "-y", "-e", "trace=fsync", "-o"]).arg(&log);
    strace.arg(std::env::current_exe().expect("this program"));
    if let Err(why) = Command::new("strace").arg("-V").output() {
        return skipped("syncing the directories above", &format!("strace: {why}"));
    }
    _ = Child::start_as(&mut strace, TEST, "open", &dir).rest();
    let log = std::fs::read_to_string(log).expect("what was synced");
    for above in [&*root, &root.inside("a"), &root.inside("a").join("b"), &dir] {
        let synced = format!("<{}>) = 0", above.display());
        assert!(log.lines().any(|line| line.contains(&synced)), "{synced}\n{log}");
    }
}

#[test]
fn a_missing_directory_is_made_for_its_owner_alone() {
    let temp = TempDir::new("missing");
    let dir = temp.inside("a/b");
    let caretaker = open(&dir);
    assert_eq!(mode(&dir), 0o700);
    for name in [A, B, "writer.lock", "leases.lock"] {
        assert_eq!(mode(&dir.join(name)), 0o600, "{name}");
    }
    assert_eq!(caretaker.recovery().created, [dir.join(A), dir.join(B)]);
    assert_eq!(caretaker.recovery().chosen, None);
    assert_eq!(caretaker.head(), None);
    assert!(caretaker.resume().expect("nothing to resume").is_none());
}

#[test]
fn a_path_that_is_no_directory_is_refused() {
    let temp = TempDir::new("file");
    let file = temp.inside("file");
    fs::write(&file, "text").expect("written");
    for path in [file.clone(), file.join("below")] {
        let error = refused(&path, &path, "give the path of one");
        assert!(matches!(error, OpenError::NotADirectory { path: p } if p == path));
    }
    assert_eq!(fs::read(&file).expect("still there"), b"text");
}

#[test]
fn what_others_may_write_to_is_refused() {
    let dir = ring_of("writable", 3);
    for bits in [0o770, 0o707, 0o1777] {
        set_mode(&dir, bits);
        let error = refused(&dir, &dir, "chmod it to 700");
        assert!(matches!(error, OpenError::Untrusted { .. }), "{error:?}");
    }
    set_mode(&dir, 0o700);
    for name in [A, B, "writer.lock", "leases.lock"] {
        set_mode(&dir.join(name), 0o620);
        let error = refused(&dir, &dir.join(name), "chmod it to 600");
        assert!(matches!(error, OpenError::Untrusted { .. }), "{error:?}");
        set_mode(&dir.join(name), 0o600);
    }
    let caretaker = open(&dir);
    assert_eq!(caretaker.history().len(), 3, "the refusals changed nothing");
}

/// Puts something else in place of each file in turn, by `make(path of the thing, the file moved
/// away)`, and sees it refused.
fn refused_in_place_of_each_file(name: &str, advice: &str, make: impl Fn(&Path, &Path)) {
    let dir = ring_of(name, 3);
    for file in [A, B, "writer.lock", "leases.lock"] {
        let (path, aside) = (dir.join(file), dir.inside("elsewhere"));
        fs::rename(&path, &aside).expect("moved away");
        make(&path, &aside);
        let error = refused(&dir, &path, advice);
        assert!(matches!(error, OpenError::Untrusted { .. }), "{error:?}");
        if fs::symlink_metadata(&path).expect("still there").is_dir() {
            fs::remove_dir(&path).expect("removed");
        } else {
            fs::remove_file(&path).expect("removed");
        }
        fs::rename(&aside, &path).expect("moved back");
    }
    assert_eq!(open(&dir).history().len(), 3, "the refusals changed nothing");
}

#[test]
fn a_symbolic_link_is_refused() {
    refused_in_place_of_each_file("symlink", "remove the link", |path, aside| {
        symlink(aside, path).expect("linked");
    });
    refused_in_place_of_each_file("dangling", "remove the link", |path, _| {
        symlink("nowhere", path).expect("linked");
    });
}

#[test]
fn a_second_name_is_refused() {
    refused_in_place_of_each_file("hardlink", "copy it to a file of its own", |path, aside| {
        fs::hard_link(aside, path).expect("linked");
    });
}

#[test]
fn what_is_no_regular_file_is_refused() {
    refused_in_place_of_each_file("directory", "move it away", |path, _| {
        fs::create_dir(path).expect("a directory");
    });
    refused_in_place_of_each_file("fifo", "move it away", |path, _| {
        let name = std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).expect("a name");
        // SAFETY: a string that ends with a zero, read by the call alone.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    });
    refused_in_place_of_each_file("socket", "move it away", |path, _| {
        UnixListener::bind(path).expect("a socket");
    });
}

/// Runs as another user: tells what opening says, kind and text.
#[test]
fn child_tells_what_opening_says() {
    let Some((role, dir)) = child_role() else { return };
    assert_eq!(role, "open");
    match open_with::<World>(&small(), &dir) {
        Ok(_) => report("opened"),
        Err(error @ OpenError::Untrusted { .. }) => report(format_args!("untrusted {error}")),
        Err(error) => {
            let source = std::error::Error::source(&error).map(ToString::to_string);
            report(format_args!("{error}: {}", source.unwrap_or_default()));
        }
    }
}

#[test]
fn a_directory_of_another_user_or_without_write_permission_is_refused() {
    const NOBODY: u32 = 65534;
    // SAFETY: asks for a number.
    if unsafe { libc::geteuid() } != 0 {
        return skipped("unwritable directory", "not root, so no other user to become");
    }
    // The other user must be able to run this program and to reach the directory.
    let temp = TempDir::new("users");
    set_mode(&temp, 0o755);
    let program = temp.inside("program");
    fs::copy(std::env::current_exe().expect("this program"), &program).expect("copied");
    set_mode(&program, 0o755);
    let says = |dir: &Path| {
        let mut command = Command::new(&program);
        command.uid(NOBODY).gid(NOBODY).current_dir("/");
        let mut child = Child::start_as(&mut command, "child_tells_what_opening_says", "open", dir);
        child.next().expect("it says something")
    };

    let of_root = temp.inside("of_root");
    fs::create_dir(&of_root).expect("made");
    let said = says(&of_root);
    assert!(said.starts_with("untrusted") && said.contains("a directory of your own"), "{said}");
    assert!(said.contains(&of_root.display().to_string()), "{said}");

    let unwritable = temp.inside("unwritable");
    fs::create_dir(&unwritable).expect("made");
    std::os::unix::fs::chown(&unwritable, Some(NOBODY), Some(NOBODY)).expect("given");
    set_mode(&unwritable, 0o500);
    let said = says(&unwritable);
    let lock = unwritable.join("writer.lock").display().to_string();
    assert!(said.contains(&lock) && said.contains("ermission denied"), "{said}");

    let said = says(&temp.inside("not_to_be_made"));
    assert!(said.contains("make the directory") && said.contains("ermission denied"), "{said}");

    set_mode(&unwritable, 0o700);
    assert_eq!(says(&unwritable), "opened", "the same with permission");
}

#[test]
fn a_read_only_file_system_is_refused() {
    let temp = TempDir::new("readonly");
    let dir = temp.inside("mounted");
    let mount = match Mount::at(&dir, &["-t", "tmpfs", "-o", "ro,mode=700,size=1m", "none"]) {
        Ok(mount) => mount,
        Err(why) => return skipped("read-only file system", &why),
    };
    let error = refused(mount.path(), &dir.join("writer.lock"), "cannot create");
    let OpenError::Io { source, .. } = error else { panic!("{error:?}") };
    assert_eq!(source.raw_os_error(), Some(libc::EROFS));
}

#[test]
fn a_remote_file_system_is_refused_unless_allowed() {
    let temp = TempDir::new("remote");
    let dir = temp.inside("mounted");
    fs::create_dir(&dir).expect("made");
    let _mount = match Fuse::mount(&dir) {
        Ok(mount) => mount,
        Err(why) => return skipped("remote file system", &why),
    };
    let error = refused(&dir, &dir, "`Options::allow_remote(true)`");
    assert!(matches!(error, OpenError::Remote { kind: "FUSE", .. }), "{error:?}");
    // Allowed, it goes on, as far as this one lets it.
    let error = open_with::<World>(&small().allow_remote(true), &dir).expect_err("no files there");
    let error = told(error, &dir.join("writer.lock"), "cannot");
    assert!(matches!(error, OpenError::Io { .. }), "{error:?}");
}

#[test]
fn a_second_caretaker_in_this_process_is_refused_until_the_first_has_gone() {
    let dir = TempDir::new("twice");
    let first = open(&dir);
    let holder = format!("process {}", std::process::id());
    let error = refused(&dir, &dir, &holder);
    assert!(matches!(&error, OpenError::WriterActive { holder: h, .. } if *h == holder));
    assert!(error.to_string().contains("close that caretaker"), "{error}");
    first.save(&world(1)).expect("the first is not disturbed");
    first.close().expect("closed");
    assert_eq!(open(&dir).history().len(), 1);
}

fn next_id(dir: &Path) -> u64 {
    open(dir).save(&world(99)).expect("saved").get()
}

#[test]
fn another_format_is_refused_and_left_alone() {
    let forge = |field: &'static str, value: u64, advice: &str, newer: bool, copies: &[usize]| {
        for name in [A, B] {
            let dir = ring_of("format", 4);
            for at in copies {
                Image::open(&dir, name).forge("header", *at, |h| h.set(field, value));
            }
            let before = [A, B].map(|name| Image::open(&dir, name).all());
            let error = refused(&dir, &dir.join(name), advice);
            match error {
                OpenError::NewerFormat { found, known, .. } => {
                    assert!(newer && u64::from(found) == value && known == 1, "{found} {known}");
                }
                OpenError::ForeignFormat { .. } => assert!(!newer, "{error}"),
                _ => panic!("{error:?}"),
            }
            let after = [A, B].map(|name| Image::open(&dir, name).all());
            assert!(before == after, "{field} {value}: a refusal writes nothing");
        }
    };
    let both = [0, 3584];
    forge("format", 2, "use a newer snapring", true, &both);
    forge("format", u64::from(u32::MAX), "use a newer snapring", true, &both);
    forge("endian", 2, "big-endian", false, &both);
    forge("pointer", 8, "64 bits", false, &both);
    forge("pointer", 255, "a build of that kind", false, &both);
    forge("aligned", 0, "unaligned", false, &both);
    forge("rkyv", 9, "rkyv 0.9", false, &both);
    // One whole header that says so is enough: whoever wrote it may have come no further.
    forge("format", 2, "use a newer snapring", true, &[0]);
    forge("pointer", 8, "64 bits", false, &[0]);
}

#[test]
fn files_of_another_ring_are_refused_and_left_alone() {
    let (dir, other) = (ring_of("ours", 4), ring_of("theirs", 2));
    fs::copy(other.join(B), dir.join(B)).expect("copied");
    let error = refused(&dir, &dir.join(B), "put back the file that belongs here");
    assert!(matches!(error, OpenError::OtherRing { .. }), "{error:?}");
    assert!(!dir.inside("snapshot_b.bin.damaged").exists());
    fs::copy(other.join(A), dir.join(A)).expect("copied");
    assert_eq!(open(&dir).history().len(), 2, "the other ring, whole");
}

#[test]
fn swapped_files_are_refused_and_left_alone() {
    let dir = ring_of("swapped", 4);
    let aside = dir.inside("aside");
    let swap = || {
        fs::rename(dir.join(A), &aside).expect("renamed");
        fs::rename(dir.join(B), dir.join(A)).expect("renamed");
        fs::rename(&aside, dir.join(B)).expect("renamed");
    };
    swap();
    let error = refused(&dir, &dir.join(A), "rename them back");
    assert!(matches!(error, OpenError::Swapped { found: 'B', .. }), "{error:?}");
    swap();
    assert_eq!(open(&dir).history().len(), 4);
}

#[test]
fn a_directory_keeps_its_ring_and_options_must_fit_it() {
    let dir = TempDir::new("long");
    let long = small().ring(40);
    open_with::<World>(&long, &dir).expect("made").close().expect("closed");
    let caretaker = open(&dir);
    for n in 1..=41 {
        caretaker.save(&world(n)).expect("saved");
    }
    assert_eq!(caretaker.history().len(), 40, "the directory's own length");
    drop(caretaker);
    // What is enough for the ring asked for is too little for the one found.
    fs::remove_file(dir.join(B)).expect("removed");
    let tight = small().ring(2).file_size(0).max_file_size(4096 * 8);
    let error = open_with::<World>(&tight, &dir).expect_err("too small for a ring of 40");
    assert!(matches!(error, OpenError::Options { option: "max_file_size", .. }), "{error:?}");
    // An evicted one may reappear below.
    assert!((20..=21).contains(&open(&dir).history().len()), "A's half");
}

#[test]
fn options_out_of_range_are_refused_with_the_range() {
    let dir = TempDir::new("options");
    let cases = [
        ("ring", Options::new().ring(1), "2 to 1000"),
        ("ring", Options::new().ring(1001), "2 to 1000"),
        ("max_file_size", Options::new().max_file_size(4096), "to 2^46"),
        ("max_file_size", Options::new().max_file_size(u64::MAX), "to 2^46"),
        ("file_size", Options::new().file_size(2 << 20).max_file_size(1 << 20), "max_file_size"),
        ("max_depth", Options::new().max_depth(0), "1 to 4096"),
        ("max_depth", Options::new().max_depth(4097), "1 to 4096"),
    ];
    for (name, options, range) in cases {
        let error = open_with::<World>(&options, &dir).expect_err("out of range");
        assert!(matches!(error, OpenError::Options { option, .. } if option == name), "{error:?}");
        let text = error.to_string();
        assert!(text.contains(name) && text.contains(range), "{text}");
        assert!(options.in_memory::<World>().is_err());
    }
    assert_eq!(fs::read_dir(&dir).expect("a directory").count(), 0, "nothing was made");
}

#[test]
fn ids_go_on_after_a_clean_close() {
    let dir = ring_of("clean", 5);
    let caretaker = open(&dir);
    assert!(caretaker.recovery().clean);
    assert_eq!(caretaker.save(&world(6)).expect("saved").get(), 6);
    drop(caretaker);
    let caretaker = open(&dir);
    assert!(caretaker.recovery().clean, "dropping closes too");
    assert_eq!(caretaker.save(&world(7)).expect("saved").get(), 7);
}

#[test]
fn ids_go_on_at_the_next_one_after_a_kill() {
    let dir = TempDir::new("kill");
    let caretaker = open(&dir);
    for n in 1..=20 {
        caretaker.save(&world(n)).expect("saved");
    }
    let killed = dir.copy("killed");
    let after = open(&killed);
    assert!(!after.recovery().clean);
    assert_eq!(after.save(&world(21)).expect("saved").get(), 21);
    assert_eq!(caretaker.save(&world(21)).expect("saved").get(), 21, "a copy of its own");
}

/// Makes a directory look as if it was written in another boot.
fn reboot(dir: &Path) {
    let earlier = [7; 16];
    for image in Image::both(dir) {
        image.forge("floor", Image::floor_at(), |f| f.set_bytes("boot", &earlier));
        for (at, record) in image.records() {
            image.forge("record", at, |r| r.set_bytes("boot", &earlier));
            let note = image.fields("note", at + 512);
            if note.is_sealed() && note.get("id") == record.get("id") {
                let seal = image.fields("record", at).get("seal");
                image.forge("note", at + 512, |n| {
                    n.set_bytes("boot", &earlier);
                    n.set("record seal", seal);
                });
            }
        }
    }
    Image::open(dir, "writer.lock").forge("floor", 512, |f| f.set_bytes("boot", &earlier));
}

fn floor_of(dir: &Path) -> u64 {
    Image::open(dir, A).fields("floor", Image::floor_at()).get("floor")
}

#[test]
fn ids_go_on_at_the_floor_after_a_power_cut() {
    let dir = TempDir::new("power");
    let caretaker = open(&dir);
    for n in 1..=9 {
        caretaker.save(&world(n)).expect("saved");
    }
    let cut = dir.copy("cut");
    drop(caretaker);
    reboot(&cut);
    // The newest two never reached the disk.
    let floor = floor_of(&cut);
    for image in Image::both(&cut) {
        let (at, _) = image.records().pop().expect("its newest");
        image.write(at, &[0; 196]);
    }
    let caretaker = open(&cut);
    assert_eq!(caretaker.head(), Some(SnapshotId::new(7)));
    assert!(!caretaker.recovery().clean);
    assert!(floor > 1 << 20, "the floor was raised before the first id was given out");
    assert_eq!(caretaker.save(&world(10)).expect("saved").get(), floor);
    assert!(floor_of(&cut) > floor + (1 << 19), "and again");
    assert!(caretaker.history().iter().all(|e| e.is_durable() == (e.id().get() < floor)));
}

#[test]
fn ids_go_on_at_the_floor_when_nothing_was_saved_between_a_power_cut_and_a_kill() {
    let dir = TempDir::new("power and kill");
    let caretaker = open(&dir);
    for n in 1..=9 {
        caretaker.save(&world(n)).expect("saved");
    }
    let cut = dir.copy("cut");
    drop(caretaker);
    reboot(&cut);
    // Neither the newest two nor their hint reached the disk.
    let floor = floor_of(&cut);
    for image in Image::both(&cut) {
        let (at, _) = image.records().pop().expect("its newest");
        image.write(at, &[0; 196]);
        image.write(1024, &[0; 12]);
    }
    let caretaker = open(&cut);
    let killed = cut.copy("killed");
    drop(caretaker);
    let caretaker = open(&killed);
    assert_eq!(caretaker.save(&world(10)).expect("saved").get(), floor);
}

#[test]
fn ids_survive_the_loss_of_files() {
    let cases: [(&[&str], u64); 6] = [
        (&[A], 3),
        (&[B], 4),
        (&[A, B], 0),
        (&["writer.lock"], 7),
        (&[A, "writer.lock"], 3),
        (&["leases.lock"], 7),
    ];
    for closed in [true, false] {
        for (lost, left) in cases {
            let dir = TempDir::new("loss");
            let caretaker = open(&dir);
            for n in 1..=7 {
                caretaker.save(&world(n)).expect("saved");
            }
            let found = if closed {
                caretaker.close().expect("closed");
                dir
            } else {
                dir.copy("killed")
            };
            for name in lost {
                fs::remove_file(found.join(name)).expect("removed");
            }
            let caretaker = open(&found);
            let recovery = caretaker.recovery();
            let made: Vec<_> =
                lost.iter().filter(|n| n.ends_with(".bin")).map(|n| found.join(n)).collect();
            assert_eq!(recovery.created, made, "{lost:?}");
            assert_eq!(recovery.clean, closed && *lost == ["leases.lock"], "{lost:?}");
            assert!(recovery.rejected.is_empty() && recovery.set_aside.is_empty(), "{recovery}");
            let ids: Vec<u64> = caretaker.history().iter().map(|e| e.id().get()).collect();
            assert_eq!(ids.len() as u64, left, "{lost:?} {ids:?}");
            for id in ids {
                assert_eq!(thawed(&caretaker, SnapshotId::new(id)), Some(id));
            }
            let id = caretaker.save(&world(8)).expect("saved").get();
            assert!(id > 7, "{lost:?}: {id} was used before");
        }
    }
}

#[test]
fn ids_skip_those_of_a_damaged_newest_record() {
    for closed in [true, false] {
        let dir = TempDir::new("newest");
        let caretaker = open(&dir);
        for n in 1..=6 {
            caretaker.save(&world(n)).expect("saved");
        }
        let found = if closed {
            drop(caretaker);
            dir
        } else {
            dir.copy("killed")
        };
        let image = Image::open(&found, B);
        let at = image.slot_of(6).expect("six is in B");
        // Its very id is damaged, and so is the hint.
        image.write(at, &[0xee; 8]);
        Image::open(&found, A).write(1024, &[0; 8]);
        let caretaker = open(&found);
        assert_eq!(caretaker.head(), Some(SnapshotId::new(5)));
        assert_eq!(caretaker.recovery().rejected.len(), 1);
        assert!(caretaker.save(&world(7)).expect("saved").get() > 6, "closed: {closed}");
    }
}

#[test]
fn ids_skip_those_of_a_newest_record_that_was_wiped() {
    let dir = TempDir::new("wiped");
    let caretaker = open(&dir);
    for n in 1..=6 {
        caretaker.save(&world(n)).expect("saved");
    }
    let found = dir.copy("killed");
    let image = Image::open(&found, B);
    image.write(image.slot_of(6).expect("six is in B"), &[0; 4096]);
    assert!(next_id(&found) > 6);
}

#[test]
fn ids_go_on_at_the_highest_floor_when_floors_differ() {
    // As if killed while the floor was raised, or the closing note written, in this order.
    let places = [A, B, "writer.lock"];
    for written in 1..=2 {
        for (field, value) in [("floor", 9 << 20), ("next", 6)] {
            let dir = ring_of("floors", 5);
            for (i, name) in places.into_iter().enumerate() {
                let at = if name == "writer.lock" { 512 } else { Image::floor_at() };
                Image::open(&dir, name).forge("floor", at, |f| {
                    f.set("next", 0);
                    if i < written {
                        f.set(field, value);
                    }
                });
            }
            let floor = if field == "floor" { value } else { floor_of(&dir) };
            let caretaker = open(&dir);
            assert!(!caretaker.recovery().clean);
            assert_eq!(caretaker.save(&world(6)).expect("saved").get(), floor, "{field} {written}");
        }
    }
}

#[test]
fn a_floor_that_no_id_can_reach_is_not_believed_blindly() {
    for (floor, next) in [(u64::MAX, 0), (u64::MAX, u64::MAX), (1 << 52, 1 << 52), (0, u64::MAX)] {
        let dir = ring_of("heights", 5);
        for (name, at) in [(A, Image::floor_at()), (B, Image::floor_at()), ("writer.lock", 512)] {
            Image::open(&dir, name).forge("floor", at, |f| {
                f.set("floor", floor);
                f.set("next", next);
            });
        }
        let caretaker = open(&dir);
        assert_eq!(caretaker.history().len(), 5);
        match caretaker.save(&world(6)) {
            Ok(id) => assert!(id.get() > 5),
            Err(error) => assert!(error.to_string().contains("2^52"), "{error}"),
        }
    }
}

#[test]
fn the_receipt_tells_what_was_found() {
    let dir = TempDir::new("receipt");
    let caretaker = open(&dir);
    for n in 1..=6 {
        caretaker.save(&world(n)).expect("saved");
    }
    caretaker.close().expect("closed");
    let [_, b] = Image::both(&dir);
    // The newest's data, and an older record.
    let record = b.fields("record", b.slot_of(6).expect("in B"));
    let offset = record.get("root offset") as usize + 3;
    b.write(offset, &[b.read(offset, 1)[0] ^ 0x10]);
    let two = b.slot_of(2).expect("in B");
    b.forge("record", two, |r| r.set("index", 11));

    let caretaker = open(&dir);
    let recovery = caretaker.recovery().clone();
    let id = SnapshotId::new;
    assert_eq!(recovery.chosen, Some(id(5)));
    assert_eq!(recovery.unverified, [id(4), id(3), id(1)]);
    let rejected: Vec<_> = recovery.rejected.iter().map(|r| (r.side, r.id)).collect();
    assert!(rejected.contains(&(snapring::Side::B, Some(id(2)))), "{rejected:?}");
    assert!(rejected.contains(&(snapring::Side::B, Some(id(6)))), "{rejected:?}");
    assert_eq!(rejected.len(), 2);
    assert!(recovery.clean, "it was closed before it was damaged");
    assert!(recovery.set_aside.is_empty() && recovery.created.is_empty());
    assert!(recovery.other_layout.is_empty());
    let bytes = caretaker.memento(id(5)).expect("whole").bytes();
    assert_eq!(recovery.verified_bytes, bytes);
    let text = recovery.to_string();
    for part in ["resumed at #5", "clean close", B, "snapshot #6", "checksum", "place 11"] {
        assert!(text.contains(part), "{text:?} lacks {part:?}");
    }
}

mod one {
    #[derive(snapring::Snapshot)]
    #[snapshot(version = 1)]
    pub(super) struct State {
        pub(super) tick: u64,
        pub(super) at: Spot,
    }
    #[derive(snapring::Snapshot)]
    pub(super) struct Spot {
        pub(super) x: u32,
        pub(super) y: u32,
    }
}

mod two {
    #[derive(snapring::Snapshot, Debug)]
    #[snapshot(version = 2)]
    pub(super) struct State {
        pub(super) tick: u64,
        pub(super) at: Spot,
    }
    #[derive(snapring::Snapshot, Debug)]
    pub(super) struct Spot {
        pub(super) x: u32,
        pub(super) y: f32,
    }
}

fn open_as<T: Snapshot>(dir: &Path) -> Caretaker<T> {
    open_with(&small(), dir).expect("it opens")
}

#[test]
fn another_layout_of_the_same_size_is_never_read_as_this_one() {
    let dir = TempDir::new("layout");
    let first = open_as::<one::State>(&dir);
    let state = one::State { tick: 1, at: one::Spot { x: 2, y: 1_000_000_000 } };
    let old = first.save(&state).expect("saved");
    first.keep(old, "before the change").expect("kept");
    first.close().expect("closed");
    let difference = "at.y: u32 in the file, f32 in the program";

    let second = open_as::<two::State>(&dir);
    assert_eq!(second.recovery().chosen, Some(old));
    assert_eq!(second.recovery().other_layout, [(old, difference.to_owned())]);
    assert_eq!(second.head(), Some(old));
    assert!(second.latest().is_none() && second.memento(old).is_none());
    assert!(second.read(|_| ()).is_none());
    let error = second.try_memento(old).expect_err("another layout");
    assert!(matches!(&error, snapring::MementoError::Layout { id, difference: d }
        if *id == old && d == difference));
    assert!(error.to_string().contains(difference), "{error}");
    let error = second.resume().map(drop).expect_err("another layout");
    let snapring::ResumeError::Memento(snapring::MementoError::Layout { .. }) = error else {
        panic!("{error:?}")
    };
    let mut live = two::State { tick: 9, at: two::Spot { x: 9, y: 9.0 } };
    assert!(second.resume_into(&mut live).is_err());
    let error = second.rollback(&mut live, old).expect_err("another layout");
    assert!(matches!(&error, snapring::RollbackError::Layout { .. }), "{error:?}");
    assert!(error.to_string().contains(difference), "{error}");
    assert_eq!((live.tick, live.at.y), (9, 9.0));
    let entry = &second.history()[0];
    assert_eq!((entry.type_version(), entry.label()), (1, Some("before the change")));
    assert!(matches!(entry.state(), snapring::EntryState::OtherLayout { .. }));
    // Life goes on beside it, on both sides.
    for n in 0..40 {
        second.save(&two::State { tick: n, at: two::Spot { x: 0, y: n as f32 } }).expect("saved");
    }
    assert_eq!(second.history().last().map(|e| e.id()), Some(old), "it is kept");
    second.close().expect("closed");

    // The old program finds its own snapshot whole, and refuses the others likewise.
    let third = open_as::<one::State>(&dir);
    let memento = third.try_memento(old).expect("its own layout");
    assert_eq!((memento.at.x.to_native(), memento.at.y.to_native()), (2, 1_000_000_000));
    assert_eq!(third.recovery().other_layout.len(), 15);
    assert!(third.resume().is_err());
}
