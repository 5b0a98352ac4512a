#![forbid(unsafe_code)]
//! What the user wrote in `#[snapshot(..)]`: keys, values, and what is wrong with them.
//!
//! Knows the keys and which of them exclude each other. What they mean for the code is the
//! model's affair ([`input`](crate::input)).

use proc_macro2::{Ident, Span};
use syn::{
    Attribute, Error, Expr, LitInt, Path, Result, Token, Type, ext::IdentExt as _,
    meta::ParseNestedMeta, spanned::Spanned as _,
};

const TYPE_KEYS: [&str; 2] = ["version", "crate"];
const FIELD_KEYS: [&str; 5] = ["skip", "with", "unsorted", "hashed", "id"];

/// The attributes of a type.
#[derive(Default)]
pub(crate) struct TypeAttributes {
    pub(crate) version: Option<LitInt>,
    pub(crate) krate: Option<Path>,
}

impl TypeAttributes {
    pub(crate) fn read(attrs: &[Attribute]) -> Result<TypeAttributes> {
        let mut read = TypeAttributes::default();
        each_key(attrs, |key, meta| {
            match key.unraw().to_string().as_str() {
                "version" => once(&read.version, key)?,
                "crate" => once(&read.krate, key)?,
                _ => return Err(unknown(key, &TYPE_KEYS, &FIELD_KEYS, "a field")),
            }
            if key == "crate" {
                let value = value(meta, "where the crate is found: `crate = some::path`")?;
                read.krate = Some(value.call(Path::parse_mod_style)?);
            } else {
                let value = value(meta, "a number: `version = 2`")?;
                let literal = value.parse::<Expr>()?;
                read.version = Some(version(&literal)?);
            }
            Ok(())
        })?;
        Ok(read)
    }
}

/// A version is a literal that fits a `u32`.
fn version(value: &Expr) -> Result<LitInt> {
    let wrong = || Error::new_spanned(value, "a version is a plain `u32`: `version = 2`");
    let Expr::Lit(syn::ExprLit { lit: syn::Lit::Int(number), .. }) = value else {
        return Err(wrong());
    };
    number.base10_parse::<u32>().map_err(|_| wrong())?;
    let typed = !matches!(number.suffix(), "" | "u32");
    if typed { Err(wrong()) } else { Ok(number.clone()) }
}

/// The attributes of a field, each with the key's place for messages.
#[derive(Default)]
pub(crate) struct FieldAttributes {
    /// `skip`, or `skip = expr`.
    pub(crate) skip: Option<(Span, Option<Expr>)>,
    pub(crate) with: Option<(Span, Type)>,
    pub(crate) unsorted: Option<Span>,
    pub(crate) hashed: Option<Span>,
    pub(crate) id: Option<Span>,
}

impl FieldAttributes {
    pub(crate) fn read(attrs: &[Attribute]) -> Result<FieldAttributes> {
        let mut read = FieldAttributes::default();
        each_key(attrs, |key, meta| {
            let span = key.span();
            match key.unraw().to_string().as_str() {
                "skip" => {
                    once(&read.skip, key)?;
                    let fresh = match meta.input.peek(Token![=]) {
                        true => Some(meta.value()?.parse()?),
                        false => None,
                    };
                    read.skip = Some((span, fresh));
                }
                "with" => {
                    once(&read.with, key)?;
                    let value = value(meta, "an rkyv `with` wrapper: `with = path::To`")?;
                    read.with = Some((span, value.parse()?));
                }
                "unsorted" => {
                    once(&read.unsorted, key)?;
                    bare(meta, key)?;
                    read.unsorted = Some(span);
                }
                "hashed" => {
                    once(&read.hashed, key)?;
                    bare(meta, key)?;
                    read.hashed = Some(span);
                }
                "id" => {
                    once(&read.id, key)?;
                    bare(meta, key)?;
                    read.id = Some(span);
                }
                _ => return Err(unknown(key, &FIELD_KEYS, &TYPE_KEYS, "the type")),
            }
            Ok(())
        })?;
        read.agree()?;
        Ok(read)
    }

