//! A key finds its own source or nothing, whatever happens to descriptors in the meantime.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use evbase::base::{Backend, EventBase, Fired, Interest, Key, Mode};

use crate::support::{AT_ONCE, pair, ready};

fn register<S>(base: &mut EventBase<S>, fd: &impl std::os::fd::AsFd, payload: S) -> Key {
    base.register(fd, Interest::READABLE, Mode::Level, payload).unwrap()
}

/// Closes the descriptor `number`, and makes it one for the file of `fd`, in one step.
fn replace(number: RawFd, fd: &impl AsRawFd) {
    // SAFETY: both are open, and the test's own. Whoever owns `number` goes on with another file.
    assert_eq!(unsafe { libc::dup2(fd.as_raw_fd(), number) }, number);
}

#[test]
fn a_base_is_send_and_its_keys_are_small() {
    fn send<T: Send>() {}
    send::<EventBase<String, Vec<u8>>>();
    assert_eq!((size_of::<Key>(), size_of::<evbase::base::TimerKey>()), (8, 8));
}

#[test]
fn a_payload_is_kept_shown_and_given_back() {
    let mut base = EventBase::<String>::new().unwrap();
    let (ours, mut theirs) = pair();
    let key = register(&mut base, &ours, "a".to_owned());
    assert_eq!((base.get(key).map(String::as_str), base.sources()), (Some("a"), 1));
    base.get_mut(key).unwrap().push('b');
    theirs.write_all(b"hello").unwrap();
    let mut fired = Vec::new();
    let turned = base.turn(AT_ONCE, |event| {
        if let Fired::Source { key, payload, .. } = event {
            payload.push('c');
            fired.push(key);
        }
    });
    assert_eq!((turned.unwrap().events, fired), (1, vec![key]));
    assert_eq!((base.deregister(key).as_deref(), base.sources()), (Some("abc"), 0));
}

#[test]
fn a_stale_key_finds_nothing() {
    let mut base = EventBase::<_>::new().unwrap();
    let (ours, mut theirs) = pair();
    let stale = register(&mut base, &ours, 'a');
    assert_eq!(base.deregister(stale), Some('a'));
    let key = register(&mut base, &ours, 'b');
    assert_ne!(key, stale);
    assert!(base.get(stale).is_none() && base.get_mut(stale).is_none());
    assert_eq!(base.deregister(stale), None);
    let error = base.reregister(stale, Interest::WRITABLE, Mode::Edge).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    theirs.write_all(b"hello").unwrap();
    assert_eq!(ready(&mut base), ['b']);
}

#[test]
fn a_descriptor_is_registered_once() {
    let mut base = EventBase::<_>::new().unwrap();
    let (ours, mut theirs) = pair();
    register(&mut base, &ours, 'a');
    let error = base.register(&ours, Interest::WRITABLE, Mode::Edge, 'b').unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert!(
        error.to_string().contains(&format!("descriptor {}", ours.as_raw_fd())),
        "{error}"
    );
    // The first one is as it was, and a duplicate is another descriptor.
    assert_eq!(base.sources(), 1);
    assert!(ready(&mut base).is_empty());
    theirs.write_all(b"hello").unwrap();
    assert_eq!((ready(&mut base), ready(&mut base)), (vec!['a'], vec!['a']));
    let duplicate = ours.try_clone().unwrap();
    register(&mut base, &duplicate, 'b');
    assert_eq!(ready(&mut base), ['a', 'b']);
}

#[cfg(all(target_os = "linux", not(evbase_libkqueue)))]
#[test]
fn a_one_shot_source_that_has_fired_still_exists() {
    let mut base = EventBase::<_>::new().unwrap();
    let (ours, mut theirs) = pair();
    base.register(&ours, Interest::READABLE, Mode::OneShot, 'a').unwrap();
    theirs.write_all(b"hello").unwrap();
    assert_eq!(ready(&mut base), ['a']);
    let error = base
        .register(&ours, Interest::READABLE, Mode::OneShot, 'b')
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!(ready(&mut base), [], "asking has not armed it");
}

