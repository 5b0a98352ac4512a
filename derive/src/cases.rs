#![forbid(unsafe_code)]
//! A struct seen as an enum of one case, so that the code for both is written once.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, format_ident, quote};
use syn::{Index, Member};

use crate::input::{Body, Field, Fields, Input};

/// A struct, or one variant of an enum.
pub(crate) struct Case<'a> {
    pub(crate) fields: &'a Fields,
    /// How patterns and expressions name it: live, archived, as a resolver.
    pub(crate) live: TokenStream,
    pub(crate) archived: TokenStream,
    pub(crate) resolver: TokenStream,
    /// The `repr(C)` struct that lies at the start of the archived value, without parameters.
    pub(crate) raw: Ident,
    /// The tag, for a variant.
    pub(crate) tag: Option<u8>,
    /// `X`, or `X::V`, for messages.
    pub(crate) name: String,
}

/// An archived field within its case.
pub(crate) struct Part<'a> {
    pub(crate) field: &'a Field,
    /// Its name in the case's `raw` struct.
    pub(crate) raw: Member,
    /// Names of its bindings: in `self`, in another live value, in an archived one, its resolver.
    pub(crate) this: Ident,
    pub(crate) other: Ident,
    pub(crate) there: Ident,
    pub(crate) resolver: Ident,
}

/// A name of our own.
pub(crate) fn own(name: &str) -> Ident {
    Ident::new(name, Span::mixed_site())
}

impl Input {
    pub(crate) fn cases(&self) -> Vec<Case<'_>> {
        let Input { ident: this, archived, .. } = self;
        let resolver = own("__SnapringResolver");
        // Not `Self::V`: a variant may have the name of an item of the trait.
        let (_, ty_generics, _) = self.generics.split_for_impl();
        let turbofish = ty_generics.as_turbofish();
        match &self.body {
            Body::Struct(fields) => vec![Case {
                fields,
                live: quote!(#this #turbofish),
                archived: quote!(#archived),
                resolver: quote!(#resolver),
                raw: archived.clone(),
                tag: None,
                name: self.name(),
            }],
            Body::Enum { variants, .. } => (0..=u8::MAX)
                .zip(variants)
                .map(|(tag, variant)| {
                    let ident = &variant.ident;
                    Case {
                        fields: &variant.fields,
                        live: quote!(#this #turbofish::#ident),
                        archived: quote!(#archived::#ident),
                        resolver: quote!(#resolver::#ident),
                        raw: own(&format!("__SnapringVariant{tag}")),
                        tag: Some(tag),
                        name: format!("{}::{}", self.name(), variant.name()),
                    }
                })
                .collect(),
        }
    }

    /// `ArchivedX<..>`.
    pub(crate) fn archived_type(&self) -> TokenStream {
        let Input { archived, generics, .. } = self;
        let (_, ty_generics, _) = generics.split_for_impl();
        quote!(#archived #ty_generics)
    }

    /// The resolver's type.
    pub(crate) fn resolver_type(&self) -> TokenStream {
        let resolver = own("__SnapringResolver");
        let (_, ty_generics, _) = self.generics.split_for_impl();
        quote!(#resolver #ty_generics)
    }

    /// What names every type parameter, where there are any: `fn() -> (PhantomData<A>, ..)` keeps
    /// `Send` and `Sync` whatever they are.
    pub(crate) fn phantom(&self) -> Option<TokenStream> {
        phantom_of(&self.params)
    }
}

/// A `PhantomData` that names some type parameters.
pub(crate) fn phantom_of(params: &[Ident]) -> Option<TokenStream> {
    let marker = quote!(::core::marker::PhantomData);
    let all = quote!((#(#marker<#params>,)*));
    (!params.is_empty()).then(|| quote!(#marker<fn() -> #all>))
}

impl<'a> Case<'a> {
    /// The archived fields, in archived order.
    pub(crate) fn parts(&self) -> Vec<Part<'a>> {
        let part = |(place, number): (usize, &usize)| {
            let field = &self.fields.all[*number];
            let raw = match self.tag {
                None => field.archived.clone(),
                Some(_) => Member::Unnamed(Index::from(place + 1)),
            };
            Part {
                field,
                raw,
                this: format_ident!("__this{}", number, span = Span::mixed_site()),
                other: format_ident!("__other{}", number, span = Span::mixed_site()),
                there: format_ident!("__there{}", number, span = Span::mixed_site()),
                resolver: format_ident!("__resolver{}", number, span = Span::mixed_site()),
            }
        };
        self.fields.order.iter().enumerate().map(part).collect()
    }

    /// The archived fields, as declared.
    pub(crate) fn declared(&self) -> Vec<Part<'a>> {
        let mut parts = self.parts();
        let place = |p: &Part<'_>| self.fields.all.iter().position(|f| std::ptr::eq(f, p.field));
        parts.sort_by_key(place);
        parts
    }

    /// A pattern that binds archived fields of the live value.
    pub(crate) fn bind_live(&self, name: impl Fn(&Part<'_>) -> Ident) -> TokenStream {
        let live = &self.live;
        let parts = self.parts();
        let members = parts.iter().map(|p| &p.field.member);
        let names = parts.iter().map(name);
        quote!(#live { #(#members: #names,)* .. })
    }

    /// A pattern that binds the fields of the archived value.
    pub(crate) fn bind_archived(&self) -> TokenStream {
        let archived = &self.archived;
        let parts = self.parts();
        let members = parts.iter().map(|p| &p.field.archived);
        let names = parts.iter().map(|p| &p.there);
        quote!(#archived { #(#members: #names,)* .. })
    }

    /// The resolver, as a pattern or (with the parts' resolvers as values) an expression.
    pub(crate) fn resolver_of(
        &self,
        values: impl Iterator<Item = impl ToTokens>,
        last: Option<TokenStream>,
    ) -> TokenStream {
        let resolver = &self.resolver;
        quote!(#resolver(#(#values,)* #last))
    }
}
