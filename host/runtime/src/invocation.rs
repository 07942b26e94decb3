//! One invocation while it lives, and the chain that it belongs to.
//!
//! An invocation is shared by all that keep it alive: the guest's store, the body it answers with, the calls it makes. When the last of them is gone
//! its record is written, so a record is never early and never missing.

use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use tokio::sync::oneshot;

use tovuk_kernel::error::HopBody;
use tovuk_kernel::ids::AccountId;
use tovuk_kernel::limits::CHAIN_INVOCATIONS;
use tovuk_resources::state::Holds;

use crate::invoke::wall_ms;
use crate::record::{EventKind, Identity, LogLine, LogStream, Outcome, Record};
use crate::runtime::Runtime;
use crate::service::Deployment;
use crate::slots::TreeSlots;
use crate::trace::{self, TraceId};
use crate::turns::backlog::Backlog;

/// The invocations that one request from outside has caused so far.
pub struct Chain {
    /// Their trace.
    pub trace: TraceId,
    pub(crate) slots: TreeSlots,
    numbered: AtomicU32,
    hops: Mutex<Vec<Hop>>,
}

/// A refused call may be repeated as often as subrequests allow, and each answer has 32 of these.
const HOP_PATH_CHARS_MAX: usize = 256;

struct Hop {
    number: u32,
    service: Arc<Identity>,
    method: http::Method,
    path: http::Uri,
}

impl Chain {
    /// A chain whose first invocation has number 1.
    pub(crate) fn new(trace: TraceId, slots: TreeSlots, service: &Arc<Identity>, request: &http::request::Parts) -> Arc<Self> {
        let first = Hop { number: 1, service: service.clone(), method: request.method.clone(), path: request.uri.clone() };
        Arc::new(Self { trace, slots, numbered: AtomicU32::new(1), hops: Mutex::new(vec![first]) })
    }

    /// The next number, or the hops when there is none left, as `reader` may know them.
    pub(crate) fn number(&self, service: &Arc<Identity>, request: &http::request::Parts, reader: &AccountId) -> Result<u32, Vec<HopBody>> {
        let next = |numbered: u32| (numbered < CHAIN_INVOCATIONS).then_some(numbered + 1);
        let Ok(before) = self.numbered.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next) else {
            return Err(self.hops(reader));
        };
        let number = before + 1;
        let hop = Hop { number, service: service.clone(), method: request.method.clone(), path: request.uri.clone() };
        self.hops.lock().unwrap_or_else(PoisonError::into_inner).push(hop);
        Ok(number)
    }

    pub(crate) fn hops(&self, reader: &AccountId) -> Vec<HopBody> {
        let hops = self.hops.lock().unwrap_or_else(PoisonError::into_inner);
        let known = |hop: &Hop| HopBody {
            number: hop.number,
            service: hop.service.name.to_string(),
            method: hop.method.to_string(),
            path: hop.path.path().chars().take(HOP_PATH_CHARS_MAX).collect(),
        };
        // Chains pass from account to account through public addresses.
        let hidden =
            |hop: &Hop| HopBody { number: hop.number, service: "(of another account)".to_owned(), method: String::new(), path: String::new() };
        let mut hops: Vec<_> = hops.iter().map(|hop| if hop.service.account == *reader { known(hop) } else { hidden(hop) }).collect();
        hops.sort_unstable_by_key(|hop| hop.number);
        hops
    }
}

/// One invocation.
pub struct Invocation {
    pub(crate) runtime: Runtime,
    pub(crate) chain: Arc<Chain>,
    pub(crate) deployment: Arc<Deployment>,
    pub(crate) target: Arc<Identity>,
    pub(crate) number: u32,
    /// The calls of State objects that it is part of.
    pub(crate) holds: Holds,
    /// What its account has begun, for the first of a chain.
    pub(crate) backlog: Option<Arc<Backlog>>,
    pub(crate) span: u64,
    parent_span: u64,
    event: EventKind,
    caller: Option<Arc<Identity>>,
    pub(crate) method: http::Method,
    uri: http::Uri,
    started: Instant,
    pub(crate) started_ms: u64,

    pub(crate) cpu_ns: AtomicU64,
    pub(crate) fuel: AtomicU64,
    pub(crate) memory_peak_bytes: AtomicU64,
    pub(crate) memory_refused: AtomicBool,
    pub(crate) bytes_in: AtomicU64,
    pub(crate) bytes_out: AtomicU64,
    status: AtomicU16,
    subrequests: AtomicU32,
    /// Operations that were told of, or would have been.
    pub(crate) operations: AtomicU32,
    /// When a byte last moved, on the clock's monotonic scale; 0 until the response head is out.
    progress_ms: AtomicU64,
    /// The guest ended other than by returning, so what it streamed is not whole.
    broken: AtomicBool,
    /// A body had more bytes than allowed.
    pub(crate) request_too_large: AtomicBool,
    ended: OnceLock<(Outcome, Option<String>)>,
    told: Mutex<Option<oneshot::Sender<Outcome>>>,
}

