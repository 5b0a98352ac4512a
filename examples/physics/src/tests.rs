//! A world that is put back must go on exactly as it did, whatever it is in the middle of; and
//! where it does not, that must be told.

use std::ffi::OsString;

use snapring::{Caretaker, Digest};

use crate::{
    Passing,
    args::{Args, Home},
    open,
    rehearsal::{Outcome, Plan, rehearse},
    report,
    scene::Scene,
};

const PLAN: Plan = Plan { bricks: 150, steps: 70, rewind: 50, shot: 21 };

fn in_memory() -> Caretaker<Scene> {
    Caretaker::in_memory().expect("memory for a small tower")
}

fn told(outcome: &Outcome) -> String {
    let mut out = Vec::new();
    report::tell(&mut out, &PLAN, outcome).expect("a vector takes it");
    String::from_utf8(out).expect("text")
}

#[track_caller]
fn assert_agrees(outcome: &Outcome) {
    assert!(outcome.same_bytes, "the world put back has other bytes");
    assert_eq!(outcome.differs, None, "the first step that differs");
    assert!(outcome.agrees());
    // Else there was nothing to agree on.
    assert!(outcome.end.bodies > outcome.mark.bodies, "no shot: {:?}", outcome.end);
    assert!(outcome.mark.contacts > 100, "no tower: {:?}", outcome.mark);
    assert!(outcome.end.height < 0.9 * outcome.mark.height, "it stands: {:?}", outcome.end);
    assert!(told(outcome).contains("all 50 steps agree"), "{}", told(outcome));
}

#[test]
fn every_replayed_step_agrees() {
    assert_agrees(&rehearse(&in_memory(), &PLAN, |_| {}).expect("a rehearsal"));
}

#[test]
fn every_replayed_step_agrees_from_files() {
    let dir = Passing::new();
    let caretaker = open(&dir.0).expect("a new directory");
    assert_agrees(&rehearse(&caretaker, &PLAN, |_| {}).expect("a rehearsal"));
    caretaker.close().expect("a disk");
}

#[test]
fn one_nudge_is_told() {
    let outcome = rehearse(&in_memory(), &PLAN, Scene::nudge).expect("a rehearsal");
    assert!(outcome.same_bytes);
    assert_eq!(outcome.differs, Some(21));
    assert!(!outcome.agrees());
    assert!(told(&outcome).contains("STEP 21 DIFFERS, after 0 that agree"), "{}", told(&outcome));
}

/// Steps `scene`, saves it, and answers the digest.
fn advance(caretaker: &Caretaker<Scene>, scene: &mut Scene) -> Digest {
    scene.step();
    let id = caretaker.save(scene).expect("a save");
    caretaker.memento(id).expect("the newest snapshot").digest()
}

/// The pipeline is skipped, so it comes along from whatever future the world was in. It must not
/// matter which, nor whether it is a new one.
#[test]
fn the_pipeline_remembers_nothing_that_matters() {
    let caretaker = in_memory();
    let mut scene = Scene::new(PLAN.bricks, 10);
    // Into the middle of the impact: the shot is under way, jointed and touching.
    let back = loop {
        advance(&caretaker, &mut scene);
        if scene.steps() == 24 {
            break caretaker.head().expect("a snapshot");
        }
    };
    caretaker.keep(back, "impact").expect("a place");
    let first: Vec<Digest> = (0..30).map(|_| advance(&caretaker, &mut scene)).collect();

    for further in [30, 7, 1, 30] {
        let rollback = caretaker.rollback(&mut scene, back).expect("a rollback");
        assert_eq!((rollback.to(), scene.steps()), (back, 24));
        for (n, digest) in first[..further].iter().enumerate() {
            assert_eq!(advance(&caretaker, &mut scene), *digest, "step {}", 25 + n);
        }
    }

    let mut fresh = caretaker.memento(back).expect("it is kept").thaw().expect("a scene");
    for (n, digest) in first.iter().enumerate() {
        assert_eq!(advance(&caretaker, &mut fresh), *digest, "step {} of a new scene", 25 + n);
    }
}

fn parse(line: &str) -> Result<Option<Args>, String> {
    Args::parse(line.split_whitespace().map(OsString::from))
}

#[test]
fn arguments_are_read_or_refused_with_a_reason() {
    let plan = Plan { bricks: 2400, steps: 150, rewind: 90, shot: 61 };
    assert_eq!(parse(""), Ok(Some(Args { plan, home: Home::Passing })));
    let plan = Plan { bricks: 7, steps: 9, rewind: 8, shot: 2 };
    let all = "--bodies 7 --steps 9 --rewind 8 --memory --dir here";
    assert_eq!(parse(all), Ok(Some(Args { plan, home: Home::Directory("here".into()) })));
    assert_eq!(parse("--steps 9 --help"), Ok(None));
    for (line, reason) in [
        ("--steps 90", "--rewind 90 needs more than 90 --steps, not 90"),
        ("--bodies", "--bodies needs a value"),
        ("--bodies none", "--bodies takes a number from 1 to a million, not none"),
        ("--rewind 0", "--rewind takes a number from 1 to a million, not 0"),
        ("--fast", "there is no option --fast; --help lists them"),
    ] {
        assert_eq!(parse(line), Err(reason.to_owned()));
    }
}