#[test]
fn a_regular_file_and_a_directory_are_unsupported() {
    let mut base = EventBase::<_>::new().unwrap();
    for path in ["Cargo.toml", "src"] {
        let file = File::open(path).unwrap();
        let error = base.register(&file, Interest::READABLE, Mode::Level, ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("thread pool"), "{error}");
    }
    assert_eq!(base.sources(), 0);
}

#[test]
fn a_bad_descriptor_is_an_error_and_costs_no_memory() {
    let mut base = EventBase::<_>::new().unwrap();
    // SAFETY: it isn't a descriptor, and nothing but the base's refusal comes of it.
    let bad = unsafe { BorrowedFd::borrow_raw(i32::MAX) };
    let error = base.register(bad, Interest::READABLE, Mode::Level, ()).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EBADF));
    assert_eq!(base.sources(), 0);
}

#[test]
fn a_descriptor_that_was_closed_is_deregistered_quietly() {
    let mut base = EventBase::<_>::new().unwrap();
    let (ours, _theirs) = pair();
    let key = register(&mut base, &ours, 'a');
    drop(ours);
    assert_eq!(base.deregister(key), Some('a'));
    assert_eq!(base.sources(), 0);
    assert!(ready(&mut base).is_empty());
}

#[cfg_attr(evbase_libkqueue, ignore = "libkqueue doesn't notice that a descriptor was closed")]
#[test]
fn a_number_that_was_closed_and_reused_belongs_to_the_newer_source() {
    let mut base = EventBase::<_>::new().unwrap();
    let (number, _old_peer) = pair();
    let (newer, mut new_peer) = pair();
    let old = register(&mut base, &number, "old");
    replace(number.as_raw_fd(), &newer);
    let new = register(&mut base, &number, "new");
    assert_eq!(base.sources(), 2);

    // The old source can neither change nor end the registration of the new one.
    let error = base.reregister(old, Interest::WRITABLE, Mode::Level).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(base.deregister(old), Some("old"));
    new_peer.write_all(b"hello").unwrap();
    assert_eq!(ready(&mut base), ["new"]);
    let error = base
        .register(&number, Interest::READABLE, Mode::Level, "third")
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!(base.deregister(new), Some("new"));
    assert_eq!((base.sources(), ready(&mut base)), (0, vec![]));
}

#[cfg(all(target_os = "linux", not(evbase_libkqueue)))]
#[test]
fn events_of_a_source_that_has_gone_are_ignored_and_its_leftover_is_taken_over() {
    let mut base = EventBase::<_>::new().unwrap();
    let (number, mut peer) = pair();
    let (other, _other_peer) = pair();
    let key = register(&mut base, &number, "old");
    let duplicate = number.try_clone().unwrap();
    replace(number.as_raw_fd(), &other);
    peer.write_all(b"hello").unwrap();
    // The duplicate keeps the registration alive, and now nothing leads to it.
    assert_eq!(base.deregister(key), Some("old"));
    assert!(ready(&mut base).is_empty());
    // Until the file comes back to its old number.
    replace(number.as_raw_fd(), &duplicate);
    let key = register(&mut base, &number, "new");
    assert_eq!(ready(&mut base), ["new"]);
    assert_eq!(base.deregister(key), Some("new"));
    assert!(ready(&mut base).is_empty());
}

#[cfg_attr(evbase_libkqueue, ignore = "libkqueue doesn't notice that a descriptor was closed")]
#[test]
fn reregister_does_not_touch_a_stranger_with_the_same_number() {
    let mut base = EventBase::<_>::new().unwrap();
    let (number, _peer) = pair();
    let (other, mut other_peer) = pair();
    let key = register(&mut base, &number, 'a');
    replace(number.as_raw_fd(), &other);
    other_peer.write_all(b"hello").unwrap();
    let error = base.reregister(key, Interest::READABLE, Mode::Level).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(ready(&mut base).is_empty());
    assert_eq!(base.deregister(key), Some('a'));
}

