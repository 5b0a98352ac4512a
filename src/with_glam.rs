//! [`Snapshot`] for glam's types: their components as an array, little-endian, without padding.
//!
//! So a `Vec3` and a `Vec3A` look the same in an archive, and what the fourth lane of a SIMD
//! register happens to hold never gets there.

use std::{cmp::Ordering, mem::offset_of};

use glam::{
    Affine2, Affine3A, DAffine2, DAffine3, DMat2, DMat3, DMat4, DQuat, DVec2, DVec3, DVec4, I8Vec2,
    I8Vec3, I8Vec4, I16Vec2, I16Vec3, I16Vec4, I64Vec2, I64Vec3, I64Vec4, IVec2, IVec3, IVec4,
    Mat2, Mat3, Mat3A, Mat4, Quat, U8Vec2, U8Vec3, U8Vec4, U16Vec2, U16Vec3, U16Vec4, U64Vec2,
    U64Vec3, U64Vec4, UVec2, UVec3, UVec4, Vec2, Vec3, Vec3A, Vec4,
};
use rkyv::Place;

use crate::{
    schema::{Node, Schema, Shape},
    session::{Halt, Session},
    snapshot::{Archived, Snapshot},
    thaw::{Thaw, ThawError},
};

macro_rules! components {
    ($live:ident: [$T:ty; $n:literal], $plain:expr, |$v:ident| $to:expr, |$a:ident| $from:expr) => {
        // SAFETY: the archived form is an array, resolved as one; PLAIN compares size and alignment
        // with it, and `$plain` says that the components are fields in their order.
        unsafe impl Snapshot for $live {
            type Archived = [Archived<$T>; $n];
            type Resolver = <[$T; $n] as Snapshot>::Resolver;
            const PLAIN: bool = <$T as Snapshot>::PLAIN
                && size_of::<$live>() == size_of::<Self::Archived>()
                && align_of::<$live>() == align_of::<Self::Archived>()
                && $plain;
            const FROZEN: bool = true;
            const KEY_BITS: u32 = <[$T; $n] as Snapshot>::KEY_BITS;

            #[inline]
            fn archive(&self, s: &mut Session) -> Result<Self::Resolver, Halt> {
                let $v = self;
                $to.archive(s)
            }
            #[inline]
            fn resolve(&self, r: Self::Resolver, out: Place<Self::Archived>) {
                let $v = self;
                $to.resolve(r, out);
            }
            #[inline]
            fn thaw(a: &Self::Archived, t: &mut Thaw) -> Result<Self, ThawError> {
                let $a = <[$T; $n]>::thaw(a, t)?;
                Ok($from)
            }
            #[inline]
            fn canonical(&self, other: &Self) -> Ordering {
                let components = |$v: &Self| $to;
                components(self).canonical(&components(other))
            }
            #[inline]
            fn sort_key(&self) -> u64 {
                let $v = self;
                $to.sort_key()
            }
            #[inline]
            fn cmp_archived(&self, a: &Self::Archived) -> Ordering {
                let $v = self;
                $to.cmp_archived(a)
            }
            fn schema(s: &mut Schema) -> Shape {
                s.node::<Self>(|s| {
                    let item = <$T>::schema(s);
                    Node::new::<Self::Archived>(concat!("array[", $n, "]"))
                        .named(stringify!($live))
                        .field("item", 0, item)
                })
            }
        }
    };
}

/// Whether fields of equal size, `size` bytes together, follow each other in the order given.
const fn in_order(offsets: &[usize], size: usize) -> bool {
    let mut i = 0;
    while i < offsets.len() {
        if offsets[i] * offsets.len() != i * size {
            return false;
        }
        i += 1;
    }
    true
}

/// Structs of components.
macro_rules! fields {
    ($($live:ident: [$T:ty; $n:literal] { $($field:ident),* })*) => {$(
        components!(
            $live: [$T; $n],
            in_order(&[$(offset_of!($live, $field)),*], size_of::<$live>()),
            |v| v.to_array(),
            |a| $live::from_array(a)
        );
    )*};
}

/// SIMD registers of components, where the machine has them.
macro_rules! lanes {
    ($($live:ident: [$T:ty; $n:literal])*) => {$(
        components!($live: [$T; $n], false, |v| v.to_array(), |a| $live::from_array(a));
    )*};
}

/// Structs of columns.
macro_rules! columns {
    ($($live:ident: [$T:ty; $n:literal] { $column:ident: $($field:ident),* })*) => {$(
        components!(
            $live: [$T; $n],
            <$column as Snapshot>::PLAIN
                && in_order(&[$(offset_of!($live, $field)),*], size_of::<$live>()),
            |v| v.to_cols_array(),
            |a| $live::from_cols_array(&a)
        );
    )*};
}

/// Matrices in SIMD registers, and structs of unlike parts.
macro_rules! matrices {
    ($($live:ident: [$T:ty; $n:literal])*) => {$(
        components!(
            $live: [$T; $n], false, |v| v.to_cols_array(), |a| $live::from_cols_array(&a)
        );
    )*};
}

fields! {
    Vec2: [f32; 2] { x, y }
    Vec3: [f32; 3] { x, y, z }
    DVec2: [f64; 2] { x, y }
    DVec3: [f64; 3] { x, y, z }
    DVec4: [f64; 4] { x, y, z, w }
    IVec2: [i32; 2] { x, y }
    IVec3: [i32; 3] { x, y, z }
    IVec4: [i32; 4] { x, y, z, w }
    UVec2: [u32; 2] { x, y }
    UVec3: [u32; 3] { x, y, z }
    UVec4: [u32; 4] { x, y, z, w }
    I8Vec2: [i8; 2] { x, y }
    I8Vec3: [i8; 3] { x, y, z }
    I8Vec4: [i8; 4] { x, y, z, w }
    U8Vec2: [u8; 2] { x, y }
    U8Vec3: [u8; 3] { x, y, z }
    U8Vec4: [u8; 4] { x, y, z, w }
    I16Vec2: [i16; 2] { x, y }
    I16Vec3: [i16; 3] { x, y, z }
    I16Vec4: [i16; 4] { x, y, z, w }
    U16Vec2: [u16; 2] { x, y }
    U16Vec3: [u16; 3] { x, y, z }
    U16Vec4: [u16; 4] { x, y, z, w }
    I64Vec2: [i64; 2] { x, y }
    I64Vec3: [i64; 3] { x, y, z }
    I64Vec4: [i64; 4] { x, y, z, w }
    U64Vec2: [u64; 2] { x, y }
    U64Vec3: [u64; 3] { x, y, z }
    U64Vec4: [u64; 4] { x, y, z, w }
    DQuat: [f64; 4] { x, y, z, w }
}

lanes! {
    Vec3A: [f32; 3]
    Vec4: [f32; 4]
    Quat: [f32; 4]
}

columns! {
    Mat3: [f32; 9] { Vec3: x_axis, y_axis, z_axis }
    DMat2: [f64; 4] { DVec2: x_axis, y_axis }
    DMat3: [f64; 9] { DVec3: x_axis, y_axis, z_axis }
    DMat4: [f64; 16] { DVec4: x_axis, y_axis, z_axis, w_axis }
}

matrices! {
    Mat2: [f32; 4]
    Mat3A: [f32; 9]
    Mat4: [f32; 16]
    Affine2: [f32; 6]
    Affine3A: [f32; 12]
    DAffine2: [f64; 6]
    DAffine3: [f64; 12]
}
