#![forbid(unsafe_code)]
//! The background thread: what it does in its own time, and when it sleeps.
//!
//! Knows when. What is done is in `flush.rs`, `relocate.rs`, `arm.rs`, `expire.rs`, `pressure.rs` and
//! `verify.rs`.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use crate::{
    arm::Arming,
    engine::{Engine, State},
    flush::{Flusher, floor_is_near, wants_flush},
    options::Durability,
    os,
    pressure::Pressure,
};

/// How long the background waits before it tries again to raise the floor.
const FLOOR_RETRY: Duration = Duration::from_secs(1);

/// How long it waits before it writes anew, once more, what could not be written: doubled each time.
const ANEW_FIRST: Duration = Duration::from_secs(1);
const ANEW_LAST: Duration = Duration::from_secs(60);

/// When the background writes anew what could not be written, once more.
struct Retry {
    at: Instant,
    after: Duration,
}

/// One round of the background's work, as far as it needs no waiting.
#[cfg(feature = "campaign")]
pub(crate) fn round(engine: &Arc<Engine>) {
    for id in &engine.recovery.unverified {
        engine.verify(*id);
    }
    engine.arm(&mut Arming::default());
    engine.raise_floor_ahead();
    engine.expire();
    if engine.flusher.syncs() {
        // Its failure is told by `flush`, `close` and the event.
        _ = engine.flush_upto(u64::MAX);
    }
}

/// The background thread: runs until it is roused to stop.
pub(crate) fn run(engine: &Arc<Engine>) {
    // The threads that the user waits for come first. Where it may not, it does without.
    _ = os::yield_to_others();
    let flusher = &engine.flusher;
    let mut flushed = Instant::now();
    for id in &engine.recovery.unverified {
        if flusher.desk.lock().stop {
            return;
        }
        engine.verify(*id);
        // However much there is to check, what is saved meanwhile does not wait for it.
        if let Durability::Background { within } = flusher.durability
            && flushed.elapsed() >= within / 2
        {
            engine.raise_floor_ahead();
            _ = engine.flush_upto(u64::MAX);
            flushed = Instant::now();
        }
    }
    let mut retry = Retry { at: Instant::now(), after: ANEW_FIRST };
    let mut arming = Arming::default();
    let mut pressure = Pressure::default();
    let mut flush_at = None;
    loop {
        let arm = engine.arm(&mut arming);
        let raised = engine.raise_floor_ahead();
        let expire = engine.expire();
        let relieve = engine.relieve(&mut pressure);
        flush_at = engine.next_flush(flush_at, &retry);
        let now = Instant::now();
        let flush = flush_at.map(|at| at.saturating_duration_since(now));
        let floor = (!raised).then_some(FLOOR_RETRY);
        let limit = [flush, floor, arm, expire, relieve].into_iter().flatten().min();
        if !flusher.rest(engine, limit) {
            return;
        }
        if flush_at.is_some_and(|at| at <= Instant::now()) {
            flush_at = None;
            engine.flush_in_background(&mut retry, &mut arming);
        }
    }
}

impl Flusher {
    /// Sleeps until there is work, at most `limit`. `false`: it is time to stop.
    fn rest(&self, engine: &Engine, limit: Option<Duration>) -> bool {
        if limit.is_none() {
            // Relaxed, before the look under the engine's lock: see `wake_if_idle`.
            self.idle.store(true, Ordering::Relaxed);
            if self.has_work(&engine.lock()) {
                self.idle.store(false, Ordering::Relaxed);
                return !self.desk.lock().stop;
            }
        }
        let mut desk = self.desk.lock();
        match limit {
            Some(limit) if !desk.stop => _ = self.wake.wait_for(&mut desk, limit),
            None if !desk.stop && !desk.woken => self.wake.wait(&mut desk),
            _ => {}
        }
        desk.woken = false;
        !desk.stop
    }

    fn has_work(&self, state: &State) -> bool {
        (self.in_background() && state.any_listed(wants_flush))
            || floor_is_near(state)
            || (state.expires && state.listed.len() > 1)
    }
}

impl Engine {
    /// What the background does when it is time.
    fn flush_in_background(&self, retry: &mut Retry, arming: &mut Arming) {
        let anew = retry.at <= Instant::now();
        // Its failure is told by `flush`, `close`, the next save and the event.
        arming.after_flush(self);
        _ = self.flush(u64::MAX, anew, &mut || _ = self.arm(arming));
        arming.after_flush(self);
        if !self.lock().any_listed(|place| place.tainted) {
            retry.after = ANEW_FIRST;
        } else if anew {
            retry.at = Instant::now() + retry.after;
            retry.after = (retry.after * 2).min(ANEW_LAST);
        }
    }

    /// When the background is to flush: as soon after something has come up as was asked.
    fn next_flush(&self, planned: Option<Instant>, retry: &Retry) -> Option<Instant> {
        let Durability::Background { within } = self.flusher.durability else { return None };
        if !self.flusher.to_disk {
            return None;
        }
        let state = self.lock();
        if state.any_listed(wants_flush) {
            // Longer than clocks reach is never.
            planned.or_else(|| Instant::now().checked_add(within / 2))
        } else {
            state.any_listed(|place| place.tainted).then_some(retry.at)
        }
    }
}
