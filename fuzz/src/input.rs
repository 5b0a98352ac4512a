#![forbid(unsafe_code)]
//! The fuzzer's bytes, taken one by one; when they are used up, zeros.

/// Bytes to be used up.
#[derive(Debug)]
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub fn new(bytes: &'a [u8]) -> Input<'a> {
        Input(bytes)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let bytes = self.bytes(N);
        array[..bytes.len()].copy_from_slice(bytes);
        array
    }

    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    pub fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    pub fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    /// A number below `end`, which is not zero.
    pub fn below(&mut self, end: usize) -> usize {
        if end <= 256 { usize::from(self.byte()) % end } else { usize::from(self.u16()) % end }
    }

    /// The next bytes, as many as are left and at most `len`.
    pub fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// A number of the sizes at which things go wrong, as often as any other.
    pub fn odd_number(&mut self) -> u64 {
        match self.byte() {
            0 => 0,
            1 => 1,
            2 => u64::MAX,
            3 => u64::from(u32::MAX),
            4 => 1 << 31,
            5 => (1 << 31) - 1,
            6 => 1 << 52,
            7 => (1 << 52) - 1,
            8 => 1 << 63,
            9 => 0x80,
            n @ 10..128 => u64::from(n),
            n @ 128..192 => u64::from(n - 128) * 4096,
            192..224 => u64::from(self.u16()),
            224..240 => u64::from(self.u32()),
            240..255 => self.u64(),
            255 => u64::from(self.byte()).wrapping_neg(),
        }
    }
}
