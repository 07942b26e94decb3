//! The memory that SQLite takes, counted by thread: every allocation of the library passes through here, and a thread that runs a tenant's
//! statement has a limit beyond which allocations fail. The library's own limit is one for the whole process, so that one tenant's sort would
//! fail another's.
//!
//! The functions have to be in place before the library allocates for the first time, which may be in any module of the program; they are
//! therefore set before `main`.
#![expect(unsafe_code, reason = "the library takes its allocator as C functions, and frees what they return")]

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::ptr::{null_mut, with_exposed_provenance_mut};
use std::sync::atomic::{AtomicI32, Ordering};

use rusqlite::ffi;

/// Allocations are multiples of this, in bytes.
const STEP: c_int = 8;
/// What the library answered when the functions were set; negative before.
static INSTALLED: AtomicI32 = AtomicI32::new(-1);

thread_local! {
    /// Bytes that this thread has taken and not given back since its limit was set. Negative when it freed what others took.
    static USED: Cell<i64> = const { Cell::new(0) };
    /// How many it may have.
    static LIMIT: Cell<i64> = const { Cell::new(i64::MAX) };
    /// Whether an allocation was refused since the limit was set.
    static REFUSED: Cell<bool> = const { Cell::new(false) };
}

/// A limit on what this thread takes, until it is dropped.
pub(super) struct Limited(());

impl Limited {
    /// Begins to count. Limits do not nest.
    pub fn to(bytes: usize) -> Self {
        USED.set(0);
        REFUSED.set(false);
        LIMIT.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        Self(())
    }

    /// Counts from nothing again: another statement's turn.
    pub fn renew(&self) {
        USED.set(0);
        REFUSED.set(false);
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        LIMIT.set(i64::MAX);
    }
}

/// Whether an allocation of this thread was refused since its limit was set.
pub(super) fn refused() -> bool {
    REFUSED.get()
}

/// Whether the library allocates here.
pub(super) fn installed() -> bool {
    INSTALLED.load(Ordering::Relaxed) == ffi::SQLITE_OK
}

/// Whether so many bytes more are within the limit.
fn admits(bytes: i64) -> bool {
    let admitted = USED.get().saturating_add(bytes) <= LIMIT.get();
    if !admitted {
        REFUSED.set(true);
    }
    admitted
}

fn count(bytes: i64) {
    USED.set(USED.get().saturating_add(bytes));
}

fn held(memory: *mut c_void) -> i64 {
    // SAFETY: the pointer is null, or comes from the C allocator through the functions below and was not freed.
    i64::try_from(unsafe { libc::malloc_usable_size(memory) }).unwrap_or(i64::MAX)
}

unsafe extern "C" fn allocate(bytes: c_int) -> *mut c_void {
    let Ok(wanted) = usize::try_from(bytes) else { return null_mut() };
    if !admits(i64::from(bytes)) {
        return null_mut();
    }
    // SAFETY: any size may be asked for; the library checks for null.
    let memory = unsafe { libc::malloc(wanted) };
    count(held(memory));
    memory
}

unsafe extern "C" fn release(memory: *mut c_void) {
    count(-held(memory));
    // SAFETY: the library frees what it was given here, once.
    unsafe { libc::free(memory) }
}

unsafe extern "C" fn resize(memory: *mut c_void, bytes: c_int) -> *mut c_void {
    let Ok(wanted) = usize::try_from(bytes) else { return null_mut() };
    let before = held(memory);
    if !admits(i64::from(bytes).saturating_sub(before)) {
        return null_mut();
    }
    // SAFETY: the pointer is one of ours; when null is returned it stays valid, as the library expects.
    let after = unsafe { libc::realloc(memory, wanted) };
    if !after.is_null() {
        count(held(after) - before);
    }
    after
}

unsafe extern "C" fn size(memory: *mut c_void) -> c_int {
    c_int::try_from(held(memory)).unwrap_or(c_int::MAX)
}

unsafe extern "C" fn round_up(bytes: c_int) -> c_int {
    bytes.saturating_add(STEP - 1) & !(STEP - 1)
}

unsafe extern "C" fn begin(_: *mut c_void) -> c_int {
    ffi::SQLITE_OK
}

unsafe extern "C" fn end(_: *mut c_void) {}

extern "C" fn install() {
    let methods = ffi::sqlite3_mem_methods {
        xMalloc: Some(allocate),
        xFree: Some(release),
        xRealloc: Some(resize),
        xSize: Some(size),
        xRoundup: Some(round_up),
        xInit: Some(begin),
        xShutdown: Some(end),
        pAppData: with_exposed_provenance_mut(0),
    };
    // SAFETY: nothing else runs yet; the library copies the table.
    let result = unsafe { ffi::sqlite3_config(ffi::SQLITE_CONFIG_MALLOC, &raw const methods) };
    INSTALLED.store(result, Ordering::Relaxed);
}

/// Run by the loader before `main`.
#[used]
#[unsafe(link_section = ".init_array")]
static INSTALL: extern "C" fn() = install;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use rusqlite::Connection;

    use super::*;

    #[test]
    fn a_thread_that_takes_too_much_gets_an_error_and_others_do_not() {
        assert!(installed());
        let greedy =
            "SELECT length(group_concat(hex(randomblob(1000)))) FROM json_each('[1,2,3,4,5,6,7,8,9,10]'), json_each('[1,2,3,4,5,6,7,8,9,10]')";
        let connection = Connection::open_in_memory().unwrap();
        let limited = Limited::to(128 << 10);
        connection.query_row(greedy, [], |row| row.get::<_, i64>(0)).unwrap_err();
        assert!(refused());
        std::thread::spawn(|| Connection::open_in_memory().unwrap().query_row(greedy, [], |row| row.get::<_, i64>(0)).unwrap()).join().unwrap();
        drop(limited);
        assert!(connection.query_row(greedy, [], |row| row.get::<_, i64>(0)).unwrap() > 200_000);
    }
}
