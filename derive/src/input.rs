#![forbid(unsafe_code)]
//! The model of a type: what is archived, how, and under which names. Refuses what cannot be.
//!
//! `Self` in the user's types is replaced by the type's name, since the model is also read inside
//! the archived type, where `Self` is another.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::{
    Attribute, Data, DataEnum, DeriveInput, Error, Expr, Generics, Index, LitInt, Member, Path,
    Result, Type, Visibility, ext::IdentExt as _, spanned::Spanned as _,
};

use crate::{
    attributes::{FieldAttributes, TypeAttributes},
    bounds, order, refuse,
};

/// The archived tag is one byte.
const MAX_VARIANTS: usize = 256;

/// A type to implement `Snapshot` for.
pub(crate) struct Input {
    pub(crate) ident: Ident,
    /// `ArchivedX`.
    pub(crate) archived: Ident,
    pub(crate) vis: Visibility,
    /// The user's, with the bounds that the implementation needs.
    pub(crate) generics: Generics,
    /// Type parameters of which nothing is archived: the archived type has to name them.
    pub(crate) unused: Vec<Ident>,
    /// Any type parameters at all.
    pub(crate) params: Vec<Ident>,
    /// Where the crate is found.
    pub(crate) krate: Path,
    pub(crate) version: Option<LitInt>,
    pub(crate) body: Body,
}

pub(crate) enum Body {
    Struct(Fields),
    Enum {
        /// The type of the discriminants, as the user's `#[repr]` has it.
        repr: Ident,
        variants: Vec<Variant>,
    },
}

pub(crate) struct Variant {
    pub(crate) ident: Ident,
    pub(crate) docs: Vec<Attribute>,
    pub(crate) discriminant: Option<Expr>,
    pub(crate) fields: Fields,
}

/// The fields of a struct or of one variant.
pub(crate) struct Fields {
    pub(crate) style: Style,
    /// All of them, as declared.
    pub(crate) all: Vec<Field>,
    /// The archived ones by number, in archived order.
    pub(crate) order: Vec<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    Named,
    Tuple,
    Unit,
}

pub(crate) struct Field {
    /// In the live type.
    pub(crate) member: Member,
    /// In the archived type; of no meaning where the field is not archived.
    pub(crate) archived: Member,
    pub(crate) ty: Type,
    pub(crate) vis: Visibility,
    pub(crate) docs: Vec<Attribute>,
    pub(crate) how: How,
    pub(crate) id: bool,
}

/// How a field is archived.
pub(crate) enum How {
    /// As itself.
    Plain,
    /// By an rkyv wrapper.
    With(Type),
    /// By `snapring::with::Unsorted` or `Hashed`.
    Adapted(&'static str),
    /// Not at all; a new value gets the expression, or the default.
    Skip(Option<Expr>),
    /// A `PhantomData`: there is nothing to archive.
    Phantom,
}

impl Input {
    pub(crate) fn read(input: &DeriveInput) -> Result<Input> {
        refuse_borrowing(input)?;
        let attributes = TypeAttributes::read(&input.attrs)?;
        let repr = Repr::read(&input.attrs)?;
        let (_, ty_generics, _) = input.generics.split_for_impl();
        let ident = &input.ident;
        let this: Type = syn::parse_quote!(#ident #ty_generics);
        let krate = attributes.krate.unwrap_or_else(|| syn::parse_quote!(::snapring));

        let body = match &input.data {
            Data::Struct(data) => {
                let mut fields = Fields::read(&data.fields, &this)?;
                if !repr.given && input.generics.params.is_empty() {
                    order::arrange(&mut fields);
                }
                Body::Struct(fields)
            }
            Data::Enum(data) => {
                Body::Enum { repr: repr.discriminant, variants: read_variants(data, &this)? }
            }
            Data::Union(data) => {
                return Err(Error::new(
                    data.union_token.span,
                    "a union does not say which field is live: use an enum",
                ));
            }
        };

        let mut generics = input.generics.clone();
        bounds::name_self(&mut generics, &this);
        let params = generics.type_params().map(|p| p.ident.clone()).collect();
        let unused = bounds::add(&mut generics, &body, ident, &krate);
        Ok(Input {
            ident: ident.clone(),
            archived: format_ident!("Archived{}", ident, span = here(ident)),
            vis: input.vis.clone(),
            generics,
            unused,
            params,
            krate,
            version: attributes.version,
            body,
        })
    }

    /// The type's name as the schema has it.
    pub(crate) fn name(&self) -> String {
        self.ident.unraw().to_string()
    }

    /// Every field, variant by variant.
    pub(crate) fn fields(&self) -> impl Iterator<Item = &Field> {
        self.body.groups().flat_map(|fields| &fields.all)
    }
}

impl Body {
    pub(crate) fn groups(&self) -> impl Iterator<Item = &Fields> {
        let (one, many) = match self {
            Body::Struct(fields) => (Some(fields), &[][..]),
            Body::Enum { variants, .. } => (None, &variants[..]),
        };
        one.into_iter().chain(many.iter().map(|v| &v.fields))
    }
}

impl Fields {
    fn read(fields: &syn::Fields, this: &Type) -> Result<Fields> {
        let style = match fields {
            syn::Fields::Named(_) => Style::Named,
            syn::Fields::Unnamed(_) => Style::Tuple,
            syn::Fields::Unit => Style::Unit,
        };
        let mut errors = Errors::default();
        let mut all = Vec::new();
        let mut order = Vec::new();
        let mut id: Option<Span> = None;
        for (number, field) in fields.iter().enumerate() {
            let read = FieldAttributes::read(&field.attrs).and_then(|attributes| {
                if let (Some(_), Some(second)) = (id, attributes.id) {
                    return Err(Error::new(
                        second,
                        "there is an `id` already: put both into one field, as a tuple",
                    ));
                }
                id = id.or(attributes.id);
                Field::read(field, number, order.len(), attributes, this)
            });
            match read {
                Ok(field) => {
                    if field.is_archived() {
                        order.push(number);
                    }
                    all.push(field);
                }
                Err(error) => errors.push(error),
            }
        }
        errors.into_result().map(|()| Fields { style, all, order })
    }

