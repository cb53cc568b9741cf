//! Servers that a test starts for itself, and ends.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use std::{env, fs, process, thread};

/// A directory that goes with its test.
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new(name: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = env::temp_dir().join(format!("evbase-{name}-{}-{number}", process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A server that listens; dropped, it is killed.
pub(crate) struct Server {
    child: Child,
    address: SocketAddr,
    directory: Directory,
}

impl Server {
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// SIGKILL: it has no time to say good-bye.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn start(mut command: Command, port: u16, directory: Directory) -> Self {
        let log = directory.path().join("log");
        let output = fs::File::create(&log).unwrap();
        command
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output);
        let mut server = Self {
            child: command.spawn().unwrap(),
            address: (Ipv4Addr::LOCALHOST, port).into(),
            directory,
        };
        let end = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(server.address).is_err() {
            let ended = server.child.try_wait().unwrap();
            if ended.is_some() || Instant::now() > end {
                panic!("{command:?} doesn't listen: {}", fs::read_to_string(&log).unwrap());
            }
            thread::sleep(Duration::from_millis(20));
        }
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // The children of a PostgreSQL notice, and may be writing until then: what they leave behind is in the temporary files.
        let _ = fs::remove_dir_all(self.directory.path());
    }
}

/// A port that nobody had a moment ago.
fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

pub(crate) fn redis() -> Server {
    let (port, directory) = (free_port(), Directory::new("redis"));
    let program = program("redis-server", &["/usr/bin".into()], "redis-server");
    let mut command = Command::new(program);
    command
        .current_dir(directory.path())
        .args(["--bind", "127.0.0.1", "--save", "", "--port", &port.to_string()]);
    Server::start(command, port, directory)
}

pub(crate) fn postgres() -> Server {
    let (port, directory) = (free_port(), Directory::new("postgres"));
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let folders: Vec<PathBuf> = versions.map(|version| version.path().join("bin")).collect();
    // It refuses to run as root.
    let owner = nix::unistd::geteuid().is_root().then(|| {
        let owner = nix::unistd::User::from_name("postgres").unwrap();
        owner.expect("Debian's package postgresql makes a user postgres")
    });
    let data = directory.path().join("data");
    let command = |name| {
        let mut command = Command::new(program(name, &folders, "postgresql"));
        if let Some(owner) = &owner {
            command.uid(owner.uid.as_raw()).gid(owner.gid.as_raw());
        }
        command.current_dir(directory.path());
        command
    };
    if let Some(owner) = &owner {
        std::os::unix::fs::chown(directory.path(), Some(owner.uid.as_raw()), Some(owner.gid.as_raw())).unwrap();
    }
    let made = command("initdb")
        .args([
            "--auth=trust",
            "--no-sync",
            "--username=postgres",
            "--encoding=UTF8",
            "--pgdata",
        ])
        .arg(&data)
        .output()
        .unwrap();
    assert!(
        made.status.success(),
        "initdb: {}",
        String::from_utf8_lossy(&made.stderr)
    );
    let mut server = command("postgres");
    server
        .args([
            "-F",
            "-h",
            "127.0.0.1",
            "-c",
            "unix_socket_directories=",
            "-p",
            &port.to_string(),
            "-D",
        ])
        .arg(&data);
    Server::start(server, port, directory)
}

fn program(name: &str, folders: &[PathBuf], package: &str) -> PathBuf {
    let found = folders
        .iter()
        .map(|folder| folder.join(name))
        .find(|path| path.exists());
    found.unwrap_or_else(|| panic!("{name} is needed for this test: install Debian's package {package}"))
}
