//! User code that panics or refuses at any moment, and leaves a place taken, a value leaked, or a
//! state that is neither what it was nor what it should be.
//!
//! As in any fault-injection loop: the first call of a kind fails, then the second, and so on until
//! the operation completes.

use std::{
    cell::Cell,
    collections::{BTreeMap, HashMap, HashSet},
    error::Error,
    fmt::Debug,
    hash::{Hash, Hasher},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Once,
};

use rkyv::{
    Place,
    rancor::{BoxedError, Source as _},
    rend::u32_le,
    with::{ArchiveWith, DeserializeWith, SerializeWith},
};
use snapring::{Caretaker, Options, RollbackError, SaveError, Session, Snapshot, SnapshotId, Thaw};

/// What user code is called for.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Call {
    Drop,
    Hash,
    Eq,
    Default,
    Serialize,
    Resolve,
    Deserialize,
}

/// What a call does when its turn has come.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Fault {
    /// Panics once.
    Panics,
    /// Panics from then on.
    KeepsPanicking,
    /// Answers an error, where it can.
    Refuses,
}

thread_local! {
    /// The call that fails, after so many that do not, and how.
    static FUSE: Cell<Option<(Call, u32, Fault)>> = const { Cell::new(None) };
    /// Times that it failed.
    static FIRED: Cell<u32> = const { Cell::new(0) };
    /// Values that have been made and not been dropped.
    static ALIVE: Cell<i64> = const { Cell::new(0) };
}

/// User code is being called. `true`: it should refuse.
fn called(call: Call) -> bool {
    let Some((which, left, fault)) = FUSE.get() else { return false };
    if which != call || std::thread::panicking() {
        return false;
    }
    if left > 0 {
        FUSE.set(Some((which, left - 1, fault)));
        return false;
    }
    FIRED.set(FIRED.get() + 1);
    if fault != Fault::KeepsPanicking {
        FUSE.set(None);
    }
    if fault == Fault::Refuses {
        return true;
    }
    panic!("{call:?} was told to");
}

/// Runs `run` with a fuse; answers what came of it and whether the fuse was reached.
fn with_fault<R>(
    call: Call,
    after: u32,
    fault: Fault,
    run: impl FnOnce() -> R,
) -> (Option<R>, bool) {
    FUSE.set(Some((call, after, fault)));
    FIRED.set(0);
    let outcome = catch_unwind(AssertUnwindSafe(run));
    FUSE.set(None);
    (outcome.ok(), FIRED.get() > 0)
}

/// Expected panics are not worth a backtrace each.
fn quietly() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let told = info.payload().downcast_ref::<String>();
            if !told.is_some_and(|told| told.ends_with("was told to")) {
                loud(info);
            }
        }));
    });
}

/// Counts itself; lives where a field is skipped.
#[derive(Debug, PartialEq)]
struct Socket(Option<u32>);

impl Socket {
    fn new(number: Option<u32>) -> Socket {
        ALIVE.set(ALIVE.get() + 1);
        Socket(number)
    }
}

impl Default for Socket {
    fn default() -> Socket {
        called(Call::Default);
        Socket::new(None)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        ALIVE.set(ALIVE.get() - 1);
        called(Call::Drop);
    }
}

#[derive(Snapshot, Debug)]
struct Key {
    name: String,
}

impl PartialEq for Key {
    fn eq(&self, other: &Key) -> bool {
        called(Call::Eq);
        self.name == other.name
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        called(Call::Hash);
        self.name.hash(hasher);
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        called(Call::Drop);
    }
}

#[derive(Snapshot, Debug)]
struct Item {
    #[snapshot(id)]
    id: u32,
    text: String,
    #[snapshot(skip)]
    socket: Socket,
}

/// The socket is no part of what a snapshot holds.
impl PartialEq for Item {
    fn eq(&self, other: &Item) -> bool {
        (self.id, &self.text) == (other.id, &other.text)
    }
}

/// Somebody else's type.
#[derive(Debug, PartialEq)]
struct Seed(u32);

/// How a [`Seed`] is archived.
struct Touchy;

#[derive(Debug)]
struct Refused;

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("this seed is refused")
    }
}

impl Error for Refused {}

fn refused(call: Call) -> Result<(), BoxedError> {
    if called(call) { Err(BoxedError::new(Refused)) } else { Ok(()) }
}

impl ArchiveWith<Seed> for Touchy {
    type Archived = u32_le;
    type Resolver = ();

    fn resolve_with(seed: &Seed, (): (), out: Place<u32_le>) {
        called(Call::Resolve);
        out.write(seed.0.into());
    }
}

