//! The alphabet of GPT-2, in which byte-level vocabularies write their names: every byte has a
//! printable character, its own where it has one, the next from U+0100 on where not
//! (<https://github.com/openai/gpt-2/blob/master/src/encoder.py>).

/// The character of each byte.
const CHARACTERS: [char; 256] = characters();
/// The byte of each character, one more than it; 0 for characters that are no byte's.
const BYTES: [u16; 0x144] = bytes();

/// The character that stands for a byte.
pub fn character(byte: u8) -> char {
    CHARACTERS[usize::from(byte)]
}

/// Appends the bytes that a name stands for. A name with a character from outside the alphabet is
/// a text as it is.
pub fn read(name: &str, out: &mut Vec<u8>) {
    let start = out.len();
    if name.bytes().all(is_printable_ascii) {
        return out.extend_from_slice(name.as_bytes());
    }
    for character in name.chars() {
        match BYTES.get(character as usize).copied().and_then(|byte| byte.checked_sub(1)) {
            Some(byte) => out.push(byte as u8),
            None => {
                out.truncate(start);
                return out.extend_from_slice(name.as_bytes());
            }
        }
    }
}

/// Appends the name of some bytes.
pub fn write(bytes: &[u8], out: &mut String) {
    out.extend(bytes.iter().map(|byte| character(*byte)));
}

const fn is_printable(byte: u8) -> bool {
    is_printable_ascii(byte) || matches!(byte, 0xA1..=0xAC | 0xAE..=0xFF)
}

const fn is_printable_ascii(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~')
}

const fn characters() -> [char; 256] {
    let mut all = ['\0'; 256];
    let (mut byte, mut moved) = (0usize, 0u32);
    while byte < 256 {
        if is_printable(byte as u8) {
            all[byte] = byte as u8 as char;
        } else if let Some(character) = char::from_u32(0x100 + moved) {
            all[byte] = character;
            moved += 1;
        }
        byte += 1;
    }
    all
}

const fn bytes() -> [u16; 0x144] {
    let mut all = [0; 0x144];
    let mut byte = 0;
    while byte < 256 {
        all[CHARACTERS[byte] as usize] = byte as u16 + 1;
        byte += 1;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_a_character_of_its_own_and_comes_back() {
        let all: Vec<u8> = (0..=255).collect();
        let (mut name, mut back) = (String::new(), Vec::new());
        write(&all, &mut name);
        read(&name, &mut back);
        assert_eq!(back, all);
        assert_eq!((character(b' '), character(b'\n'), character(b'a')), ('Ġ', 'Ċ', 'a'));
    }

    #[test]
    fn a_name_from_outside_the_alphabet_is_text() {
        let mut out = b"x".to_vec();
        read("Ġ日", &mut out);
        assert_eq!(out, "xĠ日".as_bytes());
    }
}
