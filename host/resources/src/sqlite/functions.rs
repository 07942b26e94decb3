//! SQL functions of the library that take time with the product of their arguments' lengths, and in which nothing can interrupt them: `instr`, `replace`
//! and the forms of `trim` with two arguments are replaced by ones whose time grows with the sum.
#![expect(unsafe_code, reason = "values are converted to text by the library, as its own functions have it")]

use std::collections::HashSet;
use std::ffi::{CStr, c_int};
use std::slice;

use memchr::memmem::Finder;
use rusqlite::{Connection, ffi};
use tovuk_kernel::limits::SQLITE_VALUE_BYTES_MAX;

type Function = unsafe extern "C" fn(*mut ffi::sqlite3_context, c_int, *mut *mut ffi::sqlite3_value);

/// Puts them in the place of the library's.
pub(super) fn register(connection: &Connection) -> rusqlite::Result<()> {
    let functions: [(&CStr, c_int, Function); 6] =
        [(c"instr", 2, instr), (c"replace", 3, replace), (c"trim", 2, trim), (c"ltrim", 2, ltrim), (c"rtrim", 2, rtrim), (c"unhex", 2, unhex)];
    for (name, arguments, function) in functions {
        let flags = ffi::SQLITE_UTF8 | ffi::SQLITE_DETERMINISTIC | ffi::SQLITE_INNOCUOUS;
        // SAFETY: the connection is open while it is borrowed, and the functions live as long as the program.
        let code = unsafe {
            let handle = connection.handle();
            ffi::sqlite3_create_function_v2(handle, name.as_ptr(), arguments, flags, std::ptr::null_mut(), Some(function), None, None, None)
        };
        if code != ffi::SQLITE_OK {
            return Err(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None));
        }
    }
    Ok(())
}

/// The arguments of a call. None if one of them is NULL, of which all of these functions make NULL.
///
/// # Safety
/// `values` are the arguments of a call in progress, `count` of them. What is returned is valid until the call ends.
unsafe fn arguments<'a, const N: usize>(count: c_int, values: *mut *mut ffi::sqlite3_value) -> Option<([&'a [u8]; N], bool)> {
    if usize::try_from(count) != Ok(N) {
        return None;
    }
    // SAFETY: as the caller says.
    let values = unsafe { slice::from_raw_parts(values, N) };
    let kinds = || values.iter().map(|value| unsafe { ffi::sqlite3_value_type(*value) });
    if kinds().any(|kind| kind == ffi::SQLITE_NULL) {
        return None;
    }
    let blobs = kinds().all(|kind| kind == ffi::SQLITE_BLOB);
    let mut texts = [&[][..]; N];
    for (text, value) in texts.iter_mut().zip(values) {
        // SAFETY: the pointer is asked for before the length, and nothing converts the value after that.
        *text = unsafe {
            let start = if blobs { ffi::sqlite3_value_blob(*value).cast::<u8>() } else { ffi::sqlite3_value_text(*value) };
            let length = usize::try_from(ffi::sqlite3_value_bytes(*value)).unwrap_or(0);
            if start.is_null() { &[] } else { slice::from_raw_parts(start, length) }
        };
    }
    Some((texts, blobs))
}

/// Answers with a text.
///
/// # Safety
/// `context` is that of a call in progress.
unsafe fn answer(context: *mut ffi::sqlite3_context, text: &[u8]) {
    let utf8 = u8::try_from(ffi::SQLITE_UTF8).unwrap_or(1);
    let length = u64::try_from(text.len()).unwrap_or(u64::MAX);
    // SAFETY: as the caller says; the library copies the text.
    unsafe { ffi::sqlite3_result_text64(context, text.as_ptr().cast(), length, ffi::SQLITE_TRANSIENT(), utf8) }
}

unsafe extern "C" fn instr(context: *mut ffi::sqlite3_context, count: c_int, values: *mut *mut ffi::sqlite3_value) {
    // SAFETY: the library calls this with a call's context and arguments; without an answer it is NULL.
    unsafe {
        let Some(([text, searched], blobs)) = arguments::<2>(count, values) else { return };
        ffi::sqlite3_result_int64(context, position(text, searched, blobs));
    }
}

unsafe extern "C" fn replace(context: *mut ffi::sqlite3_context, count: c_int, values: *mut *mut ffi::sqlite3_value) {
    // SAFETY: as for `instr`.
    unsafe {
        let Some(([text, searched, by], _)) = arguments::<3>(count, values) else { return };
        match replaced(text, searched, by) {
            Some(text) => answer(context, &text),
            None => ffi::sqlite3_result_error_toobig(context),
        }
    }
}

/// # Safety
/// As for `instr`.
unsafe fn trim_ends(context: *mut ffi::sqlite3_context, count: c_int, values: *mut *mut ffi::sqlite3_value, ends: (bool, bool)) {
    // SAFETY: as the caller says.
    unsafe {
        let Some(([text, set], _)) = arguments::<2>(count, values) else { return };
        answer(context, trimmed(text, set, ends));
    }
}

