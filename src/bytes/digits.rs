//! Numbers as digits at the end of a text. The formatting of the standard library costs hundreds of instructions for each, which a
//! record with its dozens of numbers would feel.

/// Adds a number in decimal digits, with zeros before it up to `width`.
pub fn push(out: &mut String, number: u64, width: usize) {
    push_base(out, number, 10, width);
}

/// Adds a number in sixteen hexadecimal digits.
pub fn push_hex(out: &mut String, number: u64) {
    push_base(out, number, 16, 16);
}

fn push_base(out: &mut String, mut number: u64, base: u64, width: usize) {
    // 2^64 has 20 decimal digits.
    let mut digits = [b'0'; 20];
    let mut used = 0_usize;
    for place in digits.iter_mut().rev() {
        if number == 0 && used >= width.max(1) {
            break;
        }
        let digit = (number % base) as u8;
        *place = if digit < 10 { b'0' + digit } else { b'a' + (digit - 10) };
        number /= base;
        used += 1;
    }
    let start = digits.len().saturating_sub(used);
    out.extend(digits.get(start..).unwrap_or_default().iter().map(|digit| char::from(*digit)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_the_standard_library_writes_them() {
        let mut random = fastrand::Rng::with_seed(2);
        let any: Vec<u64> = (0..2000).map(|_| random.u64(..) >> random.u32(0..64)).collect();
        for number in any.into_iter().chain([0, 1, 9, 10, 99, 100, u64::MAX]) {
            for width in [0, 1, 2, 3, 12, 20] {
                let mut text = String::from("x");
                push(&mut text, number, width);
                assert_eq!(text, format!("x{number:0width$}"));
            }
            let mut text = String::new();
            push_hex(&mut text, number);
            assert_eq!(text, format!("{number:016x}"));
        }
    }
}