/// What an invocation is made from.
pub(crate) struct Start<'a> {
    pub runtime: &'a Runtime,
    pub chain: Arc<Chain>,
    pub deployment: Arc<Deployment>,
    pub target: Arc<Identity>,
    pub number: u32,
    pub holds: Holds,
    pub backlog: Option<Arc<Backlog>>,
    pub parent_span: u64,
    pub event: EventKind,
    pub caller: Option<Arc<Identity>>,
    pub request: &'a http::request::Parts,
}

impl Invocation {
    pub(crate) fn start(start: Start<'_>) -> Arc<Self> {
        Arc::new(Self {
            started_ms: start.runtime.clock().monotonic_ms(),
            runtime: start.runtime.clone(),
            chain: start.chain,
            deployment: start.deployment,
            target: start.target,
            number: start.number,
            holds: start.holds,
            backlog: start.backlog,
            span: trace::random_span(),
            parent_span: start.parent_span,
            event: start.event,
            caller: start.caller,
            method: start.request.method.clone(),
            uri: start.request.uri.clone(),
            started: Instant::now(),
            cpu_ns: AtomicU64::new(0),
            fuel: AtomicU64::new(0),
            memory_peak_bytes: AtomicU64::new(0),
            memory_refused: AtomicBool::new(false),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            status: AtomicU16::new(0),
            subrequests: AtomicU32::new(0),
            operations: AtomicU32::new(0),
            progress_ms: AtomicU64::new(0),
            broken: AtomicBool::new(false),
            request_too_large: AtomicBool::new(false),
            ended: OnceLock::new(),
            told: Mutex::new(None),
        })
    }

    /// Says how the invocation ended. The first to say so is believed.
    pub(crate) fn end(&self, outcome: Outcome, detail: Option<String>) {
        let _ = self.ended.set((outcome, detail));
    }

    /// Resolves with the outcome when the last byte has gone.
    pub(crate) fn tell(&self) -> oneshot::Receiver<Outcome> {
        let (sender, receiver) = oneshot::channel();
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        receiver
    }

    /// The response head is known.
    pub(crate) fn head(&self, status: http::StatusCode) {
        self.status.store(status.as_u16(), Ordering::Relaxed);
        self.progress();
    }

    /// A byte has moved.
    pub(crate) fn progress(&self) {
        self.progress_ms.store(self.runtime.clock().monotonic_ms().max(1), Ordering::Relaxed);
    }

    /// When the invocation has to be stopped if nothing happens, on the clock's monotonic scale.
    pub(crate) fn due_ms(&self) -> u64 {
        match self.progress_ms.load(Ordering::Relaxed) {
            0 => self.started_ms + self.wall_ms(),
            progress_ms => progress_ms + self.deployment.limits.idle_ms,
        }
    }

    /// Whether a request from outside has begun it.
    pub(crate) fn is_from_outside(&self) -> bool {
        matches!(self.event, EventKind::Http)
    }

    /// How long it may take to answer.
    pub(crate) fn wall_ms(&self) -> u64 {
        wall_ms(self.event, &self.deployment)
    }

    pub(crate) fn head_is_out(&self) -> bool {
        self.progress_ms.load(Ordering::Relaxed) != 0
    }

    pub(crate) fn set_broken(&self) {
        self.broken.store(true, Ordering::Release);
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    /// A line for the service's log.
    pub(crate) fn log(&self, stream: LogStream, message: String) {
        let line = LogLine { service: self.target.clone(), trace: self.chain.trace, number: self.number, stream, message };
        self.runtime.observer().log(line);
    }

    /// Counts one call to somewhere; the limit when there are none left.
    pub(crate) fn count_subrequest(&self) -> Result<(), u32> {
        let limit = u32::try_from(self.deployment.limits.subrequests).unwrap_or(u32::MAX);
        let next = |made: u32| (made < limit).then_some(made + 1);
        self.subrequests.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).map(|_| ()).map_err(|_| limit)
    }
}

impl Drop for Invocation {
    fn drop(&mut self) {
        let (outcome, detail) = self.ended.take().unwrap_or((Outcome::Cancelled, None));
        if let Some(sender) = self.told.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            // Nobody need be waiting.
            let _ = sender.send(outcome);
        }
        let status = *self.status.get_mut();
        self.runtime.observer().invocation(Record {
            trace: self.chain.trace,
            span: self.span,
            parent_span: self.parent_span,
            number: self.number,
            event: self.event,
            caller: self.caller.take(),
            target: self.target.clone(),
            method: std::mem::take(&mut self.method),
            path: self.uri.path().to_owned(),
            status: (status != 0).then_some(status),
            outcome,
            detail,
            started: self.started,
            duration: self.started.elapsed(),
            hops: self.chain.numbered.load(Ordering::Relaxed),
            cpu_ns: *self.cpu_ns.get_mut(),
            fuel: *self.fuel.get_mut(),
            memory_peak_bytes: *self.memory_peak_bytes.get_mut(),
            bytes_in: *self.bytes_in.get_mut(),
            bytes_out: *self.bytes_out.get_mut(),
        });
    }
}