impl SerializeWith<Seed, Session> for Touchy {
    fn serialize_with(_: &Seed, _: &mut Session) -> Result<(), BoxedError> {
        refused(Call::Serialize)
    }
}

impl DeserializeWith<u32_le, Seed, Thaw> for Touchy {
    fn deserialize_with(archived: &u32_le, _: &mut Thaw) -> Result<Seed, BoxedError> {
        refused(Call::Deserialize)?;
        Ok(Seed(archived.to_native()))
    }
}

/// With a wrapper in it, a state is thawed aside rather than restored in place.
#[derive(Snapshot, Debug, PartialEq)]
struct Wrapped {
    #[snapshot(with = Touchy)]
    seed: Seed,
}

/// What a state holds besides.
trait Extra: Snapshot + PartialEq + Debug {
    fn of(number: u32) -> Self;
}

impl Extra for u32 {
    fn of(number: u32) -> u32 {
        number
    }
}

impl Extra for Vec<Wrapped> {
    fn of(number: u32) -> Vec<Wrapped> {
        (0..3).map(|i| Wrapped { seed: Seed(number + i) }).collect()
    }
}

#[derive(Snapshot, Debug, PartialEq)]
struct State<X: Extra> {
    tick: u32,
    items: Vec<Item>,
    map: HashMap<Key, Item>,
    set: HashSet<Key>,
    ranks: BTreeMap<u32, Item>,
    best: Option<Box<Item>>,
    extra: X,
}

fn key(number: u32) -> Key {
    Key { name: format!("key {number}") }
}

fn item(id: u32, tick: u32) -> Item {
    Item { id, text: format!("{id} at {tick}"), socket: Socket::new(Some(id)) }
}

/// States of other ticks have partly other elements, in another order.
fn state<X: Extra>(tick: u32) -> State<X> {
    let ids = || (0..4).map(move |i| (i * 3 + tick) % 7);
    State {
        tick,
        items: ids().map(|id| item(id, tick)).collect(),
        map: ids().map(|id| (key(id), item(id, tick))).collect(),
        set: ids().map(key).collect(),
        ranks: ids().map(|id| (id, item(id, tick))).collect(),
        best: tick.is_multiple_of(2).then(|| Box::new(item(9, tick))),
        extra: X::of(tick),
    }
}

/// All sockets, by where they are.
fn sockets<X: Extra>(state: &State<X>) -> BTreeMap<(&'static str, u32), Option<u32>> {
    let items = state.items.iter().map(|item| (("items", item.id), item.socket.0));
    let map = state.map.values().map(|item| (("map", item.id), item.socket.0));
    let ranks = state.ranks.values().map(|item| (("ranks", item.id), item.socket.0));
    let best = state.best.iter().map(|item| (("best", item.id), item.socket.0));
    items.chain(map).chain(ranks).chain(best).collect()
}

/// What a ring tells of itself.
fn told<X: Extra>(ring: &Caretaker<State<X>>) -> (Option<SnapshotId>, usize, u64, u64, u64) {
    let stats = ring.stats();
    (ring.head(), ring.history().len(), stats.used_bytes, stats.mementos, stats.evicted)
}

/// A panic at each call of that kind while a state is rolled back.
fn rollback_beside<X: Extra>(call: Call, fault: Fault) -> u32 {
    quietly();
    let alive = ALIVE.get();
    let ring: Caretaker<State<X>> = Options::new().in_memory().expect("opens");
    let targets: Vec<SnapshotId> =
        (1..=2).map(|tick| ring.save(&state(tick)).expect("saves")).collect();
    for target in &targets {
        ring.keep(*target, &target.to_string()).expect("keeps");
    }
    let mut most = 0;
    for (target, tick) in targets.into_iter().zip(1_u32..) {
        for after in 0.. {
            assert!(after < 5000, "it never completes");
            let mut live: State<X> = state(10);
            let before = told(&ring);
            let (outcome, fired) =
                with_fault(call, after, fault, || ring.rollback(&mut live, target));
            let outcome = outcome.expect("panics of user code are caught");
            let mine = sockets(&state::<X>(10));
            match &outcome {
                Ok(_) => {
                    assert_eq!(live, state(tick), "{call:?} {after}: not the target");
                    for (at, socket) in sockets(&live) {
                        let expected = mine.get(&at).copied().flatten();
                        let lost = fired && socket.is_none();
                        assert!(socket == expected || lost, "{call:?} {after}: {at:?} {socket:?}");
                    }
                }
                Err(RollbackError::Thaw { .. }) => {
                    assert!(fired);
                    assert_eq!(live, state(10), "{call:?} {after}: not as it was");
                    assert_eq!(sockets(&live), mine, "{call:?} {after}: sockets went away");
                    assert_eq!(told(&ring), before);
                }
                Err(RollbackError::Poisoned { message, .. }) => {
                    assert_eq!(fault, Fault::KeepsPanicking, "{call:?} {after}: {message}");
                    assert!(message.ends_with("was told to"), "{message}");
                    assert_eq!(told(&ring), before);
                    // A valid value all the same: it can be put right.
                    _ = ring.rollback(&mut live, target).expect("rolls back");
                    assert_eq!(live, state(tick));
                }
                Err(error) => panic!("{call:?} {after}: {error}"),
            }
            drop(live);
            assert_eq!(ring.stats().mementos, 0);
            most = most.max(after);
            if !fired {
                break;
            }
        }
    }
    drop(ring);
    let left = ALIVE.get() - alive;
    // The standard library's hash map forgets the others where the drop of one panics.
    assert!(left == 0 || (call == Call::Drop && left > 0), "{call:?}: {left} values left");
    most
}

