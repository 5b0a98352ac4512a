#![forbid(unsafe_code)]
//! Generic parameters: which are archived, and the bounds that follow.
//!
//! Bounds are put on parameters alone, never on whole field types: a recursive type would wait for
//! itself.

use proc_macro2::Ident;
use syn::{
    Expr, Generics, Path, QSelf, Type, TypePath, parse_quote,
    visit::{self, Visit},
    visit_mut::{self, VisitMut},
};

use crate::input::{Body, How};

/// Bounds every parameter by what its fields ask, and answers those of which nothing is archived.
///
/// - `T: Snapshot` where a field of `T`s is archived; `T: 'static` otherwise;
/// - `T::Item: Snapshot` where a field names such a type;
/// - an adapter's own contract where its field's type names a parameter, since only the user knows
///   for which `T` a wrapper serves.
pub(crate) fn add(generics: &mut Generics, body: &Body, this: &Ident, krate: &Path) -> Vec<Ident> {
    let params: Vec<Ident> = generics.type_params().map(|p| p.ident.clone()).collect();
    if params.is_empty() {
        return params;
    }
    let mut direct = Search::new(&params, this);
    let mut wrapped = Search::new(&params, this);
    let mut contracts = Vec::new();
    for field in body.groups().flat_map(|fields| &fields.all) {
        match &field.how {
            How::Plain => direct.visit_type(&field.ty),
            How::Adapted(_) | How::With(_) => {
                let mut here = Search::new(&params, this);
                here.visit_type(&field.ty);
                if let How::With(wrapper) = &field.how {
                    here.visit_type(wrapper);
                } else {
                    direct.visit_type(&field.ty);
                }
                if !here.named.is_empty() && !here.recursive {
                    contracts.push((field.adapter(krate), &field.ty));
                }
                wrapped.named.extend(here.named);
            }
            How::Skip(_) | How::Phantom => {}
        }
    }
    for param in generics.type_params_mut() {
        if direct.met.contains(&param.ident) {
            param.bounds.push(parse_quote!(#krate::Snapshot));
        } else {
            param.bounds.push(parse_quote!('static));
        }
    }
    if !direct.projections.is_empty() || !contracts.is_empty() {
        let clause = generics.make_where_clause();
        for projection in direct.projections {
            clause.predicates.push(parse_quote!(#projection: #krate::Snapshot));
        }
        for (by, ty) in contracts {
            clause.predicates.push(parse_quote!(#by: #krate::with::Adapter<#ty>));
        }
    }
    let named = [direct.named, wrapped.named].concat();
    params.into_iter().filter(|p| !named.contains(p)).collect()
}

/// Looks for parameters in types.
struct Search<'a> {
    params: &'a [Ident],
    this: &'a Ident,
    /// Those of which values are held.
    met: Vec<Ident>,
    /// Those, and those that only lead to another type.
    named: Vec<Ident>,
    /// The other types: `T::Item`, `<T as Trait>::Item`.
    projections: Vec<TypePath>,
    /// The type itself occurs.
    recursive: bool,
}

impl<'a> Search<'a> {
    fn new(params: &'a [Ident], this: &'a Ident) -> Search<'a> {
        Search {
            params,
            this,
            met: Vec::new(),
            named: Vec::new(),
            projections: Vec::new(),
            recursive: false,
        }
    }

    /// The parameter that a path starts with.
    fn param(&self, path: &TypePath) -> Option<Ident> {
        let first = match path.qself.as_ref().map(|q| &*q.ty) {
            None => path.path.segments.first().map(|s| &s.ident),
            Some(Type::Path(inner)) if inner.qself.is_none() => inner.path.get_ident(),
            Some(_) => None,
        };
        first.filter(|f| self.params.contains(f)).cloned()
    }
}

impl<'ast> Visit<'ast> for Search<'_> {
    fn visit_type_path(&mut self, path: &'ast TypePath) {
        let words = &path.path.segments;
        self.recursive |= words.last().is_some_and(|w| w.ident == *self.this);
        match self.param(path) {
            Some(param) => {
                self.named.push(param.clone());
                if path.qself.is_none() && words.len() == 1 {
                    self.met.push(param);
                } else {
                    self.projections.push(path.clone());
                }
            }
            None => visit::visit_type_path(self, path),
        }
    }

    fn visit_macro(&mut self, _: &'ast syn::Macro) {
        // What it makes cannot be seen: it may be any of them.
        self.met.extend_from_slice(self.params);
        self.named.extend_from_slice(self.params);
    }
}

/// Whether `this` occurs in a type.
pub(crate) fn mentions(ty: &Type, this: &Ident) -> bool {
    let mut search = Search::new(&[], this);
    search.visit_type(ty);
    search.recursive
}

/// Containers of the standard library that ask nothing special of what they hold.
const CONTAINERS: [&str; 13] = [
    "Vec",
    "VecDeque",
    "BinaryHeap",
    "Box",
    "Option",
    "Result",
    "HashMap",
    "HashSet",
    "BTreeMap",
    "BTreeSet",
    "Rc",
    "Arc",
    "Reverse",
];

/// The type of a field of `this`, with `()` in the places of `this`: what is to be asked about it
/// where the answer for `this` itself is the question. Unchanged where the two stand in for one
/// another in a type that may not take both.
pub(crate) fn around(ty: &Type, this: &Ident) -> Type {
    let mut ty = ty.clone();
    let original = ty.clone();
    let mut around = Around { this, strange: false };
    around.visit_type_mut(&mut ty);
    if around.strange { original } else { ty }
}

struct Around<'a> {
    this: &'a Ident,
    /// `this` stands in a type that is not known.
    strange: bool,
}

impl VisitMut for Around<'_> {
    fn visit_type_mut(&mut self, ty: &mut Type) {
        let Type::Path(TypePath { qself: None, path }) = ty else {
            return visit_mut::visit_type_mut(self, ty);
        };
        let Some(last) = path.segments.last() else { return };
        if last.ident == *self.this {
            *ty = parse_quote!(());
            return;
        }
        let known = CONTAINERS.iter().any(|c| last.ident == c);
        if known {
            visit_mut::visit_type_mut(self, ty);
        } else {
            self.strange |= mentions(ty, self.this);
        }
    }
}

/// Replaces `Self` in bounds and where clauses.
pub(crate) fn name_self(generics: &mut Generics, this: &Type) {
    NameSelf { this }.visit_generics_mut(generics);
}

/// Replaces `Self` in a type.
pub(crate) fn name_self_in(ty: &mut Type, this: &Type) {
    NameSelf { this }.visit_type_mut(ty);
}

struct NameSelf<'a> {
    this: &'a Type,
}

impl NameSelf<'_> {
    /// `Self::Item` becomes `<X>::Item`.
    fn qualify(&self, qself: &mut Option<QSelf>, path: &mut Path) {
        let is_self = path.segments.first().is_some_and(|s| s.ident == "Self");
        if !is_self || qself.is_some() || path.segments.len() == 1 {
            return;
        }
        let rest = path.segments.iter().skip(1).cloned();
        *qself = Some(QSelf {
            lt_token: Default::default(),
            ty: Box::new(self.this.clone()),
            position: 0,
            as_token: None,
            gt_token: Default::default(),
        });
        *path = Path { leading_colon: Some(Default::default()), segments: rest.collect() };
    }
}

impl VisitMut for NameSelf<'_> {
    fn visit_type_mut(&mut self, ty: &mut Type) {
        match ty {
            Type::Path(TypePath { qself: None, path }) if path.is_ident("Self") => {
                *ty = self.this.clone();
            }
            _ => visit_mut::visit_type_mut(self, ty),
        }
    }

    fn visit_type_path_mut(&mut self, ty: &mut TypePath) {
        self.qualify(&mut ty.qself, &mut ty.path);
        visit_mut::visit_type_path_mut(self, ty);
    }

    fn visit_expr_mut(&mut self, expr: &mut Expr) {
        if let Expr::Path(path) = expr {
            self.qualify(&mut path.qself, &mut path.path);
        }
        visit_mut::visit_expr_mut(self, expr);
    }
}
