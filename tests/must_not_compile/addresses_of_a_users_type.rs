//! `ToSocketAddrs` is sealed: how it resolves names may change.

struct Mine;

impl evbase::net::ToSocketAddrs for Mine {}

fn main() {}
