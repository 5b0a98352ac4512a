#![forbid(unsafe_code)]
//! The order of the archived fields: as declared, or as rustc lays out a row of primitives.
//!
//! A struct whose live and archived forms have the same bytes is copied whole, but rustc reorders
//! fields and an archive does not. So where every field of a struct is a primitive in sight, its
//! archived fields stand in the order in which rustc puts the live ones today. That order is no
//! promise of rustc's, and none is needed: `PLAIN` compares the offsets when the user's crate is
//! compiled, and where they differ the fields are written one by one, as for any other struct.
//! Nothing here depends on the machine but the archived layout itself, which has to be the same
//! everywhere.
//!
//! rustc sorts by descending alignment, where the size of an array may stand for a larger one
//! (`[u8; 4]` goes with `u32`), then puts large niches first, so that enums around the struct find
//! them. If the niche ends up in the middle, it tries again with niches last, and takes that order
//! if it brings the niche nearer to an end.

use std::cmp::Reverse;

use syn::{Expr, ExprLit, Lit, Type};

use crate::input::{Fields, How, Style};

/// Puts the archived fields of a row of primitives in rustc's order. The fields of a tuple are
/// named by their place, so those stay.
pub(crate) fn arrange(fields: &mut Fields) {
    if fields.style != Style::Named {
        return;
    }
    let row = fields.all.iter().map(|field| match field.how {
        How::Plain => Primitive::read(&field.ty),
        _ => None,
    });
    if let Some(row) = row.collect::<Option<Vec<Primitive>>>() {
        fields.order = rustc_order(&row);
    }
}

/// A number, or an array of some, as rustc lays it out.
#[derive(Clone, Copy)]
struct Primitive {
    size: u64,
    align: u64,
    /// How many bit patterns are not values, and the size of the number that has them.
    niche: u64,
    niche_len: u64,
}

impl Primitive {
    fn read(ty: &Type) -> Option<Primitive> {
        match ty {
            Type::Path(path) if path.qself.is_none() => {
                Primitive::named(&path.path.get_ident()?.to_string())
            }
            Type::Array(array) => {
                let Expr::Lit(ExprLit { lit: Lit::Int(len), .. }) = &array.len else {
                    return None;
                };
                let len: u64 = len.base10_parse().ok()?;
                let item = Primitive::read(&array.elem)?;
                let niche = if len == 0 { 0 } else { item.niche };
                Some(Primitive { size: item.size.checked_mul(len)?, niche, ..item })
            }
            Type::Paren(inner) => Primitive::read(&inner.elem),
            Type::Group(inner) => Primitive::read(&inner.elem),
            _ => None,
        }
    }

    fn named(name: &str) -> Option<Primitive> {
        let (size, niche) = match name {
            "u8" | "i8" => (1, 0),
            "u16" | "i16" => (2, 0),
            "u32" | "i32" | "f32" => (4, 0),
            "u64" | "i64" | "f64" | "usize" | "isize" => (8, 0),
            "u128" | "i128" => (16, 0),
            "bool" => (1, (1 << 8) - 2),
            "char" => (4, (1 << 32) - (u64::from(u32::from(char::MAX)) + 1)),
            _ => return None,
        };
        Some(Primitive { size, align: size, niche, niche_len: size })
    }
}

/// Where rustc would have the niche.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bias {
    Start,
    End,
}

fn rustc_order(row: &[Primitive]) -> Vec<usize> {
    let order = biased(row, Bias::Start);
    let Some((head, tail)) = around_niche(row, &order, Bias::Start) else {
        return order;
    };
    if head == 0 || tail == 0 || row.len() < 2 {
        return order;
    }
    let other = biased(row, Bias::End);
    match around_niche(row, &other, Bias::End) {
        Some((_, other_tail)) if other_tail < head.min(tail) => other,
        _ => order,
    }
}

fn biased(row: &[Primitive], bias: Bias) -> Vec<usize> {
    let max_align = row.iter().map(|f| f.align).max().unwrap_or(1);
    let max_niche = row.iter().map(|f| f.niche).max().unwrap_or(0);
    let group = |f: &Primitive| {
        let by_size = f.align.max(f.size).trailing_zeros();
        match bias {
            _ if max_niche == 0 => by_size,
            Bias::Start => by_size.min(max_align.trailing_zeros()),
            Bias::End if f.niche == max_niche => f.align.trailing_zeros(),
            Bias::End => by_size,
        }
    };
    let niche_key = |f: &Primitive| match bias {
        Bias::Start => (!f.niche, 0),
        Bias::End if f.niche == 0 => (0, 0),
        // An array has the niche of its first item.
        Bias::End => (f.niche, !(f.size - f.niche_len)),
    };
    let mut order: Vec<usize> = (0..row.len()).collect();
    order.sort_by_key(|n| {
        let f = &row[*n];
        (Reverse(group(f)), niche_key(f))
    });
    order
}

/// The bytes before and after the largest niche, if there is one.
fn around_niche(row: &[Primitive], order: &[usize], bias: Bias) -> Option<(u64, u64)> {
    let mut end = 0_u64;
    let mut max_align = 1;
    let mut best: Option<(u64, u64, u64)> = None;
    for f in order.iter().map(|n| &row[*n]) {
        let at = end.next_multiple_of(f.align);
        max_align = max_align.max(f.align);
        end = at + f.size;
        let larger = match (best, bias) {
            (None, _) => f.niche > 0,
            (Some((largest, ..)), Bias::Start) => f.niche > largest,
            (Some((largest, ..)), Bias::End) => f.niche > 0 && f.niche >= largest,
        };
        if larger {
            best = Some((f.niche, at, f.niche_len));
        }
    }
    let size = end.next_multiple_of(max_align);
    best.map(|(_, at, len)| (at, size - at - len))
}
