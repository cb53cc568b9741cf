//! Builds the cells of libevent and libuv if their headers are here; else the suite reports them as not available.

fn main() {
    println!("cargo::rerun-if-changed=c");
    println!("cargo::rustc-check-cfg=cfg(libevent, libuv)");
    println!("cargo::rustc-env=RUSTC_VERSION={}", rustc_version());

    for (cfg, file, packages) in [
        ("libevent", "c/libevent.c", &["libevent_core", "libevent_pthreads"][..]),
        ("libuv", "c/libuv.c", &["libuv"]),
    ] {
        let found: Result<Vec<_>, _> = packages
            .iter()
            .map(|package| pkg_config::Config::new().cargo_metadata(false).probe(package))
            .collect();
        match found {
            Ok(libraries) => {
                let mut build = cc::Build::new();
                build.file(file).opt_level(2).flag("-Wno-unused-parameter");
                for library in &libraries {
                    build.includes(&library.include_paths);
                }
                build.compile(&format!("cells_{cfg}"));
                // After the cells, which use them.
                for library in &libraries {
                    for path in &library.link_paths {
                        println!("cargo::rustc-link-search=native={}", path.display());
                    }
                    for name in &library.libs {
                        println!("cargo::rustc-link-lib={name}");
                    }
                }
                println!("cargo::rustc-cfg={cfg}");
                println!(
                    "cargo::rustc-env={}_VERSION={}",
                    cfg.to_uppercase(),
                    libraries[0].version
                );
            }
            Err(error) => println!(
                "cargo::warning=without {cfg}: {}",
                error.to_string().lines().next().unwrap_or("")
            ),
        }
    }
}

fn rustc_version() -> String {
    let rustc = std::env::var_os("RUSTC").expect("cargo says which rustc");
    let output = std::process::Command::new(rustc)
        .arg("-V")
        .output()
        .expect("rustc runs");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
