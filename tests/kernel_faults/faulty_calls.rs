//! System calls that fail as planned.
//!
//! An executable that has this module defines the C library's functions below itself, so that the crate, mio and the
//! standard library call these. They count what is called, and make the kernel's calls, but for those that a plan says
//! fail. Plans and counts are the whole process's: for tests in a process of their own.

#![allow(dead_code, unreachable_pub)]

use std::mem::transmute;
use std::ptr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering::SeqCst};

use libc::{c_int, c_long, c_uint, c_void, epoll_event, sockaddr, socklen_t};

/// What can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Call {
    EpollCreate,
    EpollAdd,
    EpollModify,
    EpollRemove,
    /// `epoll_wait` that sleeps.
    Wait,
    /// `epoll_wait` that doesn't.
    Look,
    /// `epoll_pwait2`.
    ExactWait,
    /// Either of `Wait` and `ExactWait`, which are counted there as well.
    Sleep,
    Eventfd,
    SocketPair,
    /// Of an eventfd or a socket pair that was made while counting, as are the next two.
    NotifyWrite,
    NotifyRead,
    Socket,
    Bind,
    Listen,
    Connect,
    /// `getsockopt` and `getpeername`, which tell what became of a connection.
    SocketQuestion,
    /// `setsockopt`.
    SocketOption,
    Accept,
    Receive,
    Send,
    /// `fcntl`, of the flags that say whether it blocks.
    Flags,
    Thread,
    ForkHandler,
    /// `prctl` that asks for a timer slack or sets it, if it is made through `syscall`.
    Slack,
    /// `write` and `read` of everything else.
    OtherWrite,
    OtherRead,
    Close,
}

const CALLS: usize = Call::Close as usize + 1;

/// Instead of an errno: the call returns zero at once, as a wait may at any time.
pub const SPURIOUS: c_int = 0;

/// Which calls fail.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub call: Call,
    pub errno: c_int,
    /// The first one that fails, from 1.
    pub first: usize,
    /// How many fail from there on.
    pub times: usize,
}

impl Plan {
    /// Fails for ever.
    pub fn is_lasting(&self) -> bool {
        self.times == FOR_EVER
    }
}

pub const FOR_EVER: usize = usize::MAX / 2;

static COUNTING: AtomicBool = AtomicBool::new(false);
static COUNTS: [AtomicUsize; CALLS] = [const { AtomicUsize::new(0) }; CALLS];
static PLANNED: AtomicUsize = AtomicUsize::new(CALLS);
static ERRNO: AtomicI32 = AtomicI32::new(0);
static FIRST: AtomicUsize = AtomicUsize::new(0);
static TIMES: AtomicUsize = AtomicUsize::new(0);
static FAILED: AtomicUsize = AtomicUsize::new(0);
/// Descriptors that were closed, and weren't open.
static BAD_CLOSES: AtomicUsize = AtomicUsize::new(0);
static NOTIFY: [AtomicBool; 4096] = [const { AtomicBool::new(false) }; 4096];
/// Runs, once, in the call that fails first.
static HOOK: Mutex<Option<Box<dyn FnOnce() + Send>>> = Mutex::new(None);

/// What was called while a plan, or none, was in force.
#[derive(Clone, Debug)]
pub struct Counted {
    counts: [usize; CALLS],
    /// How many calls failed as planned.
    pub failed: usize,
    pub bad_closes: usize,
}

impl Counted {
    pub fn of(&self, call: Call) -> usize {
        self.counts[call as usize]
    }

    pub fn all(&self) -> usize {
        self.counts.iter().sum::<usize>() - self.of(Call::Sleep)
    }
}

/// Runs `body` while the plan is in force.
pub fn with_faults(plan: Option<Plan>, body: impl FnOnce()) -> Counted {
    for count in &COUNTS {
        count.store(0, SeqCst);
    }
    FAILED.store(0, SeqCst);
    BAD_CLOSES.store(0, SeqCst);
    if let Some(plan) = plan {
        ERRNO.store(plan.errno, SeqCst);
        FIRST.store(plan.first, SeqCst);
        TIMES.store(plan.times, SeqCst);
        PLANNED.store(plan.call as usize, SeqCst);
    }
    COUNTING.store(true, SeqCst);
    body();
    COUNTING.store(false, SeqCst);
    PLANNED.store(CALLS, SeqCst);
    Counted {
        counts: std::array::from_fn(|call| COUNTS[call].load(SeqCst)),
        failed: FAILED.load(SeqCst),
        bad_closes: BAD_CLOSES.load(SeqCst),
    }
}

