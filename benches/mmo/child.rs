//! A child by `fork`, as checkpoints by page tables have it. The only file that forks.

/// A process that has the parent's memory as it was.
#[derive(Debug)]
pub(crate) struct Child(libc::pid_t);

impl Child {
    /// Forks. The child does `work` and ends; it is the only thread there, so `work` neither
    /// allocates nor takes a lock.
    pub(crate) fn doing(work: impl FnOnce()) -> Child {
        // SAFETY: the child calls `work`, which by the contract above touches nothing that another
        // thread may have held, and `_exit`.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0, "a fork: {}", std::io::Error::last_os_error());
        if pid == 0 {
            work();
            // SAFETY: always safe to call; nothing of the parent's is run down.
            unsafe { libc::_exit(0) };
        }
        Child(pid)
    }

    /// Forks a child that lives until it is killed.
    pub(crate) fn idle() -> Child {
        Child::doing(|| {
            loop {
                // SAFETY: always safe to call; waits for a signal.
                unsafe { libc::pause() };
            }
        })
    }

    /// Waits for its end.
    pub(crate) fn wait(self) {
        let mut status = 0;
        // SAFETY: `status` is a word that lives on; the child is ours and has not been waited for.
        let pid = unsafe { libc::waitpid(self.0, &raw mut status, 0) };
        assert_eq!(pid, self.0, "a child to wait for: {}", std::io::Error::last_os_error());
    }

    /// Ends it, and waits for that.
    pub(crate) fn kill(self) {
        // SAFETY: always safe to call; the process is ours, and not waited for yet.
        unsafe { libc::kill(self.0, libc::SIGKILL) };
        self.wait();
    }
}
