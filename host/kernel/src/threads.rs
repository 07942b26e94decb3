//! Threads of low priority, and how they have work done that may block.

use std::cell::Cell;
use std::panic::resume_unwind;

use tokio::runtime::Handle;
use tokio::task::JoinHandle;

thread_local! {
    static IS_LOW: Cell<bool> = const { Cell::new(false) };
}

/// Says that this thread has a lower priority than others. From here on it starts no threads.
pub fn mark_low() {
    IS_LOW.set(true);
}

/// Runs something that may block on a thread that may: what [`tokio::task::spawn_blocking`] does, from any thread.
///
/// The async runtime starts such a thread where it is asked for one, and a new thread has the priority of the one that starts it, for life. So a thread of low priority
/// lets one of the runtime's own ask.
#[track_caller]
pub fn spawn_blocking<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> JoinHandle<R> {
    spawn_blocking_on(&Handle::current(), work)
}

/// The same on that runtime.
#[track_caller]
#[expect(clippy::disallowed_methods, reason = "these are what the others are to use")]
pub fn spawn_blocking_on<R: Send + 'static>(runtime: &Handle, work: impl FnOnce() -> R + Send + 'static) -> JoinHandle<R> {
    if !IS_LOW.get() {
        return runtime.spawn_blocking(work);
    }
    runtime.spawn(async move {
        match tokio::task::spawn_blocking(work).await {
            Ok(result) => result,
            Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
            // It never began, because the runtime ends, and this task with it.
            Err(_) => std::future::pending().await,
        }
    })
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[tokio::test]
    async fn what_blocks_is_begun_by_a_thread_of_the_runtime_and_ends_as_it_would() {
        let runtime = Handle::current();
        let (begun, panicked) = thread::spawn(move || {
            mark_low();
            let begun = spawn_blocking_on(&runtime, || thread::current().id());
            (begun, spawn_blocking_on(&runtime, || -> () { panic!("as it would") }))
        })
        .join()
        .unwrap();
        assert_ne!(begun.await.unwrap(), thread::current().id());
        assert_eq!(*panicked.await.unwrap_err().into_panic().downcast::<&str>().unwrap(), "as it would");
    }
}