/// Has something done by the next call that fails as planned, in its midst.
pub fn in_the_next_fault(hook: impl FnOnce() + Send + 'static) {
    *HOOK.lock().unwrap() = Some(Box::new(hook));
}

/// How many calls have failed as planned so far.
pub fn failed() -> usize {
    FAILED.load(SeqCst)
}

/// How many of these calls were made so far.
pub fn count(call: Call) -> usize {
    COUNTS[call as usize].load(SeqCst)
}

/// Ends the faults, but not the counting.
pub fn heal() {
    PLANNED.store(CALLS, SeqCst);
}

/// What the call answers, if it is to fail.
fn fault(call: Call) -> Option<c_int> {
    if !COUNTING.load(SeqCst) {
        return None;
    }
    let mut number = COUNTS[call as usize].fetch_add(1, SeqCst) + 1;
    let mut call = call;
    if matches!(call, Call::Wait | Call::ExactWait) {
        let sleeps = COUNTS[Call::Sleep as usize].fetch_add(1, SeqCst) + 1;
        if PLANNED.load(SeqCst) == Call::Sleep as usize {
            (call, number) = (Call::Sleep, sleeps);
        }
    }
    let (first, times) = (FIRST.load(SeqCst), TIMES.load(SeqCst));
    if PLANNED.load(SeqCst) != call as usize || number < first || number >= first + times {
        return None;
    }
    if FAILED.fetch_add(1, SeqCst) == 0 {
        let hook = HOOK.lock().unwrap().take();
        if let Some(hook) = hook {
            hook();
        }
    }
    match ERRNO.load(SeqCst) {
        SPURIOUS => Some(0),
        errno => {
            // SAFETY: the location is this thread's own.
            unsafe { *libc::__errno_location() = errno };
            Some(-1)
        }
    }
}

type Syscall = unsafe extern "C" fn(c_long, ...) -> c_long;

/// The C library's own function of that name.
fn real(name: &std::ffi::CStr, kept: &AtomicUsize) -> usize {
    let known = kept.load(SeqCst);
    if known != 0 {
        return known;
    }
    // SAFETY: the name is a C string.
    let found = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) } as usize;
    assert_ne!(found, 0);
    kept.store(found, SeqCst);
    found
}

fn kernel() -> Syscall {
    static KEPT: AtomicUsize = AtomicUsize::new(0);
    // SAFETY: that is the type of the C library's `syscall`.
    unsafe { transmute::<usize, Syscall>(real(c"syscall", &KEPT)) }
}

/// Makes a system call, unless it is to fail.
macro_rules! forward {
    ($call:expr, $number:ident $(, $argument:expr)*) => {{
        match fault($call) {
            Some(answer) => answer.into(),
            // SAFETY: the arguments are those of this function's caller, in the order of the system call; pointers and
            // lengths are good if the caller's are.
            None => unsafe { kernel()(libc::$number $(, $argument)*) as _ },
        }
    }};
}

fn is_notify(fd: c_int) -> bool {
    NOTIFY.get(fd as usize).is_some_and(|is| is.load(SeqCst))
}

fn set_notify(fd: c_int, is: bool) {
    if let Some(notify) = NOTIFY.get(fd as usize) {
        notify.store(is, SeqCst);
    }
}

#[unsafe(no_mangle)]
extern "C" fn epoll_create1(flags: c_int) -> c_int {
    forward!(Call::EpollCreate, SYS_epoll_create1, flags)
}

#[unsafe(no_mangle)]
extern "C" fn epoll_ctl(epoll: c_int, operation: c_int, fd: c_int, event: *mut epoll_event) -> c_int {
    let call = match operation {
        libc::EPOLL_CTL_ADD => Call::EpollAdd,
        libc::EPOLL_CTL_MOD => Call::EpollModify,
        _ => Call::EpollRemove,
    };
    forward!(call, SYS_epoll_ctl, epoll, operation, fd, event)
}

