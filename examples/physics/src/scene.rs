#![forbid(unsafe_code)]
//! [`Scene`]: a round tower of bricks, a chain shot that is fired at it, and the step that moves
//! both on.
//!
//! Knows rapier and nothing of rings: the derive on [`Scene`] is all that snapshots ask of it.

use rapier3d::prelude::*;
use snapring::{Snapshot, with::Serde};

/// Half a brick: along the wall, up, and through the wall. Metres.
const BRICK: Vector = Vector::new(0.5, 0.25, 0.3);
/// From the middle of one brick to the next along the wall, in metres.
const PITCH: Real = 1.05;
const GRAVITY: Vector = Vector::new(0.0, -9.81, 0.0);
/// How fast the shot leaves, in metres a second.
const MUZZLE_SPEED: Real = 60.0;
/// The balls of the chain shot.
const BALLS: usize = 8;
/// How many times as dense as a brick they are.
const BALL_DENSITY: Real = 40.0;
/// From the wall to the gun, in metres.
const RANGE: Real = 10.0;

/// A physics world as rapier has it: ten of its types, none of them ours.
///
/// Each goes into the archive by its own serde implementation, as postcard bytes. That this is
/// enough to go on from, bit for bit, rests on three things about rapier:
///
/// - With `enhanced-determinism` its hash maps keep the order in which they were filled, and those
///   that serde sees are written sorted or in that order. Equal worlds therefore give equal bytes.
/// - What serde leaves out (`serde(skip)`) is working memory that a step can do without, and
///   lists of what was changed by hand since the last step. So a scene is to be saved between
///   steps, when those lists are empty: [`Scene::step`] makes its changes and uses them up.
/// - It uses none of what postcard cannot do (`flatten`, untagged enums, `skip_serializing_if`).
#[derive(Snapshot)]
pub(crate) struct Scene {
    /// Steps taken.
    step: u64,
    /// The step in which the shot is fired.
    shot: u64,
    #[snapshot(with = Serde)]
    parameters: IntegrationParameters,
    #[snapshot(with = Serde)]
    islands: IslandManager,
    #[snapshot(with = Serde)]
    broad_phase: DefaultBroadPhase,
    #[snapshot(with = Serde)]
    narrow_phase: NarrowPhase,
    #[snapshot(with = Serde)]
    bodies: RigidBodySet,
    #[snapshot(with = Serde)]
    colliders: ColliderSet,
    #[snapshot(with = Serde)]
    joints: ImpulseJointSet,
    #[snapshot(with = Serde)]
    multibodies: MultibodyJointSet,
    #[snapshot(with = Serde)]
    soft_bodies: SoftBodySet,
    /// Takes no bytes: all it holds is a cache, which a rollback is to drop.
    #[snapshot(with = Serde)]
    ccd: CCDSolver,
    /// Working memory alone, for rapier does not serialise it. A rollback leaves it as it is, with
    /// what it holds from the steps taken back; that makes no difference, and the tests say so.
    #[snapshot(skip)]
    pipeline: PhysicsPipeline,
}

impl Scene {
    /// A tower of `bricks` on a flat ground. Nothing has moved yet; the shot is fired in step
    /// `shot`.
    pub(crate) fn new(bricks: usize, shot: u64) -> Scene {
        let mut scene = Scene {
            step: 0,
            shot,
            parameters: IntegrationParameters::default(),
            islands: IslandManager::new(),
            broad_phase: DefaultBroadPhase::new(),
            narrow_phase: NarrowPhase::new(),
            bodies: RigidBodySet::new(),
            colliders: ColliderSet::new(),
            joints: ImpulseJointSet::new(),
            multibodies: MultibodyJointSet::new(),
            soft_bodies: SoftBodySet::new(),
            ccd: CCDSolver::new(),
            pipeline: PhysicsPipeline::new(),
        };
        scene.add(
            RigidBodyBuilder::fixed().translation(Vector::new(0.0, -1.0, 0.0)),
            ColliderBuilder::cuboid(200.0, 1.0, 200.0),
        );
        let around = course(bricks);
        let radius = radius(around);
        for n in 0..bricks {
            let (course, place) = (n / around, n % around);
            // Every other course is turned by half a brick, as a mason would lay it.
            let turn = (place as Real + 0.5 * (course % 2) as Real) / around as Real;
            let angle = turn * core::f32::consts::TAU;
            let height = BRICK.y * (2 * course + 1) as Real;
            let (sin, cos) = angle.sin_cos();
            let at = Vector::new(radius * sin, height, radius * cos);
            scene.add(
                RigidBodyBuilder::dynamic().translation(at).rotation(Vector::new(0.0, angle, 0.0)),
                ColliderBuilder::cuboid(BRICK.x, BRICK.y, BRICK.z).friction(0.7),
            );
        }
        scene
    }

