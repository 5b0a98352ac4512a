//! Numbers, `bool`, `char`, `()`: themselves, little-endian.

use std::{
    cmp::Ordering,
    num::{
        NonZeroI8, NonZeroI16, NonZeroI32, NonZeroI64, NonZeroI128, NonZeroIsize, NonZeroU8,
        NonZeroU16, NonZeroU32, NonZeroU64, NonZeroU128, NonZeroUsize,
    },
};

use rkyv::{
    Place,
    rend::{
        NonZeroI16_le, NonZeroI32_le, NonZeroI64_le, NonZeroI128_le, NonZeroU16_le, NonZeroU32_le,
        NonZeroU64_le, NonZeroU128_le, char_le, f32_le, f64_le, i16_le, i32_le, i64_le, i128_le,
        u16_le, u32_le, u64_le, u128_le,
    },
};

use crate::{
    schema::{Node, Schema, Shape},
    session::{Halt, Session},
    snapshot::Snapshot,
    thaw::{Thaw, ThawError},
};

/// The bytes agree where the machine is little-endian and aligns as the archive does.
const fn plain<L, A>() -> bool {
    cfg!(target_endian = "little")
        && size_of::<L>() == size_of::<A>()
        && align_of::<L>() == align_of::<A>()
}

macro_rules! number {
    ($($live:ty => $archived:ty, |$v:ident| $to:expr, |$a:ident| $from:expr, |$x:ident, $y:ident| $order:expr, $bits:literal |$k:ident| $key:expr;)*) => {$(
        // SAFETY: `resolve` writes the whole of a type without padding; PLAIN compares size, align
        // and byte order, and the bit patterns valid for one are those valid for the other.
        unsafe impl Snapshot for $live {
            type Archived = $archived;
            type Resolver = ();
            const PLAIN: bool = plain::<$live, $archived>();
            const FROZEN: bool = true;
            const KEY_BITS: u32 = $bits;

            #[inline]
            fn archive(&self, _: &mut Session) -> Result<(), Halt> {
                Ok(())
            }
            #[inline]
            fn resolve(&self, (): (), out: Place<$archived>) {
                let $v = *self;
                // SAFETY: the archived form has no padding.
                unsafe { out.write_unchecked($to) };
            }
            #[inline]
            fn thaw($a: &$archived, _: &mut Thaw) -> Result<$live, ThawError> {
                Ok($from)
            }
            #[inline]
            fn restore(&mut self, $a: &$archived, _: &mut Thaw) -> Result<(), ThawError> {
                *self = $from;
                Ok(())
            }
            #[inline]
            fn canonical(&self, other: &Self) -> Ordering {
                let ($x, $y) = (self, other);
                $order
            }
            #[inline]
            fn sort_key(&self) -> u64 {
                let $k = *self;
                $key
            }
            #[inline]
            fn cmp_archived(&self, $a: &$archived) -> Ordering {
                let ($x, $y) = (self, &$from);
                $order
            }
            fn schema(s: &mut Schema) -> Shape {
                s.node::<$live>(|_| Node::new::<$archived>(stringify!($live)))
            }
        }
    )*};
}

/// The top bit: signed numbers as unsigned ones in the same order.
const SIGN: u64 = 1 << 63;

/// `f32::total_cmp` as the order of unsigned numbers.
fn ordered_f32(v: f32) -> u32 {
    let bits = v.to_bits();
    if bits >> 31 == 0 { bits | 1 << 31 } else { !bits }
}

/// `f64::total_cmp` as the order of unsigned numbers.
fn ordered_f64(v: f64) -> u64 {
    let bits = v.to_bits();
    if bits >> 63 == 0 { bits | SIGN } else { !bits }
}

