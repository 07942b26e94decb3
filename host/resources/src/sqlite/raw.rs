//! Prepared statements with the counters that the safe layer does not show. A statement belongs to one connection, which must outlive it, and is
//! used by one thread at a time together with it; `link.rs` keeps both in one place, the statements first to be dropped.
#![expect(unsafe_code, reason = "statement scan status is only in the C interface")]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::{self, NonNull};
use std::slice;

use rusqlite::{Connection, ffi};

use super::value::Value;

/// A prepared statement.
pub(super) struct Statement(NonNull<ffi::sqlite3_stmt>);

// SAFETY: the library allows a statement to be used by different threads one after the other, and `Link` moves it with its connection.
unsafe impl Send for Statement {}

/// What a step came to.
pub(super) enum Step {
    Row,
    Done,
}

/// One loop of a statement.
pub(super) struct Scan {
    /// How often a row was looked at.
    pub visits: u64,
    /// What SQLite says about it, such as `SCAN notes`.
    pub text: String,
}

/// Prepares the first statement of `sql`, and returns it with what follows it. None when there is nothing but blanks and comments.
pub(super) fn prepare<'a>(connection: &Connection, sql: &'a str, keep: bool) -> rusqlite::Result<(Option<Statement>, &'a str)> {
    let length = c_int::try_from(sql.len()).map_err(|_| failure(ffi::SQLITE_TOOBIG, "the statement is too long"))?;
    let flags = if keep { ffi::SQLITE_PREPARE_PERSISTENT } else { 0 };
    let (mut statement, mut tail) = (ptr::null_mut(), ptr::null());
    // SAFETY: the connection is open while it is borrowed; the text is as long as said, and the tail points into it.
    let (code, used) = unsafe {
        let start = sql.as_ptr().cast::<c_char>();
        let code = ffi::sqlite3_prepare_v3(connection.handle(), start, length, flags, &raw mut statement, &raw mut tail);
        (code, if tail.is_null() { sql.len() } else { usize::try_from(tail.offset_from(start)).unwrap_or(sql.len()) })
    };
    let statement = NonNull::new(statement).map(Statement);
    if code != ffi::SQLITE_OK {
        return Err(last_error(connection, code));
    }
    Ok((statement, sql.get(used..).unwrap_or_default()))
}

/// How many rows refer to others that are not there, checked at the commit.
pub(super) fn deferred_constraints(connection: &Connection) -> bool {
    let (mut current, mut highest) = (0, 0);
    // SAFETY: the connection is open, and both places are integers of ours.
    let code = unsafe { ffi::sqlite3_db_status(connection.handle(), ffi::SQLITE_DBSTATUS_DEFERRED_FKS, &raw mut current, &raw mut highest, 0) };
    code == ffi::SQLITE_OK && current != 0
}

fn failure(code: c_int, text: &str) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(code), Some(text.to_owned()))
}

/// The error that the connection had last.
fn last_error(connection: &Connection, code: c_int) -> rusqlite::Error {
    // SAFETY: the connection is open; the text is copied before it is used again.
    let (extended, text) = unsafe {
        let handle = connection.handle();
        (ffi::sqlite3_extended_errcode(handle), CStr::from_ptr(ffi::sqlite3_errmsg(handle)).to_string_lossy().into_owned())
    };
    let extended = if extended & 0xff == code & 0xff { extended } else { code };
    failure(extended, &text)
}

impl Statement {
    fn raw(&self) -> *mut ffi::sqlite3_stmt {
        self.0.as_ptr()
    }

    /// Whether it changes nothing in the database.
    pub fn reads_only(&self) -> bool {
        // SAFETY: as for all calls below, the statement is open until it is dropped.
        unsafe { ffi::sqlite3_stmt_readonly(self.raw()) != 0 }
    }

    /// How many parameters it has: the number of the last.
    pub fn parameters(&self) -> usize {
        // SAFETY: see `reads_only`.
        usize::try_from(unsafe { ffi::sqlite3_bind_parameter_count(self.raw()) }).unwrap_or(0)
    }

