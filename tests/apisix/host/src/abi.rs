//! proxy-wasm's header maps as bytes, its statuses, and their kinds.

pub const OK: i32 = 0;
pub const NOT_FOUND: i32 = 1;
pub const BAD_ARGUMENT: i32 = 2;
pub const INVALID_MEMORY: i32 = 6;
pub const INTERNAL_FAILURE: i32 = 10;
pub const UNIMPLEMENTED: i32 = 12;

pub const REQUEST_HEADERS: i32 = 0;
pub const RESPONSE_HEADERS: i32 = 2;
pub const CALL_HEADERS: i32 = 6;

pub const REQUEST_BODY: i32 = 0;
pub const RESPONSE_BODY: i32 = 1;
pub const CALL_BODY: i32 = 4;
pub const CONFIGURATION: i32 = 7;

pub type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// A count, the lengths of all names and values, then each with a NUL behind it.
pub fn write_map(pairs: &Pairs) -> Vec<u8> {
    let mut bytes = (pairs.len() as u32).to_le_bytes().to_vec();
    for (name, value) in pairs {
        bytes.extend((name.len() as u32).to_le_bytes());
        bytes.extend((value.len() as u32).to_le_bytes());
    }
    for (name, value) in pairs {
        for text in [name, value] {
            bytes.extend(text);
            bytes.push(0);
        }
    }
    bytes
}

/// The same back; `None` if a length leads outside.
pub fn read_map(bytes: &[u8]) -> Option<Pairs> {
    let number =
        |place: usize| Some(u32::from_le_bytes(bytes.get(place..place + 4)?.try_into().ok()?) as usize);
    let count = number(0)?;
    let mut place = 4 + count.checked_mul(8)?;
    let mut next = |length: usize| {
        let text = bytes.get(place..place.checked_add(length)?)?.to_vec();
        place += length + 1;
        Some(text)
    };
    (0..count).map(|index| Some((next(number(4 + index * 8)?)?, next(number(8 + index * 8)?)?))).collect()
}

/// What a map looks like that was read wrongly: a count, and lengths and bytes that mean nothing.
pub fn garble(bytes: &[u8]) -> Vec<u8> {
    let mut state = bytes.len() as u32 ^ 0x9e37_79b9;
    let mut garbled = bytes.to_vec();
    for byte in garbled.iter_mut().skip(4) {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        *byte = state as u8;
    }
    garbled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_read_as_it_was_written() {
        let pairs: Pairs = vec![(b"a".to_vec(), b"bc".to_vec()), (b"".to_vec(), b"".to_vec())];
        assert_eq!(read_map(&write_map(&pairs)), Some(pairs));
    }

    #[test]
    fn a_length_that_leads_outside_is_refused() {
        let mut bytes = write_map(&vec![(b"a".to_vec(), b"b".to_vec())]);
        bytes[4] = 200;
        assert_eq!(read_map(&bytes), None);
    }
}
