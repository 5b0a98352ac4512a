//! The server: ticks, clients, snapshots, and a successor that may come at any time.
//!
//! Tells the story what happens on its standard output, a line each: `ready PORT`, `first TICK NANOS`,
//! `last TICK NANOS`, and `say` with anything for people to read.

use std::{
    error::Error,
    io::{self, ErrorKind, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::fd::{AsFd as _, BorrowedFd},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant, SystemTime},
};

use snapring::{Armed, Caretaker, HandOver, OpenError, Options};

use crate::{
    Plan,
    builds::{Build, RATE, Unit},
};

/// How long a build waits for the one before it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Nanoseconds since 1970: the same clock for all processes.
pub(crate) fn nanos() -> u128 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_nanos())
}

fn tell(line: std::fmt::Arguments<'_>) {
    let mut out = io::stdout().lock();
    // Whoever has started us may be gone.
    _ = writeln!(out, "{line}");
    _ = out.flush();
}

macro_rules! tell { ($($arguments:tt)*) => { tell(format_args!($($arguments)*)) } }

/// A ring, whoever had it before.
struct Home {
    dir: PathBuf,
    memory: bool,
    options: Options,
}

impl Home {
    /// From the predecessor that serves, or else from what there is.
    fn open<W: Build>(&self) -> Result<Caretaker<W>, OpenError> {
        if !self.memory {
            // SAFETY: the directory is this play's; one server writes there, and the lock sees to it.
            return unsafe { self.options.open(&self.dir) };
        }
        // SAFETY: nobody but a server of this play listens there.
        match unsafe { self.options.in_memory_from(self.socket()) } {
            Err(OpenError::NoPredecessor { .. }) => self.options.in_memory(),
            other => other,
        }
    }

    /// The directory that stands in for a ring in memory, where nobody has it.
    fn files<W: Build>(&self) -> Result<Option<Caretaker<W>>, OpenError> {
        // SAFETY: as in `open`.
        match unsafe { Options::new().ring(2).open(&self.dir) } {
            Err(OpenError::WriterActive { .. }) => Ok(None),
            other => other.map(Some),
        }
    }

    fn offer<W: Build>(&self, caretaker: &Caretaker<W>) -> Result<HandOver, Box<dyn Error>> {
        Ok(match self.memory {
            true => caretaker.hand_over_at(self.socket())?,
            false => caretaker.hand_over()?,
        })
    }

    fn socket(&self) -> PathBuf {
        self.dir.join("ring.sock")
    }
}

/// The listener, and a connection for each seat of the world.
struct Clients {
    listener: TcpListener,
    streams: Vec<TcpStream>,
}

impl Clients {
    /// What the predecessor has passed on, or a listener of our own.
    fn of<W: Build>(caretaker: &Caretaker<W>) -> io::Result<Clients> {
        let mut inherited = caretaker.inherited().into_iter();
        let listener = match inherited.next() {
            Some(fd) => TcpListener::from(fd),
            None => TcpListener::bind("127.0.0.1:0")?,
        };
        listener.set_nonblocking(true)?;
        Ok(Clients { listener, streams: inherited.map(TcpStream::from).collect() })
    }

    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let streams = self.streams.iter().map(|stream| stream.as_fd());
        std::iter::once(self.listener.as_fd()).chain(streams).collect()
    }

    /// Lets new ones in, and hears what all have to say.
    fn hear<W: Build>(&mut self, world: &mut W) {
        while let Ok((stream, _)) = self.listener.accept() {
            if stream.set_nonblocking(true).and_then(|()| stream.set_nodelay(true)).is_ok() {
                self.streams.push(stream);
                world.seats().push(Default::default());
            }
        }
        let mut bytes = [0; 256];
        let mut i = 0;
        while i < self.streams.len() {
            match self.streams[i].read(&mut bytes) {
                Ok(0) => self.let_go(world, i),
                Ok(n) => world.seats()[i].heard += n as u64,
                Err(e) if e.kind() == ErrorKind::WouldBlock => i += 1,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.let_go(world, i),
            }
        }
    }

    fn let_go<W: Build>(&mut self, world: &mut W, i: usize) {
        self.streams.swap_remove(i);
        world.seats().swap_remove(i);
    }

    /// Tells everybody the tick, and how much was heard of them.
    fn tell<W: Build>(&mut self, world: &mut W, tick: u64) {
        for i in (0..self.streams.len()).rev() {
            let heard = world.seats()[i].heard;
            let mut line = [0; 16];
            line[..8].copy_from_slice(&tick.to_le_bytes());
            line[8..].copy_from_slice(&heard.to_le_bytes());
            if !self.streams[i].write(&line).is_ok_and(|n| n == line.len()) {
                self.let_go(world, i);
            }
        }
    }
}

