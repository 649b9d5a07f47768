//! Writing exactly what Borg 1.x writes.

/// Appends values in Borg's dialect: shortest integers; byte strings as fixraw, raw16 or raw32, never `str8` or `bin`.
#[derive(Debug, Clone, Default)]
pub struct Writer {
    out: Vec<u8>,
}

impl Writer {
    /// An empty writer.
    #[must_use]
    pub fn new() -> Writer {
        Writer::default()
    }

    /// The bytes that `write` writes.
    pub fn packed(write: impl FnOnce(&mut Writer)) -> Vec<u8> {
        let mut writer = Writer::new();
        write(&mut writer);
        writer.into_bytes()
    }

    /// A writer that appends to bytes that are already there.
    #[must_use]
    pub fn append_to(out: Vec<u8>) -> Writer {
        Writer { out }
    }

    /// What was written.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.out
    }

    /// What was written so far.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.out
    }

    /// Number of bytes written so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.out.len()
    }

    /// True if nothing was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    fn tagged(&mut self, tag: u8, bytes: &[u8]) {
        self.out.push(tag);
        self.out.extend_from_slice(bytes);
    }

    /// Writes nil.
    pub fn nil(&mut self) {
        self.out.push(0xc0);
    }

    /// Writes true or false.
    pub fn bool(&mut self, value: bool) {
        self.out.push(if value { 0xc3 } else { 0xc2 });
    }

    /// Writes an integer in its shortest form.
    pub fn int(&mut self, value: i64) {
        if let Ok(value) = u64::try_from(value) {
            self.uint(value);
        } else if value >= -32 {
            self.out.push(value as i8 as u8);
        } else if let Ok(value) = i8::try_from(value) {
            self.tagged(0xd0, &value.to_be_bytes());
        } else if let Ok(value) = i16::try_from(value) {
            self.tagged(0xd1, &value.to_be_bytes());
        } else if let Ok(value) = i32::try_from(value) {
            self.tagged(0xd2, &value.to_be_bytes());
        } else {
            self.tagged(0xd3, &value.to_be_bytes());
        }
    }

    /// Writes an integer in its shortest form.
    pub fn uint(&mut self, value: u64) {
        if value < 0x80 {
            self.out.push(value as u8);
        } else if let Ok(value) = u8::try_from(value) {
            self.tagged(0xcc, &value.to_be_bytes());
        } else if let Ok(value) = u16::try_from(value) {
            self.tagged(0xcd, &value.to_be_bytes());
        } else if let Ok(value) = u32::try_from(value) {
            self.tagged(0xce, &value.to_be_bytes());
        } else {
            self.tagged(0xcf, &value.to_be_bytes());
        }
    }

    /// Writes a 64-bit float.
    pub fn float(&mut self, value: f64) {
        self.tagged(0xcb, &value.to_be_bytes());
    }

    /// Writes a byte string. More than 4 GiB cannot be written; nothing in Borg comes near.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.raw_head(bytes.len());
        self.out.extend_from_slice(bytes);
    }

    /// Writes only the head of a byte string; the caller supplies the bytes, here with [`Writer::bytes_of_raw`] or elsewhere.
    pub fn raw_head(&mut self, length: usize) {
        match length {
            0..=31 => self.out.push(0xa0 | length as u8),
            32..=0xffff => self.tagged(0xda, &(length as u16).to_be_bytes()),
            _ => self.tagged(0xdb, &(length as u32).to_be_bytes()),
        }
    }

    /// Appends bytes as they are, for example a value that is already packed.
    pub fn bytes_of_raw(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// Opens an array; the caller writes this many values.
    pub fn array(&mut self, length: usize) {
        match length {
            0..=15 => self.out.push(0x90 | length as u8),
            16..=0xffff => self.tagged(0xdc, &(length as u16).to_be_bytes()),
            _ => self.tagged(0xdd, &(length as u32).to_be_bytes()),
        }
    }

    /// Opens a map; the caller writes this many keys and values in turn.
    pub fn map(&mut self, pairs: usize) {
        match pairs {
            0..=15 => self.out.push(0x80 | pairs as u8),
            16..=0xffff => self.tagged(0xde, &(pairs as u16).to_be_bytes()),
            _ => self.tagged(0xdf, &(pairs as u32).to_be_bytes()),
        }
    }
}
