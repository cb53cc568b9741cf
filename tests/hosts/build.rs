//! Links GLib and libuv, and compiles the small part in C that libuv needs, whose structures Rust doesn't know.

fn main() {
    println!("cargo::rerun-if-changed=c");
    let [libuv, _glib] = [("libuv", "libuv1-dev"), ("glib-2.0", "libglib2.0-dev")].map(|(library, package)| {
        let found = pkg_config::probe_library(library);
        found.unwrap_or_else(|error| {
            panic!(
                "{library} is one of the hosts, and is not here: install `{package}` and `pkg-config` (Debian's names)\n{error}"
            )
        })
    });
    cc::Build::new()
        .file("c/libuv.c")
        .includes(libuv.include_paths)
        .compile("evbase_hosts_libuv");
    // Again, after the code that uses it.
    libuv
        .libs
        .iter()
        .for_each(|name| println!("cargo::rustc-link-lib={name}"));
}
