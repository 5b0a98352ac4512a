#![forbid(unsafe_code)]
//! [`Gateway`]: one client's connection, as the server has it, and what the client was shown. It
//! knows frames and views, and nothing of the state.

use std::{collections::VecDeque, io, net::TcpStream};

use crate::{
    channel::Channel,
    view::Row,
    wire::{Down, LONGEST_UP, Up},
};

/// A client's connection. Nothing here blocks.
pub(crate) struct Gateway {
    channel: Channel,
    /// What the client was shown, by id.
    shown: Vec<Row>,
    /// Hashes that the client was asked for: number, and what the server has.
    asked: VecDeque<(u64, u64)>,
}

impl Gateway {
    pub(crate) fn new(stream: TcpStream) -> io::Result<Gateway> {
        let channel = Channel::new(stream)?;
        Ok(Gateway { channel, shown: Vec::new(), asked: VecDeque::new() })
    }

    /// The frames that have come in.
    ///
    /// # Errors
    ///
    /// The client has hung up, or talks nonsense.
    pub(crate) fn receive(&mut self) -> io::Result<Vec<Up>> {
        let mut frames = Vec::new();
        self.channel.receive(LONGEST_UP, |body, _| Up::parse(body).map(|up| frames.push(up)))?;
        Ok(frames)
    }

    /// Shows the client the whole view, as of a snapshot. `view` is in the order of ids.
    pub(crate) fn resync(&mut self, snapshot: u64, tick: u64, view: Vec<Row>) {
        self.shown.clone_from(&view);
        Down::Resync { snapshot, tick, rows: view }.put(self.channel.outbox());
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
        Down::Delta { tick, changed, gone }.put(self.channel.outbox());
        self.shown = view;
    }

    /// Asks for the hash of what the client sees; `hash` is what it should be. It is not sent.
    pub(crate) fn ask(&mut self, number: u64, hash: u64) {
        self.asked.push_back((number, hash));
        Down::Ask { number }.put(self.channel.outbox());
    }

    /// Whether the client's answer is the server's; `None` for an answer to no question.
    pub(crate) fn answered(&mut self, number: u64, hash: u64) -> Option<bool> {
        let (asked, expected) = *self.asked.front()?;
        (asked == number).then(|| {
            self.asked.pop_front();
            expected == hash
        })
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
        self.channel.flush()
    }
}