    /// The name of a parameter, counted from 1, with its first character. None for `?`.
    pub fn parameter_name(&self, number: usize) -> Option<String> {
        let number = c_int::try_from(number).ok()?;
        // SAFETY: see `reads_only`; the name is copied at once.
        unsafe {
            let name = ffi::sqlite3_bind_parameter_name(self.raw(), number);
            (!name.is_null()).then(|| CStr::from_ptr(name).to_string_lossy().into_owned())
        }
    }

    /// Sets a parameter, counted from 1. The library keeps a copy.
    pub fn bind(&self, number: usize, value: &Value) -> Result<(), c_int> {
        let number = c_int::try_from(number).map_err(|_| ffi::SQLITE_RANGE)?;
        let length = |bytes: usize| u64::try_from(bytes).unwrap_or(u64::MAX);
        // SAFETY: see `reads_only`; texts and blobs are as long as said and are copied before the call returns.
        let code = unsafe {
            match value {
                Value::Null => ffi::sqlite3_bind_null(self.raw(), number),
                Value::Integer(integer) => ffi::sqlite3_bind_int64(self.raw(), number, *integer),
                Value::Real(real) => ffi::sqlite3_bind_double(self.raw(), number, *real),
                Value::Text(text) => {
                    let utf8 = u8::try_from(ffi::SQLITE_UTF8).unwrap_or(1);
                    ffi::sqlite3_bind_text64(self.raw(), number, text.as_ptr().cast(), length(text.len()), ffi::SQLITE_TRANSIENT(), utf8)
                }
                // A null pointer would be NULL and not an empty blob; that of an empty vector dangles and is not null.
                Value::Blob(bytes) => {
                    ffi::sqlite3_bind_blob64(self.raw(), number, bytes.as_ptr().cast::<c_void>(), length(bytes.len()), ffi::SQLITE_TRANSIENT())
                }
            }
        };
        if code == ffi::SQLITE_OK { Ok(()) } else { Err(code) }
    }

    /// Runs it to its next row or its end.
    pub fn step(&self, connection: &Connection) -> rusqlite::Result<Step> {
        // SAFETY: see `reads_only`.
        match unsafe { ffi::sqlite3_step(self.raw()) } {
            ffi::SQLITE_ROW => Ok(Step::Row),
            ffi::SQLITE_DONE => Ok(Step::Done),
            code => Err(last_error(connection, code)),
        }
    }

    /// Takes it back to its beginning, without parameters.
    pub fn reset(&self) {
        // SAFETY: see `reads_only`. The code is that of the last step, which was seen.
        unsafe {
            ffi::sqlite3_reset(self.raw());
            ffi::sqlite3_clear_bindings(self.raw());
        }
    }

    /// How many columns its rows have.
    pub fn columns(&self) -> usize {
        // SAFETY: see `reads_only`.
        usize::try_from(unsafe { ffi::sqlite3_column_count(self.raw()) }).unwrap_or(0)
    }

    /// The name of a column, counted from 0.
    pub fn column_name(&self, column: usize) -> String {
        let Ok(column) = c_int::try_from(column) else { return String::new() };
        // SAFETY: see `reads_only`; the name is copied at once.
        unsafe {
            let name = ffi::sqlite3_column_name(self.raw(), column);
            if name.is_null() { String::new() } else { CStr::from_ptr(name).to_string_lossy().into_owned() }
        }
    }

    /// The bytes of a column's name as SQLite has it, counted from 0. Nothing is copied.
    pub fn column_name_bytes(&self, column: usize) -> usize {
        let Ok(column) = c_int::try_from(column) else { return 0 };
        // SAFETY: see `reads_only`; the name is only measured.
        unsafe {
            let name = ffi::sqlite3_column_name(self.raw(), column);
            if name.is_null() { 0 } else { CStr::from_ptr(name).count_bytes() }
        }
    }