    /// Refuses keys that exclude each other.
    fn agree(&self) -> Result<()> {
        let skip = self.skip.as_ref().map(|(span, _)| *span);
        let with = self.with.as_ref().map(|(span, _)| *span);
        let pairs = [
            (skip, with, "a skipped field is not archived, so `with` has nothing to do: keep one"),
            (skip, self.id, "a skipped field is not in the archive, so it cannot be the `id`"),
            (skip, self.unsorted, "a skipped field is not archived: remove `unsorted`"),
            (skip, self.hashed, "a skipped field is not archived: remove `hashed`"),
            (with, self.unsorted, "`with` decides how the field is archived: remove `unsorted`"),
            (with, self.hashed, "`with` decides how the field is archived: remove `hashed`"),
            (with, self.id, "an `id` is compared with archived ones, which `with` cannot do"),
            (self.unsorted, self.hashed, "a map is archived `unsorted` or `hashed`: keep one"),
            (self.unsorted, self.id, "an `id` needs a canonical order: remove `unsorted`"),
            (self.hashed, self.id, "an `id` needs a canonical order: remove `hashed`"),
        ];
        for (a, b, message) in pairs {
            if let (Some(_), Some(b)) = (a, b) {
                return Err(Error::new(b, message));
            }
        }
        Ok(())
    }

    /// The first attribute, where there is none to be.
    pub(crate) fn any(attrs: &[Attribute]) -> Option<&Attribute> {
        attrs.iter().find(|a| a.path().is_ident("snapshot"))
    }
}

fn each_key(
    attrs: &[Attribute],
    mut key: impl FnMut(&Ident, &ParseNestedMeta<'_>) -> Result<()>,
) -> Result<()> {
    for attr in attrs.iter().filter(|a| a.path().is_ident("snapshot")) {
        attr.parse_nested_meta(|meta| match meta.path.get_ident() {
            Some(ident) => key(&ident.clone(), &meta),
            None => Err(meta.error("a key of `snapshot` is one word")),
        })?;
    }
    Ok(())
}

fn once<T>(there: &Option<T>, key: &Ident) -> Result<()> {
    match there {
        Some(_) => Err(Error::new(key.span(), format!("`{key}` is given twice: keep one"))),
        None => Ok(()),
    }
}

fn bare(meta: &ParseNestedMeta<'_>, key: &Ident) -> Result<()> {
    if meta.input.peek(Token![=]) || meta.input.peek(syn::token::Paren) {
        return Err(meta.error(format!("`{key}` takes no value: write `#[snapshot({key})]`")));
    }
    Ok(())
}

fn value<'a>(meta: &ParseNestedMeta<'a>, wants: &str) -> Result<syn::parse::ParseStream<'a>> {
    let key = meta.path.get_ident().map(ToString::to_string).unwrap_or_default();
    let missing = || Error::new(meta.path.span(), format!("`{key}` needs a value, {wants}"));
    if !meta.input.peek(Token![=]) {
        return Err(missing());
    }
    let value = meta.value()?;
    if value.is_empty() || value.peek(Token![,]) { Err(missing()) } else { Ok(value) }
}

/// Names the keys there are, and the nearest where one is near.
fn unknown(key: &Ident, here: &[&str], elsewhere: &[&str], place: &str) -> Error {
    let key_text = key.unraw().to_string();
    let message = if elsewhere.contains(&key_text.as_str()) {
        format!("`{key_text}` belongs on {place}, not here")
    } else if let Some(near) = here.iter().find(|k| near(&key_text, k)) {
        format!("there is no `{key_text}`; did you mean `{near}`?")
    } else {
        let known: Vec<String> = here.iter().map(|k| format!("`{k}`")).collect();
        format!("there is no `{key_text}`; here one can write {}", known.join(", "))
    };
    Error::new(key.span(), message)
}

/// Two edits apart at most, or one begins with the other.
fn near(a: &str, b: &str) -> bool {
    if a.len() > 2 && (b.starts_with(a) || a.starts_with(b)) {
        return true;
    }
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let edit = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = edit.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()] <= 2 && b.len() > 2
}