unsafe extern "C" fn trim(context: *mut ffi::sqlite3_context, count: c_int, values: *mut *mut ffi::sqlite3_value) {
    // SAFETY: as for `instr`.
    unsafe { trim_ends(context, count, values, (true, true)) }
}

unsafe extern "C" fn ltrim(context: *mut ffi::sqlite3_context, count: c_int, values: *mut *mut ffi::sqlite3_value) {
    // SAFETY: as for `instr`.
    unsafe { trim_ends(context, count, values, (true, false)) }
}

unsafe extern "C" fn rtrim(context: *mut ffi::sqlite3_context, count: c_int, values: *mut *mut ffi::sqlite3_value) {
    // SAFETY: as for `instr`.
    unsafe { trim_ends(context, count, values, (false, true)) }
}

unsafe extern "C" fn unhex(context: *mut ffi::sqlite3_context, _: c_int, _: *mut *mut ffi::sqlite3_value) {
    // SAFETY: as for `instr`; the text is copied.
    unsafe { ffi::sqlite3_result_error(context, c"unhex has one argument here; remove other characters with replace first".as_ptr(), -1) }
}

fn begins_character(byte: &u8) -> bool {
    byte & 0xc0 != 0x80
}

/// Where it is found, in characters or bytes counted from 1; 0 where it is not.
fn position(text: &[u8], searched: &[u8], bytes: bool) -> i64 {
    let Some(at) = Finder::new(searched).find(text) else { return 0 };
    let before = text.get(..at).unwrap_or_default();
    let before = if bytes { before.len() } else { before.iter().filter(|byte| begins_character(byte)).count() };
    i64::try_from(before).unwrap_or(i64::MAX).saturating_add(1)
}

/// None when it would be larger than a value may be.
fn replaced(text: &[u8], searched: &[u8], by: &[u8]) -> Option<Vec<u8>> {
    if searched.is_empty() {
        return Some(text.to_vec());
    }
    let max = usize::try_from(SQLITE_VALUE_BYTES_MAX).unwrap_or(usize::MAX);
    let (mut result, mut copied) = (Vec::new(), 0);
    for at in Finder::new(searched).find_iter(text) {
        result.extend_from_slice(text.get(copied..at)?);
        result.extend_from_slice(by);
        copied = at + searched.len();
        if result.len() > max {
            return None;
        }
    }
    result.extend_from_slice(text.get(copied..)?);
    Some(result)
}

/// The characters of a text, each with the bytes that continue it.
fn characters(text: &[u8]) -> HashSet<&[u8]> {
    let mut found = HashSet::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (first, after) = rest.split_at(first_length(rest));
        found.insert(first);
        rest = after;
    }
    found
}

fn first_length(text: &[u8]) -> usize {
    text.iter().skip(1).position(begins_character).map_or(text.len(), |at| at + 1)
}

/// The text without characters of the set at the ends that are asked for.
fn trimmed<'a>(text: &'a [u8], set: &[u8], (left, right): (bool, bool)) -> &'a [u8] {
    let set = characters(set);
    let mut rest = text;
    while left && !rest.is_empty() {
        let (first, after) = rest.split_at(first_length(rest));
        if !set.contains(first) {
            break;
        }
        rest = after;
    }
    while right && !rest.is_empty() {
        let (before, last) = rest.split_at(rest.iter().rposition(begins_character).unwrap_or(0));
        if !set.contains(last) {
            break;
        }
        rest = before;
    }
    rest
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use rusqlite::types::Value;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

        #[test]
        fn they_answer_like_the_library(text in "[abä€]{0,12}", searched in "[abä€]{0,3}", by in "[xä]{0,3}", number in any::<f64>()) {
            let (theirs, ours) = (Connection::open_in_memory().unwrap(), Connection::open_in_memory().unwrap());
            register(&ours).unwrap();
            for sql in [
                "select instr(?1, ?2)",
                "select instr(cast(?1 as blob), cast(?2 as blob))",
                "select instr(cast(?1 as blob), ?2)",
                "select instr(?4, '5')",
                "select replace(?1, ?2, ?3)",
                "select replace(?4, '1', ?2)",
                "select replace(?1, null, ?3)",
                "select trim(?1, ?2)",
                "select ltrim(?1, ?2)",
                "select rtrim(?1, ?2)",
                "select rtrim(?4, '0123')",
                "select trim(?1, null)",
            ] {
                let ask = |connection: &Connection| {
                    let mut statement = connection.prepare(sql).unwrap();
                    let params: [(&str, &dyn rusqlite::ToSql); 4] = [("?1", &text), ("?2", &searched), ("?3", &by), ("?4", &number)];
                    for (name, value) in params {
                        if let Some(at) = statement.parameter_index(name).unwrap() {
                            statement.raw_bind_parameter(at, value).unwrap();
                        }
                    }
                    let mut rows = statement.raw_query();
                    rows.next().unwrap().unwrap().get::<_, Value>(0).unwrap()
                };
                assert_eq!(ask(&ours), ask(&theirs), "{sql} of {text:?}, {searched:?}, {by:?}, {number}");
            }
        }
    }
}
