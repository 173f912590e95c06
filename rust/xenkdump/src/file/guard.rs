//! Handles SIGBUS for mapped files that lose their pages.
//!
//! A read from a mapping whose file was truncated, or whose disk fails, raises SIGBUS, which would
//! kill the process. With the first mapping a handler is installed. If the address is within one of
//! our mappings, it sets that mapping's flag, replaces the *whole* mapping by zeros, and returns; the
//! reader finds the flag set afterwards and discards the bytes. Any other SIGBUS is passed on to the
//! previous handler.
//!
//! The handler only uses atomics and `mmap`, `sigaction`, `raise` and `gettid`: no lock, no
//! allocation. The mappings are in a table of fixed size; each slot is read as a seqlock, because the
//! handler may run on one thread while another opens or closes a dump.
//!
//! A handler that another library installs later hides this one, until the next file is mapped: then
//! this one is installed again, with the other one as its previous handler.

use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use libc::{c_int, c_void, sigaction, siginfo_t};

use crate::limits::MAX_MAPPED_FILES;

/// A watched range of addresses.
struct Slot {
    /// Odd while the slot is being changed.
    version: AtomicUsize,
    start: AtomicUsize,
    len: AtomicUsize,
    lost: AtomicBool,
    taken: AtomicBool,
}

static TABLE: [Slot; MAX_MAPPED_FILES] = [const {
    Slot {
        version: AtomicUsize::new(0),
        start: AtomicUsize::new(0),
        len: AtomicUsize::new(0),
        lost: AtomicBool::new(false),
        taken: AtomicBool::new(false),
    }
}; MAX_MAPPED_FILES];

impl Slot {
    fn set(&self, start: usize, len: usize) {
        self.version.fetch_add(1, Ordering::SeqCst);
        self.start.store(start, Ordering::SeqCst);
        self.len.store(len, Ordering::SeqCst);
        self.version.fetch_add(1, Ordering::SeqCst);
    }

    /// Start and length, if the range of the slot contains `address`.
    fn holding(&self, address: usize) -> Option<(usize, usize)> {
        let version = self.version.load(Ordering::SeqCst);
        let start = self.start.load(Ordering::SeqCst);
        let len = self.len.load(Ordering::SeqCst);
        // A slot that is being changed is not the one of `address`: its file is being read, so it is
        // neither being opened nor closed.
        let stable = version.is_multiple_of(2) && self.version.load(Ordering::SeqCst) == version;
        (stable && address.wrapping_sub(start) < len).then_some((start, len))
    }
}

/// Watches a range of addresses until it is dropped.
#[derive(Debug)]
pub(super) struct Guard(&'static Slot);

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Slot(lost: {:?})", self.lost)
    }
}

impl Guard {
    /// Watches the mapping of `len` bytes at `start`; `None` if no more can be watched.
    pub fn watch(start: usize, len: usize) -> Option<Self> {
        install()?;
        let slot = TABLE
            .iter()
            .find(|slot| !slot.taken.swap(true, Ordering::SeqCst))?;
        slot.lost.store(false, Ordering::SeqCst);
        slot.set(start, len);
        Some(Self(slot))
    }

    /// Whether any page of the range was missing.
    #[inline]
    pub fn is_lost(&self) -> bool {
        self.0.lost.load(Ordering::Relaxed)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.set(0, 0);
        self.0.taken.store(false, Ordering::SeqCst);
    }
}

/// The previous handler. Replaced as a whole and never freed, since a handler may be reading it: a few
/// bytes for each library that installs one.
static PREVIOUS: AtomicPtr<sigaction> = AtomicPtr::new(ptr::null_mut());

/// The thread that is running the previous handler, called from here.
static PASSING_ON: AtomicI32 = AtomicI32::new(0);