number! {
    u8 => u8, |v| v, |a| *a, |x, y| x.cmp(y), 8 |k| u64::from(k);
    u16 => u16_le, |v| u16_le::from_native(v), |a| a.to_native(), |x, y| x.cmp(y), 16 |k| u64::from(k);
    u32 => u32_le, |v| u32_le::from_native(v), |a| a.to_native(), |x, y| x.cmp(y), 32 |k| u64::from(k);
    u64 => u64_le, |v| u64_le::from_native(v), |a| a.to_native(), |x, y| x.cmp(y), 64 |k| k;
    u128 => u128_le, |v| u128_le::from_native(v), |a| a.to_native(), |x, y| x.cmp(y), 0 |k| (k >> 64) as u64;
    i8 => i8, |v| v, |a| *a, |x, y| x.cmp(y), 8 |k| u64::from(k as u8 ^ 1 << 7);
    i16 => i16_le, |v| i16_le::from_native(v), |a| a.to_native(), |x, y| x.cmp(y), 16 |k| u64::from(k as u16 ^ 1 << 15);
    i32 => i32_le, |v| i32_le::from_native(v), |a| a.to_native(), |x, y| x.cmp(y), 32 |k| u64::from(k as u32 ^ 1 << 31);
    i64 => i64_le, |v| i64_le::from_native(v), |a| a.to_native(), |x, y| x.cmp(y), 64 |k| k as u64 ^ SIGN;
    i128 => i128_le, |v| i128_le::from_native(v), |a| a.to_native(), |x, y| x.cmp(y), 0 |k| (k >> 64) as u64 ^ SIGN;
    f32 => f32_le, |v| f32_le::from_native(v), |a| a.to_native(), |x, y| x.total_cmp(y), 32 |k| u64::from(ordered_f32(k));
    f64 => f64_le, |v| f64_le::from_native(v), |a| a.to_native(), |x, y| x.total_cmp(y), 64 |k| ordered_f64(k);
    bool => bool, |v| v, |a| *a, |x, y| x.cmp(y), 1 |k| u64::from(k);
    char => char_le, |v| char_le::from_native(v), |a| a.to_native(), |x, y| x.cmp(y), 21 |k| u64::from(u32::from(k));
    () => (), |v| v, |a| *a, |x, y| x.cmp(y), 1 |_k| 0;
    NonZeroU8 => NonZeroU8, |v| v, |a| *a, |x, y| x.cmp(y), 8 |k| u64::from(k.get());
    NonZeroU16 => NonZeroU16_le, |v| NonZeroU16_le::from_native(v), |a| a.to_native(), |x, y| x.cmp(y), 16 |k| u64::from(k.get());
    NonZeroU32 => NonZeroU32_le, |v| NonZeroU32_le::from_native(v), |a| a.to_native(), |x, y| x.cmp(y), 32 |k| u64::from(k.get());
    NonZeroU64 => NonZeroU64_le, |v| NonZeroU64_le::from_native(v), |a| a.to_native(), |x, y| x.cmp(y), 64 |k| k.get();
    NonZeroU128 => NonZeroU128_le, |v| NonZeroU128_le::from_native(v), |a| a.to_native(), |x, y| x.cmp(y), 0 |k| (k.get() >> 64) as u64;
    NonZeroI8 => NonZeroI8, |v| v, |a| *a, |x, y| x.cmp(y), 8 |k| u64::from(k.get() as u8 ^ 1 << 7);
    NonZeroI16 => NonZeroI16_le, |v| NonZeroI16_le::from_native(v), |a| a.to_native(), |x, y| x.cmp(y), 16 |k| u64::from(k.get() as u16 ^ 1 << 15);
    NonZeroI32 => NonZeroI32_le, |v| NonZeroI32_le::from_native(v), |a| a.to_native(), |x, y| x.cmp(y), 32 |k| u64::from(k.get() as u32 ^ 1 << 31);
    NonZeroI64 => NonZeroI64_le, |v| NonZeroI64_le::from_native(v), |a| a.to_native(), |x, y| x.cmp(y), 64 |k| k.get() as u64 ^ SIGN;
    NonZeroI128 => NonZeroI128_le, |v| NonZeroI128_le::from_native(v), |a| a.to_native(), |x, y| x.cmp(y), 0 |k| (k.get() >> 64) as u64 ^ SIGN;
}

