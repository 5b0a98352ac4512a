#![forbid(unsafe_code)]
//! The canonical order of a type: between two live values, between a live and an archived one, by
//! a key of 64 bits, and by the `id` alone. All four agree.

use proc_macro2::TokenStream;
use quote::quote;

use crate::{
    bounds,
    cases::{Case, Part},
    implement::matching,
    input::{Body, Field, How, Input},
};

/// Compares part by part; the first difference decides.
fn chain(case: &Case<'_>, compare: impl Fn(&Part<'_>) -> TokenStream) -> TokenStream {
    let parts = case.declared();
    let steps = parts.iter().map(|part| {
        let compare = compare(part);
        quote! {
            match #compare {
                ::core::cmp::Ordering::Equal => {}
                __other => return __other,
            }
        }
    });
    quote!(#(#steps)* ::core::cmp::Ordering::Equal)
}

pub(crate) fn canonical(input: &Input) -> TokenStream {
    let krate = &input.krate;
    let cases = input.cases();
    let arms = cases.iter().filter(|c| !c.fields.order.is_empty()).map(|case| {
        let this = case.bind_live(|p| p.this.clone());
        let other = case.bind_live(|p| p.other.clone());
        let body = chain(case, |part| {
            let canonical = part.field.item(krate, "canonical");
            let (this, other) = (&part.this, &part.other);
            quote!(#canonical(#this, #other))
        });
        quote!((#this, #other) => { #body })
    });
    let rest = by_position(&cases, quote!(__other), |case| &case.live);
    let body = matching(input, quote!((self, __other)), arms, Some(rest));
    quote! {
        fn canonical(&self, __other: &Self) -> ::core::cmp::Ordering {
            #body
        }
    }
}

/// The arm for cases that differ, or hold nothing: by their position.
fn by_position(
    cases: &[Case<'_>],
    other: TokenStream,
    name: impl for<'a> Fn(&'a Case<'_>) -> &'a TokenStream,
) -> TokenStream {
    if let [only] = cases {
        // A struct, or an enum of one variant, with fields: no other case.
        let needed = only.fields.order.is_empty();
        return if needed { quote!(_ => ::core::cmp::Ordering::Equal,) } else { quote!() };
    }
    let positions: Vec<u8> = cases.iter().filter_map(|c| c.tag).collect();
    let live = cases.iter().map(|c| &c.live);
    let there = cases.iter().map(name);
    quote! {
        _ => {
            let __a: ::core::primitive::u8 = match self { #(#live { .. } => #positions,)* };
            let __b: ::core::primitive::u8 = match #other { #(#there { .. } => #positions,)* };
            ::core::cmp::Ord::cmp(&__a, &__b)
        }
    }
}

/// The fields' keys side by side where they fit, else the first of them; an enum's position is the
/// first byte of its order.
pub(crate) fn sort_key(input: &Input) -> TokenStream {
    let krate = &input.krate;
    let (bits, body) = match &input.body {
        Body::Struct(fields) => {
            let archived: Vec<&Field> = fields.all.iter().filter(|f| f.is_archived()).collect();
            let Some(first) = archived.first().filter(|f| matches!(f.how, How::Plain)) else {
                return TokenStream::new();
            };
            let key = |field: &Field| {
                let (sort_key, member) = (field.item(krate, "sort_key"), &field.member);
                quote!(#sort_key(&self.#member))
            };
            let first = key(first);
            // The bits of a type that holds itself would be asked of itself.
            if archived
                .iter()
                .any(|f| !matches!(f.how, How::Plain) || bounds::mentions(&f.ty, &input.ident))
            {
                (quote!(0), first)
            } else {
                let bits: Vec<_> = archived.iter().map(|f| f.item(krate, "KEY_BITS")).collect();
                let keys = archived.iter().map(|f| key(f));
                let body = quote! {
                    if <Self as #krate::Snapshot>::KEY_BITS == 0 {
                        return #first;
                    }
                    let __key = 0;
                    #(let __key = __snapring::append_key(__key, #bits, #keys);)*
                    __key
                };
                (quote!(__snapring::packed_bits(&[#(#bits),*])), body)
            }
        }
        Body::Enum { variants, .. } if variants.is_empty() => return TokenStream::new(),
        Body::Enum { .. } => {
            let bare = !input.fields().any(|f| f.is_archived());
            let (bits, shift) = if bare { (8_u32, 0) } else { (0, 56) };
            let cases = input.cases();
            let live = cases.iter().map(|c| &c.live);
            let keys = cases.iter().map(|c| u64::from(c.tag.unwrap_or(0)) << shift);
            (quote!(#bits), quote!(match self { #(#live { .. } => #keys,)* }))
        }
    };
    quote! {
        const KEY_BITS: ::core::primitive::u32 = #bits;
        #[inline]
        fn sort_key(&self) -> ::core::primitive::u64 {
            #body
        }
    }
}

pub(crate) fn cmp_archived(input: &Input) -> TokenStream {
    let krate = &input.krate;
    // An adapter cannot compare with its archived form: the trait's own way serves then.
    if input.fields().any(|f| matches!(f.how, How::With(_) | How::Adapted(_))) {
        return TokenStream::new();
    }
    let cases = input.cases();
    let arms = cases.iter().filter(|c| !c.fields.order.is_empty()).map(|case| {
        let this = case.bind_live(|p| p.this.clone());
        let there = case.bind_archived();
        let body = chain(case, |part| {
            let compare = part.field.item(krate, "cmp_archived");
            let (this, there) = (&part.this, &part.there);
            quote!(#compare(#this, #there))
        });
        quote!((#this, #there) => { #body })
    });
    let rest = by_position(&cases, quote!(__archived), |case| &case.archived);
    let body = matching(input, quote!((self, __archived)), arms, Some(rest));
    let archived_type = input.archived_type();
    quote! {
        fn cmp_archived(&self, __archived: &#archived_type) -> ::core::cmp::Ordering {
            #body
        }
    }
}

pub(crate) fn cmp_id(input: &Input) -> TokenStream {
    let krate = &input.krate;
    let Some(field) = input.fields().find(|f| f.id) else {
        return TokenStream::new();
    };
    let canonical = field.item(krate, "canonical");
    let cmp_archived = field.item(krate, "cmp_archived");
    let Field { member, archived, .. } = field;
    let archived_type = input.archived_type();
    quote! {
        #[inline]
        fn cmp_id(&self, __other: &Self) -> ::core::cmp::Ordering {
            #canonical(&self.#member, &__other.#member)
        }
        #[inline]
        fn cmp_archived_id(&self, __archived: &#archived_type) -> ::core::cmp::Ordering {
            #cmp_archived(&self.#member, &__archived.#archived)
        }
    }
}