#[cfg_attr(evbase_libkqueue, ignore = "libkqueue doesn't notice that a descriptor was closed")]
#[test]
fn reregister_says_that_the_number_is_another_files_or_nobodys() {
    let mut base = EventBase::<_>::new().unwrap();
    let (number, _peer) = pair();
    let (other, _other_peer) = pair();
    let key = register(&mut base, &number, 'a');
    // A duplicate keeps the old file open, which makes no difference.
    let _duplicate = number.try_clone().unwrap();
    replace(number.as_raw_fd(), &other);
    let error = base.reregister(key, Interest::READABLE, Mode::Level).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let text = format!("descriptor {} is not registered", number.as_raw_fd());
    assert!(error.to_string().starts_with(&text), "{error}");

    // A file that is registered under another number of its own is another one, too.
    register(&mut base, &other, 'b');
    let error = base.reregister(key, Interest::READABLE, Mode::Level).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

/// Its number has a file that is known under that number from before, so Linux can't tell: the docs say so.
#[cfg(all(target_os = "linux", not(evbase_libkqueue)))]
#[test]
fn reregister_takes_over_what_was_registered_under_the_same_number_before_and_never_deregistered() {
    for deregistered_late in [false, true] {
        let mut base = EventBase::<_>::new().unwrap();
        let (number, mut old_peer) = pair();
        let (newer, mut new_peer) = pair();
        let old = register(&mut base, &number, "old");
        let duplicate = number.try_clone().unwrap();
        replace(number.as_raw_fd(), &newer);
        if deregistered_late {
            base.deregister(old);
        }
        let new = register(&mut base, &number, "new");
        // As long as the number is its own, it is found.
        base.reregister(new, Interest::READABLE, Mode::Level).unwrap();
        new_peer.write_all(b"hello").unwrap();
        assert_eq!(ready(&mut base), ["new"]);

        drop(newer);
        replace(number.as_raw_fd(), &duplicate);
        assert!(ready(&mut base).is_empty());
        base.reregister(new, Interest::READABLE, Mode::Level).unwrap();
        old_peer.write_all(b"hello").unwrap();
        assert_eq!(ready(&mut base), ["new"]);
        assert_eq!(base.deregister(new), Some("new"));
        assert!(ready(&mut base).is_empty());
    }
}

#[test]
fn clear_gives_everything_back() {
    let mut base = EventBase::<_, _>::new().unwrap();
    let (one, mut one_peer) = pair();
    let (other, _other_peer) = pair();
    let keys = [register(&mut base, &one, 1), register(&mut base, &other, 2)];
    let timer = base.arm(std::time::Instant::now(), 3);
    one_peer.write_all(b"hello").unwrap();
    let (mut sources, timers) = base.clear();
    sources.sort();
    assert_eq!((sources, timers), (vec![1, 2], vec![3]));
    assert_eq!((base.sources(), base.timers(), base.next_deadline()), (0, 0, None));
    assert!(keys.iter().all(|key| base.get(*key).is_none()) && base.timer(timer).is_none());
    assert!(ready(&mut base).is_empty());
    register(&mut base, &one, 4);
    assert_eq!(ready(&mut base), [4]);
}

#[test]
fn only_the_platforms_backend_can_be_had() {
    let base = EventBase::<()>::with_backend(Backend::default()).unwrap();
    assert_eq!(base.backend(), Backend::default());
    let missing = match Backend::default() {
        Backend::Epoll => Backend::Kqueue,
        _ => Backend::Epoll,
    };
    let error = EventBase::<()>::with_backend(missing).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains(&missing.to_string()), "{error}");
}

#[test]
fn a_batch_may_have_more_events_than_one_wait_reports_at_first() {
    let mut base = EventBase::<_>::new().unwrap();
    let pairs: Vec<_> = (0..150).map(|_| pair()).collect();
    for (n, (ours, theirs)) in pairs.iter().enumerate() {
        base.register(ours, Interest::READABLE, Mode::Edge, n).unwrap();
        (&*theirs).write_all(b"hello").unwrap();
    }
    let mut fired = Vec::new();
    while fired.len() < pairs.len() {
        let more = ready(&mut base);
        assert!(!more.is_empty());
        fired.extend(more);
    }
    fired.sort();
    assert!(fired.into_iter().eq(0..150));
    assert!(ready(&mut base).is_empty());
}