/// Lets what has been evicted be used again, which the next save does first of all.
fn settle(ring: &Caretaker<State<Vec<Wrapped>>>) {
    let (outcome, _) = with_fault(Call::Serialize, 0, Fault::Refuses, || ring.save(&state(0)));
    assert!(outcome.is_some_and(|outcome| outcome.is_err()));
}

#[test]
fn a_rollback_in_place_survives_each_panic() {
    for call in [Call::Drop, Call::Hash, Call::Eq, Call::Default] {
        let calls = rollback_beside::<u32>(call, Fault::Panics);
        assert!(calls > 0, "{call:?} is never called");
    }
}

#[test]
fn a_rollback_aside_survives_each_panic() {
    for call in [Call::Drop, Call::Hash, Call::Eq, Call::Default, Call::Deserialize] {
        let calls = rollback_beside::<Vec<Wrapped>>(call, Fault::Panics);
        assert!(calls > 0, "{call:?} is never called");
    }
}

#[test]
fn a_rollback_tells_when_user_code_keeps_panicking() {
    for call in [Call::Hash, Call::Default] {
        rollback_beside::<u32>(call, Fault::KeepsPanicking);
        rollback_beside::<Vec<Wrapped>>(call, Fault::KeepsPanicking);
    }
}

#[test]
fn a_rollback_survives_each_refusal() {
    let calls = rollback_beside::<Vec<Wrapped>>(Call::Deserialize, Fault::Refuses);
    assert_eq!(calls, 3);
}

/// Where a rollback's record needs the place of another snapshot, that one stays until the state is
/// back.
#[test]
fn nobody_leaves_for_a_rollback_that_fails() {
    quietly();
    let ring: Caretaker<State<Vec<Wrapped>>> = Options::new().ring(4).in_memory().expect("opens");
    // Of the eight slot pages of A two are listed, and six are held.
    let mut held = Vec::new();
    for tick in 1..=16 {
        let id = ring.save(&state(tick)).expect("saves");
        if tick % 2 == 1 && tick < 12 {
            held.push(ring.memento(id).expect("is listed"));
        }
    }
    settle(&ring);
    let (target, before) = (ring.history()[1].id(), told(&ring));
    let mut live = state(20);
    for after in 0..3 {
        let (outcome, fired) = with_fault(Call::Deserialize, after, Fault::Refuses, || {
            ring.rollback(&mut live, target)
        });
        assert!(fired && matches!(outcome, Some(Err(RollbackError::Thaw { .. }))));
        assert_eq!(live, state(20));
        assert_eq!(told(&ring), before, "somebody has left");
    }
    let id = ring.rollback(&mut live, target).expect("rolls back").id();
    assert_eq!(live, state(15));
    let listed: Vec<u64> = ring.history().iter().map(|entry| entry.id().get()).collect();
    assert_eq!((id.get(), listed), (17, vec![17, 16, 15, 14]));
    assert_eq!(ring.stats().evicted, before.4 + 1);
}

