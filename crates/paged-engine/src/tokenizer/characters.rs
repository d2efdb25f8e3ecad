//! What kind of character a character is, as the patterns of pre-tokenizers ask for it.
//!
//! The categories are those of Unicode 15.1, the version that llama.cpp's tables hold, so that the
//! characters of later versions split alike.

use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory};

/// The classes that patterns tell apart. They exclude each other: whitespace is never a letter, a
/// number, a mark, punctuation or a symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// `\s`
    Space,
    /// `\p{L}`
    Letter,
    /// `\p{N}`
    Number,
    /// `\p{M}`
    Mark,
    /// `\p{P}`
    Punctuation,
    /// `\p{S}`
    Symbol,
    /// Controls, formats, private use, unassigned.
    Other,
}

/// The class of a character.
pub fn class(character: char) -> Class {
    match character {
        'a'..='z' | 'A'..='Z' => Class::Letter,
        '0'..='9' => Class::Number,
        ' ' | '\t'..='\r' => Class::Space,
        '$' | '+' | '<'..='>' | '^' | '`' | '|' | '~' => Class::Symbol,
        '!'..='~' => Class::Punctuation,
        '\0'..='\x7f' => Class::Other,
        other if other.is_whitespace() => Class::Space,
        other => match other.general_category_group() {
            GeneralCategoryGroup::Letter => Class::Letter,
            GeneralCategoryGroup::Number => Class::Number,
            GeneralCategoryGroup::Mark => Class::Mark,
            GeneralCategoryGroup::Punctuation => Class::Punctuation,
            GeneralCategoryGroup::Symbol => Class::Symbol,
            GeneralCategoryGroup::Separator | GeneralCategoryGroup::Other => Class::Other,
        },
    }
}

pub fn is_letter(character: char) -> bool {
    class(character) == Class::Letter
}

pub fn is_number(character: char) -> bool {
    class(character) == Class::Number
}

pub fn is_space(character: char) -> bool {
    class(character) == Class::Space
}

pub fn is_punctuation(character: char) -> bool {
    class(character) == Class::Punctuation
}

/// `[^\s\p{L}\p{N}]`: what is left when words, numbers and spaces are gone.
pub fn is_sign(character: char) -> bool {
    !matches!(class(character), Class::Space | Class::Letter | Class::Number)
}

pub fn is_newline(character: char) -> bool {
    matches!(character, '\r' | '\n')
}

/// Bytes of the longest beginning of `text` whose characters all satisfy `wanted`.
pub fn run(text: &str, wanted: impl Fn(char) -> bool) -> usize {
    text.find(|character| !wanted(character)).unwrap_or(text.len())
}

/// The first character and the text behind it.
pub fn first(text: &str) -> Option<(char, &str)> {
    let mut characters = text.chars();
    Some((characters.next()?, characters.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_short_way_for_ascii_says_what_the_tables_say() {
        for character in '\0'..='\x7f' {
            let expected = match character.general_category_group() {
                _ if character.is_whitespace() => Class::Space,
                GeneralCategoryGroup::Letter => Class::Letter,
                GeneralCategoryGroup::Number => Class::Number,
                GeneralCategoryGroup::Mark => Class::Mark,
                GeneralCategoryGroup::Punctuation => Class::Punctuation,
                GeneralCategoryGroup::Symbol => Class::Symbol,
                GeneralCategoryGroup::Separator | GeneralCategoryGroup::Other => Class::Other,
            };
            assert_eq!(class(character), expected, "{character:?}");
        }
    }

    #[test]
    fn the_tables_are_of_the_version_that_llama_cpp_has() {
        assert_eq!(unicode_properties::UNICODE_VERSION, (15, 1, 0));
        // Assigned in 15.1 and in 16.0.
        assert_eq!((class('\u{2ebf0}'), class('\u{1c89}')), (Class::Letter, Class::Other));
    }
}
