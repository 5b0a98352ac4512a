#![forbid(unsafe_code)]
//! wincode, bitcode and postcard: a value encoded into a buffer that is kept, and a file written
//! beside and renamed, flushed or not.

use std::{
    fs::{self, File},
    io::Write as _,
    path::PathBuf,
};

use wincode::config::{Configuration, PREALLOCATION_SIZE_LIMIT_DISABLED};

use crate::place::{Place, Scratch};

/// The one thing that wincode refuses by default are long sequences.
type Unbounded = Configuration<true, PREALLOCATION_SIZE_LIMIT_DISABLED>;

const UNBOUNDED: Unbounded = Configuration::default().disable_preallocation_size_limit();

/// Encodes values, and gets them back.
pub trait Codec<T>: Default {
    /// What tables call it.
    const NAME: &'static str;
    /// The value's bytes, in a buffer that the next value takes over.
    fn encode(&mut self, value: &T) -> &[u8];
    /// A new value. Panics for bytes that are none.
    fn decode(bytes: &[u8]) -> T;
}

/// wincode with its default encoding.
#[derive(Debug, Default)]
pub struct Wincode(Vec<u8>);

/// bitcode, by its own derive.
#[derive(Default)]
pub struct Bitcode(bitcode::Buffer);

/// postcard, through serde.
#[derive(Debug, Default)]
pub struct Postcard(Vec<u8>);

impl<T> Codec<T> for Wincode
where
    T: wincode::SchemaWrite<Unbounded, Src = T>
        + for<'a> wincode::SchemaRead<'a, Unbounded, Dst = T>,
{
    const NAME: &'static str = "wincode";

    fn encode(&mut self, value: &T) -> &[u8] {
        self.0.clear();
        wincode::config::serialize_into(&mut self.0, value, UNBOUNDED).expect("wincode encodes");
        &self.0
    }

    fn decode(bytes: &[u8]) -> T {
        wincode::config::deserialize(bytes, UNBOUNDED).expect("wincode decodes")
    }
}

impl<T: bitcode::Encode + bitcode::DecodeOwned> Codec<T> for Bitcode {
    const NAME: &'static str = "bitcode";

    fn encode(&mut self, value: &T) -> &[u8] {
        self.0.encode(value)
    }

    fn decode(bytes: &[u8]) -> T {
        bitcode::decode(bytes).expect("bitcode decodes")
    }
}

impl<T: serde::Serialize + serde::de::DeserializeOwned> Codec<T> for Postcard {
    const NAME: &'static str = "postcard";

    fn encode(&mut self, value: &T) -> &[u8] {
        let mut buffer = std::mem::take(&mut self.0);
        buffer.clear();
        self.0 = postcard::to_extend(value, buffer).expect("postcard encodes");
        &self.0
    }

    fn decode(bytes: &[u8]) -> T {
        postcard::from_bytes(bytes).expect("postcard decodes")
    }
}

/// A file that is replaced as a whole: written under another name, then renamed.
#[derive(Debug)]
pub struct Replaced {
    dir: PathBuf,
    new: PathBuf,
    name: PathBuf,
    _scratch: Scratch,
}

impl Replaced {
    /// A file to be.
    pub fn new(place: Place) -> Replaced {
        let scratch = Scratch::new(place);
        let dir = scratch.at("file");
        fs::create_dir(&dir).expect("a directory");
        Replaced { new: dir.join("new"), name: dir.join("state"), dir, _scratch: scratch }
    }

    /// Replaces the file's bytes. Panics where the system refuses.
    pub fn write(&self, bytes: &[u8]) {
        fs::write(&self.new, bytes).expect("a file written");
        fs::rename(&self.new, &self.name).expect("a file renamed");
    }

    /// Replaces them so that they are on the disk: the file is flushed before it is renamed, the
    /// directory after. Panics where the system refuses.
    pub fn write_durably(&self, bytes: &[u8]) {
        let mut file = File::create(&self.new).expect("a file");
        file.write_all(bytes).expect("a file written");
        file.sync_all().expect("a file flushed");
        fs::rename(&self.new, &self.name).expect("a file renamed");
        File::open(&self.dir).and_then(|dir| dir.sync_all()).expect("a directory flushed");
    }
}
