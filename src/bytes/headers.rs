//! A header map in the form in which a proxy-wasm host hands it over: one block of bytes, read and written whole.
//!
//! One host call returns all headers and another one replaces them; in between no header is copied. The form (proxy-wasm ABI
//! 0.2.1) is: the number of pairs, then the lengths of each name and value, all as little-endian `u32`, then name, NUL, value, NUL for
//! each pair. A block that is cut off or has wrong lengths is read as a shorter one, and never beyond its end.

use crate::bytes::ascii;

/// A header map as the host gave it.
#[derive(Clone, Debug, Default)]
pub struct Headers {
    block: Vec<u8>,
}

impl Headers {
    /// Takes the host's block.
    pub const fn new(block: Vec<u8>) -> Self {
        Self { block }
    }

    /// All headers in their order, with the names as the host gives them (in lower case on Envoy).
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> + '_ {
        let count = self.u32_at(0).unwrap_or(0) as usize;
        let mut sizes = 4;
        let mut data = count.saturating_mul(8).saturating_add(4);
        std::iter::from_fn(move || {
            if sizes >= count.saturating_mul(8).saturating_add(4) {
                return None;
            }
            let name_len = self.u32_at(sizes)? as usize;
            let value_len = self.u32_at(sizes.checked_add(4)?)? as usize;
            sizes = sizes.checked_add(8)?;
            let name = self.block.get(data..data.checked_add(name_len)?)?;
            let value_at = data.checked_add(name_len)?.checked_add(1)?;
            let value = self.block.get(value_at..value_at.checked_add(value_len)?)?;
            data = value_at.checked_add(value_len)?.checked_add(1)?;
            Some((name, value))
        })
    }

    /// The first value of a header. The case of the name does not matter. It is never inlined, as a dozen places call it.
    #[inline(never)]
    pub fn value(&self, name: &str) -> Option<&[u8]> {
        self.iter().find(|(key, _)| ascii::is_same(key, name)).map(|(_, value)| value)
    }

    /// The first value of a header as text; `None` if the header is absent or not UTF-8.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.value(name).and_then(|value| std::str::from_utf8(value).ok())
    }

    fn u32_at(&self, at: usize) -> Option<u32> {
        let bytes = self.block.get(at..at.checked_add(4)?)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    }
}

/// Writes a header map in the host's form.
#[derive(Debug)]
pub struct HeaderWriter {
    count: u32,
    sizes: Vec<u8>,
    data: Vec<u8>,
}

impl Default for HeaderWriter {
    /// Begins with room for a usual map, so that the buffers need not grow step by step.
    fn default() -> Self {
        Self { count: 0, sizes: Vec::with_capacity(16 * 8), data: Vec::with_capacity(512) }
    }
}

impl HeaderWriter {
    /// Adds a header. One whose value has a NUL, CR or LF is left out, because such a value could begin another header.
    pub fn add(&mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        self.push(name.as_ref(), value.as_ref());
    }

    /// As [`Self::add`]. It is never inlined: it is called for dozens of headers, each of which would get a copy.
    #[inline(never)]
    fn push(&mut self, name: &[u8], value: &[u8]) {
        if value.iter().any(|byte| matches!(byte, 0 | b'\r' | b'\n')) {
            return;
        }
        let (Ok(name_len), Ok(value_len)) = (u32::try_from(name.len()), u32::try_from(value.len())) else {
            return;
        };
        self.count += 1;
        self.sizes.extend_from_slice(&name_len.to_le_bytes());
        self.sizes.extend_from_slice(&value_len.to_le_bytes());
        self.data.extend_from_slice(name);
        self.data.push(0);
        self.data.extend_from_slice(value);
        self.data.push(0);
    }

    /// The block for the host.
    pub fn finish(self) -> Vec<u8> {
        [&self.count.to_le_bytes()[..], &self.sizes, &self.data].concat()
    }
}

impl<N: AsRef<[u8]>, V: AsRef<[u8]>> Extend<(N, V)> for HeaderWriter {
    fn extend<I: IntoIterator<Item = (N, V)>>(&mut self, headers: I) {
        for (name, value) in headers {
            self.add(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(headers: &[(&str, &str)]) -> Vec<u8> {
        let mut writer = HeaderWriter::default();
        writer.extend(headers.iter().copied());
        writer.finish()
    }

    #[test]
    fn what_is_written_is_read_back() {
        let pairs = [(":path", "/v1"), ("a", ""), ("b", "x y"), ("a", "second")];
        let headers = Headers::new(block(&pairs));
        let read: Vec<_> = headers.iter().map(|(n, v)| (n.to_vec(), v.to_vec())).collect();
        let expected: Vec<_> =
            pairs.iter().map(|(n, v)| (n.as_bytes().to_vec(), v.as_bytes().to_vec())).collect();
        assert_eq!(read, expected);
        assert_eq!(headers.text("A"), Some(""));
        assert_eq!(headers.value("c"), None);
    }

    #[test]
    fn a_cut_or_lying_block_reads_as_shorter() {
        let whole = block(&[("name", "value"), ("other", "thing")]);
        for cut in 0..whole.len() {
            assert!(Headers::new(whole[..cut].to_vec()).iter().count() <= 2);
            let mut lying = whole.clone();
            lying[cut] = 0xFF;
            let _ = Headers::new(lying).iter().count();
        }
        assert_eq!(Headers::new(vec![0xFF; 64]).iter().count(), 0);
    }

    #[test]
    fn a_value_that_would_split_the_header_is_left_out() {
        let headers = Headers::new(block(&[("a", "x\r\ninjected: 1"), ("b", "x\0y"), ("c", "ok")]));
        assert_eq!(headers.iter().count(), 1);
    }
}