/// Makes this handler the first to get SIGBUS.
fn install() -> Option<()> {
    static INSTALLING: Mutex<()> = Mutex::new(());
    let _lock = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
    let handler = on_sigbus as extern "C" fn(c_int, *mut siginfo_t, *mut c_void) as usize;
    let mut found = MaybeUninit::<sigaction>::zeroed();
    // SAFETY: only queries the current action; `found` is a valid place for it, and zeros are a valid
    // `sigaction`.
    let found = unsafe {
        if libc::sigaction(libc::SIGBUS, ptr::null(), found.as_mut_ptr()) != 0 {
            return None;
        }
        found.assume_init()
    };
    if found.sa_sigaction == handler {
        return Some(());
    }
    // Must be set before the handler can run.
    PREVIOUS.store(Box::into_raw(Box::new(found)), Ordering::SeqCst);
    // SAFETY: zeros are a valid `sigaction`; the relevant fields are set. `on_sigbus` has the
    // signature for SA_SIGINFO, is static, and is async-signal-safe.
    unsafe {
        let mut ours: sigaction = MaybeUninit::zeroed().assume_init();
        ours.sa_sigaction = handler;
        // SA_NODEFER: the previous handler may raise the signal again, which must be delivered at once
        // to be recognized.
        ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
        libc::sigemptyset(&mut ours.sa_mask);
        (libc::sigaction(libc::SIGBUS, &ours, ptr::null_mut()) == 0).then_some(())
    }
}

extern "C" fn on_sigbus(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel passes SA_SIGINFO handlers a valid `siginfo_t`; the address is valid for
    // signals that the kernel itself raised (si_code > 0), and is used for those only.
    let address = unsafe {
        match info.as_ref() {
            Some(info) if info.si_code > 0 => Some(info.si_addr() as usize),
            _ => None,
        }
    };
    let ours = address.and_then(|address| {
        TABLE
            .iter()
            .find_map(|slot| Some((slot, slot.holding(address)?)))
    });
    match ours {
        Some((slot, (start, len))) => {
            // The flag must be set before the zeros can be read.
            slot.lost.store(true, Ordering::SeqCst);
            if !blank(start, len) {
                pass_on(signal, info, context);
            }
        }
        None => pass_on(signal, info, context),
    }
}

/// Replaces one of our mappings by zeros.
fn blank(start: usize, len: usize) -> bool {
    // SAFETY: `errno` belongs to the interrupted code, so it is restored. The range is a mapping made
    // by `MappedFile`, still alive because a read from it has just faulted; its start is page-aligned,
    // and the kernel rounds its length up as it did for the mapping. It is only used for reads of
    // plain bytes.
    unsafe {
        let errno = libc::__errno_location();
        let kept = *errno;
        let at = libc::mmap(
            start as *mut c_void,
            len,
            libc::PROT_READ,
            libc::MAP_FIXED | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        );
        *errno = kept;
        at as usize == start
    }
}

/// Passes the signal on to the previous handler, or to the default action.
fn pass_on(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: `PREVIOUS` is null or points to a `sigaction` that is never freed nor written to. Its
    // handler is called according to its flags, with the signal's arguments. The calls are
    // async-signal-safe.
    unsafe {
        let thread = libc::gettid();
        let again = PASSING_ON.load(Ordering::SeqCst) == thread;
        let previous = PREVIOUS.load(Ordering::SeqCst).as_ref();
        match previous {
            // Not called if the previous handler itself raised the signal again, as crash reporters do
            // after they have finished: the default action is then taken.
            Some(previous)
                if !again
                    && previous.sa_sigaction != libc::SIG_DFL
                    && previous.sa_sigaction != libc::SIG_IGN =>
            {
                PASSING_ON.store(thread, Ordering::SeqCst);
                if previous.sa_flags & libc::SA_SIGINFO != 0 {
                    let handler: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) =
                        std::mem::transmute(previous.sa_sigaction);
                    handler(signal, info, context);
                } else {
                    let handler: extern "C" fn(c_int) = std::mem::transmute(previous.sa_sigaction);
                    handler(signal);
                }
                PASSING_ON.store(0, Ordering::SeqCst);
            }
            _ => {
                let sent = info.as_ref().is_none_or(|info| info.si_code <= 0);
                let ignored = previous.is_some_and(|p| p.sa_sigaction == libc::SIG_IGN);
                if sent && ignored {
                    return;
                }
                // The faulting read is retried on return and then kills the process, with its own
                // address in the core file.
                libc::signal(libc::SIGBUS, libc::SIG_DFL);
                if sent {
                    libc::raise(signal);
                }
            }
        }
    }
}