    fn add(&mut self, body: RigidBodyBuilder, shape: ColliderBuilder) -> RigidBodyHandle {
        let body = self.bodies.insert(body);
        self.colliders.insert_with_parent(shape, body, &mut self.bodies);
        body
    }

    /// Steps taken.
    pub(crate) fn steps(&self) -> u64 {
        self.step
    }

    /// Moves the world on by one step, a 60th of a second. What happens depends on the scene alone.
    pub(crate) fn step(&mut self) {
        self.step += 1;
        if self.step == self.shot {
            self.fire();
        }
        self.pipeline.step(
            GRAVITY,
            &self.parameters,
            &mut self.islands,
            &mut self.broad_phase,
            &mut self.narrow_phase,
            &mut self.bodies,
            &mut self.colliders,
            &mut self.joints,
            &mut self.multibodies,
            &mut self.soft_bodies,
            &mut self.ccd,
            &(),
            &(),
        );
    }

    /// A chain shot: heavy balls in a row as wide as the tower, each jointed to the next, flying
    /// at its foot.
    fn fire(&mut self) {
        let radius = radius(course(self.bodies.len()));
        let gap = 2.2 * radius / BALLS as Real;
        let half = Vector::new(0.0, 0.0, 0.5 * gap);
        let mut last = None;
        for ball in 0..BALLS {
            let along = gap * (ball as Real - 0.5 * (BALLS - 1) as Real);
            let body = self.add(
                RigidBodyBuilder::dynamic()
                    .translation(Vector::new(-radius - RANGE, gap, along))
                    .linvel(Vector::new(MUZZLE_SPEED, 0.0, 0.0))
                    .ccd_enabled(true),
                ColliderBuilder::ball(0.45 * gap).density(BALL_DENSITY),
            );
            if let Some(last) = last.replace(body) {
                let link = SphericalJointBuilder::new().local_anchor1(half).local_anchor2(-half);
                self.joints.insert(last, body, link, true);
            }
        }
    }

    /// Pushes one body, as no first run did.
    #[cfg(test)]
    pub(crate) fn nudge(&mut self) {
        let (_, body) = self.bodies.iter_mut().last().expect("a tower has bodies");
        body.apply_impulse(Vector::new(0.0, 0.0, 1e-3), true);
    }

    /// Bodies, the ground and the shot among them.
    pub(crate) fn bodies(&self) -> usize {
        self.bodies.len()
    }

    /// Pairs of bodies that touch.
    pub(crate) fn contacts(&self) -> usize {
        self.narrow_phase.contact_pairs().filter(|pair| pair.has_any_active_contact()).count()
    }

    /// How high the middle of a body is on average, in metres.
    pub(crate) fn height(&self) -> Real {
        let sum: Real = self.bodies.iter().map(|(_, body)| body.translation().y).sum();
        sum / self.bodies.len() as Real
    }
}

/// How many bricks a course takes, for a tower about as high as it is wide around.
fn course(bricks: usize) -> usize {
    (bricks as f64 * 0.65).sqrt().ceil().max(3.0) as usize
}

/// The radius, in metres, of a course of this many bricks.
fn radius(around: usize) -> Real {
    around as Real * PITCH * 2.0 * BRICK.x / core::f32::consts::TAU
}
