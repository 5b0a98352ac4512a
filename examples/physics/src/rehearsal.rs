#![forbid(unsafe_code)]
//! [`rehearse`]: run a scene, go back, run it again, and compare every step.
//!
//! Knows the ring and the clock; what a scene is made of, and how its story is told, it does not.

use std::{
    error::Error,
    time::{Duration, Instant},
};

use snapring::{Caretaker, Digest, Rollback, SnapshotId};

use crate::scene::Scene;

/// The label of the snapshot to which the world goes back.
///
/// A ring long enough to hold every step since would do as well: `Options::ring(128)`. At eight
/// megabytes a step that takes a gigabyte, and only one of them is wanted again. So the ring has
/// its usual length, and the one that matters is exempt from eviction.
pub(crate) const MARK: &str = "before the shot";

/// What is to be run.
#[derive(Debug, PartialEq)]
pub(crate) struct Plan {
    /// Bricks in the tower.
    pub(crate) bricks: usize,
    /// Steps of the first run.
    pub(crate) steps: u64,
    /// How many of them are taken back and run again.
    pub(crate) rewind: u64,
    /// The step in which the shot is fired.
    pub(crate) shot: u64,
}

/// What came of it.
pub(crate) struct Outcome {
    /// The scene before the first step, at the mark and after the first run.
    pub(crate) start: Figures,
    pub(crate) mark: Figures,
    pub(crate) end: Figures,
    /// What the steps, the saves and the digests of the first run took.
    pub(crate) stepping: Vec<Duration>,
    pub(crate) saving: Vec<Duration>,
    /// Bytes of the smallest and of the largest snapshot.
    pub(crate) bytes: (u64, u64),
    pub(crate) rollback: Rollback,
    /// The world that was put back, saved once more, gave the bytes it came from.
    pub(crate) same_bytes: bool,
    /// The first step of the replay whose bytes differ from the first run's.
    pub(crate) differs: Option<u64>,
}

impl Outcome {
    /// Everything agreed.
    pub(crate) fn agrees(&self) -> bool {
        self.same_bytes && self.differs.is_none()
    }
}

/// A scene in three numbers.
#[derive(Debug, PartialEq)]
pub(crate) struct Figures {
    pub(crate) bodies: usize,
    pub(crate) contacts: usize,
    /// Metres, on average.
    pub(crate) height: f32,
}

impl Figures {
    fn of(scene: &Scene) -> Figures {
        Figures { bodies: scene.bodies(), contacts: scene.contacts(), height: scene.height() }
    }
}

/// Runs `plan`, saving after each step; goes back; runs the steps again. `meddle` may change the
/// world before the replay.
pub(crate) fn rehearse(
    caretaker: &Caretaker<Scene>,
    plan: &Plan,
    meddle: impl FnOnce(&mut Scene),
) -> Result<Outcome, Box<dyn Error>> {
    let mut scene = Scene::new(plan.bricks, plan.shot);
    let start = Figures::of(&scene);
    let mark_at = plan.steps - plan.rewind;

    let mut stepping = Vec::new();
    let mut saving = Vec::new();
    let mut digests = Vec::new();
    let mut sizes = (u64::MAX, 0);
    let mut mark = None;
    for _ in 0..plan.steps {
        let from = Instant::now();
        scene.step();
        let stepped = Instant::now();
        let id = caretaker.save(&scene)?;
        saving.push(stepped.elapsed());
        stepping.push(stepped - from);

        let (digest, bytes) = look(caretaker, id)?;
        sizes = (sizes.0.min(bytes), sizes.1.max(bytes));
        digests.push(digest);
        if scene.steps() == mark_at {
            caretaker.keep(id, MARK)?;
            mark = Some((id, digest, Figures::of(&scene)));
        }
    }
    let (back, marked, mark) = mark.ok_or("the plan goes back to before its first step")?;
    let end = Figures::of(&scene);

    let rollback = caretaker.rollback(&mut scene, back)?;
    let (again, _) = look(caretaker, caretaker.save(&scene)?)?;
    meddle(&mut scene);

    let mut differs = None;
    while scene.steps() < plan.steps {
        scene.step();
        let (digest, _) = look(caretaker, caretaker.save(&scene)?)?;
        let step = scene.steps();
        if digest != digests[step as usize - 1] {
            differs = differs.or(Some(step));
        }
    }
    caretaker.release(MARK);
    Ok(Outcome {
        start,
        mark,
        end,
        stepping,
        saving,
        bytes: sizes,
        rollback,
        same_bytes: again == marked,
        differs,
    })
}

/// The digest and the length of a snapshot's archive.
fn look(caretaker: &Caretaker<Scene>, id: SnapshotId) -> Result<(Digest, u64), Box<dyn Error>> {
    let memento = caretaker.try_memento(id)?;
    Ok((memento.digest(), memento.bytes()))
}
