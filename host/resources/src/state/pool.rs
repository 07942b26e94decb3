//! The threads that wait for disks: a fixed number of them, however many objects there are. Work goes in as closures and is done in its order.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

type Task = Box<dyn FnOnce() + Send>;

/// A handle of the threads. They end when it is dropped and nothing is left to do.
pub(super) struct Pool(Arc<Shared>);

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    arrived: Condvar,
}

#[derive(Default)]
struct Queue {
    tasks: VecDeque<Task>,
    ended: bool,
}

impl Pool {
    /// Starts so many threads.
    pub fn start(threads: usize) -> io::Result<Self> {
        let pool = Self(Arc::default());
        for _ in 0..threads.max(1) {
            let shared = pool.0.clone();
            std::thread::Builder::new().name("state".to_owned()).spawn(move || shared.run())?;
        }
        Ok(pool)
    }

    /// Has something done by the next thread that is free.
    pub fn submit(&self, task: impl FnOnce() + Send + 'static) {
        self.0.queue().tasks.push_back(Box::new(task));
        self.0.arrived.notify_one();
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.0.queue().ended = true;
        self.0.arrived.notify_all();
    }
}

impl Shared {
    fn queue(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> Option<Task> {
        let mut queue = self.queue();
        loop {
            if let Some(task) = queue.tasks.pop_front() {
                return Some(task);
            }
            if queue.ended {
                return None;
            }
            queue = self.arrived.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn run(&self) {
        while let Some(task) = self.next() {
            // The work answers its callers by itself; whoever waits for what has panicked sees that its channel is gone.
            if catch_unwind(AssertUnwindSafe(task)).is_err() {
                tracing::error!("a task of State panicked");
            }
        }
    }
}