    /// The archived fields in archived order.
    pub(crate) fn archived(&self) -> impl Iterator<Item = &Field> {
        self.order.iter().map(|n| &self.all[*n])
    }
}

impl Field {
    fn read(
        field: &syn::Field,
        number: usize,
        archived_number: usize,
        attributes: FieldAttributes,
        this: &Type,
    ) -> Result<Field> {
        let mut ty = field.ty.clone();
        bounds::name_self_in(&mut ty, this);
        let how = match attributes {
            FieldAttributes { skip: Some((_, fresh)), .. } => How::Skip(fresh),
            FieldAttributes { with: Some((_, mut wrapper)), .. } => {
                bounds::name_self_in(&mut wrapper, this);
                How::With(wrapper)
            }
            FieldAttributes { unsorted: Some(at), .. } => {
                refuse::no_map(&ty, "unsorted", at)?;
                How::Adapted("Unsorted")
            }
            FieldAttributes { hashed: Some(at), .. } => {
                refuse::no_map(&ty, "hashed", at)?;
                How::Adapted("Hashed")
            }
            _ if refuse::is_phantom_type(&ty) => How::Phantom,
            _ => How::Plain,
        };
        if matches!(how, How::Plain | How::Adapted(_)) {
            refuse::unarchivable(&ty)?;
        }
        let index = |n: usize| Member::Unnamed(Index { index: n as u32, span: Span::mixed_site() });
        let (member, archived) = match &field.ident {
            Some(name) => (Member::Named(name.clone()), Member::Named(name.clone())),
            None => (index(number), index(archived_number)),
        };
        Ok(Field {
            member,
            archived,
            ty,
            vis: field.vis.clone(),
            docs: docs(&field.attrs),
            how,
            id: attributes.id.is_some(),
        })
    }

    pub(crate) fn is_archived(&self) -> bool {
        !matches!(self.how, How::Skip(_) | How::Phantom)
    }

    pub(crate) fn is_skipped(&self) -> bool {
        matches!(self.how, How::Skip(_))
    }

    /// The field's name as the schema has it: a tuple field's is its number in the live type.
    pub(crate) fn name(&self) -> String {
        match &self.member {
            Member::Named(name) => name.unraw().to_string(),
            Member::Unnamed(index) => index.index.to_string(),
        }
    }