#[unsafe(no_mangle)]
extern "C" fn epoll_wait(epoll: c_int, events: *mut epoll_event, most: c_int, timeout: c_int) -> c_int {
    let call = if timeout == 0 { Call::Look } else { Call::Wait };
    let no_mask = ptr::null::<c_void>();
    forward!(call, SYS_epoll_pwait, epoll, events, most, timeout, no_mask, 8_usize)
}

/// Not variadic, as C declares it: on Linux's architectures integers come in the same places.
#[unsafe(no_mangle)]
extern "C" fn syscall(number: c_long, a: c_long, b: c_long, c: c_long, d: c_long, e: c_long, f: c_long) -> c_long {
    let call = match (number, a as c_int) {
        (libc::SYS_epoll_pwait2, _) => Some(Call::ExactWait),
        (libc::SYS_prctl, libc::PR_GET_TIMERSLACK | libc::PR_SET_TIMERSLACK) => Some(Call::Slack),
        _ => None,
    };
    if let Some(answer) = call.and_then(fault) {
        return answer.into();
    }
    // SAFETY: as in `forward`.
    unsafe { kernel()(number, a, b, c, d, e, f) }
}

#[unsafe(no_mangle)]
extern "C" fn eventfd(count: c_uint, flags: c_int) -> c_int {
    let fd = forward!(Call::Eventfd, SYS_eventfd2, count, flags);
    set_notify(fd, true);
    fd
}

#[unsafe(no_mangle)]
extern "C" fn socketpair(domain: c_int, kind: c_int, protocol: c_int, fds: *mut c_int) -> c_int {
    let result = forward!(Call::SocketPair, SYS_socketpair, domain, kind, protocol, fds);
    if result == 0 {
        // SAFETY: the kernel has just written two numbers there.
        unsafe { [*fds, *fds.add(1)] }
            .into_iter()
            .for_each(|fd| set_notify(fd, true));
    }
    result
}

#[unsafe(no_mangle)]
extern "C" fn write(fd: c_int, bytes: *const c_void, len: usize) -> isize {
    let call = if is_notify(fd) {
        Call::NotifyWrite
    } else {
        Call::OtherWrite
    };
    match fault(call) {
        Some(answer) => answer as isize,
        // SAFETY: as in `forward`.
        None => unsafe { kernel()(libc::SYS_write, fd, bytes, len) as isize },
    }
}

#[unsafe(no_mangle)]
extern "C" fn read(fd: c_int, bytes: *mut c_void, len: usize) -> isize {
    let call = if is_notify(fd) {
        Call::NotifyRead
    } else {
        Call::OtherRead
    };
    match fault(call) {
        Some(answer) => answer as isize,
        // SAFETY: as in `forward`.
        None => unsafe { kernel()(libc::SYS_read, fd, bytes, len) as isize },
    }
}

#[unsafe(no_mangle)]
extern "C" fn recv(fd: c_int, bytes: *mut c_void, len: usize, flags: c_int) -> isize {
    match fault(Call::Receive) {
        Some(answer) => answer as isize,
        None => {
            let (no_address, no_length) = (ptr::null::<c_void>(), ptr::null::<c_void>());
            // SAFETY: as in `forward`.
            unsafe { kernel()(libc::SYS_recvfrom, fd, bytes, len, flags, no_address, no_length) as isize }
        }
    }
}

#[unsafe(no_mangle)]
extern "C" fn send(fd: c_int, bytes: *const c_void, len: usize, flags: c_int) -> isize {
    match fault(Call::Send) {
        Some(answer) => answer as isize,
        None => {
            let (no_address, no_length) = (ptr::null::<c_void>(), 0_usize);
            // SAFETY: as in `forward`.
            unsafe { kernel()(libc::SYS_sendto, fd, bytes, len, flags, no_address, no_length) as isize }
        }
    }
}

#[unsafe(no_mangle)]
extern "C" fn close(fd: c_int) -> c_int {
    set_notify(fd, false);
    // Linux closes the descriptor in any case: a fault is only what it says of that.
    // SAFETY: as in `forward`.
    if unsafe { kernel()(libc::SYS_close, fd) } == -1 {
        BAD_CLOSES.fetch_add(1, SeqCst);
        return -1;
    }
    fault(Call::Close).unwrap_or(0)
}

