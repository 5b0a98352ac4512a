#![forbid(unsafe_code)]
//! Field types that can be seen, from their words alone, to have no archive.
//!
//! Everything else is left to the compiler, which asks for `Snapshot` and points at the field.

use syn::{
    Error, PathArguments, Result, Type, TypePath,
    visit::{self, Visit},
};

const INSTEAD: &str = "mark the field #[snapshot(skip)] or give #[snapshot(with = ..)]";

/// Refuses a type that borrows, points into code or memory, or has no size.
pub(crate) fn unarchivable(ty: &Type) -> Result<()> {
    let mut search = Search { found: None };
    match ty {
        Type::Slice(_) => search.note(ty, "a bare slice cannot be archived: use `Vec`"),
        Type::Path(path) if path.path.is_ident("str") => {
            search.note(ty, "a bare `str` cannot be archived: use `String`");
        }
        _ => search.visit_type(ty),
    }
    match search.found {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

struct Search {
    found: Option<Error>,
}

impl Search {
    fn note(&mut self, at: &Type, what: &str) {
        self.found.get_or_insert_with(|| Error::new_spanned(at, what));
    }
}

impl<'ast> Visit<'ast> for Search {
    fn visit_type(&mut self, ty: &'ast Type) {
        match ty {
            Type::Reference(_) => self.note(
                ty,
                "snapshots own their data: use String for &str, Vec or Box for other borrows, \
                 or mark the field #[snapshot(skip)]",
            ),
            Type::Ptr(_) => {
                self.note(ty, &format!("a raw pointer cannot be archived: {INSTEAD}"));
            }
            Type::BareFn(_) => {
                self.note(ty, &format!("a function pointer cannot be archived: {INSTEAD}"));
            }
            Type::TraitObject(_) => {
                self.note(
                    ty,
                    &format!("`dyn` cannot be archived, use an enum of the cases; or {INSTEAD}"),
                );
            }
            _ => visit::visit_type(self, ty),
        }
    }

    fn visit_type_path(&mut self, path: &'ast TypePath) {
        // Nothing of its parameter is stored.
        if !is_phantom(path) {
            visit::visit_type_path(self, path);
        }
    }
}

fn is_phantom(path: &TypePath) -> bool {
    path.path.segments.last().is_some_and(|s| {
        s.ident == "PhantomData" && matches!(s.arguments, PathArguments::AngleBracketed(_))
    })
}

/// The field is a `PhantomData`: nothing to archive.
pub(crate) fn is_phantom_type(ty: &Type) -> bool {
    match ty {
        Type::Path(path) => is_phantom(path),
        Type::Paren(inner) => is_phantom_type(&inner.elem),
        Type::Group(inner) => is_phantom_type(&inner.elem),
        _ => false,
    }
}

/// Types that are surely no hash map or set, by their last word.
const NO_HASHES: [&str; 27] = [
    "u8",
    "u16",
    "u32",
    "u64",
    "u128",
    "usize",
    "i8",
    "i16",
    "i32",
    "i64",
    "i128",
    "isize",
    "f32",
    "f64",
    "bool",
    "char",
    "String",
    "Vec",
    "VecDeque",
    "BinaryHeap",
    "Option",
    "Result",
    "Box",
    "Rc",
    "Arc",
    "PagedVec",
    "PagedMap",
];

/// Refuses `unsorted` and `hashed` (`key`, at `at`) on what is surely no hash map or set.
pub(crate) fn no_map(ty: &Type, key: &str, at: proc_macro2::Span) -> Result<()> {
    let last = match ty {
        Type::Path(path) => path.path.segments.last().map(|s| s.ident.to_string()),
        Type::Array(_) | Type::Tuple(_) => Some("this type".to_owned()),
        _ => None,
    };
    let Some(last) = last else { return Ok(()) };
    if last == "BTreeMap" || last == "BTreeSet" {
        return Err(Error::new(at, format!("a `{last}` is sorted already: remove `{key}`")));
    }
    if last == "this type" || NO_HASHES.contains(&last.as_str()) {
        return Err(Error::new(
            at,
            format!("`{key}` is for `HashMap` and `HashSet`, and {last} is neither: remove it"),
        ));
    }
    Ok(())
}
