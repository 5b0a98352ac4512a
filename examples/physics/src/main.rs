//! A tower in rapier3d, shot down, put back and shot down again: the same, bit for bit.
mod rehearsal;
mod scene;
use rehearsal::*;
fn main() {
    let a: Vec<u64> = std::env::args().skip(1).map(|s| s.parse().unwrap()).collect();
    let plan = Plan { bricks: a[0] as usize, steps: a[1], rewind: a[2], shot: a[3] };
    let c = snapring::Options::new().in_memory().unwrap();
    let t = std::time::Instant::now();
    let mut o = rehearse(&c, &plan, |_| {}).unwrap();
    o.stepping.sort(); o.saving.sort();
    println!("{:?} total; {:?} {:?} {:?} step {:?} {:?} save {:?} {:?} bytes {:?} roll {:?} same {} differs {:?}", t.elapsed(), o.start.height, o.mark, o.end, o.stepping[o.stepping.len()/2], o.stepping.last(), o.saving[o.saving.len()/2], o.saving.last(), o.bytes, o.rollback.took(), o.same_bytes, o.differs);
    println!("{:?}", c.stats());
}
impl std::fmt::Debug for Outcome { fn fmt(&self, _: &mut std::fmt::Formatter) -> std::fmt::Result { Ok(()) } }