    /// The bytes of a text or blob in the row at which it stands, counted from 0; none of other values. Nothing is copied.
    pub fn column_bytes(&self, column: usize) -> usize {
        let Ok(column) = c_int::try_from(column) else { return 0 };
        // SAFETY: see `reads_only`; the length of a number is not asked for, which would make a text of it.
        unsafe {
            match ffi::sqlite3_column_type(self.raw(), column) {
                ffi::SQLITE_TEXT | ffi::SQLITE_BLOB => usize::try_from(ffi::sqlite3_column_bytes(self.raw(), column)).unwrap_or(0),
                _ => 0,
            }
        }
    }

    /// A value of the row at which it stands, counted from 0.
    pub fn column(&self, column: usize) -> Value {
        let Ok(column) = c_int::try_from(column) else { return Value::Null };
        // SAFETY: see `reads_only`; the pointer is asked for before the length, and what it points at is copied before the next call.
        unsafe {
            let bytes = |start: *const c_void| {
                let length = usize::try_from(ffi::sqlite3_column_bytes(self.raw(), column)).unwrap_or(0);
                if start.is_null() { &[] } else { slice::from_raw_parts(start.cast::<u8>(), length) }
            };
            match ffi::sqlite3_column_type(self.raw(), column) {
                ffi::SQLITE_INTEGER => Value::Integer(ffi::sqlite3_column_int64(self.raw(), column)),
                ffi::SQLITE_FLOAT => Value::Real(ffi::sqlite3_column_double(self.raw(), column)),
                ffi::SQLITE_TEXT => {
                    let text = ffi::sqlite3_column_text(self.raw(), column);
                    Value::Text(String::from_utf8_lossy(bytes(text.cast())).into_owned())
                }
                ffi::SQLITE_BLOB => Value::Blob(bytes(ffi::sqlite3_column_blob(self.raw(), column)).to_vec()),
                _ => Value::Null,
            }
        }
    }

    /// A counter of the statement, which starts anew.
    pub fn take_status(&self, counter: c_int) -> u64 {
        // SAFETY: see `reads_only`.
        u64::try_from(unsafe { ffi::sqlite3_stmt_status(self.raw(), counter, 1) }).unwrap_or(0)
    }

    /// What its loops have visited, which starts anew. The texts only of loops with at least `notable` visits.
    pub fn take_scans(&self, notable: u64) -> Vec<Scan> {
        let mut scans = Vec::new();
        for loop_number in 0.. {
            let mut visits: i64 = 0;
            // SAFETY: see `reads_only`; the library writes an integer of this size.
            let code = unsafe {
                let into = (&raw mut visits).cast::<c_void>();
                ffi::sqlite3_stmt_scanstatus_v2(self.raw(), loop_number, ffi::SQLITE_SCANSTAT_NVISIT, 0, into)
            };
            if code != ffi::SQLITE_OK {
                break;
            }
            let visits = u64::try_from(visits).unwrap_or(0);
            let text = if visits >= notable { self.scan_text(loop_number) } else { String::new() };
            scans.push(Scan { visits, text });
        }
        // SAFETY: see `reads_only`.
        unsafe { ffi::sqlite3_stmt_scanstatus_reset(self.raw()) };
        scans
    }

    fn scan_text(&self, loop_number: c_int) -> String {
        let mut text: *const c_char = ptr::null();
        // SAFETY: see `reads_only`; the library writes a pointer to a text of its own, which is copied at once.
        unsafe {
            let into = (&raw mut text).cast::<c_void>();
            let code = ffi::sqlite3_stmt_scanstatus_v2(self.raw(), loop_number, ffi::SQLITE_SCANSTAT_EXPLAIN, 0, into);
            if code != ffi::SQLITE_OK || text.is_null() { String::new() } else { CStr::from_ptr(text).to_string_lossy().into_owned() }
        }
    }
}

impl Drop for Statement {
    fn drop(&mut self) {
        // SAFETY: it is open, and nobody has it after this.
        unsafe { ffi::sqlite3_finalize(self.raw()) };
    }
}
