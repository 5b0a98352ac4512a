#![forbid(unsafe_code)]
//! [`Gateway`]: one client's connection, as the server has it, and what the client was shown. It
//! knows frames and views, and nothing of the state.

use std::{
    collections::VecDeque,
    io::{self, ErrorKind, Read, Write},
    net::TcpStream,
};

use crate::{
    view::Row,
    wire::{Down, LONGEST_UP, Up},
};

/// A client that lets this much pile up is let go.
const PATIENCE: usize = 8 << 20;

/// A client's connection. Nothing here blocks.
pub(crate) struct Gateway {
    stream: TcpStream,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
    /// What the client was shown, by id.
    shown: Vec<Row>,
    /// Hashes that the client was asked for: number, and what the server has.
    asked: VecDeque<(u64, u64)>,
}

impl Gateway {
    pub(crate) fn new(stream: TcpStream) -> io::Result<Gateway> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        Ok(Gateway {
            stream,
            inbox: Vec::new(),
            outbox: Vec::new(),
            shown: Vec::new(),
            asked: VecDeque::new(),
        })
    }

    /// The frames that have come in.
    ///
    /// # Errors
    ///
    /// The client has hung up, or talks nonsense.
    pub(crate) fn receive(&mut self) -> io::Result<Vec<Up>> {
        let mut bytes = [0; 1024];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(n) => self.inbox.extend(&bytes[..n]),
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        let mut frames = Vec::new();
        let mut rest = self.inbox.as_slice();
        while let Some((len, after)) = rest.split_first_chunk() {
            let len = u32::from_le_bytes(*len) as usize;
            if len > LONGEST_UP {
                return Err(ErrorKind::InvalidData.into());
            }
            let Some((body, after)) = after.split_at_checked(len) else { break };
            frames.push(Up::parse(body).ok_or(ErrorKind::InvalidData)?);
            rest = after;
        }
        let read = self.inbox.len() - rest.len();
        self.inbox.drain(..read);
        Ok(frames)
    }

    /// Shows the client the whole view, as of a snapshot. `view` is in the order of ids.
    pub(crate) fn resync(&mut self, snapshot: u64, tick: u64, view: Vec<Row>) {
        self.shown.clone_from(&view);
        Down::Resync { snapshot, tick, rows: view }.put(&mut self.outbox);
    }

    /// Shows the client what has changed since. `view` is in the order of ids.
    pub(crate) fn show(&mut self, tick: u64, view: Vec<Row>) {
        let (mut changed, mut gone) = (Vec::new(), Vec::new());
        let mut old = self.shown.iter().peekable();
        for row in &view {
            while let Some(out_of_sight) = old.next_if(|was| was.id < row.id) {
                gone.push(out_of_sight.id);
            }
            if old.next_if(|was| was.id == row.id) != Some(row) {
                changed.push(*row);
            }
        }
        gone.extend(old.map(|row| row.id));
        Down::Delta { tick, changed, gone }.put(&mut self.outbox);
        self.shown = view;
    }

    /// Asks for the hash of what the client sees; `hash` is what it should be. It is not sent.
    pub(crate) fn ask(&mut self, number: u64, hash: u64) {
        self.asked.push_back((number, hash));
        Down::Ask { number }.put(&mut self.outbox);
    }

    /// Whether the client's answer is the server's; `None` for an answer to no question.
    pub(crate) fn answered(&mut self, number: u64, hash: u64) -> Option<bool> {
        let (asked, expected) = self.asked.pop_front()?;
        (asked == number).then_some(expected == hash)
    }

    /// Questions that the client has not answered.
    pub(crate) fn open_questions(&self) -> impl Iterator<Item = u64> + '_ {
        self.asked.iter().map(|(number, _)| *number)
    }

    /// Sends what the client will take now.
    ///
    /// # Errors
    ///
    /// The client has hung up, or has not listened for long.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        let mut sent = 0;
        while sent < self.outbox.len() {
            match self.stream.write(&self.outbox[sent..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(n) => sent += n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        self.outbox.drain(..sent);
        if self.outbox.len() > PATIENCE {
            return Err(ErrorKind::TimedOut.into());
        }
        Ok(())
    }
}
