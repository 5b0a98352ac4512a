//! [`Touchy`]: an item of a page whose archiving may go wrong, or be come upon in its middle, when
//! the rest of the state has been archived. Knows how that is asked for; what happens then is told
//! by `originator.rs`.

use std::cmp::Ordering;

use snapring::{
    __private::rkyv::Place, Halt, Node, SaveError, Schema, Session, Shape, Snapshot, Thaw,
    ThawError,
};

use super::originator::{PANIC, Refused, Verdict, ask};

/// A number.
#[derive(Debug, PartialEq, Clone, Copy)]
pub(super) struct Touchy(pub(super) u64);

// SAFETY: everything is left to the number; nothing is claimed of its bytes.
unsafe impl Snapshot for Touchy {
    type Archived = <u64 as Snapshot>::Archived;
    type Resolver = ();
    const FROZEN: bool = true;

    fn archive(&self, s: &mut Session) -> Result<(), Halt> {
        match ask() {
            Verdict::Go => self.0.archive(s),
            Verdict::Refuse => Err(s.halt(SaveError::Serialize { source: Box::new(Refused) })),
            Verdict::Panic => std::panic::panic_any(PANIC),
        }
    }

    fn resolve(&self, (): (), out: Place<Self::Archived>) {
        self.0.resolve((), out);
    }

    fn thaw(a: &Self::Archived, t: &mut Thaw) -> Result<Self, ThawError> {
        u64::thaw(a, t).map(Touchy)
    }

    fn canonical(&self, other: &Self) -> Ordering {
        self.0.canonical(&other.0)
    }

    fn schema(s: &mut Schema) -> Shape {
        s.node::<Self>(|s| {
            let item = u64::schema(s);
            Node::new::<Self::Archived>("touchy").field("0", 0, item)
        })
    }
}