    /// The adapter that archives the field, where it is not archived as itself.
    pub(crate) fn adapter(&self, krate: &Path) -> Option<TokenStream> {
        match &self.how {
            How::With(wrapper) => Some(quote!(#krate::with::Wrapped<#wrapper>)),
            How::Adapted(name) => {
                let name = Ident::new(name, Span::mixed_site());
                Some(quote!(#krate::with::#name))
            }
            How::Plain | How::Skip(_) | How::Phantom => None,
        }
    }

    /// An item of what archives the field: a type, a constant or a function. Its place is the
    /// field's type, so a message about one that cannot be archived points there.
    pub(crate) fn item(&self, krate: &Path, item: &str) -> TokenStream {
        let ty = &self.ty;
        let place = here(ty);
        let item = Ident::new(item, place);
        match self.adapter(krate) {
            None => quote_spanned!(place=> <#ty as #krate::Snapshot>::#item),
            Some(by) => quote_spanned!(place=> <#by as #krate::with::Adapter<#ty>>::#item),
        }
    }
}

impl Variant {
    /// The variant's name as the schema has it.
    pub(crate) fn name(&self) -> String {
        self.ident.unraw().to_string()
    }
}

/// The place of some tokens, with the macro's own hygiene: lints that the user forbids do not
/// apply there, messages still point at it.
pub(crate) fn here(tokens: &impl ToTokens) -> Span {
    Span::mixed_site().located_at(tokens.to_token_stream().span())
}

fn read_variants(data: &DataEnum, this: &Type) -> Result<Vec<Variant>> {
    if let Some(extra) = data.variants.iter().nth(MAX_VARIANTS) {
        return Err(Error::new(
            extra.ident.span(),
            format!(
                "at most {MAX_VARIANTS} variants can be archived, and there are {}: put some of \
                 them into an enum of their own",
                data.variants.len()
            ),
        ));
    }
    let mut errors = Errors::default();
    let mut variants = Vec::new();
    for variant in &data.variants {
        if let Some(at) = FieldAttributes::any(&variant.attrs) {
            errors.push(Error::new_spanned(
                at,
                "a variant takes no `snapshot` attribute; its fields do",
            ));
        }
        match Fields::read(&variant.fields, this) {
            Ok(fields) => {
                if fields.all.iter().any(|f| f.id) {
                    let at = id_of(&variant.fields).unwrap_or_else(|| variant.ident.span());
                    errors.push(Error::new(
                        at,
                        "an `id` is for structs: put the enum into a struct and the id beside it",
                    ));
                }
                variants.push(Variant {
                    ident: variant.ident.clone(),
                    docs: docs(&variant.attrs),
                    discriminant: variant.discriminant.as_ref().map(|(_, e)| e.clone()),
                    fields,
                });
            }
            Err(error) => errors.push(error),
        }
    }
    errors.into_result().map(|()| variants)
}

fn id_of(fields: &syn::Fields) -> Option<Span> {
    fields.iter().find_map(|f| FieldAttributes::read(&f.attrs).ok()?.id)
}

fn refuse_borrowing(input: &DeriveInput) -> Result<()> {
    match input.generics.lifetimes().next() {
        Some(lifetime) => Err(Error::new_spanned(
            lifetime,
            format!(
                "snapshots own their data, so `{}` cannot borrow: use String for &str, Vec or Box \
                 for other borrows",
                input.ident
            ),
        )),
        None => Ok(()),
    }
}

fn docs(attrs: &[Attribute]) -> Vec<Attribute> {
    attrs.iter().filter(|a| a.path().is_ident("doc")).cloned().collect()
}

/// What a `#[repr(..)]` says that matters here.
struct Repr {
    /// There is one: rustc does not reorder the fields.
    given: bool,
    discriminant: Ident,
}

impl Repr {
    fn read(attrs: &[Attribute]) -> Result<Repr> {
        let mut repr = Repr { given: false, discriminant: Ident::new("isize", Span::mixed_site()) };
        for attr in attrs.iter().filter(|a| a.path().is_ident("repr")) {
            repr.given = true;
            attr.parse_nested_meta(|meta| {
                let word = meta.path.get_ident().map(ToString::to_string).unwrap_or_default();
                if word == "packed" {
                    return Err(meta.error(
                        "fields of a packed type cannot be borrowed, so they cannot be archived: \
                         remove `packed`",
                    ));
                }
                if word.starts_with(['u', 'i']) {
                    repr.discriminant = Ident::new(&word, Span::mixed_site());
                }
                if meta.input.peek(syn::token::Paren) {
                    let inside;
                    syn::parenthesized!(inside in meta.input);
                    inside.parse::<TokenStream>()?;
                }
                Ok(())
            })?;
        }
        Ok(repr)
    }
}

/// All that is wrong, rather than the first of it.
#[derive(Default)]
struct Errors(Option<Error>);

impl Errors {
    fn push(&mut self, error: Error) {
        match &mut self.0 {
            Some(all) => all.combine(error),
            None => self.0 = Some(error),
        }
    }

    fn into_result(self) -> Result<()> {
        self.0.map_or(Ok(()), Err)
    }
}
