#![forbid(unsafe_code)]
//! The sibling type `ArchivedX`, its layout, and the check of its bytes.
//!
//! Knows layouts alone; how they are filled and read back is [`implement`](crate::implement)'s
//! affair.

use proc_macro2::TokenStream;
use quote::quote;
use syn::Attribute;

use crate::{
    cases::{Case, phantom_of},
    input::{Body, Fields, Input, Style},
};

/// The type itself, beside the user's.
pub(crate) fn define(input: &Input) -> TokenStream {
    let Input { archived, vis, generics, .. } = input;
    let where_clause = &generics.where_clause;
    let doc = format!("What a `{}` looks like in an archive.", input.name());
    let (repr, body) = match &input.body {
        Body::Struct(fields) => {
            let phantom = phantom_of(&input.unused);
            let body = braces(input, fields, phantom, true);
            let body = match fields.style {
                Style::Named => quote!(struct #archived #generics #where_clause #body),
                _ => quote!(struct #archived #generics #body #where_clause;),
            };
            (quote!(#[repr(C)]), body)
        }
        Body::Enum { variants, .. } => {
            // A parameter that is not archived stands in some field that is not: there.
            let home = variants.iter().position(|v| v.fields.order.len() < v.fields.all.len());
            let variants = variants.iter().enumerate().map(|(number, variant)| {
                let ident = &variant.ident;
                let phantom = (Some(number) == home).then(|| phantom_of(&input.unused)).flatten();
                let docs = documented(&variant.docs, &variant.name());
                let body = braces(input, &variant.fields, phantom, false);
                quote!(#docs #ident #body)
            });
            // The tag is one byte; an enum without variants cannot have any.
            let repr = (variants.len() > 0).then(|| quote!(#[repr(u8)]));
            (quote!(#repr), quote!(enum #archived #generics #where_clause { #(#variants,)* }))
        }
    };
    quote! {
        #[doc = #doc]
        #[automatically_derived]
        #[allow(
            dead_code, deprecated, non_camel_case_types, private_bounds, private_interfaces,
            missing_debug_implementations, clippy::type_complexity
        )]
        #repr
        #vis #body
    }
}

/// The archived fields between braces or parentheses, or nothing.
fn braces(
    input: &Input,
    fields: &Fields,
    phantom: Option<TokenStream>,
    with_vis: bool,
) -> TokenStream {
    let parts = fields.archived().map(|field| {
        let docs = documented(&field.docs, &field.name());
        let vis = with_vis.then_some(&field.vis);
        let ty = field.item(&input.krate, "Archived");
        match fields.style {
            Style::Named => {
                let name = &field.archived;
                quote!(#docs #vis #name: #ty)
            }
            _ => quote!(#docs #vis #ty),
        }
    });
    match fields.style {
        Style::Named => {
            let phantom = phantom.map(|p| quote!(#[doc(hidden)] __phantom: #p,));
            quote!({ #(#parts,)* #phantom })
        }
        Style::Tuple => {
            let phantom = phantom.map(|p| quote!(#[doc(hidden)] #p,));
            quote!((#(#parts,)* #phantom))
        }
        Style::Unit => TokenStream::new(),
    }
}

/// The user's own words, or ours where there are none.
fn documented(docs: &[Attribute], name: &str) -> TokenStream {
    if docs.is_empty() {
        let doc = format!("The archived `{name}`.");
        quote!(#[doc = #doc])
    } else {
        quote!(#(#docs)*)
    }
}

/// The layouts of the variants, and the check: tag first, then field by field, without looking at a
/// byte that has not been checked.
pub(crate) fn check(input: &Input) -> TokenStream {
    let Input { archived, krate, generics, .. } = input;
    let (impl_generics, ty_generics, where_clause) = generics.split_for_impl();
    let cases = input.cases();
    let layouts = cases.iter().filter(|c| c.tag.is_some()).map(|case| layout(input, case));
    let name = input.name();
    let body = match &input.body {
        Body::Struct(_) => cases.iter().map(|case| check_fields(input, case)).collect(),
        Body::Enum { variants, .. } if variants.is_empty() => quote! {
            return ::core::result::Result::Err(__snapring::invalid_variant(0, #name));
        },
        Body::Enum { .. } => {
            let arms = cases.iter().map(|case| {
                let tag = case.tag;
                let fields = check_fields(input, case);
                quote!(#tag => { #fields })
            });
            quote! {
                // SAFETY: the caller's: the bytes are there, and the tag is the first.
                let __tag = unsafe { *__at.cast::<::core::primitive::u8>() };
                match __tag {
                    #(#arms)*
                    _ => {
                        return ::core::result::Result::Err(
                            __snapring::invalid_variant(__tag, #name),
                        );
                    }
                }
            }
        }
    };
    let unreachable = matches!(&input.body, Body::Enum { variants, .. } if variants.is_empty());
    let fine = (!unreachable).then(|| quote!(::core::result::Result::Ok(())));
    quote! {
        #(#layouts)*

        // SAFETY: `repr(C)` or `repr(u8)` over portable fields.
        #[automatically_derived]
        unsafe impl #impl_generics __snapring::Portable for #archived #ty_generics #where_clause {}

        // SAFETY: the tag and every field are checked.
        #[automatically_derived]
        unsafe impl #impl_generics __snapring::CheckBytes<#krate::Checker>
            for #archived #ty_generics #where_clause
        {
            unsafe fn check_bytes(
                __at: *const Self,
                __checker: &mut #krate::Checker,
            ) -> ::core::result::Result<(), __snapring::BoxedError> {
                #body
                #fine
            }
        }
    }
}

/// A variant as `repr(u8)` lays it out: a `repr(C)` struct with the tag first.
fn layout(input: &Input, case: &Case<'_>) -> TokenStream {
    let (impl_generics, _, where_clause) = input.generics.split_for_impl();
    let raw = &case.raw;
    let types = case.fields.archived().map(|f| f.item(&input.krate, "Archived"));
    let phantom = input.phantom();
    quote! {
        #[repr(C)]
        struct #raw #impl_generics (::core::primitive::u8, #(#types,)* #phantom) #where_clause;
    }
}

fn check_fields(input: &Input, case: &Case<'_>) -> TokenStream {
    let (_, ty_generics, _) = input.generics.split_for_impl();
    let raw = &case.raw;
    let of = &case.name;
    let parts = case.parts();
    if parts.is_empty() {
        return TokenStream::new();
    }
    let checks = parts.iter().map(|part| {
        let member = &part.raw;
        let name = part.field.name();
        quote! {
            // SAFETY: a field of the value that the caller vouches for.
            unsafe {
                __snapring::check_field(
                    ::core::ptr::addr_of!((*__raw).#member), __checker, #name, #of,
                )?;
            }
        }
    });
    quote! {
        let __raw = __at.cast::<#raw #ty_generics>();
        #(#checks)*
    }
}
