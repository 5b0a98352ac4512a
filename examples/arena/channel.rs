#![forbid(unsafe_code)]
//! [`Channel`]: one end of a connection, the same for server and client: frames in, frames out,
//! and nothing that blocks. It knows lengths, and not what is in a frame.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::TcpStream,
};

/// Whoever lets this much pile up is let go.
const PATIENCE: usize = 8 << 20;

pub(crate) struct Channel {
    stream: TcpStream,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
}

impl Channel {
    pub(crate) fn new(stream: TcpStream) -> io::Result<Channel> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        Ok(Channel { stream, inbox: Vec::new(), outbox: Vec::new() })
    }

    /// Hands over the frames that have come in.
    ///
    /// # Errors
    ///
    /// The other end has hung up, or sent a frame that is longer than `longest` or that `take`
    /// refuses.
    pub(crate) fn receive(
        &mut self,
        longest: usize,
        mut take: impl FnMut(&[u8], &mut Vec<u8>) -> Option<()>,
    ) -> io::Result<()> {
        let mut bytes = [0; 4096];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(n) => {
                    self.inbox.extend(&bytes[..n]);
                    if n < bytes.len() {
                        break;
                    }
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        let mut rest = self.inbox.as_slice();
        while let Some((len, after)) = rest.split_first_chunk() {
            let len = u32::from_le_bytes(*len) as usize;
            if len > longest {
                return Err(ErrorKind::InvalidData.into());
            }
            let Some((body, after)) = after.split_at_checked(len) else { break };
            take(body, &mut self.outbox).ok_or(ErrorKind::InvalidData)?;
            rest = after;
        }
        let read = self.inbox.len() - rest.len();
        self.inbox.drain(..read);
        Ok(())
    }

    /// Frames to go out with the next [`flush`](Self::flush).
    pub(crate) fn outbox(&mut self) -> &mut Vec<u8> {
        &mut self.outbox
    }

    /// Sends what the other end will take now.
    ///
    /// # Errors
    ///
    /// The other end has hung up, or has not listened for long.
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
