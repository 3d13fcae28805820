//! Tokens, for C++.

/// The number of words of a text.
///
/// # Safety
/// `text` points to `length` bytes.
#[no_mangle]
pub unsafe extern "C" fn tokenizers_count(text: *const u8, length: usize) -> usize {
    words::count(std::slice::from_raw_parts(text, length))
}
