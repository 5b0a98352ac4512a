#![forbid(unsafe_code)]
//! `unsafe impl Snapshot for X`: item by item, in the order of the trait.
//!
//! Structs and enums are written by the same code, case by case. Everything is named from the root
//! and called by path, so that the user's own names cannot interfere.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};

use crate::{
    bounds,
    cases::{Case, own},
    compare,
    input::{Body, Field, How, Input, here},
};

pub(crate) fn implement(input: &Input) -> TokenStream {
    let Input { ident, krate, generics, .. } = input;
    let (impl_generics, ty_generics, where_clause) = generics.split_for_impl();
    let (archived, resolver) = (input.archived_type(), input.resolver_type());
    let define_resolver = define_resolver(input);
    let items = [
        constants(input),
        archive(input),
        resolve(input),
        thaw(input),
        restore(input),
        adopt(input),
        compare::canonical(input),
        compare::sort_key(input),
        compare::cmp_archived(input),
        compare::cmp_id(input),
        schema(input),
    ];
    quote! {
        #define_resolver

        // SAFETY:
        // - `resolve` zeroes what no field covers and resolves every field;
        // - PLAIN compares offsets, sizes and alignments;
        // - `schema` names every field, its offset and its shape.
        #[automatically_derived]
        unsafe impl #impl_generics #krate::Snapshot for #ident #ty_generics #where_clause {
            type Archived = #archived;
            type Resolver = #resolver;
            #(#items)*
        }
    }
}

