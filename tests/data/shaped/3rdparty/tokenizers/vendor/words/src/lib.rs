//! Words of a text.

/// How many there are; panics where the text is not UTF-8.
pub fn count(text: &[u8]) -> usize {
    std::str::from_utf8(text).expect("text is UTF-8").split_whitespace().count()
}