/// A failure at each call of that kind while a state is saved.
fn save_beside(call: Call, fault: Fault) -> u32 {
    quietly();
    let alive = ALIVE.get();
    let ring: Caretaker<State<Vec<Wrapped>>> = Options::new().ring(3).in_memory().expect("opens");
    for tick in 0..5 {
        ring.save(&state(tick)).expect("saves");
    }
    settle(&ring);
    let mut reached = 0;
    for after in 0.. {
        assert!(after < 5000, "it never completes");
        let live = state(6);
        let before = told(&ring);
        let (outcome, fired) = with_fault(call, after, fault, || ring.save(&live));
        assert_eq!(live, state(6));
        if !fired {
            assert!(outcome.is_some_and(|outcome| outcome.is_ok()));
            break;
        }
        match outcome {
            None => assert_eq!(fault, Fault::Panics),
            Some(Err(SaveError::Serialize { source })) => {
                assert_eq!(fault, Fault::Refuses);
                assert!(source.to_string().contains("this seed is refused"), "{source}");
            }
            Some(other) => panic!("{call:?} {after}: {other:?}"),
        }
        assert_eq!(told(&ring), before, "{call:?} {after}: something changed");
        assert_eq!(ring.latest().expect("saved").tick.to_native(), 4);
        reached = after + 1;
    }
    drop(ring);
    assert_eq!(ALIVE.get(), alive, "{call:?}: values leaked");
    reached
}

#[test]
fn a_save_survives_each_refusal() {
    assert_eq!(save_beside(Call::Serialize, Fault::Refuses), 3);
}

#[test]
fn a_save_survives_each_panic() {
    assert_eq!(save_beside(Call::Serialize, Fault::Panics), 3);
    assert_eq!(save_beside(Call::Resolve, Fault::Panics), 3);
}

#[test]
fn a_thousand_panicking_saves_take_no_place_and_no_byte() {
    quietly();
    let ring: Caretaker<State<Vec<Wrapped>>> = Options::new().ring(2).in_memory().expect("opens");
    for tick in 0..10 {
        ring.save(&state(tick)).expect("saves");
    }
    settle(&ring);
    let before = told(&ring);
    let live = state(10);
    for round in 0..1000 {
        let (outcome, fired) =
            with_fault(Call::Serialize, round % 3, Fault::Panics, || ring.save(&live));
        assert!(outcome.is_none() && fired);
    }
    assert_eq!(told(&ring), before);
    let bytes = ring.stats().file_bytes;
    for tick in 0..20 {
        ring.save(&state(tick)).expect("saves");
    }
    assert_eq!(ring.stats().file_bytes, bytes);
}

#[test]
fn errors_tell_what_the_wrapper_said() {
    quietly();
    let ring: Caretaker<State<Vec<Wrapped>>> = Options::new().in_memory().expect("opens");
    let id = ring.save(&state(1)).expect("saves");
    let chain = |error: &dyn Error| {
        std::iter::successors(Some(error), |&error| error.source())
            .map(ToString::to_string)
            .collect::<Vec<String>>()
            .join(": ")
    };
    let mut live = state(2);
    let (error, _) =
        with_fault(Call::Deserialize, 1, Fault::Refuses, || ring.rollback(&mut live, id));
    let error = error.expect("no panic").expect_err("refused");
    assert!(matches!(error, RollbackError::Thaw { to, .. } if to == id));
    assert!(chain(&error).contains("this seed is refused"), "{}", chain(&error));
    let (error, _) = with_fault(Call::Deserialize, 0, Fault::Refuses, || ring.resume());
    let error = error.expect("no panic").expect_err("refused");
    assert!(chain(&error).contains("this seed is refused"), "{}", chain(&error));
    let memento = ring.latest().expect("saved");
    let (error, _) = with_fault(Call::Deserialize, 0, Fault::Refuses, || memento.thaw());
    let error = error.expect("no panic").expect_err("refused");
    assert!(chain(&error).contains("this seed is refused"), "{}", chain(&error));
    let (error, _) =
        with_fault(Call::Deserialize, 2, Fault::Refuses, || ring.resume_into(&mut live));
    assert!(error.expect("no panic").is_err());
    assert_eq!(live, state(2));
}

/// A guard whose change panics, and whose way back panics, too.
#[test]
fn a_guard_survives_a_panic_on_the_way_back() {
    quietly();
    let ring: Caretaker<State<u32>> = Options::new().in_memory().expect("opens");
    for after in 0..20 {
        let mut live = state(1);
        let change = |live: &mut State<u32>| -> Result<(), String> {
            *live = state(2);
            FUSE.set(Some((Call::Hash, after, Fault::Panics)));
            Err("no".to_owned())
        };
        assert!(ring.guard(&mut live, change).is_err());
        FUSE.set(None);
        assert_eq!(live, state(1));
    }
}
