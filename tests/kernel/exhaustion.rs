//! When the system has nothing left to give: clear errors, nothing lost, and everything works again afterwards.

use std::fs::File;
use std::io;
use std::time::Duration;

use evbase::base::EventBase;
use evbase::{Builder, Runtime};

use crate::support::{alone, limit_descriptors, open_descriptors};

/// Leaves the process with this many numbers for new descriptors.
fn leave_descriptors(free: usize) -> Vec<File> {
    limit_descriptors(256);
    let mut files = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        files.push(file);
    }
    files.truncate(files.len() - free);
    files
}

#[test]
fn without_descriptors_new_is_a_clear_error_and_loses_none() {
    alone(|| {
        // What is made once in a process (the watchdog's thread, the fork guard) is there.
        drop(Runtime::new().unwrap());
        let needed = {
            let before = open_descriptors().len();
            let _runtime = Runtime::new().unwrap();
            open_descriptors().len() - before
        };
        assert!(needed >= 2);
        for free in 0..=needed {
            let files = leave_descriptors(free);
            let before = open_descriptors();
            for _ in 0..20 {
                let made = Runtime::new();
                if free == needed {
                    made.unwrap().block_on(async {}).unwrap();
                } else {
                    let error = made.unwrap_err();
                    assert_eq!(error.raw_os_error(), Some(libc::EMFILE), "{error}");
                    assert!(error.to_string().contains("open files"), "{error}");
                }
                assert_eq!(open_descriptors(), before);
            }
            for _ in 0..20 {
                let base = EventBase::<()>::new();
                assert_eq!(base.is_ok(), free == needed);
                drop(base);
                assert_eq!(open_descriptors(), before);
            }
            let started = Builder::new()
                .start("home")
                .map(|runtime| runtime.shutdown().wait().unwrap());
            assert_eq!(started.is_ok(), free == needed);
            drop(files);
        }
    });
}

#[test]
fn runtimes_leave_no_descriptor_behind() {
    alone(|| {
        drop(Runtime::new().unwrap());
        let before = open_descriptors();
        for round in 0..200 {
            let runtime = Runtime::new().unwrap();
            let handles = (runtime.spawner(), runtime.shutdown_handle());
            match round % 3 {
                0 => {}
                1 => runtime.block_on(async {}).unwrap(),
                _ => {
                    let started = Builder::new().start("home").unwrap();
                    started.shutdown().wait().unwrap();
                }
            }
            drop(runtime);
            drop(handles);
        }
        // A home thread's own handle may keep its notify fd for a moment.
        crate::support::until(|| open_descriptors() == before);
    });
}

#[test]
fn a_runtime_that_has_its_descriptors_needs_no_more() {
    alone(|| {
        let runtime = Runtime::new().unwrap();
        let (reader, writer) = io::pipe().unwrap();
        let files = leave_descriptors(0);
        runtime
            .block_on(async {
                use std::io::{Read, Write};
                let reader = evbase::io::AsyncFd::new(reader).unwrap();
                let read = evbase::spawn_local(async move {
                    let n = reader.read_with(|mut pipe| pipe.read(&mut [0; 4])).await.unwrap();
                    (n, reader)
                });
                evbase::time::sleep(Duration::from_millis(1)).await;
                (&writer).write_all(b"abc").unwrap();
                let (n, _reader) = read.await.unwrap();
                assert_eq!(n, 3);
                let connected = evbase::net::TcpStream::connect("127.0.0.1:9").await;
                assert_eq!(connected.unwrap_err().raw_os_error(), Some(libc::EMFILE));
                let bound = evbase::net::TcpListener::bind("127.0.0.1:0").await;
                assert_eq!(bound.unwrap_err().raw_os_error(), Some(libc::EMFILE));
            })
            .unwrap();
        runtime.shutdown().wait().unwrap();
        drop(files);
    });
}
