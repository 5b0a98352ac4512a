#![forbid(unsafe_code)]
//! The story: three servers, one after the other, and the clients that must not notice. Tells what
//! happens as it happens, and at the end how long the world stood still.

use std::{
    env,
    error::Error,
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{self, Child, Command, ExitStatus, Stdio},
    sync::{
        Arc,
        mpsc::{self, Receiver},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{Plan, clients::Clients};

/// Whatever is waited for comes within this time, on any machine.
const SOON: Duration = Duration::from_secs(60);

/// A tick at a server, and when all had been told.
type Moment = (u64, u128);

/// What a server tells, but for what is only to be read.
enum News {
    Ready(u16),
    First(Moment),
    Last(Moment),
}

fn parse(line: &str) -> Option<News> {
    let (kind, rest) = line.split_once(' ')?;
    let moment = || {
        let (tick, nanos) = rest.split_once(' ')?;
        Some((tick.parse().ok()?, nanos.parse().ok()?))
    };
    match kind {
        "ready" => Some(News::Ready(rest.parse().ok()?)),
        "first" => Some(News::First(moment()?)),
        "last" => Some(News::Last(moment()?)),
        _ => None,
    }
}

/// The clock that the lines are stamped with.
#[derive(Clone)]
struct Timeline(Arc<Instant>);

impl Timeline {
    fn note(&self, who: &str, what: &str) {
        println!("{:8.3} s  {who:<9} {what}", self.0.elapsed().as_secs_f64());
    }
}

/// A server at work. Dropped, it is killed.
struct Server {
    child: Child,
    news: Receiver<News>,
}

impl Server {
    fn start(
        build: &str,
        plan: &Plan,
        dir: &Path,
        timeline: &Timeline,
    ) -> Result<Server, Box<dyn Error>> {
        let name = format!("build {build}");
        timeline.note(&name, "starts");
        let mut command = Command::new(env::current_exe()?);
        command.args(["--serve", build, "--mib", &plan.mib.to_string(), "--dir"]).arg(dir);
        if plan.memory {
            command.arg("--memory");
        }
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let output = child.stdout.take().ok_or("a server without output")?;
        let (tell, news) = mpsc::channel();
        let timeline = timeline.clone();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                match line.strip_prefix("say ") {
                    Some(said) => timeline.note(&name, said),
                    None => {
                        _ = parse(&line).map(|news| tell.send(news));
                    }
                }
            }
        });
        Ok(Server { child, news })
    }

    fn ready(&self) -> Result<u16, Box<dyn Error>> {
        match self.news.recv_timeout(SOON)? {
            News::Ready(port) => Ok(port),
            _ => Err("a server does not start with being ready".into()),
        }
    }

    fn first(&self) -> Result<Moment, Box<dyn Error>> {
        match self.news.recv_timeout(SOON)? {
            News::First(moment) => Ok(moment),
            _ => Err("a server tells of no first tick".into()),
        }
    }

    fn last(&self) -> Result<Moment, Box<dyn Error>> {
        match self.news.recv_timeout(SOON)? {
            News::Last(moment) => Ok(moment),
            _ => Err("a server tells of no last tick".into()),
        }
    }

    fn end(&mut self) -> Result<ExitStatus, Box<dyn Error>> {
        let until = Instant::now() + SOON;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() >= until {
                return Err("a server does not end".into());
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// A directory, removed at the end if it was made for this.
struct Place {
    path: PathBuf,
    passing: bool,
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.passing {
            _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// Whether every client agreed.
pub(crate) fn tell(plan: &Plan) -> Result<bool, Box<dyn Error>> {
    let passing = || env::temp_dir().join(format!("snapring-hot-restart-{}", process::id()));
    let place =
        Place { path: plan.dir.clone().unwrap_or_else(passing), passing: plan.dir.is_none() };
    fs::create_dir_all(&place.path)?;
    // For its owner alone, as the ring asks.
    fs::set_permissions(&place.path, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    let home = if plan.memory { "in memory".to_owned() } else { place.path.display().to_string() };
    println!("a world of {} MiB, {} clients, the ring {home}\n", plan.mib, plan.clients);
    let timeline = Timeline(Arc::new(Instant::now()));
    let while_it_serves = Duration::from_secs(plan.seconds);

    let mut one = Server::start("1", plan, &place.path, &timeline)?;
    let port = one.ready()?;
    let clients = Clients::connect(plan.clients, port)?;
    timeline.note("clients", &format!("connect to port {port}"));
    one.first()?;
    thread::sleep(while_it_serves);

    let mut two = Server::start("2", plan, &place.path, &timeline)?;
    let refused = !two.end()?.success();
    let before = clients.last();
    thread::sleep(while_it_serves / 2);
    let went_on = clients.last() > before;
    timeline.note(
        "build 1",
        &format!("{} at tick {}", if went_on { "goes on" } else { "STOPS" }, clients.last()),
    );
    clients.longest();

    let again = Server::start("1b", plan, &place.path, &timeline)?;
    let same_port = again.ready()? == port;
    let (first, last) = (again.first()?, one.last()?);
    let handed = one.end()?.success();
    timeline.note("build 1", "has ended");
    thread::sleep(while_it_serves / 2);
    let noticed = clients.longest();
    thread::sleep(while_it_serves / 2);
    let clients_last = clients.last();
    let seen = clients.finish().ok_or("the clients panicked")?;

    let mut again = again;
    let by_signal = terminate(&mut again, &timeline)?;
    // And once more, with nobody there to take over from.
    let after = Server::start("1b", plan, &place.path, &timeline)?;
    after.ready()?;
    let resumed = after.first()?.0;
    timeline.note("build 1b", &format!("goes on at tick {resumed} from the last snapshot"));
    drop(after);

    let still =
        Duration::from_nanos(u64::try_from(first.1.saturating_sub(last.1)).unwrap_or(u64::MAX));
    println!();
    println!(
        "the world stood still    {:.1} ms, from tick {} of build 1 to tick {} of build 1b",
        still.as_secs_f64() * 1e3,
        last.0,
        first.0
    );
    println!(
        "the clients waited       {:.1} ms at most for a tick then",
        noticed.as_secs_f64() * 1e3
    );
    println!("ticks that they counted  {}, none missing, none twice", seen.ticks);
    let mut agreed = true;
    let mut check = |what: &str, held: bool| {
        agreed &= held;
        println!("  {} {what}", if held { "yes" } else { "NO " });
    };
    check("build 2, with one field more, was refused, and build 1 went on", refused && went_on);
    check("the ticks went on where they were", handed && first.0 == last.0 + 1);
    check("the listener never closed", same_port);
    check("SIGTERM ended the server, and left its last state", by_signal && resumed > clients_last);
    match &seen.wrong {
        None => check("every client got every tick, in order, over one connection", true),
        Some(what) => check(&format!("every client got every tick: {what}"), false),
    }
    Ok(agreed)
}

/// Ends a server by SIGTERM; whether the signal did it.
fn terminate(server: &mut Server, timeline: &Timeline) -> Result<bool, Box<dyn Error>> {
    use std::os::unix::process::ExitStatusExt as _;
    let done = Command::new("kill").arg(server.child.id().to_string()).status()?.success();
    let status = server.end()?;
    timeline.note("build 1b", &format!("ended by {status}"));
    Ok(done && status.signal() == Some(15))
}