fn millis(from: Instant) -> f64 {
    from.elapsed().as_secs_f64() * 1e3
}

/// Serves until a successor takes over, or SIGTERM comes. `false`: this build was not let in.
pub(crate) fn serve<W: Build>(plan: &Plan) -> Result<bool, Box<dyn Error>> {
    let dir = plan.dir.clone().ok_or("a server needs --dir")?;
    // The ring is short: each snapshot is the whole world.
    let options = Options::new().ring(4).take_over(PATIENCE);
    let home = Home { dir, memory: plan.memory, options };
    // Made while the predecessor still serves: what is resumed only fills it.
    let mut world = W::new((plan.mib << 20) / size_of::<Unit>());
    let mut caretaker = match home.open::<W>() {
        Ok(caretaker) => caretaker,
        Err(error @ OpenError::Layout { .. }) => {
            tell!("say not let in: {error}");
            return Ok(false);
        }
        Err(error) => return Err(error.into()),
    };
    let opened = Instant::now();
    let found = caretaker.resume_into(&mut world)?;
    let resumed = millis(opened);
    let mut files = None;
    if found.is_none() && home.memory {
        // Nobody has handed anything over.
        files = home.files::<W>()?;
        files.as_ref().map_or(Ok(None), |files| files.resume_into(&mut world))?;
    }
    let world = Arc::new(Mutex::new(world));
    let mut clients = Clients::of(&caretaker)?;
    tell!("ready {}", clients.listener.local_addr()?.port());
    let mut offer = home.offer(&caretaker)?;
    let mut armed = match &files {
        None if home.memory => None,
        None => Some(arm(&caretaker, &world)?),
        Some(files) => Some(arm(files, &world)?),
    };

    let pause = Duration::from_secs(1) / RATE as u32;
    let (mut first, mut due) = (true, Instant::now());
    loop {
        let mut live = world.lock().unwrap_or_else(PoisonError::into_inner);
        clients.hear(&mut *live);
        let tick = live.step();
        clients.tell(&mut *live, tick);
        let told = nanos();
        if std::mem::take(&mut first) {
            tell!("first {tick} {told}");
            if let Some(process) = caretaker.recovery().predecessor {
                tell!(
                    "say goes on from process {process} at tick {tick}, with {} connections \
                     (the state filled in {resumed:.1} ms)",
                    clients.streams.len()
                );
            }
        }
        if let Some(process) = offer.successor() {
            let start = Instant::now();
            caretaker.save(&*live)?;
            let saved = millis(start);
            let start = Instant::now();
            match offer.complete(caretaker, &clients.descriptors()) {
                Ok(()) => {
                    tell!("last {tick} {told}");
                    tell!(
                        "say hands over to process {process} at tick {tick}: saved for the last time \
                         in {saved:.1} ms, taken over in {:.1} ms",
                        millis(start)
                    );
                    return Ok(true);
                }
                Err(back) => {
                    tell!("say goes on: {back}");
                    caretaker = back.caretaker;
                    offer = home.offer(&caretaker)?;
                }
            }
        } else if tick.is_multiple_of(RATE) {
            caretaker.save(&*live)?;
        }
        drop(live);
        if armed.is_none() {
            // The predecessor has the files until it has ended.
            files = home.files()?;
            armed = files.as_ref().map(|files| arm(files, &world)).transpose()?;
        }
        due += pause;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        // After a long save it does not hurry.
        due = due.max(Instant::now() - pause);
    }
}

/// A last snapshot on the way down. Memory goes with the process: there it is the files' turn.
fn arm<W: Build>(caretaker: &Caretaker<W>, world: &Arc<Mutex<W>>) -> io::Result<Armed> {
    let lent = world.clone();
    let farewell = caretaker.farewell(move |save| {
        if let Ok(world) = lent.try_lock() {
            save(&world);
        }
    });
    farewell.on_panic().on_sigterm().arm()
}