#[unsafe(no_mangle)]
extern "C" fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int {
    forward!(Call::Socket, SYS_socket, domain, kind, protocol)
}

#[unsafe(no_mangle)]
extern "C" fn bind(fd: c_int, address: *const sockaddr, len: socklen_t) -> c_int {
    forward!(Call::Bind, SYS_bind, fd, address, len)
}

#[unsafe(no_mangle)]
extern "C" fn listen(fd: c_int, backlog: c_int) -> c_int {
    forward!(Call::Listen, SYS_listen, fd, backlog)
}

#[unsafe(no_mangle)]
extern "C" fn connect(fd: c_int, address: *const sockaddr, len: socklen_t) -> c_int {
    forward!(Call::Connect, SYS_connect, fd, address, len)
}

#[unsafe(no_mangle)]
extern "C" fn getpeername(fd: c_int, address: *mut sockaddr, len: *mut socklen_t) -> c_int {
    forward!(Call::SocketQuestion, SYS_getpeername, fd, address, len)
}

#[unsafe(no_mangle)]
extern "C" fn getsockopt(fd: c_int, level: c_int, name: c_int, value: *mut c_void, len: *mut socklen_t) -> c_int {
    forward!(Call::SocketQuestion, SYS_getsockopt, fd, level, name, value, len)
}

#[unsafe(no_mangle)]
extern "C" fn setsockopt(fd: c_int, level: c_int, name: c_int, value: *const c_void, len: socklen_t) -> c_int {
    forward!(Call::SocketOption, SYS_setsockopt, fd, level, name, value, len)
}

#[unsafe(no_mangle)]
extern "C" fn accept4(fd: c_int, address: *mut sockaddr, len: *mut socklen_t, flags: c_int) -> c_int {
    forward!(Call::Accept, SYS_accept4, fd, address, len, flags)
}

/// As `syscall`: not variadic.
#[unsafe(no_mangle)]
extern "C" fn fcntl(fd: c_int, command: c_int, argument: c_long) -> c_int {
    if matches!(command, libc::F_GETFL | libc::F_SETFL) {
        if let Some(answer) = fault(Call::Flags) {
            return answer;
        }
    }
    // SAFETY: as in `forward`.
    unsafe { kernel()(libc::SYS_fcntl, fd, command, argument) as c_int }
}

/// The functions of pthreads return their error, and leave errno alone.
#[unsafe(no_mangle)]
extern "C" fn pthread_create(
    thread: *mut libc::pthread_t,
    attributes: *const libc::pthread_attr_t,
    start: extern "C" fn(*mut c_void) -> *mut c_void,
    argument: *mut c_void,
) -> c_int {
    type Create = unsafe extern "C" fn(
        *mut libc::pthread_t,
        *const libc::pthread_attr_t,
        extern "C" fn(*mut c_void) -> *mut c_void,
        *mut c_void,
    ) -> c_int;
    static KEPT: AtomicUsize = AtomicUsize::new(0);
    if fault(Call::Thread).is_some() {
        return ERRNO.load(SeqCst);
    }
    // SAFETY: that is the type of the C library's `pthread_create`; the arguments are those of this function's caller.
    unsafe {
        let create = transmute::<usize, Create>(real(c"pthread_create", &KEPT));
        create(thread, attributes, start, argument)
    }
}

type Handler = Option<unsafe extern "C" fn()>;

/// What `pthread_atfork` is in the GNU C library, where it is no function of the shared object.
#[unsafe(no_mangle)]
extern "C" fn pthread_atfork(prepare: Handler, parent: Handler, child: Handler) -> c_int {
    unsafe extern "C" {
        fn __register_atfork(prepare: Handler, parent: Handler, child: Handler, object: *mut c_void) -> c_int;
    }
    if fault(Call::ForkHandler).is_some() {
        return ERRNO.load(SeqCst);
    }
    // SAFETY: the handlers are those of this function's caller; no shared object, so they are never taken out.
    unsafe { __register_atfork(prepare, parent, child, ptr::null_mut()) }
}