/// Where the fields' own things have been written. Public but unnameable.
fn define_resolver(input: &Input) -> TokenStream {
    let (impl_generics, _, where_clause) = input.generics.split_for_impl();
    let resolver = own("__SnapringResolver");
    let phantom = input.phantom();
    let types = |case: &Case<'_>| {
        let types = case.fields.archived().map(|f| f.item(&input.krate, "Resolver"));
        quote!((#(#types,)* #phantom))
    };
    let cases = input.cases();
    match &input.body {
        Body::Struct(_) => {
            let types = cases.iter().map(types);
            quote!(pub struct #resolver #impl_generics #(#types)* #where_clause;)
        }
        Body::Enum { variants, .. } => {
            let names = variants.iter().map(|v| &v.ident);
            let types = cases.iter().map(types);
            quote!(pub enum #resolver #impl_generics #where_clause { #(#names #types,)* })
        }
    }
}

fn constants(input: &Input) -> TokenStream {
    let krate = &input.krate;
    let plain = plain(input);
    let frozen = input.fields().filter(|f| f.is_archived()).map(|field| {
        // A type that holds itself is frozen if the rest of it is.
        let ty = bounds::around(&field.ty, &input.ident);
        // Asked through a function, so that the compiler does not ask before it has to: types that
        // hold each other would be asked in a circle.
        match field.adapter(krate) {
            None => quote_spanned!(here(&field.ty)=> __snapring::frozen::<#ty>()),
            Some(by) => quote_spanned!(here(&field.ty)=> __snapring::frozen_by::<#by, #ty>()),
        }
    });
    let has_id = input.fields().any(|f| f.id).then(|| {
        quote!(
            const HAS_ID: bool = true;
        )
    });
    quote! {
        const PLAIN: ::core::primitive::bool = #plain;
        const FROZEN: ::core::primitive::bool = true #(&& #frozen)*;
        #has_id
    }
}

/// Live and archived are the same bytes: every field is plain, at the same offset in both, and
/// there is nothing between them; an enum without fields is one byte, the position.
fn plain(input: &Input) -> TokenStream {
    let krate = &input.krate;
    let archived = input.archived_type();
    match &input.body {
        Body::Enum { .. } if input.fields().next().is_some() => quote!(false),
        Body::Enum { .. } => {
            let cases = input.cases();
            let live = cases.iter().map(|c| &c.live);
            let tags = cases.iter().map(|c| c.tag);
            quote! {
                ::core::mem::size_of::<Self>() == 1 && !::core::mem::needs_drop::<Self>() #(
                    // SAFETY: an enum without fields and with a size is its discriminant.
                    && unsafe { __snapring::byte(::core::mem::ManuallyDrop::new(#live {})) }
                        == #tags
                )*
            }
        }
        Body::Struct(fields) if fields.all.iter().any(Field::is_skipped) => quote!(false),
        Body::Struct(fields) => {
            let same = fields.archived().map(|field| {
                let plain = field.item(krate, "PLAIN");
                let Field { member, archived: there, .. } = field;
                quote! {
                    #plain
                    && ::core::mem::offset_of!(Self, #member)
                        == ::core::mem::offset_of!(#archived, #there)
                }
            });
            let types = fields.archived().map(|f| &f.ty);
            quote! {
                #(#same &&)*
                0 #(+ ::core::mem::size_of::<#types>())* == ::core::mem::size_of::<Self>()
                    && ::core::mem::size_of::<Self>()
                        == ::core::mem::size_of::<#archived>()
                    && ::core::mem::align_of::<Self>()
                        == ::core::mem::align_of::<#archived>()
                    && !::core::mem::needs_drop::<Self>()
            }
        }
    }
}

fn archive(input: &Input) -> TokenStream {
    let krate = &input.krate;
    let resolver_type = input.resolver_type();
    let last = input.phantom().map(|_| quote!(::core::marker::PhantomData));
    let arms = input.cases().into_iter().map(|case| {
        let pattern = case.bind_live(|p| p.this.clone());
        let parts = case.parts();
        let values = parts.iter().map(|part| {
            let archive = part.field.item(krate, "archive");
            let this = &part.this;
            quote!(#archive(#this, __session)?)
        });
        let resolver = case.resolver_of(values, last.clone());
        quote!(#pattern => ::core::result::Result::Ok(#resolver),)
    });
    let body = matching(input, quote!(self), arms, None);
    quote! {
        #[inline]
        fn archive(
            &self,
            __session: &mut #krate::Session,
        ) -> ::core::result::Result<#resolver_type, #krate::Halt> {
            #body
        }
    }
}

fn resolve(input: &Input) -> TokenStream {
    let Input { krate, generics, .. } = input;
    let (_, ty_generics, _) = generics.split_for_impl();
    let (archived, resolver_type) = (input.archived_type(), input.resolver_type());
    let ignored = input.phantom().map(|_| quote!(_));
    let arms = input.cases().into_iter().map(|case| {
        let raw = &case.raw;
        let live = case.bind_live(|p| p.this.clone());
        let parts = case.parts();
        let resolver = case.resolver_of(parts.iter().map(|p| &p.resolver), ignored.clone());
        let tag = case.tag.map(|tag| {
            quote! {
                // SAFETY: the tag is the first byte of a `repr(u8)` enum.
                unsafe { __at.cast::<::core::primitive::u8>().write(#tag) };
            }
        });
        let fields = parts.iter().map(|part| {
            let (member, this, resolver) = (&part.raw, &part.this, &part.resolver);
            let resolve = part.field.item(krate, "resolve");
            quote! {
                // SAFETY: a field of the place, projected.
                let __field = unsafe {
                    __snapring::Place::from_field_unchecked(
                        __out,
                        ::core::ptr::addr_of_mut!((*__raw).#member),
                    )
                };
                #resolve(#this, #resolver, __field);
            }
        });
        let project =
            (!parts.is_empty()).then(|| quote!(let __raw = __at.cast::<#raw #ty_generics>();));
        quote! {
            (#live, #resolver) => {
                #project
                #tag
                #(#fields)*
            }
        }
    });
    // Bytes that the fields cover; what is more than that is padding, or another variant's.
    let covered = match &input.body {
        Body::Struct(fields) => {
            let types = fields.archived().map(|f| f.item(krate, "Archived"));
            quote!(0 #(+ ::core::mem::size_of::<#types>())*)
        }
        Body::Enum { .. } if input.fields().any(|f| f.is_archived()) => {
            quote!(::core::primitive::usize::MAX)
        }
        Body::Enum { .. } => quote!(1),
    };
    let unsteady = (input.cases().len() > 1).then(|| {
        let name = input.name();
        quote!(_ => __snapring::unsteady(#name),)
    });
    let body = matching(input, quote!((self, __resolver)), arms, unsteady);
    quote! {
        #[inline]
        fn resolve(
            &self,
            __resolver: #resolver_type,
            __out: __snapring::Place<#archived>,
        ) {
            // SAFETY: only initialised bytes are written through it.
            let __at = unsafe { __out.ptr() };
            if const { #covered != ::core::mem::size_of::<#archived>() } {
                // SAFETY: a place is writable.
                unsafe { ::core::ptr::write_bytes(__at, 0, 1) };
            }
            #body
        }
    }
}

fn thaw(input: &Input) -> TokenStream {
    let krate = &input.krate;
    let archived = input.archived_type();
    let arms = input.cases().into_iter().map(|case| {
        let pattern = case.bind_archived();
        let live = &case.live;
        let members = case.fields.all.iter().map(|f| &f.member);
        let declared = case.declared();
        let values = case.fields.all.iter().map(|field| match &field.how {
            How::Skip(Some(fresh)) => quote!(#fresh),
            How::Skip(None) => {
                let ty = &field.ty;
                quote_spanned!(here(ty)=> <#ty as ::core::default::Default>::default())
            }
            How::Phantom => quote!(::core::marker::PhantomData),
            How::Plain | How::With(_) | How::Adapted(_) => {
                let thaw = field.item(krate, "thaw");
                let there =
                    declared.iter().find(|p| std::ptr::eq(p.field, field)).map(|p| &p.there);
                quote!(#thaw(#there, __thaw)?)
            }
        });
        quote!(#pattern => ::core::result::Result::Ok(#live { #(#members: #values,)* }),)
    });
    let body = match &input.body {
        Body::Enum { variants, .. } if variants.is_empty() => quote!(match *__archived {}),
        _ => quote!(match __archived { #(#arms)* }),
    };
    quote! {
        fn thaw(
            __archived: &#archived,
            __thaw: &mut #krate::Thaw,
        ) -> ::core::result::Result<Self, #krate::ThawError> {
            #body
        }
    }
}

fn restore(input: &Input) -> TokenStream {
    let krate = &input.krate;
    let archived = input.archived_type();
    let arms = input.cases().into_iter().map(|case| {
        let live = case.bind_live(|p| p.this.clone());
        let there = case.bind_archived();
        let parts = case.declared();
        let fields = parts.iter().map(|part| {
            let restore = part.field.item(krate, "restore");
            let (this, there) = (&part.this, &part.there);
            quote!(#restore(#this, #there, __thaw)?;)
        });
        quote!((#live, #there) => { #(#fields)* })
    });
    let another = (input.cases().len() > 1)
        .then(|| quote!(_ => *self = <Self as #krate::Snapshot>::thaw(__archived, __thaw)?,));
    let body = matching(input, quote!((&mut *self, __archived)), arms, another);
    quote! {
        fn restore(
            &mut self,
            __archived: &#archived,
            __thaw: &mut #krate::Thaw,
        ) -> ::core::result::Result<(), #krate::ThawError> {
            #body
            ::core::result::Result::Ok(())
        }
    }
}

fn adopt(input: &Input) -> TokenStream {
    let krate = &input.krate;
    let arms = input.cases().into_iter().map(|case| {
        let live = &case.live;
        let kept =
            case.fields.all.iter().enumerate().filter(|(_, f)| !matches!(f.how, How::Phantom));
        let mut members = Vec::new();
        let mut these = Vec::new();
        let mut others = Vec::new();
        let mut steps = Vec::new();
        for (number, field) in kept {
            let this = own(&format!("__this{number}"));
            let other = own(&format!("__other{number}"));
            steps.push(if field.is_skipped() {
                quote!(::core::mem::swap(#this, #other);)
            } else {
                let adopt = field.item(krate, "adopt");
                quote!(#adopt(#this, #other, __thaw);)
            });
            members.push(&field.member);
            these.push(this);
            others.push(other);
        }
        quote! {
            (#live { #(#members: #these,)* .. }, #live { #(#members: #others,)* .. }) => {
                #(#steps)*
            }
        }
    });
    // Nothing to look for where nothing inside is skipped.
    let nothing = (!input.fields().any(|f| f.is_skipped())).then(|| {
        quote! {
            if !#krate::Thaw::carries_skips::<Self>(__thaw) {
                return;
            }
        }
    });
    let another = (input.cases().len() > 1).then(|| quote!(_ => {}));
    let body = matching(input, quote!((&mut *self, &mut *__old)), arms, another);
    quote! {
        fn adopt(&mut self, __old: &mut Self, __thaw: &mut #krate::Thaw) {
            #nothing
            #body
        }
    }
}

fn schema(input: &Input) -> TokenStream {
    let Input { krate, generics, .. } = input;
    let (_, ty_generics, _) = generics.split_for_impl();
    let archived = input.archived_type();
    let cases = input.cases();
    let name = input.name();
    let skips = input.fields().any(|f| f.is_skipped()).then(|| quote!(.skips(true)));
    let version = input.version.as_ref().map(|version| quote!(.version(#version)));
    let fields = |case: &Case<'_>| {
        let raw = &case.raw;
        let parts = case.declared();
        let shapes = parts.iter().map(|p| p.field.item(krate, "schema"));
        let shapes: Vec<_> = shapes.collect();
        let locals: Vec<_> = (0..parts.len()).map(|n| own(&format!("__shape{n}"))).collect();
        let names = parts.iter().map(|p| p.field.name());
        let members = parts.iter().map(|p| &p.raw);
        (
            quote!(#(let #locals = #shapes(__schema);)*),
            quote! {
                #(.field(
                    #names,
                    ::core::mem::offset_of!(#raw #ty_generics, #members),
                    #locals,
                ))*
            },
        )
    };
    let body = match &input.body {
        Body::Struct(_) => {
            let (shapes, parts) = fields(&cases[0]);
            quote! {
                #shapes
                #krate::Node::new::<#archived>("struct").named(#name)
                    #parts #skips #version
            }
        }
        Body::Enum { repr, variants } => {
            let mut steps = Vec::new();
            let mut before = None;
            for (case, variant) in cases.iter().zip(variants) {
                let raw = &case.raw;
                let (shapes, parts) = fields(case);
                let value = own(&format!("__VALUE{}", case.tag.unwrap_or(0)));
                let expression = match (&variant.discriminant, &before) {
                    (Some(given), _) => quote!(#given),
                    (None, Some(before)) => quote!(#before + 1),
                    (None, None) => quote!(0),
                };
                before = Some(value.clone());
                let format = format!("{}({{}})", variant.name());
                steps.push(quote! {
                    const #value: ::core::primitive::#repr = #expression;
                    #shapes
                    let __variant = #krate::Schema::anonymous(
                        __schema,
                        #krate::Node::new::<#raw #ty_generics>("variant") #parts,
                    );
                    let __node = __node.field(::std::format!(#format, #value), 0, __variant);
                });
            }
            quote! {
                let __node = #krate::Node::new::<#archived>("enum").named(#name);
                #(#steps)*
                __node #skips #version
            }
        }
    };
    quote! {
        fn schema(__schema: &mut #krate::Schema) -> #krate::Shape {
            #krate::Schema::node::<Self>(__schema, |__schema| { #body })
        }
    }
}

/// A `match` over the cases; an enum without any has no values to match.
pub(crate) fn matching(
    input: &Input,
    on: TokenStream,
    arms: impl Iterator<Item = TokenStream>,
    rest: Option<TokenStream>,
) -> TokenStream {
    match &input.body {
        Body::Enum { variants, .. } if variants.is_empty() => quote!(match *self {}),
        _ => quote!(match #on { #(#arms)* #rest }),
    }
}
