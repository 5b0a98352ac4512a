//! A child under the magnifying glass: stepped one instruction at a time, its threads held.

use std::{io, time::Instant};

use libc::{c_int, pid_t};

use crate::process::wait_for;

/// How long a step may take before its thread counts as waiting for another one.
const STEP: std::time::Duration = std::time::Duration::from_millis(3);

/// In the child: whoever started it may trace it.
pub(crate) fn offer() {
    // SAFETY: changes who may look at this process.
    unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) };
}

/// In the child: stops, until the tracer goes on.
pub(crate) fn pause() {
    // SAFETY: stops this thread.
    unsafe { libc::raise(libc::SIGSTOP) };
}

fn request(what: libc::c_uint, thread: pid_t, data: usize) -> Result<(), String> {
    // SAFETY: a thread that this process traces and that is stopped; nothing of ours is written.
    if unsafe { libc::ptrace(what, thread, 0, data) } < 0 {
        return Err(format!("ptrace: {}", io::Error::last_os_error()));
    }
    Ok(())
}

/// A traced child: its first thread, and the others, which are held.
#[derive(Debug)]
pub(crate) struct Traced {
    main: pid_t,
    others: Vec<pid_t>,
    /// A step of the first thread has not ended,
    under_way: bool,
    /// and has had its time.
    waits: bool,
}

/// What a step came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// One instruction of one thread has been carried out.
    Done,
    /// The child has ended with this status.
    Ended(c_int),
}

impl Traced {
    /// Takes a child that has offered itself and paused.
    pub(crate) fn attach(main: pid_t) -> Result<Traced, String> {
        match wait_for(main, libc::__WALL) {
            Some((_, status)) if libc::WIFSTOPPED(status) => {}
            other => return Err(format!("the child did not stop: {other:?}")),
        }
        let options = libc::PTRACE_O_TRACECLONE | libc::PTRACE_O_EXITKILL;
        request(libc::PTRACE_SETOPTIONS, main, options as usize)?;
        Ok(Traced { main, others: Vec::new(), under_way: false, waits: false })
    }

    /// Lets it run until it pauses again, then holds all its threads. `Err` if it ends.
    pub(crate) fn run_to_pause(&mut self) -> Result<(), String> {
        request(libc::PTRACE_CONT, self.main, 0)?;
        loop {
            let Some((_, status)) = wait_for(self.main, libc::__WALL) else {
                return Err("nobody to wait for".to_owned());
            };
            if !libc::WIFSTOPPED(status) {
                return Err(format!("the child ended with status {status:#x}"));
            }
            match (libc::WSTOPSIG(status), status >> 16) {
                (libc::SIGSTOP, 0) => break,
                (_, libc::PTRACE_EVENT_CLONE) => {
                    self.take_in_new()?;
                    let new = self.others.last().copied();
                    new.map_or(Ok(()), |thread| request(libc::PTRACE_CONT, thread, 0))?;
                    request(libc::PTRACE_CONT, self.main, 0)?;
                }
                (signal, _) => request(libc::PTRACE_CONT, self.main, signal as usize)?,
            }
        }
        for thread in self.others.clone() {
            self.hold(thread);
        }
        Ok(())
    }

    /// Stops a thread that runs or sleeps.
    fn hold(&mut self, thread: pid_t) {
        // SAFETY: a thread of a child of ours.
        unsafe { libc::syscall(libc::SYS_tgkill, self.main, thread, libc::SIGSTOP) };
        match wait_for(thread, libc::__WALL) {
            Some((_, status)) if libc::WIFSTOPPED(status) => {}
            _ => self.others.retain(|other| *other != thread),
        }
    }

    /// Threads besides the first.
    pub(crate) fn others(&self) -> usize {
        self.others.len()
    }

    /// Carries out one instruction: of the first thread, or, while that one waits, of another.
    pub(crate) fn step(&mut self) -> Result<Step, String> {
        loop {
            if !self.under_way {
                request(libc::PTRACE_SINGLESTEP, self.main, 0)?;
                self.under_way = true;
            }
            let polled = if self.waits { poll(self.main) } else { wait_a_little(self.main) };
            if let Some(status) = polled {
                (self.under_way, self.waits) = (false, false);
                if !libc::WIFSTOPPED(status) {
                    return Ok(Step::Ended(status));
                }
                if status >> 16 == libc::PTRACE_EVENT_CLONE {
                    self.take_in_new()?;
                }
                return Ok(Step::Done);
            }
            self.waits = true;
            for thread in self.others.clone() {
                request(libc::PTRACE_SINGLESTEP, thread, 0)?;
                match wait_a_little(thread) {
                    Some(status) if libc::WIFSTOPPED(status) => return Ok(Step::Done),
                    Some(_) => self.others.retain(|other| *other != thread),
                    // It waits too, for the first one: held again.
                    None => self.hold(thread),
                }
            }
            if self.others.is_empty() && wait_long(self.main).is_none() {
                return Err("the child waits, and has nobody to wait for".to_owned());
            }
        }
    }

    /// A thread has been made: it stops at its first instruction, and is held there.
    fn take_in_new(&mut self) -> Result<(), String> {
        let mut thread: libc::c_ulong = 0;
        // SAFETY: a stopped thread of ours, and a place for the number.
        let told = unsafe { libc::ptrace(libc::PTRACE_GETEVENTMSG, self.main, 0, &raw mut thread) };
        if told < 0 {
            return Err(format!("ptrace: {}", io::Error::last_os_error()));
        }
        let thread = thread as pid_t;
        if wait_for(thread, libc::__WALL).is_some_and(|(_, status)| libc::WIFSTOPPED(status)) {
            self.others.push(thread);
        }
        Ok(())
    }
}

impl Drop for Traced {
    /// Kills it; its first thread is left for its parent to wait for.
    fn drop(&mut self) {
        // SAFETY: a child of ours that nobody has waited for.
        unsafe { libc::kill(self.main, libc::SIGKILL) };
        // The others are gone when their tracer has heard of it, and the first one after them.
        let threads = || {
            let tasks = std::fs::read_dir(format!("/proc/{}/task", self.main));
            let numbers = tasks.into_iter().flatten().flatten();
            numbers.filter_map(|task| task.file_name().to_str()?.parse::<pid_t>().ok())
        };
        while let Some(thread) = threads().find(|thread| *thread != self.main) {
            wait_for(thread, libc::__WALL);
        }
    }
}

/// The next status of a thread, if it is there.
fn poll(thread: pid_t) -> Option<c_int> {
    wait_for(thread, libc::__WALL | libc::WNOHANG).map(|(_, status)| status)
}

/// The next status of a thread, if it comes within a step's time.
fn wait_a_little(thread: pid_t) -> Option<c_int> {
    for _ in 0..200 {
        if let Some(status) = poll(thread) {
            return Some(status);
        }
    }
    let until = Instant::now() + STEP;
    while Instant::now() < until {
        if let Some(status) = poll(thread) {
            return Some(status);
        }
        std::thread::yield_now();
    }
    None
}

/// Whether a thread is still there after a second: nothing is taken from it.
fn wait_long(thread: pid_t) -> Option<()> {
    for _ in 0..1000 {
        let stat = std::fs::read_to_string(format!("/proc/{thread}/stat")).ok()?;
        // Stopped for us, or running: it goes on.
        if !stat.contains(") S") && !stat.contains(") D") {
            return Some(());
        }
        crate::process::nap(std::time::Duration::from_millis(1));
    }
    None
}
