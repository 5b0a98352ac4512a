#![forbid(unsafe_code)]
//! Who is let in to take a ring over: a thread that listens, hears what comes, and answers.
//!
//! One successor at a time is ready; others wait before the door. Knows layouts and users. What is
//! handed over, and when, is for `handover.rs`.

use std::{
    collections::VecDeque,
    fs, io,
    os::{
        fd::AsFd as _,
        unix::{
            fs::MetadataExt as _,
            net::{UnixListener, UnixStream},
        },
    },
    path::PathBuf,
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::{Condvar, Mutex};

use crate::{
    clock,
    engine::Engine,
    os::{self, socket},
    schema::{Layout, first_difference},
    wire::{self, Hello, Kind, MAX_TEXT},
};

/// How long one message of a successor is waited for.
const MESSAGE: Duration = Duration::from_secs(2);
/// How long a successor may prepare.
const PREPARING: Duration = Duration::from_secs(60);
/// Refusals remembered.
const REFUSALS: usize = 16;

/// A successor that was not let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Its process id.
    pub process: u32,
    /// Why: the first difference between the layouts, or what went wrong. *The file* is this
    /// process, *the program* the successor.
    pub reason: String,
}

/// Where the thread that listens and the server meet.
#[derive(Debug, Default)]
pub(crate) struct Desk {
    pub(crate) waiting: Mutex<Waiting>,
    pub(crate) changed: Condvar,
}

#[derive(Debug, Default)]
pub(crate) struct Waiting {
    pub(crate) ready: Option<Successor>,
    pub(crate) refused: VecDeque<Refusal>,
}

#[derive(Debug, Clone)]
pub(crate) struct Successor {
    pub(crate) stream: Arc<UnixStream>,
    pub(crate) process: u32,
}

/// The socket's file, removed at the end if it is still ours.
#[derive(Debug)]
pub(crate) struct SocketFile {
    pub(crate) path: PathBuf,
    pub(crate) identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let found = fs::symlink_metadata(&self.path).map(|meta| (meta.dev(), meta.ino()));
        if !os::forked() && found.is_ok_and(|found| found == self.identity) {
            _ = fs::remove_file(&self.path);
        }
    }
}

/// Who is let in.
pub(crate) struct Gate {
    pub(crate) engine: Weak<Engine>,
    pub(crate) layout: Arc<Layout>,
    pub(crate) woken: UnixStream,
}

impl Gate {
    /// The thread: lets one in after the other, until the waker is dropped.
    pub(crate) fn attend(&self, desk: &Desk, listener: &UnixListener) {
        loop {
            let ready = desk.waiting.lock().ready.clone();
            let watched = ready.as_ref().map_or(listener.as_fd(), |s| s.stream.as_fd());
            match socket::readable([watched, self.woken.as_fd()], None) {
                Ok([_, false]) => {}
                _ => return,
            }
            if let Some(successor) = ready {
                // It has ended, or speaks out of turn. Unless it has been taken off the desk.
                let mut waiting = desk.waiting.lock();
                if waiting.ready.as_ref().is_some_and(|s| Arc::ptr_eq(&s.stream, &successor.stream))
                {
                    waiting.ready = None;
                }
                continue;
            }
            let Ok((stream, _)) = listener.accept() else { continue };
            let process = socket::peer(&stream).map_or(0, |(_, process)| process);
            let came = self.let_in(&stream);
            let mut waiting = desk.waiting.lock();
            match came {
                Ok(()) => waiting.ready = Some(Successor { stream: Arc::new(stream), process }),
                Err(reason) => {
                    if waiting.refused.len() == REFUSALS {
                        waiting.refused.pop_front();
                    }
                    waiting.refused.push_back(Refusal { process, reason });
                }
            }
            desk.changed.notify_all();
        }
    }

    /// Hears who comes; `Ok` when it is ready.
    fn let_in(&self, stream: &UnixStream) -> Result<(), String> {
        let broken = |e: io::Error| format!("it could not be understood: {e}");
        let (user, _) = socket::peer(stream).map_err(broken)?;
        if user != os::effective_user() {
            return Err(format!("it is a process of user {user}"));
        }
        let until = clock::deadline(MESSAGE);
        let hello = wire::expect(stream, Kind::Hello, until).map_err(broken)?;
        let hello = Hello::decode(&hello.body).map_err(broken)?;
        if hello.fingerprint != self.layout.fingerprint.to_bytes() {
            let reason = if self.layout.text.len() <= MAX_TEXT {
                wire::words(first_difference(&self.layout.text, &hello.text).as_bytes())
            } else {
                "layouts too long to compare".to_owned()
            };
            _ = wire::send(stream, Kind::Refused, reason.as_bytes(), &[], until);
            return Err(reason);
        }
        {
            let engine = self.engine.upgrade().ok_or("the caretaker is gone")?;
            let files = engine.memory_files();
            wire::send(stream, Kind::Welcome, &wire::encode_welcome(engine.used()), &files, until)
                .map_err(broken)?;
        }
        let until = clock::deadline(PREPARING);
        match socket::readable([stream.as_fd(), self.woken.as_fd()], Some(until)) {
            Ok([true, false]) => {}
            _ => return Err("it was not ready in time".to_owned()),
        }
        wire::expect(stream, Kind::Ready, clock::deadline(MESSAGE)).map(drop).map_err(broken)
    }
}
