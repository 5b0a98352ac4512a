#![forbid(unsafe_code)]
//! The derive macro of snapring: `#[derive(Snapshot)]`.
//!
//! A type goes through in this order: `attributes` reads what the user wrote in `#[snapshot(..)]`,
//! `input` makes a model of the whole type, with the `bounds` of its parameters, and what `refuse`
//! finds cannot be archived goes no further; `order` arranges the archived fields, `archived` writes
//! the sibling type `ArchivedX`, and `implement` (with `compare` for the order of values) the
//! `Snapshot` for `X`. Only the model passes between them.

mod archived;
mod attributes;
mod bounds;
mod cases;
mod compare;
mod implement;
mod input;
mod order;
mod refuse;

use proc_macro::TokenStream;

/// Makes a type's values ready for snapshots.
///
/// Writes a sibling type `ArchivedX` (same visibility, generics and field names) that describes the
/// bytes in an archive, and implements `Snapshot` for `X`. Nothing is asked of the fields but that
/// they are `Snapshot` themselves.
///
/// On the type:
///
/// - `#[snapshot(version = 3)]`: the version of the type, kept with every snapshot; 1 if not given.
/// - `#[snapshot(crate = path)]`: where the crate is found, if it is re-exported.
///
/// On a field:
///
/// - `#[snapshot(skip)]`: not archived. A rollback leaves the live value alone; a new value gets
///   `Default::default()`, or the expression of `skip = expr`.
/// - `#[snapshot(with = path::To)]`: archived by an rkyv `with` wrapper, for foreign types.
/// - `#[snapshot(id)]`: tells the elements of a sequence apart, so that their skipped fields follow
///   them. One field of a struct at most.
/// - `#[snapshot(unsorted)]`, `#[snapshot(hashed)]`: for maps and sets; not sorted, or archived as
///   a hash table.
#[proc_macro_derive(Snapshot, attributes(snapshot))]
pub fn derive_snapshot(tokens: TokenStream) -> TokenStream {
    let input = syn::parse_macro_input!(tokens as syn::DeriveInput);
    match input::Input::read(&input) {
        Ok(input) => {
            let krate = &input.krate;
            let sibling = archived::define(&input);
            let checks = archived::check(&input);
            let implementation = implement::implement(&input);
            quote::quote! {
                #sibling

                #[allow(
                    dead_code, deprecated, non_camel_case_types, private_bounds,
                    private_interfaces, unreachable_code, unreachable_patterns, unused_imports,
                    unused_variables
                )]
                const _: () = {
                    use #krate::__private as __snapring;
                    #checks
                    #implementation
                };
            }
            .into()
        }
        Err(error) => error.into_compile_error().into(),
    }
}
