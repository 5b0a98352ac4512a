//! Standard types that rkyv archives itself, without pointers: durations and network addresses.

use std::{
    cmp::Ordering,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
    time::Duration,
};

use rkyv::{Archive, Archived, Deserialize, Place};

use super::zero;
use crate::{
    schema::{Node, Schema, Shape},
    session::{Halt, Session},
    snapshot::Snapshot,
    thaw::{Thaw, ThawError},
};

macro_rules! foreign {
    ($($live:ty, $kind:literal, |$v:ident| $key:expr;)*) => {$(
        // SAFETY: all of `out` is zeroed, then rkyv writes the fields and leaves padding alone; its
        // own `CheckBytes` tells what is valid.
        unsafe impl Snapshot for $live {
            type Archived = Archived<$live>;
            type Resolver = ();
            const FROZEN: bool = true;

            #[inline]
            fn archive(&self, _: &mut Session) -> Result<(), Halt> {
                Ok(())
            }
            #[inline]
            fn resolve(&self, (): (), out: Place<Self::Archived>) {
                zero(out);
                Archive::resolve(self, (), out);
            }
            #[inline]
            fn thaw(a: &Self::Archived, t: &mut Thaw) -> Result<Self, ThawError> {
                Ok(a.deserialize(t)?)
            }
            #[inline]
            fn canonical(&self, other: &Self) -> Ordering {
                self.cmp(other)
            }
            #[inline]
            fn sort_key(&self) -> u64 {
                let $v = self;
                $key
            }
            fn schema(s: &mut Schema) -> Shape {
                s.node::<Self>(|_| Node::new::<Self::Archived>($kind))
            }
        }
    )*};
}

foreign! {
    Duration, "duration", |v| v.as_secs();
    Ipv4Addr, "ipv4", |v| u64::from(v.to_bits());
    Ipv6Addr, "ipv6", |v| (v.to_bits() >> 64) as u64;
    IpAddr, "ip", |_v| 0;
    SocketAddrV4, "socket-v4", |v| u64::from(v.ip().to_bits());
    SocketAddrV6, "socket-v6", |v| (v.ip().to_bits() >> 64) as u64;
    SocketAddr, "socket", |_v| 0;
}