// `usize` and `isize` archive as 64 bits on every machine.
macro_rules! wide {
    ($($live:ty => $archived:ty, $fixed:ty, |$v:ident| $to:expr, |$f:ident| $from:expr, |$k:ident| $key:expr;)*) => {$(
        // SAFETY: as for the numbers above.
        unsafe impl Snapshot for $live {
            type Archived = $archived;
            type Resolver = ();
            const PLAIN: bool = plain::<$live, $archived>();
            const FROZEN: bool = true;
            const KEY_BITS: u32 = 64;

            #[inline]
            fn archive(&self, _: &mut Session) -> Result<(), Halt> {
                Ok(())
            }
            #[inline]
            fn resolve(&self, (): (), out: Place<$archived>) {
                let $v = *self;
                // SAFETY: the archived form has no padding.
                unsafe { out.write_unchecked($to) };
            }
            #[inline]
            fn thaw(a: &$archived, _: &mut Thaw) -> Result<$live, ThawError> {
                let $f = a.to_native();
                match $from {
                    Ok(v) => Ok(v),
                    Err(_) => Err(ThawError::out_of_range(stringify!($live), i128::from($f) as u128)),
                }
            }
            #[inline]
            fn canonical(&self, other: &Self) -> Ordering {
                self.cmp(other)
            }
            #[inline]
            fn sort_key(&self) -> u64 {
                let $k = *self;
                $key
            }
            fn schema(s: &mut Schema) -> Shape {
                s.node::<$live>(|_| Node::new::<$archived>(stringify!($fixed)))
            }
        }
    )*};
}

wide! {
    usize => u64_le, u64, |v| u64_le::from_native(v as u64), |f| usize::try_from(f), |k| k as u64;
    isize => i64_le, i64, |v| i64_le::from_native(v as i64), |f| isize::try_from(f), |k| k as u64 ^ SIGN;
}

macro_rules! wide_nonzero {
    ($($live:ty => $archived:ty, $fixed:ty, $native:ty, $primitive:ty, |$k:ident| $key:expr;)*) => {$(
        // SAFETY: as for the numbers above.
        unsafe impl Snapshot for $live {
            type Archived = $archived;
            type Resolver = ();
            const PLAIN: bool = plain::<$live, $archived>();
            const FROZEN: bool = true;
            const KEY_BITS: u32 = 64;

            #[inline]
            fn archive(&self, _: &mut Session) -> Result<(), Halt> {
                Ok(())
            }
            #[inline]
            fn resolve(&self, (): (), out: Place<$archived>) {
                // A non-zero pointer-sized number is a non-zero 64-bit one.
                if let Some(v) = <$native>::new(self.get() as $primitive) {
                    // SAFETY: the archived form has no padding.
                    unsafe { out.write_unchecked(<$archived>::from_native(v)) };
                }
            }
            #[inline]
            fn thaw(a: &$archived, _: &mut Thaw) -> Result<$live, ThawError> {
                let wide = a.to_native();
                <$live>::try_from(wide)
                    .map_err(|_| ThawError::out_of_range(stringify!($live), i128::from(wide.get()) as u128))
            }
            #[inline]
            fn canonical(&self, other: &Self) -> Ordering {
                self.cmp(other)
            }
            #[inline]
            fn sort_key(&self) -> u64 {
                let $k = *self;
                $key
            }
            fn schema(s: &mut Schema) -> Shape {
                s.node::<$live>(|_| Node::new::<$archived>(stringify!($fixed)))
            }
        }
    )*};
}

wide_nonzero! {
    NonZeroUsize => NonZeroU64_le, NonZeroU64, NonZeroU64, u64, |k| k.get() as u64;
    NonZeroIsize => NonZeroI64_le, NonZeroI64, NonZeroI64, i64, |k| k.get() as u64 ^ SIGN;
}
